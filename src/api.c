/*
 * api.c
 *		The database roles of the HTTP interface, and their privileges.
 *
 * Roles belong to the cluster, so no script makes them: setup_api() does, once
 * per database, and keeps their names in scrapersky.settings, which is dumped.
 * Grants on the extension's objects are not dumped and are lost when a version
 * replaces an object: refresh_grants() repeats them, and mends what a restore
 * may have done to our triggers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/* what the signed-in may read, row security permitting */
static const char *const read_tables =
"scrapersky.tenants, scrapersky.users, scrapersky.memberships, scrapersky.roles,"
" scrapersky.permissions, scrapersky.role_permissions, scrapersky.user_roles";

static void require_superuser(void);
static void make_role(const char *name, const char *options);
static void store_setting(const char *name, const char *value);
static const char *role_setting(const char *name);
static void grant_all(void);
static void enable_triggers(void);

PG_FUNCTION_INFO_V1(scrapersky_setup_api);

/*
 * setup_api(authenticator, anon, authenticated, authenticator_password): see
 * its COMMENT.
 */
Datum
scrapersky_setup_api(PG_FUNCTION_ARGS)
{
	static const char *const settings[] = {"authenticator", "anon", "authenticated"};
	const char *role[3];
	int			nestlevel;

	require_superuser();
	for (int i = 0; i < 3; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a role's name must not be null")));
		role[i] = NameStr(*PG_GETARG_NAME(i));
		for (int j = 0; j < i; j++)
		{
			if (strcmp(role[i], role[j]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("the three roles must be different")));
		}
	}

	nestlevel = sky_ddl_begin();
	make_role(role[0], "LOGIN NOINHERIT");
	make_role(role[1], "NOLOGIN");
	make_role(role[2], "NOLOGIN");
	for (int i = 0; i < 3; i++)
		store_setting(settings[i], role[i]);
	/* PostgREST sends the token as a parameter: keep it out of the log */
	sky_exec("ALTER ROLE %s SET log_parameter_max_length = 0",
			 quote_identifier(role[0]));
	sky_exec("ALTER ROLE %s SET log_parameter_max_length_on_error = 0",
			 quote_identifier(role[0]));
	if (!PG_ARGISNULL(3))
		/* hashed here: no statement ever holds the password */
		sky_exec("ALTER ROLE %s PASSWORD %s", quote_identifier(role[0]),
				 quote_literal_cstr(pg_be_scram_build_secret(text_to_cstring(PG_GETARG_TEXT_PP(3)))));
	grant_all();
	sky_ddl_end(nestlevel);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(scrapersky_refresh_grants);

/*
 * refresh_grants(): see its COMMENT.
 */
Datum
scrapersky_refresh_grants(PG_FUNCTION_ARGS)
{
	int			nestlevel;

	require_superuser();
	nestlevel = sky_ddl_begin();
	grant_all();
	enable_triggers();
	sky_ddl_end(nestlevel);
	PG_RETURN_VOID();
}

/*
 * Refuse everybody else.
 */
static void
require_superuser(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser can set up roles and grants")));
}

/*
 * See to it that the role exists with these options.  One that exists already
 * must not be able to get around row security, by itself or by membership.
 */
static void
make_role(const char *name, const char *options)
{
	const char *quoted = quote_identifier(name);

	if (!OidIsValid(get_role_oid(name, true)))
		sky_exec("CREATE ROLE %s %s", quoted, options);
	else if (sky_exists("SELECT 1 FROM pg_roles WHERE pg_has_role($1, oid, 'MEMBER')"
						" AND (rolsuper OR rolbypassrls OR rolreplication OR rolcreaterole"
						" OR rolname IN ('pg_read_server_files', 'pg_write_server_files',"
						" 'pg_execute_server_program'))",
						NAMEOID, CStringGetDatum(name)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" can get around row security", name),
				 errdetail("It is, or is a member of, a role with SUPERUSER, BYPASSRLS, REPLICATION or CREATEROLE, or one that reads or writes the server's files."),
				 errhint("Choose another name, or take these rights away first.")));
	else
		sky_exec("ALTER ROLE %s %s", quoted, options);
}

/*
 * Keep a setting.
 */
static void
store_setting(const char *name, const char *value)
{
	sky_exec("INSERT INTO scrapersky.settings AS s (name, value) VALUES (%s, %s)"
			 " ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, updated_at = now()"
			 " WHERE s.value <> EXCLUDED.value",
			 quote_literal_cstr(name), quote_literal_cstr(value));
}

/*
 * A role's name from the settings, quoted; an error if setup_api() has not
 * been called in this database, or the role is not in this cluster.
 */
static const char *
role_setting(const char *name)
{
	char	   *role = sky_setting(name);

	if (role == NULL || !OidIsValid(get_role_oid(role, true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 role ? errmsg("role \"%s\" does not exist", role) :
				 errmsg("this database has no API roles yet"),
				 errhint("Call scrapersky.setup_api() to make them.")));
	return quote_identifier(role);
}

/*
 * All grants of the HTTP interface.
 */
static void
grant_all(void)
{
	const char *authenticator = role_setting("authenticator");
	const char *anon = role_setting("anon");
	const char *authenticated = role_setting("authenticated");

	sky_exec("GRANT %s, %s TO %s", anon, authenticated, authenticator);
	sky_exec("REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC",
			 quote_identifier(get_database_name(MyDatabaseId)));
	sky_exec("GRANT USAGE ON SCHEMA scrapersky_api TO %s, %s", anon, authenticated);
	sky_exec("GRANT EXECUTE ON FUNCTION scrapersky.pre_request() TO %s, %s",
			 anon, authenticated);
	sky_exec("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA scrapersky_api TO %s, %s",
			 anon, authenticated);
	sky_exec("GRANT SELECT ON ALL TABLES IN SCHEMA scrapersky_api TO %s",
			 authenticated);
	sky_exec("GRANT SELECT ON %s TO %s", read_tables, authenticated);
}

/*
 * Our triggers fire ALWAYS: pg_restore --disable-triggers forgets it.
 */
static void
enable_triggers(void)
{
	uint64		count = sky_query("SELECT tgrelid::regclass, quote_ident(tgname)"
								  " FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
								  " WHERE relnamespace = 'scrapersky'::regnamespace"
								  " AND NOT tgisinternal AND tgenabled <> 'A'",
								  InvalidOid, (Datum) 0);
	SPITupleTable *found = SPI_tuptable;

	for (uint64 i = 0; i < count; i++)
		sky_exec("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
				 SPI_getvalue(found->vals[i], found->tupdesc, 1),
				 SPI_getvalue(found->vals[i], found->tupdesc, 2));
}
