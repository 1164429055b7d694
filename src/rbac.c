/*
 * rbac.c
 *		Who is this, in which tenant, with which roles and permissions: asked
 *		once, when an identity is established, and answered from memory.
 *
 * Trust: the tables are read as their owner, under the latest snapshot (a
 * REPEATABLE READ transaction must not fill the cache with what was true when
 * it began), by queries that depend on no search_path.
 *
 * Cache: per backend, keyed by what was asked for, bounded by the setting
 * scrapersky.rbac_cache_size (when it is full it is emptied).  Triggers on the
 * tables (row level, ENABLE ALWAYS, TRUNCATE too) announce what changed by
 * PostgreSQL's own invalidation messages, which are transactional, reach every
 * backend before its next transaction, and reach standbys.  Such a message
 * carries 32 bits that are meant as a relation's oid; we send the hash of the
 * user or role that changed, with the high bit set, where oids of relations
 * are rare and where a chance match costs no more than a needless reload.  So
 * a change reloads just those it concerns, no table is written and nobody
 * waits for a lock.  (Tenants, permissions and settings change seldom: then
 * everything is reloaded.)  An entry is good while none of the hashes that it
 * depends on was announced after its load began.
 *
 * A transaction that changed the tables itself sees its own changes.  One that
 * has written anything at all keeps nothing of what it loads: it may have seen
 * a row of its own whose trigger has not fired yet, and never will.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define STAMPS			1024	/* announcements remembered, by hash */
#define MAX_ANNOUNCED	64		/* in one subtransaction, then "everything" */
#define KEY_BIT			0x80000000U
#define KEY_EVERYTHING	KEY_BIT

typedef struct CacheEntry
{
	uint64		hash;			/* of the question: the table's key */
	char	   *question;
	int			question_len;
	char	   *answer;			/* sections of the identity's wire form */
	int			answer_len;
	uint64		loaded_at;		/* the clock before the load began */
	uint32	   *keys;			/* what the answer depends on */
	int			nkeys;
} CacheEntry;

typedef struct Answer
{
	StringInfoData wire;
	uint32	   *keys;
	int			nkeys;
	int			maxkeys;
} Answer;

/* a query on our tables, planned once per backend */
typedef struct TableQuery
{
	const char *text;
	int			nargs;
	Oid			types[2];
	SPIPlanPtr	plan;
} TableQuery;

static TableQuery user_query = {
	"SELECT id, email FROM scrapersky.users"
	" WHERE issuer OPERATOR(pg_catalog.=) $1"
	" AND subject OPERATOR(pg_catalog.=) $2"
	" AND status OPERATOR(pg_catalog.=) 'active'",
	2, {TEXTOID, TEXTOID}, NULL
};

/* the tenant wanted, or the first two of all */
static TableQuery tenant_query = {
	"SELECT t.id, t.name"
	" FROM scrapersky.memberships m JOIN scrapersky.tenants t"
	" ON t.id OPERATOR(pg_catalog.=) m.tenant_id"
	" WHERE m.user_id OPERATOR(pg_catalog.=) $1"
	" AND ($2 IS NULL OR m.tenant_id OPERATOR(pg_catalog.=) $2)"
	" AND m.status OPERATOR(pg_catalog.=) 'active'"
	" AND t.status OPERATOR(pg_catalog.=) 'active'"
	" LIMIT 2",
	2, {UUIDOID, UUIDOID}, NULL
};

/*
 * A tenant's role in the name of a system role counts for nothing:
 * create_role() refuses it, but a superuser or a restored dump may bring one.
 */
#define ROLES_HELD \
	" WHERE ur.user_id OPERATOR(pg_catalog.=) $1" \
	" AND (ur.tenant_id IS NULL OR ur.tenant_id OPERATOR(pg_catalog.=) $2)" \
	" AND (r.tenant_id IS NULL OR NOT EXISTS (SELECT 1" \
	" FROM scrapersky.roles s WHERE s.tenant_id IS NULL" \
	" AND pg_catalog.lower(s.name COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.=)" \
	" pg_catalog.lower(r.name COLLATE pg_catalog.\"C\")))" \
	" ORDER BY 1"

