-- api.sql: setup_api() and refresh_grants(), and what the roles of the HTTP
-- interface then see, over a connection of the one that may log in.
\getenv abs_srcdir PG_ABS_SRCDIR
\set sign :abs_srcdir '/lib/sign.sql'
\i :sign
\set VERBOSITY terse
\pset null (null)
SELECT current_user AS super \gset
SET client_min_messages = warning;
\set setup 'SELECT scrapersky.setup_api(\'regress_sky_authenticator\', \'regress_sky_anon\', \'regress_sky_user\')'
\set acme   00000000-0000-4000-8000-00000000000a
\set globex 00000000-0000-4000-8000-00000000000b

-- Before --------------------------------------------------------------------------
-- there is nothing to refresh
SELECT scrapersky.refresh_grants();
\echo :SQLSTATE
-- not for everybody, though execution be granted
CREATE ROLE regress_sky_app LOGIN CREATEROLE;
\c - regress_sky_app
:setup;
\echo :SQLSTATE
SELECT scrapersky.refresh_grants();
\echo :SQLSTATE
\c - :super
GRANT EXECUTE ON FUNCTION scrapersky.setup_api(name, name, name, text), scrapersky.refresh_grants() TO regress_sky_app;
\c - regress_sky_app
:setup;
\echo :SQLSTATE
SELECT scrapersky.refresh_grants();
\echo :SQLSTATE
\c - :super
DROP OWNED BY regress_sky_app;
-- three different names
SELECT scrapersky.setup_api('regress_sky_x', 'regress_sky_x', 'regress_sky_y');
\echo :SQLSTATE
SELECT scrapersky.setup_api('regress_sky_x', 'regress_sky_y', 'regress_sky_x');
\echo :SQLSTATE
SELECT scrapersky.setup_api(NULL, 'regress_sky_y', 'regress_sky_x');
\echo :SQLSTATE
-- roles that row security does not hold for, themselves or as members
CREATE ROLE regress_sky_bypass BYPASSRLS;
CREATE ROLE regress_sky_member IN ROLE regress_sky_bypass;
CREATE ROLE regress_sky_indirect NOINHERIT IN ROLE regress_sky_member;
CREATE ROLE regress_sky_super SUPERUSER;
SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_bypass');
\echo :SQLSTATE
SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_indirect', 'regress_sky_user');
\echo :SQLSTATE
SELECT scrapersky.setup_api('regress_sky_super', 'regress_sky_anon', 'regress_sky_user');
\echo :SQLSTATE
-- or that have other ways around it: the files of the server, replication, roles to give to themselves
DO $$
DECLARE
    options text;
BEGIN
    FOREACH options IN ARRAY '{IN ROLE pg_execute_server_program,IN ROLE pg_read_server_files,IN ROLE pg_write_server_files,REPLICATION,CREATEROLE}'::text[] LOOP
        EXECUTE 'CREATE ROLE regress_sky_way ' || options;
        BEGIN
            PERFORM scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_way');
            RAISE INFO '%: taken', options;
            RAISE EXCEPTION USING ERRCODE = 'ZZ999';
        EXCEPTION
            WHEN SQLSTATE 'ZZ999' THEN NULL;
            WHEN OTHERS THEN RAISE INFO '%: %', options, SQLSTATE;
        END;
        DROP ROLE regress_sky_way;
    END LOOP;
END
$$;
-- nothing of it was done
SELECT rolname FROM pg_roles WHERE rolname IN ('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_user', 'regress_sky_x', 'regress_sky_y');
SELECT name, value FROM scrapersky.settings;
DROP ROLE regress_sky_indirect, regress_sky_member, regress_sky_bypass, regress_sky_super, regress_sky_app;

