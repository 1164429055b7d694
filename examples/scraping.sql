-- scraping.sql: a sample application, as a team would write it.
--
-- It collects contacts from websites: a customer (tenant) has domains, their sitemaps list pages, and pages name people.
-- The tables are ordinary ones that an ordinary role owns. What makes them safe for many tenants is the section
-- "Protection"; everything else is what one would write for a single customer, but for two habits:
--   * keys begin with tenant_id, so that nobody learns from a conflict what others have;
--   * foreign keys carry tenant_id, so that no row can point at another tenant's.
--
-- Run it once, as superuser, in a database that has the extension and scrapersky.setup_api() behind it:
--   psql -v ON_ERROR_STOP=1 -f examples/scraping.sql

\set ON_ERROR_STOP on
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;

-- The owner of the tables. Nobody logs in as this role: requests arrive as "authenticated" and own nothing.
SELECT 'CREATE ROLE app_owner NOLOGIN' WHERE to_regrole('app_owner') IS NULL \gexec
CREATE SCHEMA api AUTHORIZATION app_owner;
COMMENT ON SCHEMA api IS $$Scraping
Domains, their sitemaps and pages, and the contacts found on them. Every row belongs to a tenant; a request sees and changes those of its own tenant only.$$;
GRANT USAGE ON SCHEMA api TO authenticated;


-- Tables ---------------------------------------------------------------------

SET LOCAL ROLE app_owner;
SET LOCAL search_path = api, pg_temp;

CREATE TABLE domains (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL,
    domain text NOT NULL CHECK (domain ~ '^[a-z0-9.-]+$'),
    title text,
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'active', 'paused', 'failed')),
    last_scan_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, domain)
);
COMMENT ON TABLE domains IS $$Websites to watch
A domain is scanned for sitemaps while its status is active.$$;
COMMENT ON COLUMN domains.tenant_id IS 'The tenant whose domain it is; filled in from the token.';
COMMENT ON COLUMN domains.domain IS 'The host name in lower case, without scheme or path. Once per tenant.';
COMMENT ON COLUMN domains.title IS 'What the website calls itself.';
COMMENT ON COLUMN domains.status IS 'new, active, paused or failed.';
COMMENT ON COLUMN domains.last_scan_at IS 'When its sitemaps were last read; null before the first time.';

CREATE TABLE sitemaps (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL,
    domain_id uuid NOT NULL,
    url text NOT NULL CHECK (url ~ '^https?://'),
    kind text NOT NULL DEFAULT 'pages' CHECK (kind IN ('index', 'pages', 'news', 'images')),
    url_count integer NOT NULL DEFAULT 0 CHECK (url_count >= 0),
    fetched_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, url),
    FOREIGN KEY (tenant_id, domain_id) REFERENCES domains (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX ON sitemaps (tenant_id, domain_id);
COMMENT ON TABLE sitemaps IS $$Sitemaps of a domain
Found in robots.txt or added by hand.$$;
COMMENT ON COLUMN sitemaps.tenant_id IS 'The tenant whose sitemap it is; filled in from the token.';
COMMENT ON COLUMN sitemaps.domain_id IS 'The domain that it belongs to.';
COMMENT ON COLUMN sitemaps.kind IS 'index (a sitemap of sitemaps), pages, news or images.';
COMMENT ON COLUMN sitemaps.url_count IS 'How many addresses it listed when it was last read.';

CREATE TABLE pages (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL,
    domain_id uuid NOT NULL,
    sitemap_id uuid,
    url text NOT NULL CHECK (url ~ '^https?://'),
    title text,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'fetched', 'failed')),
    http_status smallint CHECK (http_status BETWEEN 100 AND 599),
    word_count integer CHECK (word_count >= 0),
    fetched_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, url),
    FOREIGN KEY (tenant_id, domain_id) REFERENCES domains (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, sitemap_id) REFERENCES sitemaps (tenant_id, id) ON DELETE SET NULL (sitemap_id)
);
CREATE INDEX ON pages (tenant_id, domain_id);
CREATE INDEX ON pages (tenant_id, sitemap_id);
COMMENT ON TABLE pages IS $$Pages to fetch, and what came back
A new page is queued; fetching it sets its title, its HTTP status and its number of words.$$;
COMMENT ON COLUMN pages.tenant_id IS 'The tenant whose page it is; filled in from the token.';
COMMENT ON COLUMN pages.domain_id IS 'The domain that it belongs to.';
COMMENT ON COLUMN pages.sitemap_id IS 'The sitemap that listed it; null if it was added by hand.';
COMMENT ON COLUMN pages.url IS 'Its address. Once per tenant.';
COMMENT ON COLUMN pages.status IS 'queued, fetched or failed.';
COMMENT ON COLUMN pages.http_status IS 'The status of the last answer; null before the first fetch.';

