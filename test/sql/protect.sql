-- protect.sql: protect() and unprotect(), as the table's owner and an
-- application's role see them, each over its own connection.
\getenv abs_srcdir PG_ABS_SRCDIR
\set sign :abs_srcdir '/lib/sign.sql'
\i :sign
\set VERBOSITY terse
\pset null (null)
SELECT current_user AS super \gset
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA test;
RESET client_min_messages;
CREATE ROLE regress_sky_owner LOGIN;
CREATE ROLE regress_sky_app LOGIN;
CREATE SCHEMA regress_sky AUTHORIZATION regress_sky_owner;
GRANT USAGE ON SCHEMA regress_sky TO regress_sky_app;
\set acme   00000000-0000-4000-8000-00000000000a
\set globex 00000000-0000-4000-8000-00000000000b
\set ghost  00000000-0000-4000-8000-0000000000ff
-- alice of acme and carol of globex read and write, bob of acme reads, dave of
-- acme may do nothing, erin is in both
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    globex uuid := scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
    who record;
BEGIN
    PERFORM scrapersky.create_permission('pages:read');
    PERFORM scrapersky.create_permission('pages:write');
    PERFORM scrapersky.create_role('READER');
    PERFORM scrapersky.create_role('WRITER');
    PERFORM scrapersky.grant_permission('READER', 'pages:read');
    PERFORM scrapersky.grant_permission('WRITER', 'pages:read');
    PERFORM scrapersky.grant_permission('WRITER', 'pages:write');
    FOR who IN SELECT subject, scrapersky.create_user(subject) AS id, tenant, role
               FROM (VALUES ('alice', acme, 'WRITER'), ('bob', acme, 'READER'), ('carol', globex, 'WRITER'), ('dave', acme, NULL)) v (subject, tenant, role) LOOP
        PERFORM scrapersky.add_member(who.tenant, who.id);
        IF who.role IS NOT NULL THEN
            PERFORM scrapersky.assign_role(who.id, who.role, who.tenant);
        END IF;
    END LOOP;
    PERFORM scrapersky.create_user('erin', id => '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.add_member(acme, '00000000-0000-4000-8000-0000000000c1');
    PERFORM scrapersky.add_member(globex, '00000000-0000-4000-8000-0000000000c1');
END
$$;

-- A new table -----------------------------------------------------------------
\c - regress_sky_owner
SET search_path = regress_sky;
CREATE TABLE pages (id int PRIMARY KEY, title text);
GRANT ALL ON pages TO regress_sky_app;
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
\d pages
SELECT * FROM scrapersky.protected_tables;
SELECT * FROM scrapersky.protection('pages');
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'pages'::regclass;
-- a second call changes nothing
CREATE VIEW things AS
SELECT 'policy' AS kind, polname::text AS name, concat_ws(' ', polcmd, polpermissive, polroles::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) AS what
FROM pg_policy WHERE polrelid = 'regress_sky.pages'::regclass
UNION ALL SELECT 'constraint', conname, concat_ws(' ', pg_get_constraintdef(oid), convalidated) FROM pg_constraint WHERE conrelid = 'regress_sky.pages'::regclass
UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'regress_sky.pages'::regclass
UNION ALL SELECT 'trigger', tgname, concat_ws(' ', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE tgrelid = 'regress_sky.pages'::regclass AND NOT tgisinternal
UNION ALL SELECT 'table', relname, concat_ws(' ', relrowsecurity, relforcerowsecurity, relacl, relowner) FROM pg_class WHERE oid = 'regress_sky.pages'::regclass
UNION ALL SELECT 'column', attname, concat_ws(' ', atttypid::regtype, attnotnull, pg_get_expr(adbin, adrelid))
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'regress_sky.pages'::regclass AND attnum > 0;
SELECT count(*) AS things, md5(string_agg(kind || name || what, E'\n' ORDER BY kind, name)) AS before FROM things \gset
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT count(*) = :things AND md5(string_agg(kind || name || what, E'\n' ORDER BY kind, name)) = :'before' AS unchanged FROM things;
SELECT kind, name FROM things ORDER BY 1, 2;

-- What the application may still do with the table as a whole -------------------
\c - regress_sky_app
SET search_path = regress_sky;
SELECT privilege, has_table_privilege('pages', privilege)
FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) privilege;
SELECT has_any_column_privilege('pages', 'REFERENCES');
TRUNCATE pages;
\echo :SQLSTATE
CREATE TRIGGER mine BEFORE INSERT ON pages FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
\echo :SQLSTATE

-- Nothing without an identity -------------------------------------------------
SELECT * FROM pages;
\echo :SQLSTATE
SELECT count(*) FROM pages WHERE false;
\echo :SQLSTATE
INSERT INTO pages (id) VALUES (1);
\echo :SQLSTATE
INSERT INTO pages (id, tenant_id) VALUES (1, :'acme');
\echo :SQLSTATE
UPDATE pages SET title = 'x';
\echo :SQLSTATE
DELETE FROM pages;
\echo :SQLSTATE
COPY pages TO stdout;
\echo :SQLSTATE
-- nor without row security
SET row_security = off;
SELECT * FROM pages;
\echo :SQLSTATE
RESET row_security;

-- The missing permission, on an empty table -----------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SAVEPOINT s;
SELECT * FROM pages;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM pages WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT 1 FROM pages LIMIT 0;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT 1 WHERE EXISTS (SELECT FROM pages WHERE false);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT (SELECT max(id) FROM pages WHERE id = 0);
\echo :SQLSTATE
ROLLBACK TO s;
WITH p AS (SELECT * FROM pages WHERE id = 0) SELECT count(*) FROM p;
\echo :SQLSTATE
ROLLBACK TO s;
EXPLAIN (COSTS OFF) SELECT * FROM pages;
\echo :SQLSTATE
ROLLBACK TO s;
COPY pages TO stdout;
\echo :SQLSTATE
ROLLBACK TO s;
COPY (SELECT * FROM pages WHERE false) TO stdout;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id) VALUES (1);
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages SELECT WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
-- bob reads, and does not write
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SAVEPOINT s;
SELECT * FROM pages;
INSERT INTO pages (id) VALUES (1);
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE pages SET title = 'x';
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE pages SET title = 'x' WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
DELETE FROM pages WHERE id = 0;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM pages FOR UPDATE;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM pages FOR KEY SHARE;
\echo :SQLSTATE
ROLLBACK TO s;
WITH gone AS (DELETE FROM pages WHERE false RETURNING id) SELECT count(*) FROM gone;
\echo :SQLSTATE
ROLLBACK TO s;
MERGE INTO pages p USING (SELECT 1 AS id WHERE false) v ON p.id = v.id WHEN MATCHED THEN DELETE;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id) SELECT 1 WHERE false ON CONFLICT (id) DO UPDATE SET title = 'x';
\echo :SQLSTATE
ROLLBACK;

