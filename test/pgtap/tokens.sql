-- tokens.sql: every way that we know to get a token accepted that should not be;
-- tried by a role without attributes, over its own connection.  What is refused
-- is refused with one SQLSTATE and one message, and nothing else.
\set ECHO none
SET client_min_messages = warning;
\ir ../lib/sign.sql
SET client_min_messages = warning;
SELECT current_user AS super \gset
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA test;
CREATE ROLE regress_sky_app LOGIN;
DO $$
BEGIN
    PERFORM scrapersky.create_tenant('Acme', 'acme', '00000000-0000-4000-8000-00000000000a');
    PERFORM scrapersky.create_tenant('Globex', 'globex', '00000000-0000-4000-8000-00000000000b');
    PERFORM scrapersky.create_user('alice', id => '00000000-0000-4000-8000-0000000000a1');
    PERFORM scrapersky.create_user('bob', id => '00000000-0000-4000-8000-0000000000a2');
    PERFORM scrapersky.create_user(repeat('x', 255), id => '00000000-0000-4000-8000-0000000000a3');
    PERFORM scrapersky.create_user('ä€😀', id => '00000000-0000-4000-8000-0000000000a4');
    PERFORM scrapersky.add_member('00000000-0000-4000-8000-00000000000a', id) FROM scrapersky.users;
END
$$;

