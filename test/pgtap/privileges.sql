-- privileges.sql: what each object of the extension is, and who may use it; asked
-- by a role without attributes, over its own connection.
\set ECHO none
SET client_min_messages = warning;
SELECT current_user AS super \gset
CREATE ROLE regress_sky_app LOGIN NOINHERIT;
CREATE ROLE regress_sky_granted NOLOGIN;
GRANT regress_sky_granted TO regress_sky_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA scrapersky TO regress_sky_granted;
-- rows that the application would see if anything let it
BEGIN;
SELECT FROM scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
SELECT FROM scrapersky.create_user('alice', id => '00000000-0000-4000-8000-0000000000a1');
COMMIT;

\c - regress_sky_app
SELECT * FROM no_plan();

-- Functions: the whole list --------------------------------------------------------
CREATE TEMP TABLE expected (name, volatility, parallel, strict, public) AS VALUES
    -- identity and questions
    ('scrapersky.authenticate(text,boolean,uuid)', 'v', 'u', false, true),
    ('scrapersky.claim(text[])', 's', 's', false, true),
    ('scrapersky.clear_identity()', 'v', 'u', false, true),
    ('scrapersky.current_permissions()', 's', 's', false, true),
    ('scrapersky.current_roles()', 's', 's', false, true),
    ('scrapersky.current_subject()', 's', 's', false, true),
    ('scrapersky.current_tenant_id()', 's', 's', false, true),
    ('scrapersky.current_user_id()', 's', 's', false, true),
    ('scrapersky.has_permission(text)', 's', 's', false, true),
    ('scrapersky.has_role(text)', 's', 's', false, true),
    ('scrapersky.is_authenticated()', 's', 's', false, true),
    ('scrapersky.permission_support(internal)', 'i', 's', true, false),
    ('scrapersky.require_permission(text)', 's', 's', false, true),
    ('scrapersky.whoami()', 's', 's', false, true),
    -- protected tables
    ('scrapersky.protect(regclass,name,text,text,text,uuid,boolean)', 'v', 'u', false, true),
    ('scrapersky.protection(regclass)', 's', 's', true, true),
    ('scrapersky.tenant_immutable()', 'v', 'u', false, true),
    ('scrapersky.unprotect(regclass)', 'v', 'u', true, true),
    -- the extension
    ('scrapersky.guard_drop()', 'v', 'u', false, false),
    ('scrapersky.library_version()', 's', 's', true, true),
    -- administration
    ('scrapersky.add_member(uuid,uuid)', 'v', 'u', false, false),
    ('scrapersky.assign_role(uuid,text,uuid)', 'v', 'u', false, false),
    ('scrapersky.create_permission(text,text)', 'v', 'u', false, false),
    ('scrapersky.create_role(text,uuid,text)', 'v', 'u', false, false),
    ('scrapersky.create_tenant(text,text,uuid)', 'v', 'u', false, false),
    ('scrapersky.create_user(text,text,text,uuid)', 'v', 'u', false, false),
    ('scrapersky.find_permission(text)', 's', 's', false, false),
    ('scrapersky.find_role(text,uuid)', 's', 's', false, false),
    ('scrapersky.get_roles(uuid)', 's', 's', false, false),
    ('scrapersky.grant_permission(text,text,uuid)', 'v', 'u', false, false),
    ('scrapersky.rbac_changed()', 'v', 'u', false, false),
    ('scrapersky.refresh_grants()', 'v', 'u', false, false),
    ('scrapersky.revoke_permission(text,text,uuid)', 'v', 'u', false, false),
    ('scrapersky.role_name_taken(text,uuid)', 'v', 'u', false, false),
    ('scrapersky.setup_api(name,name,name,text)', 'v', 'u', false, false),
    ('scrapersky.sign_token(jsonb,interval)', 'v', 'u', true, false),
    ('scrapersky.unassign_role(uuid,text,uuid)', 'v', 'u', false, false),
    -- HTTP
    ('scrapersky.pre_request()', 'v', 'u', false, false),
    ('scrapersky_api.has_permission(text)', 's', 's', false, false),
    ('scrapersky_api.health_database()', 's', 's', false, false),
    ('scrapersky_api.my_tenants()', 's', 's', false, false),
    ('scrapersky_api.whoami()', 's', 's', false, false);
