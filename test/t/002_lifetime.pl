# An identity dies with its transaction, however that ends; savepoints take it back;
# its holder may drop it, and sees nothing then.
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

my %token = map { $_ => Sky::token($_) } qw(alice bob);
my $login = 'SELECT scrapersky.authenticate($1)';
my $count = 'SELECT count(*) FROM app.docs';
my $anonymous = 'ERROR 42501: no identity in this transaction';
my $app = Sky::Session->new($node, user => 'regress_sky_app');

sub nobody
{
	my ($what, $session) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session //= $app;
	is($session->query('SELECT scrapersky.is_authenticated(), scrapersky.whoami()'), 'f|(,,,,,,{},{},,)', "$what: nobody");
	is($session->query($count), $anonymous, "$what: no row");
	is($session->query("INSERT INTO app.docs (body) VALUES ('x')"), $anonymous, "$what: no new row");
	return;
}

sub begin_as
{
	my ($who, $session) = @_;
	$session //= $app;
	$session->must('BEGIN');
	$session->must($login, $token{$who});
	return;
}

note 'the end of the transaction';
nobody('at first');
begin_as('alice');
is($app->query($count), 3, 'alice is in');
is($app->query('SELECT scrapersky.current_tenant_id(), scrapersky.current_user_id(), scrapersky.current_subject()'), "$Sky::ACME|$Sky::ALICE|alice", 'alice is alice');
$app->must('COMMIT');
nobody('COMMIT');

begin_as('alice');
$app->must('ROLLBACK');
nobody('ROLLBACK');

begin_as('alice');
like($app->query('SELECT 1/0'), qr/^ERROR 22012/, 'an error');
like($app->query('SELECT scrapersky.is_authenticated()'), qr/^ERROR 25P02/, 'the transaction has failed');
$app->must('COMMIT');
nobody('COMMIT of a failed transaction');

begin_as('alice');
$app->must('COMMIT AND CHAIN');
is($app->query($count), $anonymous, 'COMMIT AND CHAIN: the next transaction has none');
$app->must('ROLLBACK');

$app->must($login, $token{alice});
nobody('a statement of its own');
is($app->query("SELECT scrapersky.authenticate('$token{alice}'); $count"), "\n3", 'several statements in one string are one transaction');
nobody('several statements in one string');
is($app->query("SELECT scrapersky.authenticate('$token{alice}'); COMMIT; SELECT scrapersky.is_authenticated()"), "\nf", 'up to COMMIT');

begin_as('alice');
$app->must("INSERT INTO app.docs (body) VALUES ('prepared')");
$app->must(q(PREPARE TRANSACTION 'regress_sky'));
nobody('PREPARE TRANSACTION');
begin_as('bob');
is($app->query($count), 2, 'another identity meanwhile');
$app->must('COMMIT');
$app->must(q(COMMIT PREPARED 'regress_sky'));
nobody('COMMIT PREPARED');
begin_as('alice');
is($app->query($count), 4, 'what was prepared belongs to whom it was');
$app->must(q(DELETE FROM app.docs WHERE body = 'prepared'));
$app->must('COMMIT');