-- What becomes of a token: 'accepted', or everything that the client is told.
CREATE FUNCTION test.attempt(token text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    PERFORM scrapersky.authenticate(token);
    IF NOT scrapersky.is_authenticated() THEN
        RETURN 'no error, and no identity';
    END IF;
    PERFORM scrapersky.clear_identity();
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    IF scrapersky.is_authenticated() THEN
        RETURN 'an error, and an identity';
    END IF;
    RETURN concat_ws('|', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;
\set refused '28000|authentication failed'
CREATE FUNCTION test.refused(token text, description text) RETURNS text LANGUAGE sql AS
    'SELECT public.is(test.attempt(token), ''28000|authentication failed'', description)';
CREATE FUNCTION test.accepted(token text, description text) RETURNS text LANGUAGE sql AS
    'SELECT public.is(test.attempt(token), ''accepted'', description)';
-- A token of these segments, whatever they are, with a good signature.
CREATE FUNCTION test.seal(header text, payload text) RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT test.tell_secret(header || '.' || payload || '.' ||
        test.base64url(test.hmac(convert_to(header || '.' || payload, 'UTF8'), convert_to(test.secret(), 'UTF8'), 'sha256')))
$$;
-- A token of this payload as it is written.
CREATE FUNCTION test.sign_text(payload text, header text DEFAULT '{"alg":"HS256","typ":"JWT"}') RETURNS text
    LANGUAGE sql RETURN test.sign_raw(convert_to(payload, 'UTF8'), header => convert_to(header, 'UTF8'));
-- Some bytes; one that says where it is wrong.
CREATE FUNCTION test.debase64url(segment text) RETURNS bytea LANGUAGE sql
    RETURN decode(rpad(translate(segment, '-_', '+/'), (length(segment) + 3) / 4 * 4, '='), 'base64');
CREATE FUNCTION test.now() RETURNS bigint LANGUAGE sql RETURN floor(extract(epoch FROM clock_timestamp()))::bigint;
-- Changes the server's configuration; when it returns, the next statement sees it.
CREATE FUNCTION test.configure(name text, value text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    self text := format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
        current_setting('port'), current_database(), current_user);
    result text;
BEGIN
    PERFORM test.dblink_exec(self, format('ALTER SYSTEM SET %s = %L', name, value));
    PERFORM pg_reload_conf();
    -- who connects after the postmaster knows, does so after it told the others
    FOR attempt IN 1..200 LOOP
        SELECT r.value INTO result FROM test.dblink(self, format('SELECT current_setting(%L)', name)) AS r (value text);
        EXIT WHEN result = value;
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;

\c - regress_sky_app
SELECT * FROM no_plan();
SELECT test.accepted(test.sign('{"sub": "alice", "exp": 4102444800}'), 'a good token');
SELECT test.refused(NULL, 'null');

-- The header ------------------------------------------------------------------------------
-- each with a good signature of its kind, HMAC-SHA-256 if there is no other
SELECT test.refused(test.sign_raw('{"sub":"alice","exp":4102444800}', header => convert_to(header, 'UTF8')), 'header ' || header) FROM unnest(ARRAY[
    '{"alg":"none"}', '{"alg":"None"}', '{"alg":"nOnE"}', '{"alg":"NONE"}', '{"alg":""}', '{"typ":"JWT"}', '{}', '{"alg":null}', '{"alg":256}',
    '{"alg":true}', '{"alg":["HS256"]}', '{"alg":{"HS256":1}}', '{"alg":"hs256"}', '{"alg":"HS256 "}', '{"alg":" HS256"}', '{"alg":"HS256\u0000"}',
    '{"alg":"HS25"}', '{"alg":"HS2566"}', '{"alg":"HS256","alg":"HS256"}', '{"alg":"none","alg":"HS256"}', '{"alg":"HS256","alg":"none"}',
    '{"alg":"HS256","\u0061lg":"none"}', '{"\u0061lg":"none","alg":"HS256"}', '{"ALG":"HS256"}',
    '{"alg":"HS384"}', '{"alg":"HS512"}', '{"alg":"RS256"}', '{"alg":"RS512"}', '{"alg":"ES256"}', '{"alg":"PS256"}', '{"alg":"EdDSA"}', '{"alg":"dir"}',
    '{"alg":"HS256","crit":["exp"]}', '{"alg":"HS256","crit":[]}', '{"alg":"HS256","crit":null}', '{"alg":"HS256","cr\u0069t":["b64"],"b64":false}',
    '{"alg":"HS256","b64":false}', '{"alg":"HS256","b64":true}', '{"alg":"HS256","zip":"DEF"}', '{"alg":"HS256","enc":"A128GCM"}',
    '{"alg":"HS256","cty":"JWT"}', '{"alg":"HS256","cty":""}', '{"alg":"HS256","typ":"JWE"}', '{"alg":"HS256","typ":"at+jwt"}', '{"alg":"HS256","typ":""}',
    '{"alg":"HS256","typ":null}', '{"alg":"HS256","typ":1}', '{"alg":"HS256","typ":["JWT"]}', '{"alg":"HS256","typ":"JWT\u0000"}',
    '["alg","HS256"]', '"HS256"', 'null', '1', 'true', 'HS256', '', ' ', '{"alg":"HS256"', '{"alg":"HS256"}}', '{"alg":"HS256"}{}', '{"alg":"HS256"} x',
    '{"alg":"HS256",}', '{''alg'':''HS256''}', '{alg:"HS256"}', '{"alg":"HS256"/**/}', U&'\FEFF{"alg":"HS256"}', '{"alg":"HS256","x":NaN}',
    '{"alg":"HS256","x":1e400}', '{"alg":"HS256","x":"\ud800"}', '{"alg":"HS256","\u0000":1}', '{"alg":"HS256","x":"' || chr(10) || '"}']) header;
SELECT test.refused(test.sign_raw('{"sub":"alice","exp":4102444800}', header => convert_to(header, 'UTF8'), hash => hash), 'header ' || header || ' with ' || hash) FROM (VALUES
    ('{"alg":"HS384"}', 'sha384'), ('{"alg":"HS512"}', 'sha512'), ('{"alg":"HS256"}', 'sha384'), ('{"alg":"HS256"}', 'sha512'), ('{"alg":"HS256"}', 'sha1'),
    ('{"alg":"HS256"}', 'md5'), ('{"alg":"HS384"}', 'sha256')) v (header, hash);
-- without a signature, or one of nothing
SELECT test.refused(test.base64url(convert_to(header, 'UTF8')) || '.' || test.base64url('{"sub":"alice","exp":4102444800}') || '.' || signature, header || ' with signature ' || signature) FROM
    unnest(ARRAY['{"alg":"none"}', '{"alg":"None"}', '{"alg":""}', '{"typ":"JWT"}', '{"alg":"HS256"}', '{"alg":"RS256"}']) header, unnest('{"",AA,AAAA,bm9uZQ}'::text[]) signature;
SELECT test.refused(test.sign_raw('{"sub":"alice","exp":4102444800}', header => header), 'header of bytes ' || header::text) FROM unnest(ARRAY[
    '\x7b22616c67223a224853323536227d00', '\x007b22616c67223a224853323536227d', '\x7b22616c67223a224853323536222c2278223a22ff227d',
    '\x7b22616c67223a224853323536222c2278223a22c080227d', '\xefbbbf7b22616c67223a224853323536227d', '\xfffe7b00']::bytea[]) header;
-- what a header may have; keys that it brings are not looked at
SELECT test.accepted(test.sign_raw('{"sub":"alice","exp":4102444800}', header => convert_to(header, 'UTF8')), 'header ' || left(header, 80)) FROM unnest(ARRAY[
    '{"alg":"HS256"}', '{"alg":"HS256","typ":"JWT"}', '{"typ":"jwt","alg":"HS256"}', ' { "alg" : "HS256" } ', '{"alg":"HS256","kid":"x"}', '{"alg":"\u0048S256"}',
    '{"alg":"HS256","kid":"../../../dev/null"}', '{"alg":"HS256","kid":"'' UNION SELECT ''key"}', '{"alg":"HS256","kid":["x"]}', '{"alg":"HS256","kid":"' || repeat('x', 5000) || '"}',
    '{"alg":"HS256","jku":"http://127.0.0.1/keys","x5u":"http://127.0.0.1/"}', '{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"x5c":["AAAA"]}']) header;
-- a key that the header brings does not sign
SELECT test.refused(test.sign('{"sub": "alice", "exp": 4102444800}', 'a key of my own, long enough for HMAC',
    '{"alg":"HS256","jwk":{"kty":"oct","k":"YSBrZXkgb2YgbXkgb3duLCBsb25nIGVub3VnaCBmb3IgSE1BQw"}}'), 'signed with the key that the header brings');
SELECT test.accepted(test.sign('{"sub": "alice", "exp": 4102444800}'), 'a good token after bad headers');

-- The signature ------------------------------------------------------------------------------
SELECT test.sign('{"sub": "alice", "exp": 4102444800}') AS good \gset
SELECT set_config('test.good', :'good', false) IS NOT NULL AS set \g /dev/null
CREATE FUNCTION pg_temp.good() RETURNS text LANGUAGE sql STABLE RETURN current_setting('test.good');
CREATE FUNCTION pg_temp.part(n int) RETURNS text LANGUAGE sql STABLE RETURN split_part(current_setting('test.good'), '.', n);
SELECT test.accepted(pg_temp.good(), 'the token that is mistreated next');
-- each bit of each byte
SELECT is(test.attempt(pg_temp.part(1) || '.' || pg_temp.part(2) || '.' ||
        test.base64url(set_bit(test.debase64url(pg_temp.part(3)), bit, 1 - get_bit(test.debase64url(pg_temp.part(3)), bit)))),
    :'refused', format('signature, bit %s', bit)) FROM generate_series(0, 255) bit;
-- each bit of header and claims
SELECT is(count(*) FILTER (WHERE test.attempt(test.base64url(set_bit(test.debase64url(pg_temp.part(1)), bit, 1 - get_bit(test.debase64url(pg_temp.part(1)), bit)))
        || '.' || pg_temp.part(2) || '.' || pg_temp.part(3)) <> :'refused'), 0::bigint, 'no bit of the header')
FROM generate_series(0, 8 * length(test.debase64url(pg_temp.part(1))) - 1) bit;
SELECT is(count(*) FILTER (WHERE test.attempt(pg_temp.part(1) || '.' || test.base64url(set_bit(test.debase64url(pg_temp.part(2)), bit, 1 - get_bit(test.debase64url(pg_temp.part(2)), bit)))
        || '.' || pg_temp.part(3)) <> :'refused'), 0::bigint, 'no bit of the claims')
FROM generate_series(0, 8 * length(test.debase64url(pg_temp.part(2))) - 1) bit;
-- each character replaced, left out, doubled
SELECT is(count(*) FILTER (WHERE test.attempt(overlay(pg_temp.good() PLACING replacement FROM i FOR 1)) <> :'refused'), 0::bigint, format('each character replaced by %L', replacement))
FROM generate_series(1, length(pg_temp.good())) i, unnest(ARRAY['', '.', '=', '+', ' ', '*', U&'\00e4', U&'\FF0E']) replacement
WHERE substr(pg_temp.good(), i, 1) <> replacement GROUP BY replacement ORDER BY replacement COLLATE "C";
SELECT is(count(*) FILTER (WHERE test.attempt(overlay(pg_temp.good() PLACING repeat(substr(pg_temp.good(), i, 1), 2) FROM i FOR 1)) <> :'refused'), 0::bigint, 'each character doubled')
FROM generate_series(1, length(pg_temp.good())) i;
-- each shorter one
SELECT is(count(*) FILTER (WHERE test.attempt(left(pg_temp.good(), i)) <> :'refused'), 0::bigint, 'each beginning of it') FROM generate_series(0, length(pg_temp.good()) - 1) i;
SELECT is(count(*) FILTER (WHERE test.attempt(right(pg_temp.good(), i)) <> :'refused'), 0::bigint, 'each end of it') FROM generate_series(0, length(pg_temp.good()) - 1) i;
-- the spare bits of its last character
SELECT test.refused(left(pg_temp.good(), -1) || substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
    strpos('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_', right(pg_temp.good(), 1)) + spare, 1), format('spare bits %s', spare)) FROM generate_series(1, 3) spare;
-- longer, and of other things
SELECT test.refused(pg_temp.part(1) || '.' || pg_temp.part(2) || '.' || signature, description) FROM (VALUES
    (pg_temp.part(3) || 'A', 'a longer signature'), (pg_temp.part(3) || pg_temp.part(3), 'the signature twice'), (test.base64url(decode(repeat('00', 32), 'hex')), 'a signature of zeros'),
    (encode(test.debase64url(pg_temp.part(3)), 'hex'), 'the signature in hexadecimal'), (split_part(test.sign('{"sub": "bob", "exp": 4102444800}'), '.', 3), 'another token''s signature'),
    (test.base64url(sha256(convert_to(pg_temp.part(1) || '.' || pg_temp.part(2), 'UTF8'))), 'a hash without a key')) v (signature, description);
-- of other keys
SELECT test.refused(test.sign('{"sub": "alice", "exp": 4102444800}', key), description) FROM (VALUES ('', 'the empty key'), (test.secret() || E'\n', 'the secret with its newline'),
    (left(test.secret(), -1), 'the secret but for its end'), (upper(test.secret()), 'the secret in capitals'), (test.base64url(convert_to(test.secret(), 'UTF8')), 'the secret in base64'),
    (encode(convert_to(test.secret(), 'UTF8'), 'hex'), 'the secret in hexadecimal'), ('secret', 'a guess')) v (key, description);
-- claims of one, signature of another
SELECT test.refused(split_part(test.sign('{"sub": "bob", "exp": 4102444800}'), '.', 1) || '.' || split_part(test.sign('{"sub": "bob", "exp": 4102444800}'), '.', 2) || '.' || pg_temp.part(3), 'bob''s claims with alice''s signature');
SELECT test.accepted(pg_temp.good(), 'a good token after bad signatures');

-- The form ------------------------------------------------------------------------------------
SELECT test.refused(token, description) FROM (VALUES
    ('', 'empty'), ('.', 'a dot'), ('..', 'two dots'), ('...', 'three dots'), (pg_temp.part(1), 'one segment'), (pg_temp.part(1) || '.' || pg_temp.part(2), 'two segments'),
    (pg_temp.part(1) || '.' || pg_temp.part(2) || '.', 'no signature'), (pg_temp.good() || '.', 'a dot at its end'), ('.' || pg_temp.good(), 'a dot at its beginning'),
    (pg_temp.good() || '.AAAA', 'four segments'), (pg_temp.good() || '.AAAA.AAAA', 'five segments'), (pg_temp.part(1) || '..' || pg_temp.part(3), 'no claims'), ('.' || pg_temp.part(2) || '.' || pg_temp.part(3), 'no header'),
    (pg_temp.good() || ' ', 'a space at its end'), (' ' || pg_temp.good(), 'a space at its beginning'), (pg_temp.good() || E'\n', 'a newline at its end'), (pg_temp.good() || E'\r\n', 'CR and LF at its end'),
    (pg_temp.good() || E'\t', 'a tabulator at its end'), ('Bearer ' || pg_temp.good(), 'Bearer'), ('"' || pg_temp.good() || '"', 'in quotes'), (pg_temp.good() || '=', 'padding at its end'),
    (pg_temp.good() || '%00', 'percent 00'), (pg_temp.good() || ',' || pg_temp.good(), 'two with a comma'), (U&'\FEFF' || pg_temp.good(), 'a byte order mark before it'),
    (replace(pg_temp.good(), '.', U&'\3002'), 'other dots'), (upper(pg_temp.good()), 'in capitals'), (lower(pg_temp.good()), 'in small letters'), (reverse(pg_temp.good()), 'backwards'),
    ('{"payload":"' || pg_temp.part(2) || '"}', 'JSON serialisation'), (repeat('.', 16384), 'dots only'), (repeat('a', 16384), 'one long segment'), ('a.b.c', 'a.b.c'), ('😀.😀.😀', 'emoji')) v (token, description);
-- signed as it is written, but not written as it should be
SELECT test.refused(test.seal(header, payload), description) FROM (VALUES
    (pg_temp.part(1) || '=', pg_temp.part(2), 'padding of the header'), (pg_temp.part(1), pg_temp.part(2) || '=', 'padding of the claims'), (pg_temp.part(1), pg_temp.part(2) || '==', 'more padding'),
    (pg_temp.part(1), pg_temp.part(2) || E'\n', 'a newline after the claims'), (pg_temp.part(1), overlay(pg_temp.part(2) PLACING E'\n' FROM 5 FOR 0), 'a newline within the claims'),
    (pg_temp.part(1), overlay(pg_temp.part(2) PLACING ' ' FROM 5 FOR 0), 'a space within the claims'), (' ' || pg_temp.part(1), pg_temp.part(2), 'a space before the header'),
    (pg_temp.part(1), translate(test.base64url(convert_to('{"sub":"alice","exp":4102444800,"x":"???~~~>>>"}', 'UTF8')), '-_', '+/'), 'the other alphabet'),
    (pg_temp.part(1), '', 'no claims'), ('', pg_temp.part(2), 'no header'), (pg_temp.part(1), pg_temp.part(2) || '.', 'a segment too many'), (pg_temp.part(1), '.' || pg_temp.part(2), 'an empty segment'),
    (pg_temp.part(1), pg_temp.part(2) || 'A', 'a character too many'), (pg_temp.part(1), 'A', 'one character of claims'), (pg_temp.part(1) || pg_temp.part(1), pg_temp.part(2), 'the header twice'),
    (pg_temp.part(1), pg_temp.part(2) || pg_temp.part(2), 'the claims twice'), (pg_temp.part(2), pg_temp.part(1), 'header and claims changed places'), (pg_temp.part(2), pg_temp.part(2), 'claims as header')) v (header, payload, description);
-- so the other alphabet was there to be seen
SELECT matches(test.base64url(convert_to('{"sub":"alice","exp":4102444800,"x":"???~~~>>>"}', 'UTF8')), '[-_]', 'claims that need - or _');
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"x":"???~~~>>>"}'), 'in their own alphabet');
-- spare bits of claims that leave some: 2 and 4 of them
CREATE FUNCTION pg_temp.spare(segment text) RETURNS text LANGUAGE sql RETURN left(segment, -1) ||
    substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
        strpos('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_', right(segment, 1)) + 1, 1);