CREATE TEMP VIEW actual AS
SELECT p.oid::regprocedure::text AS name, p.*
FROM pg_proc p WHERE pronamespace IN ('scrapersky'::regnamespace, 'scrapersky_api'::regnamespace);

SELECT set_eq('SELECT name FROM actual', 'SELECT name FROM expected', 'there are these functions and no others');
SELECT set_eq('SELECT name, provolatile::text FROM actual', 'SELECT name, volatility FROM expected', 'volatility');
SELECT set_eq('SELECT name, proparallel::text FROM actual', 'SELECT name, parallel FROM expected', 'parallel safety');
SELECT set_eq('SELECT name, proisstrict FROM actual', 'SELECT name, strict FROM expected', 'strictness');
SELECT set_eq($$SELECT name, EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0) FROM actual$$,
    'SELECT name, public FROM expected', 'EXECUTE to PUBLIC');
SELECT set_eq($$SELECT name, has_function_privilege(oid, 'EXECUTE') FROM actual$$,
    'SELECT name, public FROM expected', 'a role without attributes may call just these');
SELECT is_empty($$SELECT name FROM actual, aclexplode(proacl) a WHERE a.grantee NOT IN (0, proowner, 'regress_sky_granted'::regrole)$$, 'no role has privileges on a function by itself');
SELECT is_empty('SELECT name FROM actual WHERE proleakproof', 'none is LEAKPROOF');
SELECT set_eq($$SELECT name, proconfig FROM actual WHERE prosecdef$$, $$VALUES ('scrapersky_api.my_tenants()', '{"search_path=pg_catalog, pg_temp"}'::text[])$$,
    'one is SECURITY DEFINER, with its search_path pinned');
SELECT is_empty($$SELECT name FROM actual JOIN pg_language l ON l.oid = prolang WHERE lanname <> 'c' AND prosqlbody IS NULL
    AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)$$, 'what is parsed at run time has its search_path pinned');
SELECT is_empty($$SELECT name FROM actual JOIN pg_language l ON l.oid = prolang WHERE lanname = 'sql' AND prosqlbody IS NULL$$,
    'SQL functions are parsed when they are created');
SELECT is_empty($$SELECT name FROM actual WHERE obj_description(oid, 'pg_proc') IS NULL$$, 'each function has a comment');
SELECT set_eq($$SELECT name FROM actual WHERE prosupport <> 0$$,
    ARRAY['scrapersky.has_role(text)', 'scrapersky.has_permission(text)', 'scrapersky.require_permission(text)'], 'the permission tests tell the planner about themselves');
SELECT is_empty($$SELECT name FROM actual WHERE provolatile = 'i' AND name NOT LIKE '%support%'$$, 'no question is IMMUTABLE');

-- Signatures that policies use are for ever
SELECT function_returns('scrapersky', f, args, result, f || ' returns ' || result) FROM (VALUES
    ('current_tenant_id', '{}'::name[], 'uuid'), ('has_permission', '{text}', 'boolean'), ('has_role', '{text}', 'boolean'),
    ('require_permission', '{text}', 'boolean'), ('claim', '{text[]}', 'text'), ('current_user_id', '{}', 'uuid'),
    ('current_subject', '{}', 'text'), ('current_roles', '{}', 'text[]'), ('current_permissions', '{}', 'text[]'),
    ('is_authenticated', '{}', 'boolean')) v (f, args, result);
SELECT is(provariadic, 'text'::regtype::oid, 'claim() is variadic') FROM pg_proc WHERE oid = 'scrapersky.claim'::regproc;

-- Called all the same --------------------------------------------------------------
SELECT throws_ok('SELECT ' || call, '42501', 'permission denied for function ' || substring(call FROM '\.(\w+)\('), call) FROM unnest(ARRAY[
    $$scrapersky.add_member(NULL, NULL)$$,
    $$scrapersky.assign_role(NULL, 'SUPER_ADMIN', NULL)$$,
    $$scrapersky.create_permission('a:b')$$,
    $$scrapersky.create_role('X')$$,
    $$scrapersky.create_tenant('X')$$,
    $$scrapersky.create_user('x')$$,
    $$scrapersky.find_permission('users:read')$$,
    $$scrapersky.find_role('USER', NULL)$$,
    $$scrapersky.get_roles(NULL)$$,
    $$scrapersky.grant_permission('USER', 'users:manage')$$,
    $$scrapersky.refresh_grants()$$,
    $$scrapersky.revoke_permission('USER', 'users:read')$$,
    $$scrapersky.role_name_taken('USER', NULL)$$,
    $$scrapersky.setup_api()$$,
    $$scrapersky.sign_token('{"sub": "alice"}')$$,
    $$scrapersky.unassign_role(NULL, 'USER')$$,
    $$scrapersky.pre_request()$$]) call;
