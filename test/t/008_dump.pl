# A dump is complete: restored into a new cluster, rows, policies and all that
# protects them are what they were; until then, and without the grants, nothing is
# open.  A dump by somebody who may not see everything does not pretend to be one.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $old = Sky::new_node('old', extension => 0);
my $new = Sky::new_node('new', extension => 0);
my $folder = $old->basedir;
my $superuser = getpwuid($<);

note 'a database with something of everything';
$old->safe_psql('postgres', 'CREATE DATABASE regress_sky_shop');
$old->safe_psql('regress_sky_shop', 'CREATE EXTENSION scrapersky');
Sky::sample($old, 'regress_sky_shop');
my $password = Sky::tell_secret('the password of PostgREST');
Sky::query($old, $superuser, q(SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_authenticated', :'password')),
	dbname => 'regress_sky_shop', password => $password);
$old->safe_psql('regress_sky_shop', <<"SQL");
SELECT scrapersky.create_role('reviewer', '$Sky::ACME', 'Of one tenant, "quoted" \\ and ''quoted''');
SELECT scrapersky.grant_permission('reviewer', 'docs:read', '$Sky::ACME'), scrapersky.grant_permission('reviewer', 'users:read', '$Sky::ACME');
SELECT scrapersky.assign_role('$Sky::CAROL', 'reviewer', '$Sky::ACME'), scrapersky.assign_role('$Sky::CAROL', 'GLOBAL_ADMIN'),
	scrapersky.assign_role('$Sky::BOB', 'ADMIN', '$Sky::GLOBEX');
SELECT scrapersky.create_tenant(E'Nörd\\t\\n\\\\N GmbH', 'n-1'), scrapersky.create_user(E'auth0|\\u2603 \\\\.', 'x\@y', '', NULL);
UPDATE scrapersky.tenants SET status = 'suspended', updated_at = '2020-01-01' WHERE slug = 'n-1';
UPDATE scrapersky.users SET status = 'inactive' WHERE subject LIKE 'auth0%';
UPDATE scrapersky.memberships SET status = 'inactive' WHERE user_id = '$Sky::CAROL' AND tenant_id = '$Sky::GLOBEX';
GRANT USAGE ON SCHEMA app TO regress_sky_authenticated;
SET ROLE regress_sky_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.docs TO regress_sky_authenticated;
CREATE TABLE app."Odd ""table""" (id int PRIMARY KEY, "Org ""x""" uuid, note text, UNIQUE ("Org ""x""", id));
INSERT INTO app."Odd ""table""" SELECT i, CASE WHEN i % 2 = 0 THEN '$Sky::ACME'::uuid ELSE '$Sky::GLOBEX' END, E'line\\n\\\\.' || i FROM generate_series(1, 500) i;
SELECT scrapersky.protect('app."Odd ""table"""', 'Org "x"', 'docs:read', 'it''s:odd', 'hide', foreign_key => false);
GRANT SELECT ON app."Odd ""table""" TO regress_sky_app, regress_sky_authenticated;
CREATE TABLE app.child (id int PRIMARY KEY, doc int REFERENCES app.docs, tenant_id uuid NOT NULL DEFAULT '$Sky::ACME');
INSERT INTO app.child SELECT id, id, tenant_id FROM (VALUES (1, '$Sky::ACME'::uuid), (4, '$Sky::GLOBEX')) v (id, tenant_id);
SELECT scrapersky.protect('app.child');
CREATE POLICY ours ON app.child FOR SELECT TO regress_sky_app USING (doc > 0);
CREATE VIEW app.titles WITH (security_invoker) AS SELECT d.body, c.id FROM app.docs d JOIN app.child c ON c.doc = d.id;
CREATE TABLE app.plain (id int);
INSERT INTO app.plain VALUES (1);
GRANT SELECT ON app.titles, app.child, app.plain TO regress_sky_app, regress_sky_authenticated;
SQL

# Rows: one line of count and checksum for each table.
my @tables = split /\n/, $old->safe_psql('regress_sky_shop', q(SELECT format('%I.%I', relnamespace::regnamespace, relname)
	FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('scrapersky'::regnamespace, 'app'::regnamespace) ORDER BY 1));
sub rows_of
{
	my ($node, $dbname) = @_;
	return $node->safe_psql($dbname, join(' UNION ALL ', map { my $name = $_ =~ s/'/''/gr;
		# built-in rows come from the script; their moments are those of CREATE EXTENSION
		"SELECT '$name', count(*), md5(string_agg(j::text, '|' ORDER BY j::text)) FROM (SELECT CASE to_jsonb(t) ->> 'builtin'"
		  . " WHEN 'true' THEN to_jsonb(t) - '{created_at,updated_at}'::text[] ELSE to_jsonb(t) END j FROM $_ t) v" } @tables));
}

# What protects them, and everything else about the objects that a dump must bring.
sub objects_of
{
	my ($node, $dbname) = @_;
	my $ours = q(n.nspname IN ('app', 'scrapersky', 'scrapersky_api'));
	return join("\n", map { $node->safe_psql($dbname, "$_ ORDER BY 1") }
		"SELECT format('%s.%s %s: %s %s %s | %s | %s', schemaname, tablename, policyname, permissive, cmd, roles, qual, with_check) FROM pg_policies",
		"SELECT format('%s: %s %s %s %s', c.oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE $ours AND relkind <> 'i'",
		"SELECT format('%s %s %s', tgenabled, tgisinternal, pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace WHERE $ours AND NOT tgisinternal",
		"SELECT format('%s.%s: %s %s %s %s', c.oid::regclass, attname, atttypid::regtype, attnotnull, attgenerated, pg_get_expr(adbin, adrelid)) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE $ours AND attnum > 0 AND relkind <> 'i'",
		"SELECT format('%s %s: %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE $ours",
		"SELECT pg_get_indexdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE $ours AND relkind = 'i'",
		"SELECT format('%s %s', relation, protected_tables) FROM scrapersky.protected_tables",
		"SELECT format('%s %s %s', extname, extversion, extowner::regrole) FROM pg_extension",
		"SELECT format('%s %s', evtname, evtenabled) FROM pg_event_trigger");
}

# What differs between two lists of lines; empty if nothing does.
sub difference
{
	my %lines;
	$lines{$_}++ for split /\n/, $_[0];
	$lines{$_}-- for split /\n/, $_[1];
	my @differ = map { ($lines{$_} > 0 ? '+ ' : '- ') . $_ } grep { $lines{$_} } sort keys %lines;
	return join("\n", @differ > 6 ? (@differ[ 0 .. 5 ], '... and ' . (@differ - 6) . ' more') : @differ);
}

# Privileges, sorted.
sub grants_of
{
	my ($node, $dbname) = @_;
	my $ours = q(n.nspname IN ('app', 'scrapersky', 'scrapersky_api'));
	my $list = sub {
		return "array_to_string(ARRAY(SELECT format('%s:%s:%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,"
		  . " privilege_type, is_grantable) FROM aclexplode($_[0]) ORDER BY 1), ' ')";
	};
	return join("\n", map { $node->safe_psql($dbname, "$_ ORDER BY 1") }
		"SELECT n.nspname, " . $list->(q(coalesce(nspacl, acldefault('n', nspowner)))) . " FROM pg_namespace n WHERE $ours",
		"SELECT c.oid::regclass::text, " . $list->(q(coalesce(relacl, acldefault('r', relowner))))
		  . " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE $ours AND relkind IN ('r', 'v')",
		"SELECT p.oid::regprocedure::text, " . $list->(q(coalesce(proacl, acldefault('f', proowner))))
		  . " FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE $ours");
}

# A request as PostgREST makes it: the statement's answer, or why not.
sub request
{
	my ($node, $dbname, $subject, $sql) = @_;
	my $token = Sky::token($subject, role => 'regress_sky_authenticated');
	my ($payload) = $token =~ /\.([^.]*)\./;
	my $session = Sky::Session->new($node, user => 'regress_sky_authenticator', dbname => $dbname);
	my $answer;
	return $session->failed if $session->failed;
	$session->must('BEGIN');
	return $answer if ($answer = $session->query('SET LOCAL ROLE regress_sky_authenticated'));
	$session->must(q(SELECT set_config('request.headers', $1, true), set_config('request.jwt.claims', $2, true)),
		"{\"authorization\":\"Bearer $token\"}", MIME::Base64::decode_base64url($payload));
	return $answer if ($answer = $session->query('SELECT scrapersky.pre_request()'));
	return $session->query($sql);
}

my ($rows, $objects, $grants) = (rows_of($old, 'regress_sky_shop'), objects_of($old, 'regress_sky_shop'), grants_of($old, 'regress_sky_shop'));
my $docs = q(SELECT count(*), min(body) FROM app.docs);
like($objects, qr/app\.docs scrapersky_floor: RESTRICTIVE/, 'there are policies to compare');
is(() = $objects =~ /scrapersky_floor/g, 3, 'of three tables');
is(request($old, 'regress_sky_shop', 'alice', $docs), '3|acme 1', 'requests work');

note 'roles';
my ($roles, $err) = run_command([ 'pg_dumpall', '--roles-only', '-h', $old->host, '-p', $old->port ]);
like($roles, qr/CREATE ROLE regress_sky_authenticator/, 'pg_dumpall knows them');
unlike($roles, qr/\Q$password\E/, 'and no password');
$roles =~ s/^CREATE ROLE $superuser;$//m;
$new->safe_psql('postgres', $roles);
is($new->safe_psql('postgres', q(SELECT rolcanlogin, rolinherit, rolconfig FROM pg_roles WHERE rolname = 'regress_sky_authenticator')),
	't|f|{log_parameter_max_length=0,log_parameter_max_length_on_error=0}', 'the role of PostgREST');

# Dumps the old database with these options into a file of this name.
sub dump_to
{
	my ($name, @options) = @_;
	local %ENV = $old->_get_env();
	my $status = $old->command_ok([ 'pg_dump', '--file', "$folder/$name", @options, 'regress_sky_shop' ], "pg_dump @options");
	return "$folder/$name";
}

# The database is what the old one was, fails closed, and works after refresh_grants().
sub restored
{
	my ($dbname, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(difference(rows_of($new, $dbname), $rows), '', "$what: the rows");
	# ENABLE TRIGGER ALL, which --disable-triggers ends with, is not what ours were: refresh_grants() mends that
	is(difference(objects_of($new, $dbname), $objects), '', "$what: policies, triggers, constraints and all that") if $what ne 'inserts';

	my $early = request($new, $dbname, 'alice', $docs);
	like($early, qr/^(?:3\|acme 1$|ERROR (?:42501|PT401|PT403))/, "$what: before refresh_grants() a request sees its own, or fails");
	my $anonymous = Sky::Session->new($new, user => 'regress_sky_app', dbname => $dbname);
	is($anonymous->query('SELECT count(*) FROM app.docs'), 'ERROR 42501: no identity in this transaction', "$what: without identity there is nothing");
	is($anonymous->query('SELECT count(*) FROM app."Odd ""table"""'), 'ERROR 42501: no identity in this transaction', "$what: nor where denied is hidden");
	like($anonymous->query('SELECT count(*) FROM scrapersky.users'), qr/^ERROR 42501/, "$what: nor among our own tables");

	$new->safe_psql($dbname, 'SELECT scrapersky.refresh_grants()');
	is(difference(grants_of($new, $dbname), $grants), '', "$what: after refresh_grants() all privileges are what they were");
	is(request($new, $dbname, 'alice', $docs), '3|acme 1', "$what: alice's request");
	is(request($new, $dbname, 'bob', $docs), '2|globex 1', "$what: bob's request");
	is(request($new, $dbname, 'carol', 'SELECT roles, tenant_id FROM scrapersky_api.whoami()'), "{GLOBAL_ADMIN,reviewer}|$Sky::ACME", "$what: carol's request");
	is(request($new, $dbname, 'alice', q(INSERT INTO app.docs (body) VALUES ('new') RETURNING tenant_id, id)), "$Sky::ACME|6", "$what: a new row, after the old ones");
	is(request($new, $dbname, 'bob', q(INSERT INTO app.docs (body) VALUES ('new'))), 'ERROR 42501: permission "docs:write" is required', "$what: bob may not");
	like(request($new, $dbname, 'alice', "INSERT INTO app.docs (body, tenant_id) VALUES ('new', '$Sky::GLOBEX')"),
		qr/^ERROR 42501: new row violates row-level security policy/, "$what: no row for another tenant");
	is(request($new, $dbname, 'auth0|', $docs), 'ERROR PT401: authentication failed', "$what: a user that is not active");
	is($new->safe_psql($dbname, q(SELECT has_database_privilege('regress_sky_app', current_database(), 'TEMPORARY'))), 'f', "$what: TEMPORARY is revoked again");
	like($new->safe_psql($dbname, 'SELECT string_agg(relation::text, $$ $$ ORDER BY relation::text) FROM scrapersky.protected_tables WHERE forced'),
		qr/^app\."Odd ""table""" app\.child app\.docs$/, "$what: the same tables are protected");
	is($new->safe_psql($dbname, "SET ROLE regress_sky_owner; SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write')"), '',
		"$what: protect() may be repeated");
	is(difference(objects_of($new, $dbname), $objects), '', "$what: all is as it was");
	return;
}

note 'plain text, psql';
my $plain = dump_to('plain.sql');
unlike(slurp_file($plain), qr/\Q5c4a9e01-0000-4000-8000-000000000001\E.*USER/, 'built-in rows are not in it');
$new->safe_psql('postgres', 'CREATE DATABASE regress_sky_plain');
$new->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', 'regress_sky_plain', '-f', $plain ], 'it is restored');
restored('regress_sky_plain', 'plain');

note 'custom format, --create';
my $custom = dump_to('custom.dump', '-Fc');
$new->command_ok([ 'pg_restore', '--exit-on-error', '--create', '-d', 'postgres', $custom ], 'it is restored');
restored('regress_sky_shop', 'custom');

# Several processes load tables in any order, whatever foreign keys an extension's
# tables have: replicas do not look at them, and keys are made when all is there.
note 'custom format, two processes';
$new->safe_psql('postgres', 'CREATE DATABASE regress_sky_parallel');
{
	local $ENV{PGOPTIONS} = $ENV{PGOPTIONS} // '';
	foreach my $section (qw(pre-data data post-data))
	{
		$ENV{PGOPTIONS} = $section eq 'data' ? '-c session_replication_role=replica' : '';
		$new->command_ok([ 'pg_restore', '--exit-on-error', '-j2', "--section=$section", '-d', 'regress_sky_parallel', $custom ], $section);
	}
}
restored('regress_sky_parallel', 'parallel');

note 'in sections, with inserts, without triggers';
my $inserts = dump_to('inserts.dump', '-Fc', '--inserts', '--disable-triggers');
$new->safe_psql('postgres', 'CREATE DATABASE regress_sky_inserts');
$new->command_ok([ 'pg_restore', '--exit-on-error', "--section=$_", '--disable-triggers', '-d', 'regress_sky_inserts', $inserts ], "section $_")
  for qw(pre-data data post-data);
restored('regress_sky_inserts', 'inserts');

note '--clean';
my $clean = dump_to('clean.sql', '--clean', '--if-exists');
$new->safe_psql('postgres', 'CREATE DATABASE regress_sky_clean');
my @restore = ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', 'regress_sky_clean', '-f', $clean);
$new->command_ok([@restore], 'into an empty database');
restored('regress_sky_clean', 'clean');
$new->safe_psql('regress_sky_clean', "DELETE FROM app.docs WHERE body = 'new'; SELECT scrapersky.create_tenant('Later', 'later')");
my $later = rows_of($new, 'regress_sky_clean');
$new->command_checks_all([ @restore, '--single-transaction' ], 3, [], [qr/extension scrapersky holds tenants/], 'over a database with tenants: refused');
is(rows_of($new, 'regress_sky_clean'), $later, 'and nothing is lost');
{
	local $ENV{PGOPTIONS} = '-c scrapersky.allow_drop=on';
	$new->command_ok([ @restore, '--single-transaction' ], 'with scrapersky.allow_drop');
}
restored('regress_sky_clean', 'clean, over another');

note 'dumps by others';
sub dump_as
{
	my ($role, @options) = @_;
	my ($out, $errors) = run_command([ 'pg_dump', '-h', $old->host, '-p', $old->port, '-U', $role, @options, 'regress_sky_shop' ]);
	return ($out, $errors);
}
for my $role (qw(regress_sky_app regress_sky_owner regress_sky_authenticator))
{
	for my $options ([], [ '-t', 'app.docs' ], [ '-t', 'app.docs', '--enable-row-security' ], [ '-t', 'app.docs', '--enable-row-security', '--inserts' ], [ '-a', '-t', 'app.child' ])
	{
		$old->safe_psql('postgres', "ALTER ROLE $role LOGIN");
		my ($out, $errors) = dump_as($role, @$options);
		like($errors, qr/error:.*(?:permission denied|row-level security|no identity)/s, "$role, @$options: fails");
		unlike($out, qr/acme \d|globex \d/, 'without a row');
	}
}
my $app = Sky::Session->new($old, user => 'regress_sky_app', dbname => 'regress_sky_shop');
$app->must('BEGIN');
$app->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
$app->must('SAVEPOINT s');
$app->must('SET row_security = off');
like($app->query('SELECT * FROM app.docs'), qr/^ERROR 42501: query would be affected by row-level security/, 'signed in, with row security off: refused');
$app->must('ROLLBACK TO s');
is($app->query('SELECT count(*), min(tenant_id::text) FROM app.docs'), "3|$Sky::ACME", 'signed in: one tenant');
$app->must('ROLLBACK');
my ($copied) = Sky::query($old, 'regress_sky_app', "BEGIN; SELECT scrapersky.authenticate(:'token'); COPY app.docs (body) TO STDOUT; COMMIT",
	dbname => 'regress_sky_shop', token => Sky::token('alice'));
is($copied, "\nacme 1\nacme 2\nacme 3", 'COPY: one tenant');

done_testing();
