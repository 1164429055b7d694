-- identity.sql: authenticate() and the questions about who is asking, as a
-- role without any attribute sees them, over its own connection.
\getenv abs_srcdir PG_ABS_SRCDIR
\set sign :abs_srcdir '/lib/sign.sql'
\i :sign
\set SHOW_CONTEXT never
\pset null (null)
SELECT current_user AS super \gset

CREATE ROLE regress_sky_app LOGIN;
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    alice uuid := scrapersky.create_user('alice', 'alice@acme.example', id => '00000000-0000-4000-8000-0000000000a1');
    bob uuid := scrapersky.create_user('bob', id => '00000000-0000-4000-8000-0000000000a2');
BEGIN
    PERFORM scrapersky.create_user('nobody', id => '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.add_member(acme, alice);
    PERFORM scrapersky.add_member(acme, bob);
    PERFORM scrapersky.create_permission('pages:read');
    PERFORM scrapersky.create_permission('pages:write');
    PERFORM scrapersky.create_role('Editor', acme);
    PERFORM scrapersky.grant_permission('Editor', 'pages:write', acme);
    PERFORM scrapersky.grant_permission('Editor', 'pages:read', acme);
    PERFORM scrapersky.assign_role(alice, 'Editor', acme);
    PERFORM scrapersky.assign_role(alice, 'USER', acme);
END
$$;

\c - regress_sky_app

-- Without an identity ---------------------------------------------------------
-- whoami() is one row of nulls and empty lists; is_authenticated() never raises
SELECT * FROM scrapersky.whoami();
SELECT scrapersky.is_authenticated();
-- every other question is an error
SELECT scrapersky.current_tenant_id();
\echo :SQLSTATE
SELECT scrapersky.current_user_id();
\echo :SQLSTATE
SELECT scrapersky.current_subject();
\echo :SQLSTATE
SELECT scrapersky.current_roles();
\echo :SQLSTATE
SELECT scrapersky.current_permissions();
\echo :SQLSTATE
SELECT scrapersky.claim('sub');
\echo :SQLSTATE
SELECT scrapersky.has_role('USER');
\echo :SQLSTATE
SELECT scrapersky.has_permission('pages:read');
\echo :SQLSTATE
SELECT scrapersky.require_permission('pages:read');
\echo :SQLSTATE
-- of null, too
SELECT scrapersky.has_permission(NULL);
\echo :SQLSTATE
-- nothing to drop is no error
SELECT scrapersky.clear_identity();
-- the setting that changes this is not for everybody
SET scrapersky.missing_identity = 'empty';
\echo :SQLSTATE

-- With one --------------------------------------------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT user_id, issuer, subject, email, tenant_id, tenant_name, roles, permissions, acting_as FROM scrapersky.whoami();
-- it ends scrapersky.jwt_leeway after exp
SELECT expires_at = to_timestamp(4102444800) + current_setting('scrapersky.jwt_leeway')::interval AS ends FROM scrapersky.whoami();
SELECT scrapersky.is_authenticated();
SELECT scrapersky.current_tenant_id(), scrapersky.current_user_id(), scrapersky.current_subject();
SELECT scrapersky.current_roles(), scrapersky.current_permissions();
-- names are compared as they are written; null is never one of them
SELECT role, scrapersky.has_role(role) FROM (VALUES ('USER'), ('Editor'), ('editor'), ('ADMIN'), (''), (NULL)) v (role);
SELECT permission, scrapersky.has_permission(permission)
FROM (VALUES ('pages:read'), ('pages:write'), ('PAGES:READ'), ('pages:*'), ('pages:'), ('pages'), (''), (NULL)) v (permission);
SELECT scrapersky.has_permission('pages:read'), scrapersky.has_permission('users:manage'), scrapersky.has_role('Editor');
-- a required permission is there, or an error
SELECT scrapersky.require_permission('pages:read');
SAVEPOINT s;
SELECT scrapersky.require_permission('users:manage');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.require_permission(NULL);
\echo :SQLSTATE
ROLLBACK TO s;
-- one call site that is asked different things
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{pages:read,users:manage,pages:write}'::text[] LOOP
        RAISE INFO '%: %', name, scrapersky.has_permission(name);
    END LOOP;
    FOREACH name IN ARRAY '{USER,ADMIN,Editor}'::text[] LOOP
        RAISE INFO '%: %', name, scrapersky.has_role(name);
    END LOOP;
END
$$;
COMMIT;

-- An end with the transaction -------------------------------------------------
-- after COMMIT
SELECT scrapersky.is_authenticated();
-- after ROLLBACK
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
ROLLBACK;
SELECT scrapersky.is_authenticated();
-- after a failed transaction
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT 1/0;
COMMIT;
SELECT scrapersky.is_authenticated();
-- after a statement outside a transaction
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.is_authenticated();
-- after COMMIT AND CHAIN
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
COMMIT AND CHAIN;
SELECT scrapersky.is_authenticated();
COMMIT;
-- after PREPARE TRANSACTION
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
PREPARE TRANSACTION 'regress_sky_identity';
SELECT scrapersky.is_authenticated();
COMMIT PREPARED 'regress_sky_identity';
SELECT scrapersky.is_authenticated();
-- after a COMMIT inside a procedure
DO $$
BEGIN
    PERFORM scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
    RAISE INFO 'before: %', scrapersky.is_authenticated();
    COMMIT;
    RAISE INFO 'after: %', scrapersky.is_authenticated();
END
$$;

-- in a transaction that is read only
BEGIN READ ONLY;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_subject();
COMMIT;

-- Replaced and dropped --------------------------------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
-- the same user again, with other claims
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800, "session": "2"}'));
SELECT scrapersky.current_subject(), scrapersky.claim('session');
-- another user
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SELECT scrapersky.current_subject(), scrapersky.current_roles(), scrapersky.current_permissions(), scrapersky.claim('session');
SELECT email FROM scrapersky.whoami();
-- a token that is refused leaves the identity as it was
SAVEPOINT s;
SELECT scrapersky.authenticate('no.such.token');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.current_subject();
-- dropped; and back with the savepoint before
SELECT scrapersky.clear_identity();
SELECT scrapersky.is_authenticated();
ROLLBACK TO s;
SELECT scrapersky.current_subject();
SELECT scrapersky.clear_identity();
COMMIT;
SELECT scrapersky.is_authenticated();

