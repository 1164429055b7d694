# Sky: what the tests in Perl (test/t, test/http) share.  Core modules only, and
# none of the code that the extension itself uses.
#
#	use PostgreSQL::Test::Utils;
#	use Test::More;
#	use Sky;
#
#	my $node = Sky::new_node('main');
#	my $token = Sky::sign({ sub => 'alice', exp => time + 60 });
#	is(Sky::query($node, 'regress_sky_app', 'SELECT 1'), 1);
package Sky;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha256 hmac_sha384 hmac_sha512);
use File::Basename;
use JSON::PP;
use MIME::Base64 qw(encode_base64url);

my %hash = (
	HS256 => \&hmac_sha256,
	HS384 => \&hmac_sha384,
	HS512 => \&hmac_sha512);
my $json = JSON::PP->new->canonical->utf8;

# The top of the tree.
sub source
{
	return $ENV{SKY_SRC} // abs_path(dirname(__FILE__) . '/../..');
}

# The secret that test servers verify tokens with.
sub secret
{
	my $secret = PostgreSQL::Test::Utils::slurp_file(source() . '/test/lib/secret');
	chomp $secret;
	return tell_secret($secret);
}

# Tells the search of the logs, which ends `make check`, about a token or secret;
# returns it.  (A longer one than any server accepts is found by its beginning.)
sub tell_secret
{
	my ($told) = @_;
	PostgreSQL::Test::Utils::append_to_file($ENV{SKY_SECRETS}, "$told\n")
	  if $ENV{SKY_SECRETS} && length $told < 20_000;
	return $told;
}

# A token of these claims.  Options: alg (HS256), key (the test secret), header
# (members added to it), and raw_header, raw_payload: bytes used as they are.
# An alg that is no HMAC makes a token with an empty signature.
sub sign
{
	my ($claims, %opt) = @_;
	my $alg = $opt{alg} // 'HS256';
	my $header = $opt{raw_header} // $json->encode({ typ => 'JWT', alg => $alg, %{ $opt{header} // {} } });
	my $payload = $opt{raw_payload} // $json->encode($claims);
	my $signed = encode_base64url($header) . '.' . encode_base64url($payload);
	my $signature = $hash{$alg} ? $hash{$alg}->($signed, $opt{key} // secret()) : '';
	return tell_secret($signed . '.' . encode_base64url($signature));
}

# A token of this subject that is good for ten minutes; more claims may follow.
sub token
{
	my ($subject, %claims) = @_;
	return sign({ sub => $subject, exp => time + 600, %claims });
}

# A running server that preloads the library and knows the test secret, with the
# extension in the database postgres.  Options: conf, lines for postgresql.conf;
# extension => 0 leaves the extension out; preload => 0 does not preload the
# library; streaming => 1 makes it a primary that can have standbys.
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $file = $node->basedir . '/jwt_secret';

	PostgreSQL::Test::Utils::append_to_file($file, secret() . "\n");
	chmod 0600, $file or die "chmod $file: $!";
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => $opt{streaming});
	$node->append_conf('postgresql.conf', ($opt{preload} // 1
		? "shared_preload_libraries = 'scrapersky,pg_stat_statements'" : ''));
	$node->append_conf('postgresql.conf', <<"CONF" . ($opt{conf} // ''));
scrapersky.jwt_secret_file = '$file'
scrapersky.environment = 'test'
max_prepared_transactions = 5
log_statement = 'none'
# not "\$user": a superuser may be named like our schema
search_path = 'public'
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION scrapersky') if $opt{extension} // 1;
	return $node;
}

# Ids of what sample() makes.
our ($ACME, $GLOBEX) = ('aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000001');
our ($ALICE, $BOB, $CAROL) = map { "cccccccc-0000-4000-8000-00000000000$_" } 1 .. 3;

# Two tenants with a protected table in a database that has the extension.  The
# table app.docs belongs to regress_sky_owner; regress_sky_app, a role that may log
# in and nothing else, uses it.  alice reads and writes in acme (3 rows), bob reads
# in globex (2 rows), carol belongs to both and has no role.
sub sample
{
	my ($node, $dbname) = @_;
	$node->safe_psql($dbname // 'postgres', <<"SQL");
SELECT format('CREATE ROLE %I %s', n, o) FROM (VALUES ('regress_sky_owner', ''), ('regress_sky_app', 'LOGIN')) v(n, o)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n) \\gexec
SELECT scrapersky.create_tenant('Acme', 'acme', '$ACME'), scrapersky.create_tenant('Globex', 'globex', '$GLOBEX');
SELECT scrapersky.create_user('alice', 'alice\@acme.example', '', '$ALICE'), scrapersky.create_user('bob', NULL, '', '$BOB'),
	scrapersky.create_user('carol', NULL, '', '$CAROL');
SELECT scrapersky.add_member('$ACME', '$ALICE'), scrapersky.add_member('$GLOBEX', '$BOB'),
	scrapersky.add_member('$ACME', '$CAROL'), scrapersky.add_member('$GLOBEX', '$CAROL');
SELECT scrapersky.create_permission('docs:read'), scrapersky.create_permission('docs:write');
SELECT scrapersky.create_role('EDITOR');
SELECT scrapersky.grant_permission('USER', 'docs:read'), scrapersky.grant_permission('EDITOR', 'docs:write');
SELECT scrapersky.assign_role('$ALICE', 'USER', '$ACME'), scrapersky.assign_role('$ALICE', 'EDITOR', '$ACME'),
	scrapersky.assign_role('$BOB', 'USER', '$GLOBEX');
CREATE SCHEMA app AUTHORIZATION regress_sky_owner;
GRANT USAGE ON SCHEMA app TO regress_sky_app;
SET ROLE regress_sky_owner;
CREATE TABLE app.docs (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, tenant_id uuid, body text);
INSERT INTO app.docs (tenant_id, body) SELECT '$ACME', 'acme ' || i FROM generate_series(1, 3) i;
INSERT INTO app.docs (tenant_id, body) SELECT '$GLOBEX', 'globex ' || i FROM generate_series(1, 2) i;
SELECT scrapersky.protect('app.docs', read_permission => 'docs:read', write_permission => 'docs:write');
GRANT SELECT, INSERT, UPDATE, DELETE ON app.docs TO regress_sky_app;
SQL
	return;
}

# Lines are added to postgresql.conf, and every new session knows them when this
# returns.
sub reload
{
	my ($node, @lines) = @_;
	my $before = $node->safe_psql('postgres', 'SELECT pg_conf_load_time()');
	$node->append_conf('postgresql.conf', $_) for @lines;
	$node->reload;
	$node->poll_query_until('postgres', "SELECT pg_conf_load_time() > '$before'") or die 'the server did not reload';
	return;
}

# Runs statements over a connection of this role's own, and returns what psql
# prints; in list context also its messages and exit status.  A value of
# %variables is :'name' in the statements; option dbname: the database.
sub query
{
	my ($node, $role, $sql, %variables) = @_;
	my $dbname = delete $variables{dbname} // 'postgres';
	my ($out, $err) = ('', '');
	my $status = $node->psql($dbname, $sql,
		stdout => \$out,
		stderr => \$err,
		extra_params => [ '--username', $role, map { ('--set', "$_=$variables{$_}") } sort keys %variables ]);
	return wantarray ? ($out, $err, $status) : $out;
}

1;
