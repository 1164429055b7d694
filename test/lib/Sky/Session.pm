# Sky::Session: a connection that stays open, spoken to in PostgreSQL's own
# protocol: parameters are bound, not written into the statement; bytes are sent
# as they are; an error is a value with its SQLSTATE; nothing is printed.
#
#	my $session = Sky::Session->new($node, user => 'regress_sky_app');
#	is($session->query('SELECT $1::int + 1', 41), '42');
#	is($session->query('SELECT 1/0'), 'ERROR 22012: division by zero');
package Sky::Session;

use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Test::More;

# Connects.  Options: user (else the superuser), dbname, options (as in
# PGOPTIONS), startup (a hash of further settings for the startup packet).  See failed() whether the server let us in.
sub new
{
	my ($class, $node, %opt) = @_;
	my $path = $node->host . '/.s.PGSQL.' . $node->port;
	my $socket = IO::Socket::UNIX->new(Peer => $path) or die "could not connect to $path: $!";
	my $self = bless { socket => $socket, buffer => '', notices => [], columns => [] }, $class;
	my $startup = pack('N', 196608);

	$startup .= "$_->[0]\0$_->[1]\0"
		for [ user => $opt{user} // scalar getpwuid($<) ], [ database => $opt{dbname} // 'postgres' ],
		[ client_encoding => 'UTF8' ], defined $opt{options} ? [ options => $opt{options} ] : (),
		map { [ $_ => $opt{startup}{$_} ] } sort keys %{ $opt{startup} // {} };
	$startup .= "\0";
	$self->_write(pack('N', length($startup) + 4) . $startup);
	$self->{failed} = $self->wait;
	return $self;
}

# What the server said when it refused the connection; empty if it did not.
sub failed
{
	my ($self) = @_;
	return $self->{failed};
}

# The backend's process id.
sub pid
{
	my ($self) = @_;
	return $self->{pid};
}

# Runs a statement, and returns what it answers as psql -At would, or its error
# as 'ERROR sqlstate: message'.  Without parameters there may be several statements in
# one string; a parameter is text, or undef for null.
sub query
{
	my ($self, $sql, @parameters) = @_;
	$self->send($sql, @parameters);
	return $self->wait;
}

# As query, but an error ends the test.
sub must
{
	my ($self, $sql, @parameters) = @_;
	my $answer = $self->query($sql, @parameters);
	if ($answer =~ /^(?:ERROR|FATAL|PANIC) \w{5}:/)
	{
		diag("$answer\nin: " . substr($sql, 0, 100));
		die 'a statement failed that must not';
	}
	return $answer;
}

# Sends a statement without waiting for its answer: wait() does.
sub send
{
	my ($self, $sql, @parameters) = @_;

	if (!@parameters)
	{
		$self->_message('Q', "$sql\0");
		return;
	}
	my $values = join('', map { defined $_ ? pack('N/a*', $_) : pack('N', 0xFFFFFFFF) } @parameters);
	$self->_message('P', "\0$sql\0" . pack('n', 0));
	$self->_message('B', "\0\0" . pack('n', 0) . pack('n', scalar @parameters) . $values . pack('n', 0));
	$self->_message('D', "P\0");
	$self->_message('E', "\0" . pack('N', 0));
	$self->_message('S', '');
	return;
}

# Waits for the answer to what was sent.
sub wait
{
	my ($self) = @_;
	my @lines;
	my $error = '';

	$self->{notices} = [];
	$self->{error} = {};
	while (1)
	{
		my ($type, $body) = $self->_receive;
		return $error || 'FATAL 08006: the connection is closed' if !defined $type;
		if ($type eq 'Z')
		{
			$self->{status} = $body;
			last;
		}
		elsif ($type eq 'D')
		{
			push @lines, join('|', map { $_ // '' } unpack_row($body));
		}
		elsif ($type eq 'E')
		{
			$self->{error} = { map { (substr($_, 0, 1) => substr($_, 1)) } split(/\0/, $body) };
			$error = "$self->{error}{S} $self->{error}{C}: $self->{error}{M}";
		}
		elsif ($type eq 'N')
		{
			my %notice = map { (substr($_, 0, 1) => substr($_, 1)) } split(/\0/, $body);
			push @{ $self->{notices} }, "$notice{S}: $notice{M}";
		}
		elsif ($type eq 'K')
		{
			$self->{pid} = unpack('N', $body);
		}
	}
	return $error || join("\n", @lines);
}

# The fields of the last error, by their letters in the protocol (H: hint, D:
# detail), and the last answer's notices.
sub error
{
	my ($self, $field) = @_;
	return $self->{error}{$field} // '';
}

sub notices
{
	my ($self) = @_;
	return join("\n", @{ $self->{notices} });
}

# I: no transaction is open, T: one is, E: one is and has failed.
sub status
{
	my ($self) = @_;
	return $self->{status};
}

sub close
{
	my ($self) = @_;
	return if !$self->{socket};
	local $SIG{PIPE} = 'IGNORE';
	$self->_message('X', '');
	$self->{socket}->close;
	$self->{socket} = undef;
	return;
}

sub unpack_row
{
	my ($body) = @_;
	my $count = unpack('n', $body);
	my $at = 2;
	my @values;

	for (1 .. $count)
	{
		my $length = unpack('N', substr($body, $at, 4));
		$at += 4;
		if ($length == 0xFFFFFFFF)
		{
			push @values, undef;
			next;
		}
		push @values, substr($body, $at, $length);
		$at += $length;
	}
	return @values;
}

sub _message
{
	my ($self, $type, $body) = @_;
	$self->_write($type . pack('N', length($body) + 4) . $body);
	return;
}

sub _write
{
	my ($self, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $at = 0;

	while ($at < length $bytes)
	{
		my $written = syswrite($self->{socket}, $bytes, length($bytes) - $at, $at);
		return if !defined $written;
		$at += $written;
	}
	return;
}

# The next message: its type and its body; nothing at the end of the connection.
sub _receive
{
	my ($self) = @_;

	while (1)
	{
		if (length $self->{buffer} >= 5)
		{
			my $length = unpack('N', substr($self->{buffer}, 1, 4));
			if (length $self->{buffer} > $length)
			{
				my $message = substr($self->{buffer}, 0, $length + 1, '');
				my $type = substr($message, 0, 1);
				return ($type, substr($message, 5));
			}
		}
		my $ready = '';
		vec($ready, fileno($self->{socket}), 1) = 1;
		select($ready, undef, undef, $PostgreSQL::Test::Utils::timeout_default)
			or die 'the server does not answer';
		my $got = sysread($self->{socket}, $self->{buffer}, 65536, length $self->{buffer});
		return if !$got;
	}
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $!, $?);
	$self->close;
	return;
}

1;