-- Rows ------------------------------------------------------------------------
-- the tenant fills itself in
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
INSERT INTO pages (id, title) VALUES (1, 'one'), (2, 'two') RETURNING *;
INSERT INTO pages (id, title, tenant_id) VALUES (3, 'three', :'acme') RETURNING *;
COMMIT;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
INSERT INTO pages (id, title) VALUES (11, 'eleven'), (12, 'twelve');
SELECT * FROM pages ORDER BY id;
-- another tenant's row is not there
SELECT * FROM pages WHERE id = 1;
UPDATE pages SET title = 'stolen' WHERE id = 1 RETURNING *;
DELETE FROM pages WHERE id = 1 RETURNING *;
SELECT * FROM pages WHERE tenant_id = :'acme';
UPDATE pages SET title = 'stolen' WHERE tenant_id = :'acme';
DELETE FROM pages WHERE tenant_id = :'acme';
-- nor can one be made, by any way
SAVEPOINT s;
INSERT INTO pages (id, tenant_id) VALUES (4, :'acme');
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id, tenant_id) VALUES (4, :'ghost');
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id, tenant_id) VALUES (4, NULL);
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id, tenant_id) SELECT 4, :'acme';
\echo :SQLSTATE
ROLLBACK TO s;
WITH new AS (INSERT INTO pages (id, tenant_id) VALUES (4, :'acme') RETURNING id) SELECT * FROM new;
\echo :SQLSTATE
ROLLBACK TO s;
MERGE INTO pages p USING (VALUES (4)) v (id) ON p.id = v.id WHEN NOT MATCHED THEN INSERT (id, tenant_id) VALUES (v.id, :'acme');
\echo :SQLSTATE
ROLLBACK TO s;
\copy pages (id, tenant_id) FROM '/dev/null'
\echo :SQLSTATE
ROLLBACK TO s;
-- nor taken over, where a key is in the way
INSERT INTO pages (id, title) VALUES (1, 'mine') ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id, title) VALUES (1, 'mine') ON CONFLICT (id) DO UPDATE SET title = 'mine' WHERE pages.title = 'one' RETURNING pages.*;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id, title) VALUES (1, 'mine') ON CONFLICT DO NOTHING RETURNING *;
MERGE INTO pages p USING (VALUES (1)) v (id) ON p.id = v.id WHEN MATCHED THEN DELETE;
COMMIT;

