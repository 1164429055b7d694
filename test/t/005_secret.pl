# The file with the secret: what is no good secret verifies nothing, a new one
# counts at once in warm backends, and none of it gets out.
use strict;
use warnings;

use File::Copy qw(move);
use POSIX qw(mkfifo);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
Sky::sample($node);
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION scrapersky.sign_token(jsonb, interval) TO regress_sky_app');
my $file = $node->basedir . '/jwt_secret';
my $login = 'SELECT scrapersky.authenticate($1)';
my $denied = 'ERROR 28000: authentication failed';
my @warm = map { Sky::Session->new($node, user => 'regress_sky_app') } 1 .. 2;
my $root = Sky::Session->new($node);
my @pids = map { $_->must('SELECT pg_backend_pid()') } @warm;
my %secrets;

# A secret of our own, 48 bytes.
sub secret
{
	my ($name) = @_;
	my $secret = substr("$name-" . Digest::SHA::sha256_hex($name . time), 0, 48);
	$secrets{$secret} = 1;
	return Sky::tell_secret($secret);
}

# The file has these contents: written in place, or as a new file in its place.
sub write_file
{
	my ($contents, %opt) = @_;
	my $path = $opt{path} // $file;
	my $target = $opt{rename} ? "$path.new" : $path;
	open(my $handle, '>', $target) or die "$target: $!";
	chmod($opt{mode} // 0600, $target);
	syswrite($handle, $contents);
	close($handle);
	move($target, $path) if $opt{rename};
	return;
}

sub token_of
{
	my ($secret, @more) = @_;
	return Sky::sign({ sub => 'alice', exp => time + 600, @more }, key => $secret);
}

# Every warm backend accepts the tokens of this secret, or none does.
sub accepted
{
	my ($what, $secret) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join('|', map { $_->query($login, token_of($secret)) } @warm), '|', "$what: accepted");
	return;
}

sub refused
{
	my ($what, $secret, $reason) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = -s $node->logfile;
	for my $session (@warm)
	{
		is($session->query($login, token_of($secret)), $denied, "$what: refused");
		is($session->error('D') . $session->error('H') . $session->error('W'), '', 'without a word more');
	}
	like(slurp_file($node->logfile, $before), $reason, 'the log knows why') if $reason;
	return;
}

my $first = Sky::secret();
$secrets{$first} = 1;
accepted('the first secret', $first);

note 'changed while backends are warm';
my ($second, $third) = (secret('second'), secret('third'));
write_file("$second\n", rename => 1);
refused('another file in its place, the old secret', $first, qr/signature is wrong/);
accepted('another file in its place, the new secret', $second);
write_file("$third\n");
refused('new contents, the old secret', $second, qr/signature is wrong/);
accepted('new contents, the new secret', $third);
write_file("$second\n");
refused('back again, the last secret', $third);
accepted('back again, the one before', $second);
is(join(' ', map { $_->must('SELECT pg_backend_pid()') } @warm), "@pids", 'all this in the same backends');

# what is read when the file has settled is kept
sleep(3);
accepted('a file that has settled', $second);
accepted('and what was kept of it', $second);
write_file("$third\n");
refused('changed then, the old secret', $second, qr/signature is wrong/);
accepted('changed then, the new secret', $third);

# faster than the file system's clock ticks, and with the same length: both in
# place, so that neither size nor inode tells
my $stale = 0;
for (1 .. 150)
{
	write_file("$second\n");
	$warm[0]->query($login, token_of($second));
	write_file("$third\n");
	$stale++ if $warm[0]->query($login, token_of($second)) eq '';
	$stale++ if $warm[0]->query($login, token_of($third)) ne '';
}
is($stale, 0, 'two changes within one tick of the clock: the second counts, too');
write_file("$second\n");

