/* scrapersky 0.1.0, 2026-11-22: tenants, identity, roles and permissions, protected tables */

\echo Use "CREATE EXTENSION scrapersky" to load this file. \quit

-- No IF NOT EXISTS: a schema that somebody else made first makes this fail.
CREATE SCHEMA scrapersky;
CREATE SCHEMA scrapersky_api;
COMMENT ON SCHEMA scrapersky IS 'scrapersky: tenants, identity, permissions; not to be exposed over HTTP';
COMMENT ON SCHEMA scrapersky_api IS
'Who am I, and who and what is in my tenant: the read-only side of roles and permissions.';

CREATE FUNCTION scrapersky.library_version() RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_library_version';
COMMENT ON FUNCTION scrapersky.library_version() IS
'The version of the loaded library, which may be newer than that of the SQL objects.';

-- A new script needs a library that is at least as new.
DO $$
BEGIN
    IF pg_catalog.string_to_array(scrapersky.library_version(), '.')::pg_catalog.int4[]
       OPERATOR(pg_catalog.<) '{0,1,0}'::pg_catalog.int4[] THEN
        RAISE EXCEPTION 'the loaded library of scrapersky is older than this script'
            USING HINT = 'Restart the server, or reconnect if the library is not preloaded.';
    END IF;
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'scrapersky needs a database in UTF8';
    END IF;
    IF pg_catalog.current_setting('shared_preload_libraries') OPERATOR(pg_catalog.!~) '\mscrapersky\M' THEN
        RAISE WARNING 'scrapersky is not in shared_preload_libraries: nobody can be authenticated before it is';
    END IF;
END
$$;


-- Tables ---------------------------------------------------------------------
-- Built-in rows have fixed ids (their last digits count up), are never changed
-- and not dumped: CREATE EXTENSION brings them.  No trigger here writes data or
-- enforces a rule, so that a dump restores as it is.

CREATE TABLE scrapersky.settings (
    name text PRIMARY KEY,
    value text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE scrapersky.settings IS 'What setup_api() was told: the names of the database roles.';

CREATE TABLE scrapersky.tenants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (name <> ''),
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (id <> '00000000-0000-0000-0000-000000000000')
);
COMMENT ON TABLE scrapersky.tenants IS 'Tenants: the customers that are kept apart.';
COMMENT ON COLUMN scrapersky.tenants.name IS 'For people.';
COMMENT ON COLUMN scrapersky.tenants.slug IS 'For addresses: lower case, digits and hyphens.';
COMMENT ON COLUMN scrapersky.tenants.status IS 'active; or suspended: nobody can be authenticated in it.';

CREATE TABLE scrapersky.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    issuer text NOT NULL DEFAULT '' CHECK (issuer = ''),
    subject text NOT NULL CHECK (subject <> '' AND octet_length(subject) <= 255),
    email text,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (issuer, subject)
);
COMMENT ON TABLE scrapersky.users IS 'Users: whom a token''s issuer and subject stand for.';
COMMENT ON COLUMN scrapersky.users.issuer IS 'Local name of the issuer; empty is the built-in secret.';
COMMENT ON COLUMN scrapersky.users.subject IS 'The claim sub of the user''s tokens (RFC 7519, section 4.1.2).';
COMMENT ON COLUMN scrapersky.users.email IS 'For people; nothing is decided by it.';
COMMENT ON COLUMN scrapersky.users.status IS 'active; or inactive: cannot be authenticated.';

CREATE TABLE scrapersky.memberships (
    tenant_id uuid NOT NULL REFERENCES scrapersky.tenants ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES scrapersky.users ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_user_id ON scrapersky.memberships (user_id);
COMMENT ON TABLE scrapersky.memberships IS 'Which users belong to which tenants.';
COMMENT ON COLUMN scrapersky.memberships.status IS 'active; or inactive: as if there were none.';

CREATE TABLE scrapersky.permissions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}:[a-z][a-z0-9_-]{0,62}$'),
    description text,
    builtin boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT permissions_reserved CHECK (builtin OR split_part(name, ':', 1) NOT IN
        ('tenants', 'users', 'roles', 'permissions', 'audit', 'features', 'api_keys', 'issuers', 'scrapersky'))
);
COMMENT ON TABLE scrapersky.permissions IS 'What can be allowed, as resource:action.';
COMMENT ON COLUMN scrapersky.permissions.builtin IS 'Part of the extension: cannot be changed.';