-- trigger functions, through a trigger and directly
CREATE TEMP TABLE mine (id uuid);
SELECT throws_ok('CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION scrapersky.rbac_changed()', '42501', NULL, 'no trigger announces what did not change');
SELECT throws_ok('SELECT scrapersky.rbac_changed()', '42501', NULL, 'rbac_changed() is for triggers');
SELECT throws_ok('SELECT scrapersky.tenant_immutable()', '39P01', NULL, 'tenant_immutable() is for triggers');
SELECT throws_ok('SELECT scrapersky.guard_drop()', '42501', NULL, 'guard_drop() is for event triggers');
-- those that make secrets or roles ask for more than EXECUTE
SELECT throws_ok('SET LOCAL ROLE regress_sky_granted; SELECT ' || call, '42501', message, call || ', though it is granted') FROM (VALUES
    ($$scrapersky.sign_token('{"sub": "alice"}')$$, 'only a superuser can sign tokens'),
    ($$scrapersky.setup_api('regress_sky_a', 'regress_sky_b', 'regress_sky_c')$$, 'only a superuser can set up roles and grants'),
    ($$scrapersky.refresh_grants()$$, 'only a superuser can set up roles and grants')) v (call, message);
-- the others do no more than their caller could
SELECT throws_ok('SET LOCAL ROLE regress_sky_granted; SELECT ' || call, '42501', NULL, call || ', though it is granted') FROM unnest(ARRAY[
    $$scrapersky.create_tenant('X')$$, $$scrapersky.create_user('x')$$, $$scrapersky.create_role('X')$$,
    $$scrapersky.add_member('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-0000000000a1')$$,
    $$scrapersky.assign_role('00000000-0000-4000-8000-0000000000a1', 'GLOBAL_ADMIN')$$,
    $$scrapersky.grant_permission('USER', 'users:manage')$$, $$scrapersky.get_roles()$$]) call;
-- the library's symbols are not to be had by another name
SELECT throws_ok($$CREATE FUNCTION pg_temp.sign(jsonb, interval) RETURNS text LANGUAGE c AS 'scrapersky', 'scrapersky_sign_token'$$, '42501', NULL, 'no C functions of one''s own');
SELECT throws_ok($$CREATE FUNCTION pg_temp.sign(jsonb, interval) RETURNS text LANGUAGE internal AS 'scrapersky_sign_token'$$, '42501', NULL, 'nor internal ones');
SELECT throws_ok($$LOAD 'scrapersky'$$, '42501', NULL, 'no LOAD');

-- Schemas -----------------------------------------------------------------------------
SELECT set_eq($$SELECT nspname::text, p FROM pg_namespace, unnest('{USAGE,CREATE}'::text[]) p WHERE nspname LIKE 'scrapersky%' AND has_schema_privilege(oid, p)$$,
    $$VALUES ('scrapersky', 'USAGE')$$, 'USAGE of one schema, CREATE in none');
SELECT isnt(obj_description(oid, 'pg_namespace'), NULL, 'a comment on schema ' || nspname) FROM pg_namespace WHERE nspname LIKE 'scrapersky%';
SELECT throws_ok('SELECT * FROM scrapersky_api.whoami()', '42501', 'permission denied for schema scrapersky_api', 'scrapersky_api is for the roles of setup_api()');

-- Tables ------------------------------------------------------------------------------
CREATE TEMP VIEW tables AS
SELECT c.oid::regclass::text AS name, c.* FROM pg_class c
WHERE relnamespace IN ('scrapersky'::regnamespace, 'scrapersky_api'::regnamespace) AND relkind NOT IN ('i', 'I');
SELECT set_eq($$SELECT name, relkind::text FROM tables$$, $$VALUES
    ('scrapersky.settings', 'r'), ('scrapersky.tenants', 'r'), ('scrapersky.users', 'r'), ('scrapersky.memberships', 'r'), ('scrapersky.permissions', 'r'),
    ('scrapersky.roles', 'r'), ('scrapersky.role_permissions', 'r'), ('scrapersky.user_roles', 'r'), ('scrapersky.protected_tables', 'v'),
    ('scrapersky_api.tenants', 'v'), ('scrapersky_api.users', 'v'), ('scrapersky_api.roles', 'v'), ('scrapersky_api.permissions', 'v'),
    ('scrapersky_api.role_permissions', 'v'), ('scrapersky_api.user_roles', 'v'), ('scrapersky_api.memberships', 'v')$$,
    'there are these tables and views and no others');