static TableQuery roles_query = {
	"SELECT DISTINCT r.name COLLATE pg_catalog.\"C\", r.id"
	" FROM scrapersky.user_roles ur"
	" JOIN scrapersky.roles r ON r.id OPERATOR(pg_catalog.=) ur.role_id"
	ROLES_HELD,
	2, {UUIDOID, UUIDOID}, NULL
};

static TableQuery permissions_query = {
	"SELECT DISTINCT p.name COLLATE pg_catalog.\"C\""
	" FROM scrapersky.user_roles ur"
	" JOIN scrapersky.roles r ON r.id OPERATOR(pg_catalog.=) ur.role_id"
	" JOIN scrapersky.role_permissions rp"
	" ON rp.role_id OPERATOR(pg_catalog.=) r.id"
	" JOIN scrapersky.permissions p"
	" ON p.id OPERATOR(pg_catalog.=) rp.permission_id"
	ROLES_HELD,
	2, {UUIDOID, UUIDOID}, NULL
};

static TableQuery role_name_query = {
	"SELECT 1 FROM scrapersky.roles"
	" WHERE pg_catalog.lower(name COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.=)"
	" pg_catalog.lower($1 COLLATE pg_catalog.\"C\")"
	" AND (tenant_id IS NOT NULL) OPERATOR(pg_catalog.=) $2",
	2, {TEXTOID, BOOLOID}, NULL
};

static TableQuery permission_query = {
	"SELECT 1 FROM scrapersky.permissions"
	" WHERE name OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}, NULL
};

static TableQuery setting_query = {
	"SELECT value FROM scrapersky.settings"
	" WHERE name OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}, NULL
};

/* whatever else happens to these (DROP, ALTER, VACUUM) makes all answers old */
static const char *const table_names[] = {
	"settings", "tenants", "users", "memberships", "permissions", "roles",
	"role_permissions", "user_roles"
};
static Oid	tables[lengthof(table_names)];

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static uint64 inval_clock = 0;
static uint64 everything_stamp = 0;
static uint64 stamps[STAMPS];
static bool wrote_tables = false;
static SubTransactionId announcer = InvalidSubTransactionId;
static int	announced = 0;

static void on_invalidation(Datum arg, Oid relid);
static void on_transaction_end(XactEvent event, void *arg);
static void announce(uint32 key);
static uint32 uuid_key(const pg_uuid_t *uuid);
static void announce_row(TriggerData *trigger, HeapTuple row);
static bool is_fresh(const CacheEntry *entry);
static bool may_keep(void);
static void remember_tables(void);
static void make_question(const SkyWish *wish, StringInfo question);
static CacheEntry *find_entry(const StringInfoData *question, uint64 hash);
static void keep_in_cache(const StringInfoData *question, uint64 hash,
						  const Answer *answer, uint64 loaded_at);
static bool load_answer(const SkyWish *wish, Answer *answer,
						const char **reason);
static bool load_user(const SkyWish *wish, Answer *answer, pg_uuid_t *user,
					  const char **reason);
static bool load_tenant(const pg_uuid_t *wanted, const pg_uuid_t *user,
						Answer *answer, bool *found, pg_uuid_t *tenant,
						const char **reason);
static int	find_tenant(const pg_uuid_t *wanted, const pg_uuid_t *user,
						Answer *answer, pg_uuid_t *tenant);
static void load_list(TableQuery *query, char tag, const pg_uuid_t *user,
					  const pg_uuid_t *tenant, Answer *answer);
static void depend_on(Answer *answer, const pg_uuid_t *uuid);
static void run_query(TableQuery *query, Datum *values, const char *nulls);
static const char *cell(uint64 row, int column);
static void append_cell(StringInfo wire, char tag, int column);