CREATE TEMP TABLE spare AS SELECT length(payload) AS len, test.base64url(convert_to(payload, 'UTF8')) AS segment
FROM unnest(ARRAY['{"sub":"alice","exp":4102444800}', '{"sub":"alice","exp":4102444800}  ']) payload;
SELECT bag_eq('SELECT len % 3 FROM spare', 'VALUES (1), (2)', 'claims that leave 2 and 4 bits');
SELECT test.accepted(test.seal(pg_temp.part(1), segment), format('claims of %s bytes', len)) FROM spare;
SELECT test.refused(test.seal(pg_temp.part(1), pg_temp.spare(segment)), format('claims of %s bytes with a spare bit', len)) FROM spare;
SELECT test.accepted(pg_temp.good(), 'a good token after bad forms');

-- The claims as JSON ------------------------------------------------------------------------------
SELECT test.refused(test.sign_text(payload), 'claims ' || payload) FROM unnest(ARRAY[
    '[]', '[{"sub":"alice","exp":4102444800}]', '"alice"', 'null', 'true', '1', '{}', ' ', 'alice',
    '{"sub":"alice","exp":4102444800', '{"sub":"alice","exp":4102444800}}', '{"sub":"alice","exp":4102444800}{}', '{"sub":"alice","exp":4102444800} x', '{"sub":"alice","exp":4102444800},',
    '{"sub":"alice","exp":4102444800,}', '{,"sub":"alice","exp":4102444800}', '{"sub":"alice" "exp":4102444800}', '{''sub'':''alice'',"exp":4102444800}', '{sub:"alice","exp":4102444800}',
    '{"sub":"alice","exp":4102444800/* */}', '{"sub":"alice","exp":4102444800} // ', U&'\FEFF{"sub":"alice","exp":4102444800}',
    '{"sub":"alice","exp":04102444800}', '{"sub":"alice","exp":+4102444800}', '{"sub":"alice","exp":0xF4865700}', '{"sub":"alice","exp":4102444800.}', '{"sub":"alice","exp":.5e10}',
    '{"sub":"alice","exp":NaN}', '{"sub":"alice","exp":Infinity}', '{"sub":"alice","exp":-Infinity}', '{"sub":"alice","exp":4102444800,"x":1e400}', '{"sub":"alice","exp":4102444800,"x":99999999999999999999}',
    '{"sub":"al' || chr(10) || 'ice","exp":4102444800}', '{"sub":"al' || chr(9) || 'ice","exp":4102444800}', '{"sub":"al\xice","exp":4102444800}',
    '{"sub":"alice","sub":"alice","exp":4102444800}', '{"sub":"bob","sub":"alice","exp":4102444800}', '{"sub":"alice","sub":"bob","exp":4102444800}',
    '{"sub":"alice","s\u0075b":"bob","exp":4102444800}', '{"s\u0075b":"alice","sub":"bob","exp":4102444800}', '{"\u0073\u0075\u0062":"alice","sub":"alice","exp":4102444800}',
    '{"sub":"alice","exp":1,"exp":4102444800}', '{"sub":"alice","exp":4102444800,"exp":1}', '{"sub":"alice","exp":4102444800,"e\u0078p":1}',
    '{"sub":"alice","exp":4102444800,"tenant_id":"00000000-0000-4000-8000-00000000000a","tenant_id":"00000000-0000-4000-8000-00000000000a"}',
    '{"sub":"alice","exp":4102444800,"tenant_id":"00000000-0000-4000-8000-00000000000a","tenant\u005fid":"00000000-0000-4000-8000-00000000000b"}',
    '{"sub":"alice","exp":4102444800,"x":{"y":1,"y":2}}', '{"sub":"alice","exp":4102444800,"x":[{"y":1,"\u0079":1}]}',
    '{"sub":"alice\u0000","exp":4102444800}', '{"sub":"alice","exp":4102444800,"x":"\u0000"}', '{"sub":"alice","exp":4102444800,"x\u0000":1}', '{"sub":"alice","sub\u0000":"bob","exp":4102444800}',
    '{"sub":"\ud800","exp":4102444800}', '{"sub":"alice","exp":4102444800,"x":"\ud800"}', '{"sub":"alice","exp":4102444800,"x":"\udc00"}', '{"sub":"alice","exp":4102444800,"x":"\udc00\ud800"}',
    '{"sub":"alice","exp":4102444800,"x":"\ud800\u0041"}', '{"sub":"alice","exp":4102444800,"\ud800":1}', '{"sub":"alice","exp":4102444800,"x":"\u12"}', '{"sub":"alice","exp":4102444800,"x":"\uzzzz"}']) payload;
