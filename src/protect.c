/*
 * protect.c
 *		protect() and unprotect(): one call that keeps a table's tenants apart.
 *
 * Trust: the caller owns the table (checked first, and again under the lock)
 * and everything runs with the caller's rights; what runs code of the table's
 * owner runs as that owner.  One statement is the exception: ADD FOREIGN KEY
 * to our table of tenants, which the caller may not reference; it runs as the
 * extension's owner, NOT VALID, hence without looking at a row.
 *
 * Locking: the table is locked in ACCESS EXCLUSIVE mode to the end of the
 * transaction, and lock_timeout is respected.
 *
 * What is done is done so that a second call changes nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* what protect() was asked for; names are quoted where they are used */
typedef struct Protect
{
	Oid			relid;
	char	   *table;			/* qualified and quoted */
	char	   *column;			/* quoted */
	char	   *column_name;
	char	   *read_test;		/* "" or " AND ...", for policies */
	char	   *write_test;
	char	   *fill;			/* quoted uuid for rows without tenant, or
								 * NULL */
	bool		foreign_key;
} Protect;

static const char *const policies[] = {
	"scrapersky_floor", "scrapersky_select", "scrapersky_insert",
	"scrapersky_update", "scrapersky_delete"
};

#define TRIGGER_NAME	"scrapersky_tenant"
#define FOREIGN_KEY_NAME "scrapersky_tenant_fk"

static void switch_on(Oid relid);
static void read_arguments(FunctionCallInfo fcinfo, Protect *p);
static void lock_own_table(Oid relid);
static void check_kind(Oid relid);
static char *table_name(Oid relid);
static char *permission_test(FunctionCallInfo fcinfo, int argno,
							 const char *function, const char *before);
static void check_column(const Protect *p, const SkyProtection *before);
static void fill_column(const Protect *p);
static void update_rows(const Protect *p);
static AttrNumber tenant_column(const Protect *p, bool *notnull);
static void set_foreign_key(const Protect *p);
static void add_index(const Protect *p, AttrNumber column);
static void set_policies(const Protect *p);
static void drop_policies(Oid relid, const char *table);
static bool has_policy(Oid relid, const char *name);
static bool has_trigger(Oid relid);
static bool has_foreign_key(Oid relid);
static void revoke_privileges(const Protect *p);

PG_FUNCTION_INFO_V1(scrapersky_protect);

/*
 * protect(relation, tenant_column, read_permission, write_permission,
 * on_denied, existing_rows_tenant, foreign_key): see its COMMENT.
 */
Datum
scrapersky_protect(PG_FUNCTION_ARGS)
{
	Protect		p;
	int			nestlevel;
	AttrNumber	column;
	bool		notnull;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4) || PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation, tenant_column, on_denied and foreign_key must not be null")));
	lock_own_table(PG_GETARG_OID(0));
	check_kind(PG_GETARG_OID(0));
	switch_on(PG_GETARG_OID(0));
	read_arguments(fcinfo, &p);

	/* under the caller's search_path, which the table's triggers may need */
	SPI_connect();
	fill_column(&p);
	SPI_finish();

	/* the table's triggers may have changed the table */
	check_kind(p.relid);
	p.table = table_name(p.relid);
	column = tenant_column(&p, &notnull);
	if (column == InvalidAttrNumber)
		elog(ERROR, "column %s of table %s was dropped meanwhile", p.column, p.table);

	nestlevel = sky_ddl_begin();
	sky_exec("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL,"
			 " ALTER COLUMN %s SET DEFAULT scrapersky.current_tenant_id()",
			 p.table, p.column, p.column);
	set_foreign_key(&p);
	add_index(&p, column);
	set_policies(&p);
	revoke_privileges(&p);
	sky_ddl_end(nestlevel);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(scrapersky_unprotect);

/*
 * unprotect(relation): take back what protect() did, except that the column,
 * its contents, NOT NULL, the index and the foreign key stay: to drop a foreign
 * key the server locks the table it refers to, and with it every sign-in.  Row
 * security stays on if there are policies of others.
 */
