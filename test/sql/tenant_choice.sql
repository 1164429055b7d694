-- tenant_choice.sql: in which tenant a user is authenticated.
\getenv abs_srcdir PG_ABS_SRCDIR
\set sign :abs_srcdir '/lib/sign.sql'
\i :sign
\set VERBOSITY terse
\pset null (null)
SELECT current_user AS super \gset
\set acme   00000000-0000-4000-8000-00000000000a
\set globex 00000000-0000-4000-8000-00000000000b
\set ghost  00000000-0000-4000-8000-0000000000ff
CREATE ROLE regress_sky_app LOGIN;
-- alice is in acme, erin in both tenants, nobody in none; frank's membership of
-- acme is switched off, grace is in a tenant that is suspended and in globex,
-- heidi in that tenant alone, ivan is switched off himself
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    globex uuid := scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
    closed uuid := scrapersky.create_tenant('Closed', 'closed', '00000000-0000-4000-8000-00000000000c');
    who record;
    tenant uuid;
BEGIN
    FOR who IN SELECT tenants, scrapersky.create_user(subject) AS id
               FROM (VALUES ('alice', ARRAY[acme]), ('erin', ARRAY[acme, globex]), ('nobody', '{}'), ('frank', ARRAY[acme]),
                     ('grace', ARRAY[closed, globex]), ('heidi', ARRAY[closed]), ('ivan', ARRAY[acme])) v (subject, tenants) LOOP
        FOREACH tenant IN ARRAY who.tenants LOOP
            PERFORM scrapersky.add_member(tenant, who.id);
        END LOOP;
    END LOOP;
    UPDATE scrapersky.tenants SET status = 'suspended' WHERE id = closed;
    UPDATE scrapersky.memberships m SET status = 'inactive' FROM scrapersky.users u WHERE u.id = m.user_id AND u.subject = 'frank';
    UPDATE scrapersky.users SET status = 'inactive' WHERE subject = 'ivan';
END
$$;
-- the tenant, or the error, for a token of this subject with these other claims
CREATE FUNCTION test.tenant(subject text, claims jsonb DEFAULT '{}', tenant uuid DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM scrapersky.authenticate(test.sign(claims || jsonb_build_object('sub', subject, 'exp', 4102444800)), tenant => tenant);
    SELECT coalesce(tenant_name, 'no tenant') INTO result FROM scrapersky.whoami();
    PERFORM scrapersky.clear_identity();
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
-- Changes of the configuration reach new connections after a moment.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA test;
RESET client_min_messages;
CREATE FUNCTION test.reload(name text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    self text := format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
        current_setting('port'), current_database(), current_user);
    result text;
BEGIN
    PERFORM pg_reload_conf();
    FOR attempt IN 1..200 LOOP
        SELECT r.value INTO result FROM test.dblink(self, format('SELECT current_setting(%L)', name)) AS r (value text);
        EXIT WHEN result = value;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN result;
END
$$;
ALTER SYSTEM SET scrapersky.environment = 'test';
SELECT test.reload('scrapersky.environment', 'test');
\c - regress_sky_app

-- Nothing is said -----------------------------------------------------------------
-- the only tenant; of several, none; of none, none
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,nobody}'::text[]) subject;
-- a membership that is switched off is none; a tenant that is suspended does not count
SELECT subject, test.tenant(subject) FROM unnest('{frank,grace,heidi}'::text[]) subject;
-- a user that is switched off, one that is unknown, one in other letters or with wildcards
SELECT subject, test.tenant(subject) FROM unnest(ARRAY['ivan', 'mallory', 'Alice', 'alice ', '%', 'alic_', $$alice' OR 'a' = 'a$$]) subject;

