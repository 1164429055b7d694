# What is taken away is gone in the next transaction of every backend, however warm
# its cache is, and in whatever way it was taken; what is rolled back is as it was;
# and the cache does not grow.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
Sky::sample($node);
my $denied = 'ERROR 28000: authentication failed';
my $root = Sky::Session->new($node);
my @warm = map { Sky::Session->new($node, user => 'regress_sky_app') } 1 .. 2;
my %token = (map({ $_ => Sky::token($_) } qw(alice bob)), acme => Sky::token('alice', tenant_id => $Sky::ACME));
my $question = q(SELECT scrapersky.has_permission('docs:read'), scrapersky.has_permission('docs:write'), array_to_string(scrapersky.current_roles(), ','));

# What somebody may do, in a transaction of its own.
sub ask
{
	my ($session, $who) = @_;
	$session->must('BEGIN');
	my $answer = $session->query('SELECT scrapersky.authenticate($1)', $token{$who}) || $session->query($question);
	$session->must('COMMIT');
	return $answer;
}

# In every warm backend, twice, this is the answer.
sub everywhere
{
	my ($what, $answer, $who) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @answers = map { my $session = $_; map { ask($session, $who // 'alice') } 1 .. 2 } @warm;
	is(join(' ; ', @answers), join(' ; ', ($answer) x 4), $what);
	return;
}

my $all = 't|t|EDITOR,USER';
my $editor = q((SELECT id FROM scrapersky.roles WHERE name = 'EDITOR'));
my $alice = "'$Sky::ALICE'";
my $acme = "'$Sky::ACME'";

note 'one change at a time: taken away, and given back';
my @changes = (
	[ 'a permission of a role', q(SELECT scrapersky.revoke_permission('EDITOR', 'docs:write')), 't|f|EDITOR,USER', q(SELECT scrapersky.grant_permission('EDITOR', 'docs:write')) ],
	[ 'a permission of a built-in role', q(SELECT scrapersky.revoke_permission('USER', 'docs:read')), 'f|t|EDITOR,USER', q(SELECT scrapersky.grant_permission('USER', 'docs:read')) ],
	[ 'a role of a user', "SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)", 't|f|USER', "SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)" ],
	[ 'the membership, inactive', "UPDATE scrapersky.memberships SET status = 'inactive' WHERE user_id = $alice", 'f|f|', "SELECT scrapersky.add_member($acme, $alice)" ],
	[ 'the membership', "DELETE FROM scrapersky.memberships WHERE user_id = $alice", 'f|f|',
		"SELECT scrapersky.add_member($acme, $alice), scrapersky.assign_role($alice, 'EDITOR', $acme), scrapersky.assign_role($alice, 'USER', $acme)" ],
	[ 'the user, inactive', "UPDATE scrapersky.users SET status = 'inactive' WHERE id = $alice", $denied, "UPDATE scrapersky.users SET status = 'active' WHERE id = $alice" ],
	[ 'the user\'s subject', "UPDATE scrapersky.users SET subject = 'alicia' WHERE id = $alice", $denied, "UPDATE scrapersky.users SET subject = 'alice' WHERE id = $alice" ],
	[ 'the tenant, suspended', "UPDATE scrapersky.tenants SET status = 'suspended' WHERE id = $acme", 'f|f|', "UPDATE scrapersky.tenants SET status = 'active' WHERE id = $acme" ],
	[ 'a role', q(DELETE FROM scrapersky.roles WHERE name = 'EDITOR'), 't|f|USER',
		"SELECT scrapersky.create_role('EDITOR'); SELECT scrapersky.grant_permission('EDITOR', 'docs:write'), scrapersky.assign_role($alice, 'EDITOR', $acme)" ],
	[ 'a role\'s name', q(UPDATE scrapersky.roles SET name = 'WRITER' WHERE name = 'EDITOR'), 't|t|USER,WRITER', q(UPDATE scrapersky.roles SET name = 'EDITOR' WHERE name = 'WRITER') ],
	[ 'a permission', q(DELETE FROM scrapersky.permissions WHERE name = 'docs:write'), 't|f|EDITOR,USER',
		q(SELECT scrapersky.create_permission('docs:write'); SELECT scrapersky.grant_permission('EDITOR', 'docs:write')) ],
	[ 'a permission\'s name', q(UPDATE scrapersky.permissions SET name = 'docs:print' WHERE name = 'docs:write'), 't|f|EDITOR,USER',
		q(UPDATE scrapersky.permissions SET name = 'docs:write' WHERE name = 'docs:print') ],
	[ 'all roles of users', 'CREATE TABLE public.kept AS TABLE scrapersky.user_roles; TRUNCATE scrapersky.user_roles', 'f|f|',
		'INSERT INTO scrapersky.user_roles TABLE public.kept; DROP TABLE public.kept' ],
	[ 'all permissions of roles', 'CREATE TABLE public.kept AS TABLE scrapersky.role_permissions; TRUNCATE scrapersky.role_permissions', 'f|f|EDITOR,USER',
		'INSERT INTO scrapersky.role_permissions TABLE public.kept; DROP TABLE public.kept' ],
	[ 'all memberships', 'CREATE TABLE public.kept AS TABLE scrapersky.memberships; CREATE TABLE public.roles AS TABLE scrapersky.user_roles; TRUNCATE scrapersky.memberships CASCADE', 'f|f|',
		'INSERT INTO scrapersky.memberships TABLE public.kept; INSERT INTO scrapersky.user_roles TABLE public.roles; DROP TABLE public.kept, public.roles' ],
	[ 'a role, by MERGE', "MERGE INTO scrapersky.user_roles u USING (SELECT $editor AS id) e ON u.role_id = e.id WHEN MATCHED THEN DELETE", 't|f|USER',
		"SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)" ],
	[ 'a role, moved to another user', "UPDATE scrapersky.user_roles SET user_id = '$Sky::CAROL' WHERE role_id = $editor", 't|f|USER',
		"UPDATE scrapersky.user_roles SET user_id = $alice WHERE role_id = $editor" ],
	[ 'a permission, moved to another role', "UPDATE scrapersky.role_permissions SET role_id = '5c4a9e01-0000-4000-8000-000000000002' WHERE role_id = $editor", 't|f|EDITOR,USER',
		"UPDATE scrapersky.role_permissions SET role_id = $editor WHERE role_id = '5c4a9e01-0000-4000-8000-000000000002' AND NOT builtin" ]);
for my $replica (0, 1)
{
	my $how = $replica ? ' (session_replication_role = replica)' : '';
	$root->must('SET session_replication_role = ' . ($replica ? 'replica' : 'DEFAULT'));
	everywhere("at first$how", $all, $_) for qw(alice acme);
	for my $change (@changes)
	{
		my ($what, $take, $left, $give) = @$change;
		# these rely on foreign keys that cascade, which replicas do without
		next if $replica && $what =~ /^(?:the membership|a role|a permission)$/;
		$root->must($take);
		everywhere("taken: $what$how", $left);
		# without a tenant there is an identity without one, unless the token asks for it
		everywhere("taken, and the token names the tenant: $what$how", $what =~ /^(?:the|all) (?:membership|tenant)/ ? $denied : $left, 'acme');
		everywhere("bob is not concerned$how", ask($root, 'bob'), 'bob');
		$root->must($give);
		everywhere("given: $what$how", $all, $_) for qw(alice acme);
	}
}
$root->must('SET session_replication_role = DEFAULT');

note 'a system role takes its name away from tenants\' roles';
$root->must("SELECT scrapersky.create_role('helper', $acme)");
$root->must("SELECT scrapersky.grant_permission('helper', 'docs:write', $acme), scrapersky.assign_role($alice, 'helper', $acme)");
$root->must("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
for my $way ([ 'made', q(INSERT INTO scrapersky.roles (name) VALUES ('HELPER')) ],
	[ 'renamed', q(INSERT INTO scrapersky.roles (name) VALUES ('BASIC')), q(UPDATE scrapersky.roles SET name = 'HELPER' WHERE name = 'BASIC') ])
{
	my ($what, @sql) = @$way;
	my $last = pop @sql;
	$root->must($_) for @sql;
	everywhere('a role of the tenant', 't|t|USER,helper');
	$root->must($last);
	everywhere("is worth nothing after a system role was $what", 't|f|USER');
	$root->must(q(DELETE FROM scrapersky.roles WHERE name = 'HELPER'));
	everywhere('and is again when that is gone', 't|t|USER,helper');
}
$root->must(q(DELETE FROM scrapersky.roles WHERE name = 'helper'));
$root->must("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
everywhere('all as before', $all);

note 'a transaction that has begun';
my $app = $warm[0];
for my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	# its identity stays as it was given; the next is what is true by then
	$app->must("BEGIN ISOLATION LEVEL $level");
	$app->must('SELECT scrapersky.authenticate($1)', $token{alice});
	is($app->query($question), $all, "$level: at first");
	$root->must("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
	is($app->query($question), $all, "$level: an identity is for the transaction");
	$app->must('SELECT scrapersky.authenticate($1)', $token{alice});
	is($app->query($question), 't|f|USER', "$level: another is up to date");
	$app->must('COMMIT');
	everywhere("$level: taken", 't|f|USER');
	$root->must("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
	everywhere("$level: given", $all);

	# an old snapshot, a change, a load: the load must not see the old state, nor keep it
	$app->must("BEGIN ISOLATION LEVEL $level");
	$app->must('SELECT count(*) FROM pg_class');
	$root->must(q(SELECT scrapersky.revoke_permission('EDITOR', 'docs:write')));
	$app->must('SELECT scrapersky.authenticate($1)', $token{alice});
	is($app->query($question), 't|f|EDITOR,USER', "$level: an old snapshot does not bring back what was revoked");
	$app->must('COMMIT');
	everywhere("$level: nor does it poison the cache", 't|f|EDITOR,USER');

	$app->must("BEGIN ISOLATION LEVEL $level");
	$app->must('SELECT count(*) FROM pg_class');
	$app->must('SELECT scrapersky.authenticate($1)', $token{alice});
	$root->must(q(SELECT scrapersky.grant_permission('EDITOR', 'docs:write')));
	is($app->query($question), 't|f|EDITOR,USER', "$level: granted meanwhile");
	$app->must('COMMIT');
	everywhere("$level: is there in the next", $all);
}

note 'changes that are not committed';
$root->must('BEGIN');
$root->must(q(SELECT scrapersky.revoke_permission('EDITOR', 'docs:write')));
everywhere('an uncommitted revoke is nobody else\'s', $all);
$root->must('SELECT scrapersky.authenticate($1)', $token{alice});
is($root->query($question), 't|f|EDITOR,USER', 'but its own transaction sees it');
$root->must('ROLLBACK');
is(ask($root, 'alice'), $all, 'until it is rolled back');
everywhere('others never did', $all);

$root->must('BEGIN');
$root->must('SAVEPOINT s');
$root->must("SELECT scrapersky.assign_role('$Sky::BOB', 'EDITOR', '$Sky::GLOBEX')");
$root->must('SELECT scrapersky.authenticate($1)', $token{bob});
is($root->query($question), 't|t|EDITOR,USER', 'an uncommitted grant');
$root->must('ROLLBACK TO s');
$root->must('SELECT scrapersky.authenticate($1)', $token{bob});
is($root->query($question), 't|f|USER', 'is gone with its savepoint');
$root->must('COMMIT');
is(ask($root, 'bob'), 't|f|USER', 'and stays so');
everywhere('with everybody', 't|f|USER', 'bob');

$root->must('BEGIN');
$root->must("SELECT scrapersky.assign_role('$Sky::BOB', 'EDITOR', '$Sky::GLOBEX')");
$root->must('SELECT scrapersky.authenticate($1)', $token{bob});
like($root->query('SELECT 1/0'), qr/^ERROR/, 'an error after an uncommitted grant');
$root->must('ROLLBACK');
is(ask($root, 'bob'), 't|f|USER', 'ends it');

# a grant that is seen before its trigger fires, which then it never does
my $hasty = Sky::Session->new($node);
$hasty->must(<<'SQL');
CREATE FUNCTION public.become(token text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM scrapersky.authenticate(token); RETURN array_to_string(scrapersky.current_roles(), ','); END $$
SQL
$hasty->must('BEGIN');
$hasty->must('SAVEPOINT s');
is($hasty->query("INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key) SELECT '$Sky::BOB', r.id, '$Sky::GLOBEX', r.tenant_key"
		. " FROM scrapersky.roles r WHERE r.name = 'EDITOR' RETURNING 1 / (public.become('$token{bob}') <> 'EDITOR,USER')::int"),
	'ERROR 22012: division by zero', 'a statement that sees its own grant, and fails');
$hasty->must('ROLLBACK TO s');
$hasty->must('COMMIT');
is(ask($hasty, 'bob'), 't|f|USER', 'leaves nothing of it');

$root->must('BEGIN');
$root->must("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
$root->must(q(PREPARE TRANSACTION 'regress_sky'));
everywhere('a prepared revoke', $all);
is(ask($root, 'alice'), $all, 'is nobody\'s either');
$root->must(q(COMMIT PREPARED 'regress_sky'));
everywhere('until it is committed', 't|f|USER');
is(ask($root, 'alice'), 't|f|USER', 'for its own session, too');
$root->must("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
everywhere('given', $all);

note 'many at once';
my $many = 150;
$root->must(<<"SQL");
INSERT INTO scrapersky.users (subject, email) SELECT 'user' || i, i FROM generate_series(1, $many) i;
INSERT INTO scrapersky.memberships (tenant_id, user_id) SELECT '$Sky::ACME', id FROM scrapersky.users WHERE subject LIKE 'user%';
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
SELECT u.id, r.id, '$Sky::ACME', r.tenant_key FROM scrapersky.users u, scrapersky.roles r WHERE u.subject LIKE 'user%' AND r.name = 'EDITOR';
CREATE FUNCTION public.toggle(first int, last int) RETURNS void LANGUAGE sql AS \$\$
	UPDATE scrapersky.users SET status = CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END
	WHERE subject IN (SELECT 'user' || i FROM generate_series(first, last) i) \$\$;
SQL
my @tokens = map { Sky::token("user$_") } 1 .. $many;

# Which of these users each warm backend lets in; and which are active.
sub let_in
{
	my ($session) = @_;
	return join('', map { $session->query('SELECT scrapersky.authenticate($1)', $_) eq '' ? 1 : 0 } @tokens);
}

sub truth
{
	return $root->must(q(SELECT string_agg((status = 'active')::int::text, '' ORDER BY email::int) FROM scrapersky.users WHERE subject LIKE 'user%'));
}

sub agreed
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $truth = truth();
	is(let_in($_), $truth, $what) for @warm, $root;
	return;
}

agreed('at first');
my @scripts = (
	[ 'in one statement', 'SELECT public.toggle(1, 150)' ],
	[ 'in one transaction, one by one', 'BEGIN', map({ "SELECT public.toggle($_, $_)" } 1 .. 100), 'COMMIT' ],
	[ 'exactly as many as are told apart, and one less, and one more', map { ('BEGIN', "SELECT public.toggle(1, $_)", 'COMMIT') } 63, 64, 65 ],
	[ 'rolled back', 'BEGIN', 'SELECT public.toggle(1, 150)', 'ROLLBACK' ],
	[ 'many in a savepoint that is rolled back, then few', 'BEGIN', 'SAVEPOINT a', 'SELECT public.toggle(1, 100)', 'ROLLBACK TO a', 'SELECT public.toggle(101, 103)', 'COMMIT' ],
	[ 'few, then many in a savepoint that is rolled back', 'BEGIN', 'SELECT public.toggle(101, 103)', 'SAVEPOINT a', 'SELECT public.toggle(1, 100)', 'ROLLBACK TO a', 'COMMIT' ],
	[ 'many in a savepoint that is released', 'BEGIN', 'SAVEPOINT a', 'SELECT public.toggle(1, 100)', 'RELEASE a', 'SELECT public.toggle(120, 122)', 'COMMIT' ],
	[ 'many, then a savepoint', 'BEGIN', 'SELECT public.toggle(1, 100)', 'SAVEPOINT a', 'SELECT public.toggle(101, 102)', 'ROLLBACK TO a', 'SELECT public.toggle(103, 104)', 'COMMIT' ],
	[ 'a savepoint in a savepoint', 'BEGIN', 'SAVEPOINT a', 'SELECT public.toggle(1, 70)', 'SAVEPOINT b', 'SELECT public.toggle(71, 80)', 'ROLLBACK TO a', 'SELECT public.toggle(81, 82)',
		'SAVEPOINT c', 'SELECT public.toggle(83, 150)', 'RELEASE c', 'COMMIT' ],
	[ 'a savepoint each', 'BEGIN', map({ ("SAVEPOINT a", "SELECT public.toggle($_, $_)", $_ % 3 ? 'RELEASE a' : 'ROLLBACK TO a') } 1 .. 120), 'COMMIT' ],
	[ 'an exception block each', 'DO $$ BEGIN FOR i IN 1 .. 150 LOOP BEGIN PERFORM public.toggle(i, i); IF i % 2 = 0 THEN RAISE division_by_zero; END IF;'
		. ' EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$' ],
	[ 'prepared', 'BEGIN', 'SELECT public.toggle(1, 90)', q(PREPARE TRANSACTION 'regress_sky'), 'SELECT public.toggle(100, 101)', q(COMMIT PREPARED 'regress_sky') ]);
for my $script (@scripts)
{
	my ($what, @statements) = @$script;
	$root->must($_) for @statements;
	agreed($what);
}

note 'a backend that sleeps through more messages than the server keeps';
everywhere('at first', $all);
$root->must("SELECT scrapersky.unassign_role($alice, 'EDITOR', $acme)");
$root->must("DO \$\$ BEGIN FOR i IN 1 .. 6000 LOOP UPDATE scrapersky.users SET updated_at = now() WHERE id = '$Sky::CAROL'; COMMIT; END LOOP; END \$\$");
everywhere('taken long ago', 't|f|USER');
$root->must("SELECT scrapersky.assign_role($alice, 'EDITOR', $acme)");
everywhere('given', $all);

note 'at random';
my $seed = $ENV{SKY_SEED} // time;
note "SKY_SEED=$seed";
srand($seed);
splice(@tokens, 100);
$root->must(q(DELETE FROM scrapersky.users WHERE subject LIKE 'user%' AND email::int > 100));
for my $round (1 .. 12)
{
	my @statements = ('BEGIN');
	my $depth = 0;
	for (1 .. 12)
	{
		my $what = int(rand(5));
		if ($what <= 1)
		{
			my $first = 1 + int(rand(100));
			my $last = $first + int(rand(rand() < 0.3 ? 80 : 4));
			push @statements, "SELECT public.toggle($first, $last)";
		}
		elsif ($what == 2)
		{
			push @statements, 'SAVEPOINT s' . ++$depth;
		}
		elsif ($depth > 0)
		{
			my $to = 1 + int(rand($depth));
			push @statements, $what == 3 ? "ROLLBACK TO s$to" : "RELEASE s$to";
			$depth = $what == 3 ? $to : $to - 1;
		}
	}
	push @statements, rand() < 0.8 ? 'COMMIT' : 'ROLLBACK';
	$root->must($_) for @statements;
	my $truth = truth();
	my @bad = grep { let_in($_) ne $truth } @warm, $root;
	is(scalar @bad, 0, "round $round") or diag("SKY_SEED=$seed: ", join('; ', @statements));
}

note 'the cache does not grow';
$root->must(<<"SQL");
CREATE ROLE regress_sky_small LOGIN IN ROLE pg_read_all_stats;
ALTER ROLE regress_sky_small SET scrapersky.rbac_cache_size = '64kB';
INSERT INTO scrapersky.permissions (name) SELECT 'thing' || i || ':do-something-with-a-long-name' FROM generate_series(1, 50) i;
INSERT INTO scrapersky.role_permissions (role_id, permission_id) SELECT $editor, id FROM scrapersky.permissions WHERE name LIKE 'thing%';
UPDATE scrapersky.users SET status = 'active' WHERE subject LIKE 'user%';
SQL
my $small = Sky::Session->new($node, user => 'regress_sky_small');
my $ours = q(SELECT coalesce(sum(total_bytes), 0) FROM pg_backend_memory_contexts WHERE name LIKE 'scrapersky%' OR parent LIKE 'scrapersky%');
my $total = 'SELECT sum(total_bytes) FROM pg_backend_memory_contexts';
my ($most, $after) = (0, 0);
for my $round (1 .. 12)
{
	for my $number (0 .. $#tokens)
	{
		$small->must('SELECT scrapersky.authenticate($1)', $tokens[$number]);
		next if $number % 10;
		my $bytes = $small->must($ours);
		$most = $bytes if $bytes > $most;
	}
	$after = $small->must($total) if $round == 3;
}
cmp_ok($most, '>', 8192, 'something is kept');
cmp_ok($most, '<', 256 * 1024, "1200 logins of 100 users, 64 kB allowed: at most $most bytes");
cmp_ok($small->must($total), '<=', $after + 64 * 1024, 'and the backend has stopped growing');

# what is loaded again and again, since it changes, leaves nothing either
for my $number (1 .. 300)
{
	$root->must(q(UPDATE scrapersky.users SET updated_at = now() WHERE subject = 'user1'));
	$small->must('SELECT scrapersky.authenticate($1)', $tokens[0]);
	my $bytes = $small->must($ours);
	$most = $bytes if $bytes > $most;
}
cmp_ok($most, '<', 256 * 1024, "300 changes: at most $most bytes");
cmp_ok($small->must($total), '<=', $after + 64 * 1024, 'and the backend has not grown');
# an answer that is larger than the cache may be
$root->must(q(INSERT INTO scrapersky.permissions (name) SELECT 'large' || i || ':' || repeat('x', 60) FROM generate_series(1, 2000) i));
$root->must("INSERT INTO scrapersky.role_permissions (role_id, permission_id) SELECT $editor, id FROM scrapersky.permissions WHERE name LIKE 'large%'");
$small->must('SELECT scrapersky.authenticate($1)', $_) for (@tokens[0 .. 9]) x 3;
$small->must('BEGIN');
$small->must('SELECT scrapersky.authenticate($1)', $tokens[0]);
is($small->query(q(SELECT cardinality(scrapersky.current_permissions()), scrapersky.has_permission('large2000:' || repeat('x', 60)))), '2051|t', 'an answer larger than the cache');
$small->must('COMMIT');
cmp_ok($small->must($ours), '<', 1024 * 1024, 'is not kept for long');

done_testing();