SELECT test.refused(test.sign_raw(convert_to('{"sub":"alice","exp":4102444800,"x":"', 'UTF8') || bytes || convert_to('"}', 'UTF8')), 'in a string, bytes ' || bytes::text) FROM unnest(ARRAY[
    '\x00', '\xff', '\x80', '\xc080', '\xc1bf', '\xc3', '\xe080af', '\xeda080', '\xedbfbf', '\xf08080af', '\xf4908080', '\xf5808080', '\xe282', '\xf09f98', '\x1f']::bytea[]) bytes;
SELECT test.refused(test.sign_raw(bytes), 'claims of bytes ' || left(bytes::text, 40)) FROM unnest(ARRAY[
    '\x00', '\xefbbbf' || convert_to('{"sub":"alice","exp":4102444800}', 'UTF8'), convert_to('{"sub":"alice","exp":4102444800}', 'UTF8') || '\x00', '\x00' || convert_to('{"sub":"alice","exp":4102444800}', 'UTF8'),
    convert_to('{"sub":"alice","exp":4102444800}', 'UTF8') || '\x00' || convert_to('{"sub":"bob"}', 'UTF8'), '\xfffe7b007d00', '\x7b007d00', decode(repeat('ff', 100), 'hex')]::bytea[]) bytes;
