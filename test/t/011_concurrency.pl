# Eight connections, two thousand transactions of random users in random tenants,
# with savepoints, errors and rollbacks, while roles change and tables are protected
# again: whoever asks sees and changes the rows of one tenant, its own.
use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my ($connections, $transactions, $tenants, $users) = (8, 250, 5, 40);
my $seed = $ENV{SKY_SEED} // time;
note "SKY_SEED=$seed";

my $node = Sky::new_node('main', conf => "deadlock_timeout = 200ms\nmax_connections = 30\nautovacuum_naptime = 1s");
my $root = Sky::Session->new($node);
$root->must($_) for split /;\n/, <<"SQL";
CREATE ROLE regress_sky_owner LOGIN;
CREATE ROLE regress_sky_app LOGIN;
CREATE SCHEMA app AUTHORIZATION regress_sky_owner;
GRANT USAGE ON SCHEMA app TO regress_sky_app;
SELECT scrapersky.create_tenant('T' || i, 't' || i, format('aaaaaaaa-0000-4000-8000-%s', lpad(i::text, 12, '0'))::uuid) FROM generate_series(1, $tenants) i;
SELECT scrapersky.create_user('u' || i, NULL, '', format('cccccccc-0000-4000-8000-%s', lpad(i::text, 12, '0'))::uuid) FROM generate_series(1, $users) i;
SELECT scrapersky.create_permission('docs:read'), scrapersky.create_permission('docs:write'), scrapersky.create_role('WRITER'), scrapersky.create_role('READER');
SELECT scrapersky.grant_permission('READER', 'docs:read'), scrapersky.grant_permission('WRITER', 'docs:read'), scrapersky.grant_permission('WRITER', 'docs:write');
SELECT scrapersky.add_member(t.id, u.id) FROM scrapersky.tenants t, scrapersky.users u WHERE abs(hashtext(t.slug || u.subject)) % 3 > 0;
SELECT scrapersky.assign_role(user_id, CASE WHEN abs(hashtext(user_id::text || tenant_id)) % 4 = 0 THEN 'READER' ELSE 'WRITER' END, tenant_id) FROM scrapersky.memberships;
SET ROLE regress_sky_owner;
CREATE TABLE app.docs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, body text NOT NULL, n int NOT NULL DEFAULT 0);
INSERT INTO app.docs (tenant_id, body) SELECT format('aaaaaaaa-0000-4000-8000-%s', lpad(t::text, 12, '0'))::uuid, 't' || t FROM generate_series(1, $tenants) t, generate_series(1, 5 + t) i;
SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write');
GRANT SELECT, INSERT, UPDATE, DELETE ON app.docs TO regress_sky_app;
CREATE FUNCTION app.seen() RETURNS text LANGUAGE plpgsql STABLE AS \$\$ BEGIN RETURN (SELECT string_agg(DISTINCT body || tenant_id, ',') FROM app.docs); END \$\$;
RESET ROLE
SQL
my @member = map { [ split /\|/ ] } split /\n/, $root->must('SELECT u.subject, t.slug, t.id FROM scrapersky.memberships m JOIN scrapersky.users u ON u.id = user_id JOIN scrapersky.tenants t ON t.id = tenant_id');
cmp_ok(scalar @member, '>', 100, 'memberships to choose from');
my @token = map { Sky::token($$_[0], tenant_id => $$_[2]) } @member;

my $seen = q(SELECT string_agg(DISTINCT body || tenant_id, ',') FROM app.docs);
# what may come between: no permission by now, no member by now, somebody else's lock
my $fair = qr/^ERROR (?:28000: authentication failed|42501: permission "docs:(?:read|write)" is required|40001|40P01|55P03|25P02)/;

