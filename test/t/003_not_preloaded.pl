# A server that does not preload the library fails closed: nobody is authenticated,
# and what was set before the library came (as a placeholder, which nobody checks)
# counts for nothing.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
Sky::sample($node);
$node->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO regress_sky_app');

my $alice = Sky::token('alice', role => 'regress_sky_authenticated');
my $login = 'SELECT scrapersky.authenticate($1)';
my $count = 'SELECT count(*) FROM app.docs';
my $anonymous = 'ERROR 42501: no identity in this transaction';
my $denied = 'ERROR 28000: authentication failed';
my $loaded = q(SELECT count(*) FROM pg_settings WHERE name LIKE 'scrapersky.%');

# The value of a real identity, from the time when the library was preloaded.
my $root = Sky::Session->new($node);
$root->must(q(SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_authenticated')));
$root->must('BEGIN');
$root->must($login, Sky::token('bob'));
my $stolen = $root->must('SHOW scrapersky.identity');
$root->must('ROLLBACK');
my $quoted = $root->must('SELECT quote_literal($1)', $stolen);
is($root->query($login, $alice), '', 'preloaded: alice is let in');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;

sub app
{
	return Sky::Session->new($node, user => 'regress_sky_app', @_);
}

sub nobody
{
	my ($session, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query('SELECT scrapersky.is_authenticated()'), 'f', "$what: no identity");
	is($session->query($count), $anonymous, "$what: no row");
	return;
}

note 'nobody is let in';
my $session = app();
is($session->query($loaded), 0, 'the library is not there at first');
is($session->query($count), $anonymous, 'a protected table brings it');
cmp_ok($session->query($loaded), '>', 5, 'now it is there');
is($session->query(q(INSERT INTO app.docs (body) VALUES ('x'))), $anonymous, 'nor is a row made');
is($session->query($login, $alice), $denied, 'a good token is refused');
is(app()->query($login, $alice), $denied, 'in a new session, too');
like(slurp_file($node->logfile), qr/scrapersky is not in shared_preload_libraries/, 'the log knows why');
$session = Sky::Session->new($node, user => 'regress_sky_authenticator');
$session->must('SET ROLE regress_sky_authenticated');
$session->must(q(SELECT set_config('request.headers', $1, false), set_config('request.jwt.claims', $2, false)),
	"{\"authorization\":\"Bearer $alice\"}", MIME::Base64::decode_base64url(($alice =~ /\.(.*)\./)[0]));
is($session->query('SELECT scrapersky.pre_request()'), 'ERROR PT401: authentication failed', 'a request is refused');
# a session may bring the library along; that is not preloading
$node->safe_psql('postgres', q(ALTER ROLE regress_sky_app SET session_preload_libraries = 'scrapersky'));
$session = app();
cmp_ok($session->query($loaded), '>', 5, 'session_preload_libraries brings the library');
is($session->query($login, $alice), $denied, 'and lets nobody in');
$node->safe_psql('postgres', 'ALTER ROLE regress_sky_app RESET session_preload_libraries');
$session = app();
$session->query(q(LOAD 'scrapersky'));
is($session->query($login, $alice), $denied, 'LOAD neither');

note 'an identity as a placeholder';
for my $set ("SET scrapersky.identity = $quoted", "SELECT set_config('scrapersky.identity', $quoted, false)", "SET \"Scrapersky.IDENTITY\" = $quoted")
{
	for my $load ('SELECT scrapersky.is_authenticated()', $count, 'SELECT scrapersky.current_tenant_id()', "SELECT scrapersky.authenticate('x')")
	{
		$session = app();
		is($session->query($loaded), 0, 'not loaded');
		like($session->query($set), qr/^(?!ERROR)/, 'the placeholder is accepted');
		is($session->query($loaded), 0, 'still not loaded');
		unlike($session->query($load), qr/^\d+$|^t$|$Sky::GLOBEX/, "loaded by $load");
		nobody($session, $set =~ s/=.*|, '.*//r);
		like($session->query($set), qr/^ERROR 42501/, 'now it is refused');
	}
}

# values at several levels of savepoints, none of which may come up again
$session = app();
$session->must("SET scrapersky.identity = $quoted");
$session->must('BEGIN');
$session->must("SET LOCAL scrapersky.identity = $quoted");
$session->must('SAVEPOINT a');
$session->must('SET LOCAL scrapersky.identity = $$1$$');
$session->must('SAVEPOINT b');
$session->must("SET LOCAL scrapersky.identity = $quoted");
is($session->query('SELECT scrapersky.is_authenticated()'), 'f', 'loaded in a savepoint: no identity');
for my $savepoint (qw(b a))
{
	$session->must("ROLLBACK TO $savepoint");
	is($session->query('SELECT scrapersky.is_authenticated()'), 'f', "ROLLBACK TO $savepoint: no identity");
}
$session->must('COMMIT');
nobody($session, 'COMMIT');
$session->must('RESET scrapersky.identity');
nobody($session, 'RESET');
$session->must('DISCARD ALL');
nobody($session, 'DISCARD ALL');

note 'at connection time';
(my $escaped = $stolen) =~ s/([\\ ])/\\$1/g;
for my $how ([ options => "-c scrapersky.identity=$escaped" ], [ startup => { 'scrapersky.identity' => $stolen } ])
{
	$session = app(@$how);
	is($session->failed, '', "$$how[0]: the placeholder is accepted");
	nobody($session, $$how[0]);
	$session->must('DISCARD ALL');
	nobody($session, "$$how[0], DISCARD ALL");
	$session->must('RESET scrapersky.identity');
	nobody($session, "$$how[0], RESET");
}

note 'settings of roles, databases and functions';
$node->safe_psql('postgres', 'CREATE DATABASE regress_sky_db OWNER regress_sky_app');
$session = app();
for my $sql ("ALTER ROLE regress_sky_app SET scrapersky.identity = $quoted", 'ALTER ROLE regress_sky_app SET scrapersky.missing_identity = empty',
	"ALTER DATABASE regress_sky_db SET scrapersky.identity = $quoted",
	"CREATE FUNCTION public.f() RETURNS text LANGUAGE sql SET scrapersky.identity = $quoted AS 'SELECT scrapersky.current_subject()'")
{
	like($session->query($sql), qr/^ERROR 42501: permission denied to set parameter/, 'a placeholder is refused: ' . $sql =~ s/ ?=.*//r);
}
# a superuser may write one; it has no effect
$root = Sky::Session->new($node);
$root->must(q(INSERT INTO pg_db_role_setting SELECT 0, oid, ARRAY['scrapersky.identity=' || $1] FROM pg_roles WHERE rolname = 'regress_sky_app'), $stolen);
nobody(app(), 'pg_db_role_setting');
$root->must('DELETE FROM pg_db_role_setting');
$node->append_conf('postgresql.conf', "scrapersky.identity = $quoted");
$node->restart;
nobody(app(), 'postgresql.conf');
$node->adjust_conf('postgresql.conf', 'scrapersky.identity', undef);

note 'other settings as placeholders';
# A client's value is refused when the library comes, but the configuration's is
# lost by then: one more reason to let nobody in.
$node->append_conf('postgresql.conf', "scrapersky.jwt_audience = 'api'\nscrapersky.jwt_issuer = 'issuer'\nscrapersky.jwt_leeway = 0");
$node->restart;
$root = Sky::Session->new($node);
my $forged_secret = Sky::tell_secret('mallory knows this secret by heart, every byte of it');
my $forged_file = $node->basedir . '/forged_secret';
append_to_file($forged_file, $forged_secret);
chmod 0600, $forged_file;
my %good = (aud => 'api', iss => 'issuer', exp => time + 600);
my %wish = (
	jwt_secret_file => [ $forged_file, Sky::sign({ %good, sub => 'bob' }, key => $forged_secret) ],
	jwt_audience => [ 'mallory', Sky::token('bob', %good, aud => 'mallory') ],
	jwt_issuer => [ 'mallory', Sky::token('bob', %good, iss => 'mallory') ],
	jwt_leeway => [ 300, Sky::token('bob', %good, exp => time - 5) ],
	default_tenant_id => [ $Sky::GLOBEX, Sky::token('carol', %good) ],
	environment => [ 'development', Sky::token('carol', %good) ],
	missing_identity => [ 'empty', Sky::token('bob', %good) ],
	rbac_cache_size => [ 1048576, Sky::token('bob', %good) ],
	allow_session_identity => [ 'on', Sky::token('bob', %good) ],
	allow_drop => [ 'on', Sky::token('bob', %good) ]);
$root->must('SELECT scrapersky.is_authenticated()');
is($root->query(q(SELECT string_agg(substr(name, 12), ' ' ORDER BY name) FROM pg_settings WHERE name LIKE 'scrapersky.%')), join(' ', sort keys %wish), 'all settings there are');
for my $name (sort keys %wish)
{
	my ($value, $token) = @{ $wish{$name} };
	my $set = app();
	$set->must("SET scrapersky.$name = '$value'");
	$set->must('BEGIN');
	$set->must("SET LOCAL scrapersky.$name = '$value'");
	for my $way ([ SET => $set ], [ PGOPTIONS => app(options => "-c scrapersky.$name=$value") ], [ 'the startup packet' => app(startup => { "scrapersky.$name" => $value }) ])
	{
		my ($what, $by) = @$way;
		is($by->failed || $by->query($login, $token), $denied, "$name by $what: nobody is let in");
		$by->must('ROLLBACK') if $by->status ne 'I';
		nobody($by, "$name by $what");
		is($by->query('SELECT scrapersky.authenticate($1, false)', $token) =~ s/: .*//r, 'ERROR 0A000', "$name by $what: nor for the session");
		like($by->query("SET scrapersky.$name = '$value'"), qr/^ERROR (?:42501|55P02)/, "$name by $what: now it cannot be set");
		isnt($by->query("SELECT current_setting('scrapersky.$name')"), $value, "$name by $what: nor was it");
	}
}
like(app()->query("SELECT scrapersky.is_authenticated(); SET scrapersky.unheard_of = 1"), qr/^ERROR 42602/, 'nor any other of the prefix');

note 'parallel workers that load the library before their leader does';
$session = app();
$session->must($_) for 'CREATE TABLE public.big AS SELECT g FROM generate_series(1, 20000) g', 'ANALYZE public.big',
	q(CREATE FUNCTION public.peek(int) RETURNS text PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN scrapersky.is_authenticated(); END'),
	q(CREATE FUNCTION public.look(int) RETURNS bigint PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM app.docs); END');
$session->close;
for my $question ([ peek => 'false' ], [ look => $anonymous ])
{
	my ($function, $answer) = @$question;
	$session = app();
	$session->must("SET $_") for 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0', 'parallel_leader_participation = off',
		"scrapersky.identity = $quoted";
	like($session->must("EXPLAIN SELECT min(public.$function(g)::text) FROM public.big"), qr/Workers Planned/, 'the plan is parallel');
	is($session->query($loaded), 0, 'the leader has not loaded it');
	is($session->query("SELECT min(public.$function(g)::text) FROM public.big"), $answer, "a worker asks $function(): nobody");
	nobody($session, 'the leader');
}

note 'installing it, and dropping it';
like($root->query('DROP EXTENSION scrapersky CASCADE'), qr/^ERROR 55006/, 'the guard is there as soon as the library is');
like(Sky::Session->new($node)->query('DROP EXTENSION scrapersky CASCADE'), qr/^ERROR 55006/, 'and in a session that has not loaded it');
like(Sky::Session->new($node)->query('DROP EXTENSION plpgsql CASCADE'), qr/^ERROR 55006/, 'nor is it dropped with another');
my $fresh = Sky::Session->new($node, dbname => 'regress_sky_db');
is($fresh->query('CREATE EXTENSION scrapersky'), '', 'it can be installed');
like($fresh->notices, qr/WARNING: scrapersky is not in shared_preload_libraries/, 'with a warning');

done_testing();
