\set sign_echo :ECHO
\set ECHO none
-- sign.sql: functions that sign tokens in SQL, by pgcrypto: independent of the
-- library that the extension verifies them with.  A superuser includes it:
--
--   test/pgtap:  \ir ../lib/sign.sql
--   test/sql:    \getenv abs_srcdir PG_ABS_SRCDIR
--                \set sign :abs_srcdir '/lib/sign.sql'
--                \i :sign
--
-- Then any role may call them:
--
--   SELECT test.sign('{"sub": "alice", "exp": 4102444800}') AS token \gset
--   SELECT scrapersky.authenticate(:'token');
--
-- Every token is also appended to the file that SKY_SECRETS names in the
-- server's environment, for the search of the logs that ends `make check`.
\set sign_quiet :QUIET
\set QUIET on
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS test;
GRANT USAGE ON SCHEMA test TO PUBLIC;
CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA test;

-- the secret of the server
CREATE OR REPLACE FUNCTION test.secret() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN regexp_replace(pg_read_file(current_setting('scrapersky.jwt_secret_file')), E'\n$', '');

-- base64url without padding
CREATE OR REPLACE FUNCTION test.base64url(bytea) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN translate(encode($1, 'base64'), E'+/=\n', '-_');

-- tells the search of the logs about a token or secret, and returns it
CREATE OR REPLACE FUNCTION test.tell_secret(told text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', told, 'cat >> "${SKY_SECRETS:-/dev/null}"');
    RETURN told;
END $$;

-- a token of any payload and header, well formed or not
CREATE OR REPLACE FUNCTION test.sign_raw(payload bytea, secret text DEFAULT test.secret(),
    header bytea DEFAULT '{"alg":"HS256","typ":"JWT"}', hash text DEFAULT 'sha256') RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    signed text := test.base64url(header) || '.' || test.base64url(payload);
BEGIN
    RETURN test.tell_secret(signed || '.' ||
        test.base64url(test.hmac(convert_to(signed, 'UTF8'), convert_to(secret, 'UTF8'), hash)));
END $$;

-- a token
CREATE OR REPLACE FUNCTION test.sign(claims jsonb, secret text DEFAULT test.secret(),
    header text DEFAULT '{"alg":"HS256","typ":"JWT"}') RETURNS text
    LANGUAGE sql
    RETURN test.sign_raw(convert_to(claims::text, 'UTF8'), secret, convert_to(header, 'UTF8'));

RESET client_min_messages;
\set QUIET :sign_quiet
\set ECHO :sign_echo
