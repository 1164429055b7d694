# /health and /health/database, while PostgreSQL and PostgREST come and go.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

my $stack = Stack->start('health');

# The answer of a path: its status and its body.
sub answer
{
	my ($path, %opt) = @_;
	my $answer = $stack->request(GET => $path, %opt);
	return "$answer->{status} $answer->{content}";
}

my $alive = '200 {"status":"ok"}';
my $dead = '503 {"status":"error"}';
my $connected = '200 {"status":"ok","database":"connected"}';
my $disconnected = '503 {"status":"error","database":"disconnected"}';
my $unavailable = '503 {"code":"503","message":"service unavailable","details":null,"hint":"Try again shortly."}';

# Requests of every kind, while the database is down.
sub unavailable
{
	for my $path ('/rest/v1/pages', '/rest/v1/', '/rbac/v1/tenants', '/rbac/v1/rpc/whoami')
	{
		is(answer($path, as => 'alice'), $unavailable, "$path: 503, which names no host");
	}
	my $answer = $stack->request(POST => '/rest/v1/pages', as => 'alice', body => {});
	is($answer->{status}, 503, 'writing: 503');
	is($answer->{headers}{'retry-after'}, 1, 'with Retry-After');
	return;
}

note 'all is well';
is(answer('/health'), $alive, '/health');
is(answer('/health/database'), $connected, '/health/database');
is(answer('/health/database?select=x'), $connected, 'whatever the query');
is(answer('/health/database', token => 'nonsense'), $connected, 'whatever the token');
is(answer('/health/database', headers => { Accept => 'text/csv', Prefer => 'tx=rollback', Range => '5-6', 'X-Tenant-Id' => 'x' }),
	$connected, 'whatever the headers');
is($stack->request(HEAD => $_)->{status}, 200, "HEAD $_") for '/health', '/health/database';
is($stack->request(POST => '/health/database', body => {})->{status}, 405, 'POST: 405');

note 'PostgreSQL stopped by hand';
ok($stack->pg_ctl('-m', 'fast', 'stop'), 'stopped');
is(answer('/health/database'), $disconnected, '/health/database');
is(answer('/health'), $alive, '/health stays');
unavailable();
sleep 6;
is(answer('/health/database'), $disconnected, 'nobody starts it again behind our back');
ok($stack->pg_ctl('start'), 'started by hand');
ok(Stack::eventually(sub { answer('/health/database') eq $connected }), 'connected again');
is($stack->request(GET => '/rest/v1/pages', as => 'alice')->{status}, 200, 'requests work again');
ok($stack->pg_ctl('-m', 'fast', 'restart'), 'restarted by hand');
ok(Stack::eventually(sub { answer('/health/database') eq $connected }), 'connected again');

note 'PostgreSQL does not answer';
my $postmaster = (split /\n/, slurp_file("$stack->{dir}/data/postmaster.pid"))[0];
my @backends = split /\n/, $stack->sql(q{SELECT pid FROM pg_stat_activity WHERE usename = 'authenticator'});
kill STOP => $postmaster, @backends;
my $start = time;
is(answer('/health/database'), $disconnected, '/health/database');
cmp_ok(time - $start, '<=', 5, 'in time');
is(answer('/health'), $alive, '/health stays');
kill CONT => $postmaster, @backends;
ok(Stack::eventually(sub { answer('/health/database') eq $connected }), 'connected again');

note 'PostgreSQL crashed';
kill KILL => $postmaster = (split /\n/, slurp_file("$stack->{dir}/data/postmaster.pid"))[0];
ok(Stack::eventually(sub { answer('/health/database') eq $disconnected }), '/health/database');
ok(Stack::eventually(sub { answer('/health/database') eq $connected }), 'it is started again');

note 'PostgREST and nginx killed';
kill KILL => $stack->pid_of('postgrest');
ok(Stack::eventually(sub { answer('/health') eq $dead }), '/health says so');
ok(Stack::eventually(sub { answer('/health') eq $alive && answer('/health/database') eq $connected }), 'PostgREST is started again');
my $nginx = $stack->pid_of('nginx');
kill KILL => $nginx;
ok(Stack::eventually(sub { ($stack->pid_of('nginx') // $nginx) != $nginx }), 'nginx is started again');
ok(Stack::eventually(sub { answer('/health/database') eq $connected }), 'and answers');
like($stack->logs, qr/$_ ended by itself; starting it again/, "it says so: $_") for qw(PostgreSQL postgrest nginx);

done_testing();