-- Claims ----------------------------------------------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800, "role": "regress_sky_app", "nothing": null, "yes": true,
    "number": 12345678901234567.5, "deep": {"list": [10, {"x": "ä€😀"}], "empty": ""}, "a.b": "dot", "quote\"d": "back\\slash"}'));
SELECT scrapersky.claim('sub') AS sub, scrapersky.claim('exp') AS exp, scrapersky.claim('role') AS role, scrapersky.claim('yes') AS yes,
    scrapersky.claim('number') AS number;
SELECT scrapersky.claim('deep', 'list', '0') AS first, scrapersky.claim('deep', 'list', '-1', 'x') AS last, scrapersky.claim('deep') AS deep,
    scrapersky.claim('deep', 'empty') AS empty;
SELECT scrapersky.claim('a.b') AS dot, scrapersky.claim('quote"d') AS quoted;
-- what is not there, or null
SELECT scrapersky.claim('nothing') AS nothing, scrapersky.claim('missing') AS missing, scrapersky.claim('a', 'b') AS path,
    scrapersky.claim('sub', 'x') AS beyond, scrapersky.claim(NULL) AS "null", scrapersky.claim(VARIADIC NULL) AS no_path;
-- the whole, by an empty path
SELECT scrapersky.claim(VARIADIC '{}')::jsonb ->> 'sub' AS sub;
-- a path that changes from row to row, and at one call site
SELECT name, scrapersky.claim(name) FROM (VALUES ('sub'), ('role'), ('missing'), (NULL)) v (name);
DO $$
DECLARE
    path text[];
BEGIN
    FOREACH path SLICE 1 IN ARRAY '{{deep,empty},{deep,list},{sub,x}}'::text[] LOOP
        RAISE INFO '%: %', path, scrapersky.claim(VARIADIC path);
    END LOOP;
END
$$;
COMMIT;

