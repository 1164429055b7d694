# nginx: which path leads where, limits, and the shape of errors.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

my $stack = Stack->start('gateway');
my $alice = $stack->{token}{alice};
my $authorization = "Authorization: Bearer $alice";

# A request line and headers as they are, with the token; returns as raw does.
sub get
{
	my ($path, @headers) = @_;
	return $stack->raw(join("\r\n", "GET $path HTTP/1.1", 'Host: localhost', $authorization, @headers, 'Connection: close', '', ''));
}

# Whether these bytes are an error in the one shape, which tells no secrets.
sub is_error
{
	my ($body, $code, $what) = @_;
	my $json = eval { JSON::PP::decode_json($body) };
	is_deeply([ sort keys %{ $json // {} } ], [qw(code details hint message)], "$what: the shape of an error") or diag $body;
	is($json->{code}, $code, 'with its code') if defined $code;
	unlike($body, qr/nginx|postgrest|socket|localhost|127\.0|5432|\.sock|SELECT|<html/i, 'that tells nothing about the inside');
	return;
}

note 'the path decides the schema, whatever the profile headers say';
for my $profile (qw(scrapersky_api scrapersky public pg_catalog))
{
	my @profile = ("Accept-Profile: $profile", "Content-Profile: $profile");
	my ($status, $head, $body) = get('/rest/v1/pages?limit=1', @profile);
	is($status, 200, "/rest/v1 with profile $profile");
	like($body, qr/"domain_id"/, 'is the application');
	($status) = get('/rest/v1/tenants', @profile);
	is($status, 404, 'and never the administration');
	($status, $head, $body) = get('/rbac/v1/tenants', @profile);
	is($status, 200, "/rbac/v1 with profile $profile");
	like($body, qr/"slug":"acme"/, 'is the administration');
	($status) = get('/rbac/v1/pages', @profile);
	is($status, 404, 'and never the application');
}
is($stack->request(GET => $_, as => 'alice')->{status}, 200, "$_ is the description") for qw(/rest/v1 /rest/v1/ /rbac/v1 /rbac/v1/);
my $description = $stack->request(GET => '/rest/v1/', as => 'alice')->{json};
is($description->{info}{title}, 'Scraping', "the description's title is the schema's comment");
is($description->{basePath}, '/rest/v1', 'its path is the one outside');
ok($description->{paths}{$_}, "it has $_") for qw(/domains /sitemaps /pages /contacts /domain_overview /rpc/search_pages);
my $created = $stack->request(POST => '/rest/v1/pages', as => 'alice', headers => { Prefer => 'return=headers-only' },
	body => { domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/located' });
like($created->{headers}{location}, qr{^/rest/v1/pages\?}, 'Location is a path outside');
is($stack->request(GET => $created->{headers}{location}, as => 'alice')->{status}, 200, 'that works');

note 'crooked paths';
for my $path (
	'/rest/v1/../rbac/v1/tenants', '/rest/v1/../../rbac/v1/tenants', '/rest/v1/%2e%2e/rbac/v1/tenants',
	'/rest/v1/%2E%2E/%2E%2E/rbac/v1/tenants', '/rest/v1/.%2e/.%2e/rbac/v1/tenants', '/rest/v1/..%2f..%2frbac%2fv1/tenants',
	'/rest/v1%2f..%2f..%2frbac/v1/tenants', '/rest/v1/./pages', '/rest/v1/..', '/rest/v1/.', '/rest/v1/pages%00', '/rest/v1/..%5crbac',
	'/rest/v1/%5c..%5c..%5crbac/v1/tenants', '/rbac/v1/rpc/../tenants', '/rbac/v1/rpc/%2e%2e/tenants', '/../rest/v1/pages', '/health/../rest/v1/pages')
{
	my ($status, undef, $body) = get($path);
	is($status, 400, "$path: 400");
	is_error($body, '400', $path);
	($status) = $stack->raw("POST $path HTTP/1.1\r\nHost: localhost\r\n$authorization\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
	is($status, 400, 'by POST as well');
}
for my $path ('/rest/v1/%252e%252e/rbac/v1/tenants', '/rest/v1//rbac/v1/tenants', '/rest/v1/..;/rbac/v1/tenants', '/rest/v1/\\..\\..\\rbac',
	'/rest/v1/rbac/v1/tenants', '/REST/v1/pages', '/rest/v1pages', '/rest/v1x', '/rest', '/rest/v2/pages', '/rbac', '/rbac/v1x', '/',
	'/pages', '/rpc/whoami', '/live', '/ready', '/_live', '/_error', '/_error/400', '/health/', '/health/x', '/health/database/', '/nginx.conf',
	'/secrets/jwt_secret', '/favicon.ico')
{
	my ($status, undef, $body) = get($path);
	is($status, 404, "$path: 404") or diag $body;
	unlike($body, qr/"slug"|"domain_id"/, 'and no row');
}
for my $path ('/rest/v1//pages', '//rest/v1/pages', '/rest//v1/pages', "http://evil.example/rest/v1/pages")
{
	my ($status, undef, $body) = get($path);
	is($status, 200, "$path: is taken for /rest/v1/pages");
	unlike($body, qr/"slug"/, 'with rows of the application only');
}

note 'bad requests';
my $close = "Connection: close\r\n\r\n";
for my $case (
	[ 'no HTTP', "HELLO\r\n\r\n", 400 ],
	[ 'no host', "GET /health HTTP/1.1\r\n$close", 400 ],
	[ 'two hosts', "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n$close", 400 ],
	[ 'two lengths', "POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n$close\{}", 400 ],
	[ 'a length and chunks', "POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n${close}0\r\n\r\n", 400 ],
	[ 'a bad chunk', "POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${close}zz\r\n", 400 ],
	[ 'an unknown path', "GET /x HTTP/1.1\r\nHost: a\r\n$close", 404 ],
	[ 'an unknown transfer encoding', "POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n$close", 501 ],
	[ 'HTTP/9.9', "GET /health HTTP/9.9\r\nHost: a\r\n$close", 505 ],
	[ 'a health check by POST', "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n$close", 405 ],
	[ 'no function', "GET /rbac/v1/rpc HTTP/1.1\r\nHost: a\r\n$close", 404 ],
	[ 'TRACE', "TRACE /rest/v1/pages HTTP/1.1\r\nHost: a\r\n$close", 405 ],
	[ 'a body of 3 MB', "POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nContent-Length: 3145728\r\n$close", 413 ],
	[ 'a long path', "GET /rest/v1/" . 'x' x 30_000 . " HTTP/1.1\r\nHost: a\r\n$close", 414 ],
	[ 'a long query', "GET /rest/v1/pages?" . 'x' x 30_000 . " HTTP/1.1\r\nHost: a\r\n$close", 414 ],
	[ 'a long token', "GET /rest/v1/pages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " . 'x' x 30_000 . "\r\n$close", 431 ],
	[ '10,000 headers', "GET /rest/v1/pages HTTP/1.1\r\nHost: a\r\n" . "X: a\r\n" x 10_000 . $close, 431 ])
{
	my ($what, $bytes, $expected) = @$case;
	my ($status, $head, $body) = $stack->raw($bytes);
	is($status, $expected, "$what: $expected");
	is_error($body, $expected, $what);
	like($head, qr{^content-type: application/json}mi, 'as JSON');
}
my $big = $stack->request(POST => '/rest/v1/pages', as => 'alice',
	body => { domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/big', title => 'x' x 1_900_000 });
is($big->{status}, 201, 'a body of 1.9 MB passes');
$stack->request(DELETE => '/rest/v1/pages?url=eq.https://acme.example/big', as => 'alice');

is($stack->request(GET => '/rest/v1/pages?id=in.(' . join(',', ($Stack::ACME_PAGE) x 300) . ')', as => 'alice')->{status},
	200, 'a query of 11 KB passes');

note "PostgREST's errors keep their shape, and tell nothing about the inside";
for my $case ([ '/rest/v1/nothing', 404 ], [ '/rest/v1/pages?nothing=eq.1', 400 ], [ '/rest/v1/pages?id=eq.x', 400 ], [ '/rest/v1/pages?select=*,nothing(*)', 400 ],
	[ '/rest/v1/rpc/nothing', 404 ], [ '/rest/v1/pages?id=zz.1', 400 ])
{
	my ($path, $expected) = @$case;
	my $answer = $stack->request(GET => $path, as => 'alice');
	is($answer->{status}, $expected, "$path: $expected") or diag $answer->{content};
	is_error($answer->{content}, undef, $path);
}
is_error($stack->request(GET => '/rest/v1/pages')->{content}, '42501', 'without a token');

note 'what a request may not do';
is($stack->request(GET => '/rest/v1/pages', as => 'alice', headers => { Accept => 'application/vnd.pgrst.plan+json' })->{status},
	415, 'see a plan');
$stack->sql(q{CREATE FUNCTION api.setting(name text) RETURNS text LANGUAGE sql STABLE RETURN current_setting(name);
	NOTIFY pgrst, 'reload schema'});
ok(Stack::eventually(sub { $stack->request(GET => '/rest/v1/rpc/setting?name=role', as => 'alice')->{status} == 200 }), '(a new function)');
is($stack->request(GET => '/rest/v1/rpc/setting?name=statement_timeout', as => 'alice')->{json}, '10s', 'run for longer than nginx waits');

note 'headers of every answer';
for my $path ('/rest/v1/pages', '/rbac/v1/tenants', '/health', '/health/database', '/x', '/rest/v1/../x')
{
	my ($status, $head) = get($path);
	like($head, qr/^$_\r?$/mi, "$path: $_")
	  for 'x-content-type-options: nosniff', 'cache-control: no-store', 'x-frame-options: deny', 'server: nginx';
	unlike($head, qr/postgrest/i, 'and not what is behind');
}

note 'too many requests at once from one address';
my @slow;
for (1 .. 300)
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $stack->{port}) or last;
	$socket->print("POST /rest/v1/pages HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
	$socket->flush;
	push @slow, $socket;
}
my $answer;
ok(Stack::eventually(sub { $answer = $stack->request(GET => '/rest/v1/'); $answer->{status} == 429 }), '429 Too Many Requests');
is_error($answer->{content}, '429', 'too many');
is($answer->{headers}{'retry-after'}, 1, 'with Retry-After');
close $_ for @slow;
ok(Stack::eventually(sub { $stack->request(GET => '/rest/v1/')->{status} == 200 }), 'and 200 when they are gone');

note 'what is logged';
$stack->request(GET => '/rest/v1/contacts?email=eq.someone@private.example', as => 'alice');
$stack->down;
my $logs = $stack->logs;
like($logs, qr{ GET /rest/v1/contacts 200 }, 'the path of a request');
unlike($logs, qr/someone/, 'but not its query');
unlike($logs, qr/eyJ/, 'and no token');

done_testing();