-- A row stays with its tenant -------------------------------------------------
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SAVEPOINT s;
UPDATE pages SET tenant_id = :'globex' WHERE id = 1;
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE pages SET tenant_id = NULL WHERE id = 1;
\echo :SQLSTATE
ROLLBACK TO s;
UPDATE pages SET (id, tenant_id) = (1, :'ghost') WHERE id = 1;
\echo :SQLSTATE
ROLLBACK TO s;
MERGE INTO pages p USING (VALUES (1)) v (id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET tenant_id = :'globex';
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET tenant_id = :'globex';
\echo :SQLSTATE
ROLLBACK TO s;
-- the same tenant again is no change
UPDATE pages SET tenant_id = :'acme' WHERE id = 1 RETURNING *;
UPDATE pages SET tenant_id = DEFAULT WHERE id = 1 RETURNING *;
INSERT INTO pages (id, title, tenant_id) VALUES (1, 'uno', :'acme') ON CONFLICT (id)
DO UPDATE SET title = EXCLUDED.title, tenant_id = EXCLUDED.tenant_id RETURNING *;
MERGE INTO pages p USING (VALUES (2, 'due'), (5, 'cinque')) v (id, title) ON p.id = v.id
WHEN MATCHED THEN UPDATE SET title = v.title, tenant_id = :'acme'
WHEN NOT MATCHED THEN INSERT (id, title) VALUES (v.id, v.title);
DELETE FROM pages WHERE id = 3 RETURNING *;
SELECT * FROM pages ORDER BY id;
COMMIT;
-- an identity without a tenant has none of them
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "erin", "exp": 4102444800}'));
SELECT * FROM pages;
\echo :SQLSTATE
ROLLBACK;
-- what bob reads
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
COPY (SELECT id, title FROM pages ORDER BY id) TO stdout;
-- all of the table, in the order of its rows
COPY pages (id) TO stdout;
COMMIT;