/*
 * Register for what is announced.  Called once, by _PG_init.
 */
void
sky_rbac_init(void)
{
	CacheRegisterRelcacheCallback(on_invalidation, (Datum) 0);
	RegisterXactCallback(on_transaction_end, NULL);
}

/*
 * Append to wire the sections that say who the subject is and what it may do,
 * in the tenant asked for; if none was, in its only tenant, or in the default
 * tenant, or in none.  False, with the reason for the log, if that is denied.
 */
bool
sky_rbac_resolve(const SkyWish *wish, StringInfo wire, const char **reason)
{
	StringInfoData question;
	Answer		answer;
	CacheEntry *entry;
	uint64		hash;
	uint64		loaded_at;

	AcceptInvalidationMessages();
	make_question(wish, &question);
	hash = hash_bytes_extended((unsigned char *) question.data, question.len, 0);

	entry = wrote_tables ? NULL : find_entry(&question, hash);
	if (entry != NULL)
	{
		appendBinaryStringInfo(wire, entry->answer, entry->answer_len);
		return true;
	}

	remember_tables();
	loaded_at = inval_clock;
	if (!load_answer(wish, &answer, reason))
		return false;
	appendBinaryStringInfo(wire, answer.wire.data, answer.wire.len);
	if (may_keep())
		keep_in_cache(&question, hash, &answer, loaded_at);
	return true;
}

/*
 * The value of a row of scrapersky.settings, palloc'd, or NULL.
 */
char *
sky_setting(const char *name)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		values[] = {CStringGetTextDatum(name)};
	char	   *result = NULL;

	run_query(&setting_query, values, NULL);
	if (SPI_processed == 1 && cell(0, 1) != NULL)
		result = MemoryContextStrdup(caller, cell(0, 1));
	SPI_finish();
	return result;
}

/*
 * Is there a permission of this name?
 */
bool
sky_permission_exists(const char *permission)
{
	Datum		values[] = {CStringGetTextDatum(permission)};
	bool		result;

	run_query(&permission_query, values, NULL);
	result = SPI_processed > 0;
	SPI_finish();
	return result;
}

/*
 * The moment to keep beside something that was read from our tables.
 */
uint64
sky_rbac_clock(void)
{
	remember_tables();
	return inval_clock;
}

/*
 * Is what was read from settings at that moment still good?
 */
bool
sky_settings_unchanged(uint64 since)
{
	return may_keep() && everything_stamp <= since;
}

PG_FUNCTION_INFO_V1(scrapersky_rbac_changed);

/*
 * Trigger: announce what the old row and the new are about; without an
 * argument, or for TRUNCATE, everything.
 */
Datum
scrapersky_rbac_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("rbac_changed() is a trigger function")));

	wrote_tables = true;
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs == 0)
		announce(KEY_EVERYTHING);
	else
	{
		announce_row(trigger, trigger->tg_trigtuple);
		if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
			announce_row(trigger, trigger->tg_newtuple);
	}
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(scrapersky_role_name_taken);

/*
 * role_name_taken(name, tenant): would a role of this name be confused with
 * another's?  A tenant's role may not carry a system role's name, nor the
 * other way round, in either case of letters.  Looks under the latest
 * snapshot: create_role() calls it holding a lock, in any isolation level.
 */
Datum
scrapersky_role_name_taken(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	bool		result;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = BoolGetDatum(PG_ARGISNULL(1));
	run_query(&role_name_query, values, NULL);
	result = SPI_processed > 0;
	SPI_finish();
	PG_RETURN_BOOL(result);
}

/*
 * Invalidation callback: note the moment, no more.  The server also calls it
 * for relations that are not ours, and with InvalidOid for "all of them".
 */