-- The roles ---------------------------------------------------------------------------
-- one that is there already is put right
CREATE ROLE regress_sky_user LOGIN;
SELECT has_database_privilege('regress_sky_user', current_database(), 'TEMP') AS temporary;
:setup;
SELECT rolname, rolcanlogin, rolinherit, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication
FROM pg_roles WHERE rolname LIKE 'regress\_sky\_%' ORDER BY 1;
SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members WHERE member::regrole::text LIKE 'regress\_sky\_%' ORDER BY 1, 2;
SELECT name, value FROM scrapersky.settings ORDER BY 1;
-- tokens that PostgREST sends as parameters stay out of the log
SELECT setrole::regrole, unnest(setconfig) FROM pg_db_role_setting WHERE setrole::regrole::text LIKE 'regress\_sky\_%' ORDER BY 2;
-- no password but one that was given, and that not as it was given
SELECT rolpassword IS NULL AS none FROM pg_authid WHERE rolname = 'regress_sky_authenticator';
SELECT test.tell_secret(translate(gen_random_uuid()::text, '-', '')) AS password \gset
SELECT set_config('test.password', :'password', false) IS NULL \g /dev/null
SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_anon', 'regress_sky_user', current_setting('test.password'));
SELECT rolname, rolpassword LIKE 'SCRAM-SHA-256$%' AS hashed, rolpassword ~ :'password' AS plain FROM pg_authid WHERE rolname LIKE 'regress\_sky\_%' AND rolpassword IS NOT NULL;
-- it stays as it is without another
SELECT rolpassword AS before FROM pg_authid WHERE rolname = 'regress_sky_authenticator' \gset
:setup;
SELECT rolpassword = :'before' AS same FROM pg_authid WHERE rolname = 'regress_sky_authenticator';

-- Who may do what -----------------------------------------------------------------------
CREATE VIEW test.privileges AS
SELECT r.rolname, p.proname || '()' AS what, 'EXECUTE' AS privilege
FROM pg_roles r, pg_proc p
WHERE p.pronamespace IN ('scrapersky'::regnamespace, 'scrapersky_api'::regnamespace) AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0)
UNION ALL
SELECT r.rolname, c.oid::regclass::text, a
FROM pg_roles r, pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) a
WHERE c.relnamespace IN ('scrapersky'::regnamespace, 'scrapersky_api'::regnamespace) AND c.relkind IN ('r', 'v') AND has_table_privilege(r.oid, c.oid, a)
AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantee = 0)
UNION ALL
SELECT r.rolname, nspname, a FROM pg_roles r, pg_namespace n, unnest('{USAGE,CREATE}'::text[]) a
WHERE nspname LIKE 'scrapersky%' AND has_schema_privilege(r.oid, n.oid, a)
UNION ALL
SELECT r.rolname, 'database', 'TEMPORARY' FROM pg_roles r WHERE has_database_privilege(r.oid, current_database(), 'TEMPORARY');
SELECT what, privilege, string_agg(rolname, ' ' ORDER BY rolname) AS roles
FROM test.privileges WHERE rolname LIKE 'regress\_sky\_%' GROUP BY 1, 2 ORDER BY 1, 2;
-- a second call changes nothing
CREATE TABLE test.before AS TABLE test.privileges;
:setup;
TABLE test.before EXCEPT TABLE test.privileges;
TABLE test.privileges EXCEPT TABLE test.before;
SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'regress\_sky\_%';
-- refresh_grants() grants again what got lost
REVOKE ALL ON ALL TABLES IN SCHEMA scrapersky_api FROM regress_sky_user;
REVOKE ALL ON scrapersky.tenants, scrapersky.users FROM regress_sky_user;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA scrapersky_api FROM regress_sky_user, regress_sky_anon;
REVOKE ALL ON FUNCTION scrapersky.pre_request() FROM regress_sky_user, regress_sky_anon;
REVOKE USAGE ON SCHEMA scrapersky_api FROM regress_sky_user, regress_sky_anon;
REVOKE regress_sky_user FROM regress_sky_authenticator;
GRANT TEMPORARY ON DATABASE :"DBNAME" TO PUBLIC;
SELECT scrapersky.refresh_grants();
TABLE test.before EXCEPT TABLE test.privileges;
TABLE test.privileges EXCEPT TABLE test.before;
SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'regress\_sky\_%';

