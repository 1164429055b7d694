# What a user of one tenant sees and may do: rows, permissions, the sample's
# view and function.
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils;
use Stack;
use Test::More;

my $stack = Stack->start('tenants');
my ($acme, $globex) = ($Stack::ACME, $Stack::GLOBEX);

# Asks for rows; returns a sorted list of one column's values.
sub values_of
{
	my ($user, $path, $column, %opt) = @_;
	my $answer = $stack->request(GET => $path, as => $user, %opt);
	is($answer->{status}, 200, "$user reads $path") or diag $answer->{content};
	return [ sort map { $_->{$column} } @{ $answer->{json} } ];
}

# The distinct values of a list.
sub distinct
{
	my %seen = map { $_ => 1 } @{ $_[0] };
	return [ sort keys %seen ];
}

# What the table really holds.
sub rows
{
	my ($condition) = @_;
	return $stack->sql("SELECT count(*) FROM api.pages WHERE $condition");
}

note 'reading';
for my $table (qw(domains sitemaps pages contacts))
{
	is_deeply(distinct(values_of($_, "/rest/v1/$table", 'tenant_id')), [$acme], "$_ sees only acme's $table") for qw(alice bob);
	is_deeply(distinct(values_of($_, "/rest/v1/$table", 'tenant_id')), [$globex], "$_ sees only globex's $table")
	  for qw(carol dave);
	for my $tenant ($acme, $globex)
	{
		is(scalar @{ values_of($tenant eq $acme ? 'bob' : 'dave', "/rest/v1/$table", 'id') },
			$stack->sql("SELECT count(*) FROM api.$table WHERE tenant_id = '$tenant'"),
			"and all of them");
	}
	is_deeply(values_of('alice', "/rest/v1/$table?tenant_id=eq.$globex", 'id'), [], "asking for globex's $table finds nothing");
}
is_deeply(values_of('alice', "/rest/v1/pages?id=eq.$Stack::GLOBEX_PAGE", 'id'), [], 'nor does asking for a row of theirs');
is_deeply(values_of('alice', '/rest/v1/domain_overview', 'domain'), [qw(acme.example anvils.example rockets.example)],
	'the view shows what its reader may see');
is_deeply(values_of('dave', '/rest/v1/domain_overview', 'domain'),
	[qw(anvils.example globex.example hammock-district.example)], 'to globex too');
is_deeply(values_of('alice', '/rest/v1/rpc/search_pages?query=contact', 'tenant_id'), [$acme], 'so does the function');
is_deeply(values_of('carol', '/rest/v1/rpc/search_pages?query=contact', 'tenant_id'), [$globex], 'to globex too');
is_deeply(
	values_of('alice', '/rest/v1/contacts?select=name,pages(url,domains(domain))&pages.domains.domain=eq.anvils.example&order=name', 'name'),
	[ 'Ann Villiers', 'Carl Jonas', 'Reception', 'Rhoda Runner', 'Wilma Coyote' ],
	'embedding works');
my $counted = $stack->request(HEAD => '/rest/v1/pages', as => 'alice', headers => { Prefer => 'count=exact' });
is($counted->{headers}{'content-range'}, '0-7/8', 'an exact count counts the own rows');

