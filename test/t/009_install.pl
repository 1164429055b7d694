# CREATE EXTENSION is clear about what it will not install into; DROP EXTENSION
# does not take tenants along unasked, leaves nothing when asked, and opens no table;
# databases of a cluster do not concern each other.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main', extension => 0);
$node->safe_psql('postgres', 'CREATE ROLE regress_sky_boss LOGIN SUPERUSER; CREATE ROLE regress_sky_landlord LOGIN');
my $number = 0;

# A new database; returns its name.
sub new_database
{
	my (%opt) = @_;
	my $name = 'regress_sky_' . ++$number;
	$node->safe_psql('postgres', "CREATE DATABASE $name " . ($opt{options} // ''));
	$node->safe_psql($name, 'CREATE EXTENSION scrapersky') if $opt{extension};
	Sky::sample($node, $name) if $opt{sample};
	return $name;
}

sub superuser
{
	my ($dbname) = @_;
	return Sky::Session->new($node, dbname => $dbname);
}

sub app
{
	my ($dbname) = @_;
	return Sky::Session->new($node, user => 'regress_sky_app', dbname => $dbname);
}

# Everything a database has that an extension could leave behind, as lines.
sub inventory
{
	my ($session) = @_;
	my @counted = map { "SELECT '$_', count(*), md5(string_agg(c::text, '|' ORDER BY c::text)) FROM pg_catalog.$_ c" }
	  qw(pg_depend pg_shdepend pg_description pg_shdescription pg_init_privs pg_seclabel pg_default_acl pg_db_role_setting pg_extension pg_event_trigger pg_namespace
	  pg_proc pg_trigger pg_policy pg_constraint pg_index pg_attrdef pg_type pg_rewrite pg_operator pg_cast pg_collation pg_language pg_authid pg_auth_members pg_database pg_inherits);
	# statistics of tables change without anybody's doing
	push @counted, "SELECT 'pg_class', count(*), md5(string_agg(concat_ws(' ', oid, relname, relkind, relowner, relacl, relrowsecurity, relforcerowsecurity), '|' ORDER BY oid)) FROM pg_class";
	return $session->must(join(' UNION ALL ', @counted) . ' ORDER BY 1');
}

note 'a schema that somebody else made first';
for my $schema (qw(scrapersky scrapersky_api))
{
	my $dbname = new_database(options => 'OWNER regress_sky_landlord');
	my $landlord = Sky::Session->new($node, user => 'regress_sky_landlord', dbname => $dbname);
	like($landlord->query('CREATE EXTENSION scrapersky'), qr/^ERROR 42501/, 'the owner of a database cannot install it');
	$landlord->must("CREATE SCHEMA $schema");
	$landlord->must("CREATE FUNCTION $schema.current_tenant_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'");
	my $root = superuser($dbname);
	my $before = inventory($root);
	is($root->query('CREATE EXTENSION scrapersky'), "ERROR 42P06: schema \"$schema\" already exists", "a planted schema $schema: refused, with a reason");
	is($root->query("CREATE EXTENSION IF NOT EXISTS scrapersky CASCADE"), "ERROR 42P06: schema \"$schema\" already exists", 'in another form');
	is(inventory($root), $before, 'and nothing is left');
	$root->must("DROP SCHEMA $schema CASCADE");
	is($root->query('CREATE EXTENSION scrapersky'), '', 'without it, it goes in');
}

note 'what somebody else has planted elsewhere';
my $planted = new_database(options => 'OWNER regress_sky_landlord');
my $landlord = Sky::Session->new($node, user => 'regress_sky_landlord', dbname => $planted);
$landlord->must($_) for 'CREATE SCHEMA trap',
	(map { "CREATE FUNCTION trap.$_ LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN RAISE 'trapped'; END \$\$" }
	  'gen_random_uuid() RETURNS uuid', 'lower(text) RETURNS text', 'now() RETURNS timestamptz', 'format(text, VARIADIC text[]) RETURNS text', 'split_part(text, text, int) RETURNS text',
	  'lpad(text, int, text) RETURNS text', 'octet_length(text) RETURNS int', 'unnest(int[]) RETURNS SETOF int', 'eq(text, text) RETURNS boolean', 'equ(uuid, uuid) RETURNS boolean',
	  'getdatabaseencoding() RETURNS name', 'pg_extension_config_dump(regclass, text) RETURNS void'),
	'CREATE OPERATOR trap.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq)', 'CREATE OPERATOR trap.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq)',
	'CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq)', 'CREATE OPERATOR trap.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = trap.equ)',
	'CREATE DOMAIN trap.uuid AS text', 'CREATE DOMAIN trap.text AS varchar(1)', 'CREATE DOMAIN trap.boolean AS int',
	"ALTER DATABASE $planted SET search_path = trap, pg_catalog, public", "ALTER DATABASE $planted SET row_security = off",
	"ALTER DATABASE $planted SET default_transaction_isolation = 'serializable'", "ALTER DATABASE $planted SET standard_conforming_strings = off",
	"ALTER DATABASE $planted SET quote_all_identifiers = on", "ALTER DATABASE $planted SET bytea_output = 'escape'", "ALTER DATABASE $planted SET DateStyle = 'German'";
$node->safe_psql($planted, 'SET check_function_bodies = on; CREATE EXTENSION scrapersky');
is($node->safe_psql($planted, q(SET search_path = pg_catalog; SELECT count(*) FROM pg_depend d JOIN pg_depend e ON e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
	WHERE d.refobjid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'trap'::regnamespace UNION ALL SELECT oid FROM pg_type WHERE typnamespace = 'trap'::regnamespace
		UNION ALL SELECT oid FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace UNION ALL SELECT 'trap'::regnamespace::oid))), 0, 'nothing of ours depends on it');
my $root = superuser($planted);
is($root->query(q(SELECT pg_catalog.length(scrapersky.create_tenant('Acme', 'acme')::pg_catalog.text) OPERATOR(pg_catalog.+) 0)), 36, 'create_tenant()');
$root->must(q(SELECT scrapersky.create_user('alice')));
$root->must(q(SELECT scrapersky.add_member(t.id, u.id) FROM scrapersky.tenants t, scrapersky.users u));
$root->must(q(SELECT scrapersky.create_role('EDITOR'), scrapersky.create_permission('docs:read')));
$root->must(q(SELECT scrapersky.grant_permission('EDITOR', 'docs:read')));
$root->must(q(SELECT scrapersky.assign_role(id, 'EDITOR') FROM scrapersky.users));
$landlord = Sky::Session->new($node, user => 'regress_sky_landlord', dbname => $planted);
$landlord->must('BEGIN');
is($landlord->query('SELECT scrapersky.authenticate($1)', Sky::token('alice')), '', 'authenticate()');
is($landlord->query(q(SELECT scrapersky.current_subject(), scrapersky.has_permission('docs:read'), tenant_name FROM scrapersky.whoami())), 'alice|t|Acme', 'questions');
$landlord->must('COMMIT');
$landlord->must('SET search_path = pg_catalog');
$landlord->must('CREATE TABLE trap.things (id int4)');
$landlord->must('RESET search_path');
is($landlord->query(q(SELECT scrapersky.protect('trap.things', read_permission => 'docs:read'))), '', 'protect()');
like($landlord->query('SELECT 1 FROM trap.things'), qr/^ERROR 42501/, 'protects');
is($landlord->query(q(SELECT scrapersky.unprotect('trap.things'))), '', 'unprotect()');

# what whoever installs it gives away by default
my $generous = new_database();
$root = superuser($generous);
$root->must("ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO regress_sky_landlord, PUBLIC") for qw(TABLES FUNCTIONS SCHEMAS TYPES SEQUENCES);
my $empty = inventory($root);
is($root->query('CREATE EXTENSION scrapersky'), '', 'default privileges: it goes in');
is($root->query(q(SELECT count(*) FROM (SELECT relacl acl FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'scrapersky%' UNION ALL SELECT proacl FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'scrapersky%'
	UNION ALL SELECT nspacl FROM pg_namespace WHERE nspname LIKE 'scrapersky%') o, aclexplode(o.acl) a WHERE a.grantee = 'regress_sky_landlord'::regrole)), 0, 'default privileges: and gives nothing away');
my $guest = Sky::Session->new($node, user => 'regress_sky_landlord', dbname => $generous);
like($guest->query($_), qr/^ERROR 42501: permission denied/, "default privileges: $_")
  for 'INSERT INTO scrapersky.settings VALUES ($$anon$$, $$x$$)', 'SELECT scrapersky.create_tenant($$x$$)', 'SELECT * FROM scrapersky_api.users', 'SELECT scrapersky.pre_request()',
  'CREATE TABLE scrapersky.mine (id int)', 'CREATE FUNCTION scrapersky_api.mine() RETURNS int LANGUAGE sql RETURN 1', 'TRUNCATE scrapersky.tenants CASCADE';
is($root->query('DROP EXTENSION scrapersky'), '', 'default privileges: it goes');
is(inventory($root), $empty, 'default privileges: nothing is left');

note 'databases that it is not for';
for my $options ("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
{
	my $session = superuser(new_database(options => $options));
	my $before = inventory($session);
	is($session->query('CREATE EXTENSION scrapersky'), 'ERROR 0A000: scrapersky needs a database in UTF8', "$options: refused");
	is(inventory($session), $before, 'and nothing is left');
}
my $dbname = new_database();
$root = superuser($dbname);
my $before = inventory($root);
like($root->query("CREATE EXTENSION scrapersky $_"), qr/^ERROR/, "CREATE EXTENSION $_: refused") for 'SCHEMA public', q(VERSION '0.0.1');
$root->must('BEGIN');
$root->must('CREATE EXTENSION scrapersky');
$root->must('ROLLBACK');
is(inventory($root), $before, 'rolled back: nothing is left');

note 'dropped before anybody used it: nothing is left';
$root->must('CREATE EXTENSION scrapersky');
isnt(inventory($root), $before, 'there is something to drop');
like($root->query('ALTER EXTENSION scrapersky SET SCHEMA public'), qr/^ERROR 0A000/, 'it does not move');
is($root->query('DROP EXTENSION scrapersky'), '', 'without tenants it may be dropped');
is(inventory($root), $before, 'nothing is left');
$root->must('CREATE EXTENSION scrapersky');
is($root->query('DROP SCHEMA scrapersky CASCADE') =~ s/ because.*//r, 'ERROR 2BP01: cannot drop schema scrapersky', 'not by its schema');
is($root->query('DROP EXTENSION scrapersky CASCADE'), '', 'dropped by the session that made it');
is(inventory($root), $before, 'nothing is left');

note 'with tenants: every way is refused';
$dbname = new_database();
$node->safe_psql($dbname, 'SET ROLE regress_sky_boss; CREATE EXTENSION scrapersky; RESET ROLE; CREATE EXTENSION pgcrypto');
Sky::sample($node, $dbname);
my $holds = 'ERROR 55006: extension scrapersky holds tenants, which dropping it would delete';
$root = superuser($dbname);
$root->must('CREATE SCHEMA other AUTHORIZATION regress_sky_boss');
my $all = inventory($root);
for my $settings ('', 'SET session_replication_role = replica', 'SET ROLE regress_sky_boss')
{
	for my $drop ('DROP EXTENSION scrapersky', 'DROP EXTENSION scrapersky CASCADE', 'DROP EXTENSION IF EXISTS scrapersky CASCADE', 'DROP EXTENSION pgcrypto, scrapersky CASCADE',
		'DROP EXTENSION scrapersky, pgcrypto CASCADE', 'DROP EXTENSION plpgsql CASCADE', 'DROP OWNED BY regress_sky_boss CASCADE', 'DROP OWNED BY regress_sky_landlord, regress_sky_boss CASCADE',
		'DO $$ BEGIN DROP EXTENSION scrapersky CASCADE; END $$', q(DO $$ BEGIN EXECUTE 'DROP EXTENSION scrapersky' || ' CASCADE'; END $$), 'DROP EXTENSION "scrapersky" CASCADE')
	{
		for my $session ($root, superuser($dbname))
		{
			$session->must($settings) if $settings;
			# without CASCADE the tables that depend on it may speak first
			my $answer = $session->query($drop);
			$drop =~ /CASCADE/ ? is($answer, $holds, "$drop: refused") : like($answer, qr/^(?:$holds$|ERROR 2BP01)/, "$drop: refused");
			$session->must('RESET ROLE');
		}
	}
}
is($root->query('DROP OWNED BY CURRENT_USER'), 'ERROR 2BP01: cannot drop objects owned by role ' . $root->must('SELECT current_user') . ' because they are required by the database system',
	'DROP OWNED BY whoever the cluster belongs to: refused anyway');
$root->must('RESET session_replication_role');
$root->must('SET ROLE regress_sky_boss');
is($root->query('DROP OWNED BY CURRENT_USER CASCADE'), $holds, 'DROP OWNED BY CURRENT_USER: refused');
is($root->query('DROP OWNED BY SESSION_USER, CURRENT_ROLE CASCADE') =~ s/role \S+/role/r,
	'ERROR 2BP01: cannot drop objects owned by role because they are required by the database system', 'DROP OWNED BY SESSION_USER: refused');
$root->must('RESET ROLE');
like($root->query($_), qr/^ERROR 2BP01/, "$_: refused")
  for 'DROP TABLE scrapersky.tenants CASCADE', 'DROP SCHEMA scrapersky CASCADE', 'DROP SCHEMA scrapersky_api CASCADE', 'DROP EVENT TRIGGER scrapersky_guard_drop',
  'DROP FUNCTION scrapersky.guard_drop() CASCADE', 'DROP LANGUAGE plpgsql CASCADE', 'DROP FUNCTION scrapersky.current_tenant_id() CASCADE',
  'DROP POLICY same_tenant ON scrapersky.tenants; DROP TABLE scrapersky.tenants', 'DROP ROLE regress_sky_boss';
for my $steps ([ 'ALTER EVENT TRIGGER scrapersky_guard_drop DISABLE', 'DROP EXTENSION scrapersky CASCADE' ],
	[ 'ALTER EXTENSION scrapersky DROP EVENT TRIGGER scrapersky_guard_drop', 'DROP EVENT TRIGGER scrapersky_guard_drop', 'DROP EXTENSION scrapersky CASCADE' ])
{
	my @steps = @$steps;
	my $last = pop @steps;
	$root->must('BEGIN');
	$root->must($_) for @steps;
	is($root->query($last), $holds, join('; ', @$steps) . ': refused');
	$root->must('ROLLBACK');
}
my $other = app($dbname);
like($other->query($_), qr/^ERROR 42501/, "$_ by somebody else: refused") for 'DROP EXTENSION scrapersky CASCADE', 'SET scrapersky.allow_drop = on';
is(inventory($root), $all, 'after all that, nothing is missing');
$other->must('BEGIN');
$other->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
is($other->query('SELECT count(*) FROM app.docs'), 3, 'and it works');
$other->must('COMMIT');
$root->must('VACUUM FULL scrapersky.tenants');
$root->must('CLUSTER scrapersky.tenants USING tenants_pkey');
$root->must('REINDEX TABLE scrapersky.tenants');
is($root->query('SELECT count(*) FROM scrapersky.tenants'), 2, 'maintenance is not dropping');
$root->must('BEGIN');
$root->must('ALTER TABLE scrapersky.tenants ADD COLUMN extra int');
$root->must('ALTER TABLE scrapersky.tenants DROP COLUMN extra');
$root->must('ROLLBACK');

note 'when asked, it goes: nothing is left, and nothing is open';
my $gone = new_database();
$root = superuser($gone);
$node->safe_psql($gone, 'GRANT CREATE ON SCHEMA public TO regress_sky_app');
$before = inventory($root);
$node->safe_psql($gone, 'CREATE EXTENSION scrapersky');
Sky::sample($node, $gone);
my $warm = app($gone);
my $alice = Sky::token('alice');
$warm->must('BEGIN');
$warm->must('SELECT scrapersky.authenticate($1)', $alice);
is($warm->query('SELECT count(*) FROM app.docs'), 3, 'alice sees her rows');
$warm->must('COMMIT');
is($root->query('DROP EXTENSION scrapersky CASCADE'), $holds, 'not unasked');
$root->must('SET scrapersky.allow_drop = on');
is($root->query('DROP EXTENSION scrapersky'), 'ERROR 2BP01: cannot drop extension scrapersky because other objects depend on it', 'not without CASCADE');
is($root->query('DROP EXTENSION scrapersky CASCADE'), '', 'with both it is dropped');
for my $who ([ 'a warm backend' => $warm ], [ 'a new one' => app($gone) ])
{
	my ($what, $session) = @$who;
	is($session->query('SELECT count(*) FROM app.docs'), 0, "$what: no row is seen");
	is($session->query(q(INSERT INTO app.docs (body) VALUES ('x'))), 'ERROR 42501: new row violates row-level security policy for table "docs"', "$what: no row is made");
	is($session->query(q(UPDATE app.docs SET body = 'x' RETURNING 1)) . $session->query('DELETE FROM app.docs RETURNING 1'), '', "$what: no row is changed");
	like($session->query('SELECT scrapersky.current_tenant_id()'), qr/^ERROR 3F000/, "$what: no function is left");
	like($session->query("SET scrapersky.identity = 'x'"), qr/^ERROR 42501/, "$what: no identity is made");
}
is($root->query('SET ROLE regress_sky_owner; SELECT count(*) FROM app.docs; RESET ROLE'), 0, 'the table\'s owner sees none');
is($root->query('SELECT count(*) FROM app.docs'), 5, 'though they are all there');
is($root->query(q(SELECT relrowsecurity, relforcerowsecurity, (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
	(SELECT count(*) FROM pg_constraint WHERE contype = 'f') FROM pg_class WHERE relname = 'docs')), 't|t|0|0|0', 'the table has row security, and nothing of ours');
is($root->query(q(SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'scrapersky%') . q( UNION ALL SELECT count(*) FROM pg_event_trigger) . q( UNION ALL SELECT count(*) FROM pg_proc WHERE probin LIKE '%scrapersky%')),
	"0\n0\n0", 'no schema, event trigger or function is left');

# again: what a warm backend knew of the old one is worth nothing
$root->must('CREATE EXTENSION scrapersky');
is($warm->query('SELECT scrapersky.authenticate($1)', $alice), 'ERROR 28000: authentication failed', 'installed again: a warm backend has forgotten its users');
is($warm->query('SELECT count(*) FROM app.docs'), 0, 'and sees no row');
$root->must('DROP OWNED BY regress_sky_owner CASCADE');
Sky::sample($node, $gone);
for my $session ($warm, app($gone), $root)
{
	$session->must('BEGIN');
	is($session->query('SELECT scrapersky.authenticate($1)', $alice), '', 'with new users it works');
	is($session->query(q(SELECT scrapersky.current_subject(), scrapersky.has_permission('docs:write'), count(*) FILTER (WHERE body LIKE 'acme%') FROM app.docs)), 'alice|t|3', 'as it did');
	$session->must('COMMIT');
}
$root->must('SET scrapersky.allow_drop = on');
$root->must($_) for 'DROP EXTENSION scrapersky CASCADE', 'DROP OWNED BY regress_sky_owner CASCADE';
is(inventory($root), $before, 'with its tables gone, too, the database is as it was');

note 'several databases';
my ($one, $two, $none) = (new_database(extension => 1, sample => 1), new_database(extension => 1), new_database(options => 'OWNER regress_sky_landlord'));
$node->safe_psql($two, q(SELECT scrapersky.create_tenant('Two', 'two'), scrapersky.create_user('erin')));
my ($in_one, $in_two) = (app($one), app($two));
is($in_one->query('SELECT scrapersky.authenticate($1)', $alice), '', 'a user of one database');
is($in_two->query('SELECT scrapersky.authenticate($1)', $alice), 'ERROR 28000: authentication failed', 'is none of another');
is($in_two->query('SELECT scrapersky.authenticate($1)', Sky::token('erin')), '', 'which has its own');
is($in_one->query('SELECT scrapersky.authenticate($1)', Sky::token('erin')), 'ERROR 28000: authentication failed', 'and keeps them');
$node->safe_psql($two, q(UPDATE scrapersky.users SET status = 'inactive'; SET scrapersky.allow_drop = on; DROP EXTENSION scrapersky CASCADE));
is($in_one->query('SELECT scrapersky.authenticate($1)', $alice), '', 'what happens there does not matter here');

note 'a database without the extension, below the preloaded library';
$landlord = Sky::Session->new($node, user => 'regress_sky_landlord', dbname => $none);
$landlord->must($_) for 'CREATE SCHEMA scrapersky', 'CREATE TABLE scrapersky.tenants (id int)', 'INSERT INTO scrapersky.tenants VALUES (1)',
	q(CREATE FUNCTION scrapersky.require_permission(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'),
	q(CREATE FUNCTION scrapersky.has_permission(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'),
	'CREATE TABLE public.mine (id int, tenant_id int)', 'INSERT INTO public.mine VALUES (1, 1), (2, 2)',
	'ALTER TABLE public.mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
	'CREATE POLICY scrapersky_floor ON public.mine AS RESTRICTIVE USING (tenant_id = 1)', q(CREATE POLICY scrapersky_select ON public.mine FOR SELECT USING (scrapersky.require_permission('x'))),
	q(CREATE POLICY scrapersky_insert ON public.mine FOR INSERT WITH CHECK (scrapersky.has_permission('x')));
is($landlord->query('SELECT count(*) FROM public.mine'), 1, 'policies of the same names are just policies');
is($landlord->query('INSERT INTO public.mine VALUES (3, 1) RETURNING id'), 3, 'for writing, too');
is($landlord->query('COPY public.mine TO STDOUT'), '', 'and COPY');
is($landlord->query('DROP TABLE scrapersky.tenants'), '', 'a table of the same name is just a table');
is($landlord->query('DROP SCHEMA scrapersky CASCADE'), '', 'and a schema a schema');
is($landlord->query('DROP OWNED BY CURRENT_USER CASCADE'), '', 'DROP OWNED works');
is(superuser($none)->query('DROP EXTENSION plpgsql CASCADE'), '', 'and DROP EXTENSION');
is(superuser('postgres')->query("DROP DATABASE $one WITH (FORCE)"), '', 'a database is dropped with all that is in it');

done_testing();
