/*
 * guard.c
 *		What row security alone does not do: say no.
 *
 * A policy that asks for a permission is evaluated per row, so on an empty
 * table, or where no row matches, nobody would be told that a permission is
 * missing.  The executor-permissions hook asks once per statement, for every
 * protected table whose policies apply to the current role.  It fires for
 * COPY, too.  It runs after a previous hook, and for every statement of the
 * server: for a relation without row security it costs one look into the
 * system cache.
 *
 * What is protected, and by what, is read from the policies (as they are in
 * the relation cache), so it can neither drift nor get lost in a dump.  A
 * table's entry is built at first use and forgotten when the server says that
 * the relation changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rowsecurity.h"
#include "scrapersky.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

typedef struct GuardEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	SkyProtection protection;
} GuardEntry;

static ExecutorCheckPerms_hook_type previous_check = NULL;
static object_access_hook_type previous_access = NULL;
static HTAB *guard_table = NULL;
static MemoryContext guard_context = NULL;

static void guard_access(ObjectAccessType access, Oid classid, Oid objectid,
						 int subid, void *arg);
static void refuse_to_drop_tenants(void);
static bool is_table_of_tenants(Oid relid);
static bool guard_check(SKY_PERMS_ARGS);
static bool guard_relation(const SkyPermInfo *info, bool raise);
static void on_invalidation(Datum arg, Oid relid);
static const SkyProtection *find_protection(Oid relid);
static const SkyProtection *keep_protection(Oid relid, const SkyProtection *found);
static void read_protection(Relation relation, SkyProtection *protection);
static bool floor_column(Node *node, void *column);
static bool find_permission(Node *node, void *protection);
static bool is_ours(Oid classid, Oid objectid);

/*
 * Install the hooks.  Called once, by _PG_init.
 */
void
sky_guard_init(void)
{
	CacheRegisterRelcacheCallback(on_invalidation, (Datum) 0);
	previous_check = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = guard_check;
	previous_access = object_access_hook;
	object_access_hook = guard_access;
}

/*
 * How the relation is protected, in the caller's memory.
 */
void
sky_protection(Oid relid, SkyProtection *protection)
{
	*protection = *find_protection(relid);
	if (protection->read_permission != NULL)
		protection->read_permission = pstrdup(protection->read_permission);
	if (protection->write_permission != NULL)
		protection->write_permission = pstrdup(protection->write_permission);
}

PG_FUNCTION_INFO_V1(scrapersky_protection);

/*
 * protection(relation): how the relation is protected, one row of nulls if it
 * is not.  Columns are found by name.
 */
Datum
scrapersky_protection(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	SkyProtection protection;
	TupleDesc	desc;
	Datum		values[4] = {0};
	bool		nulls[4] = {true, true, true, true};
	char	   *column = NULL;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != lengthof(values))
		elog(ERROR, "return type must be a row type");
	sky_protection(relid, &protection);
	if (protection.tenant_column != 0)
		column = get_attname(relid, protection.tenant_column, true);
	if (column != NULL)
	{
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(column));
		nulls[0] = false;
		values[3] = CStringGetTextDatum(protection.hide ? "hide" : "error");
		nulls[3] = false;
		if (protection.read_permission != NULL)
		{
			values[1] = CStringGetTextDatum(protection.read_permission);
			nulls[1] = false;
		}
		if (protection.write_permission != NULL)
		{
			values[2] = CStringGetTextDatum(protection.write_permission);
			nulls[2] = false;
		}
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

PG_FUNCTION_INFO_V1(scrapersky_guard_drop);

/*
 * Event trigger on ddl_command_start of what may drop the extension: being
 * called is all, since it loads the library, whose hook then decides.
 */
Datum
scrapersky_guard_drop(PG_FUNCTION_ARGS)
{
	PG_RETURN_NULL();
}

/*
 * object_access_hook.  Dropping the extension, in whatever way, would take all
 * tenants, users and roles with it, without a word; TRUNCATE, which row
 * security knows nothing of, would take all tenants' rows.
 */