static void
on_invalidation(Datum arg, Oid relid)
{
	bool		everything = relid == InvalidOid || relid == KEY_EVERYTHING;

	for (int i = 0; i < lengthof(tables); i++)
		everything |= relid == tables[i];
	if (everything)
		everything_stamp = ++inval_clock;
	else if (relid & KEY_BIT)
		stamps[relid % STAMPS] = ++inval_clock;
}

/*
 * Transaction callback: what was said of this transaction holds no longer.
 */
static void
on_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		wrote_tables = false;
		announcer = InvalidSubTransactionId;
	}
}

/*
 * Announce a key to every backend, this one included, when the transaction
 * commits.  A subtransaction that announces many says "everything" instead:
 * the server looks through all earlier messages at each new one.
 */
static void
announce(uint32 key)
{
	FormData_pg_class form;
	RelationData relation;

	if (announcer != GetCurrentSubTransactionId())
	{
		announcer = GetCurrentSubTransactionId();
		announced = 0;
	}
	if (announced >= MAX_ANNOUNCED)
		return;
	if (++announced == MAX_ANNOUNCED)
		key = KEY_EVERYTHING;

	/* no such relation: its oid is the message */
	memset(&form, 0, sizeof(form));
	memset(&relation, 0, sizeof(relation));
	relation.rd_id = key;
	relation.rd_rel = &form;
	CacheInvalidateRelcache(&relation);
}

/*
 * The key that stands for a user or a role.
 */
static uint32
uuid_key(const pg_uuid_t *uuid)
{
	uint32		key = hash_bytes(uuid->data, UUID_LEN) | KEY_BIT;

	return key == KEY_EVERYTHING ? key + 1 : key;
}

/*
 * Announce what a row is about: the uuid in the first column that the trigger
 * names, or everything if one of its columns is null.
 */
static void
announce_row(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	uint32		key = 0;

	for (int i = 0; i < trigger->tg_trigger->tgnargs; i++)
	{
		int			column = SPI_fnumber(desc, trigger->tg_trigger->tgargs[i]);
		bool		isnull = true;
		Datum		value = (Datum) 0;

		if (column > 0 && TupleDescAttr(desc, column - 1)->atttypid == UUIDOID)
			value = heap_getattr(row, column, desc, &isnull);
		if (isnull)
			key = KEY_EVERYTHING;
		else if (i == 0)
			key = uuid_key(DatumGetUUIDP(value));
	}
	announce(key);
}

/*
 * Has nothing that the entry depends on been announced since it was loaded?
 */
static bool
is_fresh(const CacheEntry *entry)
{
	if (everything_stamp > entry->loaded_at)
		return false;
	for (int i = 0; i < entry->nkeys; i++)
	{
		if (stamps[entry->keys[i] % STAMPS] > entry->loaded_at)
			return false;
	}
	return true;
}

/*
 * Can this transaction have seen committed rows only?
 */
