-- questions.sql: what the questions about the identity answer where the identity
-- changes around them: subtransactions, functions, plans, cursors, workers.
-- Asked by a role without attributes, over its own connection.
\set ECHO none
SET client_min_messages = warning;
\ir ../lib/sign.sql
SET client_min_messages = warning;
SELECT current_user AS super \gset
CREATE ROLE regress_sky_app LOGIN;
CREATE SCHEMA regress_sky;
GRANT USAGE ON SCHEMA regress_sky TO PUBLIC;
-- alice of acme may write what carol of globex may read
DO $$
DECLARE
    acme uuid := scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    globex uuid := scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
    alice uuid := scrapersky.create_user('alice', id => '00000000-0000-4000-8000-0000000000a1');
    carol uuid := scrapersky.create_user('carol', id => '00000000-0000-4000-8000-0000000000b1');
BEGIN
    PERFORM scrapersky.create_permission('pages:read');
    PERFORM scrapersky.create_permission('pages:write');
    PERFORM scrapersky.create_role('READER');
    PERFORM scrapersky.create_role('WRITER');
    PERFORM scrapersky.grant_permission('READER', 'pages:read');
    PERFORM scrapersky.grant_permission('WRITER', 'pages:read');
    PERFORM scrapersky.grant_permission('WRITER', 'pages:write');
    PERFORM scrapersky.add_member(acme, alice);
    PERFORM scrapersky.add_member(globex, carol);
    PERFORM scrapersky.assign_role(alice, 'WRITER', acme);
    PERFORM scrapersky.assign_role(carol, 'READER', globex);
