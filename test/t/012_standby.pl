# A hot standby lets in whom its primary would, and a warm backend of it forgets
# what was revoked on the primary as soon as that is replayed.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;
use Time::HiRes qw(sleep);

my $primary = Sky::new_node('primary', streaming => 1);
Sky::sample($primary);
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

my $root = Sky::Session->new($primary);
my @warm = map { Sky::Session->new($standby, user => 'regress_sky_app') } 1 .. 2;
my $watch = Sky::Session->new($standby);
my $login = 'SELECT scrapersky.authenticate($1)';
my $denied = 'ERROR 28000: authentication failed';
my $anonymous = 'ERROR 42501: no identity in this transaction';
my $acme = "'$Sky::ACME'";
my $alice = "'$Sky::ALICE'";
my $token = Sky::token('alice', tenant_id => $Sky::ACME);
my $question = q(SELECT scrapersky.has_permission('docs:read'), scrapersky.has_permission('docs:write'), array_to_string(scrapersky.current_roles(), ','));

# On the primary; replayed on the standby when this returns.
sub primary
{
	my ($sql) = @_;
	$root->must($sql);
	my $lsn = $root->must('SELECT pg_current_wal_flush_lsn()');
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $watch->must('SELECT pg_last_wal_replay_lsn() >= $1', $lsn) eq 't';
		sleep(0.01 * ($_ < 10 ? 1 : 10));
	}
	die 'the standby does not keep up';
}

