# /rbac/v1: who am I, what may I, and what my tenant looks like; read-only.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

my $stack = Stack->start('rbac');
my ($acme, $globex) = ($Stack::ACME, $Stack::GLOBEX);

# The only row of an answer, be it a list or not.
sub row
{
	my ($answer) = @_;
	my $json = $answer->{json};
	return ref $json eq 'ARRAY' ? $json->[0] : $json;
}

note 'whoami';
for my $case (
	[ alice => 'alice@acme', $acme, 'Acme', 'ADMIN' ], [ bob => 'bob@acme', $acme, 'Acme', 'USER' ],
	[ carol => 'carol@globex', $globex, 'Globex', 'SUPER_ADMIN' ], [ dave => 'dave@globex', $globex, 'Globex', 'USER' ])
{
	my ($user, $subject, $tenant, $tenant_name, $role) = @$case;
	my $answer = $stack->request(GET => '/rbac/v1/rpc/whoami', as => $user);
	is($answer->{status}, 200, "$user asks who it is");
	my $row = row($answer);
	is($row->{subject}, $subject, 'its subject');
	is($row->{tenant_id}, $tenant, 'its tenant');
	is($row->{tenant_name}, $tenant_name, 'by name');
	is_deeply($row->{roles}, [$role], 'its roles');
	ok((grep { $_ eq 'pages:read' } @{ $row->{permissions} }), 'may read pages');
	is(scalar(grep { $_ eq 'pages:write' } @{ $row->{permissions} }), $role eq 'USER' ? 0 : 1, 'may write them, or not');
	is(row($stack->request(POST => '/rbac/v1/rpc/whoami', as => $user, body => {}))->{subject}, $subject, 'by POST as well');
}
is(row($stack->request(GET => '/rbac/v1/rpc/whoami', as => 'erin', headers => { 'X-Tenant-Id' => $globex }))->{roles}[0],
	'EDITOR', 'erin is an EDITOR for globex');
my $anonymous = $stack->request(GET => '/rbac/v1/rpc/whoami');
is($anonymous->{status}, 200, 'without a token there is an answer too');
is(row($anonymous)->{$_}, undef, "which says nothing about $_") for qw(user_id subject tenant_id);

note 'has_permission';
for my $case ([ alice => 'pages:write', 'true' ], [ bob => 'pages:write', 'false' ], [ bob => 'pages:read', 'true' ],
	[ bob => 'no:such', 'false' ])
{
	my ($user, $permission, $expected) = @$case;
	is($stack->request(GET => "/rbac/v1/rpc/has_permission?permission=$permission", as => $user)->{content}, $expected,
		"$user, $permission: $expected");
}

note 'the views';
my %names = (alice => 'acme', carol => 'globex');
for my $user (sort keys %names)
{
	my $other = $user eq 'alice' ? 'globex' : 'acme';
	my $tenants = $stack->request(GET => '/rbac/v1/tenants', as => $user);
	is_deeply([ map { $_->{slug} } @{ $tenants->{json} } ], [ $names{$user} ], "$user sees its own tenant only");
	for my $view (qw(tenants users memberships roles permissions role_permissions user_roles))
	{
		my $answer = $stack->request(GET => "/rbac/v1/$view", as => $user);
		is($answer->{status}, 200, "$user reads $view") or diag $answer->{content};
		cmp_ok(scalar @{ $answer->{json} // [] }, '>', 0, 'and there is something');
		my $id = $other eq 'acme' ? $acme : $globex;
		unlike($answer->{content}, qr/\Q$id\E|\@$other/, "but nothing of $other");
		is($stack->request(GET => "/rbac/v1/$view")->{status}, 401, "without a token: 401");
	}
}
unlike($stack->request(GET => '/rbac/v1/roles', as => 'alice')->{content}, qr/EDITOR/, "globex's own role is not there for acme");
like($stack->request(GET => '/rbac/v1/roles', as => 'carol')->{content}, qr/EDITOR/, 'but for globex');

note 'read-only';
for my $view (qw(tenants users memberships roles permissions role_permissions user_roles))
{
	for my $method (qw(POST PATCH PUT DELETE))
	{
		my $answer = $stack->request($method => "/rbac/v1/$view?name=eq.x", as => 'carol', body => { name => 'x' });
		is($answer->{status}, 405, "$method $view: 405");
		is($answer->{headers}{allow}, 'GET, HEAD, OPTIONS', 'with Allow');
	}
	for my $method (qw(POST PATCH DELETE))
	{
		my $body = '{"description":"x"}';
		my ($status, undef, $content) = $stack->raw(
			join("\r\n", "$method /$view HTTP/1.1", 'Host: localhost', 'Content-Profile: scrapersky_api',
				"Authorization: Bearer $stack->{token}{carol}", 'Content-Type: application/json',
				'Content-Length: ' . length $body, 'Connection: close', '', $body),
			socket => $stack->postgrest);
		cmp_ok($status, '>=', 400, "$method $view at PostgREST directly: refused") or diag $content;
	}
}
is($stack->request(DELETE => '/rbac/v1/rpc/whoami', as => 'carol')->{status}, 405, 'DELETE of a function: 405');

note 'nothing else';
is($stack->request(GET => "/rbac/v1/$_", as => 'alice')->{status}, 404, "$_: 404")
  for qw(pages settings rpc/sign_token rpc/create_tenant rpc/authenticate rpc/setup_api rpc/assign_role rpc/protect);
is($stack->request(GET => "/rest/v1/$_", as => 'alice')->{status}, 404, "$_ in the application: 404")
  for qw(tenants users rpc/whoami rpc/sign_token);

done_testing();
