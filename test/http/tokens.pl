# Tokens that are refused, and how: every kind of bad token is 401, tells
# nothing, and does nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use MIME::Base64 qw(encode_base64url decode_base64url);
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

my $stack = Stack->start('tokens');
my ($acme, $globex) = ($Stack::ACME, $Stack::GLOBEX);
my $alice = $stack->{token}{alice};
my ($header, $payload, $signature) = split(/\./, $alice);
my $before = $stack->sql('SELECT count(*) FROM api.pages');

# The token is refused: reading and writing.
sub refused
{
	my ($what, $token, %headers) = @_;
	Sky::tell_secret($token) if length $token < 100_000;
	my $answer = $stack->request(GET => '/rest/v1/pages', token => $token, headers => {%headers});
	is($answer->{status}, 401, "$what: 401") or diag $answer->{content};
	unlike($answer->{content}, qr/\Q$Stack::ACME_PAGE\E|eyJ|secret|[Ss]ELECT|acme|globex/, 'and tells nothing');
	like($answer->{headers}{'www-authenticate'} // '', qr/^Bearer/, 'with a challenge');
	is($stack->request(POST => '/rest/v1/pages', token => $token, headers => {%headers},
			body => { domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/forged' })->{status}, 401, 'nor may it write');
	is($stack->request(GET => '/rbac/v1/rpc/whoami', token => $token, headers => {%headers})->{status}, 401, 'nor ask who it is');
	return;
}

# The same bytes with one bit of one byte turned.
sub flipped
{
	my ($bytes, $position) = @_;
	substr($bytes, $position, 1) ^= "\x01";
	return $bytes;
}

note 'good tokens, so that the bad ones prove something';
my $signed = $stack->sign({ sub => 'alice@acme' });
is($stack->request(GET => '/rest/v1/pages', token => $_)->{status}, 200, 'a good token') for $alice, $signed;
is($stack->request(GET => '/rest/v1/pages', token => $stack->sign({ sub => 'alice@acme', tenant_id => $acme }))->{status},
	200, 'a good token that names its tenant');
is($stack->request(GET => '/rest/v1/pages', token => $signed, headers => { 'X-Tenant-Id' => $acme })->{status},
	200, 'a header that agrees');

note 'time';
refused('expired', $stack->sign({ sub => 'alice@acme', exp => time - 3600 }));
refused('without exp', $stack->sign({ sub => 'alice@acme', exp => undef }));
refused('not valid yet', $stack->sign({ sub => 'alice@acme', nbf => time + 3600 }));

note 'signature';
my $bytes = decode_base64url($signature);
refused("one bit of the signature, byte $_", join('.', $header, $payload, encode_base64url(flipped($bytes, $_)))) for 0, 15, 31;
refused('one bit of the payload', join('.', $header, encode_base64url(flipped(decode_base64url($payload), 20)), $signature));
refused('no signature', "$header.$payload.");
refused('half a signature', join('.', $header, $payload, substr($signature, 0, 21)));
refused("another secret's", $stack->sign({ sub => 'alice@acme' }, key => 'another secret, just as long as it should be'));
refused('an empty secret', $stack->sign({ sub => 'alice@acme' }, key => ''));

note 'algorithm';
refused("alg $_", $stack->sign({ sub => 'alice@acme' }, alg => $_)) for 'none', 'None', '';
refused('an RS256 header on an HMAC', $stack->sign({ sub => 'alice@acme' }, header => { alg => 'RS256' }));
refused("$_, with the right secret", $stack->sign({ sub => 'alice@acme' }, alg => $_)) for qw(HS384 HS512);

note 'shape';
refused('malformed', $_)
  for 'x', 'x.y', 'x.y.z', '..', "$header.$payload", "$alice.$signature", "$alice=", "$header..$signature", "$header.$payload.$signature." ;
refused('no JSON', $stack->sign({}, raw_payload => 'not json'));
refused('an array', $stack->sign({}, raw_payload => '["alice@acme"]'));
refused('long', 'x' x 20_000);
refused('long and signed', $stack->sign({ sub => 'alice@acme', padding => 'x' x 15_000 }));

note 'claims';
refused('nobody', $stack->sign({}));
refused('an unknown user', $stack->sign({ sub => 'mallory' }));
refused('a user of another case', $stack->sign({ sub => 'Alice@acme' }));
refused('a subject that is no string', $stack->sign({ sub => 7 }));
refused('an empty subject', $stack->sign({ sub => '' }));
refused("another tenant's", $stack->sign({ sub => 'alice@acme', tenant_id => $globex }));
refused('a tenant that does not exist', $stack->sign({ sub => 'alice@acme', tenant_id => $Stack::NOBODY }));
refused('a tenant that is no UUID', $stack->sign({ sub => 'alice@acme', tenant_id => 'acme' }));
refused('an empty tenant', $stack->sign({ sub => 'alice@acme', tenant_id => '' }));
refused('a null tenant', $stack->sign({ sub => 'alice@acme' },
	raw_payload => sprintf('{"sub":"alice@acme","role":"authenticated","exp":%d,"tenant_id":null}', time + 600)));

note 'roles of the database that no token may ask for';
for my $role (qw(postgres app_owner authenticator anon pg_read_all_data nobody))
{
	my $answer = $stack->request(GET => '/rest/v1/pages', token => $stack->sign({ sub => 'alice@acme', role => $role }));
	like($answer->{status}, qr/^40[013]$/, "role $role: refused") or diag $answer->{content};
	unlike($answer->{content}, qr/tenant_id/, 'without a row');
}
refused('no role, which is anon', $stack->sign({ sub => 'alice@acme', role => undef }));

note 'X-Tenant-Id';
refused('a header that disagrees', $stack->sign({ sub => 'alice@acme', tenant_id => $acme }), 'X-Tenant-Id' => $globex);
refused('a header for a tenant that the user is no member of', $alice, 'X-Tenant-Id' => $globex);
refused('a header that is no UUID', $alice, 'X-Tenant-Id' => 'acme');
refused('a header with SQL in it', $alice, 'X-Tenant-Id' => "$acme' OR true --");
refused("erin's token of acme and a header of globex", $stack->sign({ sub => 'erin', tenant_id => $acme }), 'X-Tenant-Id' => $globex);

note 'not a bearer token';
is($stack->request(GET => '/rest/v1/pages', headers => { Authorization => $_ })->{status}, 401, "Authorization: " . substr($_, 0, 8))
  for 'Basic YWxpY2U6eA==', 'Bearer', 'Bearer ', "bearer$alice", $alice, "Token $alice";

note 'two tokens';
my $bob = $stack->{token}{bob};
my $forged = join('.', $header, $payload, encode_base64url(flipped($bytes, 3)));
Sky::tell_secret($forged);
for my $pair ([ $alice, $bob ], [ $bob, $alice ], [ $alice, $forged ], [ $forged, $alice ])
{
	my $request = sub {
		return join("\r\n", "GET $_[0] HTTP/1.1", 'Host: localhost', "Authorization: Bearer $pair->[0]", 'Accept-Profile: api',
			"Authorization: Bearer $pair->[1]", 'Connection: close', '', '');
	};
	my ($status, undef, $body) = $stack->raw($request->('/rest/v1/pages'));
	is($status, 400, 'nginx refuses two Authorization headers');
	like($body, qr/^\{"code":"400"/, 'as JSON');
	($status, undef, $body) = $stack->raw($request->('/pages'), socket => $stack->postgrest);
	is($status, 401, 'and so does the database, asked through PostgREST directly');
	unlike($body, qr/tenant_id/, 'without a row');
}
for my $pair ([ "Bearer $alice", 'Basic YWxpY2U6eA==' ], [ 'Basic YWxpY2U6eA==', "Bearer $alice" ])
{
	my ($status, undef, $body) = $stack->raw(
		join("\r\n", 'GET /pages HTTP/1.1', 'Host: localhost', "Authorization: $pair->[0]", "Authorization: $pair->[1]",
			'Connection: close', '', ''),
		socket => $stack->postgrest);
	is($status, 401, 'one bearer token and something else, to PostgREST directly');
	unlike($body, qr/tenant_id/, 'without a row');
}
my ($status) = $stack->raw("GET /pages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer $alice\r\nConnection: close\r\n\r\n",
	socket => $stack->postgrest);
is($status, 200, 'while one token passes there');

note 'two tenants in the header';
for my $pair ([ $acme, $globex ], [ $globex, $acme ])
{
	my ($status, undef, $body) = $stack->raw(join("\r\n", 'GET /rest/v1/pages HTTP/1.1', 'Host: localhost',
		"Authorization: Bearer $stack->{token}{erin}", "X-Tenant-Id: $pair->[0]", "X-Tenant-Id: $pair->[1]",
		"X_Tenant_Id: $globex", 'Connection: close', '', ''));
	my %seen = map { $_ => 1 } $body =~ /"tenant_id":"([^"]+)"/g;
	ok($status == 401 || join(' ', keys %seen) eq $pair->[0], 'two tenants: refused, or the first one counts');
}

is($stack->sql('SELECT count(*) FROM api.pages'), $before, 'nobody wrote a row');
is($stack->request(GET => '/rest/v1/pages', token => $alice)->{status}, 200, 'and the good token still works');

$stack->down;
my $logs = $stack->logs;
ok(length $logs, 'there are logs');
unlike($logs, qr/eyJ|\Q$signature\E/, 'and no token is in them');

done_testing();