# One connection's share.  Returns what went wrong, and how often what was seen.
sub worker
{
	my ($number) = @_;
	my $session = Sky::Session->new($node, user => 'regress_sky_app');
	my (@wrong, %count);

	srand($seed + $number);
	$session->must("PREPARE seen AS $seen");
	$session->must('SET plan_cache_mode = force_generic_plan') if $number % 2;
	for my $turn (1 .. $transactions)
	{
		my @said;
		# Says something; true if that worked.  What fails for no fair reason is wrong.
		my $say = sub {
			my ($sql, @parameters) = @_;
			my $answer = $session->query($sql, @parameters);
			push @said, "$sql: $answer";
			push @wrong, join("\n", @said) if $answer =~ /^(?:ERROR|FATAL)/ && $answer !~ $fair;
			return $answer !~ /^(?:ERROR|FATAL)/;
		};
		# Becomes a random member; returns who that is.
		my $become = sub {
			my $index = int(rand(@member));
			return if !$say->('SELECT scrapersky.authenticate($1)', $token[$index]);
			$count{let_in}++;
			return $member[$index];
		};
		# Whoever this is sees rows of one tenant.
		my $look = sub {
			my ($who) = @_;
			my ($subject, $slug, $tenant) = @$who;
			return 0 if $session->status ne 'T';
			my $sql = (q(EXECUTE seen), $seen, 'SELECT app.seen()')[ rand 3 ];
			my $answer = $session->query($sql);
			if ($answer eq "$slug$tenant") { $count{own}++ }
			elsif ($answer =~ $fair) { $count{denied}++; return 0 }
			else { push @wrong, join("\n", @said, "$subject in $slug sees with $sql: $answer"); return 0 }
			return 1;
		};
		# Changes rows, as far as it may.
		my $change = sub {
			my ($who) = @_;
			my ($subject, $slug, $tenant) = @$who;
			return if $session->status ne 'T';
			$session->query('SAVEPOINT w');
			my $kind = int(rand(5));
			my $answer =
			    $kind == 0 ? $session->query('INSERT INTO app.docs (body) VALUES ($1) RETURNING body || tenant_id', $slug)
			  : $kind == 1 ? $session->query('WITH u AS (UPDATE app.docs SET n = n + 1 WHERE id % 7 = 0 RETURNING body || tenant_id AS x) SELECT DISTINCT x FROM u')
			  : $kind == 2 ? $session->query('WITH d AS (DELETE FROM app.docs WHERE n > 3 AND id % 3 = 0 RETURNING body || tenant_id AS x) SELECT DISTINCT x FROM d')
			  : $kind == 3 ? $session->query('INSERT INTO app.docs (body, tenant_id) VALUES ($1, $2)', 'stolen', $member[ rand @member ][2] =~ s/^\Q$tenant\E$/00000000-0000-0000-0000-000000000000/r)
			  : $session->query('UPDATE app.docs SET tenant_id = $1', $tenant =~ s/1$/2/r =~ s/[3-5]$/1/r);
			# stealing fails; so may anything that somebody else is doing, too
			if ($answer eq "$slug$tenant" || $answer eq '' && $kind <= 2 || $answer eq '' && $kind == 4 && $tenant =~ /2$/) { $count{changed}++ }
			elsif ($kind >= 3 && $answer =~ /^ERROR 42501/) { $count{refused}++ }
			elsif ($answer !~ $fair) { push @wrong, "$subject in $slug, change $kind: $answer" }
			$session->query($answer =~ /^ERROR/ || rand() < 0.2 ? 'ROLLBACK TO w' : 'RELEASE w');
			return;
		};

		$session->must('BEGIN ISOLATION LEVEL ' . ('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')[ rand 4 ]);
		my $who = $become->();
		if ($who && $look->($who))
		{
			if (rand() < 0.5 && $session->status eq 'T')
			{
				$say->('SAVEPOINT s');
				my $other = $become->();
				$look->($other) if $other;
				$change->($other) if $other && rand() < 0.3;
				$session->query('SELECT 1/0') if rand() < 0.2;
				$say->('ROLLBACK TO s');
				$look->($who);
			}
			if (rand() < 0.2 && $session->status eq 'T')
			{
				$say->('SAVEPOINT s');
				$say->('SELECT scrapersky.clear_identity()');
				my $answer = $session->query($seen);
				push @wrong, "without identity: $answer" if $answer ne 'ERROR 42501: no identity in this transaction';
				$say->('ROLLBACK TO s');
			}
			$change->($who) if rand() < 0.6;
			$look->($who);
		}
		$session->query('SELECT 1/0') if rand() < 0.1;
		$session->query(rand() < 0.7 ? 'COMMIT' : 'ROLLBACK');
		if ($session->status ne 'I')
		{
			push @wrong, 'the transaction does not end';
			last;
		}
		my $answer = $session->query('SELECT scrapersky.is_authenticated()') . $session->query($seen);
		push @wrong, "after the transaction: $answer" if $answer ne 'fERROR 42501: no identity in this transaction';
		$count{done}++;
	}
	return (\%count, @wrong);
}