-- The claim says it -----------------------------------------------------------------
SELECT test.tenant('alice', jsonb_build_object('tenant_id', :'acme'));
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'acme'));
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'globex'));
-- letters of a uuid may be of either case
SELECT test.tenant('erin', jsonb_build_object('tenant_id', upper(:'globex')));
-- of a tenant that the user is no active member of, that is suspended, or that is not there
SELECT test.tenant('alice', jsonb_build_object('tenant_id', :'globex'));
SELECT test.tenant('frank', jsonb_build_object('tenant_id', :'acme'));
SELECT test.tenant('grace', '{"tenant_id": "00000000-0000-4000-8000-00000000000c"}');
SELECT test.tenant('heidi', '{"tenant_id": "00000000-0000-4000-8000-00000000000c"}');
SELECT test.tenant('alice', jsonb_build_object('tenant_id', :'ghost'));
SELECT test.tenant('alice', '{"tenant_id": "00000000-0000-0000-0000-000000000000"}');
-- null, empty, or no uuid as it should be written
SELECT claims, test.tenant('alice', claims) FROM (VALUES
    ('{"tenant_id": null}'::jsonb), ('{"tenant_id": ""}'), ('{"tenant_id": " "}'), ('{"tenant_id": "acme"}'), ('{"tenant_id": "null"}'),
    ('{"tenant_id": 10}'), ('{"tenant_id": true}'), ('{"tenant_id": []}'), ('{"tenant_id": ["00000000-0000-4000-8000-00000000000a"]}'),
    ('{"tenant_id": {"id": "00000000-0000-4000-8000-00000000000a"}}'),
    ('{"tenant_id": "{00000000-0000-4000-8000-00000000000a}"}'), ('{"tenant_id": "00000000000040008000000000000000a"}'),
    ('{"tenant_id": "0000000000004000800000000000000a"}'), ('{"tenant_id": "0000-0000-0000-4000-8000-0000-0000-000a"}'),
    ('{"tenant_id": "00000000-0000-4000-8000-00000000000a "}'), ('{"tenant_id": " 00000000-0000-4000-8000-00000000000a"}'),
    ('{"tenant_id": "00000000-0000-4000-8000-00000000000g"}'), ('{"tenant_id": "00000000-0000-4000-8000-00000000000"}'),
    ('{"tenant_id": "00000000-0000-4000-8000-0000000000\u0660a"}'), ('{"tenant_id": "+0000000-0000-4000-8000-00000000000a"}')) v (claims);
-- another claim is not it
SELECT test.tenant('alice', jsonb_build_object('Tenant_id', :'globex', 'tenant', :'globex', 'tenantId', :'globex'));

-- The argument says it ----------------------------------------------------------------
SELECT test.tenant('alice', tenant => :'acme');
SELECT test.tenant('erin', tenant => :'acme');
SELECT test.tenant('erin', tenant => :'globex');
-- not for a tenant that is not the user's: it does not fall back to the only one
SELECT test.tenant('alice', tenant => :'globex');
SELECT test.tenant('alice', tenant => :'ghost');
SELECT test.tenant('nobody', tenant => :'acme');
SELECT test.tenant('frank', tenant => :'acme');
SELECT test.tenant('heidi', tenant => '00000000-0000-4000-8000-00000000000c');

-- Both do -----------------------------------------------------------------------------
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'globex'), :'globex');
-- they must agree: a token is never widened
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'globex'), :'acme');
SELECT test.tenant('erin', '{"tenant_id": null}', :'acme');
SELECT test.tenant('erin', '{"tenant_id": ""}', :'acme');

-- The default, where nothing else is ------------------------------------------------------
\c - :super
ALTER SYSTEM SET scrapersky.default_tenant_id = '00000000-0000-4000-8000-00000000000b';
SELECT test.reload('scrapersky.default_tenant_id', :'globex');
\c - regress_sky_app
-- for whom it is one of several; it makes nobody a member
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,nobody,frank,grace,heidi,ivan}'::text[]) subject;
-- claim and argument come first
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'acme'));
SELECT test.tenant('erin', tenant => :'acme');
SELECT test.tenant('erin', '{"tenant_id": null}');
-- nobody may change it
SET scrapersky.default_tenant_id = '00000000-0000-4000-8000-00000000000a';
\echo :SQLSTATE
SET scrapersky.environment = 'test';
\echo :SQLSTATE
-- not in production, where users must have a tenant of their own
\c - :super
ALTER SYSTEM SET scrapersky.environment = 'production';
SELECT test.reload('scrapersky.environment', 'production');
\c - regress_sky_app
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,nobody}'::text[]) subject;
SELECT test.tenant('erin', tenant => :'acme');
SELECT test.tenant('erin', jsonb_build_object('tenant_id', :'globex'));
-- other environments
\c - :super
ALTER SYSTEM SET scrapersky.environment = 'staging';
SELECT test.reload('scrapersky.environment', 'staging');
\c - regress_sky_app
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,nobody}'::text[]) subject;
-- a default that is suspended, or no tenant at all
\c - :super
ALTER SYSTEM SET scrapersky.default_tenant_id = '00000000-0000-4000-8000-00000000000c';
SELECT test.reload('scrapersky.default_tenant_id', '00000000-0000-4000-8000-00000000000c');
\c - regress_sky_app
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,grace,heidi}'::text[]) subject;
-- in production without a default
\c - :super
ALTER SYSTEM SET scrapersky.environment = 'production';
ALTER SYSTEM RESET scrapersky.default_tenant_id;
SELECT test.reload('scrapersky.environment', 'production');
\c - regress_sky_app
SELECT subject, test.tenant(subject) FROM unnest('{alice,erin,nobody}'::text[]) subject;
\c - :super
ALTER SYSTEM SET scrapersky.default_tenant_id = 'acme';
\echo :SQLSTATE
ALTER SYSTEM RESET scrapersky.environment;
SELECT test.reload('scrapersky.default_tenant_id', '');

DROP FUNCTION test.tenant, test.reload;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DROP ROLE regress_sky_app;
