-- forging.sql: ways to an identity, or to rows, that do not lead through a token;
-- tried by a role without attributes, over its own connection.
\set ECHO none
SET client_min_messages = warning;
\ir ../lib/sign.sql
SET client_min_messages = warning;
SELECT current_user AS super \gset
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA test;
CREATE ROLE regress_sky_owner LOGIN;
CREATE ROLE regress_sky_app LOGIN;
-- reads all settings; logs in by another role than it works as; may do as the owner
CREATE ROLE regress_sky_monitor LOGIN IN ROLE pg_monitor, pg_read_all_settings;
CREATE ROLE regress_sky_login LOGIN NOINHERIT IN ROLE regress_sky_app;
CREATE ROLE regress_sky_deputy LOGIN NOINHERIT IN ROLE regress_sky_owner;
CREATE SCHEMA regress_sky AUTHORIZATION regress_sky_owner;
GRANT USAGE ON SCHEMA regress_sky TO PUBLIC;
CREATE SCHEMA regress_sky_own AUTHORIZATION regress_sky_app;
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    globex uuid := scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
BEGIN
    PERFORM scrapersky.add_member(acme, scrapersky.create_user('alice', id => '00000000-0000-4000-8000-0000000000a1'));
    PERFORM scrapersky.add_member(globex, scrapersky.create_user('carol', id => '00000000-0000-4000-8000-0000000000b1'));
    PERFORM scrapersky.create_permission('pages:read');
END
$$;
SET ROLE regress_sky_owner;
CREATE TABLE regress_sky.pages (id int PRIMARY KEY, tenant_id uuid, title text);
INSERT INTO regress_sky.pages VALUES (1, '00000000-0000-4000-8000-00000000000a', 'acme 1'), (2, '00000000-0000-4000-8000-00000000000a', 'acme 2'),
    (11, '00000000-0000-4000-8000-00000000000b', 'globex 1');