# Administrators: change who may what, and protect the table again.
sub administrator
{
	my ($until) = @_;
	my $admin = Sky::Session->new($node);
	my $owner = Sky::Session->new($node, user => 'regress_sky_owner');
	my @wrong;

	srand($seed + 100);
	$_->must(q(SET lock_timeout = '300ms')) for $admin, $owner;
	while (!-e $until)
	{
		my ($subject, $slug, $tenant) = @{ $member[ rand @member ] };
		my $user = "(SELECT id FROM scrapersky.users WHERE subject = '$subject')";
		my $sql = ("SELECT scrapersky.unassign_role($user, 'WRITER', '$tenant')", "SELECT scrapersky.assign_role($user, 'WRITER', '$tenant')",
			"UPDATE scrapersky.memberships SET status = CASE WHEN random() < 0.2 THEN 'inactive' ELSE 'active' END WHERE user_id = $user AND tenant_id = '$tenant'",
			"UPDATE scrapersky.users SET status = CASE WHEN random() < 0.2 THEN 'inactive' ELSE 'active' END WHERE id = $user",
			"SELECT scrapersky.grant_permission('READER', 'docs:write')", "SELECT scrapersky.revoke_permission('READER', 'docs:write')",
			"UPDATE scrapersky.tenants SET status = CASE WHEN random() < 0.2 THEN 'suspended' ELSE 'active' END WHERE id = '$tenant'",
			"VACUUM ANALYZE app.docs", "BEGIN; UPDATE scrapersky.users SET status = 'inactive'; ROLLBACK")[ rand 9 ];
		my $answer = $admin->query($sql);
		push @wrong, "$sql: $answer" if $answer =~ /^ERROR (?!40P01|55P03|40001)/;
		$admin->query('ROLLBACK') if $admin->status ne 'I';
		next if rand() > 0.1;
		$answer = $owner->query(q(SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write')));
		push @wrong, "protect(): $answer" if $answer =~ /^ERROR (?!40P01|55P03|40001)/;
	}
	return ({}, @wrong);
}

# Each in a process of its own, which leaves the server alone when it ends.
my $folder = $node->basedir;
my %process;
for my $number (0 .. $connections)
{
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		my ($count, @wrong) = eval { $number ? worker($number) : administrator("$folder/done") };
		push @wrong, "died: $@" if $@;
		append_to_file("$folder/result.$number", join("\n", join(' ', map { "$_=$$count{$_}" } sort keys %{ $count // {} }), @wrong));
		POSIX::_exit(0);
	}
	$process{$pid} = $number;
}
for my $pid (sort { $process{$b} <=> $process{$a} } keys %process)
{
	append_to_file("$folder/done", 'done') if !$process{$pid};
	waitpid($pid, 0);
	is($?, 0, "process $process{$pid} ends");
}

my %total;
for my $number (0 .. $connections)
{
	my ($counts, @wrong) = split /\n/, slurp_file("$folder/result.$number");
	$total{$1} += $2 while ($counts // '') =~ /(\w+)=(\d+)/g;
	is(scalar @wrong, 0, $number ? "connection $number" : 'the administrators') or diag("SKY_SEED=$seed: ", join("\n", @wrong[ 0 .. ($#wrong > 8 ? 8 : $#wrong) ]));
}
note join(' ', map { "$_=$total{$_}" } sort keys %total);
is($total{done}, $connections * $transactions, 'all transactions were made');
cmp_ok($total{$_}, '>', 100, "$_ was seen often") for qw(let_in own denied changed refused);

is($root->query(q(SELECT count(*) FROM app.docs d JOIN scrapersky.tenants t ON t.id = d.tenant_id WHERE d.body <> t.slug)), 0, 'no row is in another tenant\'s hands');
is($root->query(q(SELECT count(DISTINCT tenant_id) FROM app.docs)), $tenants, 'and all tenants have rows');
my $asked = qr/authentication failed|is required|no identity|division by zero|deadlock|could not serialize|lock timeout|row-level security|another tenant|transaction is aborted/;
my @strange = grep { /PANIC|TRAP|FATAL|terminated by signal|ERROR:  (?!.*$asked)/ } split /\n/, slurp_file($node->logfile);
is(join("\n", @strange[ 0 .. ($#strange > 4 ? 4 : $#strange) ]), '', 'the log has nothing but what was asked for');

done_testing();
