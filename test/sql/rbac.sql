-- rbac.sql: tenants, users, roles and permissions, by the functions that set
-- them up, and what becomes of it when a user is authenticated.
\getenv abs_srcdir PG_ABS_SRCDIR
\set sign :abs_srcdir '/lib/sign.sql'
\i :sign
\set VERBOSITY terse
\pset null (null)
SELECT current_user AS super \gset
CREATE ROLE regress_sky_app LOGIN;
\set acme   00000000-0000-4000-8000-00000000000a
\set globex 00000000-0000-4000-8000-00000000000b
\set alice  00000000-0000-4000-8000-0000000000a1
\set carol  00000000-0000-4000-8000-0000000000b1
\set erin   00000000-0000-4000-8000-0000000000c1
\set ghost  00000000-0000-4000-8000-0000000000ff

-- Tenants ---------------------------------------------------------------------
SELECT scrapersky.create_tenant('Acme', 'acme', :'acme');
-- the slug is made of the name
SELECT scrapersky.create_tenant('  Globex & Sons, Ltd.', id => :'globex');
SELECT id, name, slug, status FROM scrapersky.tenants ORDER BY id;
-- without an id there is one all the same
SELECT scrapersky.create_tenant('Initech') <> scrapersky.create_tenant('Hooli') AS different;
-- a slug, or an id, that is taken
SELECT scrapersky.create_tenant('Other', 'acme');
\echo :SQLSTATE
SELECT scrapersky.create_tenant('ACME');
\echo :SQLSTATE
SELECT scrapersky.create_tenant('Other', 'other', :'acme');
\echo :SQLSTATE
-- no slug
SELECT scrapersky.create_tenant('Other', 'Other');
\echo :SQLSTATE
SELECT scrapersky.create_tenant('Other', '-other');
\echo :SQLSTATE
SELECT scrapersky.create_tenant('Other', repeat('x', 64));
\echo :SQLSTATE
SELECT scrapersky.create_tenant('äöü');
\echo :SQLSTATE
-- no name, and no tenant's id
SELECT scrapersky.create_tenant('');
\echo :SQLSTATE
SELECT scrapersky.create_tenant(NULL);
\echo :SQLSTATE
SELECT scrapersky.create_tenant('Nil', 'nil', '00000000-0000-0000-0000-000000000000');
\echo :SQLSTATE
-- a long name still makes a slug
SELECT scrapersky.create_tenant(repeat('x', 62) || ' and so on') IS NOT NULL AS made;
SELECT slug FROM scrapersky.tenants WHERE name LIKE 'xx%';

-- Users -----------------------------------------------------------------------
SELECT scrapersky.create_user('alice', 'alice@acme.example', id => :'alice');
SELECT scrapersky.create_user('carol', id => :'carol');
SELECT scrapersky.create_user('erin', NULL, '', :'erin');
SELECT scrapersky.create_user(repeat('x', 255)) IS NOT NULL AS made;
-- subjects are compared as they are written
SELECT scrapersky.create_user('Alice') IS NOT NULL AS made;
-- taken; another issuer; no subject
SELECT scrapersky.create_user('alice');
\echo :SQLSTATE
SELECT scrapersky.create_user('dave', issuer => 'https://issuer.example');
\echo :SQLSTATE
SELECT scrapersky.create_user('');
\echo :SQLSTATE
SELECT scrapersky.create_user(NULL);
\echo :SQLSTATE
SELECT scrapersky.create_user(repeat('x', 254) || 'ä');
\echo :SQLSTATE

-- Members ---------------------------------------------------------------------
SELECT scrapersky.add_member(:'acme', :'alice');
SELECT scrapersky.add_member(:'globex', :'carol');
SELECT scrapersky.add_member(:'acme', :'erin');
SELECT scrapersky.add_member(:'globex', :'erin');
-- again
SELECT scrapersky.add_member(:'acme', :'alice');
-- one that was switched off is on again
UPDATE scrapersky.memberships SET status = 'inactive' WHERE tenant_id = :'acme' AND user_id = :'erin';
SELECT scrapersky.add_member(:'acme', :'erin');
SELECT tenant_id, user_id, status FROM scrapersky.memberships ORDER BY 1, 2;
-- no such tenant, no such user
SELECT scrapersky.add_member(:'ghost', :'alice');
\echo :SQLSTATE
SELECT scrapersky.add_member(:'acme', :'ghost');
\echo :SQLSTATE