SELECT test.accepted(test.sign_text(payload), 'claims ' || payload) FROM unnest(ARRAY[
    ' { "sub" : "alice" , "exp" : 4102444800 } ', E'{"sub":"alice",\r\n\t"exp":4102444800}\n', '{"s\u0075b":"\u0061lice","exp":4102444800}', '{"sub":"alice","exp":4102444800,"Sub":"bob","SUB":1,"sub ":null}',
    '{"sub":"alice","exp":4102444800,"x":"\ud83d\ude00"}', '{"sub":"ä€😀","exp":4102444800}', '{"sub":"\u00e4\u20ac\ud83d\ude00","exp":4102444800}', '{"sub":"alice","exp":4102444800,"":""}',
    '{"sub":"alice","exp":4102444800,"x":-9223372036854775808,"y":9223372036854775807,"z":1.5e300}', '{"sub":"alice","exp":4102444800,"role":"postgres","admin":true,"user_id":"00000000-0000-4000-8000-0000000000a2","iss":1,"aud":{}}']) payload;
SELECT test.accepted(pg_temp.good(), 'a good token after bad JSON');

-- Moments ------------------------------------------------------------------------------------------
SELECT test.refused(test.sign_text(format('{"sub":"alice","exp":%s}', value)), 'exp ' || value) FROM unnest(ARRAY[
    'null', 'true', 'false', '"4102444800"', '""', '"never"', '[4102444800]', '[]', '{}', '0', '-0', '-0.0', '-1', '-4102444800', '-9223372036854775808', '1', '1.5',
    '1e400', '-1e400', '9223372036854775807', '9223372036854775808', '-9223372036854775809', '18446744073709551616', '253402300800', '253402300799.5e1', '1e300', '1e18', '1e-400', '4102444800000000000000']) value;