static void
guard_access(ObjectAccessType access, Oid classid, Oid objectid, int subid,
			 void *arg)
{
	if (previous_access != NULL)
		previous_access(access, classid, objectid, subid, arg);
	if (classid != RelationRelationId || subid != 0)
		return;

	if (access == OAT_TRUNCATE && !sky_owns_relation(objectid, GetUserId()) &&
		find_protection(objectid)->tenant_column != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner can truncate protected table \"%s\"",
						get_rel_name(objectid))));
	if (access == OAT_DROP && !sky_allow_drop && is_table_of_tenants(objectid))
		refuse_to_drop_tenants();
}

/*
 * Refuse to go on if there are tenants.
 */
static void
refuse_to_drop_tenants(void)
{
	SPI_connect();
	if (sky_exists("SELECT 1 FROM scrapersky.tenants", InvalidOid, (Datum) 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("extension scrapersky holds tenants, which dropping it would delete"),
				 errhint("To drop it with all tenants, users and roles: SET scrapersky.allow_drop = on;")));
	SPI_finish();
}

/*
 * Is this relation the extension's table of tenants?
 */
static bool
is_table_of_tenants(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name != NULL && strcmp(name, "tenants") == 0 &&
		get_rel_relkind(relid) == RELKIND_RELATION &&
		is_ours(RelationRelationId, relid);
}

/*
 * ExecutorCheckPerms_hook: the previous hook first, then ours.
 */
static bool
guard_check(SKY_PERMS_ARGS)
{
	ListCell   *cell;

	if (previous_check != NULL && !previous_check(SKY_PERMS_PASS))
		return false;
	foreach(cell, SKY_PERMS_LIST)
	{
		const SkyPermInfo *info = lfirst(cell);

		if (sky_perm_is_relation(info) && info->requiredPerms != 0 &&
			!guard_relation(info, ereport_on_violation))
			return false;
	}
	return true;
}

/*
 * Refuse a statement that lacks a permission the table's policies require,
 * where these policies apply to whoever reads the table.  Who does not want
 * errors is about to validate a foreign key by one query over all tenants'
 * rows: false makes it check them row by row, which row security allows.
 */
static bool
guard_relation(const SkyPermInfo *info, bool raise)
{
	const SkyProtection *protection;

	if (check_enable_rls(info->relid, info->checkAsUser, true) != RLS_ENABLED)
		return true;
	protection = find_protection(info->relid);
	if (protection->tenant_column == 0)
		return true;
	if (!raise)
		return false;
	if (protection->hide)
		return true;
	if ((info->requiredPerms & ACL_SELECT) && protection->read_permission != NULL)
		sky_require_permission(protection->read_permission,
							   strlen(protection->read_permission));
	if ((info->requiredPerms & (ACL_INSERT | ACL_UPDATE | ACL_DELETE)) &&
		protection->write_permission != NULL)
		sky_require_permission(protection->write_permission,
							   strlen(protection->write_permission));
	return true;
}

/*
 * Invalidation callback: what is known of the relation, or of all, may be old.
 */
static void
on_invalidation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	GuardEntry *entry;

	if (guard_table == NULL)
		return;
	if (relid != InvalidOid)
	{
		entry = hash_search(guard_table, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->valid = false;
		return;
	}
	hash_seq_init(&scan, guard_table);
	while ((entry = hash_seq_search(&scan)) != NULL)
		entry->valid = false;
}

/*
 * What protects the relation; never NULL.  Good until something is looked up
 * in the catalog.
 */
static const SkyProtection *
find_protection(Oid relid)
{
	static const SkyProtection none = {0};
	GuardEntry *entry = NULL;
	Relation	relation;
	SkyProtection found = {0};

	if (guard_table != NULL)
		entry = hash_search(guard_table, &relid, HASH_FIND, NULL);
	if (entry != NULL && entry->valid)
		return &entry->protection;

	/* opening the relation takes in what is new about it */
	relation = try_relation_open(relid, AccessShareLock);
	if (relation != NULL)
	{
		read_protection(relation, &found);
		relation_close(relation, AccessShareLock);
	}
	return found.tenant_column == 0 ? &none : keep_protection(relid, &found);
}

