# The fenced blocks of README.md and doc/tutorial.md are run, in order, as a
# reader would: sql by psql in the database last connected to, sh by bash, and
# each line of a text block must be in the output before it, in that order.
# make run is what Stack has started, by the script behind it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils qw(slurp_file);
use Sky;
use Stack;
use Test::More;

my $stack = Stack->start('documents');
my $database = 'scrapersky';
my $output;

$ENV{PATH} = "$ENV{SKY_PG}:$ENV{PATH}";
$ENV{uc $_} = $stack->{token}{$_} for keys %{ $stack->{token} };

# What a command prints, with its messages in between; and its exit status.
sub run_command
{
	my ($input, @command) = @_;
	my $file = "$stack->{dir}/block";
	open(my $handle, '>', $file) or die "$file: $!";
	print $handle $input;
	close $handle;
	my $pid = open(my $pipe, '-|') // die "fork: $!";
	if (!$pid)
	{
		open(STDIN, '<', $file);
		open(STDERR, '>&', \*STDOUT);
		exec(@command) or die "exec: $!";
	}
	my $said = do { local $/; <$pipe> } // '';
	close $pipe;
	return ($said, $?);
}

# Statements, by psql.
sub run_sql
{
	my ($block) = @_;
	return run_command($block, 'psql', '-X', '-h', "$stack->{dir}/socket", '-U', 'postgres', $database);
}

# Commands, by bash: in a clone the folder is .run and the port 8000.
sub run_sh
{
	my ($block) = @_;
	my $top = Sky::source();
	return run_command('', 'make', '-n', '-C', $top, $1) if $block =~ /^make (\w+)$/;
	$block =~ s{\$PWD/\.run}{$stack->{dir}}g;
	$block =~ s{http://127\.0\.0\.1:8000}{$stack->{url}}g;
	$database = $1 if $block =~ /-U postgres (\w+)$/;
	my ($said, $status);
	Stack::eventually(sub {
		($said, $status) = run_command($block, 'bash', '-e');
		# PostgREST reads a new table a moment after it is made
		return $said !~ /\{\}/;
	});
	return ($said, $status);
}

foreach my $document (qw(README.md doc/tutorial.md))
{
	my $text = slurp_file(Sky::source() . "/$document");
	my @blocks;
	push @blocks, [ $1, $2 ] while $text =~ /^```(\w+)\n(.*?)^```$/msg;
	ok(@blocks > 5, "$document has blocks");
	for (my $i = 0; $i < @blocks; $i++)
	{
		my ($kind, $block) = @{ $blocks[$i] };
		my ($first) = $block =~ /^(.*)$/m;
		my ($said, $status);

		if ($kind eq 'text') { next; }
		elsif ($kind eq 'sql') { ($said, $status) = run_sql($block); }
		elsif ($kind eq 'sh') { ($said, $status) = run_sh($block); }
		elsif ($kind eq 'ini')
		{
			is($stack->sql("SELECT count(*) FROM pg_settings WHERE name = '$_'"), 1, "$document: setting $_")
			  for $block =~ /^(\w+(?:\.\w+)?) =/mg;
			next;
		}
		else { fail("$document: a block of kind $kind"); next; }

		is($status, 0, "$document: $first") or diag($said);
		my $expected = $i + 1 < @blocks && $blocks[ $i + 1 ][0] eq 'text' ? $blocks[ $i + 1 ][1] : undef;
		if (!defined $expected)
		{
			unlike($said, qr/ERROR/, "$document: no error") or diag($said);
			next;
		}
		my $pattern = join('.*?', map { quotemeta } grep { /\S/ } split(/\s*\n/, $expected));
		like($said =~ s/[ \t]+$//mgr, qr/$pattern/s, "$document: prints what it says");
	}
}

done_testing();
