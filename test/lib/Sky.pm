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
# returns it.
sub tell_secret
{
	my ($told) = @_;
	PostgreSQL::Test::Utils::append_to_file($ENV{SKY_SECRETS}, "$told\n") if $ENV{SKY_SECRETS};
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

# A running server that preloads the library and knows the test secret, with the
# extension in the database postgres.  Options: conf, lines for postgresql.conf;
# extension => 0 leaves the extension out.
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $file = $node->basedir . '/jwt_secret';

	PostgreSQL::Test::Utils::append_to_file($file, secret() . "\n");
	chmod 0600, $file or die "chmod $file: $!";
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', <<"CONF" . ($opt{conf} // ''));
shared_preload_libraries = 'scrapersky,pg_stat_statements'
scrapersky.jwt_secret_file = '$file'
scrapersky.environment = 'test'
max_prepared_transactions = 5
log_statement = 'none'
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION scrapersky') if $opt{extension} // 1;
	return $node;
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