/*
 * Keep what protects a relation.  Only protected ones are kept, so there are
 * no more entries than the database has had such tables.
 */
static const SkyProtection *
keep_protection(Oid relid, const SkyProtection *found)
{
	GuardEntry *entry;
	MemoryContext old;
	bool		exists;

	if (guard_table == NULL)
	{
		HASHCTL		ctl = {0};

		guard_context = AllocSetContextCreate(CacheMemoryContext,
											  "scrapersky protected tables",
											  ALLOCSET_SMALL_SIZES);
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(GuardEntry);
		ctl.hcxt = guard_context;
		guard_table = hash_create("scrapersky protected tables", 64, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	old = MemoryContextSwitchTo(guard_context);
	entry = hash_search(guard_table, &relid, HASH_ENTER, &exists);
	if (exists && entry->protection.read_permission != NULL)
		pfree(entry->protection.read_permission);
	if (exists && entry->protection.write_permission != NULL)
		pfree(entry->protection.write_permission);
	entry->valid = false;
	entry->protection = *found;
	entry->protection.read_permission = NULL;
	entry->protection.write_permission = NULL;
	if (found->read_permission != NULL)
		entry->protection.read_permission = pstrdup(found->read_permission);
	if (found->write_permission != NULL)
		entry->protection.write_permission = pstrdup(found->write_permission);
	entry->valid = true;
	MemoryContextSwitchTo(old);
	return &entry->protection;
}

/*
 * Read the policies of protect() in the relation cache's form.
 */
static void
read_protection(Relation relation, SkyProtection *protection)
{
	ListCell   *cell;

	if (relation->rd_rsdesc == NULL)
		return;
	foreach(cell, relation->rd_rsdesc->policies)
	{
		RowSecurityPolicy *policy = lfirst(cell);
		SkyProtection found = {0};

		if (strcmp(policy->policy_name, "scrapersky_floor") == 0)
			floor_column((Node *) policy->qual, &protection->tenant_column);
		else if (strcmp(policy->policy_name, "scrapersky_select") == 0)
		{
			find_permission((Node *) policy->qual, &found);
			protection->read_permission = found.read_permission;
			protection->hide |= found.hide;
		}
		else if (strcmp(policy->policy_name, "scrapersky_insert") == 0)
		{
			find_permission((Node *) policy->with_check_qual, &found);
			protection->write_permission = found.read_permission;
			protection->hide |= found.hide;
		}
	}
}

/*
 * Tree walker: the column that the floor compares.
 */
static bool
floor_column(Node *node, void *column)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		*(AttrNumber *) column = ((Var *) node)->varattno;
		return true;
	}
	return expression_tree_walker(node, floor_column, column);
}

/*
 * Tree walker: the permission that a policy requires, and how it is denied.
 */
static bool
find_permission(Node *node, void *protection)
{
	SkyProtection *found = protection;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && list_length(((FuncExpr *) node)->args) == 1)
	{
		FuncExpr   *call = (FuncExpr *) node;
		Const	   *argument = linitial(call->args);
		char	   *name = get_func_name(call->funcid);

		if (name != NULL && IsA(argument, Const) &&
			argument->consttype == TEXTOID && !argument->constisnull &&
			(strcmp(name, "has_permission") == 0 ||
			 strcmp(name, "require_permission") == 0) &&
			is_ours(ProcedureRelationId, call->funcid))
		{
			found->read_permission = TextDatumGetCString(argument->constvalue);
			found->hide = strcmp(name, "has_permission") == 0;
			return true;
		}
	}
	return expression_tree_walker(node, find_permission, protection);
}

/*
 * Is this object a member of our extension?  Names alone say nothing: the hooks
 * run in every database, whoever made what is in it.
 */
static bool
is_ours(Oid classid, Oid objectid)
{
	Oid			extension = get_extension_oid("scrapersky", true);

	return OidIsValid(extension) &&
		getExtensionOfObject(classid, objectid) == extension;
}