-- Nothing to be seen through the user's own functions ---------------------------
CREATE FUNCTION pg_temp.spy(id int, title text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RAISE INFO 'seen: % %', id, title;
    RETURN true;
END
$$;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT count(*) FROM pages WHERE pg_temp.spy(id, title);
SELECT count(*) FROM pages WHERE 1 / (id - 1) IS NOT NULL;
SELECT count(*) FROM (SELECT * FROM pages OFFSET 0) p WHERE pg_temp.spy(id, title);
COMMIT;

-- Views -----------------------------------------------------------------------
\c - regress_sky_owner
SET search_path = regress_sky;
CREATE VIEW invoked WITH (security_invoker) AS SELECT id, title FROM pages;
CREATE VIEW owned AS SELECT id, title FROM pages;
CREATE VIEW over_owned WITH (security_invoker) AS SELECT * FROM owned;
CREATE FUNCTION defined() RETURNS SETOF pages LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM regress_sky.pages';
GRANT SELECT, INSERT ON invoked, owned, over_owned TO regress_sky_app;
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT * FROM invoked ORDER BY id;
SELECT * FROM owned ORDER BY id;
SELECT * FROM over_owned ORDER BY id;
SELECT id, title FROM defined() ORDER BY id;
COMMIT;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SAVEPOINT s;
SELECT * FROM invoked WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM owned WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM over_owned WHERE false;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM defined();
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
INSERT INTO invoked (id) VALUES (6);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
INSERT INTO owned (id) SELECT 6 WHERE false;
\echo :SQLSTATE
ROLLBACK;

-- The owner is kept to the rules, too -------------------------------------------
\c - regress_sky_owner
SET search_path = regress_sky;
SELECT count(*) FROM pages;
\echo :SQLSTATE
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT id, title FROM pages ORDER BY id;
UPDATE pages SET tenant_id = :'acme' WHERE id = 11;
\echo :SQLSTATE
ROLLBACK;
-- a policy that the owner adds does not open the table
CREATE POLICY open ON pages USING (true) WITH CHECK (true);
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT id, title FROM pages ORDER BY id;
UPDATE pages SET title = 'stolen' WHERE id = 1;
SAVEPOINT s;
INSERT INTO pages (id, tenant_id) VALUES (4, :'acme');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SELECT * FROM pages;
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM pages;
\echo :SQLSTATE
\c - regress_sky_owner
SET search_path = regress_sky;
DROP POLICY open ON pages;
-- a trigger of the owner's cannot move a row
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tenant_id := '00000000-0000-4000-8000-00000000000a';
    RETURN NEW;
END
$$;
CREATE TRIGGER zz_move BEFORE INSERT OR UPDATE ON pages FOR EACH ROW EXECUTE FUNCTION move();
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SAVEPOINT s;
UPDATE pages SET title = 'moved' WHERE id = 11;
\echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO pages (id) VALUES (4);
\echo :SQLSTATE
ROLLBACK;
\c - regress_sky_owner
SET search_path = regress_sky;
DROP TRIGGER zz_move ON pages;

-- Other options -----------------------------------------------------------------
-- hide: no rows, and no complaint
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write', on_denied => 'hide');
SELECT * FROM scrapersky.protected_tables;
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SELECT * FROM pages;
SELECT scrapersky.authenticate(test.sign('{"sub": "bob", "exp": 4102444800}'));
SELECT id, title FROM pages ORDER BY id;
UPDATE pages SET title = 'x';
DELETE FROM pages;
SELECT * FROM pages FOR UPDATE;
-- what cannot be hidden is refused
INSERT INTO pages (id) VALUES (4);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
UPDATE pages SET title = 'one' WHERE id = 1 RETURNING id;
COMMIT;
-- a repetition keeps the permissions that it is not told again
\c - regress_sky_owner
SET search_path = regress_sky;
SELECT scrapersky.protect('pages', on_denied => 'hide');
SELECT * FROM scrapersky.protected_tables;
SELECT scrapersky.protect('pages', write_permission => 'pages:read');
SELECT * FROM scrapersky.protected_tables;
-- only writing needs a permission
SELECT scrapersky.unprotect('pages');
SELECT scrapersky.protect('pages', write_permission => 'pages:write');
SELECT * FROM scrapersky.protected_tables;
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
SELECT id, title FROM pages ORDER BY id;
UPDATE pages SET title = 'x' WHERE false;
\echo :SQLSTATE
ROLLBACK;
-- neither does
\c - regress_sky_owner
SET search_path = regress_sky;
SELECT scrapersky.unprotect('pages');
SELECT scrapersky.protect('pages');
SELECT * FROM scrapersky.protected_tables;
\c - regress_sky_app
SET search_path = regress_sky;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "dave", "exp": 4102444800}'));
UPDATE pages SET title = 'x' RETURNING id, title;
ROLLBACK;
\c - regress_sky_owner
SET search_path = regress_sky;
-- without the foreign key, and with it again
SELECT scrapersky.protect('pages', foreign_key => false);
SELECT name, what FROM things WHERE kind = 'constraint' ORDER BY 1;
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT name, what FROM things WHERE kind = 'constraint' ORDER BY 1;
SELECT count(*) = :things AND md5(string_agg(kind || name || what, E'\n' ORDER BY kind, name)) = :'before' AS as_before FROM things;
-- privileges that were granted since are revoked again; those on a column, too
GRANT ALL ON pages TO regress_sky_app, PUBLIC;
GRANT REFERENCES (id), SELECT (id) ON pages TO regress_sky_app;
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT has_table_privilege('regress_sky_app', 'pages', 'TRUNCATE, REFERENCES, TRIGGER'), has_any_column_privilege('regress_sky_app', 'pages', 'REFERENCES');
REVOKE ALL ON pages FROM PUBLIC, regress_sky_app;
GRANT REFERENCES (id), SELECT (id) ON pages TO regress_sky_app;
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT has_any_column_privilege('regress_sky_app', 'pages', 'REFERENCES'), has_any_column_privilege('regress_sky_app', 'pages', 'SELECT');
-- TRUNCATE that is granted afterwards does not help
CREATE TABLE parents (id int PRIMARY KEY);
ALTER TABLE pages ADD COLUMN parent int REFERENCES parents;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON pages TO regress_sky_app;
GRANT TRUNCATE ON parents TO regress_sky_app;
\c - regress_sky_app
SET search_path = regress_sky;
TRUNCATE pages;
\echo :SQLSTATE
TRUNCATE parents CASCADE;
\echo :SQLSTATE
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
TRUNCATE pages;
\echo :SQLSTATE
ROLLBACK;
\c - regress_sky_owner
SET search_path = regress_sky;
ALTER TABLE pages DROP COLUMN parent;
DROP TABLE parents;
REVOKE TRUNCATE ON pages FROM regress_sky_app;
-- the owner may
BEGIN;
TRUNCATE pages;
ROLLBACK;