CREATE TABLE scrapersky.roles (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid REFERENCES scrapersky.tenants ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[A-Za-z][A-Za-z0-9_.-]{0,62}$'),
    description text,
    builtin boolean NOT NULL DEFAULT false,
    tenant_key uuid NOT NULL GENERATED ALWAYS AS
        (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000')) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_key, id),
    CHECK (NOT builtin OR tenant_id IS NULL)
);
CREATE UNIQUE INDEX roles_tenant_key_name ON scrapersky.roles (tenant_key, lower(name COLLATE "C"));
CREATE INDEX roles_name ON scrapersky.roles (lower(name COLLATE "C"));
CREATE INDEX roles_tenant_id ON scrapersky.roles (tenant_id);
COMMENT ON TABLE scrapersky.roles IS 'Roles: of one tenant, or of the system (tenant_id is null), for every tenant.';
COMMENT ON COLUMN scrapersky.roles.tenant_key IS 'tenant_id, or the nil uuid: for the foreign key of user_roles.';
COMMENT ON COLUMN scrapersky.roles.builtin IS 'Part of the extension: cannot be changed.';

CREATE TABLE scrapersky.role_permissions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    role_id uuid NOT NULL REFERENCES scrapersky.roles ON DELETE CASCADE,
    permission_id uuid NOT NULL REFERENCES scrapersky.permissions ON DELETE CASCADE,
    builtin boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (role_id, permission_id)
);
CREATE INDEX role_permissions_permission_id ON scrapersky.role_permissions (permission_id);
COMMENT ON TABLE scrapersky.role_permissions IS 'Which permissions a role gives.';
COMMENT ON COLUMN scrapersky.role_permissions.builtin IS 'Part of the extension: cannot be changed.';

CREATE TABLE scrapersky.user_roles (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES scrapersky.users ON DELETE CASCADE,
    role_id uuid NOT NULL,
    tenant_id uuid,
    role_tenant_key uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (user_id, role_id, tenant_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES scrapersky.memberships (tenant_id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (role_tenant_key, role_id) REFERENCES scrapersky.roles (tenant_key, id) ON DELETE CASCADE,
    CONSTRAINT user_roles_same_tenant CHECK
        (role_tenant_key = '00000000-0000-0000-0000-000000000000'
         OR (tenant_id IS NOT NULL AND role_tenant_key = tenant_id)),
    CONSTRAINT user_roles_global_admin CHECK
        (role_id <> '5c4a9e01-0000-4000-8000-000000000004' OR tenant_id IS NULL)
);
CREATE INDEX user_roles_role_id ON scrapersky.user_roles (role_tenant_key, role_id);
CREATE INDEX user_roles_tenant_id ON scrapersky.user_roles (tenant_id, user_id);
COMMENT ON TABLE scrapersky.user_roles IS 'Which roles a user has, in one tenant or (tenant_id is null) in every tenant.';
COMMENT ON COLUMN scrapersky.user_roles.role_tenant_key IS
'The role''s tenant_key: a tenant''s role can be given in that tenant only.';


-- Built-in rows --------------------------------------------------------------

INSERT INTO scrapersky.roles (id, name, description, builtin) VALUES
('5c4a9e01-0000-4000-8000-000000000001', 'USER', 'Reads what its tenant may read.', true),
('5c4a9e01-0000-4000-8000-000000000002', 'ADMIN', 'Manages users and roles of its tenant.', true),
('5c4a9e01-0000-4000-8000-000000000003', 'SUPER_ADMIN', 'ADMIN, and manages the tenant itself.', true),
('5c4a9e01-0000-4000-8000-000000000004', 'GLOBAL_ADMIN', 'SUPER_ADMIN in every tenant that the user is a member of.', true);

INSERT INTO scrapersky.permissions (id, name, description, builtin) VALUES
('5c4a9e02-0000-4000-8000-000000000001', 'tenants:read', 'See the tenant.', true),
('5c4a9e02-0000-4000-8000-000000000002', 'tenants:manage', 'Change the tenant.', true),
('5c4a9e02-0000-4000-8000-000000000003', 'users:read', 'See the tenant''s users.', true),
('5c4a9e02-0000-4000-8000-000000000004', 'users:manage', 'Change the tenant''s users.', true),
('5c4a9e02-0000-4000-8000-000000000005', 'roles:read', 'See roles, their permissions and who has them.', true),
('5c4a9e02-0000-4000-8000-000000000006', 'roles:manage', 'Change the tenant''s roles and who has them.', true),
('5c4a9e02-0000-4000-8000-000000000007', 'permissions:read', 'See the permissions there are.', true);

INSERT INTO scrapersky.role_permissions (id, role_id, permission_id, builtin)
SELECT format('5c4a9e03-%s-4000-8000-%s', lpad(r.n::text, 4, '0'), lpad(p.n::text, 12, '0'))::uuid,
       format('5c4a9e01-0000-4000-8000-%s', lpad(r.n::text, 12, '0'))::uuid,
       format('5c4a9e02-0000-4000-8000-%s', lpad(p.n::text, 12, '0'))::uuid,
       true
FROM (VALUES (1, '{1,3,5,7}'::int[]), (2, '{1,3,4,5,6,7}'), (3, '{1,2,3,4,5,6,7}'), (4, '{1,2,3,4,5,6,7}')) r (n, has),
     unnest(r.has) p (n);


-- Dumps ----------------------------------------------------------------------

SELECT pg_catalog.pg_extension_config_dump('scrapersky.settings', '');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.tenants', '');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.users', '');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.memberships', '');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.permissions', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.roles', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.role_permissions', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('scrapersky.user_roles', '');


-- What changes is announced to every backend's cache -------------------------

CREATE FUNCTION scrapersky.rbac_changed() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_rbac_changed';
COMMENT ON FUNCTION scrapersky.rbac_changed() IS
'Trigger: announces that the user or role whose id is in the first column named changed; if a column named is null, or none is named, that anything did.';

-- A system role (tenant_id is null) takes its name away from tenants' roles: that concerns everything.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN VALUES ('settings', ''), ('tenants', ''), ('permissions', ''), ('roles', 'id, tenant_id'), ('users', 'id'),
                    ('memberships', 'user_id'), ('user_roles', 'user_id'), ('role_permissions', 'role_id') LOOP
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER rbac_changed AFTER INSERT OR UPDATE OR DELETE ON scrapersky.%I'
            ' FOR EACH ROW EXECUTE FUNCTION scrapersky.rbac_changed(%s)', r.column1, r.column2);
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER rbac_truncated AFTER TRUNCATE ON scrapersky.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION scrapersky.rbac_changed()', r.column1);
        EXECUTE pg_catalog.format('ALTER TABLE scrapersky.%I ENABLE ALWAYS TRIGGER rbac_changed,'
            ' ENABLE ALWAYS TRIGGER rbac_truncated, ENABLE ROW LEVEL SECURITY', r.column1);
    END LOOP;
