# Stack: what the HTTP tests share.  PostgreSQL, PostgREST and nginx as tools/run
# starts them, with the sample application, in a folder of the test's own.
#
#	my $stack = Stack->start('tenants');
#	my $answer = $stack->request(GET => '/rest/v1/pages', as => 'alice');
#	is($answer->{status}, 200);
#	is(@{ $answer->{json} }, 8);
package Stack;

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use HTTP::Tiny;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Sky;
use Test::More;

# Identifiers in the sample.
our $ACME = 'aaaaaaaa-0000-4000-8000-000000000001';
our $GLOBEX = 'bbbbbbbb-0000-4000-8000-000000000002';
our $NOBODY = 'cccccccc-0000-4000-8000-000000000003';
our $ACME_DOMAIN = 'd0000000-0000-4000-8000-00000000a001';
our $GLOBEX_DOMAIN = 'd0000000-0000-4000-8000-00000000b001';
our $ACME_PAGE = '90000000-0000-4000-8000-00000000a001';
our $GLOBEX_PAGE = '90000000-0000-4000-8000-00000000b001';

my $json = JSON::PP->new->canonical->utf8->allow_nonref;
my @started;

# A folder where logs are found when `make check` searches them.
sub folder
{
	my ($name) = @_;
	my $parent = $ENV{TESTDIR} // tempdir('scrapersky-http.XXXXXX', TMPDIR => 1, CLEANUP => 1);
	return "$parent/http_$name";
}

# Runs tools/NAME; returns what it prints and its exit status.
sub tool
{
	my ($name, @arguments) = @_;
	local $ENV{PORT};
	delete $ENV{PORT};
	my $pid = open(my $pipe, '-|') // die "fork: $!";
	if (!$pid)
	{
		open(STDERR, '>&', \*STDOUT);
		alarm 180;
		exec(Sky::source() . "/tools/$name", @arguments) or die "exec: $!";
	}
	my $output = do { local $/; <$pipe> } // '';
	close $pipe;
	return ($output, $? >> 8);
}

# A TCP port of 127.0.0.1 that is free now.
sub free_port
{
	return IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport;
}

