# tools/run and tools/stop: what they print, keep, survive and refuse.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

# Whether nothing of the stack's folder runs.
sub nothing_runs
{
	my ($stack) = @_;
	my @left = grep { (eval { slurp_file($_) } // '') =~ /\Q$stack->{dir}\E\// } glob('/proc/[0-9]*/cmdline');
	diag map { slurp_file($_) =~ tr{\0}{ }r . "\n" } @left if @left;
	return !@left;
}

# Runs a line as somebody would who pasted it; returns the status and the JSON.
sub paste
{
	my ($line) = @_;
	open(my $shell, '-|', 'sh', '-c', $line) or die "sh: $!";
	my $output = do { local $/; <$shell> };
	close $shell;
	my ($body, $status) = $output =~ /^(.*) (\d{3})\n$/s;
	return ($status, eval { JSON::PP::decode_json($body) });
}

my $stack = Stack->start('run');

note 'what it prints';
like($stack->{output}, qr{^scrapersky runs on \Q$stack->{url}\E$}m, 'the address');
is_deeply([ sort keys %{ $stack->{token} } ], [qw(alice bob carol dave erin)], 'a token for each user');
my @lines = $stack->{output} =~ /^(curl .*)$/mg;
is(scalar @lines, 4, 'four lines to paste');
my ($status, $json) = paste($lines[0]);
is($status, 200, 'the first one lists pages');
is(scalar @$json, 8, "all of acme's");
unlike(join(' ', map { $_->{url} } @$json), qr/globex/, 'and no others');
($status, $json) = paste($lines[1]);
is($status, 201, 'the second one adds a page');
is($json->[0]{tenant_id}, $Stack::ACME, 'whose tenant fills itself in');
($status, $json) = paste($lines[2]);
is($status, 403, 'the third one is refused');
is($json->{code}, '42501', 'with 42501');
($status, $json) = paste($lines[3]);
is($status, 200, 'the fourth one says who bob is');
is((ref $json eq 'ARRAY' ? $json->[0] : $json)->{subject}, 'bob@acme', 'bob');

note 'secrets';
for my $file (qw(jwt_secret authenticator_password pgpass))
{
	is((stat "$stack->{dir}/secrets/$file")[2] & 07777, 0600, "$file is 0600");
}
is((stat $stack->{dir})[2] & 07777, 0700, 'the folder is 0700');
my %secret = map { $_ => $stack->secret($_) } qw(jwt_secret authenticator_password);
cmp_ok(length $secret{$_}, '>=', 32, "$_ is long") for keys %secret;
isnt($secret{jwt_secret}, $secret{authenticator_password}, 'and each is its own');
unlike($stack->{output}, qr/\Q$secret{$_}\E/, "$_ is not printed") for keys %secret;
for my $cmdline (glob('/proc/[0-9]*/cmdline'))
{
	my $text = eval { slurp_file($cmdline) } // '';
	fail("a secret on a command line: $cmdline") if grep { $text =~ /\Q$_\E/ } values %secret;
}
unlike(slurp_file("$stack->{dir}/postgrest.conf"), qr/\Q$secret{authenticator_password}\E|\Q$secret{jwt_secret}\E/, 'none is in postgrest.conf');
is($stack->sql(q{SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%} . $secret{authenticator_password} . q{%'}), 0,
	'none is in pg_stat_statements');
is($stack->sql(q{SELECT count(*) FROM pg_hba_file_rules WHERE type <> 'local' OR auth_method NOT IN ('peer', 'scram-sha-256')}), 0,
	'there is no way in but by password, or as superuser from the same account');
is($stack->sql('SHOW listen_addresses'), '', 'and none over the network');

note 'while it runs';
my $output;
($output, $status) = Stack::tool('run', '--dir', $stack->{dir}, '--port', Stack::free_port(), '--detach');
is($status, 1, 'a second start in the same folder is refused');
like($output, qr/^scrapersky: it is running already.*make stop.*\n\z/, 'in one line that says what to do');
my $other = bless { dir => Stack::folder('run_other'), port => $stack->{port} }, 'Stack';
$other->settings('');
ok(!$other->up, 'so is another one on the same port');
like($other->{output}, qr/^scrapersky: port $stack->{port} cannot be used \(Address already in use\).*PORT=.*\n\z/,
	'in one line that says what to do');
ok(nothing_runs($other), 'and nothing of it runs');

note 'stopping and starting again';
$stack->sql("INSERT INTO api.domains (tenant_id, domain) VALUES ('$Stack::ACME', 'kept.example')");
my $token = $stack->{token}{alice};
($output, $status) = $stack->down;
is($status, 0, 'tools/stop');
ok(nothing_runs($stack), 'and nothing runs any more');
($output, $status) = $stack->down;
is_deeply([ $output, $status ], [ "nothing runs\n", 0 ], 'which a second tools/stop says');
ok($stack->up, 'it starts again');
unlike($stack->{output}, qr/creating/, 'with what was there');
is($stack->sql("SELECT count(*) FROM api.domains WHERE domain = 'kept.example'"), 1, 'the rows are');
is($stack->secret($_), $secret{$_}, "$_ is") for keys %secret;
is($stack->request(GET => '/rest/v1/domains', token => $token)->{status}, 200, 'and old tokens stay good');

note 'killed';
kill KILL => $stack->pid_of;
ok(Stack::eventually(sub { !grep { (eval { slurp_file($_) } // '') =~ /(postgrest|nginx).*\Q$stack->{dir}\E/ } glob('/proc/[0-9]*/cmdline') }),
	'PostgREST and nginx end with it');
ok($stack->up, 'and the next start finds its way');
kill KILL => $stack->pid_of;
($output, $status) = $stack->down;
is($output, "stopped PostgreSQL, which was left over\n", 'tools/stop stops what is left');
ok(nothing_runs($stack), 'nothing');

note 'in the foreground';
my $pid = open(my $pipe, '-|') // die "fork: $!";
if (!$pid)
{
	setpgrp(0, 0);
	$SIG{INT} = 'DEFAULT';
	exec(Sky::source() . '/tools/run', '--dir', $stack->{dir}, '--port', $stack->{port}) or die "exec: $!";
}
my $printed = '';
while (my $line = <$pipe>)
{
	$printed .= $line;
	last if $line =~ /^Ctrl-C/;
}
like($printed, qr/^Ctrl-C, or make stop, stops it\.$/m, 'it says how to stop it');
Sky::tell_secret($_) for $printed =~ /^(eyJ\S+)$/mg;
is($stack->request(GET => '/health/database')->{status}, 200, 'it answers');
kill -2 => $pid;
like(do { local $/; <$pipe> }, qr/^stopping$/m, 'Ctrl-C: it says that it stops');
close $pipe;
is($?, 0, 'and ends');
ok(nothing_runs($stack), 'and all that it started');

note 'settings';
my $tenant = $Stack::ACME;
$stack->settings("# a comment\nexport ENVIRONMENT='development'\r\nDEFAULT_TENANT_ID=\"$tenant\"\nDATABASE_URL=\$(touch $stack->{dir}/executed)\n"
	  . "JWT_SECRET_KEY=`touch $stack->{dir}/executed` and enough bytes\n");
ok($stack->up, 'a file of settings is read');
is($stack->sql('SHOW scrapersky.environment'), 'development', 'ENVIRONMENT');
is($stack->sql('SHOW scrapersky.default_tenant_id'), $tenant, 'DEFAULT_TENANT_ID');
is($stack->secret('jwt_secret'), "`touch $stack->{dir}/executed` and enough bytes", 'JWT_SECRET_KEY');
ok(!-e "$stack->{dir}/executed", 'and nothing of it is executed');
is($stack->request(GET => '/rest/v1/pages', as => 'alice')->{status}, 200, 'tokens of that secret are good');
is($stack->request(GET => '/rest/v1/pages', token => $token)->{status}, 401, "and the old secret's are not");
$stack->down;
for my $case (
	[ 'JWT_SECRET_KEY=your_secret_key', qr/JWT_SECRET_KEY.*32/ ], [ 'DEFAULT_TENANT_ID=acme', qr/DEFAULT_TENANT_ID.*UUID/ ],
	[ "ENVIRONMENT=prod", qr/ENVIRONMENT.*production/ ])
{
	my ($line, $expected) = @$case;
	$stack->settings("$line\n");
	ok(!$stack->up, "refused: $line");
	like($stack->{output}, qr/^scrapersky: $expected.*\n\z/, 'in one line');
}
$stack->settings('');

note 'a newer version of the extension';
{
	my $copy = "$stack->{dir}_copy";
	my ($prefix) = $ENV{SKY_PG} =~ m{^(.*)/usr/lib/postgresql/\d+/bin$};
	my ($version) = $ENV{SKY_PG} =~ m{/(\d+)/bin$};
	mkdir $copy;
	system('cp', '-a', "$prefix/usr", $copy) == 0 or die 'cp failed';
	my $extension = "$copy/usr/share/postgresql/$version/extension";
	my $installed = $stack->up && $stack->sql(q{SELECT extversion FROM pg_extension WHERE extname = 'scrapersky'});
	$stack->down;
	append_to_file("$extension/scrapersky--$installed--99.0.sql", "CREATE FUNCTION scrapersky.newer() RETURNS int LANGUAGE sql RETURN 1;\n");
	my $control = slurp_file("$extension/scrapersky.control");
	$control =~ s/^default_version = .*$/default_version = '99.0'/m;
	unlink "$extension/scrapersky.control";
	append_to_file("$extension/scrapersky.control", $control);

	local $ENV{SKY_PG} = "$copy/usr/lib/postgresql/$version/bin";
	ok($stack->up, 'it starts');
	like($stack->{output}, qr/^updating the extension from \Q$installed\E to 99\.0$/m, 'and says that it updates');
	is($stack->sql('SELECT scrapersky.newer()'), 1, 'to the new version');
	is($stack->request(GET => '/rest/v1/pages', as => 'alice')->{status}, 200, 'and requests work');
	$stack->down;
	system('rm', '-rf', $copy);
}

note 'parts that do not start';
rename("$stack->{dir}/secrets/jwt_secret", "$stack->{dir}/jwt_secret");
mkdir("$stack->{dir}/secrets/jwt_secret");
ok(!$stack->up, 'without its secret');
rmdir("$stack->{dir}/secrets/jwt_secret");
rename("$stack->{dir}/jwt_secret", "$stack->{dir}/secrets/jwt_secret");
ok(nothing_runs($stack), 'nothing is left running');
append_to_file("$stack->{dir}/data/postgresql.conf", "nonsense = on\n");
ok(!$stack->up, 'PostgreSQL with nonsense in its configuration');
like($stack->{output}, qr/^scrapersky: PostgreSQL did not start: .*log\n\z/m, 'one line says so, and where to look');
ok(nothing_runs($stack), 'and nothing is left running');

note 'the command line';
for my $case ([ [qw(--port 0)], qr/port 0/ ], [ [qw(--port x)], qr/port x/ ], [ [qw(--port)], qr/--port needs a value/ ], [ [qw(--what)], qr/--what/ ],
	[ [ '--dir', "$other->{dir} x" ], qr/ x .*--dir/ ], [ [ '--dir', Sky::source() ], qr/not empty.*--dir/ ],
	[ [ '--env', "$other->{dir}/none" ], qr/no file/ ])
{
	my ($arguments, $expected) = @$case;
	($output, $status) = Stack::tool('run', '--dir', $other->{dir}, @$arguments);
	is($status, 1, "refused: @$arguments");
	like($output, qr/^scrapersky: .*$expected.*\n\z/, 'in one line');
}
($output, $status) = Stack::tool('run', '--help');
is($status, 0, '--help');
like($output, qr/^usage: tools\/run/, 'says how');

note 'forgetting what is not ours';
my $foreign = Stack::folder('foreign');
mkdir $_ for $foreign, "$foreign/data";
PostgreSQL::Test::Utils::append_to_file("$foreign/lock", '');
for my $option ('--forget', '--detach')
{
	my ($said, $exit) = Stack::tool('run', '--dir', $foreign, $option);
	is($exit, 1, "$option refuses a folder that is not ours");
	like($said, qr/^scrapersky: \Q$foreign\E is not .*$/m, 'and says so');
	ok(-d "$foreign/data", 'nothing is gone');
}

note 'forgetting';
my @logs = glob("$stack->{dir}/log/*.log");
my $text = $stack->logs;
unlike($text, qr/eyJ/, 'no token is in the logs');
unlike($text, qr/\Q$secret{$_}\E/, "nor $_") for keys %secret;
($output, $status) = Stack::tool('run', '--dir', $other->{dir}, '--forget');
is($status, 0, '--forget');
ok(!-e $other->{dir}, 'and the folder is gone');

done_testing();
