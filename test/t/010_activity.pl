# A token that somebody wrote into a statement, against all advice, is not shown to
# others: not in pg_stat_activity, not in pg_stat_statements, not in the log when
# something fails.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;
use Time::HiRes qw(sleep);

my $node = Sky::new_node('main', conf => <<'CONF');
log_min_error_statement = error
log_min_duration_statement = -1
log_parameter_max_length_on_error = 0
log_error_verbosity = verbose
track_activity_query_size = 100kB
CONF
Sky::sample($node);
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_stat_statements;
GRANT CREATE ON SCHEMA public TO regress_sky_app;
CREATE TABLE public.sink (x text);
GRANT ALL ON public.sink TO regress_sky_app;
SQL
my $root = Sky::Session->new($node);
my $app = Sky::Session->new($node, user => 'regress_sky_app');
my $denied = 'ERROR 28000: authentication failed';
my %tokens;

# A token that no other test case uses.
sub token
{
	my ($subject, %claims) = @_;
	my $token = Sky::token($subject // 'alice', jti => 'n' . keys %tokens, %claims);
	$tokens{$token} = 1;
	return $token;
}

# The lines that hold a token, without it.
sub leaks
{
	my ($text) = @_;
	return join("\n", map { s/eyJ[\w.-]*/<token>/gr } grep { /eyJ/ } split /\n/, $text);
}

# Statements wait for this lock, so that they can be looked at.
sub hold
{
	$root->must('SELECT pg_advisory_lock(7)');
	return;
}

# What others see of the session while it waits; then it may go on.
sub seen
{
	my ($session) = @_;
	my $seen = 'it never waited';
	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$seen = $root->must('SELECT wait_event, query FROM pg_stat_activity WHERE pid = $1', $session->pid);
		last if $seen =~ /^advisory\|/;
		sleep(0.02);
	}
	$root->must('SELECT pg_advisory_unlock(7)');
	return $seen;
}