SELECT ok(relrowsecurity, 'row security of ' || name) FROM tables WHERE relkind = 'r';
SELECT is_empty($$SELECT name, a.* FROM tables, aclexplode(relacl) a WHERE a.grantee <> relowner AND name <> 'scrapersky.protected_tables'$$, 'no grants on any of them');
SELECT is_empty('SELECT attrelid::regclass, attname FROM pg_attribute WHERE attrelid IN (SELECT oid FROM tables) AND attacl IS NOT NULL', 'nor on a column');
SELECT set_eq($$SELECT name, p FROM tables, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p WHERE has_table_privilege(oid, p)$$,
    $$VALUES ('scrapersky.protected_tables', 'SELECT')$$, 'a role without attributes reads one view');
SELECT lives_ok('SELECT * FROM scrapersky.protected_tables', 'and that it reads');
SELECT is_empty($$SELECT name FROM tables WHERE relnamespace = 'scrapersky_api'::regnamespace AND NOT coalesce(reloptions::text ~ 'security_invoker=(true|on)', false)$$,
    'the views of scrapersky_api are of their reader');
SELECT is_empty($$SELECT polrelid::regclass, polname FROM pg_policy WHERE polrelid IN (SELECT oid FROM tables) AND (polcmd <> 'r' OR polwithcheck IS NOT NULL)$$, 'policies let nobody write');
SELECT is_empty($$SELECT name FROM tables WHERE obj_description(oid, 'pg_class') IS NULL$$, 'each table and view has a comment');
SELECT is_empty($$SELECT name, attname FROM tables JOIN pg_attribute ON attrelid = oid WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped
    AND attname NOT IN ('id', 'created_at', 'updated_at', 'description', 'tenant_id', 'user_id', 'role_id', 'permission_id', 'name', 'value')
    AND col_description(oid, attnum) IS NULL$$, 'each column that does not speak for itself has a comment');
-- read without privileges: the error says nothing about what is in there
SELECT throws_ok('TABLE ' || name, '42501', NULL, 'TABLE ' || name) FROM tables WHERE relkind = 'r';
SELECT throws_ok(format('SELECT count(*) FROM %s WHERE false', name), '42501', NULL, 'nothing of ' || name) FROM tables WHERE relkind = 'r';
SELECT throws_ok('DELETE FROM ' || name, '42501', NULL, 'DELETE FROM ' || name) FROM tables WHERE relkind = 'r';
SELECT throws_ok('TRUNCATE ' || name, '42501', NULL, 'TRUNCATE ' || name) FROM tables WHERE relkind = 'r';
SELECT throws_ok($$INSERT INTO scrapersky.tenants (name, slug) VALUES ('X', 'x')$$, '42501', NULL, 'INSERT INTO scrapersky.tenants');
SELECT throws_ok($$CREATE TRIGGER spy BEFORE INSERT ON scrapersky.users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()$$, '42501', NULL, 'no triggers on our tables');
SELECT throws_ok($$ALTER TABLE scrapersky.users DISABLE ROW LEVEL SECURITY$$, '42501', NULL, 'nor another row security');
SELECT throws_ok($$CREATE POLICY mine ON scrapersky.users USING (true)$$, '42501', NULL, 'nor policies');
SELECT throws_ok($$LOCK TABLE scrapersky.roles IN ACCESS SHARE MODE$$, '42501', NULL, 'nor locks');
SELECT throws_ok($$CREATE TABLE scrapersky.mine ()$$, '42501', NULL, 'nor tables beside them');
-- what the statistics of the server tell of them
SELECT is_empty($$SELECT * FROM pg_stats WHERE schemaname LIKE 'scrapersky%'$$, 'no statistics of their contents');