# Planned and estimated counts come from statistics of all tenants' rows.
$stack->sql("INSERT INTO api.domains (tenant_id, domain, title) SELECT '$globex', 'd' || i || '.example', 'Secret' FROM generate_series(1, 500) i;
	ANALYZE api.domains");
for my $prefer ('count=planned', 'count=estimated', 'return=minimal, count=planned', 'COUNT=Planned', 'count = "planned"', 'count=planned,count=estimated',
	'return=representation;count=estimated')
{
	my $answer = $stack->request(GET => '/rest/v1/domains?title=eq.Secret&limit=1', as => 'alice', headers => { Prefer => $prefer });
	unlike($answer->{headers}{'content-range'} // '', qr{/[1-9]}, "Prefer: $prefer tells nothing of globex's rows");
}
$stack->sql("DELETE FROM api.domains WHERE title = 'Secret'");

note 'two tenants, one user';
is_deeply([ map { $_->{slug} } @{ $stack->request(GET => '/rbac/v1/rpc/my_tenants', as => 'erin')->{json} } ], [ 'acme', 'globex' ], 'erin has two');
is_deeply([ map { $_->{slug} } @{ $stack->request(GET => '/rbac/v1/rpc/my_tenants', as => 'alice')->{json} } ], ['acme'], 'alice one');
isnt($stack->request(GET => '/rbac/v1/rpc/my_tenants')->{status}, 200, 'nobody none');
is($stack->request(GET => '/rest/v1/pages', as => 'erin')->{status}, 403, 'erin has to say for whom she asks');
for my $tenant ($acme, $globex)
{
	is_deeply(distinct(values_of('erin', '/rest/v1/pages', 'tenant_id', headers => { 'X-Tenant-Id' => $tenant })),
		[$tenant], 'and then sees that tenant');
}
is($stack->request(POST => '/rest/v1/pages', as => 'erin', headers => { 'X-Tenant-Id' => $acme },
		body => { domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/erin' })->{status},
	403, 'she may not write for acme, where she is a USER');
is($stack->request(POST => '/rest/v1/pages', as => 'erin', headers => { 'X-Tenant-Id' => $globex },
		body => { domain_id => $Stack::GLOBEX_DOMAIN, url => 'https://globex.example/erin' })->{status},
	201, 'but for globex, as its EDITOR');

note 'inserting';
my $new = { domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/new' };
my %representation = (headers => { Prefer => 'return=representation' });
my $answer = $stack->request(POST => '/rest/v1/pages', as => 'alice', body => $new, %representation);
is($answer->{status}, 201, 'an ADMIN inserts');
is($answer->{json}[0]{tenant_id}, $acme, 'and tenant_id fills itself in');
$answer = $stack->request(POST => '/rest/v1/pages', as => 'alice',
	body => { %$new, tenant_id => $acme, url => 'https://acme.example/own' });
is($answer->{status}, 201, 'the own tenant_id may be given');
is($stack->request(POST => '/rest/v1/pages', as => 'alice', body => $new)->{status}, 409, 'the same address again is a conflict');
for my $domain ($Stack::ACME_DOMAIN, $Stack::GLOBEX_DOMAIN)
{
	$answer = $stack->request(POST => '/rest/v1/pages', as => 'alice',
		body => { url => 'https://acme.example/theirs', tenant_id => $globex, domain_id => $domain });
	is($answer->{status}, 403, "another tenant's tenant_id is refused");
	is($answer->{json}{code}, '42501', 'with 42501');
}
$answer = $stack->request(POST => '/rest/v1/pages', as => 'alice',
	body => { url => 'https://acme.example/theirs', domain_id => $Stack::GLOBEX_DOMAIN });
is($answer->{status}, 409, "a row cannot point at another tenant's row");
is(rows("url = 'https://acme.example/theirs'"), 0, 'none of these rows is there');
is(rows("url = 'https://acme.example/new'"), 1, 'and the good one is');
$answer = $stack->request(POST => '/rest/v1/pages', as => 'alice', %representation, body => [
	map { { domain_id => $Stack::ACME_DOMAIN, url => "https://acme.example/bulk/$_" } } 1 .. 3 ]);
is_deeply(distinct([ map { $_->{tenant_id} } @{ $answer->{json} } ]), [$acme], 'rows in bulk get their tenant too');
$answer = $stack->request(POST => '/rest/v1/pages', as => 'alice', body => [
	{ domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/mixed/1', tenant_id => $acme },
	{ domain_id => $Stack::ACME_DOMAIN, url => 'https://acme.example/mixed/2', tenant_id => $globex } ]);
is($answer->{status}, 403, "one row of another tenant's refuses all");
is(rows("url LIKE '%/mixed/%'"), 0, 'and none is there');
$answer = $stack->request(POST => '/rest/v1/pages?on_conflict=tenant_id,url', as => 'alice',
	headers => { Prefer => 'resolution=merge-duplicates,return=representation' }, body => { %$new, title => 'Merged' });
is($answer->{json}[0]{title}, 'Merged', 'an upsert passes');

note "the other tenant's rows";
my $theirs = $stack->sql("SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM api.pages AS p WHERE tenant_id = '$globex'");
for my $filter ("id=eq.$Stack::GLOBEX_PAGE", "tenant_id=eq.$globex", 'url=like.*globex*')
{
	$answer = $stack->request(PATCH => "/rest/v1/pages?$filter", as => 'alice', body => { title => 'mine' }, %representation);
	is($answer->{status}, 200, "PATCH $filter");
	is_deeply($answer->{json}, [], 'changes nothing');
	$answer = $stack->request(DELETE => "/rest/v1/pages?$filter", as => 'alice', %representation);
	is($answer->{status}, 200, "DELETE $filter");
	is_deeply($answer->{json}, [], 'deletes nothing');
}
$stack->request(DELETE => '/rest/v1/contacts?name=neq.x', as => 'alice');
is($stack->sql("SELECT string_agg(DISTINCT tenant_id::text, ',') FROM api.contacts"), $globex,
	'deleting everything deletes the own rows only');
$answer = $stack->request(PATCH => "/rest/v1/pages?id=eq.$Stack::ACME_PAGE", as => 'alice', body => { tenant_id => $globex });
is($answer->{status}, 403, 'a row cannot be given away');
is(rows("id = '$Stack::ACME_PAGE' AND tenant_id = '$acme'"), 1, 'and was not');
is($stack->sql("SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM api.pages AS p WHERE tenant_id = '$globex'"),
	$theirs, "the other tenant's rows are as they were");

note 'without the permission';
for my $case (
	[ POST => 'pages', $new ], [ PATCH => "pages?id=eq.$Stack::ACME_PAGE", { title => 'x' } ], [ DELETE => "pages?id=eq.$Stack::ACME_PAGE" ],
	[ PATCH => "pages?id=eq.$Stack::NOBODY", { title => 'x' } ], [ DELETE => "pages?id=eq.$Stack::NOBODY" ],
	[ DELETE => "pages?tenant_id=eq.$globex" ], [ POST => 'domains', { domain => 'x.example' } ])
{
	my ($method, $path, $body) = @$case;
	$answer = $stack->request($method => "/rest/v1/$path", as => 'bob', $body ? (body => $body) : ());
	is($answer->{status}, 403, "a USER is refused: $method $path");
	is($answer->{json}{code}, '42501', 'with 42501');
}
is(rows("id = '$Stack::ACME_PAGE'"), 1, 'and nothing happened');
$stack->sql("SELECT scrapersky.create_user('frank', NULL, '', 'f4a00000-0000-4000-8000-000000000006'::uuid);
	SELECT scrapersky.add_member('$acme', 'f4a00000-0000-4000-8000-000000000006')");
my $frank = $stack->sign({ sub => 'frank' });
is($stack->request(GET => '/rest/v1/pages', token => $frank)->{status}, 403, 'a member without a role may not even read');
is($stack->request(GET => "/rest/v1/pages?id=eq.$Stack::NOBODY", token => $frank)->{status}, 403,
	'which is an error, not an empty page');
$stack->sql("SELECT scrapersky.assign_role('f4a00000-0000-4000-8000-000000000006', 'USER', '$acme')");
is($stack->request(GET => '/rest/v1/pages', token => $frank)->{status}, 200, 'with a role he may, at once');
$stack->sql("SELECT scrapersky.unassign_role('f4a00000-0000-4000-8000-000000000006', 'USER', '$acme')");
is($stack->request(GET => '/rest/v1/pages', token => $frank)->{status}, 403, 'and without it no more');

note 'without a token';
for my $case ([ GET => 'pages' ], [ GET => 'domain_overview' ], [ POST => 'pages', $new ], [ DELETE => 'pages?id=not.is.null' ],
	[ GET => 'rpc/search_pages?query=contact' ])
{
	my ($method, $path, $body) = @$case;
	is($stack->request($method => "/rest/v1/$path", $body ? (body => $body) : ())->{status}, 401, "401: $method $path");
}

done_testing();