END
$$;
-- 20000 rows: 5000 of acme, 15000 of globex; the same, with permissions
CREATE TABLE regress_sky.pages (id int PRIMARY KEY, tenant_id uuid, title text);
INSERT INTO regress_sky.pages SELECT i, CASE i % 4 WHEN 0 THEN '00000000-0000-4000-8000-00000000000a' ELSE '00000000-0000-4000-8000-00000000000b' END::uuid, 'page ' || i
FROM generate_series(1, 20000) i;
CREATE TABLE regress_sky.notes AS TABLE regress_sky.pages;
CREATE TABLE regress_sky.hidden AS TABLE regress_sky.pages;
SELECT FROM scrapersky.protect('regress_sky.pages');
SELECT FROM scrapersky.protect('regress_sky.notes', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT FROM scrapersky.protect('regress_sky.hidden', read_permission => 'pages:read', write_permission => 'pages:write', on_denied => 'hide');
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA regress_sky TO regress_sky_app;
ANALYZE regress_sky.pages, regress_sky.notes, regress_sky.hidden;
-- Become somebody.
CREATE FUNCTION test.become(subject text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM scrapersky.authenticate(test.sign(jsonb_build_object('sub', subject, 'exp', 4102444800)));
    RETURN '';
END
$$;
\set acme   00000000-0000-4000-8000-00000000000a
\set globex 00000000-0000-4000-8000-00000000000b

\c - regress_sky_app
SELECT * FROM no_plan();
CREATE FUNCTION pg_temp.who() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN scrapersky.is_authenticated() THEN scrapersky.current_subject() || ' of ' || right(scrapersky.current_tenant_id()::text, 1) ELSE 'nobody' END;
END
$$;
CREATE FUNCTION pg_temp.fetched(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE query INTO result;
    RETURN result;
END
$$;

-- Savepoints and exception blocks -------------------------------------------------------------
BEGIN;
SELECT test.become('alice') \g /dev/null
SAVEPOINT a;
SELECT test.become('carol') \g /dev/null
SELECT is(pg_temp.who(), 'carol of b', 'in a savepoint');
SAVEPOINT b;
SELECT scrapersky.clear_identity() \g /dev/null
SELECT is(pg_temp.who(), 'nobody', 'in one within');
ROLLBACK TO b;
SELECT is(pg_temp.who(), 'carol of b', 'rolled back to the second');
SELECT is((SELECT count(*) FROM regress_sky.pages), 15000::bigint, 'carol''s rows');
ROLLBACK TO a;
SELECT is(pg_temp.who(), 'alice of a', 'rolled back to the first');
SELECT is((SELECT count(*) FROM regress_sky.pages), 5000::bigint, 'alice''s rows');
SELECT test.become('carol') \g /dev/null
RELEASE a;
SELECT is(pg_temp.who(), 'carol of b', 'released: carol stays');
COMMIT;
SELECT is(pg_temp.who(), 'nobody', 'until the end of the transaction');
BEGIN;
SELECT test.become('alice') \g /dev/null
CREATE FUNCTION pg_temp.failing() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    inside text;
BEGIN
    BEGIN
        PERFORM test.become('carol');
        inside := pg_temp.who();
        RAISE EXCEPTION 'never mind';
    EXCEPTION WHEN raise_exception THEN
        RETURN inside || ', ' || pg_temp.who();
    END;
END
$$;
SELECT is(pg_temp.failing(), 'carol of b, alice of a', 'an exception block gives the identity back');
CREATE FUNCTION pg_temp.refused() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM test.become('mallory');
EXCEPTION WHEN invalid_authorization_specification THEN
    RETURN pg_temp.who();
END
$$;
SELECT is(pg_temp.refused(), 'alice of a', 'a token that is refused leaves the identity as it was');
-- many levels of both
CREATE FUNCTION pg_temp.deep(level int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    inside text;
BEGIN
    IF level = 0 THEN
        RETURN '';
    END IF;
    BEGIN
        PERFORM test.become(CASE level % 2 WHEN 0 THEN 'alice' ELSE 'carol' END);
        inside := pg_temp.deep(level - 1);
        inside := left(pg_temp.who(), 1) || inside;
        RAISE EXCEPTION USING ERRCODE = 'P0999', MESSAGE = inside;
    EXCEPTION WHEN SQLSTATE 'P0999' THEN
        RETURN SQLERRM;
    END;
END
$$;
SELECT is(pg_temp.deep(20), repeat('ac', 10), '20 subtransactions, one in the other');
SELECT is(pg_temp.who(), 'alice of a', 'and alice after all of them');
COMMIT;

-- Functions with a SET clause ------------------------------------------------------------------
CREATE FUNCTION pg_temp.without() RETURNS text LANGUAGE plpgsql SET scrapersky.identity = '' AS $$BEGIN RETURN pg_temp.who(); END$$;
CREATE FUNCTION pg_temp.within() RETURNS text LANGUAGE plpgsql SET scrapersky.identity = '' AS $$BEGIN PERFORM test.become('carol'); RETURN pg_temp.who(); END$$;
CREATE FUNCTION pg_temp.other_setting() RETURNS text LANGUAGE plpgsql SET work_mem = '1MB' AS $$BEGIN PERFORM test.become('carol'); RETURN pg_temp.who(); END$$;
CREATE FUNCTION pg_temp.clearing() RETURNS text LANGUAGE plpgsql SET work_mem = '1MB' AS $$BEGIN PERFORM scrapersky.clear_identity(); RETURN pg_temp.who(); END$$;
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT is(pg_temp.without(), 'nobody', 'a function that sets the identity aside');
SELECT is(pg_temp.who(), 'alice of a', 'and puts it back');
SELECT is(pg_temp.within(), 'carol of b', 'one that takes another');
SELECT is(pg_temp.who(), 'alice of a', 'and puts it back');
SELECT is((SELECT count(*) FROM regress_sky.pages), 5000::bigint, 'with its rows');
SELECT is(pg_temp.other_setting(), 'carol of b', 'one that sets something else');
SELECT is(pg_temp.who(), 'carol of b', 'leaves the identity that it established');
SELECT is(pg_temp.clearing(), 'nobody', 'one that drops the identity');
SELECT is(pg_temp.who(), 'nobody', 'leaves none');
COMMIT;
SELECT is(pg_temp.within(), 'carol of b', 'outside of a transaction');
SELECT is(pg_temp.who(), 'nobody', 'nothing is left of it');

-- RESET ALL -------------------------------------------------------------------------------------------
BEGIN;
SELECT test.become('alice') \g /dev/null
SAVEPOINT s;
RESET ALL;
SET client_min_messages = warning;
SELECT is(pg_temp.who(), 'nobody', 'RESET ALL drops the identity');
ROLLBACK TO s;
SELECT is(pg_temp.who(), 'alice of a', 'rolled back, it is there again');
COMMIT;

-- Plans that are made once ------------------------------------------------------------------------------
SET plan_cache_mode = force_generic_plan;
PREPARE counted AS SELECT count(*) FROM regress_sky.pages;
PREPARE one (int) AS SELECT title FROM regress_sky.pages WHERE id = $1;
PREPARE tenant AS SELECT scrapersky.current_tenant_id();
PREPARE permitted AS SELECT scrapersky.has_permission('pages:write');
PREPARE asked (text) AS SELECT scrapersky.has_permission($1);
PREPARE joined AS SELECT count(*) FROM (SELECT p.id FROM regress_sky.pages p JOIN regress_sky.notes n USING (id) WHERE EXISTS (SELECT FROM regress_sky.hidden h WHERE h.id = p.id) UNION SELECT id FROM regress_sky.notes) u;
CREATE FUNCTION pg_temp.f_static() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT count(*) FROM regress_sky.pages); END$$;
CREATE FUNCTION pg_temp.f_param(wanted int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT title FROM regress_sky.pages WHERE id = wanted); END$$;
CREATE FUNCTION pg_temp.f_sql() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM regress_sky.pages';
CREATE FUNCTION pg_temp.f_inlined() RETURNS SETOF regress_sky.pages LANGUAGE sql STABLE AS 'SELECT * FROM regress_sky.pages';
CREATE FUNCTION pg_temp.f_tenant() RETURNS uuid LANGUAGE plpgsql AS $$BEGIN RETURN scrapersky.current_tenant_id(); END$$;
CREATE FUNCTION pg_temp.f_subject() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN scrapersky.current_subject() || scrapersky.claim('sub'); END$$;
CREATE FUNCTION pg_temp.f_write() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN scrapersky.has_permission('pages:write'); END$$;
CREATE FUNCTION pg_temp.f_update() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE regress_sky.notes SET title = title WHERE id = 4;
    RETURN FOUND::text;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 'denied';
END
$$;
CREATE VIEW pg_temp.a_view WITH (security_invoker) AS SELECT * FROM regress_sky.pages;
-- what each answers, in one line
CREATE FUNCTION pg_temp.answers() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN concat_ws(' ', pg_temp.fetched('EXECUTE counted'), coalesce(pg_temp.fetched('EXECUTE one (4)'), '-'), coalesce(pg_temp.fetched('EXECUTE one (5)'), '-'), right(pg_temp.fetched('EXECUTE tenant'), 1),
        pg_temp.fetched('EXECUTE permitted'), pg_temp.fetched('EXECUTE asked (''pages:read'')'), pg_temp.fetched('EXECUTE asked (''pages:write'')'), pg_temp.fetched('EXECUTE joined'),
        pg_temp.f_static(), coalesce(pg_temp.f_param(4), '-'), coalesce(pg_temp.f_param(5), '-'), pg_temp.f_sql(), (SELECT count(*) FROM pg_temp.f_inlined()), right(pg_temp.f_tenant()::text, 1),
        pg_temp.f_subject(), pg_temp.f_write(), pg_temp.f_update(), (SELECT count(*) FROM pg_temp.a_view), (SELECT count(*) FROM regress_sky.hidden));
END
$$;
\set alice '5000 page 4 - a true true true 5000 5000 page 4 - 5000 5000 a alicealice t true 5000 5000'
\set carol '15000 - page 5 b false true false 15000 15000 - page 5 15000 15000 b carolcarol f denied 15000 15000'
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT is(pg_temp.answers(), :'alice', 'alice first');
COMMIT;
BEGIN;
SELECT test.become('carol') \g /dev/null
SELECT is(pg_temp.answers(), :'carol', 'then carol, in the next transaction');
SELECT test.become('alice') \g /dev/null
SELECT is(pg_temp.answers(), :'alice', 'alice again, in the same transaction');
SAVEPOINT s;
SELECT test.become('carol') \g /dev/null
SELECT is(pg_temp.answers(), :'carol', 'carol in a savepoint');
ROLLBACK TO s;
SELECT is(pg_temp.answers(), :'alice', 'alice after it');
COMMIT;
SELECT throws_ok('EXECUTE counted', '42501', 'no identity in this transaction', 'nobody after that: a prepared statement');
SELECT throws_ok('SELECT pg_temp.f_static()', '42501', 'no identity in this transaction', 'a function');
SELECT throws_ok('EXECUTE permitted', '42501', 'no identity in this transaction', 'a permission');
SELECT throws_ok('SELECT count(*) FROM pg_temp.f_inlined()', '42501', 'no identity in this transaction', 'a function in FROM');
SELECT ok(bool_and(generic_plans > 0), 'generic plans it was') FROM pg_prepared_statements WHERE name IN ('counted', 'one', 'joined');
-- and with plans made for each
SET plan_cache_mode = force_custom_plan;
BEGIN;
SELECT test.become('carol') \g /dev/null
SELECT is(pg_temp.answers(), :'carol', 'custom plans: carol');
SELECT test.become('alice') \g /dev/null
SELECT is(pg_temp.answers(), :'alice', 'alice');
COMMIT;
RESET plan_cache_mode;

-- One call site, asked different things -------------------------------------------------------------------
CREATE FUNCTION pg_temp.ask(names text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text;
    path text[];
    required boolean;
    result text := '';
BEGIN
    FOREACH name IN ARRAY names LOOP
        BEGIN
            required := scrapersky.require_permission(name);
        EXCEPTION WHEN insufficient_privilege THEN
            required := false;
        END;
        path := ARRAY[name];
        result := concat_ws(' ', nullif(result, ''), concat(left(scrapersky.has_permission(name)::text, 1), left(scrapersky.has_role(name)::text, 1), left(required::text, 1), scrapersky.claim(VARIADIC path)));
    END LOOP;
    RETURN result;
END
$$;
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT is(pg_temp.ask('{pages:read,users:manage,pages:write,WRITER,READER,sub,exp,missing}'), 'tft fff tft ftf fff fffalice fff4102444800 fff', 'variables in plpgsql');
SELECT is(pg_temp.ask('{missing,sub,READER,WRITER,users:manage,pages:write,pages:read}'), 'fff fffalice fff ftf fff tft tft', 'in another order');
SELECT is((SELECT string_agg(left(scrapersky.has_permission(p)::text, 1), '' ORDER BY i) FROM unnest('{pages:read,users:manage,pages:write,x}'::text[]) WITH ORDINALITY u (p, i)), 'tftf', 'columns');
CREATE FUNCTION pg_temp.ask_sql(p text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT scrapersky.has_permission(p)';
SELECT is((SELECT string_agg(left(pg_temp.ask_sql(p)::text, 1), '' ORDER BY i) FROM unnest('{pages:read,users:manage,pages:write,x}'::text[]) WITH ORDINALITY u (p, i)), 'tftf', 'parameters of SQL functions');
CREATE FUNCTION pg_temp.ask_plain(p text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN scrapersky.has_permission(p); END$$;
SELECT is((SELECT string_agg(left(pg_temp.ask_plain(p)::text, 1), '' ORDER BY i) FROM unnest('{pages:read,users:manage,pages:write,x}'::text[]) WITH ORDINALITY u (p, i)), 'tftf', 'parameters of plpgsql functions');
PREPARE question (text) AS SELECT scrapersky.has_permission($1);
SELECT is(concat(pg_temp.fetched('EXECUTE question (''pages:read'')'), pg_temp.fetched('EXECUTE question (''x'')'), pg_temp.fetched('EXECUTE question (''pages:write'')')), 'truefalsetrue', 'parameters of prepared statements');
-- one that goes on while the identity changes
CREATE FUNCTION pg_temp.ask_around() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := '';
BEGIN
    FOR i IN 1..6 LOOP
        PERFORM test.become(CASE i % 2 WHEN 0 THEN 'alice' ELSE 'carol' END);
        result := result || concat(left(scrapersky.current_subject(), 1), right(scrapersky.current_tenant_id()::text, 1), left(scrapersky.has_permission('pages:write')::text, 1), left(scrapersky.has_role('WRITER')::text, 1), left(scrapersky.claim('sub'), 1), ' ');
    END LOOP;
    RETURN result;
END
$$;
SELECT is(pg_temp.ask_around(), repeat('cbffc aatta ', 3), 'the identity changes around a call site');
COMMIT;

-- A change within a statement: what was answered stays as it was ------------------------------------------------
CREATE FUNCTION pg_temp.switch(subject text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM test.become(subject);
    -- use the memory that may have become free
    PERFORM repeat(chr(i), 4000) FROM generate_series(65, 90) i;
    RETURN subject;
END
$$;
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT is(format('%s|%s|%s', scrapersky.current_tenant_id(), pg_temp.switch('carol'), scrapersky.current_tenant_id()), :'acme' || '|carol|' || :'globex', 'format(current_tenant_id(), a change, current_tenant_id())');
SELECT test.become('alice') \g /dev/null
SELECT is(format('%s|%s|%s|%s', scrapersky.current_subject(), scrapersky.claim('sub'), scrapersky.current_user_id(), pg_temp.switch('carol')), 'alice|alice|00000000-0000-4000-8000-0000000000a1|carol', 'of subject, claim and user');
SELECT test.become('alice') \g /dev/null
SELECT is(format('%s|%s|%s|%s', scrapersky.current_roles(), scrapersky.current_permissions(), pg_temp.switch('carol'), scrapersky.current_roles()), '{WRITER}|{pages:read,pages:write}|carol|{READER}', 'of roles and permissions');
SELECT test.become('alice') \g /dev/null
SELECT is((SELECT string_agg(right(a::text, 1) || right(b::text, 1), '' ORDER BY i) FROM (SELECT i, scrapersky.current_tenant_id() AS a, pg_temp.switch(CASE i % 2 WHEN 0 THEN 'alice' ELSE 'carol' END) AS who, scrapersky.current_tenant_id() AS b
    FROM generate_series(1, 200) i OFFSET 0) s), repeat('abba', 100), '200 changes in one statement');
SELECT test.become('alice') \g /dev/null
SELECT is((SELECT array_agg(DISTINCT (w).subject || (w).tenant_name) FROM (SELECT scrapersky.whoami() AS w, pg_temp.switch('carol') FROM generate_series(1, 3) OFFSET 0) s), '{aliceAcme,carolGlobex}', 'whoami() before and after');
COMMIT;

-- Cursors ---------------------------------------------------------------------------------------------------------
BEGIN;
SELECT test.become('alice') \g /dev/null
DECLARE c CURSOR FOR SELECT id FROM regress_sky.pages ORDER BY id;
CREATE FUNCTION pg_temp.fetch_one(cursor refcursor) RETURNS int LANGUAGE plpgsql AS $$DECLARE r int; BEGIN FETCH cursor INTO r; RETURN r; END$$;
SELECT is(pg_temp.fetch_one('c'), 4, 'a cursor of alice''s');
SELECT throws_ok($$SELECT test.become('carol')$$, '55006', 'cannot change the identity while cursors are open', 'no other user while it is open');
SELECT is(pg_temp.who(), 'alice of a', 'alice it is');
SELECT is(pg_temp.fetch_one('c'), 8, 'the cursor goes on');
SELECT lives_ok($$SELECT test.become('alice')$$, 'the same user in the same tenant may');
SELECT is(pg_temp.fetch_one('c'), 12, 'the cursor goes on');
SELECT lives_ok($$SELECT test.become('alice') FROM generate_series(1, 150)$$, '150 times');
SELECT is(pg_temp.fetch_one('c'), 16, 'and on');
-- without an identity it gives no rows, and there is no way round by dropping it
SAVEPOINT s;
SELECT scrapersky.clear_identity() \g /dev/null
SELECT throws_ok($$SELECT test.become('carol')$$, '55006', NULL, 'nor from nobody');
SELECT throws_ok($$SELECT pg_temp.fetch_one('c')$$, '42501', 'no identity in this transaction', 'nobody''s cursor');
ROLLBACK TO s;
COMMIT;
-- one that is opened before there is an identity
BEGIN;
DECLARE c CURSOR FOR SELECT 1;
SELECT throws_ok($$SELECT test.become('alice')$$, '55006', NULL, 'a cursor from before');
CLOSE c;
SELECT lives_ok($$SELECT test.become('alice')$$, 'closed, it does not matter');
COMMIT;
-- WITH HOLD: it lives on, and nobody becomes anybody while it does
BEGIN;
SELECT test.become('alice') \g /dev/null
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM regress_sky.pages ORDER BY id;
COMMIT;
BEGIN;
SELECT throws_ok($$SELECT test.become('carol')$$, '55006', NULL, 'WITH HOLD, in the next transaction: carol');
SELECT throws_ok($$SELECT test.become('alice')$$, '55006', NULL, 'alice');
SELECT is(pg_temp.who(), 'nobody', 'nobody');
CLOSE held;
SELECT lives_ok($$SELECT test.become('carol')$$, 'closed, carol may');
COMMIT;
-- plpgsql: FOR loops, refcursors
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT throws_ok($q$DO $do$ DECLARE r record; BEGIN FOR r IN SELECT id FROM regress_sky.pages LOOP PERFORM test.become('carol'); END LOOP; END $do$$q$, '55006', NULL, 'within a FOR loop over a query');
SELECT throws_ok($q$DO $do$ DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT id FROM regress_sky.pages' LOOP PERFORM test.become('carol'); END LOOP; END $do$$q$, '55006', NULL, 'over EXECUTE');
SELECT throws_ok($q$DO $do$ DECLARE c CURSOR FOR SELECT id FROM regress_sky.pages; BEGIN FOR r IN c LOOP PERFORM test.become('carol'); END LOOP; END $do$$q$, '55006', NULL, 'over a cursor');
SELECT throws_ok($q$DO $do$ DECLARE c refcursor; BEGIN OPEN c FOR SELECT id FROM regress_sky.pages; PERFORM test.become('carol'); END $do$$q$, '55006', NULL, 'with a refcursor open');
SELECT lives_ok($q$DO $do$ BEGIN FOR i IN 1..3 LOOP PERFORM test.become('carol'); PERFORM test.become('alice'); END LOOP; END $do$$q$, 'a FOR loop over numbers has no cursor');
SELECT is(pg_temp.who(), 'alice of a', 'alice it is');
COMMIT;
-- a cursor is refused by its end, too: one that is rolled back does not matter
BEGIN;
SELECT test.become('alice') \g /dev/null
SAVEPOINT s;
DECLARE c CURSOR FOR SELECT 1;
ROLLBACK TO s;
SELECT lives_ok($$SELECT test.become('carol')$$, 'a cursor that was rolled back');
COMMIT;

-- Parallel workers -----------------------------------------------------------------------------------------------
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
-- workers that a query had, by its own account
CREATE FUNCTION pg_temp.workers(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) ' || query INTO plan;
    RETURN coalesce((SELECT sum(w::text::int) FROM jsonb_path_query(plan::jsonb, '$.**."Workers Launched"') w), 0);
END
$$;
CREATE TEMP TABLE queries (name text, query text);
INSERT INTO queries VALUES
    ('all rows', 'SELECT count(*), sum(id::bigint), count(DISTINCT tenant_id) FROM regress_sky.pages'),
    ('with a permission', 'SELECT count(*), sum(id::bigint), min(tenant_id::text) FROM regress_sky.notes'),
    ('with a permission that hides', 'SELECT count(*), sum(id::bigint), max(tenant_id::text) FROM regress_sky.hidden'),
    ('questions in the target', $$SELECT count(*), min(scrapersky.current_subject() || scrapersky.claim('sub') || scrapersky.has_permission('pages:write')::text || scrapersky.has_role('WRITER')::text || scrapersky.current_roles()::text),
        max(scrapersky.current_user_id()::text || scrapersky.current_tenant_id()::text || scrapersky.is_authenticated()::text || scrapersky.current_permissions()::text) FROM regress_sky.pages$$),
    ('a join', 'SELECT count(*), sum(p.id::bigint), sum(n.id::bigint) FROM regress_sky.pages p JOIN regress_sky.notes n USING (id, tenant_id)'),
    ('sorted', 'SELECT string_agg(id::text, '' '') FROM (SELECT id FROM regress_sky.pages WHERE id % 100 < 8 ORDER BY title, id) s');
CREATE FUNCTION pg_temp.all_in_one(query text) RETURNS text LANGUAGE plpgsql AS $$DECLARE result record; BEGIN EXECUTE query INTO result; RETURN result::text; END$$;
-- what a serial plan returns
CREATE TEMP TABLE serial (who text, name text, result text);
SET max_parallel_workers_per_gather = 0;
BEGIN;
SELECT test.become('alice') \g /dev/null
INSERT INTO serial SELECT 'alice', name, pg_temp.all_in_one(query) FROM queries;
SELECT is(sum(pg_temp.workers(query)), 0::bigint, 'serial plans') FROM queries;
SELECT test.become('carol') \g /dev/null
INSERT INTO serial SELECT 'carol', name, pg_temp.all_in_one(query) FROM queries;
COMMIT;
SELECT isnt(a.result, c.result, 'alice and carol differ: ' || name) FROM serial a JOIN serial c USING (name) WHERE a.who = 'alice' AND c.who = 'carol';
SET max_parallel_workers_per_gather = 2;
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT cmp_ok(pg_temp.workers(query), '>', 0, 'workers for alice: ' || name) FROM queries;
SELECT is(pg_temp.all_in_one(query), result, 'alice in parallel: ' || name) FROM queries JOIN serial USING (name) WHERE who = 'alice';
SELECT test.become('carol') \g /dev/null
SELECT cmp_ok(pg_temp.workers(query), '>', 0, 'workers for carol: ' || name) FROM queries;
SELECT is(pg_temp.all_in_one(query), result, 'carol in parallel: ' || name) FROM queries JOIN serial USING (name) WHERE who = 'carol';
-- without the leader
SET LOCAL parallel_leader_participation = off;
SELECT is(pg_temp.all_in_one(query), result, 'carol without the leader: ' || name) FROM queries JOIN serial USING (name) WHERE who = 'carol';
COMMIT;
-- a permission that is not there is an error in a worker, too
BEGIN;
SELECT test.become('carol') \g /dev/null
SET LOCAL parallel_leader_participation = off;
SELECT throws_ok($$SELECT count(*) FROM regress_sky.pages WHERE scrapersky.require_permission('pages:write') OR id < 0$$, '42501', 'permission "pages:write" is required', 'a denial in a worker');
SELECT is(pg_temp.fetched($$SELECT count(*) FROM regress_sky.pages WHERE scrapersky.has_permission('pages:write')$$), '0', 'a question in a worker');
COMMIT;
SELECT throws_ok('SELECT count(*) FROM regress_sky.pages', '42501', 'no identity in this transaction', 'nobody in parallel');
SELECT is(pg_temp.fetched('SELECT count(*) FROM generate_series(1, 3) WHERE scrapersky.is_authenticated()'), '0', 'is_authenticated() without');
RESET ALL;
SET client_min_messages = warning;

-- Estimates --------------------------------------------------------------------------------------------------------
-- the planner does not think that a permission filters rows
CREATE FUNCTION pg_temp.estimate(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN (plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric;
END
$$;
BEGIN;
SELECT test.become('alice') \g /dev/null
SELECT cmp_ok(pg_temp.estimate('SELECT * FROM regress_sky.pages'), '>', 4000::numeric, 'an estimate of the tenant''s rows');
SELECT cmp_ok(pg_temp.estimate('SELECT * FROM regress_sky.pages'), '<', 6000::numeric, 'that is near their number');
SELECT is(pg_temp.estimate('SELECT * FROM regress_sky.notes'), pg_temp.estimate('SELECT * FROM regress_sky.pages'), 'the same with a permission');
SELECT is(pg_temp.estimate('SELECT * FROM regress_sky.hidden'), pg_temp.estimate('SELECT * FROM regress_sky.pages'), 'and with one that hides');
SELECT is(pg_temp.estimate('SELECT * FROM regress_sky.pages WHERE ' || test), pg_temp.estimate('SELECT * FROM regress_sky.pages'), 'and with ' || test)
FROM unnest(ARRAY[$$scrapersky.has_permission('x')$$, $$scrapersky.has_role('x')$$, $$scrapersky.require_permission('pages:read')$$]) test;
-- an index is used
CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    result text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        result := result || line || E'\n';
    END LOOP;
    RETURN result;
END
$$;
SET LOCAL enable_seqscan = off;
SELECT matches(pg_temp.plan('SELECT * FROM regress_sky.notes'), 'Index Cond: \(tenant_id = scrapersky.current_tenant_id\(\)\)', 'the tenant''s index serves the policy');
SELECT doesnt_match(pg_temp.plan('SELECT * FROM regress_sky.pages'), 'Filter', 'with nothing to filter where no permission is asked for');
COMMIT;

-- Errors say nothing of others' rows ----------------------------------------------------------------------------------
BEGIN;
SELECT test.become('alice') \g /dev/null
CREATE FUNCTION pg_temp.leak(id int, title text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN IF id % 4 <> 0 THEN RAISE EXCEPTION 'leaked: %', title; END IF; RETURN true; END$$;
SELECT lives_ok('SELECT * FROM regress_sky.pages WHERE pg_temp.leak(id, title)', 'a cheap function sees the tenant''s rows only');
SELECT lives_ok('SELECT * FROM regress_sky.notes WHERE pg_temp.leak(id, title)', 'with a permission');
SELECT lives_ok('UPDATE regress_sky.notes SET title = title WHERE pg_temp.leak(id, title)', 'in UPDATE');
SELECT lives_ok('DELETE FROM regress_sky.notes WHERE pg_temp.leak(id, title)', 'in DELETE');
SELECT lives_ok('SELECT 1 / (id % 4 - 1) FROM regress_sky.pages', 'a division by zero in others'' rows');
SELECT lives_ok('SELECT * FROM regress_sky.pages p JOIN (VALUES (1), (4)) v (id) ON pg_temp.leak(p.id, p.title) AND p.id = v.id', 'in a join');
COMMIT;

SELECT * FROM finish();
\c - :super
SET client_min_messages = warning;
DROP SCHEMA regress_sky, test CASCADE;
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DELETE FROM scrapersky.roles WHERE NOT builtin;
DELETE FROM scrapersky.permissions WHERE NOT builtin;
DROP ROLE regress_sky_app;