note 'pg_stat_activity, while the statement runs and afterwards';
$app->must(q(CREATE PROCEDURE public.wait_as(token text) LANGUAGE plpgsql AS $$ BEGIN PERFORM scrapersky.authenticate(token); PERFORM pg_advisory_xact_lock(7); END $$));
$app->must('PREPARE login (text) AS SELECT scrapersky.authenticate($1), pg_advisory_xact_lock(7)');
# the measure: a literal that is no token is seen
hold();
$app->send(q(SELECT 'eyJ', pg_advisory_xact_lock(7)));
like(seen($app), qr/^advisory\|SELECT 'eyJ'/, 'a literal is seen');
$app->wait;
for my $case (
	[ 'a literal', q(SELECT scrapersky.authenticate('%s'), pg_advisory_xact_lock(7)) ],
	[ 'with a comment before it', q(/* %s */ SELECT scrapersky.authenticate('%s'), pg_advisory_xact_lock(7)) ],
	[ 'twice', q(SELECT scrapersky.authenticate('%s'), pg_advisory_xact_lock(7), '%s') ],
	[ 'a literal with quotes of another kind', q(SELECT scrapersky.authenticate($t$%s$t$), pg_advisory_xact_lock(7)) ],
	[ 'more than one statement', q(SELECT scrapersky.authenticate('%s'); SELECT pg_advisory_xact_lock(7)) ],
	[ 'DO', q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s'); PERFORM pg_advisory_xact_lock(7); END $$) ],
	[ 'DO with EXECUTE', q(DO $$ BEGIN EXECUTE 'SELECT scrapersky.authenticate(''%s'')'; PERFORM pg_advisory_xact_lock(7); END $$) ],
	[ 'CALL', q(CALL public.wait_as('%s')) ],
	[ 'EXECUTE', q(EXECUTE login ('%s')) ],
	[ 'COPY', q(COPY (SELECT scrapersky.authenticate('%s'), pg_advisory_xact_lock(7)) TO STDOUT) ],
	[ 'EXPLAIN ANALYZE', q(EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT scrapersky.authenticate('%s'), pg_advisory_xact_lock(7)) ],
	[ 'a subquery', q(SELECT pg_advisory_xact_lock(7) FROM (SELECT scrapersky.authenticate('%s') OFFSET 0) a) ],
	[ 'UPDATE', q(WITH a AS MATERIALIZED (SELECT scrapersky.authenticate('%s') IS NOT NULL AS b) UPDATE public.sink SET x = '' FROM a WHERE b AND pg_advisory_xact_lock(7) IS NOT NULL) ])
{
	my ($what, $sql) = @$case;
	my $token = token();
	$sql =~ s/%s/$token/g;
	$app->must(q(INSERT INTO public.sink VALUES ('x')));
	$app->must('BEGIN');
	hold();
	$app->send($sql);
	my $seen = seen($app);
	like($seen, qr/^advisory\|/, "$what: it waits");
	is(leaks($seen), '', "$what: nobody sees the token");
	unlike($app->wait, qr/^ERROR/, "$what: it works");
	is(leaks($root->must('SELECT query FROM pg_stat_activity WHERE pid = $1', $app->pid)), '', "$what: nor when it is over");
	$app->must('ROLLBACK');
}
# a bound parameter is in no text; nor does it hide the statement
my $bound = token();
hold();
$app->send('SELECT scrapersky.authenticate($1), pg_advisory_xact_lock(7)', $bound);
is(seen($app), 'advisory|SELECT scrapersky.authenticate($1), pg_advisory_xact_lock(7)', 'a bound parameter: the statement is seen');
$app->wait;
# as is the next one
hold();
$app->send(q(SELECT 'next', pg_advisory_xact_lock(7)));
like(seen($app), qr/^advisory\|SELECT 'next'/, 'the next statement is seen');
$app->wait;

note 'pg_stat_activity, when it fails';
for my $token (token('nobody'), token('alice', exp => time - 3600), token('alice', tenant_id => $Sky::GLOBEX), token() . 'A', substr(token(), 0, -10), token() . '.' . token())
{
	is($app->query("SELECT scrapersky.authenticate('$token')"), $denied, 'a bad token');
	is(leaks($root->must('SELECT query FROM pg_stat_activity WHERE pid = $1', $app->pid)), '', 'is not seen either');
}

note 'pg_stat_statements';
my $statements = $root->must('SELECT string_agg(query, chr(10)) FROM pg_stat_statements');
like($statements, qr/SELECT scrapersky\.authenticate\(\$1\), pg_advisory_xact_lock\(\$2\)/, 'has the statements');
$root->must('SELECT pg_stat_statements_reset()');
$app->must(sprintf(q(SELECT scrapersky.authenticate('%s')), token()));
$app->must(sprintf(q(SELECT scrapersky.authenticate('%s', tenant => '%s')), token(), $Sky::ACME));
$app->must(sprintf(q(SELECT scrapersky.authenticate(token => '%s'), count(*) FROM public.sink), token()));
$app->must(sprintf(q(EXECUTE login ('%s')), token()));
is($app->query(sprintf(q(SELECT scrapersky.authenticate('%s')), token('nobody'))), $denied, 'a failure');
$statements = $root->must('SELECT string_agg(query, chr(10)) FROM pg_stat_statements');
like($statements, qr/scrapersky\.authenticate\(/, 'has statements');
is(leaks($statements), '', 'without tokens');

note 'what only looks like hiding';
# pg_stat_statements reads the text of a statement again, and a client must not be able to change it
my $pieces = join(q(', '), map { $_ x 40 } 'a' .. 'c');
for my $argument ("'$pieces'", 'current_query()')
{
	my $quoted = $argument eq 'current_query()' ? $argument : "\$q\$$pieces\$q\$";
	$app->query("DO \$d\$ BEGIN PERFORM scrapersky.authenticate($quoted); EXCEPTION WHEN OTHERS THEN PERFORM 1; END \$d\$");
	is($app->query("SELECT count(*) FROM (SELECT '$pieces', 7, 8) x"), 1, 'the server is up');
}
for my $size (38 .. 42)
{
	my $text = join(q(', '), map { $_ x $size } 'a' .. 'c');
	$node->psql('postgres', "DO \$d\$ BEGIN PERFORM scrapersky.authenticate(\$q\$$text\$q\$); EXCEPTION WHEN OTHERS THEN NULL; END \$d\$\\; SELECT '$text', 7, 8",
		extra_params => [ '--username', 'regress_sky_app' ]);
	is($root->query('SELECT 1'), 1, "the server is up after constants of $size characters");
}
my $evil = 'the statement that nobody is to see';
hold();
$app->send("SELECT scrapersky.authenticate('" . token() . "'), '$evil', pg_advisory_xact_lock(7)");
like(seen($app), qr/\Q$evil\E/, 'the rest of a statement stays to be seen');
$app->wait;

note 'the log, when something fails';
my $from = -s $node->logfile;
my $known = 'this is written to the log';
like($app->query("SELECT '$known' || (random() * 0)::int / 0"), qr/^ERROR/, 'an error without a token');
like(slurp_file($node->logfile, $from), qr/STATEMENT:  SELECT '$known'/, 'is logged with its statement');
for my $case (
	[ 'a bad token', q(SELECT scrapersky.authenticate('%s')), $denied, 'nobody' ],
	[ 'a bad token in DO', q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s'); END $$), $denied, 'nobody' ],
	[ 'a bad token in EXECUTE', q(DO $$ BEGIN EXECUTE 'SELECT scrapersky.authenticate(''%s'')'; END $$), $denied, 'nobody' ],
	[ 'a session identity', q(SELECT scrapersky.authenticate('%s', false)), 'ERROR 0A000' ],
	[ 'a session identity in DO', q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s', false); END $$), 'ERROR 0A000' ],
	[ 'a cursor', q(BEGIN; DECLARE c CURSOR FOR SELECT 1; SELECT scrapersky.authenticate('%s')), 'ERROR 55006' ],
	[ 'a cursor in DO', q(DO $$ DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP PERFORM scrapersky.authenticate('%s'); END LOOP; END $$), 'ERROR 55006' ],
	[ 'a cursor in EXECUTE', q(DO $$ DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP EXECUTE 'SELECT scrapersky.authenticate(''%s'')'; END LOOP; END $$), 'ERROR 55006' ],
	[ 'another statement of the same string', q(SELECT scrapersky.authenticate('%s'); SELECT 1 / (random() * 0)::int), 'ERROR 22012' ],
	[ 'another part of the same statement', q(SELECT scrapersky.authenticate('%s'), 1 / (random() * 0)::int), 'ERROR 22012' ],
	[ 'the rest of DO', q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s'); PERFORM 1 / (random() * 0)::int; END $$), 'ERROR 22012' ],
	[ 'a warning', q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s'); RAISE WARNING 'careful'; RAISE LOG 'noted'; END $$), '' ],
	[ 'a denied statement', q(SELECT scrapersky.authenticate('%s'); INSERT INTO app.docs (body) VALUES ('x')), 'ERROR 42501', 'bob' ],
	[ 'a tenant that disagrees', q(SELECT scrapersky.authenticate('%s', tenant => 'bbbbbbbb-0000-4000-8000-000000000001')), $denied ],
	[ 'a statement timeout', q(SELECT set_config('statement_timeout', '50', true); SELECT scrapersky.authenticate('%s'); SELECT pg_sleep(10)), 'ERROR 57014' ])
{
	my ($what, $sql, $answer, $subject) = @$case;
	my $token = token($subject);
	my $before = -s $node->logfile;
	$sql =~ s/%s/$token/g;
	like($app->query($sql), qr/^\Q$answer\E/, "$what: $answer");
	my $log = slurp_file($node->logfile, $before);
	like($log, qr/(?:ERROR|WARNING|LOG):/, "$what: is logged");
	is(leaks($log), '', "$what: without the token");
	$app->must('ROLLBACK');
}
$root->must('BEGIN');
$root->must('LOCK TABLE scrapersky.users');
$app->must(q(SET lock_timeout = '50ms'));
$from = -s $node->logfile;
is($app->query(sprintf(q(DO $$ BEGIN PERFORM scrapersky.authenticate('%s'); END $$), token('nobody'))), 'ERROR 55P03: canceling statement due to lock timeout', 'our tables are locked');
is(leaks(slurp_file($node->logfile, $from)), '', 'our tables are locked: without the token');
$root->must('ROLLBACK');
$app->must('RESET lock_timeout');

# what follows is logged as ever
$from = -s $node->logfile;
like($app->query("SELECT '$known again' || (random() * 0)::int / 0"), qr/^ERROR/, 'an error without a token');
like(slurp_file($node->logfile, $from), qr/STATEMENT:  SELECT '$known again'/, 'is logged with its statement');
is($app->query('SELECT scrapersky.authenticate($1)', token('nobody')), $denied, 'a bad token as a parameter');
my $log = slurp_file($node->logfile);
is(scalar(grep { index($log, $_) >= 0 } keys %tokens), 0, 'of all these tokens, none is in the log');
like($log, qr/DETAIL:  the user is unknown or not active\./, 'though it knows why they are refused');

done_testing();