note 'no secret, or no good one';
unlink $file or die "unlink: $!";
refused('no file', $second, qr/cannot be read/);
write_file("$second\n", mode => $_->[0]), refused("mode $_->[1]", $second, qr/mode 0600/)
  for [ 0644, '0644' ], [ 0640, '0640' ], [ 0604, '0604' ], [ 0620, '0620' ], [ 0602, '0602' ], [ 0660, '0660' ], [ 0777, '0777' ], [ 0610, '0610' ];
write_file("$second\n");
accepted('mode 0600', $second);
chmod 0400, $file;
accepted('mode 0400', $second);
chmod 0644, $file;
refused('opened up while backends are warm', $second, qr/mode 0600/);
chmod 0000, $file;
refused('mode 0000', $second, qr/cannot be read/) if $< != 0;
chmod 0600, $file;
accepted('closed again', $second);

my $short = substr($second, 0, 31);
write_file($short);
refused('31 bytes', $short, qr/32 to 4096 bytes/);
write_file("$short\n");
refused('31 bytes and a newline', $short, qr/32 to 4096 bytes/);
my $just = substr($second, 0, 32);
write_file("$just\n");
accepted('32 bytes', $just);
write_file('');
refused('nothing', $just, qr/32 to 4096 bytes/);
refused('nothing, and a token of the empty secret', '', qr/32 to 4096 bytes/);
write_file("\n");
refused('a newline only', "\n", qr/32 to 4096 bytes/);
my $most = $second . 'x' x (4096 - length $second);
write_file("$most\n");
accepted('4096 bytes', $most);
write_file("${most}y\n");
refused('4097 bytes', "${most}y", qr/32 to 4096 bytes/);
write_file("${most}y");
refused('4097 bytes, their beginning', $most, qr/32 to 4096 bytes/);
write_file("$most\n\n");
refused('4096 bytes and two newlines', $most, qr/32 to 4096 bytes/);

for my $json ("{\"kty\":\"oct\",\"k\":\"$second\"}", "[{\"k\":\"$second\"}]", "{$second", "[$second", " {\"k\":\"$second\"}", "\n\t {\"k\":\"$second\"}")
{
	$secrets{$json} = 1;
	write_file("$json\n");
	refused('JSON: ' . substr($json, 0, 4) =~ s/\s/_/gr, $json, qr/must not look like JSON/);
}
write_file("$second {}\n");
accepted('braces elsewhere', "$second {}");

note 'newlines';
write_file($second);
accepted('none', $second);
write_file("$second\n");
accepted('one', $second);
refused('one, which is not part of it', "$second\n");
write_file("$second\n\n");
refused('two', $second);
accepted('two, one of which is part of it', "$second\n");
write_file("$second\r\n");
refused('a carriage return', $second);
accepted('a carriage return, which is part of it', "$second\r");
write_file("\n$second\n");
accepted('one at the beginning, which is part of it', "\n$second");
my $binary = join('', map { chr } 128 .. 170) . "\0\x01\0";
write_file("$binary\n");
accepted('any bytes, a NUL among them', $binary);
refused('up to the NUL', substr($binary, 0, index($binary, "\0")));

note 'other paths';
write_file("$second\n");
my $folder = $node->basedir;
mkdir "$folder/folder";
mkfifo("$folder/fifo", 0600) or die "mkfifo: $!";
symlink 'jwt_secret', "$folder/link";
symlink 'nowhere', "$folder/dangling";
write_file("$third\n", path => "$folder/third");

# The setting is this, in every warm backend, too.
sub set_path
{
	my ($path) = @_;
	Sky::reload($node, "scrapersky.jwt_secret_file = '$path'");
	# a signal may take its time
	for my $session (@warm)
	{
		$session->query('SELECT pg_sleep(0.01)')
		  while $root->must(q(SELECT current_setting('scrapersky.jwt_secret_file'))) ne $path;
		$session->must('SELECT pg_sleep(0.05)');
	}
	return;
}