Datum
scrapersky_unprotect(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *table;
	int			nestlevel;
	SkyProtection before;
	bool		opened = false;

	lock_own_table(relid);
	nestlevel = sky_ddl_begin();
	table = table_name(relid);
	sky_protection(relid, &before);
	if (before.tenant_column == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is not protected", table)));
	sky_exec("ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT", table,
			 quote_identifier(get_attname(relid, before.tenant_column, false)));
	drop_policies(relid, table);
	if (has_trigger(relid))
		sky_exec("DROP TRIGGER " TRIGGER_NAME " ON %s", table);
	if (!sky_exists("SELECT 1 FROM pg_policy WHERE polrelid = $1", OIDOID,
					ObjectIdGetDatum(relid)))
	{
		sky_exec("ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
				 table);
		opened = true;
	}
	sky_ddl_end(nestlevel);
	if (opened)
		ereport(NOTICE,
				(errmsg("table %s is open to whoever has privileges on it",
						table_name(relid))));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(scrapersky_tenant_immutable);

/*
 * Trigger: a row stays with its tenant.
 */
Datum
scrapersky_tenant_immutable(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("tenant_immutable() is a trigger function")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a row cannot move to another tenant")));
}

/*
 * If the table has our policies, see to it that they hold: somebody may have
 * switched row security off, and then the server does not tell what they ask.
 */
static void
switch_on(Oid relid)
{
	int			nestlevel = sky_ddl_begin();
	bool		ours = false;

	for (int i = 0; i < lengthof(policies); i++)
		ours |= has_policy(relid, policies[i]);
	if (ours)
		sky_exec("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", table_name(relid));
	sky_ddl_end(nestlevel);
}

/*
 * Take protect()'s arguments, in the light of how the table is protected now.
 */
static void
read_arguments(FunctionCallInfo fcinfo, Protect *p)
{
	char	   *on_denied = text_to_cstring(PG_GETARG_TEXT_PP(4));
	bool		hide = strcmp(on_denied, "hide") == 0;
	const char *test = hide ? "has_permission" : "require_permission";
	SkyProtection before;

	if (!hide && strcmp(on_denied, "error") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_denied must be 'error' or 'hide'")));
	p->relid = PG_GETARG_OID(0);
	p->table = table_name(p->relid);
	p->column_name = NameStr(*PG_GETARG_NAME(1));
	p->column = pstrdup(quote_identifier(p->column_name));
	sky_protection(p->relid, &before);
	check_column(p, &before);
	p->read_test = permission_test(fcinfo, 2, test, before.read_permission);
	p->write_test = permission_test(fcinfo, 3, test, before.write_permission);
	p->fill = PG_ARGISNULL(5) ? NULL :
		quote_literal_cstr(DatumGetCString(DirectFunctionCall1(uuid_out,
															   PG_GETARG_DATUM(5))));
	p->foreign_key = PG_GETARG_BOOL(6);
}

/*
 * Lock a table of the caller's.  Ownership is checked before the lock, so that
 * nobody can lock what is not theirs, and after it, since it may have changed
 * in between.
 */
static void
lock_own_table(Oid relid)
{
	for (int i = 0; i < 2; i++)
	{
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation with OID %u does not exist", relid)));
		if (!sky_owns_relation(relid, GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
		if (i == 0)
			LockRelationOid(relid, AccessExclusiveLock);
	}
}

/*
 * Refuse what protect() would not protect: row security is for tables, and the
 * policies of a parent do not hold for whoever reads its children.
 */
static void
check_kind(Oid relid)
{
	Oid			schema = get_rel_namespace(relid);
	char	   *schema_name = get_namespace_name(schema);

	if (get_rel_relkind(relid) != RELKIND_RELATION || get_rel_relispartition(relid) ||
		has_superclass(relid) || has_subclass(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary table", get_rel_name(relid)),
				 errdetail("Partitioned tables, inheritance, views and foreign tables cannot be protected in this version.")));
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP ||
		IsCatalogNamespace(schema) || IsToastNamespace(schema) ||
		strcmp(schema_name, SKY_SCHEMA) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a temporary or system table", get_rel_name(relid))));
}

/*
 * The table's name for statements.
 */
static char *
table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * What a policy asks beside the tenant: " AND scrapersky.f('permission')", or
 * nothing.  If the argument is null, a table that is protected already keeps
 * the permission it has: a repeated call must not open it.
 */
static char *
permission_test(FunctionCallInfo fcinfo, int argno, const char *function,
				const char *before)
{
	const char *permission = PG_ARGISNULL(argno) ? before :
	text_to_cstring(PG_GETARG_TEXT_PP(argno));

	if (permission == NULL)
		return "";
	if (permission[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a permission must not be empty"),
				 errhint("Leave it out to ask for none.")));
	if (!sky_permission_exists(permission))
		ereport(WARNING,
				(errmsg("there is no permission \"%s\" yet", permission),
				 errhint("Nobody has it before it is made, by scrapersky.create_permission(), and granted.")));
	return psprintf(" AND scrapersky.%s(%s)", function,
					quote_literal_cstr(permission));
}

/*
 * Refuse another column than the one that protects the table now.
 */
static void
check_column(const Protect *p, const SkyProtection *before)
{
	char	   *column = before->tenant_column == 0 ? NULL :
	get_attname(p->relid, before->tenant_column, true);

	if (column != NULL && strcmp(column, p->column_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is protected by its column \"%s\"",
						p->table, column),
				 errhint("Call scrapersky.unprotect() first.")));
}

/*
 * See to it that the column is there and has a tenant in every row.  It gets its
 * default later: a default now would give all old rows to the caller's tenant.
 */
static void
fill_column(const Protect *p)
{
	bool		notnull;

	if (tenant_column(p, &notnull) == InvalidAttrNumber)
	{
		sky_exec("ALTER TABLE %s ADD COLUMN %s pg_catalog.uuid", p->table, p->column);
		ereport(NOTICE,
				(errmsg("column %s added to table %s", p->column, p->table)));
		notnull = false;
	}
	if (notnull)
		return;
	if (p->fill != NULL)
		update_rows(p);
	else if (sky_exists(psprintf("SELECT 1 FROM %s WHERE %s IS NULL",
								 p->table, p->column), InvalidOid, (Datum) 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has rows without a tenant", p->table),
				 errhint("If all are one tenant's: protect(..., existing_rows_tenant => <uuid>). Otherwise fill the column first.")));
}

/*
 * Give the rows without a tenant to the one that was named.  That runs the
 * table's triggers, so it runs as the table's owner: a superuser who protects
 * somebody's table does not lend them more.
 */
static void
update_rows(const Protect *p)
{
	Relation	relation = table_open(p->relid, NoLock);
	Oid			owner = relation->rd_rel->relowner;

	table_close(relation, NoLock);
	if (owner == GetUserId())
		sky_exec("UPDATE %s SET %s = %s WHERE %s IS NULL",
				 p->table, p->column, p->fill, p->column);
	else
		sky_exec_as(owner, "UPDATE %s SET %s = %s WHERE %s IS NULL",
					p->table, p->column, p->fill, p->column);
}

/*
 * The number of the tenant column, 0 if there is none; an error if it cannot
 * hold tenants.
 */
static AttrNumber
tenant_column(const Protect *p, bool *notnull)
{
	HeapTuple	tuple = SearchSysCacheAttName(p->relid, p->column_name);
	Form_pg_attribute attribute;
	AttrNumber	result;

	if (!HeapTupleIsValid(tuple))
		return InvalidAttrNumber;
	attribute = (Form_pg_attribute) GETSTRUCT(tuple);
	if (attribute->atttypid != UUIDOID || attribute->attgenerated != '\0' ||
		attribute->attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column %s of table %s cannot hold the tenant",
						p->column, p->table),
				 errdetail("It must be an ordinary column of type uuid.")));
	result = attribute->attnum;
	*notnull = attribute->attnotnull;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Add the foreign key to our tenants, or take it away, as asked for.
 */
static void
set_foreign_key(const Protect *p)
{
	bool		exists = has_foreign_key(p->relid);

	if (exists && !p->foreign_key)
		sky_exec("ALTER TABLE %s DROP CONSTRAINT " FOREIGN_KEY_NAME, p->table);
	if (exists || !p->foreign_key)
		return;

	sky_exec_as(sky_owner(), "ALTER TABLE %s ADD CONSTRAINT " FOREIGN_KEY_NAME
				" FOREIGN KEY (%s) REFERENCES scrapersky.tenants (id) NOT VALID",
				p->table, p->column);
	/* names may be changed by others at any time: was it our table? */
	if (!has_foreign_key(p->relid))
		elog(ERROR, "table %s was renamed meanwhile", p->table);
	sky_exec("ALTER TABLE %s VALIDATE CONSTRAINT " FOREIGN_KEY_NAME, p->table);
}

/*
 * See to an index that is led by the tenant column.
 */
static void
add_index(const Protect *p, AttrNumber column)
{
	Relation	relation = table_open(p->relid, NoLock);
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *cell;
	bool		found = false;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_index->indkey.values[0] == column &&
			RelationGetIndexPredicate(index) == NIL)
			found = true;
		index_close(index, NoLock);
	}
	table_close(relation, NoLock);
	if (!found)
		sky_exec("CREATE INDEX ON %s (%s)", p->table, p->column);
}

/*
 * Make the policies and the trigger anew, and switch row security on.
 */
static void
set_policies(const Protect *p)
{
	char	   *tenant = psprintf("%s = scrapersky.current_tenant_id()", p->column);

	drop_policies(p->relid, p->table);
	sky_exec("CREATE POLICY scrapersky_floor ON %s AS RESTRICTIVE"
			 " USING (%s) WITH CHECK (%s)", p->table, tenant, tenant);
	sky_exec("CREATE POLICY scrapersky_select ON %s FOR SELECT"
			 " USING (%s%s)", p->table, tenant, p->read_test);
	sky_exec("CREATE POLICY scrapersky_insert ON %s FOR INSERT"
			 " WITH CHECK (%s%s)", p->table, tenant, p->write_test);
	sky_exec("CREATE POLICY scrapersky_update ON %s FOR UPDATE"
			 " USING (%s%s) WITH CHECK (%s%s)", p->table,
			 tenant, p->write_test, tenant, p->write_test);
	sky_exec("CREATE POLICY scrapersky_delete ON %s FOR DELETE"
			 " USING (%s%s)", p->table, tenant, p->write_test);
	sky_exec("CREATE OR REPLACE TRIGGER " TRIGGER_NAME
			 " BEFORE UPDATE OF %s ON %s FOR EACH ROW"
			 " WHEN (OLD.%s IS DISTINCT FROM NEW.%s)"
			 " EXECUTE FUNCTION scrapersky.tenant_immutable()",
			 p->column, p->table, p->column, p->column);
	sky_exec("ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
			 p->table);
}

/*
 * Drop those of our policies that are there.
 */
static void
drop_policies(Oid relid, const char *table)
{
	for (int i = 0; i < lengthof(policies); i++)
	{
		if (has_policy(relid, policies[i]))
			sky_exec("DROP POLICY %s ON %s", policies[i], table);
	}
}

/*
 * Does the table have a policy of this name?
 */
static bool
has_policy(Oid relid, const char *name)
{
	return sky_exists(psprintf("SELECT 1 FROM pg_policy"
							   " WHERE polrelid = $1 AND polname = %s",
							   quote_literal_cstr(name)),
					  OIDOID, ObjectIdGetDatum(relid));
}

/*
 * Does the table have our trigger?
 */
static bool
has_trigger(Oid relid)
{
	return get_trigger_oid(relid, TRIGGER_NAME, true) != InvalidOid;
}

/*
 * Does the table have our foreign key?
 */
static bool
has_foreign_key(Oid relid)
{
	return sky_exists("SELECT 1 FROM pg_constraint WHERE conrelid = $1"
					  " AND contype = 'f' AND conname = '" FOREIGN_KEY_NAME "'"
					  " AND confrelid = 'scrapersky.tenants'::regclass",
					  OIDOID, ObjectIdGetDatum(relid));
}

/*
 * Take from everybody but the owner what row security does not govern:
 * TRUNCATE, REFERENCES and TRIGGER.
 */
static void
revoke_privileges(const Protect *p)
{
	uint64		count;
	SPITupleTable *grantees;

	count = sky_query("SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'"
					  " ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
					  " FROM pg_class c JOIN (SELECT oid AS relid, relacl AS acl FROM pg_class"
					  " UNION ALL SELECT attrelid, attacl FROM pg_attribute) acls ON relid = oid,"
					  " aclexplode(acl) a WHERE c.oid = $1 AND a.grantee <> c.relowner"
					  " AND a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')",
					  OIDOID, ObjectIdGetDatum(p->relid));
	grantees = SPI_tuptable;
	for (uint64 i = 0; i < count; i++)
		sky_exec("REVOKE TRUNCATE, REFERENCES, TRIGGER ON TABLE %s FROM %s CASCADE",
				 p->table, SPI_getvalue(grantees->vals[i], grantees->tupdesc, 1));
}