sub ask
{
	my ($session, $of) = @_;
	$session->must('BEGIN');
	my $answer = $session->query($login, $of // $token) || $session->query($question);
	$session->must('ROLLBACK');
	return $answer;
}

sub everywhere
{
	my ($what, $answer) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ; ', map { my $session = $_; map { ask($session) } 1 .. 2 } @warm), join(' ; ', ($answer) x 4), $what);
	return;
}

note 'a standby works';
my $app = $warm[0];
is($app->query('SELECT pg_is_in_recovery()'), 't', 'it is one');
is($app->query('SELECT count(*) FROM app.docs'), $anonymous, 'without identity there is nothing');
$app->must('BEGIN');
is($app->query($login, $token), '', 'alice is let in');
is($app->query('SELECT scrapersky.current_subject(), count(*), count(DISTINCT tenant_id) FROM app.docs'), 'alice|3|1', 'and sees her rows');
$app->must('SAVEPOINT s');
is($app->query(q(INSERT INTO app.docs (body) VALUES ('x'))), 'ERROR 25006: cannot execute INSERT in a read-only transaction', 'and writes none');
$app->must('ROLLBACK TO s');
like($app->query(q(SET LOCAL scrapersky.identity = '1')), qr/^ERROR 42501/, 'nobody is forged');
$app->must('ROLLBACK');
is($app->query('SELECT count(*) FROM app.docs'), $anonymous, 'and nothing is left');
is($app->query($login, Sky::sign({ sub => 'alice', exp => time + 600 }, key => 'x' x 40)), $denied, 'a forged token');

note 'what is revoked on the primary';
my $all = 't|t|EDITOR,USER';
everywhere('at first', $all);
for my $change (
	[ 'a permission of a role', q(SELECT scrapersky.revoke_permission('EDITOR', 'docs:write')), 't|f|EDITOR,USER', q(SELECT scrapersky.grant_permission('EDITOR', 'docs:write')) ],
	[ 'a role', "SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)", 't|f|USER', "SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)" ],
	[ 'the membership', "UPDATE scrapersky.memberships SET status = 'inactive' WHERE user_id = $alice", $denied, "SELECT scrapersky.add_member($acme, $alice)" ],
	[ 'the user', "UPDATE scrapersky.users SET status = 'inactive' WHERE id = $alice", $denied, "UPDATE scrapersky.users SET status = 'active' WHERE id = $alice" ],
	[ 'the tenant', "UPDATE scrapersky.tenants SET status = 'suspended' WHERE id = $acme", $denied, "UPDATE scrapersky.tenants SET status = 'active' WHERE id = $acme" ],
	[ 'all roles', 'CREATE TABLE public.kept AS TABLE scrapersky.user_roles; TRUNCATE scrapersky.user_roles', 'f|f|', 'INSERT INTO scrapersky.user_roles TABLE public.kept; DROP TABLE public.kept' ],
	[ 'a role, as a replica would', "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM scrapersky.user_roles WHERE user_id = $alice; COMMIT", 'f|f|',
		"SELECT scrapersky.assign_role($alice, 'EDITOR', $acme), scrapersky.assign_role($alice, 'USER', $acme)" ],
	[ 'many at once', "BEGIN; INSERT INTO scrapersky.users (subject) SELECT 'u' || i FROM generate_series(1, 200) i; UPDATE scrapersky.users SET status = 'inactive' WHERE id = $alice; COMMIT", $denied,
		"UPDATE scrapersky.users SET status = 'active'" ],
	[ 'in a savepoint', "BEGIN; SAVEPOINT s; DELETE FROM scrapersky.users WHERE subject LIKE 'u%'; ROLLBACK TO s; SAVEPOINT t; SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme); RELEASE t; COMMIT", 't|f|USER',
		"SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)" ],
	[ 'in two phases', "BEGIN; SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme); PREPARE TRANSACTION 'regress_sky'", $all, q(COMMIT PREPARED 'regress_sky') ])
{
	my ($what, $take, $left, $give) = @$change;
	primary($_) for split /; /, $take;
	everywhere("taken: $what", $left);
	primary($_) for split /; /, $give;
	everywhere("given: $what", $what eq 'in two phases' ? 't|f|USER' : $all);
}
primary("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
primary('BEGIN');
primary("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
everywhere('not yet committed', $all);
primary('ROLLBACK');
everywhere('rolled back', $all);

note 'an old snapshot';
$app->must('BEGIN ISOLATION LEVEL REPEATABLE READ');
$app->must('SELECT count(*) FROM pg_class');
primary(q(SELECT scrapersky.revoke_permission('EDITOR', 'docs:write')));
$app->must($login, $token);
is($app->query($question), 't|f|EDITOR,USER', 'does not bring back what was revoked');
$app->must('COMMIT');
everywhere('nor does it poison the cache', 't|f|EDITOR,USER');
primary(q(SELECT scrapersky.grant_permission('EDITOR', 'docs:write')));
everywhere('given', $all);

note 'what is protected on the primary';
sub count_docs
{
	my ($session) = @_;
	$session->must('BEGIN');
	$session->must($login, $token);
	my $answer = $session->query('SELECT count(*) FROM app.docs');
	$session->must('ROLLBACK');
	return $answer;
}
is(count_docs($app), 3, 'a protected table');
primary(q(SET ROLE regress_sky_owner));
primary(q(SELECT scrapersky.protect('app.docs', read_permission => 'docs:print')));
is(count_docs($app), 'ERROR 42501: permission "docs:print" is required', 'another permission');
is(ask($app), $all, 'and the same roles');
primary(q(SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write')));
is(count_docs($app), 3, 'the former permission');
primary(q(CREATE TABLE app.late AS SELECT * FROM app.docs WITH NO DATA));
primary(q(SELECT scrapersky.protect('app.late', read_permission => 'docs:print')));
primary(q(GRANT SELECT ON app.late TO regress_sky_app));
$app->must('BEGIN');
$app->must($login, $token);
is($app->query('SELECT * FROM app.late'), 'ERROR 42501: permission "docs:print" is required', 'a new table, and an empty one');
$app->must('ROLLBACK');
primary('RESET ROLE');

note 'promoted';
$standby->promote;
is($app->query('SELECT pg_is_in_recovery()'), 'f', 'a warm backend of the new primary');
everywhere('knows what it knew', $all);
my $new = Sky::Session->new($standby);
$new->must("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
everywhere('and forgets what is revoked now', 't|f|USER');
$app->must('BEGIN');
$app->must($login, $token);
is($app->query(q(INSERT INTO app.docs (body) VALUES ('x'))), 'ERROR 42501: permission "docs:write" is required', 'no permission to write');
$app->must('ROLLBACK');
$new->must("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
$app->must('BEGIN');
$app->must($login, $token);
is($app->query(q(INSERT INTO app.docs (body) VALUES ('x') RETURNING tenant_id)), $Sky::ACME, 'permission to write');
$app->must('ROLLBACK');

done_testing();