SELECT FROM scrapersky.protect('regress_sky.pages');
GRANT ALL ON regress_sky.pages TO regress_sky_app;
SELECT FROM scrapersky.protect('regress_sky.pages');
CREATE FUNCTION regress_sky.set_it(value text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN set_config('scrapersky.identity', value, true);
RESET ROLE;

-- What the first row of a statement says, or the error, over a new connection of that role.
CREATE FUNCTION test.connect(role name, options text, statement text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    result text;
BEGIN
    SELECT r.value INTO result FROM test.dblink(format('host=%s port=%s dbname=%s user=%s options=''%s''', split_part(current_setting('unix_socket_directories'), ',', 1),
        current_setting('port'), current_database(), role, replace(replace(options, '\', '\\'), '''', '\''')), statement) AS r (value text);
    RETURN result;
EXCEPTION
    WHEN sqlclient_unable_to_establish_sqlconnection THEN
        RETURN 'no connection';
    WHEN OTHERS THEN
        RETURN SQLSTATE;
END
$$;
-- The same by a superuser's function.
CREATE FUNCTION test.super_set(value text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN set_config('scrapersky.identity', value, true);
-- A real identity, as who may read all settings reads it.
CREATE TABLE test.genuine AS SELECT test.connect('regress_sky_monitor', '', $$
    SELECT concat(scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}')), current_setting('scrapersky.identity'))$$) AS value;
GRANT SELECT ON test.genuine TO PUBLIC;
-- What is set for roles and databases is refused when it is set, even to superusers.
CREATE TABLE test.refusals (statement text, error text);
GRANT SELECT ON test.refusals TO PUBLIC;
DO $$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY['ALTER ROLE regress_sky_app SET scrapersky.identity = %L', 'ALTER ROLE ALL SET scrapersky.identity = %L',
        'ALTER ROLE regress_sky_app IN DATABASE postgres SET scrapersky.identity = %L', 'ALTER DATABASE postgres SET scrapersky.identity = %L',
        'SET scrapersky.identity = %L', 'SET SESSION scrapersky.identity = %L', 'SET LOCAL scrapersky.identity = %L', 'SELECT set_config(''scrapersky.identity'', %L, true)'] LOOP
        BEGIN
            EXECUTE format(statement, (SELECT value FROM test.genuine));
            INSERT INTO test.refusals VALUES (statement, 'none');
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO test.refusals VALUES (statement, SQLSTATE);
        END;
    END LOOP;
END
$$;
INSERT INTO test.refusals SELECT 'ALTER SYSTEM', test.connect(current_user, '', format('ALTER SYSTEM SET scrapersky.identity = %L', value)) FROM test.genuine;
GRANT SET ON PARAMETER scrapersky.identity TO regress_sky_app;

\c - regress_sky_app
SET client_min_messages = warning;
SELECT * FROM no_plan();
SELECT matches(value, 'carol', 'there is a real identity to forge with') FROM test.genuine;
CREATE FUNCTION pg_temp.forged() RETURNS text LANGUAGE sql STABLE RETURN (SELECT value FROM test.genuine);
CREATE FUNCTION pg_temp.nobody() RETURNS boolean LANGUAGE sql RETURN NOT scrapersky.is_authenticated() AND (SELECT subject IS NULL FROM scrapersky.whoami());
SELECT is(error, CASE statement WHEN 'ALTER SYSTEM' THEN '55P02' ELSE '42501' END, 'refused to a superuser: ' || statement) FROM test.refusals;

-- The setting ---------------------------------------------------------------------------
SELECT throws_ok(format(statement, pg_temp.forged()), '42501', NULL, format(statement, '...')) FROM unnest(ARRAY[
    'SET scrapersky.identity = %L', 'SET SESSION scrapersky.identity = %L', 'SET LOCAL scrapersky.identity = %L', 'SET scrapersky.identity TO %L', 'SET ScraperSky.IDENTITY = %L',
    'SET "scrapersky.identity" = %L', 'SELECT set_config(''scrapersky.identity'', %L, true)', 'SELECT set_config(''scrapersky.identity'', %L, false)', 'SELECT set_config(''SCRAPERSKY.Identity'', %L, false)',
    'DO $do$ BEGIN SET LOCAL scrapersky.identity = %L; END $do$', 'DO $do$ BEGIN PERFORM set_config(''scrapersky.identity'', %L, true); END $do$',
    'SELECT regress_sky.set_it(%L)', 'SELECT test.super_set(%L)',
    'ALTER ROLE CURRENT_USER SET scrapersky.identity = %L', 'ALTER ROLE CURRENT_USER IN DATABASE postgres SET scrapersky.identity = %L',
    'ALTER ROLE regress_sky_owner SET scrapersky.identity = %L', 'ALTER ROLE ALL SET scrapersky.identity = %L', 'ALTER DATABASE postgres SET scrapersky.identity = %L',
    'CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql SET scrapersky.identity = %L AS ''SELECT scrapersky.current_subject()''',
    'CREATE FUNCTION pg_temp.g() RETURNS int LANGUAGE sql AS ''SELECT 1''; ALTER FUNCTION pg_temp.g() SET scrapersky.identity = %L',
    'CREATE PROCEDURE pg_temp.p() LANGUAGE sql SET scrapersky.identity = %L AS ''SELECT 1''']) statement;
SELECT ok(pg_temp.nobody(), 'still nobody');
-- whatever the value
SELECT throws_ok(format('SET scrapersky.identity = %L', value), '42501', NULL, 'SET to ' || left(value, 40)) FROM unnest(ARRAY[
    '1', '0', 'x', ' ', 'carol', '{"sub":"carol"}', '1I0:', '00000000-0000-4000-8000-00000000000b', repeat('x', 1000000), E'\x01', '1U36:00000000-0000-4000-8000-0000000000b1']) value;
-- a value that is taken from the session cannot be read
BEGIN;
SELECT FROM scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT throws_ok(statement, '42501', NULL, statement) FROM unnest(ARRAY['SHOW scrapersky.identity', $$SELECT current_setting('scrapersky.identity')$$, $$SELECT current_setting('scrapersky.identity', true)$$,
    'SET scrapersky.identity FROM CURRENT', 'CREATE FUNCTION pg_temp.h() RETURNS int LANGUAGE sql SET scrapersky.identity FROM CURRENT AS ''SELECT 1''', 'ALTER ROLE CURRENT_USER SET scrapersky.identity FROM CURRENT']) statement;
SELECT is_empty($$SELECT * FROM pg_settings WHERE name = 'scrapersky.identity'$$, 'nor is it in pg_settings');
SELECT is_empty($$SELECT * FROM pg_show_all_settings() s WHERE s::text LIKE '%alice%'$$, 'under any name');
SELECT lives_ok($$UPDATE pg_settings SET setting = (SELECT value FROM test.genuine) WHERE name = 'scrapersky.identity'$$, 'an update of pg_settings');
SELECT is(scrapersky.current_subject(), 'alice', 'does nothing');
-- the holder may drop it, and then it is gone
SAVEPOINT s;
SELECT lives_ok('RESET scrapersky.identity', 'RESET');
SELECT ok(pg_temp.nobody(), 'is nobody');
ROLLBACK TO s;
SELECT lives_ok('SET scrapersky.identity = DEFAULT', 'SET TO DEFAULT');
SELECT ok(pg_temp.nobody(), 'is nobody');
ROLLBACK TO s;
SELECT lives_ok('SET LOCAL scrapersky.identity = ''''', 'SET TO the empty string');
SELECT ok(pg_temp.nobody(), 'is nobody');
ROLLBACK TO s;
SELECT is(scrapersky.current_subject(), 'alice', 'and back with the savepoint');
-- somebody else's does not become it either, while there is one
SELECT throws_ok(format('SET LOCAL scrapersky.identity = %L', pg_temp.forged()), '42501', NULL, 'SET over an identity');
SELECT is(scrapersky.current_subject(), 'alice', 'nothing changed');
COMMIT;
-- after a token that was refused the door is shut, too
SELECT throws_ok($$SELECT scrapersky.authenticate('a.b.c')$$, '28000', 'authentication failed', 'a bad token');
SELECT throws_ok(format('SET scrapersky.identity = %L', pg_temp.forged()), '42501', NULL, 'SET after a bad token');
-- and after an identity was refused because of a cursor
BEGIN;
SELECT FROM scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
DECLARE c CURSOR FOR SELECT 1;
SELECT throws_ok($$SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'))$$, '55006', NULL, 'a change with a cursor open');
SELECT throws_ok(format('SET LOCAL scrapersky.identity = %L', pg_temp.forged()), '42501', NULL, 'SET after that');
COMMIT;
-- other settings of ours are not invented; those of PostgREST say nothing
SELECT throws_ok(format('SET scrapersky.%s = %L', name, '00000000-0000-4000-8000-00000000000b'), '42602', NULL, 'SET scrapersky.' || name) FROM unnest('{tenant_id,user_id,role,identity2,identity.tenant}'::text[]) name;
SELECT lives_ok($$SELECT set_config('request.jwt.claims', '{"sub":"carol","exp":4102444800,"tenant_id":"00000000-0000-4000-8000-00000000000b"}', false), set_config('request.jwt.claim.sub', 'carol', false)$$, 'settings of PostgREST');
SELECT ok(pg_temp.nobody(), 'are no identity');
SELECT throws_ok('SELECT scrapersky.pre_request()', '42501', NULL, 'nor does pre_request() make one of them');

-- What is set before the session begins --------------------------------------------------
SELECT is(test.connect('regress_sky_app', '', 'SELECT scrapersky.is_authenticated()::text'), 'false', 'a new connection is nobody');
SELECT is(test.connect('regress_sky_app', '-c scrapersky.missing_identity=empty', 'SELECT current_setting(''scrapersky.missing_identity'')'), 'no connection', 'PGOPTIONS with a setting for superusers');
SELECT is(test.connect('regress_sky_app', '-c scrapersky.jwt_leeway=300', 'SELECT current_setting(''scrapersky.jwt_leeway'')'), 'no connection', 'PGOPTIONS with one of the configuration');
SELECT is(test.connect('regress_sky_app', '-c application_name=' || regexp_replace(left(pg_temp.forged(), 60), '([\\ ])', '\\\1', 'g'), 'SELECT current_setting(''application_name'')'), left(pg_temp.forged(), 60), 'PGOPTIONS with a setting for all');
SELECT is(test.connect('regress_sky_app', option || regexp_replace(pg_temp.forged(), '([\\ ])', '\\\1', 'g'), 'SELECT scrapersky.is_authenticated()::text'), 'no connection', 'PGOPTIONS with ' || option)
FROM unnest('{-c scrapersky.identity=,--scrapersky.identity=,-cscrapersky.identity=,-c ScraperSky.Identity=}'::text[]) option;
SELECT is(test.connect('regress_sky_app', '-c scrapersky.tenant_id=00000000-0000-4000-8000-00000000000b', 'SELECT scrapersky.is_authenticated()::text'), 'no connection', 'PGOPTIONS with an invented one');
SELECT is(test.connect('regress_sky_app', '', 'ALTER SYSTEM SET scrapersky.identity = ''x'''), '42501', 'ALTER SYSTEM');
SELECT is(test.connect('regress_sky_app', '-c session_preload_libraries=scrapersky', 'SELECT 1::text'), 'no connection', 'PGOPTIONS with session_preload_libraries');

-- Somebody who reads all settings reads his own identity, and no more ------------------------
SELECT is(test.connect('regress_sky_monitor', '', 'SELECT current_setting(''scrapersky.identity'')'), '', 'a new session of it has none');
SELECT is(test.connect('regress_sky_monitor', '', format('SELECT set_config(''scrapersky.identity'', %L, false)', pg_temp.forged())), '42501', 'what it read it cannot set');
SELECT is(test.connect('regress_sky_monitor', '', 'SELECT setting FROM pg_settings WHERE name = ''scrapersky.identity'''), NULL, 'pg_settings does not have it');
SELECT is(test.connect('regress_sky_monitor', '', 'SELECT pg_read_file(current_setting(''scrapersky.jwt_secret_file''))'), '42501', 'where the secret is it may know, but not what');

-- Roles ----------------------------------------------------------------------------------------
BEGIN;
SELECT FROM scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT bag_eq('SELECT id FROM regress_sky.pages', 'VALUES (1), (2)', 'alice sees acme''s pages');
SELECT throws_ok(statement, '42501', NULL, statement) FROM unnest(ARRAY['SET ROLE regress_sky_owner', 'SET ROLE regress_sky_monitor', 'SET SESSION AUTHORIZATION regress_sky_owner',
    format('SET ROLE %I', (SELECT rolname FROM pg_roles WHERE oid = 10)), format('SET SESSION AUTHORIZATION %I', (SELECT rolname FROM pg_roles WHERE oid = 10)), 'SET LOCAL ROLE pg_read_all_data',
    'ALTER ROLE CURRENT_USER BYPASSRLS', 'ALTER ROLE CURRENT_USER SUPERUSER', 'GRANT regress_sky_owner TO regress_sky_app', 'REASSIGN OWNED BY regress_sky_owner TO CURRENT_USER',
    'ALTER TABLE regress_sky.pages OWNER TO CURRENT_USER', 'ALTER TABLE regress_sky.pages DISABLE ROW LEVEL SECURITY', 'ALTER TABLE regress_sky.pages NO FORCE ROW LEVEL SECURITY',
    'DROP POLICY scrapersky_floor ON regress_sky.pages', 'ALTER POLICY scrapersky_floor ON regress_sky.pages USING (true)', 'CREATE POLICY mine ON regress_sky.pages USING (true)',
    'ALTER TABLE regress_sky.pages DISABLE TRIGGER ALL', 'SET session_replication_role = replica', 'TRUNCATE regress_sky.pages', 'LOCK TABLE regress_sky.pages IN ACCESS EXCLUSIVE MODE; TRUNCATE regress_sky.pages',
    'SELECT scrapersky.unprotect(''regress_sky.pages'')', 'SELECT scrapersky.protect(''regress_sky.pages'')', 'CREATE INDEX ON regress_sky.pages (title)',
    'CREATE TRIGGER spy BEFORE UPDATE ON regress_sky.pages FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'CREATE RULE spy AS ON INSERT TO regress_sky.pages DO NOTHING',
    'ALTER EXTENSION scrapersky DROP FUNCTION scrapersky.current_tenant_id()', 'DROP EXTENSION scrapersky', 'DROP EXTENSION scrapersky CASCADE', 'DROP SCHEMA scrapersky CASCADE',
    'CREATE OR REPLACE FUNCTION scrapersky.current_tenant_id() RETURNS uuid LANGUAGE sql AS ''SELECT null::uuid''', 'DROP FUNCTION scrapersky.has_permission(text) CASCADE', 'ALTER FUNCTION scrapersky.authenticate COST 1',
    'COPY (SELECT 1) TO PROGRAM ''cat''', 'COPY test.genuine FROM ''/etc/passwd''', 'SELECT pg_read_file(''postgresql.conf'')', 'SELECT lo_import(''/etc/passwd'')', 'SELECT pg_reload_conf()',
    'CREATE PUBLICATION everything FOR ALL TABLES', 'SELECT pg_create_logical_replication_slot(''x'', ''test_decoding'')', 'CREATE STATISTICS s ON id, title FROM regress_sky.pages',
    'SET row_security = off; SELECT * FROM regress_sky.pages']) statement;
SELECT bag_eq('SELECT id FROM regress_sky.pages', 'VALUES (1), (2)', 'after all of that, the same');
SELECT lives_ok('RESET ROLE; SET SESSION AUTHORIZATION DEFAULT; SET ROLE NONE', 'back to the role that logged in');
SELECT bag_eq('SELECT id FROM regress_sky.pages', 'VALUES (1), (2)', 'the same');
COMMIT;
-- a role that logs in by another name, as PostgREST does
SELECT is(test.connect('regress_sky_login', '', statement), result, statement) FROM (VALUES
    ('SELECT count(*) FROM regress_sky.pages', '42501'),
    ($$WITH a AS MATERIALIZED (SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'))) SELECT count(*) FROM a$$, '1'),
    ($$BEGIN; SET LOCAL ROLE regress_sky_app; SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}')); RESET ROLE; SELECT count(*) FROM regress_sky.pages$$, '42501'),
    ($$BEGIN; SET LOCAL ROLE regress_sky_app; SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}')); SET ROLE regress_sky_owner$$, '42501')) v (statement, result);
-- one that may become the owner becomes nobody else's tenant by it
SELECT is(test.connect('regress_sky_deputy', '', format($$SELECT concat(set_config('role', 'regress_sky_owner', false), %s)$$, question)), answer, question) FROM (VALUES
    ($$(SELECT count(*) FROM regress_sky.pages)$$, '42501'),
    ($$scrapersky.is_authenticated()$$, 'regress_sky_ownerf')) v (question, answer);
SELECT is(test.connect('regress_sky_deputy', '-c role=regress_sky_owner', $$WITH a AS MATERIALIZED (SELECT current_user::text AS who) SELECT who FROM a$$), 'regress_sky_owner', 'a deputy of the owner');
SELECT is(test.connect('regress_sky_deputy', '-c role=regress_sky_owner', $$SELECT query_to_xml($q$SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'))$q$, true, false, '')::text || (SELECT query_to_xml('SELECT count(*) AS n FROM regress_sky.pages', true, true, '')::text)$$) ~ '<n>2</n>',
    true, 'sees the rows of the tenant of its token');

-- A parallel worker, which is handed its leader's settings ------------------------------------------
CREATE FUNCTION regress_sky_own.in_worker(value text) RETURNS text LANGUAGE sql PARALLEL SAFE AS $$SELECT set_config('scrapersky.identity', value, false)$$;
CREATE FUNCTION regress_sky_own.worker() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$SELECT (SELECT leader_pid FROM pg_stat_activity WHERE pid = pg_backend_pid()) IS NOT NULL$$;
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'on', false) AS set \g /dev/null
CREATE FUNCTION pg_temp.fetched(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE query INTO result;
    RETURN result;
END
$$;
SELECT is(pg_temp.fetched('SELECT regress_sky_own.worker()'), 'true', 'there is a worker');
SELECT throws_ok(format('SELECT regress_sky_own.in_worker(%L)', pg_temp.forged()), '25000', NULL, 'it cannot set anything');
SELECT is(pg_temp.fetched('SELECT scrapersky.is_authenticated()'), 'false', 'it is nobody, as its leader');
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'off', false) AS set \g /dev/null

-- Names of one's own ----------------------------------------------------------------------------
CREATE FUNCTION regress_sky_own.always(uuid, uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR regress_sky_own.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = regress_sky_own.always);
CREATE FUNCTION regress_sky_own.always(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR regress_sky_own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_sky_own.always);
CREATE FUNCTION regress_sky_own.current_tenant_id() RETURNS uuid LANGUAGE sql AS $$SELECT '00000000-0000-4000-8000-00000000000b'::uuid$$;
CREATE FUNCTION regress_sky_own.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;
CREATE DOMAIN regress_sky_own.uuid AS text;
CREATE TABLE regress_sky_own.users AS SELECT '00000000-0000-4000-8000-0000000000b1'::pg_catalog.uuid AS id, null::text AS email, ''::text AS issuer, 'mallory'::text AS subject, 'active'::text AS status;
CREATE TABLE regress_sky_own.tenants AS SELECT '00000000-0000-4000-8000-00000000000b'::pg_catalog.uuid AS id;
CREATE TABLE regress_sky_own.notes (id int);
CREATE FUNCTION pg_temp.has_permission(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
-- names of one's own, first in search_path; pg_catalog last
CREATE FUNCTION pg_temp.planted(query text) RETURNS text LANGUAGE plpgsql SET search_path = regress_sky_own, pg_temp, public, pg_catalog AS $$
DECLARE
    result text;
BEGIN
    EXECUTE query INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT is(pg_temp.planted($$SELECT '00000000-0000-4000-8000-00000000000a'::pg_catalog.uuid = '00000000-0000-4000-8000-00000000000b'::pg_catalog.uuid$$), 'true', 'the names are used');
SELECT is(pg_temp.planted($$SELECT scrapersky.authenticate(test.sign('{"sub": "mallory", "exp": 4102444800}'))$$), '28000', 'they make no users');
BEGIN;
SELECT is(pg_temp.planted($$SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'))$$), '', 'alice under these names');
SELECT is(pg_temp.planted(query), result, query) FROM (VALUES
    ('SELECT scrapersky.current_tenant_id()', '00000000-0000-4000-8000-00000000000a'),
    ($$SELECT string_agg(id::text, ' ' ORDER BY id) FROM regress_sky.pages$$, '1 2'),
    ($$SELECT string_agg(id::text, ' ' ORDER BY id) FROM regress_sky.pages WHERE tenant_id = '00000000-0000-4000-8000-00000000000b'::pg_catalog.uuid$$, '1 2'),
    ($$INSERT INTO regress_sky.pages (id, tenant_id) VALUES (3, '00000000-0000-4000-8000-00000000000b') RETURNING id$$, '42501'),
    ($$UPDATE regress_sky.pages SET tenant_id = '00000000-0000-4000-8000-00000000000b' RETURNING id$$, '42501'),
    ($$SELECT scrapersky.has_permission('pages:read')$$, 'false'), ($$SELECT scrapersky.require_permission('pages:read')$$, '42501'), ($$SELECT scrapersky.has_role('USER')$$, 'false'),
    ($$SELECT scrapersky.protect('regress_sky_own.notes')$$, ''),
    ($$SELECT confrelid::regclass FROM pg_constraint WHERE conrelid OPERATOR(pg_catalog.=) 'regress_sky_own.notes'::regclass AND contype OPERATOR(pg_catalog.=) 'f'$$, 'scrapersky.tenants'),
    ('INSERT INTO regress_sky_own.notes VALUES (1) RETURNING tenant_id', '00000000-0000-4000-8000-00000000000a')) v (query, result);
SELECT is(pg_get_expr(polqual, polrelid), '(tenant_id = scrapersky.current_tenant_id())', 'a table protected under these names asks as any other')
FROM pg_policy WHERE polrelid = 'regress_sky_own.notes'::regclass AND polname = 'scrapersky_floor';
COMMIT;
-- a role's permissions are read from the roles' tables, and those of others are not read
SELECT ok(NOT has_table_privilege('scrapersky.user_roles', 'INSERT'), 'nobody gives himself a role');

SELECT * FROM finish();
\c - :super
SET client_min_messages = warning;
REVOKE SET ON PARAMETER scrapersky.identity FROM regress_sky_app;
DROP SCHEMA regress_sky, regress_sky_own, test CASCADE;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
DROP ROLE regress_sky_login, regress_sky_deputy, regress_sky_monitor, regress_sky_app, regress_sky_owner;