SELECT test.refused(test.sign('{"sub": "alice"}'), 'no exp');
SELECT test.refused(test.sign('{"sub": "alice", "Exp": 4102444800, "EXP": 4102444800, "expires": 4102444800}'), 'exp by other names');
SELECT test.accepted(test.sign_text(format('{"sub":"alice","exp":%s}', value)), 'exp ' || value) FROM unnest('{4102444800.5,4.1024448e9,4102444800E0,253402300799}'::text[]) value;
-- leeway: 30 seconds, after which it is over
SELECT is(current_setting('scrapersky.jwt_leeway'), '30s', 'the leeway');
SELECT test.accepted(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() - 20)), 'exp 20 seconds ago');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() - 30)), 'exp 30 seconds ago');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() - 31)), 'exp 31 seconds ago');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() - 86400)), 'exp a day ago');
SELECT test.refused(test.sign_text(format('{"sub":"alice","exp":4102444800,"%s":%s}', claim, value)), claim || ' ' || value) FROM unnest('{nbf,iat}'::text[]) claim, unnest(ARRAY[
    'null', 'true', 'false', '"0"', '"now"', '[]', '[0]', '{}', '-1', '-1e10', '1e400', '9223372036854775808', '9223372036854775807', '253402300800', '4102444799', '4102444799.5', '1e300']) value;
SELECT test.accepted(test.sign_text(format('{"sub":"alice","exp":4102444800,"%s":%s}', claim, value)), claim || ' ' || value) FROM unnest('{nbf,iat}'::text[]) claim, unnest('{0,1.5,-0.0,1500000000}'::text[]) value;
SELECT test.accepted(test.sign(jsonb_build_object('sub', 'alice', 'exp', 4102444800, claim, test.now() + 20)), claim || ' in 20 seconds') FROM unnest('{nbf,iat}'::text[]) claim;
SELECT test.accepted(test.sign(jsonb_build_object('sub', 'alice', 'exp', 4102444800, claim, test.now() + 30)), claim || ' in 30 seconds') FROM unnest('{nbf,iat}'::text[]) claim;
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', 4102444800, claim, test.now() + 35)), claim || ' in 35 seconds') FROM unnest('{nbf,iat}'::text[]) claim;
-- each alone is enough to be refused
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', 4102444800, 'nbf', 0, 'iat', 4102444800)), 'nbf good, iat bad');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() - 3600, 'nbf', test.now() + 3600)), 'over before it began');
SELECT test.accepted(pg_temp.good(), 'a good token after bad moments');

