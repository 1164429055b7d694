# Nobody becomes somebody without a token: every way to set the identity by hand,
# tried over connections of a role without attributes (and by a superuser, where
# that is the one who could).  The value tried is no invention: a superuser reads
# it from a real identity.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
Sky::sample($node);
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE regress_sky_pool LOGIN NOINHERIT;
CREATE ROLE regress_sky_reader LOGIN IN ROLE pg_monitor;
CREATE ROLE regress_sky_boss LOGIN SUPERUSER;
GRANT regress_sky_app, regress_sky_owner TO regress_sky_pool;
GRANT CREATE ON SCHEMA public TO regress_sky_app, regress_sky_reader;
SQL

my $root = Sky::Session->new($node);
$root->must('BEGIN');
$root->must('SELECT scrapersky.authenticate($1)', Sky::token('bob'));
my $stolen = $root->must('SHOW scrapersky.identity');
$root->must('ROLLBACK');
my $quoted = $root->must('SELECT quote_literal($1)', $stolen);
my $anonymous = 'ERROR 42501: no identity in this transaction';

sub app
{
	return Sky::Session->new($node, user => 'regress_sky_app', @_);
}

# Whoever this is has no identity, and sees nothing.
sub nobody
{
	my ($session, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query('SELECT scrapersky.is_authenticated()'), 'f', "$what: no identity");
	is($session->query('SELECT count(*) FROM app.docs'), $anonymous, "$what: no row");
	return;
}