-- A tenant that has rows cannot be deleted ----------------------------------------
\c - :super
DELETE FROM scrapersky.tenants WHERE slug = 'globex';
\echo :SQLSTATE

-- What is protected is read from the catalog ----------------------------------------
\c - regress_sky_owner
SET search_path = regress_sky;
ALTER TABLE pages RENAME COLUMN tenant_id TO org;
ALTER TABLE pages RENAME TO sheets;
ALTER TABLE sheets NO FORCE ROW LEVEL SECURITY;
\c - regress_sky_app
SET search_path = regress_sky;
SELECT * FROM scrapersky.protected_tables;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT id, title FROM sheets ORDER BY id;
UPDATE sheets SET org = :'acme';
\echo :SQLSTATE
ROLLBACK;
\c - regress_sky_owner
SET search_path = regress_sky;
-- forced again by the next call
SELECT scrapersky.protect('sheets', 'org', 'pages:read', 'pages:write');
SELECT * FROM scrapersky.protected_tables;
-- another column is no repetition
ALTER TABLE sheets ADD COLUMN other uuid;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{other,tenant_id}'::text[] LOOP
        BEGIN
            PERFORM scrapersky.protect('sheets', name, 'pages:read', 'pages:write');
            RAISE INFO '%: protected', name;
        EXCEPTION WHEN OTHERS THEN
            RAISE INFO '%: %', name, SQLSTATE;
        END;
    END LOOP;
END
$$;
SELECT * FROM scrapersky.protected_tables;