-- Roles -----------------------------------------------------------------------
-- of the system, of a tenant, of the same name in two tenants
SELECT scrapersky.create_role('SUPPORT', description => 'Helps everybody.') IS NOT NULL AS made;
SELECT scrapersky.create_role('Editor', :'acme') IS NOT NULL AS made;
SELECT scrapersky.create_role('Editor', :'globex') IS NOT NULL AS made;
-- taken, in either case of letters
SELECT scrapersky.create_role('Editor', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('EDITOR', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('support');
\echo :SQLSTATE
-- a tenant's role may not look like a system role
SELECT scrapersky.create_role('SUPER_ADMIN', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('Super_Admin', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('Support', :'globex');
\echo :SQLSTATE
-- nor a new system role like a tenant's
SELECT scrapersky.create_role('Editor');
\echo :SQLSTATE
SELECT scrapersky.create_role('eDITOR');
\echo :SQLSTATE
-- nor can it have a name that looks the same, or is none
SELECT scrapersky.create_role('ADMIN ', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('АDMIN', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('ADMİN', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role(E'ADMIN\n', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role(NULL, :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role('1st', :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role(repeat('x', 64), :'acme');
\echo :SQLSTATE
SELECT scrapersky.create_role(repeat('x', 63), :'acme') IS NOT NULL AS made;
-- no such tenant
SELECT scrapersky.create_role('Editor', :'ghost');
\echo :SQLSTATE

-- Permissions -----------------------------------------------------------------
SELECT scrapersky.create_permission('pages:read', 'See pages.') IS NOT NULL AS made;
SELECT scrapersky.create_permission('pages:write') IS NOT NULL AS made;
SELECT scrapersky.create_permission('userspace:read') IS NOT NULL AS made;
-- taken
SELECT scrapersky.create_permission('pages:read');
\echo :SQLSTATE
-- not resource:action
SELECT scrapersky.create_permission('pages');
\echo :SQLSTATE
SELECT scrapersky.create_permission('pages:');
\echo :SQLSTATE
SELECT scrapersky.create_permission('pages:*');
\echo :SQLSTATE
SELECT scrapersky.create_permission('Pages:read');
\echo :SQLSTATE
SELECT scrapersky.create_permission('pages:read:all');
\echo :SQLSTATE
SELECT scrapersky.create_permission(E'pages:read\n');
\echo :SQLSTATE
SELECT scrapersky.create_permission(NULL);
\echo :SQLSTATE
-- a reserved resource, each
DO $$
DECLARE
    resource text;
BEGIN
    FOREACH resource IN ARRAY '{tenants,users,roles,permissions,audit,features,api_keys,issuers,scrapersky}'::text[] LOOP
        BEGIN
            PERFORM scrapersky.create_permission(resource || ':invented');
            RAISE INFO '%: made', resource;
        EXCEPTION WHEN check_violation THEN
            RAISE INFO '%: %', resource, SQLERRM;
        END;
    END LOOP;
END
$$;

-- What roles give -------------------------------------------------------------
SELECT scrapersky.grant_permission('Editor', 'pages:read', :'acme');
SELECT scrapersky.grant_permission('editor', 'pages:write', :'acme');
SELECT scrapersky.grant_permission('SUPPORT', 'pages:read');
-- again; and with a tenant for a role of the system
SELECT scrapersky.grant_permission('Editor', 'pages:read', :'acme');
SELECT scrapersky.grant_permission('SUPPORT', 'pages:read', :'acme');
-- no such role: at all, without its tenant, in another tenant
SELECT scrapersky.grant_permission('Nobody', 'pages:read');
\echo :SQLSTATE
SELECT scrapersky.grant_permission('Editor', 'pages:read');
\echo :SQLSTATE
SELECT scrapersky.grant_permission('Editor', 'pages:read', :'ghost');
\echo :SQLSTATE
SELECT scrapersky.grant_permission(NULL, 'pages:read');
\echo :SQLSTATE
-- no such permission
SELECT scrapersky.grant_permission('Editor', 'pages:burn', :'acme');
\echo :SQLSTATE
SELECT scrapersky.grant_permission('Editor', NULL, :'acme');
\echo :SQLSTATE
-- what the roles of a tenant are: the other's Editor got nothing
SELECT tenant_id, name, description, builtin, permissions FROM scrapersky.get_roles(:'acme') WHERE name NOT LIKE 'xx%';
SELECT name, permissions FROM scrapersky.get_roles(:'globex') WHERE tenant_id IS NOT NULL;
-- without a tenant, those of the system; of no tenant, the same
SELECT name, builtin FROM scrapersky.get_roles();
SELECT count(*) FROM scrapersky.get_roles(:'ghost');
-- taken back, and again
SELECT scrapersky.revoke_permission('Editor', 'pages:write', :'acme');
SELECT scrapersky.revoke_permission('Editor', 'pages:write', :'acme');
SELECT name, permissions FROM scrapersky.get_roles(:'acme') WHERE name = 'Editor';
SELECT scrapersky.revoke_permission('Nobody', 'pages:write', :'acme');
\echo :SQLSTATE
SELECT scrapersky.revoke_permission('Editor', 'pages:burn', :'acme');
\echo :SQLSTATE
-- what a built-in role gives by itself stays
SELECT scrapersky.revoke_permission('ADMIN', 'users:manage');
\echo :SQLSTATE
SELECT scrapersky.revoke_permission('ADMIN', 'users:manage', :'acme');
\echo :SQLSTATE
-- what it was given comes and goes
SELECT scrapersky.grant_permission('USER', 'pages:read');
SELECT name, permissions FROM scrapersky.get_roles() WHERE name = 'USER';
SELECT scrapersky.revoke_permission('USER', 'pages:read');
SELECT name, permissions FROM scrapersky.get_roles() WHERE name = 'USER';

-- Who has which role ----------------------------------------------------------
SELECT scrapersky.assign_role(:'alice', 'Editor', :'acme');
SELECT scrapersky.assign_role(:'alice', 'ADMIN', :'acme');
SELECT scrapersky.assign_role(:'erin', 'USER', :'acme');
SELECT scrapersky.assign_role(:'erin', 'Editor', :'globex');
-- again
SELECT scrapersky.assign_role(:'alice', 'Editor', :'acme');
-- in every tenant
SELECT scrapersky.assign_role(:'erin', 'SUPPORT');
SELECT scrapersky.assign_role(:'erin', 'SUPPORT', NULL);
-- not a member; no such user
SELECT scrapersky.assign_role(:'alice', 'Editor', :'globex');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'alice', 'USER', :'globex');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'ghost', 'USER', :'acme');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'ghost', 'USER');
\echo :SQLSTATE
SELECT scrapersky.assign_role(NULL, 'USER', :'acme');
\echo :SQLSTATE
-- no such role; a tenant's role in every tenant
SELECT scrapersky.assign_role(:'alice', 'Nobody', :'acme');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'alice', 'Editor');
\echo :SQLSTATE
-- GLOBAL_ADMIN is nothing for one tenant
SELECT scrapersky.assign_role(:'erin', 'GLOBAL_ADMIN', :'globex');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'erin', 'global_admin', :'globex');
\echo :SQLSTATE
SELECT u.subject, r.name, t.slug
FROM scrapersky.user_roles ur
JOIN scrapersky.users u ON u.id = ur.user_id
JOIN scrapersky.roles r ON r.id = ur.role_id
LEFT JOIN scrapersky.tenants t ON t.id = ur.tenant_id ORDER BY 1, 2, 3;
-- nor does the table let one tenant's role into another, though named so
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
SELECT :'alice', id, :'acme', tenant_key FROM scrapersky.roles WHERE name = 'Editor' AND tenant_id = :'globex';
\echo :SQLSTATE
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
SELECT :'alice', id, :'acme', :'acme' FROM scrapersky.roles WHERE name = 'Editor' AND tenant_id = :'globex';
\echo :SQLSTATE
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
SELECT :'alice', id, NULL, tenant_key FROM scrapersky.roles WHERE name = 'Editor' AND tenant_id = :'globex';
\echo :SQLSTATE
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
SELECT :'alice', id, NULL, '00000000-0000-0000-0000-000000000000' FROM scrapersky.roles WHERE name = 'Editor' AND tenant_id = :'globex';
\echo :SQLSTATE

-- What becomes of it ----------------------------------------------------------
\c - regress_sky_app
-- in acme alone
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
COMMIT;
-- a member without a role
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
COMMIT;
-- one in each tenant, and everywhere the one for all; without a tenant just that
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'acme');
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'globex');
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'));
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
COMMIT;

-- GLOBAL_ADMIN: in every tenant that the user is a member of, and in no other
\c - :super
SELECT scrapersky.assign_role(:'carol', 'GLOBAL_ADMIN');
\c - regress_sky_app
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT scrapersky.current_tenant_id(), scrapersky.current_roles(), scrapersky.current_permissions();
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'), tenant => :'acme');
\echo :SQLSTATE
ROLLBACK;

-- Taken away ------------------------------------------------------------------
\c - :super
SELECT scrapersky.unassign_role(:'carol', 'GLOBAL_ADMIN');
SELECT scrapersky.unassign_role(:'alice', 'editor', :'acme');
-- again; one that it never had there; one in every tenant is not one in a tenant
SELECT scrapersky.unassign_role(:'alice', 'Editor', :'acme');
SELECT scrapersky.unassign_role(:'alice', 'USER', :'acme');
SELECT scrapersky.unassign_role(:'erin', 'SUPPORT', :'acme');
SELECT scrapersky.unassign_role(:'alice', 'Nobody', :'acme');
\echo :SQLSTATE
\c - regress_sky_app
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_roles();
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT scrapersky.current_roles();
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'acme');
SELECT scrapersky.current_roles();
COMMIT;
-- with a membership go the roles in that tenant, for good
\c - :super
DELETE FROM scrapersky.memberships WHERE tenant_id = :'acme' AND user_id = :'alice';
SELECT scrapersky.add_member(:'acme', :'alice');
\c - regress_sky_app
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_roles();
COMMIT;

-- A role that a superuser forced into the table under a system role's name ------
\c - :super
INSERT INTO scrapersky.roles (id, name, tenant_id) VALUES ('00000000-0000-4000-8000-0000000000d1', 'Super_Admin', :'acme');
INSERT INTO scrapersky.role_permissions (role_id, permission_id)
SELECT '00000000-0000-4000-8000-0000000000d1', id FROM scrapersky.permissions WHERE name = 'pages:write';
INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
VALUES (:'alice', '00000000-0000-4000-8000-0000000000d1', :'acme', :'acme');
\c - regress_sky_app
-- gives nothing
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
COMMIT;
-- and is not found by its name
\c - :super
SELECT (scrapersky.find_role('Super_Admin', :'acme')).tenant_id;
DELETE FROM scrapersky.roles WHERE id = '00000000-0000-4000-8000-0000000000d1';

-- All of this is not for everybody --------------------------------------------
\c - regress_sky_app
SELECT scrapersky.create_tenant('Mine');
\echo :SQLSTATE
SELECT scrapersky.create_user('me');
\echo :SQLSTATE
SELECT scrapersky.add_member(:'globex', :'alice');
\echo :SQLSTATE
SELECT scrapersky.create_role('MINE');
\echo :SQLSTATE
SELECT scrapersky.create_permission('mine:all');
\echo :SQLSTATE
SELECT scrapersky.grant_permission('USER', 'pages:write');
\echo :SQLSTATE
SELECT scrapersky.revoke_permission('SUPPORT', 'pages:read');
\echo :SQLSTATE
SELECT scrapersky.assign_role(:'alice', 'SUPER_ADMIN', :'acme');
\echo :SQLSTATE
SELECT scrapersky.unassign_role(:'erin', 'SUPPORT');
\echo :SQLSTATE
SELECT * FROM scrapersky.get_roles(:'acme');
\echo :SQLSTATE
-- not even with every permission there is
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'acme');
SELECT scrapersky.assign_role(:'erin', 'GLOBAL_ADMIN');
\echo :SQLSTATE
ROLLBACK;
-- nor do the tables let anybody in
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'), tenant => :'acme');
SAVEPOINT s;
SELECT * FROM scrapersky.users;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO scrapersky.user_roles (user_id) VALUES (:'erin');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM scrapersky.tenants;
\echo :SQLSTATE

\c - :super
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.roles WHERE NOT builtin;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
-- nothing is left but what is built in
SELECT (SELECT count(*) FROM scrapersky.memberships) AS memberships, (SELECT count(*) FROM scrapersky.user_roles) AS user_roles,
    (SELECT count(*) FROM scrapersky.roles) AS roles, (SELECT count(*) FROM scrapersky.permissions) AS permissions,
    (SELECT count(*) FROM scrapersky.role_permissions WHERE NOT builtin) AS grants;
DROP ROLE regress_sky_app;