# A new stack that answers.  Option settings: lines of a file of settings.
sub start
{
	my ($class, $name, %opt) = @_;
	my $self = bless { dir => folder($name), port => free_port() }, $class;
	$self->{url} = "http://127.0.0.1:$self->{port}";
	$self->settings($opt{settings} // '');
	tool('run', '--dir', $self->{dir}, '--forget') if -e $self->{dir};
	push @started, $self;
	$self->up or die "tools/run: $self->{output}";
	return $self;
}

# The file of settings has these lines from the next start on.
sub settings
{
	my ($self, $lines) = @_;
	$self->{env} = "$self->{dir}.env";
	open(my $file, '>', $self->{env}) or die "$self->{env}: $!";
	print $file $lines;
	close $file;
	return;
}

# Starts it (again); true if everything answers.  All its secrets are known to
# the search of the logs.
sub up
{
	my ($self) = @_;
	my $status;
	($self->{output}, $status) =
	  tool('run', '--dir', $self->{dir}, '--port', $self->{port}, '--env', $self->{env}, '--detach');
	return 0 if $status;
	$self->{token} = { $self->{output} =~ /^(\w+), .*\n(eyJ\S+)$/mg };
	Sky::tell_secret($_)
	  for values %{ $self->{token} }, map { $self->secret($_) } qw(jwt_secret authenticator_password);
	return 1;
}

sub down
{
	my ($self) = @_;
	return tool('stop', '--dir', $self->{dir});
}

sub secret
{
	my ($self, $name) = @_;
	return slurp_file("$self->{dir}/secrets/$name");
}

# A token of these claims (on top of role and exp) that this stack accepts,
# unless options of Sky::sign spoil it.  A claim that is undef is left out.
sub sign
{
	my ($self, $claims, %opt) = @_;
	my %all = (role => 'authenticated', exp => time + 600, %$claims);
	delete $all{$_} for grep { !defined $all{$_} } keys %all;
	return Sky::sign(\%all, key => $self->secret('jwt_secret'), %opt);
}

# Sends a request; returns status, headers, content, and json if it is some.
# Options: as (a user of the sample), token, headers, body (a structure to send
# as JSON, or bytes).
sub request
{
	my ($self, $method, $path, %opt) = @_;
	my %headers = %{ $opt{headers} // {} };
	my $token = $opt{token} // ($opt{as} ? $self->{token}{ $opt{as} } // die "no token for $opt{as}" : undef);
	my %message = (headers => \%headers);

	$headers{Authorization} //= "Bearer $token" if defined $token;
	if (defined $opt{body})
	{
		$headers{'Content-Type'} //= 'application/json';
		$message{content} = ref $opt{body} ? $json->encode($opt{body}) : $opt{body};
	}
	my $answer = HTTP::Tiny->new(max_redirect => 0, timeout => 20, keep_alive => 0)
	  ->request($method, $self->{url} . $path, \%message);
	$answer->{json} = eval { $json->decode($answer->{content}) };
	return $answer;
}

# Sends bytes as they are, to nginx, or (option socket) to this unix socket;
# returns the status, the headers and the body of the answer.
sub raw
{
	my ($self, $bytes, %opt) = @_;
	my $socket =
	  $opt{socket}
	  ? IO::Socket::UNIX->new(Peer => $opt{socket})
	  : IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port});
	my $answer = '';

	die "no connection: $!" if !$socket;
	local $SIG{PIPE} = 'IGNORE';
	local $SIG{ALRM} = sub { die "no answer in time\n" };
	alarm 20;
	$socket->print($bytes);
	$socket->flush;
	1 while sysread($socket, $answer, 65536, length $answer);
	alarm 0;
	my ($head, $body) = split(/\r\n\r\n/, $answer, 2);
	my ($status) = ($head // '') =~ m{^HTTP/1\.[01] (\d{3})};
	return ($status // 0, $head // '', $body // '');
}

# The path of PostgREST's own socket.
sub postgrest
{
	my ($self) = @_;
	return "$self->{dir}/socket/postgrest.sock";
}

# Runs SQL as superuser; returns what psql prints.
sub sql
{
	my ($self, $sql) = @_;
	open(my $psql, '-|', "$ENV{SKY_PG}/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', "$self->{dir}/socket", '-p', 5432,
		'-U', 'postgres', '-d', 'scrapersky', '-c', $sql) or die "psql: $!";
	my $output = do { local $/; <$psql> } // '';
	close $psql or die "psql failed: $sql";
	chomp $output;
	return $output;
}

# Runs pg_ctl on its cluster.
sub pg_ctl
{
	my ($self, @arguments) = @_;
	return system("$ENV{SKY_PG}/pg_ctl", '-D', "$self->{dir}/data", '-s', '-w', '-l', "$self->{dir}/log/postgres.log",
		@arguments) == 0;
}

# The process of tools/run, or (name) a child of it.
sub pid_of
{
	my ($self, $name) = @_;
	my $run = slurp_file("$self->{dir}/lock") + 0;
	return $run if !$name;
	my ($pid) = grep { slurp_file("/proc/$_/comm") =~ /^\Q$name\E/ } split(/ /, slurp_file("/proc/$run/task/$run/children"));
	return $pid;
}

# Waits until the test is true, up to 30 seconds; returns whether it was.
sub eventually
{
	my ($test) = @_;
	for (1 .. 150)
	{
		return 1 if $test->();
		select(undef, undef, undef, 0.2);
	}
	return 0;
}

# Everything that its parts have logged.
sub logs
{
	my ($self) = @_;
	return join('', map { slurp_file($_) } glob("$self->{dir}/log/*.log"));
}

# Nothing is left running, however the test ends.
END
{
	local $?;
	$_->down for @started;
}

1;