-- unprotect() -----------------------------------------------------------------------
\c - regress_sky_app
SELECT scrapersky.unprotect('regress_sky.sheets');
\echo :SQLSTATE
\c - regress_sky_owner
SET search_path = regress_sky;
CREATE POLICY mine ON sheets USING (id < 10);
SELECT scrapersky.unprotect('sheets');
-- the policies of others stay, and row security with them
\d sheets
SELECT * FROM scrapersky.protected_tables;
SELECT * FROM scrapersky.protection('sheets');
SELECT scrapersky.unprotect('sheets');
\echo :SQLSTATE
SELECT scrapersky.protect('sheets', 'org');
DROP POLICY mine ON sheets;
SELECT scrapersky.unprotect('sheets');
\d sheets
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'sheets'::regclass;
\c - regress_sky_app
SELECT id, org FROM regress_sky.sheets ORDER BY id;
SELECT scrapersky.unprotect('pg_class');
\echo :SQLSTATE
SELECT scrapersky.unprotect(NULL);

-- A table with rows -------------------------------------------------------------------
\c - regress_sky_owner
SET search_path = regress_sky;
DROP TABLE sheets CASCADE;
CREATE TABLE notes (id int, note text);
INSERT INTO notes VALUES (1, 'old'), (2, 'older');
-- whose are they?
SELECT scrapersky.protect('notes');
\echo :SQLSTATE
\d notes
-- of nobody that there is
SELECT scrapersky.protect('notes', existing_rows_tenant => :'ghost');
\echo :SQLSTATE
-- not the caller's, though there is one
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
SELECT scrapersky.protect('notes', existing_rows_tenant => :'globex');
SELECT * FROM notes;
SELECT scrapersky.authenticate(test.sign('{"sub": "carol", "exp": 4102444800}'));
SELECT * FROM notes;
ROLLBACK;
-- rows that have a tenant keep it
ALTER TABLE notes ADD COLUMN tenant_id uuid;
UPDATE notes SET tenant_id = :'acme' WHERE id = 1;
SELECT scrapersky.protect('notes');
\echo :SQLSTATE
SELECT scrapersky.protect('notes', existing_rows_tenant => :'globex');
SELECT scrapersky.unprotect('notes');
SELECT * FROM notes ORDER BY id;
-- all have one; an index that there is will do
CREATE INDEX notes_own ON notes (tenant_id, id);
DROP INDEX notes_tenant_id_idx;
SELECT scrapersky.protect('notes');
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'notes'::regclass;
-- one that is partial will not
SELECT scrapersky.unprotect('notes');
DROP INDEX notes_own;
CREATE INDEX notes_part ON notes (tenant_id) WHERE id > 1;
SELECT scrapersky.protect('notes');
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'notes'::regclass ORDER BY 1;
SELECT scrapersky.unprotect('notes');
-- the foreign key is there still; without it, a tenant that is gone
UPDATE notes SET tenant_id = :'ghost' WHERE id = 2;
\echo :SQLSTATE
ALTER TABLE notes DROP CONSTRAINT scrapersky_tenant_fk;
UPDATE notes SET tenant_id = :'ghost' WHERE id = 2;
SELECT scrapersky.protect('notes');
\echo :SQLSTATE
SELECT scrapersky.protect('notes', foreign_key => false);
DROP TABLE notes;

-- The owner's code runs as the owner, whoever calls -----------------------------------------
CREATE TABLE traps (id int);
INSERT INTO traps VALUES (1);
CREATE TABLE caught (who name, session name, path text);
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_sky.caught VALUES (current_user, session_user, current_setting('search_path'));
    PERFORM set_config('search_path', 'regress_sky', false);
    RETURN NEW;