-- Announcements: on every table, however rows come and go ----------------------------------
SELECT set_eq($$SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'rbac_changed' AND tgenabled = 'A' AND tgtype = (1 | 4 | 8 | 16)$$,
    $$SELECT name FROM tables WHERE relkind = 'r'$$, 'each table announces its rows, ENABLE ALWAYS, FOR EACH ROW');
SELECT set_eq($$SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'rbac_truncated' AND tgenabled = 'A' AND tgtype = 32$$,
    $$SELECT name FROM tables WHERE relkind = 'r'$$, 'and TRUNCATE');

-- Dumps -------------------------------------------------------------------------------------
SELECT set_eq($$SELECT c::regclass::text, w FROM pg_extension, unnest(extconfig, extcondition) u (c, w) WHERE extname = 'scrapersky'$$, $$VALUES
    ('scrapersky.settings', ''), ('scrapersky.tenants', ''), ('scrapersky.users', ''), ('scrapersky.memberships', ''), ('scrapersky.user_roles', ''),
    ('scrapersky.permissions', 'WHERE NOT builtin'), ('scrapersky.roles', 'WHERE NOT builtin'), ('scrapersky.role_permissions', 'WHERE NOT builtin')$$,
    'every table is dumped, but for its built-in rows');
SELECT is_empty($$SELECT name FROM tables WHERE NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = tables.oid AND d.deptype = 'e' AND e.extname = 'scrapersky')$$, 'all of them are the extension''s');
-- deleting a tenant or a user is no scan
SELECT is_empty($$SELECT conrelid::regclass, conname FROM pg_constraint c JOIN tables t ON t.oid = c.conrelid WHERE contype = 'f' AND NOT EXISTS
    (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND indpred IS NULL
     AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)$$, 'each foreign key has an index');

-- Settings ------------------------------------------------------------------------------------
SELECT set_eq($$SELECT name, context FROM pg_settings WHERE name LIKE 'scrapersky.%'$$, $$VALUES
    ('scrapersky.jwt_audience', 'sighup'), ('scrapersky.jwt_issuer', 'sighup'), ('scrapersky.jwt_leeway', 'sighup'),
    ('scrapersky.default_tenant_id', 'sighup'), ('scrapersky.environment', 'sighup'), ('scrapersky.missing_identity', 'superuser'),
    ('scrapersky.rbac_cache_size', 'superuser'), ('scrapersky.allow_session_identity', 'superuser'), ('scrapersky.allow_drop', 'superuser')$$,
    'the settings that everybody sees, and who sets them');
SELECT throws_ok('SHOW ' || name, '42501', NULL, 'SHOW ' || name) FROM unnest('{scrapersky.jwt_secret_file,scrapersky.identity}'::text[]) name;
SELECT throws_ok(format('SELECT current_setting(%L, true)', name), '42501', NULL, 'current_setting of ' || name) FROM unnest('{scrapersky.jwt_secret_file,scrapersky.identity}'::text[]) name;
SELECT throws_ok(format('SET %s = %L', name, value), state, NULL, 'SET ' || name) FROM (VALUES
    ('scrapersky.jwt_secret_file', '/etc/passwd', '55P02'), ('scrapersky.jwt_audience', 'x', '55P02'), ('scrapersky.jwt_issuer', 'x', '55P02'),
    ('scrapersky.jwt_leeway', '300', '55P02'), ('scrapersky.default_tenant_id', '00000000-0000-4000-8000-00000000000a', '55P02'),
    ('scrapersky.environment', 'test', '55P02'), ('scrapersky.missing_identity', 'empty', '42501'), ('scrapersky.rbac_cache_size', '64', '42501'),
    ('scrapersky.allow_session_identity', 'on', '42501'), ('scrapersky.allow_drop', 'on', '42501'), ('scrapersky.invented', '1', '42602')) v (name, value, state);
SELECT throws_ok(format('ALTER ROLE CURRENT_USER SET %s = %L', name, value), state, NULL, 'ALTER ROLE SET ' || name) FROM (VALUES
    ('scrapersky.jwt_leeway', '300', '55P02'), ('scrapersky.missing_identity', 'empty', '42501'),
    ('scrapersky.allow_session_identity', 'on', '42501'), ('scrapersky.invented', '1', '42602')) v (name, value, state);

SELECT * FROM finish();
\c - :super
SET client_min_messages = warning;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DROP OWNED BY regress_sky_granted, regress_sky_app;
DROP ROLE regress_sky_granted, regress_sky_app;