static bool
may_keep(void)
{
	return !wrote_tables && !TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/*
 * Note the oids of our tables.
 */
static void
remember_tables(void)
{
	Oid			schema = get_namespace_oid(SKY_SCHEMA, false);

	for (int i = 0; i < lengthof(tables); i++)
		tables[i] = get_relname_relid(table_names[i], schema);
}

/*
 * Write down all that the answer depends on, settings included.
 */
static void
make_question(const SkyWish *wish, StringInfo question)
{
	initStringInfo(question);
	sky_list_append(question, wish->issuer, strlen(wish->issuer));
	sky_list_append(question, wish->subject, strlen(wish->subject));
	if (wish->tenant != NULL)
		appendBinaryStringInfo(question, (const char *) wish->tenant->data,
							   UUID_LEN);
	else
		appendStringInfo(question, "%d%s", sky_environment,
						 sky_default_tenant_id ? sky_default_tenant_id : "");
}

/*
 * Find a fresh answer to the question, or NULL.
 */
static CacheEntry *
find_entry(const StringInfoData *question, uint64 hash)
{
	CacheEntry *entry;

	if (cache == NULL)
		return NULL;
	entry = hash_search(cache, &hash, HASH_FIND, NULL);
	if (entry != NULL && entry->question != NULL &&
		entry->question_len == question->len &&
		memcmp(entry->question, question->data, question->len) == 0 &&
		is_fresh(entry))
		return entry;
	return NULL;
}

/*
 * Keep an answer.  A full cache is emptied first.
 */
static void
keep_in_cache(const StringInfoData *question, uint64 hash,
			  const Answer *answer, uint64 loaded_at)
{
	CacheEntry *entry;
	MemoryContext old;
	bool		found;

	if (cache != NULL && MemoryContextMemAllocated(cache_context, true) >
		(Size) sky_rbac_cache_size * 1024)
	{
		cache = NULL;
		MemoryContextReset(cache_context);
	}
	if (cache == NULL)
	{
		HASHCTL		ctl = {0};

		if (cache_context == NULL)
			cache_context = AllocSetContextCreate(CacheMemoryContext,
												  "scrapersky roles and permissions",
												  ALLOCSET_DEFAULT_SIZES);
		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(CacheEntry);
		ctl.hcxt = cache_context;
		cache = hash_create("scrapersky roles and permissions", 64, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	old = MemoryContextSwitchTo(cache_context);
	entry = hash_search(cache, &hash, HASH_ENTER, &found);
	if (found && entry->question != NULL)
	{
		pfree(entry->question);
		pfree(entry->answer);
		pfree(entry->keys);
	}
	entry->question = NULL;
	entry->answer = pnstrdup(answer->wire.data, answer->wire.len);
	entry->answer_len = answer->wire.len;
	entry->keys = palloc(answer->nkeys * sizeof(uint32));
	memcpy(entry->keys, answer->keys, answer->nkeys * sizeof(uint32));
	entry->nkeys = answer->nkeys;
	entry->loaded_at = loaded_at;
	entry->question_len = question->len;
	entry->question = palloc(question->len);
	memcpy(entry->question, question->data, question->len);
	MemoryContextSwitchTo(old);
}

/*
 * Ask the tables.  False, with the reason for the log, if there is no such
 * active user, or no such active tenant that it is an active member of.
 */
static bool
load_answer(const SkyWish *wish, Answer *answer, const char **reason)
{
	pg_uuid_t	user;
	pg_uuid_t	tenant;
	bool		has_tenant;

	initStringInfo(&answer->wire);
	answer->nkeys = 0;
	answer->maxkeys = 16;
	answer->keys = palloc(answer->maxkeys * sizeof(uint32));
	if (!load_user(wish, answer, &user, reason) ||
		!load_tenant(wish->tenant, &user, answer, &has_tenant, &tenant, reason))
		return false;
	load_list(&roles_query, 'R', &user, has_tenant ? &tenant : NULL, answer);
	load_list(&permissions_query, 'P', &user, has_tenant ? &tenant : NULL, answer);
	return true;
}

/*
 * Find the user.
 */
static bool
load_user(const SkyWish *wish, Answer *answer, pg_uuid_t *user,
		  const char **reason)
{
	Datum		values[2];
	bool		found;

	values[0] = CStringGetTextDatum(wish->issuer);
	values[1] = CStringGetTextDatum(wish->subject);
	run_query(&user_query, values, NULL);
	found = SPI_processed == 1 && sky_parse_uuid(cell(0, 1), user);
	if (found)
	{
		sky_wire_append(&answer->wire, 'I', wish->issuer, strlen(wish->issuer));
		sky_wire_append(&answer->wire, 'S', wish->subject, strlen(wish->subject));
		append_cell(&answer->wire, 'U', 1);
		append_cell(&answer->wire, 'M', 2);
		depend_on(answer, user);
	}
	SPI_finish();
	*reason = "the user is unknown or not active";
	return found;
}

/*
 * Choose the tenant: the one wanted, else the user's only one, else the
 * default one, else none.  False if that is denied.
 */
static bool
load_tenant(const pg_uuid_t *wanted, const pg_uuid_t *user, Answer *answer,
			bool *found, pg_uuid_t *tenant, const char **reason)
{
	pg_uuid_t	standard;

	*reason = "the tenant is unknown or not active, or the user is no active member of it";
	*found = find_tenant(wanted, user, answer, tenant) == 1;
	if (*found || wanted != NULL)
		return *found;
	if (sky_default_tenant_id == NULL || sky_default_tenant_id[0] == '\0')
		return true;
	if (sky_environment == SKY_ENV_PRODUCTION)
	{
		*reason = "scrapersky.default_tenant_id is refused in production";
		return false;
	}
	*found = sky_parse_uuid(sky_default_tenant_id, &standard) &&
		find_tenant(&standard, user, answer, tenant) == 1;
	return *found;
}

/*
 * How many active tenants (the one wanted, or any) is the user an active
 * member of: 0, 1, or 2 for more?  If it is one, that is the answer's tenant.
 */
static int
find_tenant(const pg_uuid_t *wanted, const pg_uuid_t *user, Answer *answer,
			pg_uuid_t *tenant)
{
	Datum		values[2];
	int			result;

	values[0] = UUIDPGetDatum(user);
	values[1] = UUIDPGetDatum(wanted);
	run_query(&tenant_query, values, wanted ? NULL : " n");
	result = SPI_processed;
	if (result == 1 && sky_parse_uuid(cell(0, 1), tenant))
	{
		append_cell(&answer->wire, 'T', 1);
		append_cell(&answer->wire, 'N', 2);
	}
	SPI_finish();
	return result;
}

/*
 * Collect the names of the roles, or of the permissions, that the user has in
 * the tenant (if any) and in every tenant.
 */
static void
load_list(TableQuery *query, char tag, const pg_uuid_t *user,
		  const pg_uuid_t *tenant, Answer *answer)
{
	Datum		values[2];
	StringInfoData list;
	pg_uuid_t	role;

	initStringInfo(&list);
	values[0] = UUIDPGetDatum(user);
	values[1] = UUIDPGetDatum(tenant);
	run_query(query, values, tenant ? NULL : " n");
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		sky_list_append(&list, cell(row, 1), strlen(cell(row, 1)));
		if (query == &roles_query && sky_parse_uuid(cell(row, 2), &role))
			depend_on(answer, &role);
	}
	SPI_finish();
	sky_wire_append(&answer->wire, tag, list.data, list.len);
}

/*
 * Note that the answer holds only while this user or role does not change.
 */
static void
depend_on(Answer *answer, const pg_uuid_t *uuid)
{
	if (answer->nkeys == answer->maxkeys)
	{
		answer->maxkeys *= 2;
		answer->keys = repalloc(answer->keys, answer->maxkeys * sizeof(uint32));
	}
	answer->keys[answer->nkeys++] = uuid_key(uuid);
}

/*
 * Run a query as the tables' owner, under the latest snapshot.  Its rows are
 * there until the caller calls SPI_finish().
 */
static void
run_query(TableQuery *query, Datum *values, const char *nulls)
{
	Oid			user;
	int			context;
	int			result;

	SPI_connect();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(sky_owner(), context | SECURITY_LOCAL_USERID_CHANGE);
	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->text, query->nargs, query->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a query: %s",
				 SPI_result_code_string(SPI_result));
		query->plan = plan;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	result = SPI_execute_plan(query->plan, values, nulls, true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not run a query: %s", SPI_result_code_string(result));
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, context);
}

/*
 * A value of the last query's result as text, or NULL.
 */
static const char *
cell(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/*
 * Append a value of the last query's first row as a section, unless it is
 * null.
 */
static void
append_cell(StringInfo wire, char tag, int column)
{
	const char *value = cell(0, column);

	if (value != NULL)
		sky_wire_append(wire, tag, value, strlen(value));
}