END
$$;
CREATE TRIGGER trap BEFORE UPDATE ON traps FOR EACH ROW EXECUTE FUNCTION trap();
CREATE FUNCTION trapped(uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_sky.caught VALUES (current_user, session_user, current_setting('search_path'));
    RETURN true;
END
$$;
ALTER TABLE traps ADD COLUMN tenant_id uuid CHECK (trapped(tenant_id));
TRUNCATE caught;
\c - :super
SELECT scrapersky.protect('regress_sky.traps', existing_rows_tenant => :'acme');
SELECT DISTINCT who FROM regress_sky.caught;
SHOW search_path;
SELECT scrapersky.unprotect('regress_sky.traps');
SELECT DISTINCT who FROM regress_sky.caught;
\c - regress_sky_owner
SET search_path = regress_sky;
DROP TABLE traps, caught;

-- Names and permissions that want quoting ------------------------------------------------
CREATE TABLE "Weird ""Table""; --" (id int);
GRANT SELECT, INSERT ON "Weird ""Table""; --" TO regress_sky_app;
SELECT scrapersky.protect('"Weird ""Table""; --"', 'Tenant "Id"', E'o''clock\\:%s', 'pages:write');
SELECT * FROM scrapersky.protected_tables;
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
INSERT INTO "Weird ""Table""; --" VALUES (1);
SELECT * FROM "Weird ""Table""; --";
\echo :SQLSTATE
ROLLBACK;
DROP TABLE "Weird ""Table""; --";

-- Bad arguments ----------------------------------------------------------------------------
CREATE TABLE plain (id int);
SELECT scrapersky.protect(NULL);
\echo :SQLSTATE
SELECT scrapersky.protect('plain', NULL);
\echo :SQLSTATE
SELECT scrapersky.protect('plain', on_denied => 'ignore');
\echo :SQLSTATE
SELECT scrapersky.protect('plain', on_denied => NULL);
\echo :SQLSTATE
SELECT scrapersky.protect('plain', foreign_key => NULL);
\echo :SQLSTATE
SELECT scrapersky.protect('plain', read_permission => '');
\echo :SQLSTATE
SELECT scrapersky.protect('missing');
\echo :SQLSTATE
SELECT scrapersky.protect(4294967295);
\echo :SQLSTATE
-- a column that cannot hold a tenant
SELECT scrapersky.protect('plain', 'id');
\echo :SQLSTATE
SELECT scrapersky.protect('plain', 'ctid');
\echo :SQLSTATE
ALTER TABLE plain ADD COLUMN made uuid GENERATED ALWAYS AS ('00000000-0000-4000-8000-00000000000a') STORED;
SELECT scrapersky.protect('plain', 'made');
\echo :SQLSTATE
CREATE DOMAIN own_uuid AS uuid;
ALTER TABLE plain ADD COLUMN own own_uuid;
SELECT scrapersky.protect('plain', 'own');
\echo :SQLSTATE

-- Not an ordinary table ----------------------------------------------------------------------
CREATE VIEW a_view AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
CREATE SEQUENCE a_sequence;
CREATE INDEX an_index ON plain (id);
CREATE TYPE a_type AS (id int);
CREATE TABLE a_parent (id int) PARTITION BY LIST (id);
CREATE TABLE a_partition PARTITION OF a_parent DEFAULT;
CREATE TABLE inherited (id int);
CREATE TABLE inheriting () INHERITS (inherited);
CREATE TEMP TABLE a_temp (id int);
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{a_view,a_matview,a_sequence,an_index,a_type,a_parent,a_partition,inherited,inheriting,a_temp}'::text[] LOOP
        BEGIN
            PERFORM scrapersky.protect(name::regclass);
            RAISE INFO '%: protected', name;
        EXCEPTION WHEN OTHERS THEN
            RAISE INFO '% %', SQLSTATE, SQLERRM;
        END;
    END LOOP;
END
$$;
-- an unlogged one is
CREATE UNLOGGED TABLE an_unlogged (id int);
SELECT scrapersky.protect('an_unlogged');
SELECT relation FROM scrapersky.protected_tables;

-- Somebody else's -------------------------------------------------------------------------------
\c - regress_sky_app
SELECT scrapersky.protect('regress_sky.plain');
\echo :SQLSTATE
SELECT scrapersky.protect('pg_class');
\echo :SQLSTATE
SELECT scrapersky.protect('scrapersky.users');
\echo :SQLSTATE
-- nobody waits for a table that is not theirs
\c - :super
BEGIN;
LOCK TABLE regress_sky.plain;
SELECT test.dblink_connect('app', format('host=%s port=%s dbname=%s user=regress_sky_app',
    split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
SELECT test.dblink_exec('app', $$SET statement_timeout = '20s'$$);
SELECT * FROM test.dblink('app', $$SELECT scrapersky.protect('regress_sky.plain')::text$$) AS r (done text);
\echo :SQLSTATE
ROLLBACK;
SELECT test.dblink_disconnect('app');
-- who may act for the owner may
\c - :super
GRANT regress_sky_owner TO regress_sky_app;
\c - regress_sky_app
SELECT scrapersky.protect('regress_sky.plain');
SELECT relation FROM scrapersky.protected_tables ORDER BY relation::text;
SELECT scrapersky.unprotect('regress_sky.plain');

-- Row security that the owner switched off comes back with what it asked for
\c - regress_sky_owner
SELECT scrapersky.protect('regress_sky.plain', read_permission => 'pages:read', write_permission => 'pages:write', on_denied => 'hide');
ALTER TABLE regress_sky.plain DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
SELECT scrapersky.protect('regress_sky.plain', on_denied => 'hide');
SELECT * FROM scrapersky.protected_tables WHERE relation = 'regress_sky.plain'::regclass;

-- Foreign keys between protected tables are checked for all tenants' rows, whoever the owner is then
CREATE TABLE regress_sky.targets (id int PRIMARY KEY, tenant_id uuid NOT NULL);
CREATE TABLE regress_sky.sources (id int, tenant_id uuid NOT NULL, target int);
INSERT INTO regress_sky.targets VALUES (1, :'acme'), (2, :'globex');
INSERT INTO regress_sky.sources VALUES (1, :'acme', 1), (2, :'globex', 3);
SELECT scrapersky.protect('regress_sky.targets', read_permission => 'pages:read'), scrapersky.protect('regress_sky.sources', read_permission => 'pages:read');
ALTER TABLE regress_sky.sources ADD FOREIGN KEY (target) REFERENCES regress_sky.targets (id);
\echo :SQLSTATE
BEGIN;
SELECT scrapersky.authenticate(test.sign('{"sub": "alice", "exp": 4102444800}'));
ALTER TABLE regress_sky.sources ADD FOREIGN KEY (target) REFERENCES regress_sky.targets (id);
\echo :SQLSTATE
ROLLBACK;
ALTER TABLE regress_sky.sources NO FORCE ROW LEVEL SECURITY;
UPDATE regress_sky.sources SET target = 2 WHERE id = 2;
ALTER TABLE regress_sky.sources FORCE ROW LEVEL SECURITY;
ALTER TABLE regress_sky.sources ADD FOREIGN KEY (target) REFERENCES regress_sky.targets (id);
DROP TABLE regress_sky.sources, regress_sky.targets;

-- A superuser, with anybody's table, but not with the system's -----------------------------------
\c - :super
SELECT scrapersky.protect('regress_sky.plain');
SELECT relation FROM scrapersky.protected_tables ORDER BY relation::text;
SELECT scrapersky.protect('scrapersky.users', 'id');
\echo :SQLSTATE
SELECT scrapersky.protect('pg_class');
\echo :SQLSTATE
DO $$
BEGIN
    PERFORM scrapersky.protect((SELECT reltoastrelid FROM pg_class WHERE oid = 'scrapersky.users'::regclass)::regclass);
EXCEPTION WHEN wrong_object_type THEN
    RAISE INFO 'not that one';
END
$$;
CREATE FOREIGN DATA WRAPPER regress_sky_wrapper;
CREATE SERVER regress_sky_server FOREIGN DATA WRAPPER regress_sky_wrapper;
CREATE FOREIGN TABLE regress_sky.a_foreign (id int) SERVER regress_sky_server;
SELECT scrapersky.protect('regress_sky.a_foreign');
\echo :SQLSTATE
DROP FOREIGN DATA WRAPPER regress_sky_wrapper CASCADE;

DROP SCHEMA regress_sky CASCADE;
SELECT count(*) FROM scrapersky.protected_tables;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.roles WHERE NOT builtin;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
DROP ROLE regress_sky_app, regress_sky_owner;