-- What they see ---------------------------------------------------------------------------
-- alice is ADMIN of acme, bob USER, dave has no role; carol is in globex, erin in both
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    globex uuid := scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
    who record;
BEGIN
    PERFORM scrapersky.create_permission('pages:read');
    PERFORM scrapersky.create_role('Acme_editor', acme);
    PERFORM scrapersky.create_role('Globex_editor', globex);
    PERFORM scrapersky.grant_permission('Acme_editor', 'pages:read', acme);
    PERFORM scrapersky.grant_permission('Globex_editor', 'pages:read', globex);
    FOR who IN SELECT tenant, role, scrapersky.create_user(subject, subject || '@example.com') AS id
               FROM (VALUES ('alice', acme, 'ADMIN'), ('bob', acme, 'USER'), ('dave', acme, NULL), ('carol', globex, 'Globex_editor')) v (subject, tenant, role) LOOP
        PERFORM scrapersky.add_member(who.tenant, who.id);
        IF who.role IS NOT NULL THEN
            PERFORM scrapersky.assign_role(who.id, who.role, who.tenant);
        END IF;
    END LOOP;
    PERFORM scrapersky.create_user('erin', id => '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.add_member(acme, '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.add_member(globex, '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.assign_role('00000000-0000-4000-8000-0000000000c1', 'Acme_editor', acme);
    PERFORM scrapersky.assign_role('00000000-0000-4000-8000-0000000000c1', 'Globex_editor', globex);
    PERFORM scrapersky.create_user('nobody');
END
$$;
-- what is visible, in one line a view
CREATE FUNCTION test.visible() RETURNS TABLE (view text, "rows" text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT 'tenants', string_agg(slug, ' ' ORDER BY slug) FROM scrapersky_api.tenants;
    RETURN QUERY SELECT 'users', string_agg(subject, ' ' ORDER BY subject) FROM scrapersky_api.users;
    RETURN QUERY SELECT 'memberships', string_agg(left(tenant_id::text, 8) || right(tenant_id::text, 1) || '/' || status, ' ' ORDER BY tenant_id, status) FROM scrapersky_api.memberships;
    RETURN QUERY SELECT 'roles', string_agg(name, ' ' ORDER BY tenant_id NULLS FIRST, name) FROM scrapersky_api.roles;
    RETURN QUERY SELECT 'permissions', count(*)::text FROM scrapersky_api.permissions;
    RETURN QUERY SELECT 'role_permissions', string_agg(DISTINCT r.name, ' ') FROM scrapersky_api.role_permissions rp LEFT JOIN scrapersky_api.roles r ON r.id = rp.role_id;
    RETURN QUERY SELECT 'user_roles', string_agg(coalesce(u.subject, '?') || '=' || coalesce(r.name, '?'), ' ' ORDER BY u.subject, r.name)
        FROM scrapersky_api.user_roles ur LEFT JOIN scrapersky_api.users u ON u.id = ur.user_id LEFT JOIN scrapersky_api.roles r ON r.id = ur.role_id;
END
$$;

\c - regress_sky_authenticator
-- PostgREST's login role has nothing of its own
SELECT * FROM scrapersky_api.whoami();
\echo :SQLSTATE
SELECT * FROM scrapersky_api.tenants;
\echo :SQLSTATE
SELECT scrapersky.pre_request();
\echo :SQLSTATE
CREATE TEMP TABLE mine ();
\echo :SQLSTATE
-- a request without a token
BEGIN;
SET LOCAL ROLE regress_sky_anon;
SELECT * FROM scrapersky_api.whoami();
SELECT scrapersky_api.health_database();
SAVEPOINT s;
SELECT scrapersky_api.has_permission('users:read');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM scrapersky_api.my_tenants();
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM scrapersky_api.tenants;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM scrapersky.users;
\echo :SQLSTATE
ROLLBACK TO s;
CREATE TEMP TABLE mine ();
\echo :SQLSTATE
ROLLBACK;
-- the role of tokens, but none
BEGIN;
SET LOCAL ROLE regress_sky_user;
SAVEPOINT s;
SELECT * FROM scrapersky_api.tenants;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM scrapersky_api.permissions;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM scrapersky.settings;
\echo :SQLSTATE
ROLLBACK;
-- alice sees her tenant's users, and her tenant alone
BEGIN;
SET LOCAL ROLE regress_sky_user;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT * FROM test.visible();
SELECT subject, email, status, membership FROM scrapersky_api.users ORDER BY 1;
SELECT tenant_id, tenant_name, roles FROM scrapersky_api.whoami();
SELECT scrapersky_api.has_permission('users:manage'), scrapersky_api.has_permission('tenants:manage'), scrapersky_api.has_permission(NULL);
-- she changes nothing here
SAVEPOINT s;
UPDATE scrapersky_api.tenants SET name = 'Mine';
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO scrapersky_api.user_roles (user_id) SELECT user_id FROM scrapersky_api.whoami();
\echo :SQLSTATE
ROLLBACK TO s;
DELETE FROM scrapersky_api.users;
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE scrapersky.users SET email = 'x';
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.assign_role(user_id, 'SUPER_ADMIN', tenant_id) FROM scrapersky_api.whoami();
\echo :SQLSTATE
ROLLBACK;
-- bob may see users; dave, without a role, just himself
BEGIN;
SET LOCAL ROLE regress_sky_user;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SELECT * FROM test.visible();
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SELECT * FROM test.visible();
COMMIT;
-- carol, and erin in one tenant, then in the other
BEGIN;
SET LOCAL ROLE regress_sky_user;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT * FROM test.visible();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'acme');
SELECT * FROM test.visible();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'globex');
SELECT * FROM test.visible();
-- which tenants she has, whichever she is in
SELECT slug FROM scrapersky_api.my_tenants();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'));
SELECT id, name, slug FROM scrapersky_api.my_tenants();
-- an identity without a tenant sees no tenant's
SELECT scrapersky.authenticate(test.sign('{"sub": "nobody", "exp": 4102444800}'));
SELECT count(*) FROM scrapersky_api.permissions;
SELECT * FROM scrapersky_api.my_tenants();
SELECT * FROM scrapersky_api.users;
\echo :SQLSTATE
ROLLBACK;

-- nor is a tenant hers that is suspended, or where her membership is switched off
\c - :super
UPDATE scrapersky.tenants SET status = 'suspended' WHERE slug = 'globex';
\c - regress_sky_authenticator
BEGIN;
SET LOCAL ROLE regress_sky_user;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'));
SELECT slug FROM scrapersky_api.my_tenants();
COMMIT;
\c - :super
UPDATE scrapersky.tenants SET status = 'active' WHERE slug = 'globex';
UPDATE scrapersky.memberships SET status = 'inactive' WHERE tenant_id = :'acme' AND user_id = '00000000-0000-4000-8000-0000000000c1';
\c - regress_sky_authenticator
BEGIN;
SET LOCAL ROLE regress_sky_user;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'));
SELECT slug FROM scrapersky_api.my_tenants();
COMMIT;

-- Other names: the settings say so; the old roles keep what they had ------------------------
\c - :super
SET client_min_messages = warning;
SELECT scrapersky.setup_api('regress_sky_authenticator', 'regress_sky_other', 'regress_sky_user');
SELECT name, value FROM scrapersky.settings ORDER BY 1;
SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members WHERE member::regrole::text LIKE 'regress\_sky\_%' ORDER BY 1, 2;
-- a role that is gone
DROP OWNED BY regress_sky_other;
DROP ROLE regress_sky_other;
SELECT scrapersky.refresh_grants();
\echo :SQLSTATE

DROP VIEW test.privileges;
DROP TABLE test.before;
DROP FUNCTION test.visible;
DELETE FROM scrapersky.settings;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
GRANT TEMPORARY ON DATABASE :"DBNAME" TO PUBLIC;
DROP OWNED BY regress_sky_authenticator, regress_sky_anon, regress_sky_user;
DROP ROLE regress_sky_authenticator, regress_sky_anon, regress_sky_user;
