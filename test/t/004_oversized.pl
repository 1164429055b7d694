# Tokens that are too long, too deep, too many or no text are refused before
# anything expensive or dangerous happens to them: no large allocation, no libjwt
# (which crashes on a long token), no crash.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
Sky::sample($node);
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $login = 'SELECT scrapersky.authenticate($1)';
my $denied = 'ERROR 28000: authentication failed';
my $libjwt = qr/verifying a signature with libjwt/;

my $app = Sky::Session->new($node, user => 'regress_sky_app');
$app->must('SET client_min_messages = debug2');

# These statements are refused and libjwt hears nothing of it.
sub refused
{
	my ($what, $token, $sql, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $app->query($sql // $login, defined $token ? $token : ());
	like($answer, $code // qr/^$denied$/, "$what: refused");
	unlike($app->notices, $libjwt, "$what: before libjwt");
	is($app->query('SELECT scrapersky.is_authenticated()'), 'f', "$what: no identity");
	return;
}

# A payload or header of these bytes, with a good signature.
sub raw
{
	my ($payload, %opt) = @_;
	return Sky::sign({}, raw_payload => $payload, %opt);
}

sub claims
{
	my ($more) = @_;
	return sprintf('{"sub":"alice","exp":%d%s}', time + 600, $more // '');
}

note 'the measure: a good token, and one with a wrong signature, come to libjwt';
is($app->query($login, Sky::token('alice')), '', 'a good token');
like($app->notices, $libjwt, 'is verified by libjwt');
is($app->query($login, Sky::sign({ sub => 'alice', exp => time + 600 }, key => 'x' x 40)), $denied, 'a token of another secret');
like($app->notices, $libjwt, 'is refused by libjwt');
is($app->query($login, raw(claims())), '', 'a payload of our own bytes');
like($app->notices, $libjwt, 'is verified by libjwt');

note 'too long';
my $long = 8 * 1024 * 1024;
refused("8 MB of $_", substr($_ x ($long / length $_ + 1), 0, $long)) for 'a', '.', 'a.', 'eyJhbGciOiJIUzI1NiJ9.', "\x{0a}", ' ';
refused('8 MB behind a good token', Sky::token('alice') . 'A' x $long);
refused('8 MB in the payload of a good token', raw(claims(',"x":"' . 'x' x 6_000_000 . '"')));
refused('8 MB in its header', Sky::sign({ sub => 'alice', exp => time + 600 }, header => { kid => 'k' x 6_000_000 }));

# the limit is 16384 bytes: one more is too many
my $limit = 16384;
my %sized;
my $room = int(($limit - length raw(claims(',"x":""'))) * 3 / 4);
for my $fill ($room - 4 .. $room + 4)
{
	my $token = raw(claims(',"x":"' . 'x' x $fill . '"'));
	$sized{ length $token } //= $token;
}
my ($fits) = sort { $b <=> $a } grep { $_ <= $limit } keys %sized;
my ($over) = sort { $a <=> $b } grep { $_ > $limit } keys %sized;
cmp_ok($fits, '>', $limit - 4, "a token of $fits bytes");
is($app->query($login, $sized{$fits}), '', 'is accepted');
like($app->notices, $libjwt, 'is verified by libjwt');
cmp_ok($over, '<', $limit + 4, "a token of $over bytes");
refused("$over bytes", $sized{$over});

note 'long by compression: a value of 200 MB that takes 2 MB on disk';
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.tokens (id int, token text);
INSERT INTO public.tokens VALUES (1, repeat('a', 200000000));
INSERT INTO public.tokens VALUES (2, repeat('eyJhbGciOiJIUzI1NiJ9.', 10000000));
GRANT SELECT ON public.tokens TO regress_sky_app;
SQL

# The high water mark of the session's backend, in kB; zeroed by clear_refs.
sub high_water
{
	my ($session) = @_;
	my ($kilobytes) = slurp_file('/proc/' . $session->pid . '/status') =~ /VmHWM:\s+(\d+)/;
	return $kilobytes;
}

sub growth
{
	my ($session, $sql, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	open(my $clear, '>', '/proc/' . $session->pid . '/clear_refs') or die "clear_refs: $!";
	syswrite($clear, '5') or die "clear_refs: $!";
	close($clear);
	my $before = high_water($session);
	like($session->query($sql), $expected, $sql);
	return high_water($session) - $before;
}

my $fresh = Sky::Session->new($node, user => 'regress_sky_app');
$fresh->must($login, Sky::token('alice'));
$fresh->must('SELECT id, pg_column_size(token) FROM public.tokens');
cmp_ok($fresh->must('SELECT max(pg_column_size(token)) FROM public.tokens'), '<', 4_000_000, 'the values are small on disk');
for my $id (1, 2)
{
	for my $sql ("SELECT scrapersky.authenticate(token) FROM public.tokens WHERE id = $id",
		"SELECT scrapersky.authenticate((SELECT token FROM public.tokens WHERE id = $id), true, NULL)",
		"DO \$\$ BEGIN PERFORM scrapersky.authenticate(token) FROM public.tokens WHERE id = $id; END \$\$")
	{
		my $growth = growth($fresh, $sql, qr/^$denied$/);
		cmp_ok($growth, '<', 8 * 1024, "takes less than 8 MB more ($growth kB)");
		refused('a compressed value', undef, $sql);
	}
}
cmp_ok(growth($fresh, 'SELECT length(token) FROM public.tokens WHERE id = 1', qr/^200000000$/), '>', 180 * 1024, 'what it looks like when the value is taken out');

note 'too deep';
sub nested
{
	my ($depth, $open, $middle, $close) = @_;
	return raw(claims(',"x":' . $open x $depth . $middle . $close x $depth));
}
is($app->query($login, nested(30, '[', '0', ']')), '', 'arrays, 32 levels in all: accepted');
is($app->query($login, nested(30, '{"x":', '0', '}')), '', 'objects, 32 levels in all: accepted');
for my $depth (32, 100, 1000, 2046, 2047, 2048, 2049, 5900)
{
	refused("$depth levels of arrays", nested($depth, '[', '0', ']'));
	refused("$depth levels of arrays, never closed", raw(claims(',"x":' . '[' x $depth)));
	refused("$depth levels of objects", nested($depth, '{"x":', '0', '}')) if $depth < 1900;
}
refused('10000 levels as the payload', raw('[' x 10_000));
refused('a deep header', Sky::sign({ sub => 'alice', exp => time + 600 }, raw_header => '{"alg":"HS256","x":' . '[' x 1500 . ']' x 1500 . '}'));
# a long one that is deep, too: the length is looked at first
refused('100000 levels', nested(100_000, '[', '0', ']'));

note 'too many';
is($app->query($login, raw(claims(',"x":[' . join(',', (1) x 900) . ']'))), '', '900 elements: accepted');
refused('1100 elements', raw(claims(',"x":[' . join(',', (1) x 1100) . ']')));
refused('5000 elements', raw(claims(',"x":[' . join(',', (1) x 5000) . ']')));
refused('1100 members', raw(claims(join('', map { ",\"$_\":1" } 1 .. 1100))));
refused('5000 elements in the header', Sky::sign({ sub => 'alice', exp => time + 600 }, raw_header => '{"alg":"HS256","x":[' . join(',', (1) x 5000) . ']}'));

note 'no text';
my %bytes = (
	'a NUL byte' => "\0", 'a NUL as an escape' => '\u0000', 'a byte that UTF-8 has not' => "\xff", 'half a character' => "\xc3",
	'a continuation without a start' => "\x80", 'an overlong slash' => "\xc0\xaf", 'an overlong NUL' => "\xc0\x80", 'a surrogate' => "\xed\xa0\x80",
	'beyond Unicode' => "\xf4\x90\x80\x80", 'five bytes' => "\xf8\x88\x80\x80\x80", 'half a pair of surrogates' => '\ud800', 'the other half' => '\udc00',
	'a control character' => "\x01", 'a newline' => "\n");
for my $what (sort keys %bytes)
{
	refused("$what in a claim", raw(claims(",\"x\":\"$bytes{$what}\"")));
	refused("$what in a member's name", raw(claims(",\"x$bytes{$what}\":1")));
	refused("$what in the subject", raw(sprintf('{"sub":"alice%s","exp":%d}', $bytes{$what}, time + 600)));
	refused("$what in the header", Sky::sign({ sub => 'alice', exp => time + 600 }, raw_header => "{\"alg\":\"HS256\",\"kid\":\"$bytes{$what}\"}"));
}
refused("$_ around the payload", raw($_ . claims() . $_)) for "\0", "\xff", "\xc3";
refused("a NUL byte after the payload", raw(claims() . "\0"));
refused('a byte order mark', raw("\xef\xbb\xbf" . claims()));
refused('UTF-16', raw(join('', map { "$_\0" } split(//, claims()))));
is($app->query($login, raw(claims(",\"x\":\"\xc3\xa4 \xf0\x9f\x98\x80 \\u00e4 \\ud83d\\ude00 \xef\xbf\xbf\""))), '', 'characters of all lengths, and escapes: accepted');

# what is no text in the database's encoding never comes to us
my $good = Sky::token('alice');
refused('a NUL byte in the token', "$good\0$good", undef, qr/^ERROR 22021: /);
refused('invalid UTF-8 in the token', "$good\xff", undef, qr/^ERROR 22021: /);
refused('a character that base64 has not', "$good\xc3\xa4");

note 'over HTTP: the headers are as bounded as the token';
$node->safe_psql('postgres', q(SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_authenticated')));
my $pool = Sky::Session->new($node, user => 'regress_sky_authenticator');
$pool->must('SET ROLE regress_sky_authenticated');
$pool->must('SET client_min_messages = debug2');
sub request
{
	my ($token, $more) = @_;
	my ($payload) = $token =~ /\.([^.]*)\./;
	$pool->must(q(SELECT set_config('request.headers', $1, false)), "{\"authorization\":\"Bearer $token\"" . ($more // '') . '}');
	$pool->must(q(SELECT set_config('request.jwt.claims', $1, false)), MIME::Base64::decode_base64url($payload));
	return $pool->query('SELECT scrapersky.pre_request()');
}
my $request = Sky::token('alice', role => 'regress_sky_authenticated');
is(request($request), '', 'a good request');
like($pool->notices, $libjwt, 'is verified by libjwt');
for my $bad ([ 'a token of 8 MB' => $request . 'A' x $long ], [ "a token of $over bytes" => $sized{$over} ],
	[ 'another header of 8 MB' => $request, ',"x":"' . 'x' x $long . '"' ], [ 'a deep header' => $request, ',"x":' . '[' x 1000 . ']' x 1000 ],
	[ 'many headers' => $request, join('', map { ",\"h$_\":1" } 1 .. 2000) ])
{
	my ($what, @request) = @$bad;
	is(request(@request), 'ERROR PT401: authentication failed', "$what: refused");
	unlike($pool->notices, $libjwt, "$what: before libjwt");
}

note 'and the server is up';
is($app->query($login, Sky::token('alice')), '', 'the session goes on');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server has not been restarted');
is(join("\n", grep { /terminated by signal|PANIC|abnormal|reinitializing/ } split /\n/, slurp_file($node->logfile)), '', 'no backend has crashed');

done_testing();