-- Subject and tenant -----------------------------------------------------------------------------------
SELECT test.refused(test.sign_text(format('{"sub":%s,"exp":4102444800}', value)), 'sub ' || left(value, 60)) FROM unnest(ARRAY[
    'null', '1', 'true', '[]', '["alice"]', '{}', '{"alice":1}', '""', '" "', '"%"', '"alic_"', '"ali%"', '"Alice"', '"ALICE"', '"alice "', '" alice"', '"alice\n"', '"alice\t"', '"a\u0301lice"',
    '"alice''"', '"alice'' OR 1=1 --"', '"alice\"; DROP TABLE scrapersky.users"', '"alice\\"', '"$1"', '"00000000-0000-4000-8000-0000000000a1"', '"' || repeat('x', 254) || '"', '"' || repeat('x', 256) || '"', '"' || repeat('x', 10000) || '"',
    '"' || repeat('ä', 128) || '"', '"mallory"', '"аlice"']) value;
SELECT test.refused(test.sign('{"exp": 4102444800}'), 'no sub');
SELECT test.refused(test.sign('{"exp": 4102444800, "Sub": "alice", "subject": "alice", "user_id": "00000000-0000-4000-8000-0000000000a1"}'), 'sub by other names');
SELECT test.accepted(test.sign_text('{"sub":"' || repeat('x', 255) || '","exp":4102444800}'), 'sub of 255 bytes');
SELECT test.refused(test.sign_text(format('{"sub":"alice","exp":4102444800,"tenant_id":%s}', value)), 'tenant_id ' || left(value, 60)) FROM unnest(ARRAY[
    'null', '0', 'false', '[]', '["00000000-0000-4000-8000-00000000000a"]', '{}', '""', '"acme"', '"%"', '"00000000-0000-4000-8000-00000000000b"', '"00000000-0000-0000-0000-000000000000"', '"00000000-0000-4000-8000-00000000000a "',
    '"00000000-0000-4000-8000-00000000000a\n"', '"{00000000-0000-4000-8000-00000000000a}"', '"0000000000004000800000000000000a"', '"00000000-0000-4000-8000-0000000000"', '"00000000-0000-4000-8000-00000000000a00000000-0000-4000-8000-00000000000a"',
    '"00000000_0000_4000_8000_00000000000a"', '"urn:uuid:00000000-0000-4000-8000-00000000000a"', '"' || repeat('0', 10000) || '"']) value;
-- letters of a uuid may be of either case
SELECT test.accepted(test.sign('{"sub": "alice", "exp": 4102444800, "tenant_id": "00000000-0000-4000-8000-00000000000A"}'), 'tenant_id in capitals');
-- what a token claims to be, it is not
SELECT is(current_user::text, 'regress_sky_app', 'the claim role changes no role');
SELECT test.accepted(pg_temp.good(), 'a good token after bad subjects and tenants');

-- Size ---------------------------------------------------------------------------------------------------
CREATE FUNCTION pg_temp.nested(opening text, closing text, levels int) RETURNS text LANGUAGE sql
    RETURN '{"sub":"alice","exp":4102444800,"x":' || repeat(opening, levels) || repeat(closing, levels) || '}';
-- the object itself is the first level
SELECT test.accepted(test.sign_text(pg_temp.nested('[', ']', 31)), '32 levels of arrays');
SELECT test.refused(test.sign_text(pg_temp.nested('[', ']', 32)), '33 levels of arrays');
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"x":' || repeat('{"x":', 30) || '{}' || repeat('}', 31)), '32 levels of objects');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"x":' || repeat('{"x":', 31) || '{}' || repeat('}', 32)), '33 levels of objects');
SELECT test.refused(test.sign_text(pg_temp.nested('[', ']', levels)), levels || ' levels of arrays') FROM unnest('{100,1000,2046,2047,2048,4000,6000}'::int[]) levels;
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"x":' || repeat('[', 12000)), 'arrays that do not end');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"x":' || repeat('{"":', 3000) || '1' || repeat('}', 3001)), '3000 levels of objects');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800}', '{"alg":"HS256","x":' || repeat('[', 32) || repeat(']', 32) || '}'), '33 levels in the header');
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800}', '{"alg":"HS256","x":' || repeat('[', 31) || repeat(']', 31) || '}'), '32 levels in the header');
CREATE FUNCTION pg_temp.many(n int) RETURNS text LANGUAGE sql
    RETURN (SELECT '{"sub":"alice","exp":4102444800' || string_agg(format(',"%s":0', i), '') || '}' FROM generate_series(1, n - 2) i);
