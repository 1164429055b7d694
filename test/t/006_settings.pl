# Settings: what they ask of tokens, at their edges; and that nobody but the
# configuration and superusers can change one.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;
use Time::HiRes qw(sleep);

my $node = Sky::new_node('main');
Sky::sample($node);
$node->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO regress_sky_app');
$node->safe_psql('postgres', 'CREATE DATABASE regress_sky_db OWNER regress_sky_app');
$node->safe_psql('postgres', q(SELECT scrapersky.create_user('dave')));
my $denied = 'ERROR 28000: authentication failed';
my $whoami = 'SELECT scrapersky.current_subject(), scrapersky.current_tenant_id()';
my $app;

sub configure
{
	Sky::reload($node, @_);
	$app = Sky::Session->new($node, user => 'regress_sky_app');
	return;
}

# What authenticate() answers to a token of these claims.
sub login
{
	my ($claims, @tenant) = @_;
	my $token = Sky::sign({ sub => 'alice', exp => time + 600, %$claims });
	return $app->query('SELECT scrapersky.authenticate($1, tenant => $2)', $token, $tenant[0]);
}

# As login, with one claim as JSON text.
sub login_raw
{
	my ($name, $value) = @_;
	my %claims = (sub => '"alice"', exp => time + 600);
	$claims{$name} = $value;
	delete $claims{$name} if !defined $value;
	my $payload = '{' . join(',', map { "\"$_\":$claims{$_}" } sort keys %claims) . '}';
	return $app->query('SELECT scrapersky.authenticate($1)', Sky::sign({}, raw_payload => $payload));
}