note 'transactions inside of procedures';
$app->must(<<'SQL');
CREATE PROCEDURE public.proc(token text, ending text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM scrapersky.authenticate(token);
	RAISE NOTICE 'in: %', (SELECT count(*) FROM app.docs);
	IF ending = 'commit' THEN COMMIT; ELSE ROLLBACK; END IF;
	RAISE NOTICE 'then: %', scrapersky.is_authenticated();
	BEGIN
		RAISE NOTICE 'rows: %', (SELECT count(*) FROM app.docs);
	EXCEPTION WHEN insufficient_privilege THEN
		RAISE NOTICE '%', SQLERRM;
	END;
END $$
SQL
for my $ending (qw(commit rollback))
{
	is($app->query('CALL public.proc($1, $2)', $token{alice}, $ending), '', "a procedure with $ending");
	is($app->notices, "NOTICE: in: 3\nNOTICE: then: f\nNOTICE: no identity in this transaction", 'has no identity after it');
	nobody("a procedure with $ending");
}

note 'savepoints';
begin_as('alice');
$app->must('SAVEPOINT s');
is($app->query($login, "$token{bob}x"), 'ERROR 28000: authentication failed', 'a bad token');
$app->must('ROLLBACK TO s');
is($app->query($count), 3, 'after an error, ROLLBACK TO gives alice back');
$app->must($login, $token{bob});
is($app->query("SELECT scrapersky.current_subject(), count(*) FROM app.docs"), 'bob|2', 'bob, in the savepoint');
$app->must('SAVEPOINT t');
$app->must('SELECT scrapersky.clear_identity()');
is($app->query('SELECT scrapersky.is_authenticated()'), 'f', 'nobody, in a savepoint of the savepoint');
$app->must('ROLLBACK TO t');
is($app->query('SELECT scrapersky.current_subject(), scrapersky.current_tenant_id()'), "bob|$Sky::GLOBEX", 'bob again');
$app->must('ROLLBACK TO s');
is($app->query('SELECT scrapersky.current_subject(), scrapersky.current_tenant_id(), scrapersky.current_permissions(), count(*) FROM app.docs'),
	"alice|$Sky::ACME|{docs:read,docs:write,permissions:read,roles:read,tenants:read,users:read}|3", 'alice again, all of her');
$app->must($login, $token{bob});
$app->must('RELEASE s');
is($app->query("SELECT scrapersky.current_subject(), count(*) FROM app.docs"), 'bob|2', 'RELEASE keeps bob');
$app->must('ROLLBACK');
nobody('savepoints');

$app->must('BEGIN');
$app->must('SAVEPOINT s');
$app->must($login, $token{alice});
$app->must('ROLLBACK TO s');
is($app->query('SELECT scrapersky.is_authenticated()'), 'f', 'an identity that was given in a savepoint goes with it');
is($app->query($count), $anonymous, 'and no row is seen');
$app->must('ROLLBACK');

begin_as('alice');
$app->must("PREPARE change AS $login");
is($app->query(<<"SQL"), '', 'an exception block');
DO \$\$ BEGIN
	BEGIN
		EXECUTE 'EXECUTE change (' || quote_literal('$token{bob}') || ')';
		RAISE NOTICE '%', (SELECT scrapersky.current_subject() || count(*) FROM app.docs);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE '%', (SELECT scrapersky.current_subject() || count(*) FROM app.docs);
	END;
END \$\$
SQL
is($app->notices, "NOTICE: bob2\nNOTICE: alice3", 'takes its identity back when it fails');
$app->must('COMMIT');

note 'dropping it';
my @drops = ('RESET scrapersky.identity', 'RESET ALL', 'SET scrapersky.identity TO DEFAULT', "SET scrapersky.identity = ''", "SET LOCAL scrapersky.identity = ''",
	'SELECT scrapersky.clear_identity()');
for my $drop (@drops)
{
	begin_as('alice');
	$app->must('SAVEPOINT s');
	$app->must($drop);
	is($app->query('SELECT scrapersky.is_authenticated()'), 'f', "$drop: nobody");
	$app->must('SAVEPOINT t');
	is($app->query($count), $anonymous, "$drop: no row");
	$app->must('ROLLBACK TO t');
	is($app->query('SELECT 1 FROM app.docs WHERE false'), $anonymous, "$drop: not even an empty answer");
	$app->must('ROLLBACK TO s');
	is($app->query($count), 3, 'and back');
	$app->must($drop);
	$app->must('COMMIT');
	nobody("$drop, COMMIT");
}

# set_config() would tell the new value: it fails, and changes nothing
begin_as('alice');
$app->must('SAVEPOINT s');
like($app->query(q(SELECT set_config('scrapersky.identity', '', true))), qr/^ERROR 42501: must be superuser/, 'set_config() fails');
$app->must('ROLLBACK TO s');
is($app->query($count), 3, 'and leaves alice as she is');
$app->must('COMMIT');

note 'missing_identity = empty: fewer words, no more rows';
$node->safe_psql('postgres', 'ALTER ROLE regress_sky_app SET scrapersky.missing_identity = empty');
my $mild = Sky::Session->new($node, user => 'regress_sky_app');
begin_as('alice', $mild);
is($mild->query($count), 3, 'alice is in');
$mild->must('RESET scrapersky.identity');
is($mild->query('SELECT scrapersky.current_tenant_id() IS NULL, scrapersky.has_permission($1)', 'docs:read'), 't|f', 'RESET: null and false');
is($mild->query($count), 'ERROR 42501: permission "docs:read" is required', 'RESET: no row');
$mild->must('ROLLBACK');
$node->safe_psql('postgres', "SET ROLE regress_sky_owner; SELECT scrapersky.unprotect('app.docs'); SELECT scrapersky.protect('app.docs')");
is($mild->query($count), 0, 'without a permission to ask for: no row');
like($mild->query("INSERT INTO app.docs (body) VALUES ('x')"), qr/^ERROR (?:42501|23502)/, 'and no new one');
is($mild->query(q(UPDATE app.docs SET body = 'x' RETURNING id)), '', 'and none changed');
$node->safe_psql('postgres', "SET ROLE regress_sky_owner; SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write')");
$node->safe_psql('postgres', 'ALTER ROLE regress_sky_app RESET scrapersky.missing_identity');

note 'cursors';
begin_as('alice');
$app->must("DECLARE c CURSOR FOR SELECT body FROM app.docs ORDER BY id");
is($app->query('FETCH c'), 'acme 1', 'a cursor of alice');
$app->must('SAVEPOINT s');
is($app->query($login, $token{bob}), 'ERROR 55006: cannot change the identity while cursors are open', 'bob must wait');
$app->must('ROLLBACK TO s');
$app->must($login, Sky::token('alice', jti => 'another'));
is($app->query('FETCH ALL c'), "acme 2\nacme 3", 'alice may renew her token');
$app->must('SELECT scrapersky.clear_identity()');
is($app->query($login, $token{bob}), 'ERROR 55006: cannot change the identity while cursors are open', 'dropping the identity first is no way round');
$app->must('ROLLBACK');

begin_as('alice');
$app->must("DECLARE h CURSOR WITH HOLD FOR SELECT body FROM app.docs ORDER BY id");
$app->must('COMMIT');
$app->must('BEGIN');
is($app->query($login, $token{bob}), 'ERROR 55006: cannot change the identity while cursors are open', 'a cursor WITH HOLD of alice: bob must wait');
$app->must('ROLLBACK');
$app->must('CLOSE ALL');
begin_as('bob');
is($app->query($count), 2, 'CLOSE ALL lets him in');
$app->must('ROLLBACK');

begin_as('alice');
$app->must(<<'SQL');
CREATE FUNCTION public.each(token text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN FOR r IN SELECT * FROM app.docs LOOP PERFORM scrapersky.authenticate(token); END LOOP; END $$
SQL
is($app->query('SELECT public.each($1)', $token{bob}), 'ERROR 55006: cannot change the identity while cursors are open', 'a loop over rows is a cursor, too');
$app->must('ROLLBACK');

note 'an identity that changes inside of a statement';
$app->must(<<'SQL');
CREATE FUNCTION public.turn(token text, tenant uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM scrapersky.authenticate(token, tenant => tenant); RETURN scrapersky.current_tenant_id(); END $$
SQL
my $carol = Sky::token('carol');
for my $plan (qw(force_custom_plan force_generic_plan))
{
	$app->must("SET plan_cache_mode = $plan");
	$app->must('BEGIN');
	is($app->query('SELECT public.turn($1, $2)', $carol, $Sky::ACME), $Sky::ACME, 'carol in acme');
	is($app->query(q(SELECT format('%s|%s|%s', scrapersky.current_tenant_id(), public.turn($1, $2), scrapersky.current_tenant_id())), $carol, $Sky::GLOBEX),
		"$Sky::ACME|$Sky::GLOBEX|$Sky::GLOBEX", 'each place has the tenant of its moment');
	$app->must('COMMIT');
}

note 'an identity for the session';
is($app->query('SELECT scrapersky.authenticate($1, false)', $token{alice}), 'ERROR 0A000: an identity ends with its transaction', 'is off');
nobody('is_local => false');
is($app->query('SELECT scrapersky.authenticate($1, NULL)', $token{alice}), '', 'is_local null is the default');
nobody('is_local => null');
like($app->query('SET scrapersky.allow_session_identity = on'), qr/^ERROR 42501/, 'and the role cannot allow it');
$node->safe_psql('postgres', 'ALTER ROLE regress_sky_app SET scrapersky.allow_session_identity = on');
my $kept = Sky::Session->new($node, user => 'regress_sky_app');
$kept->must('SELECT scrapersky.authenticate($1, false)', $token{alice});
is($kept->query($count), 3, 'where it is allowed, the identity stays');
begin_as('bob', $kept);
is($kept->query($count), 2, 'one of a transaction goes before it');
$kept->must('COMMIT');
is($kept->query('SELECT scrapersky.current_subject()'), 'alice', 'and then it is back');
$kept->must('BEGIN');
$kept->must('SELECT scrapersky.authenticate($1, false)', $token{bob});
is($kept->query($count), 2, 'a new one');
$kept->must('ROLLBACK');
is($kept->query('SELECT scrapersky.current_subject()'), 'alice', 'is undone by ROLLBACK');
$kept->must('BEGIN');
$kept->must('SELECT scrapersky.authenticate($1, false)', $token{bob});
$kept->must(q(PREPARE TRANSACTION 'regress_sky'));
ok($kept->query('SELECT scrapersky.current_subject()') =~ /^(?:alice|bob)$/, 'PREPARE TRANSACTION leaves one of the two');
$kept->must(q(ROLLBACK PREPARED 'regress_sky'));
for my $drop (grep({ !/LOCAL|true/ } @drops), 'DISCARD ALL')
{
	$kept->must('SELECT scrapersky.authenticate($1, false)', $token{alice});
	is($kept->query($count), 3, 'alice is in');
	$kept->must($drop);
	nobody("session, $drop", $kept);
}

note 'parallel workers have their leader\'s identity';
$node->safe_psql('postgres', <<"SQL");
SET ROLE regress_sky_owner;
CREATE TABLE app.many (id int, tenant_id uuid);
INSERT INTO app.many SELECT g, CASE WHEN g % 3 = 0 THEN '$Sky::ACME'::uuid ELSE '$Sky::GLOBEX' END FROM generate_series(1, 30000) g;
SELECT scrapersky.protect('app.many', read_permission => 'docs:read');
GRANT SELECT ON app.many TO regress_sky_app;
ANALYZE app.many;
SQL
$app->must("SET $_") for 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0',
	'enable_indexscan = off', 'enable_bitmapscan = off', 'parallel_leader_participation = off';
for my $who ([ alice => 10000 ], [ bob => 20000 ])
{
	my ($name, $rows) = @$who;
	begin_as($name);
	my $sql = 'SELECT count(*), min(scrapersky.current_subject()), bool_and(scrapersky.has_permission($$docs:read$$)), min(scrapersky.claim($$sub$$)) FROM app.many';
	like($app->must("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) $sql"), qr/Workers Launched: [12]/, 'workers are launched');
	is($app->query($sql), "$rows|$name|t|$name", "and work for $name");
	$app->must('COMMIT');
	is($app->query('SELECT count(*) FROM app.many'), $anonymous, 'and not afterwards');
}

done_testing();