set_path("$folder/third");
refused('another path, the old secret', $second, qr/signature is wrong/);
accepted('another path, the new secret', $third);
for my $bad ([ "$folder/folder", 'a folder', qr/mode 0600/ ], [ "$folder/fifo", 'a FIFO', qr/mode 0600/ ], [ "$folder/dangling", 'a link to nothing', qr/cannot be read/ ],
	[ '/dev/zero', 'a device', qr/mode 0600/ ], [ '/dev/null', 'another device', qr/mode 0600/ ], [ '/etc/passwd', 'a file that all may read', qr/mode 0600/ ],
	[ $node->host . '/.s.PGSQL.' . $node->port, 'a socket', qr/cannot be read/ ], [ "$folder/jwt_secret/", 'a file as a folder', qr/cannot be read/ ],
	[ '', 'no path', qr/is not set/ ], [ $folder . '/x' x 3000, 'a long path', qr/cannot be read/ ])
{
	my ($path, $what, $reason) = @$bad;
	set_path($path);
	refused($what, $third, $reason);
	refused("$what, an empty secret", '', $reason);
	my $answer = $root->query(q(SELECT scrapersky.sign_token('{"sub": "alice"}')));
	is($answer, 'ERROR 55000: there is no secret to sign with', "$what: nothing to sign with");
}
set_path("$folder/link");
accepted('a link to a good file', $second);
set_path($file);
accepted('back', $second);

note 'who knows what';
my $app = $warm[0];
like($app->query('SHOW scrapersky.jwt_secret_file'), qr/^ERROR 42501/, 'the role does not see where the secret is');
is($app->query(q(SELECT count(*) FROM pg_settings WHERE name = 'scrapersky.jwt_secret_file')), 0, 'nor in pg_settings');
like($app->query('SELECT * FROM pg_file_settings'), qr/^ERROR 42501/, 'nor in pg_file_settings');
like($app->query("SELECT pg_read_file('$file')"), qr/^ERROR 42501/, 'and cannot read it');
like($app->query("SET scrapersky.jwt_secret_file = '$folder/third'"), qr/^ERROR 55P02/, 'and cannot name another');
is($app->query(q(SELECT scrapersky.sign_token('{"sub": "bob"}'))), 'ERROR 42501: only a superuser can sign tokens', 'sign_token() is for superusers, even if granted');
$app->must('BEGIN');
$app->must($login, token_of($second));
is($app->query(q(SELECT scrapersky.sign_token('{"sub": "bob"}'))), 'ERROR 42501: only a superuser can sign tokens', 'whoever is signed in');
$app->must('ROLLBACK');

my $signed = Sky::tell_secret($root->must(q(SELECT scrapersky.sign_token('{"sub": "alice"}'))));
is($app->query($login, $signed), '', 'what a superuser signs is good');
like($signed, qr/^[\w-]+\.[\w-]+\.[\w-]+$/, 'and of the compact form');
my ($payload) = map { JSON::PP::decode_json(MIME::Base64::decode_base64url($_)) } $signed =~ /\.(.*)\./;
cmp_ok(abs($payload->{exp} - $payload->{iat} - 3600), '<=', 1, 'it lasts an hour');
is($app->query($login, Sky::tell_secret($root->must(q(SELECT scrapersky.sign_token('{"sub": "alice"}', '-1 hour'))))), $denied, 'unless it is to be over');
like($root->query("SELECT scrapersky.sign_token('$_')"), qr/^ERROR 22023/, "sign_token('$_')") for '[1]', '"alice"', '1', 'null';

note 'nothing of a secret is in the log';
my $log = slurp_file($node->logfile);
my @found = grep { index($log, $_) >= 0 || index($log, substr($_, 0, 24)) >= 0 } grep { length >= 24 } keys %secrets;
is(scalar @found, 0, 'of ' . keys(%secrets) . ' secrets');
like($log, qr/DETAIL:  the token's signature is wrong\./, 'though the log tells why tokens are refused');

done_testing();