# A statement that would set the identity is refused, in a transaction and out of it.
sub refused
{
	my ($what, $sql, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = app();

	$code //= '42501';
	like($session->query($sql), qr/^ERROR $code: /, "$what is refused");
	nobody($session, $what);
	$session->must('BEGIN');
	$session->must('SAVEPOINT s');
	like($session->query($sql), qr/^ERROR $code: /, "$what is refused in a transaction");
	$session->must('ROLLBACK TO s');
	is($session->query('SELECT scrapersky.is_authenticated()'), 'f', "$what: no identity in the transaction");
	$session->must('ROLLBACK');
	return;
}

# The value works where it comes from: what follows is refused for its way, not for
# its contents.
like($stolen, qr/^1.*bob/, 'a superuser reads the wire form of a real identity');

note 'SET and set_config()';
refused("SET with $$_[0]", "SET scrapersky.identity = $$_[1]")
  for [ 'a stolen value', $quoted ], [ 'the smallest value', "'1'" ], [ 'rubbish', "'superuser'" ];
refused('SET with a list', "SET scrapersky.identity = $quoted, 'x'", '22023');
refused('SET LOCAL', "SET LOCAL scrapersky.identity = $quoted");
refused('SET SESSION', "SET SESSION scrapersky.identity TO $quoted");
refused('set_config(), session', "SELECT set_config('scrapersky.identity', $quoted, false)");
refused('set_config(), local', "SELECT set_config('scrapersky.identity', $quoted, true)");
refused('another spelling', "SET \"ScraperSky.Identity\" = $quoted");
refused('SET in DO', "DO \$do\$ BEGIN SET LOCAL scrapersky.identity = $quoted; END \$do\$");
refused('another name of the prefix', "SET scrapersky.tenant_id = '$Sky::GLOBEX'", '42602');

# an exception block does not leave the setter's door open
my $app = app();
$app->must("DO \$do\$ BEGIN SET LOCAL scrapersky.identity = $quoted; EXCEPTION WHEN OTHERS THEN NULL; END \$do\$");
nobody($app, 'SET in DO with an exception block');

# the view of settings does not hold it, so that UPDATE of the view sets nothing
is($app->query('SELECT count(*) FROM pg_settings WHERE name = $1', 'scrapersky.identity'), 0, 'pg_settings does not show it');
$app->must('UPDATE pg_settings SET setting = $1 WHERE name = $2', $stolen, 'scrapersky.identity');
nobody($app, 'UPDATE pg_settings');

# a failed authenticate() is no better: the flag that lets a value in is off again
like($app->query('SELECT scrapersky.authenticate($1)', 'x'), qr/^ERROR 28000/, 'a bad token');
like($app->query("SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'and SET after it');
$app->must('BEGIN');
$app->must('DECLARE c CURSOR FOR SELECT 1');
like($app->query('SELECT scrapersky.authenticate($1)', Sky::token('alice')), qr/^ERROR 55006/, 'an identity that is refused');
$app->must('ROLLBACK');
like($app->query("SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'and SET after it');

note 'with an identity of its own';
$app->must('BEGIN');
$app->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
is($app->query('SELECT count(*) FROM app.docs'), 3, 'alice sees the rows of acme');
for my $sql ("SET LOCAL scrapersky.identity = $quoted", "SELECT set_config('scrapersky.identity', $quoted, true)")
{
	$app->must('SAVEPOINT s');
	like($app->query($sql), qr/^ERROR 42501/, 'she cannot become bob');
	$app->must('ROLLBACK TO s');
	is($app->query('SELECT scrapersky.current_subject(), count(*) FROM app.docs'), 'alice|3', 'and is still herself');
}
for my $sql ('SHOW scrapersky.identity', "SELECT current_setting('scrapersky.identity')")
{
	$app->must('SAVEPOINT s');
	like($app->query($sql), qr/^ERROR 42501: must be superuser/, 'she cannot read what to change');
	$app->must('ROLLBACK TO s');
}
# her own value, taken by a superuser, is of no use to her in another transaction
$app->must('COMMIT');
nobody($app, 'after COMMIT');

note 'settings of roles and databases';
for my $of ('regress_sky_app', 'CURRENT_USER', 'regress_sky_app IN DATABASE postgres')
{
	like($app->query("ALTER ROLE $of SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, "ALTER ROLE $of SET is refused");
}
like($root->query("ALTER ROLE regress_sky_app SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'for a superuser, too');
nobody(app(), 'ALTER ROLE SET, new connection');

$node->safe_psql('postgres', 'CREATE DATABASE regress_sky_db OWNER regress_sky_app');
$node->safe_psql('regress_sky_db', 'CREATE EXTENSION scrapersky');
Sky::sample($node, 'regress_sky_db');
like($app->query("ALTER DATABASE regress_sky_db SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'ALTER DATABASE SET by its owner is refused');
nobody(app(dbname => 'regress_sky_db'), 'ALTER DATABASE SET, new connection');

# even in the catalog it has no effect
$root->must(q(INSERT INTO pg_db_role_setting SELECT 0, oid, ARRAY['scrapersky.identity=' || $1] FROM pg_roles WHERE rolname = 'regress_sky_app'), $stolen);
my $planted = app();
is($planted->failed, '', 'a value in pg_db_role_setting: the role can log in');
nobody($planted, 'a value in pg_db_role_setting');
$root->must('DELETE FROM pg_db_role_setting');

note 'at connection time';
(my $escaped = $stolen) =~ s/([\\ ])/\\$1/g;
for my $attempt ([ 'PGOPTIONS -c', options => "-c scrapersky.identity=$escaped" ],
	[ 'PGOPTIONS --', options => "--scrapersky.identity=$escaped" ],
	[ 'the startup packet', startup => { 'scrapersky.identity' => $stolen } ],
	[ 'the startup packet, another spelling', startup => { 'SCRAPERSKY.IDENTITY' => $stolen } ])
{
	my ($what, @how) = @$attempt;
	like(app(@how)->failed, qr/^FATAL 42501: /, "$what is refused");
}
# the same by a client as they all are
my ($out, $err) = ('', '');
{
	local $ENV{PGOPTIONS} = "-c scrapersky.identity=$escaped";
	($out, $err) = Sky::query($node, 'regress_sky_app', 'SELECT scrapersky.current_subject()');
}
is($out, '', 'psql with PGOPTIONS gets no answer');
like($err, qr/invalid value for parameter "scrapersky.identity"/, 'but an error');

note 'SET clauses of functions';
my $body = 'RETURNS text LANGUAGE sql AS $$ SELECT scrapersky.current_subject() $$';
refused('a function with a SET clause', "CREATE FUNCTION public.f() RETURNS text LANGUAGE sql SET scrapersky.identity = $quoted AS 'SELECT scrapersky.current_subject()'");
$app->must("CREATE FUNCTION public.mine() $body");
like($app->query("ALTER FUNCTION public.mine() SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'ALTER FUNCTION SET is refused');
my $reader = Sky::Session->new($node, user => 'regress_sky_reader');
$reader->must("CREATE FUNCTION public.theirs() $body");
for my $who ([ app => $app, 'public.mine()' ], [ 'a member of pg_monitor' => $reader, 'public.theirs()' ], [ superuser => $root, 'public.mine()' ])
{
	my ($name, $session, $function) = @$who;
	$session->must('BEGIN');
	$session->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
	$session->must('SAVEPOINT s');
	like($session->query("ALTER FUNCTION $function SET scrapersky.identity FROM CURRENT"), qr/^ERROR 42501/, "SET FROM CURRENT is refused ($name)");
	$session->must('ROLLBACK TO s');
	like($session->query('CREATE FUNCTION public.g() RETURNS text LANGUAGE sql SET scrapersky.identity FROM CURRENT AS $$ SELECT $$'), qr/^ERROR 42501/,
		"a new function, too ($name)");
	$session->must('ROLLBACK');
}
$root->must(q(UPDATE pg_proc SET proconfig = ARRAY['scrapersky.identity=' || $1] WHERE proname = 'mine'), $stolen);
like($app->query('SELECT public.mine()'), qr/^ERROR 42501/, 'a value in pg_proc is refused when the function is called');
nobody($app, 'a value in pg_proc');
$app->must('BEGIN');
$app->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
like($app->query('SELECT public.mine()'), qr/^ERROR 42501/, 'and for the signed-in');
$app->must('ROLLBACK');

# a SET clause may drop the identity, for the function's time
$app->must('ALTER FUNCTION public.mine() RESET ALL');
$app->must('CREATE FUNCTION public.dropped() RETURNS boolean LANGUAGE sql SET scrapersky.identity = $$$$ AS $$ SELECT scrapersky.is_authenticated() $$');
$app->must('BEGIN');
$app->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
is($app->query('SELECT public.dropped(), scrapersky.current_subject(), public.mine()'), 'f|alice|alice', 'a SET clause drops the identity inside');
$app->must('COMMIT');

note 'the configuration';
like($app->query("ALTER SYSTEM SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'ALTER SYSTEM is not for the role');
like($root->query("ALTER SYSTEM SET scrapersky.identity = $quoted"), qr/^ERROR \w{5}: /, 'nor for a superuser');
my $warm = app();
$node->append_conf('postgresql.conf', "scrapersky.identity = $quoted");
Sky::reload($node);
nobody(app(), 'a value in postgresql.conf, new connection');
nobody($warm, 'a value in postgresql.conf, warm connection');
$node->restart;
nobody(app(), 'a value in postgresql.conf, after a restart');
$node->adjust_conf('postgresql.conf', 'scrapersky.identity', undef);
$node->restart;
($root, $reader, $app) = (Sky::Session->new($node), Sky::Session->new($node, user => 'regress_sky_reader'), app());

note 'pg_monitor reads settings, but cannot play them back';
$root->must('GRANT USAGE ON SCHEMA app TO regress_sky_reader');
$root->must('GRANT SELECT ON app.docs TO regress_sky_reader');
$reader->must('BEGIN');
$reader->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
my $own = $reader->must('SHOW scrapersky.identity');
$reader->must('COMMIT');
for my $value ($own, $stolen)
{
	like($reader->query("SELECT set_config('scrapersky.identity', \$1, false)", $value), qr/^ERROR 42501/, 'set_config() by pg_monitor is refused');
	like($root->query("SELECT set_config('scrapersky.identity', \$1, false)", $value), qr/^ERROR 42501/, 'by a superuser, too');
	is($root->query('SELECT scrapersky.is_authenticated()'), 'f', 'who gets no identity');
}
nobody($reader, 'pg_monitor');

note 'other roles of the session';
my $pool = Sky::Session->new($node, user => 'regress_sky_pool');
$pool->must('SET ROLE regress_sky_app');
$pool->must('BEGIN');
$pool->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
is($pool->query('SELECT count(*) FROM app.docs'), 3, 'a pool\'s role, as the application: the rows of acme');
$pool->must('RESET ROLE');
$pool->must('SAVEPOINT s');
like($pool->query('SELECT count(*) FROM app.docs'), qr/^ERROR 42501: permission denied/, 'RESET ROLE: no privilege, no row');
$pool->must('ROLLBACK TO s');
$pool->must('SET ROLE regress_sky_owner');
is($pool->query('SELECT count(*), count(DISTINCT tenant_id) FROM app.docs'), '3|1', 'SET ROLE to the table\'s owner: the same rows');
for my $sql ('SET SESSION AUTHORIZATION regress_sky_boss', 'SET SESSION AUTHORIZATION regress_sky_reader', 'SET ROLE regress_sky_boss')
{
	$pool->must('SAVEPOINT s');
	like($pool->query($sql), qr/^ERROR 42501/, "$sql is refused");
	$pool->must('ROLLBACK TO s');
}
$pool->must('RESET SESSION AUTHORIZATION');
$pool->must('COMMIT');
is($pool->query('SELECT scrapersky.is_authenticated()'), 'f', 'and nothing is left for the next client of the pool');
$pool->must('SET ROLE regress_sky_owner');
is($pool->query('SELECT count(*) FROM app.docs'), $anonymous, 'without identity the owner sees nothing');
is($pool->query('SELECT 1 FROM app.docs WHERE false'), $anonymous, 'not even that there is nothing');
$pool->must('SET row_security = off');
like($pool->query('SELECT count(*) FROM app.docs'), qr/^ERROR 42501/, 'row_security = off opens nothing');

# a superuser that became the role for a while has the role's powers only
$root->must('SET SESSION AUTHORIZATION regress_sky_app');
like($root->query("SET scrapersky.identity = $quoted"), qr/^ERROR 42501/, 'SET SESSION AUTHORIZATION to the role: refused');
nobody($root, 'SET SESSION AUTHORIZATION');
$root->must('RESET SESSION AUTHORIZATION');

note 'back doors';
like($app->query("LOAD 'scrapersky'"), qr/^(?:ERROR 42501|)/, 'LOAD does no harm');
like($app->query(q(CREATE FUNCTION public.h(cstring) RETURNS void LANGUAGE c AS 'scrapersky', 'sky_identity_set')), qr/^ERROR 42501/, 'no C function of one\'s own');
like($app->query("SELECT scrapersky.$_"), qr/^ERROR 42501: permission denied/, "$_ is not for the role")
  for 'sign_token(\'{"sub": "bob"}\')', 'pre_request()', 'rbac_changed()', "create_user('mallory')", "assign_role('$Sky::ALICE', 'ADMIN')",
  "grant_permission('USER', 'docs:write')", 'setup_api()', 'refresh_grants()';
like($app->query($_), qr/^ERROR 42501: /, "$_ is not for the role")
  for 'SELECT * FROM scrapersky.users', "INSERT INTO scrapersky.settings VALUES ('anon', 'regress_sky_app')", 'DELETE FROM scrapersky.memberships',
  "UPDATE scrapersky.tenants SET status = 'active'", 'TRUNCATE scrapersky.user_roles';

# a parallel worker takes its leader's identity, and nobody else's
$app->must('CREATE TABLE public.big AS SELECT g FROM generate_series(1, 20000) g');
$app->must('ANALYZE public.big');
$app->must('CREATE FUNCTION public.forge(int, text) RETURNS int PARALLEL SAFE LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(\'scrapersky.identity\', $2, false); RETURN 1; END $$');
$app->must("SET $_") for 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0', 'parallel_leader_participation = off';
like($app->must("EXPLAIN SELECT sum(public.forge(g, 'x')) FROM public.big"), qr/Workers Planned/, 'the plan is parallel');
like($app->query('SELECT sum(public.forge(g, $1)) FROM public.big', $stolen), qr/^ERROR \w{5}: /, 'set_config() in a worker is refused');
nobody($app, 'set_config() in a worker');

done_testing();