-- A user without tenant -------------------------------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "nobody", "exp": 4102444800}'));
SELECT user_id, subject, email, tenant_id, tenant_name, roles, permissions FROM scrapersky.whoami();
SELECT scrapersky.is_authenticated(), scrapersky.current_user_id();
SELECT scrapersky.has_permission('pages:read');
SELECT scrapersky.current_tenant_id();
\echo :SQLSTATE
ROLLBACK;

-- Expiry ----------------------------------------------------------------------
-- a token that ends in a moment: the identity goes in the middle of a transaction
BEGIN;
SELECT scrapersky.authenticate(test.sign(jsonb_build_object('sub', 'alice', 'exp', floor(extract(epoch FROM clock_timestamp()))::bigint - 27)));
SELECT scrapersky.is_authenticated();
SAVEPOINT s;
SELECT pg_sleep(3.1);
SELECT scrapersky.is_authenticated();
SELECT * FROM scrapersky.whoami();
SELECT scrapersky.current_tenant_id();
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.has_permission('pages:read');
\echo :SQLSTATE
ROLLBACK;

-- Bad calls -------------------------------------------------------------------
-- no token
SELECT scrapersky.authenticate(NULL);
\echo :SQLSTATE
SELECT scrapersky.authenticate('');
\echo :SQLSTATE
-- is_local null is not "no"
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'), NULL, NULL);
COMMIT;
SELECT scrapersky.is_authenticated();
-- an identity for the session is switched off
SELECT scrapersky.authenticate('no.such.token', false);
\echo :SQLSTATE
SET scrapersky.allow_session_identity = on;
\echo :SQLSTATE

-- The token is nowhere to be seen ---------------------------------------------
-- in pg_stat_activity, though written as a literal
SELECT test.sign('{"sub": "alice", "exp": 4102444800}') AS token \gset
SELECT scrapersky.authenticate(:'token'), (SELECT regexp_replace(left(query, 170), '[*]+', '*') FROM pg_stat_activity WHERE pid = pg_backend_pid());
-- a statement that has it as a parameter stays
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}')),
    (SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()) LIKE 'SELECT scrapersky.authenticate(test.sign%' AS stays;

-- An identity for the session -------------------------------------------------
\c - :super
ALTER ROLE regress_sky_app SET scrapersky.allow_session_identity = on;
\c - regress_sky_app
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'), false);
SELECT scrapersky.current_subject();
-- it comes back after one of a transaction
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SELECT scrapersky.current_subject();
COMMIT;
SELECT scrapersky.current_subject();
-- one that is made in a transaction that fails is gone
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'), false);
ROLLBACK;
SELECT scrapersky.current_subject();
-- dropped within a transaction: for the session, too
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SELECT scrapersky.clear_identity();
SELECT scrapersky.is_authenticated();
COMMIT;
SELECT scrapersky.is_authenticated();
-- what a pooler sends between clients drops it
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'), false);
DISCARD ALL;
SELECT scrapersky.is_authenticated();
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'), false);
RESET ALL;
SELECT scrapersky.is_authenticated();

-- missing_identity = empty ----------------------------------------------------
\c - :super
ALTER ROLE regress_sky_app SET scrapersky.missing_identity = 'empty';
\c - regress_sky_app
SELECT scrapersky.current_tenant_id(), scrapersky.current_user_id(), scrapersky.current_subject(), scrapersky.current_roles(),
    scrapersky.current_permissions(), scrapersky.claim('sub');
SELECT scrapersky.has_role('USER'), scrapersky.has_permission('pages:read'), scrapersky.has_permission(NULL), scrapersky.is_authenticated();
SELECT * FROM scrapersky.whoami();
-- what is required is still an error
SELECT scrapersky.require_permission('pages:read');
\echo :SQLSTATE
-- with an identity everything is as before; without tenant it is empty
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.current_tenant_id(), scrapersky.has_permission('pages:read'), scrapersky.has_permission('users:manage');
SELECT scrapersky.authenticate(test.sign('{"sub": "nobody", "exp": 4102444800}'));
SELECT scrapersky.current_tenant_id(), scrapersky.current_subject();
ROLLBACK;
-- a bad token is an error, as ever
SELECT scrapersky.authenticate('no.such.token');
\echo :SQLSTATE

\c - :super
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
DROP ROLE regress_sky_app;
