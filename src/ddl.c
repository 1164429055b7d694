/*
 * ddl.c
 *		Statements that the library runs for its caller: protect() and
 *		setup_api() are made of them.
 *
 * Trust: they run as the caller, with search_path pinned, so that no name is
 * looked up in a schema of somebody else's; only sky_exec_as() lends another
 * role's rights, for one statement, after its caller has checked who asks.
 */
#include "postgres.h"

#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/guc.h"
#include "utils/syscache.h"

static void exec_text(const char *format, va_list args)
			pg_attribute_printf(1, 0);

/*
 * The role that owns the extension's schema, and so its tables.
 */
Oid
sky_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum(SKY_SCHEMA));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist", SKY_SCHEMA)));
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Get ready to run statements: connects to SPI, pins search_path, and hides
 * the notices of what is there already.  An error undoes all of it.
 */
int
sky_ddl_begin(void)
{
	int			nestlevel = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (client_min_messages < WARNING)
		(void) set_config_option("client_min_messages", "warning",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	return nestlevel;
}

/*
 * Undo sky_ddl_begin().
 */
void
sky_ddl_end(int nestlevel)
{
	SPI_finish();
	AtEOXact_GUC(true, nestlevel);
}

/*
 * Run a statement as the caller.  Names in it must be quoted.
 */
void
sky_exec(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	exec_text(format, args);
	va_end(args);
}

/*
 * Run a statement as another role, as CREATE INDEX and VACUUM do it: whatever
 * code the statement meets gets nothing of the caller's, and the settings that
 * it leaves behind are undone.
 */
void
sky_exec_as(Oid role, const char *format,...)
{
	va_list		args;
	Oid			user;
	int			context;
	int			nestlevel = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	va_start(args, format);
	exec_text(format, args);
	va_end(args);
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(false, nestlevel);
}

/*
 * Run a query as the caller, with one parameter, or none if type is InvalidOid.
 * Returns the number of rows, which are in SPI_tuptable.
 */
uint64
sky_query(const char *query, Oid type, Datum value)
{
	int			result = SPI_execute_with_args(query, type == InvalidOid ? 0 : 1,
											   &type, &value, NULL, false, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not run a query: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Does this query find a row?
 */
bool
sky_exists(const char *query, Oid type, Datum value)
{
	return sky_query(psprintf("SELECT WHERE EXISTS (%s)", query), type, value) > 0;
}

/*
 * Put a statement together and run it.
 */
static void
exec_text(const char *format, va_list args)
{
	StringInfoData statement;
	va_list		copy;
	int			needed;
	int			result;

	initStringInfo(&statement);
	for (;;)
	{
		va_copy(copy, args);
		needed = appendStringInfoVA(&statement, format, copy);
		va_end(copy);
		if (needed == 0)
			break;
		enlargeStringInfo(&statement, needed);
	}
	result = SPI_execute(statement.data, false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
}