SELECT test.accepted(test.sign_text(pg_temp.many(1000)), '1000 members');
SELECT test.refused(test.sign_text(pg_temp.many(1001)), '1001 members');
-- members and elements together
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"x":[0' || repeat(',0', 996) || ']}'), '3 members, 997 elements');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"x":[0' || repeat(',0', 997) || ']}'), '3 members, 998 elements');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"x":[0' || repeat(',0', 5000) || ']}'), '5000 elements');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800}', (SELECT '{"alg":"HS256"' || string_agg(format(',"%s":0', i), '') || '}' FROM generate_series(1, 1000) i)), '1001 members in the header');
-- 16384 bytes of token
CREATE FUNCTION pg_temp.long(len int) RETURNS text LANGUAGE sql RETURN
    (SELECT test.sign_text('{"sub":"alice","exp":4102444800,"x":"' || repeat('x', ((len - 81) * 3) / 4 - 39) || '"}', '{"alg":"HS256","typ":"JWT"}'));
SELECT is(length(pg_temp.long(len)), len, format('a token of %s bytes', len)) FROM unnest('{16384,16385}'::int[]) len;
SELECT test.accepted(pg_temp.long(16384), '16384 bytes');
SELECT test.refused(pg_temp.long(16385), '16385 bytes');
SELECT test.refused(repeat('a', len), len || ' bytes of nothing') FROM unnest('{16385,100000,8388608,67108864}'::int[]) len;
SELECT test.refused(test.base64url('{"alg":"HS256"}') || '.' || repeat('a', 8388608) || '.' || pg_temp.part(3), '8 MB of claims');
SELECT test.refused(repeat('a.', 4194304), '8 MB of segments');
-- compressed and out of line, as a table's value is
CREATE TEMP TABLE stored (token text);
INSERT INTO stored VALUES (repeat('a', 8388608)), (pg_temp.long(16384));
SELECT is(test.attempt(token), CASE WHEN length(token) > 16384 THEN :'refused' ELSE 'accepted' END, format('a stored token of %s bytes', length(token))) FROM stored;
SELECT test.accepted(pg_temp.good(), 'a good token after big ones');

-- Audience and issuer -------------------------------------------------------------------------------------
-- not asked for: whatever is said
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"aud":' || aud || ',"iss":' || aud || '}'), 'aud and iss ' || aud || ' when none is asked for') FROM unnest(ARRAY['null', '1', '"x"', '[]', '{}']) aud;
SELECT test.configure('scrapersky.jwt_audience', 'https://api.example');
SELECT is(current_setting('scrapersky.jwt_audience'), 'https://api.example', 'an audience is asked for');
SELECT test.refused(pg_temp.good(), 'no aud');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"aud":' || aud || '}'), 'aud ' || aud) FROM unnest(ARRAY['null', '""', '1', 'true', '{}', '[]', '[[]]', '"https://API.example"', '"https://api.example/"', '"https://api.exampl"',
    '" https://api.example"', '"https://api.example "', '"*"', '["https://other.example"]', '[["https://api.example"]]', '[{"aud":"https://api.example"}]', '{"https://api.example":1}', '{"aud":"https://api.example"}', '[1,null]', '"https://api.example,x"']) aud;
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"aud":' || aud || '}'), 'aud ' || aud) FROM unnest(ARRAY['"https://api.example"', '["https://api.example"]', '["x","https://api.example"]', '[1,null,"https://api.example"]', '"https:\/\/api.example"']) aud;
SELECT test.configure('scrapersky.jwt_audience', '');
SELECT test.configure('scrapersky.jwt_issuer', 'https://issuer.example');
SELECT test.refused(pg_temp.good(), 'no iss');
SELECT test.refused(test.sign_text('{"sub":"alice","exp":4102444800,"iss":' || iss || '}'), 'iss ' || iss) FROM unnest(ARRAY['null', '""', '1', '{}', '[]', '["https://issuer.example"]', '"https://ISSUER.example"', '"https://issuer.example/"', '"https://issuer.exampl"',
    '"https://issuer.example.evil"', '" https://issuer.example"']) iss;
SELECT test.accepted(test.sign_text('{"sub":"alice","exp":4102444800,"iss":"https://issuer.example"}'), 'iss as asked for');
SELECT test.configure('scrapersky.jwt_issuer', '');
-- another leeway
SELECT test.configure('scrapersky.jwt_leeway', '0');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now())), 'exp now, no leeway');
SELECT test.refused(test.sign(jsonb_build_object('sub', 'alice', 'exp', 4102444800, 'nbf', test.now() + 5)), 'nbf in 5 seconds, no leeway');
SELECT test.accepted(test.sign(jsonb_build_object('sub', 'alice', 'exp', test.now() + 20, 'nbf', test.now(), 'iat', test.now())), 'good for 20 seconds, no leeway');
SELECT test.configure('scrapersky.jwt_leeway', '30s');
SELECT test.accepted(pg_temp.good(), 'a good token after all');

SELECT * FROM finish();
\c - :super
SET client_min_messages = warning;
ALTER SYSTEM RESET scrapersky.jwt_audience;
ALTER SYSTEM RESET scrapersky.jwt_issuer;
ALTER SYSTEM RESET scrapersky.jwt_leeway;
SELECT FROM pg_reload_conf();
DELETE FROM scrapersky.users;
DELETE FROM scrapersky.tenants;
DROP SCHEMA test CASCADE;
DROP OWNED BY regress_sky_app;
DROP ROLE regress_sky_app;