END
$$;

-- Identity -------------------------------------------------------------------

CREATE FUNCTION scrapersky.authenticate(token text, is_local boolean DEFAULT true, tenant uuid DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100
AS 'MODULE_PATHNAME', 'scrapersky_authenticate';
COMMENT ON FUNCTION scrapersky.authenticate(text, boolean, uuid) IS
'Verifies a JWT (RFC 7519; HS256, the secret of scrapersky.jwt_secret_file) and makes its subject the identity, until the end of the transaction.
token: compact form (RFC 7515, section 3.1), at most 16384 bytes; pass it as a parameter. A literal is kept from pg_stat_activity and the log of errors, but log_statement, durations and auto_explain show it; so do they show parameters unless log_parameter_max_length is 0.
is_local: false keeps the identity for the session, if scrapersky.allow_session_identity is on.
tenant: which of the user''s tenants, when the claim tenant_id does not say it; must not disagree with it.
Required claims: sub (users.subject), exp. Honoured: tenant_id, nbf, iat; aud and iss if scrapersky.jwt_audience and jwt_issuer are set.
Without claim and argument: the user''s only tenant, else scrapersky.default_tenant_id (not in production), else none.
Errors: 28000 for whatever is wrong with the token, the user or the tenant (the reason is in the server''s log); 55006 while cursors are open and user or tenant would change; 0A000 if is_local is false and that is off.';

CREATE FUNCTION scrapersky.clear_identity() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_clear_identity';
COMMENT ON FUNCTION scrapersky.clear_identity() IS 'Drops the identity for the rest of the transaction and of the session.';

CREATE FUNCTION scrapersky.is_authenticated() RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_is_authenticated';
COMMENT ON FUNCTION scrapersky.is_authenticated() IS 'Is there an identity that has not expired? Never an error.';

CREATE FUNCTION scrapersky.current_tenant_id() RETURNS uuid
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_current_tenant_id';
COMMENT ON FUNCTION scrapersky.current_tenant_id() IS
'The tenant of the identity. Error 42501 without an identity or if it has no tenant (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.current_user_id() RETURNS uuid
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_current_user_id';
COMMENT ON FUNCTION scrapersky.current_user_id() IS
'The user of the identity (users.id). Error 42501 without an identity (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.current_subject() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_current_subject';
COMMENT ON FUNCTION scrapersky.current_subject() IS
'The claim sub of the token. Error 42501 without an identity (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.current_roles() RETURNS text[]
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_current_roles';
COMMENT ON FUNCTION scrapersky.current_roles() IS
'Names of the roles that the identity has, sorted. Error 42501 without an identity (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.current_permissions() RETURNS text[]
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_current_permissions';
COMMENT ON FUNCTION scrapersky.current_permissions() IS
'Names of the permissions that the identity has, sorted. Error 42501 without an identity (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.claim(VARIADIC path text[]) RETURNS text
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_claim';
COMMENT ON FUNCTION scrapersky.claim(text[]) IS
'A claim of the verified token, by its path, as text; null if there is none. An object or array comes as JSON. Error 42501 without an identity (null if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.permission_support(internal) RETURNS internal
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'scrapersky_permission_support';
COMMENT ON FUNCTION scrapersky.permission_support(internal) IS 'Tells the planner that a permission test filters no rows.';

CREATE FUNCTION scrapersky.has_role(role text) RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE COST 2 SUPPORT scrapersky.permission_support
AS 'MODULE_PATHNAME', 'scrapersky_has_role';
COMMENT ON FUNCTION scrapersky.has_role(text) IS
'Does the identity have the role? Names are case-sensitive; false for null. Error 42501 without an identity (false if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.has_permission(permission text) RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE COST 2 SUPPORT scrapersky.permission_support
AS 'MODULE_PATHNAME', 'scrapersky_has_permission';
COMMENT ON FUNCTION scrapersky.has_permission(text) IS
'Does the identity have the permission, by any of its roles? False for null. Error 42501 without an identity (false if scrapersky.missing_identity is empty).';

CREATE FUNCTION scrapersky.require_permission(permission text) RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE COST 2 SUPPORT scrapersky.permission_support
AS 'MODULE_PATHNAME', 'scrapersky_require_permission';
COMMENT ON FUNCTION scrapersky.require_permission(text) IS
'True if the identity has the permission, else error 42501; 22023 for null.';

CREATE FUNCTION scrapersky.whoami(
    OUT user_id uuid, OUT issuer text, OUT subject text, OUT email text, OUT tenant_id uuid, OUT tenant_name text,
    OUT roles text[], OUT permissions text[], OUT expires_at timestamptz, OUT acting_as uuid)
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_whoami';
COMMENT ON FUNCTION scrapersky.whoami() IS
'One row about the identity; without one, nulls and empty lists. expires_at is when the identity ends: the claim exp and scrapersky.jwt_leeway. acting_as is null in this version. Never an error.';

CREATE FUNCTION scrapersky.pre_request() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_pre_request';
COMMENT ON FUNCTION scrapersky.pre_request() IS
'For PostgREST''s db-pre-request: establishes the identity of a request from its header Authorization, and X-Tenant-Id if the token leaves the tenant open.
Errors: PT401 for a token that is not acceptable or is not the one PostgREST acted upon; PT403 for a role that row security does not hold for.';

CREATE FUNCTION scrapersky.sign_token(claims jsonb, expires_in interval DEFAULT '1 hour') RETURNS text
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_sign_token';
COMMENT ON FUNCTION scrapersky.sign_token(jsonb, interval) IS
'A token with these claims, signed by HS256 with the secret of scrapersky.jwt_secret_file; iat and exp are added unless given. Superusers only.
Errors: 42501, 22023 if claims is no object, 55000 if there is no usable secret.';


-- Protected tables -----------------------------------------------------------

CREATE FUNCTION scrapersky.tenant_immutable() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_tenant_immutable';
COMMENT ON FUNCTION scrapersky.tenant_immutable() IS 'Trigger of protected tables: refuses to move a row to another tenant (42501).';

CREATE FUNCTION scrapersky.protect(
    relation regclass, tenant_column name DEFAULT 'tenant_id',
    read_permission text DEFAULT NULL, write_permission text DEFAULT NULL, on_denied text DEFAULT 'error',
    existing_rows_tenant uuid DEFAULT NULL, foreign_key boolean DEFAULT true)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000
AS 'MODULE_PATHNAME', 'scrapersky_protect';
COMMENT ON FUNCTION scrapersky.protect(regclass, name, text, text, text, uuid, boolean) IS
'Keeps each tenant to its own rows of a table, the owner too. For the table''s owner; may be repeated.
tenant_column: uuid; added if it is missing, filled, NOT NULL, with default current_tenant_id(), indexed, never changed afterwards.
read_permission, write_permission: what SELECT, and INSERT, UPDATE and DELETE, ask for beside the tenant; null asks for nothing, or for what a table that is protected already asks for.
on_denied: error (42501 without the permission, on an empty table too) or hide (no rows); in a repeated call, too, error unless said otherwise.
existing_rows_tenant: the tenant of rows that have none.
foreign_key: refer to scrapersky.tenants.
TRUNCATE, REFERENCES and TRIGGER are revoked from everybody but the owner.
Errors: 42501 not the owner, 42809 not an ordinary table, 42804 the column is no uuid, 55000 rows without tenant or protected by another column, 22023 bad argument.';

CREATE FUNCTION scrapersky.unprotect(relation regclass) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000
AS 'MODULE_PATHNAME', 'scrapersky_unprotect';
COMMENT ON FUNCTION scrapersky.unprotect(regclass) IS
'Takes back what protect() did; the column, its contents, its index and its foreign key stay. Row security stays on if there are policies of others. For the table''s owner. Errors: 42501, 55000 if it is not protected.';

CREATE FUNCTION scrapersky.protection(relation regclass,
    OUT tenant_column name, OUT read_permission text, OUT write_permission text, OUT on_denied text)
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'scrapersky_protection';
COMMENT ON FUNCTION scrapersky.protection(regclass) IS 'How a table is protected, read from its policies; nulls if it is not.';

CREATE VIEW scrapersky.protected_tables AS
SELECT c.oid::pg_catalog.regclass AS relation, p.tenant_column, p.read_permission, p.write_permission, p.on_denied,
       c.relforcerowsecurity AS forced
FROM pg_catalog.pg_policy l
JOIN pg_catalog.pg_class c ON c.oid = l.polrelid
CROSS JOIN LATERAL scrapersky.protection(c.oid::pg_catalog.regclass) p
WHERE l.polname = 'scrapersky_floor' AND p.tenant_column IS NOT NULL;
COMMENT ON VIEW scrapersky.protected_tables IS
'The tables that protect() protects, derived from their policies. forced is false if somebody has since let the owner through.';

CREATE FUNCTION scrapersky.guard_drop() RETURNS event_trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_guard_drop';
COMMENT ON FUNCTION scrapersky.guard_drop() IS
'Event trigger: loads the library, which refuses to drop the extension while there are tenants, unless scrapersky.allow_drop is on (55006).';
CREATE EVENT TRIGGER scrapersky_guard_drop ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP LANGUAGE', 'DROP OWNED') EXECUTE FUNCTION scrapersky.guard_drop();


-- Administration: superusers only --------------------------------------------

CREATE FUNCTION scrapersky.create_tenant(name text, slug text DEFAULT NULL, id uuid DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.tenants (id, name, slug)
    VALUES (coalesce(create_tenant.id, gen_random_uuid()), create_tenant.name,
            coalesce(create_tenant.slug, trim(BOTH '-' FROM left(regexp_replace(lower(create_tenant.name), '[^a-z0-9]+', '-', 'g'), 63))))
    RETURNING tenants.id;
END;
COMMENT ON FUNCTION scrapersky.create_tenant(text, text, uuid) IS
'Makes a tenant and returns its id. slug: made of the name if left out. Errors: 23505 slug or id taken, 23514 not a slug.';

CREATE FUNCTION scrapersky.create_user(subject text, email text DEFAULT NULL, issuer text DEFAULT '', id uuid DEFAULT NULL)
RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.users (id, issuer, subject, email)
    VALUES (coalesce(create_user.id, gen_random_uuid()), create_user.issuer, create_user.subject, create_user.email)
    RETURNING users.id;
END;
COMMENT ON FUNCTION scrapersky.create_user(text, text, text, uuid) IS
'Makes a user and returns its id. subject: the claim sub of the user''s tokens. issuer: empty, the built-in secret. Errors: 23505 taken.';

CREATE FUNCTION scrapersky.add_member(tenant uuid, user_id uuid) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.memberships AS m (tenant_id, user_id)
    VALUES (add_member.tenant, add_member.user_id)
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET status = 'active', updated_at = now()
    WHERE m.status <> 'active';
END;
COMMENT ON FUNCTION scrapersky.add_member(uuid, uuid) IS
'Makes a user an active member of a tenant; may be repeated. Errors: 23503 no such tenant or user.';

CREATE FUNCTION scrapersky.role_name_taken(name text, tenant uuid) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_role_name_taken';
COMMENT ON FUNCTION scrapersky.role_name_taken(text, uuid) IS
'Would a role of this name be taken for a system role, or a system role for it? In the latest snapshot.';

CREATE FUNCTION scrapersky.create_role(name text, tenant uuid DEFAULT NULL, description text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    result uuid;
BEGIN
    -- names are compared across rows: one at a time
    LOCK TABLE scrapersky.roles IN SHARE ROW EXCLUSIVE MODE;
    IF scrapersky.role_name_taken(create_role.name, create_role.tenant) THEN
        RAISE EXCEPTION USING ERRCODE = 'unique_violation',
            MESSAGE = format('role name %L is reserved', create_role.name),
            DETAIL = 'A tenant''s role and a system role must not have the same name.';
    END IF;
    INSERT INTO scrapersky.roles (name, tenant_id, description)
    VALUES (create_role.name, create_role.tenant, create_role.description)
    RETURNING id INTO result;
    RETURN result;
END
$$;
COMMENT ON FUNCTION scrapersky.create_role(text, uuid, text) IS
'Makes a role of a tenant, or of the system if tenant is null, and returns its id. Errors: 23505 name taken or reserved, 23514 not a name, 23503 no such tenant.';

CREATE FUNCTION scrapersky.create_permission(name text, description text DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.permissions (name, description)
    VALUES (create_permission.name, create_permission.description)
    RETURNING permissions.id;
END;
COMMENT ON FUNCTION scrapersky.create_permission(text, text) IS
'Makes a permission, resource:action, and returns its id. Errors: 23505 taken, 23514 not such a name, or a resource of scrapersky''s own (tenants, users, roles, permissions, audit, features, api_keys, issuers, scrapersky).';

CREATE FUNCTION scrapersky.find_role(role text, tenant uuid) RETURNS scrapersky.roles
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result scrapersky.roles;
BEGIN
    SELECT r.* INTO result FROM scrapersky.roles r
    WHERE lower(r.name COLLATE "C") = lower(find_role.role COLLATE "C") AND (r.tenant_id IS NULL OR r.tenant_id = find_role.tenant)
    ORDER BY r.tenant_id NULLS FIRST LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('there is no role %L', find_role.role),
            HINT = 'Make it by scrapersky.create_role(). A role of a tenant is found with its tenant only.';
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION scrapersky.find_role(text, uuid) IS
'The system role of this name or, if a tenant is given, that tenant''s. Errors: 22023 no such role.';

CREATE FUNCTION scrapersky.find_permission(permission text) RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result uuid;
BEGIN
    SELECT p.id INTO result FROM scrapersky.permissions p WHERE p.name = find_permission.permission;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('there is no permission %L', find_permission.permission),
            HINT = 'Make it first: scrapersky.create_permission().';
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION scrapersky.find_permission(text) IS 'The id of the permission of this name. Errors: 22023 no such permission.';

CREATE FUNCTION scrapersky.grant_permission(role text, permission text, tenant uuid DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.role_permissions (role_id, permission_id)
    SELECT (scrapersky.find_role(grant_permission.role, grant_permission.tenant)).id,
           scrapersky.find_permission(grant_permission.permission)
    ON CONFLICT (role_id, permission_id) DO NOTHING;
END;
COMMENT ON FUNCTION scrapersky.grant_permission(text, text, uuid) IS
'Gives a permission to a role, of the system or of a tenant; may be repeated. Errors: 22023 no such role or permission.';

CREATE FUNCTION scrapersky.revoke_permission(role text, permission text, tenant uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    the_role uuid := (scrapersky.find_role(revoke_permission.role, revoke_permission.tenant)).id;
    the_permission uuid := scrapersky.find_permission(revoke_permission.permission);
BEGIN
    IF EXISTS (SELECT FROM scrapersky.role_permissions rp
               WHERE rp.role_id = the_role AND rp.permission_id = the_permission AND rp.builtin) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'what a built-in role gives by itself cannot be revoked',
            HINT = 'Make a role of your own with less.';
    END IF;
    DELETE FROM scrapersky.role_permissions rp WHERE rp.role_id = the_role AND rp.permission_id = the_permission;
END
$$;
COMMENT ON FUNCTION scrapersky.revoke_permission(text, text, uuid) IS
'Takes a permission from a role; may be repeated. Errors: 22023 no such role or permission, 42501 it is built in.';

CREATE FUNCTION scrapersky.assign_role(user_id uuid, role text, tenant uuid DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO scrapersky.user_roles (user_id, role_id, tenant_id, role_tenant_key)
    SELECT assign_role.user_id, r.id, assign_role.tenant, r.tenant_key
    FROM scrapersky.find_role(assign_role.role, assign_role.tenant) r
    ON CONFLICT (user_id, role_id, tenant_id) DO NOTHING;
END;
COMMENT ON FUNCTION scrapersky.assign_role(uuid, text, uuid) IS
'Gives a user a role in a tenant that it is a member of or, if tenant is null, a system role in every tenant it is a member of; may be repeated. GLOBAL_ADMIN is given with tenant null only. Errors: 22023 no such role, 23503 no such user or not a member, 23514 GLOBAL_ADMIN in one tenant.';

CREATE FUNCTION scrapersky.unassign_role(user_id uuid, role text, tenant uuid DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    DELETE FROM scrapersky.user_roles ur
    WHERE ur.user_id = unassign_role.user_id
      AND ur.role_id = (scrapersky.find_role(unassign_role.role, unassign_role.tenant)).id
      AND ur.tenant_id IS NOT DISTINCT FROM unassign_role.tenant;
END;
COMMENT ON FUNCTION scrapersky.unassign_role(uuid, text, uuid) IS
'Takes a role from a user, in that tenant or, if tenant is null, the one it has in every tenant; may be repeated. Errors: 22023 no such role.';

CREATE FUNCTION scrapersky.get_roles(tenant uuid DEFAULT NULL)
RETURNS TABLE (id uuid, tenant_id uuid, name text, description text, builtin boolean, permissions text[])
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT r.id, r.tenant_id, r.name, r.description, r.builtin,
           ARRAY(SELECT p.name FROM scrapersky.role_permissions rp
                 JOIN scrapersky.permissions p ON p.id = rp.permission_id
                 WHERE rp.role_id = r.id ORDER BY p.name COLLATE "C")
    FROM scrapersky.roles r
    WHERE r.tenant_id IS NULL OR r.tenant_id = get_roles.tenant
    ORDER BY r.tenant_id NULLS FIRST, r.name COLLATE "C";
END;
COMMENT ON FUNCTION scrapersky.get_roles(uuid) IS 'The system roles and, if a tenant is given, that tenant''s, with their permissions.';

CREATE FUNCTION scrapersky.setup_api(
    authenticator name DEFAULT 'authenticator', anon name DEFAULT 'anon', authenticated name DEFAULT 'authenticated',
    authenticator_password text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_setup_api';
COMMENT ON FUNCTION scrapersky.setup_api(name, name, name, text) IS
'Makes the database roles of the HTTP interface if they are missing, keeps their names in scrapersky.settings, and grants what they need. Superusers only; may be repeated. TEMPORARY is revoked from PUBLIC.
authenticator: the role that PostgREST logs in as. anon: of requests without a token. authenticated: of requests with one (the claim role).
authenticator_password: hashed before it is stored; null leaves it as it is.
Errors: 42501, 22023 if a role could get around row security.';

CREATE FUNCTION scrapersky.refresh_grants() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'scrapersky_refresh_grants';
COMMENT ON FUNCTION scrapersky.refresh_grants() IS
'Grants again what setup_api() granted, and sees to the triggers: call it after ALTER EXTENSION UPDATE and after a restore. Superusers only. Errors: 42501, 42704 if the roles are missing.';


-- Who may see which row of our own tables ------------------------------------
-- Nobody has privileges on them but those that refresh_grants() gives.

CREATE POLICY same_tenant ON scrapersky.tenants FOR SELECT
    USING (id = scrapersky.current_tenant_id());
CREATE POLICY same_tenant ON scrapersky.memberships FOR SELECT
    USING (tenant_id = scrapersky.current_tenant_id()
           AND (user_id = scrapersky.current_user_id() OR scrapersky.has_permission('users:read')));
CREATE POLICY same_tenant ON scrapersky.users FOR SELECT
    USING (id = scrapersky.current_user_id() OR EXISTS
           (SELECT FROM scrapersky.memberships m WHERE m.user_id = users.id));
CREATE POLICY same_tenant ON scrapersky.roles FOR SELECT
    USING (tenant_key IN ('00000000-0000-0000-0000-000000000000', scrapersky.current_tenant_id()));
CREATE POLICY all_of_them ON scrapersky.permissions FOR SELECT
    USING (scrapersky.current_user_id() IS NOT NULL);
CREATE POLICY visible_role ON scrapersky.role_permissions FOR SELECT
    USING (EXISTS (SELECT FROM scrapersky.roles r WHERE r.id = role_permissions.role_id));
CREATE POLICY same_tenant ON scrapersky.user_roles FOR SELECT
    USING ((tenant_id = scrapersky.current_tenant_id() AND scrapersky.has_permission('users:read'))
           OR (user_id = scrapersky.current_user_id()
               AND (tenant_id IS NULL OR tenant_id = scrapersky.current_tenant_id())));


-- HTTP: what PostgREST shows under /rbac/v1/ ----------------------------------

CREATE VIEW scrapersky_api.tenants WITH (security_invoker) AS
SELECT id, name, slug, status, created_at, updated_at FROM scrapersky.tenants;
COMMENT ON VIEW scrapersky_api.tenants IS 'The caller''s tenant.';

CREATE VIEW scrapersky_api.users WITH (security_invoker) AS
SELECT u.id, u.issuer, u.subject, u.email, u.status, m.status AS membership, m.created_at AS member_since
FROM scrapersky.memberships m JOIN scrapersky.users u ON u.id = m.user_id;
COMMENT ON VIEW scrapersky_api.users IS 'The tenant''s users; the caller alone, without users:read.';

CREATE VIEW scrapersky_api.roles WITH (security_invoker) AS
SELECT id, tenant_id, name, description, builtin, created_at, updated_at FROM scrapersky.roles;
COMMENT ON VIEW scrapersky_api.roles IS 'System roles and the tenant''s own.';

CREATE VIEW scrapersky_api.permissions WITH (security_invoker) AS
SELECT id, name, description, builtin, created_at, updated_at FROM scrapersky.permissions;
COMMENT ON VIEW scrapersky_api.permissions IS 'The permissions there are.';

CREATE VIEW scrapersky_api.role_permissions WITH (security_invoker) AS
SELECT id, role_id, permission_id, builtin, created_at FROM scrapersky.role_permissions;
COMMENT ON VIEW scrapersky_api.role_permissions IS 'The permissions of system roles and of the tenant''s own.';

CREATE VIEW scrapersky_api.user_roles WITH (security_invoker) AS
SELECT id, user_id, role_id, tenant_id, created_at FROM scrapersky.user_roles;
COMMENT ON VIEW scrapersky_api.user_roles IS 'Who has which role in the tenant; the caller''s alone, without users:read.';

CREATE VIEW scrapersky_api.memberships WITH (security_invoker) AS
SELECT tenant_id, user_id, status, created_at, updated_at FROM scrapersky.memberships;
COMMENT ON VIEW scrapersky_api.memberships IS 'Who belongs to the tenant; the caller alone, without users:read.';

CREATE FUNCTION scrapersky_api.whoami(
    OUT user_id uuid, OUT issuer text, OUT subject text, OUT email text, OUT tenant_id uuid, OUT tenant_name text,
    OUT roles text[], OUT permissions text[], OUT expires_at timestamptz, OUT acting_as uuid)
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_whoami';
COMMENT ON FUNCTION scrapersky_api.whoami() IS 'Who the caller is; nulls and empty lists without a token.';

CREATE FUNCTION scrapersky_api.has_permission(permission text) RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE COST 1
AS 'MODULE_PATHNAME', 'scrapersky_has_permission';
COMMENT ON FUNCTION scrapersky_api.has_permission(text) IS 'Does the caller have this permission?';

CREATE FUNCTION scrapersky_api.my_tenants() RETURNS TABLE (id uuid, name text, slug text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT t.id, t.name, t.slug
    FROM scrapersky.memberships m JOIN scrapersky.tenants t ON t.id = m.tenant_id
    WHERE m.user_id = scrapersky.current_user_id() AND m.status = 'active' AND t.status = 'active'
    ORDER BY t.name, t.id;
END;
COMMENT ON FUNCTION scrapersky_api.my_tenants() IS 'The active tenants that the caller is an active member of, whichever the request is for.';

CREATE FUNCTION scrapersky_api.health_database() RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE
RETURN '{"status":"ok","database":"connected"}'::json;
COMMENT ON FUNCTION scrapersky_api.health_database() IS 'Answers if the database does.';


-- Privileges -----------------------------------------------------------------
-- Nothing to anybody, whatever default privileges this database has; then what is meant.

DO $$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM (SELECT oid, nspowner AS owner, nspacl AS acl FROM pg_namespace
              UNION ALL SELECT relnamespace, relowner, relacl FROM pg_class
              UNION ALL SELECT pronamespace, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc) o,
             aclexplode(o.acl) a
        WHERE o.oid::regnamespace::text IN ('scrapersky', 'scrapersky_api') AND a.grantee <> o.owner
    LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA scrapersky, scrapersky_api FROM %s', grantee);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA scrapersky, scrapersky_api FROM %s', grantee);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA scrapersky, scrapersky_api FROM %s', grantee);
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA scrapersky TO PUBLIC;
-- These reveal the caller's own identity and fail closed ...
GRANT EXECUTE ON FUNCTION
    scrapersky.authenticate(text, boolean, uuid), scrapersky.clear_identity(), scrapersky.is_authenticated(),
    scrapersky.current_tenant_id(), scrapersky.current_user_id(), scrapersky.current_subject(),
    scrapersky.current_roles(), scrapersky.current_permissions(), scrapersky.claim(text[]), scrapersky.has_role(text),
    scrapersky.has_permission(text), scrapersky.require_permission(text), scrapersky.whoami()
TO PUBLIC;
-- ... these check that the caller owns the table, or tell what the catalog tells everybody.
GRANT EXECUTE ON FUNCTION
    scrapersky.protect(regclass, name, text, text, text, uuid, boolean), scrapersky.unprotect(regclass),
    scrapersky.tenant_immutable(), scrapersky.protection(regclass), scrapersky.library_version()
TO PUBLIC;
GRANT SELECT ON scrapersky.protected_tables TO PUBLIC;