CREATE TABLE contacts (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL,
    page_id uuid NOT NULL,
    name text NOT NULL,
    job_title text,
    email text CHECK (email LIKE '%_@_%'),
    phone text,
    confidence numeric(3, 2) NOT NULL DEFAULT 0.5 CHECK (confidence BETWEEN 0 AND 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email),
    FOREIGN KEY (tenant_id, page_id) REFERENCES pages (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX ON contacts (tenant_id, page_id);
COMMENT ON TABLE contacts IS $$People found on pages
One row for each person; an email address is kept once per tenant.$$;
COMMENT ON COLUMN contacts.tenant_id IS 'The tenant whose contact it is; filled in from the token.';
COMMENT ON COLUMN contacts.page_id IS 'The page that names the person.';
COMMENT ON COLUMN contacts.confidence IS 'From 0 (a guess) to 1 (checked by a person).';


-- A view and a function ------------------------------------------------------

-- security_invoker: the view shows what its reader may see, not what its owner may.
CREATE VIEW domain_overview WITH (security_invoker = true) AS
SELECT d.id, d.domain, d.status,
       count(p.id) AS pages,
       count(p.id) FILTER (WHERE p.status = 'fetched') AS fetched,
       count(p.id) FILTER (WHERE p.status = 'failed') AS failed,
       max(p.fetched_at) AS last_fetch_at
FROM domains AS d
LEFT JOIN pages AS p ON (p.tenant_id, p.domain_id) = (d.tenant_id, d.id)
GROUP BY d.tenant_id, d.id;
COMMENT ON VIEW domain_overview IS $$Progress by domain
How many pages each domain has, and how many were fetched or failed.$$;

CREATE FUNCTION search_pages(query text) RETURNS SETOF pages
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT * FROM api.pages AS p
    WHERE to_tsvector('simple', concat_ws(' ', p.title, translate(p.url, '/-_.', '    ')))
        @@ websearch_to_tsquery('simple', query);
END;
COMMENT ON FUNCTION search_pages IS $$Find pages by words
The query is written as for a search engine: words, "phrases", or, and - to leave a word out.$$;

REVOKE EXECUTE ON FUNCTION search_pages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_pages TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON domains, sitemaps, pages, contacts TO authenticated;
GRANT SELECT ON domain_overview TO authenticated;


-- Permissions ----------------------------------------------------------------

RESET ROLE;
SET LOCAL search_path = pg_catalog, pg_temp;

-- What the system roles may do: everybody reads, administrators write too.
SELECT scrapersky.create_permission(name, description)
FROM (VALUES ('domains:read', 'See domains'), ('domains:write', 'Add, change and remove domains'),
             ('sitemaps:read', 'See sitemaps'), ('sitemaps:write', 'Add, change and remove sitemaps'),
             ('pages:read', 'See pages'), ('pages:write', 'Add, change and remove pages'),
             ('contacts:read', 'See contacts'), ('contacts:write', 'Add, change and remove contacts')) AS p (name, description);
SELECT scrapersky.grant_permission(role, subject || ':' || action)
FROM unnest(ARRAY['domains', 'sitemaps', 'pages', 'contacts']) AS subject,
     (VALUES ('USER', 'read'), ('ADMIN', 'read'), ('ADMIN', 'write'), ('SUPER_ADMIN', 'read'), ('SUPER_ADMIN', 'write'),
             ('GLOBAL_ADMIN', 'read'), ('GLOBAL_ADMIN', 'write')) AS g (role, action);


-- Protection -----------------------------------------------------------------

SET LOCAL ROLE app_owner;
SET LOCAL search_path = api, pg_temp;

-- The owner says it once for each table: tenant_id decides, and these permissions are needed.
SELECT scrapersky.protect('domains', read_permission => 'domains:read', write_permission => 'domains:write');
SELECT scrapersky.protect('sitemaps', read_permission => 'sitemaps:read', write_permission => 'sitemaps:write');
SELECT scrapersky.protect('pages', read_permission => 'pages:read', write_permission => 'pages:write');
SELECT scrapersky.protect('contacts', read_permission => 'contacts:read', write_permission => 'contacts:write');

RESET ROLE;
SET LOCAL search_path = pg_catalog, pg_temp;

-- Two tenants, five users ----------------------------------------------------

\set acme aaaaaaaa-0000-4000-8000-000000000001
\set globex bbbbbbbb-0000-4000-8000-000000000002
SELECT scrapersky.create_tenant('Acme', 'acme', :'acme');
SELECT scrapersky.create_tenant('Globex', 'globex', :'globex');

-- The subject is what a token's "sub" says.
SELECT scrapersky.create_user(subject, email, '', id::uuid)
FROM (VALUES ('alice@acme', 'alice@acme.example', 'a11ce000-0000-4000-8000-000000000001'),
             ('bob@acme', 'bob@acme.example', 'b0b00000-0000-4000-8000-000000000002'),
             ('carol@globex', 'carol@globex.example', 'ca401000-0000-4000-8000-000000000003'),
             ('dave@globex', 'dave@globex.example', 'da7e0000-0000-4000-8000-000000000004'),
             ('erin', 'erin@freelance.example', 'e4140000-0000-4000-8000-000000000005')) AS u (subject, email, id);

-- A role of Globex's own, which Acme neither sees nor can assign.
SELECT scrapersky.create_role('EDITOR', :'globex', 'Keeps the pages and contacts up to date');
SELECT scrapersky.grant_permission('EDITOR', permission, :'globex')
FROM unnest(ARRAY['domains:read', 'sitemaps:read', 'pages:read', 'pages:write', 'contacts:read', 'contacts:write']) AS permission;

-- Erin works for both, with different roles.
SELECT scrapersky.add_member(tenant, usr), scrapersky.assign_role(usr, role, tenant)
FROM (VALUES ('a11ce000-0000-4000-8000-000000000001'::uuid, 'ADMIN', :'acme'::uuid),
             ('b0b00000-0000-4000-8000-000000000002', 'USER', :'acme'),
             ('ca401000-0000-4000-8000-000000000003', 'SUPER_ADMIN', :'globex'),
             ('da7e0000-0000-4000-8000-000000000004', 'USER', :'globex'),
             ('e4140000-0000-4000-8000-000000000005', 'USER', :'acme'),
             ('e4140000-0000-4000-8000-000000000005', 'EDITOR', :'globex')) AS m (usr, role, tenant);


-- Rows -----------------------------------------------------------------------

-- A superuser has no identity and passes row security: tenant_id is spelled out here. Requests never do that.
-- Identifiers can be read: d (domain), 5 (sitemap) or 9 (page), and at the end a (Acme) or b (Globex) and a number.

INSERT INTO api.domains (id, tenant_id, domain, title, status, last_scan_at) VALUES
    ('d0000000-0000-4000-8000-00000000a001', :'acme', 'acme.example', 'Acme Corporation', 'active', '2025-03-03 06:00+00'),
    ('d0000000-0000-4000-8000-00000000a002', :'acme', 'anvils.example', 'Anvils & Sons', 'active', '2025-03-03 06:10+00'),
    ('d0000000-0000-4000-8000-00000000a003', :'acme', 'rockets.example', NULL, 'new', NULL),
    ('d0000000-0000-4000-8000-00000000b001', :'globex', 'globex.example', 'Globex', 'active', '2025-03-02 22:30+00'),
    ('d0000000-0000-4000-8000-00000000b002', :'globex', 'hammock-district.example', 'The Hammock District', 'paused', '2025-02-11 04:00+00'),
    -- both tenants watch this one, and neither can tell
    ('d0000000-0000-4000-8000-00000000b003', :'globex', 'anvils.example', 'Anvils & Sons', 'active', '2025-03-02 22:45+00');

INSERT INTO api.sitemaps (id, tenant_id, domain_id, url, kind, url_count, fetched_at)
SELECT ('50000000-0000-4000-8000-00000000' || sitemap)::uuid,
       CASE left(sitemap, 1) WHEN 'a' THEN :'acme'::uuid ELSE :'globex' END,
       ('d0000000-0000-4000-8000-00000000' || domain)::uuid, url, kind, url_count, fetched_at::timestamptz
FROM (VALUES
    ('a001', 'a001', 'https://acme.example/sitemap.xml', 'index', 2, '2025-03-03 06:00+00'),
    ('a002', 'a001', 'https://acme.example/sitemap-pages.xml', 'pages', 5, '2025-03-03 06:00+00'),
    ('a003', 'a002', 'https://anvils.example/sitemap.xml', 'pages', 3, '2025-03-03 06:10+00'),
    ('b001', 'b001', 'https://globex.example/sitemap.xml', 'pages', 4, '2025-03-02 22:30+00'),
    ('b002', 'b002', 'https://hammock-district.example/news.xml', 'news', 2, '2025-02-11 04:00+00')
) AS s (sitemap, domain, url, kind, url_count, fetched_at);

INSERT INTO api.pages (id, tenant_id, domain_id, sitemap_id, url, title, status, http_status, word_count, fetched_at)
SELECT ('90000000-0000-4000-8000-00000000' || page)::uuid,
       CASE left(page, 1) WHEN 'a' THEN :'acme'::uuid ELSE :'globex' END,
       ('d0000000-0000-4000-8000-00000000' || domain)::uuid, ('50000000-0000-4000-8000-00000000' || sitemap)::uuid,
       url, title, status, http_status, word_count, fetched_at::timestamptz
FROM (VALUES
    ('a001', 'a001', 'a002', 'https://acme.example/', 'Acme Corporation: everything for the chase', 'fetched', 200, 412, '2025-03-03 06:01+00'),
    ('a002', 'a001', 'a002', 'https://acme.example/about', 'About us', 'fetched', 200, 655, '2025-03-03 06:01+00'),
    ('a003', 'a001', 'a002', 'https://acme.example/team', 'Our team', 'fetched', 200, 288, '2025-03-03 06:02+00'),
    ('a004', 'a001', 'a002', 'https://acme.example/products/rocket-skates', 'Rocket skates', 'fetched', 200, 931, '2025-03-03 06:02+00'),
    ('a005', 'a001', 'a002', 'https://acme.example/products/giant-magnet', NULL, 'failed', 404, NULL, '2025-03-03 06:02+00'),
    ('a006', 'a002', 'a003', 'https://anvils.example/', 'Anvils & Sons, since 1887', 'fetched', 200, 190, '2025-03-03 06:11+00'),
    ('a007', 'a002', 'a003', 'https://anvils.example/contact', 'Contact', 'fetched', 200, 74, '2025-03-03 06:11+00'),
    ('a008', 'a003', NULL, 'https://rockets.example/', NULL, 'queued', NULL, NULL, NULL),
    ('b001', 'b001', 'b001', 'https://globex.example/', 'Globex', 'fetched', 200, 350, '2025-03-02 22:31+00'),
    ('b002', 'b001', 'b001', 'https://globex.example/people', 'The people of Globex', 'fetched', 200, 502, '2025-03-02 22:31+00'),
    ('b003', 'b001', 'b001', 'https://globex.example/investors', 'Investors', 'failed', 503, NULL, '2025-03-02 22:32+00'),
    ('b004', 'b002', 'b002', 'https://hammock-district.example/2025/new-stores', 'Three new stores on Third Street', 'fetched', 200, 268, '2025-02-11 04:01+00'),
    ('b005', 'b003', NULL, 'https://anvils.example/contact', 'Contact', 'fetched', 200, 74, '2025-03-02 22:46+00')
) AS p (page, domain, sitemap, url, title, status, http_status, word_count, fetched_at);

INSERT INTO api.contacts (tenant_id, page_id, name, job_title, email, phone, confidence) VALUES
    (:'acme', '90000000-0000-4000-8000-00000000a003', 'Wilma Coyote', 'Head of testing', 'w.coyote@acme.example', '+1 555 0101', 1),
    (:'acme', '90000000-0000-4000-8000-00000000a003', 'Rhoda Runner', 'Logistics', 'r.runner@acme.example', '+1 555 0102', 0.95),
    (:'acme', '90000000-0000-4000-8000-00000000a002', 'Carl Jonas', 'Founder', NULL, NULL, 0.6),
    (:'acme', '90000000-0000-4000-8000-00000000a007', 'Ann Villiers', 'Sales', 'ann@anvils.example', '+44 20 7946 0018', 0.9),
    (:'acme', '90000000-0000-4000-8000-00000000a007', 'Reception', NULL, 'hello@anvils.example', '+44 20 7946 0010', 0.4),
    (:'globex', '90000000-0000-4000-8000-00000000b002', 'Hannah Stone', 'President', 'hannah@globex.example', '+1 555 0199', 1),
    (:'globex', '90000000-0000-4000-8000-00000000b002', 'Omar Reyes', 'Power division', 'omar@globex.example', NULL, 0.8),
    (:'globex', '90000000-0000-4000-8000-00000000b004', 'Gus Hammock', 'Shopkeeper', 'gus@hammock-district.example', '+1 555 0133', 0.7),
    (:'globex', '90000000-0000-4000-8000-00000000b005', 'Ann Villiers', 'Sales', 'ann@anvils.example', '+44 20 7946 0018', 0.9);

COMMIT;
