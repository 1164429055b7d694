# The library is preloaded for every database of the server. Where the extension is
# not installed, what merely has our names means nothing to it.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sky;
use Sky::Session;
use Test::More;

my $node = Sky::new_node('main');
$node->safe_psql('postgres', $_)
  for 'CREATE ROLE regress_sky_stranger LOGIN', 'CREATE DATABASE elsewhere OWNER regress_sky_stranger';
my $stranger = Sky::Session->new($node, dbname => 'elsewhere', user => 'regress_sky_stranger');

note 'policies of our names, with functions of our names, that take no text';
$stranger->must($_) for 'CREATE SCHEMA scrapersky',
  'CREATE TABLE public.rows (tenant_id int)',
  'ALTER TABLE public.rows ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
  'CREATE POLICY scrapersky_floor ON public.rows USING (tenant_id = 1)',
  'INSERT INTO public.rows VALUES (1)';
for my $type ('int8', 'uuid', 'text', 'point')
{
	my %value = (int8 => '4096', uuid => '00000000-0000-4000-8000-000000000001', text => 'x:y', point => '(1,2)');
	for my $name ('has_permission', 'require_permission')
	{
		$stranger->must("CREATE FUNCTION scrapersky.$name($type) RETURNS boolean LANGUAGE sql STABLE RETURN true");
		$stranger->must('DROP POLICY IF EXISTS scrapersky_select ON public.rows');
		$stranger->must("CREATE POLICY scrapersky_select ON public.rows FOR SELECT USING (scrapersky.$name('$value{$type}'::$type))");
		is($stranger->query('SELECT count(*) FROM public.rows'), 1, "$name($type) is what its owner says");
	}
}

note 'a table of our name';
$stranger->must('CREATE TABLE scrapersky.tenants (id int)');
$stranger->must('INSERT INTO scrapersky.tenants VALUES (1)');
is($stranger->query('DROP TABLE scrapersky.tenants'), '', 'its owner may drop it');

is($node->safe_psql('postgres', 'SELECT 1'), 1, 'the server is up');
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'and never was down');
done_testing();