note 'jwt_audience';
configure();
is(login({ aud => 'anything' }), '', 'not set: any audience');
is(login_raw('aud', '{"x": 1}'), '', 'not set: it is not even looked at');
configure("scrapersky.jwt_audience = 'api'");
is(login_raw('aud', $_), '', "aud is $_") for '"api"', '["api"]', '["web","api"]', '["api","web"]', '[1,null,"api"]', '"\u0061pi"';
is(login_raw('aud', $_), $denied, 'aud is ' . ($_ // 'missing'))
  for undef, 'null', '""', '[]', '[""]', '"web"', '["web"]', '"API"', '["API"]', '"api "', '"apis"', '"ap"', '["apis","ap"]', '{"api":"api"}', '{"0":"api"}', '[["api"]]',
  '[{"api":"api"}]', '1', 'true', '"api web"', '"web,api"', '"*"', '"%"';
is(login({}), $denied, 'a token without it');

note 'jwt_issuer';
configure("scrapersky.jwt_audience = ''", "scrapersky.jwt_issuer = 'https://issuer.example/'");
is(login({ iss => 'https://issuer.example/' }), '', 'exactly it');
is(login_raw('iss', $_), $denied, 'iss is ' . ($_ // 'missing'))
  for undef, 'null', '""', '"https://issuer.example"', '"https://issuer.example/x"', '"https://issuer.example/ "', '"HTTPS://issuer.example/"', '"http://issuer.example/"',
  '["https://issuer.example/"]', '{"iss":"https://issuer.example/"}', '1', 'true', '"https://issuer.example/\u0301"';
configure("scrapersky.jwt_audience = 'api'");
is(login({ iss => 'https://issuer.example/', aud => 'api' }), '', 'both');
is(login({ iss => 'https://issuer.example/' }), $denied, 'one of both');
is(login({ aud => 'api' }), $denied, 'the other of both');
configure("scrapersky.jwt_audience = ''", "scrapersky.jwt_issuer = ''");

note 'jwt_leeway';
is($app->query(q(SELECT current_setting('scrapersky.jwt_leeway'))), '30s', '30 seconds unless set');
for my $leeway (30, 0, 300)
{
	configure("scrapersky.jwt_leeway = $leeway") if $leeway != 30;
	# two seconds of room for the test itself
	is(login({ exp => time - $leeway + 3 }), '', "leeway $leeway: exp just good");
	is(login({ exp => time - $leeway }), $denied, "leeway $leeway: exp at its end");
	is(login({ exp => time - $leeway - 1 }), $denied, "leeway $leeway: exp over");
	is(login({ nbf => time + $leeway }), '', "leeway $leeway: nbf just good");
	is(login({ nbf => time + $leeway + 3 }), $denied, "leeway $leeway: nbf to come");
	is(login({ iat => time + $leeway }), '', "leeway $leeway: iat just good");
	is(login({ iat => time + $leeway + 3 }), $denied, "leeway $leeway: iat to come");
	my $exp = time + 100;
	$app->must('BEGIN');
	$app->must('SELECT scrapersky.authenticate($1)', Sky::sign({ sub => 'alice', exp => $exp }));
	is($app->query('SELECT extract(epoch FROM expires_at)::bigint FROM scrapersky.whoami()'), $exp + $leeway, "leeway $leeway: so much longer the identity lasts");
	$app->must('COMMIT');
}
for my $bad ('-1', '301', '1h', 'x')
{
	my $before = -s $node->logfile;
	configure("scrapersky.jwt_leeway = '$bad'");
	is($app->query(q(SELECT current_setting('scrapersky.jwt_leeway'))), '5min', "leeway $bad is no leeway");
	like(slurp_file($node->logfile, $before), qr/scrapersky\.jwt_leeway/, 'and the log says so');
}

note 'moments that are none';
configure('scrapersky.jwt_leeway = 30');
for my $claim (qw(exp nbf iat))
{
	my $now = time;
	my $good = $claim eq 'exp' ? $now + 60 : $now - 60;
	is(login_raw($claim, $_), '', "$claim is $_") for $good, "$good.5", "$good.0", sprintf('%.9fe9', $good / 1e9);
	is(login_raw($claim, $_), $denied, "$claim is $_")
	  for 'null', 'true', 'false', "\"$good\"", '""', "[$good]", "{\"$claim\":$good}", '-1', "-$good", '-0.5', '253402300800', '9223372036854775807', '9223372036854775808',
	  '18446744073709551616', '1e18', '1e300', '1e400', '-1e400', '1e-400x', '0x7fffffff', "0$good", "+$good", 'NaN', 'Infinity', "$good," , "${good}s";
}
is(login_raw('exp', $_), $denied, "exp is $_") for '0', '1', '0.0', '1e-400', '1';
is(login_raw('exp', undef), $denied, 'exp is missing');
is(login_raw($_, '0'), '', "$_ is 0") for qw(nbf iat);
is(login_raw('exp', '253402300799'), '', 'exp is the last moment there is');

note 'an identity that expires in its transaction';
configure('scrapersky.jwt_leeway = 0');
my $end = time + 3;
$app->must('BEGIN');
$app->must('PREPARE rows AS SELECT count(*) FROM app.docs');
$app->must('SELECT scrapersky.authenticate($1)', Sky::sign({ sub => 'alice', exp => $end }));
is($app->query('EXECUTE rows'), 3, 'it is good');
$app->must('DECLARE c CURSOR FOR SELECT body FROM app.docs');
like($app->query('FETCH c'), qr/^acme/, 'a cursor, too');
is($app->query('SELECT count(*), pg_sleep(3.2) IS NULL, scrapersky.current_subject() FROM app.docs'), '3|f|alice', 'a statement that began in time');
my $expired = 'ERROR 42501: the identity has expired';
for my $sql ('SELECT count(*) FROM app.docs', 'SELECT 1 FROM app.docs WHERE false', 'EXECUTE rows', q(INSERT INTO app.docs (body) VALUES ('late')),
	q(UPDATE app.docs SET body = 'late'), 'DELETE FROM app.docs', 'SELECT scrapersky.current_tenant_id()', q(SELECT scrapersky.has_permission('docs:read')),
	q(SELECT scrapersky.claim('sub')), 'SELECT scrapersky.current_roles()')
{
	$app->must('SAVEPOINT s');
	is($app->query($sql), $expired, "over: $sql");
	$app->must('ROLLBACK TO s');
}
is($app->query('SELECT scrapersky.is_authenticated(), scrapersky.whoami()'), 'f|(,,,,,,{},{},,)', 'it is nobody\'s');
# (what a plan has sorted or hashed already, it has)
is($app->query('FETCH c'), $expired, 'over: the cursor');
$app->must('ROLLBACK');
$app->must('BEGIN');
$app->must('SELECT scrapersky.authenticate($1)', Sky::sign({ sub => 'alice', exp => time + 2 }));
$app->must('SELECT pg_sleep(2.2)');
is($app->query('SELECT scrapersky.is_authenticated()'), 'f', 'another that is over');
$app->must('SELECT scrapersky.authenticate($1)', Sky::token('alice'));
is($app->query('EXECUTE rows'), 3, 'a new token helps');
$app->must('COMMIT');

note 'default_tenant_id and environment';
my $none = 'ERROR 42501: the identity has no tenant';
sub whose
{
	my ($subject) = @_;
	$app->must('BEGIN');
	my $answer = login({ sub => $subject });
	$answer ||= $app->query($whoami);
	$app->must('ROLLBACK');
	return $answer;
}
configure();
is(whose('alice'), "alice|$Sky::ACME", 'no default: alice has one tenant');
is(whose('carol'), $none, 'no default: carol has two, and so none');
is(whose('dave'), $none, 'no default: dave has none');
$app->must('BEGIN');
is(login({ sub => 'carol' }), '', 'an identity without tenant');
is($app->query('SELECT scrapersky.current_subject(), tenant_id FROM scrapersky.whoami()'), 'carol|', 'is one');
is($app->query('SELECT count(*) FROM app.docs'), $none, 'and sees nothing');
$app->must('ROLLBACK');

for my $environment (qw(test staging development production))
{
	configure("scrapersky.default_tenant_id = '$Sky::GLOBEX'", "scrapersky.environment = '$environment'");
	is(whose('alice'), "alice|$Sky::ACME", "$environment: alice stays in her tenant");
	is(whose('carol'), $environment eq 'production' ? $denied : "carol|$Sky::GLOBEX", "$environment: carol");
	is(whose('dave'), $denied, "$environment: dave is no member of the default tenant");
	is(login({ sub => 'carol', tenant_id => $Sky::ACME }), '', "$environment: a token that names the tenant");
	is(login({ sub => 'carol' }, $Sky::ACME), '', "$environment: a caller who names it");
	is(login({ sub => 'carol' }, $Sky::ACME), '', "$environment: and again");
}
configure("scrapersky.default_tenant_id = ''", "scrapersky.environment = 'production'");
is(whose('carol'), $none, 'production without default');
for my $bad ("scrapersky.default_tenant_id = 'globex'", "scrapersky.default_tenant_id = '{$Sky::GLOBEX}'", "scrapersky.default_tenant_id = '*'", "scrapersky.environment = 'prod'")
{
	configure($bad);
	is(whose('carol'), $none, "$bad changes nothing");
}
# a warm backend, and its cache, follow the configuration
configure("scrapersky.default_tenant_id = '$Sky::GLOBEX'", "scrapersky.environment = 'test'");
is(whose('carol'), "carol|$Sky::GLOBEX", 'a warm backend: the default tenant');
for my $change ([ "scrapersky.default_tenant_id = '$Sky::ACME'", "carol|$Sky::ACME" ], [ "scrapersky.environment = 'production'", $denied ], [ "scrapersky.default_tenant_id = ''", $none ])
{
	my ($line, $answer) = @$change;
	Sky::reload($node, $line);
	my $is = '';
	for (1 .. 200)
	{
		last if ($is = whose('carol')) eq $answer;
		sleep(0.02);
	}
	is($is, $answer, "the same backend after $line");
}
configure("scrapersky.environment = 'test'");

note 'the tenant that a token or a caller names';
is(login({ sub => 'carol', tenant_id => $_ }), '', "claim $_") for $Sky::ACME, $Sky::GLOBEX, uc $Sky::ACME;
is(login({ sub => 'alice', tenant_id => $_ }), $denied, 'claim ' . (defined $_ ? JSON::PP->new->allow_nonref->encode($_) : 'null'))
  for $Sky::GLOBEX, undef, '', 'acme', 'Acme', "{$Sky::ACME}", $Sky::ACME =~ s/-//gr, " $Sky::ACME", "$Sky::ACME ", [$Sky::ACME], { id => $Sky::ACME }, 1, \1, \0,
  '00000000-0000-0000-0000-000000000000', 'dddddddd-0000-4000-8000-000000000001', '%', "$Sky::ACME\x{0}";
is(login({ sub => 'carol' }, $_), '', "argument $_") for $Sky::ACME, $Sky::GLOBEX;
is(login({ sub => 'alice' }, $_), $denied, "argument $_") for $Sky::GLOBEX, '00000000-0000-0000-0000-000000000000', 'dddddddd-0000-4000-8000-000000000001';
is(login({ sub => 'carol', tenant_id => $Sky::ACME }, $Sky::ACME), '', 'claim and argument agree');
is(login({ sub => 'carol', tenant_id => $Sky::ACME }, $Sky::GLOBEX), $denied, 'claim and argument disagree');
is(login({ sub => 'carol', tenant_id => undef }, $Sky::GLOBEX), $denied, 'a claim of null is no leave to choose');

note 'the subject';
is(login_raw('sub', $_), $denied, 'sub is ' . ($_ // 'missing'))
  for undef, 'null', '""', '1', 'true', '["alice"]', '{"sub":"alice"}', '"Alice"', '"alice "', '" alice"', '"alic_"', '"%"', '"alice\u0000"', '"alice\u0301"', '"' . 'a' x 256 . '"',
  '"alice","sub":"bob"', '"bob","s\u0075b":"alice"';
is(login_raw('sub', '"\u0061lice"'), '', 'sub is spelt by escapes');

note 'who may change a setting';
my %context = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q(SELECT name, context FROM pg_settings WHERE name LIKE 'scrapersky.%'));
cmp_ok(scalar keys %context, '>=', 10, 'the settings there are');
for my $name (sort keys %context)
{
	like($context{$name}, qr/^(?:sighup|superuser)$/, "$name is for the configuration, or for superusers");
	my ($value) = split /\n/, $node->safe_psql('postgres', "SELECT coalesce(enumvals[1], CASE vartype WHEN 'bool' THEN 'on' WHEN 'integer' THEN max_val WHEN 'string' THEN '$Sky::GLOBEX' END) FROM pg_settings WHERE name = '$name'");
	for my $sql ("SET $name = '$value'", "SET LOCAL $name = '$value'", "SET SESSION $name TO DEFAULT", "RESET $name", "SELECT set_config('$name', '$value', true)",
		"ALTER ROLE regress_sky_app SET $name = '$value'", "ALTER ROLE CURRENT_USER IN DATABASE regress_sky_db SET $name = '$value'",
		"ALTER DATABASE regress_sky_db SET $name = '$value'", "ALTER SYSTEM SET $name = '$value'",
		"CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SET $name = '$value' AS 'SELECT 1'",
		"DO \$\$ BEGIN SET LOCAL $name = '$value'; END \$\$", "UPDATE pg_settings SET setting = '$value' WHERE name = '$name' AND context = '$context{$name}'")
	{
		my $session = Sky::Session->new($node, user => 'regress_sky_app');
		my $answer = $session->query($sql);
		if ($sql =~ /^UPDATE/ && $answer !~ /^ERROR/)
		{
			is($session->query(q(SELECT count(*) FROM pg_settings WHERE name = $1), $name), 0, "$name is not even seen");
		}
		else
		{
			like($answer, qr/^ERROR (?:42501|55P02): /, $sql);
		}
	}
	like(Sky::Session->new($node, user => 'regress_sky_app', options => "-c $name=$value")->failed, qr/^FATAL (?:42501|55P02): /, "PGOPTIONS -c $name");
	like(Sky::Session->new($node, user => 'regress_sky_app', startup => { $name => $value })->failed, qr/^FATAL (?:42501|55P02): /, "startup packet, $name");
	my $root = Sky::Session->new($node);
	my $answer = $root->query("SET $name = '$value'");
	$context{$name} eq 'sighup'
	  ? like($answer, qr/^ERROR 55P02/, "$name: not even by a superuser in a session")
	  : is($answer, '', "$name: by a superuser");
}

done_testing();
