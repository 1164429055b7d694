/*
 * questions.c
 *		What policies and users ask of the identity.
 *
 * These run once per row, so they read the identity in memory and nothing
 * else.  Each call site (fn_extra) keeps its answer until the identity's
 * generation moves, and then makes a new one, leaving the old alone: the
 * executor may still hold it.  None of them is LEAKPROOF, since they raise
 * errors.  Without an identity they raise 42501; see sky_identity_required().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/supportnodes.h"
#include "scrapersky.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* what a call site keeps: its answer in a generation (0: none yet) */
typedef struct Site
{
	uint64		generation;
	Datum		answer;
	bool		isnull;
} Site;

static inline const Site *fresh_site(FunctionCallInfo fcinfo);
static void keep_answer(FunctionCallInfo fcinfo, Datum answer, bool isnull,
						int typlen);
static Datum uuid_answer(FunctionCallInfo fcinfo, const SkyIdentity *identity,
						 const pg_uuid_t *uuid);
static bool has_constant_argument(FunctionCallInfo fcinfo);
static bool is_in_list(FunctionCallInfo fcinfo, bool roles);
static Datum list_to_array(SkySlice list);
static const Jsonb *identity_claims(const SkyIdentity *identity);
static void set_column(TupleDesc desc, const char *name, Datum value,
					   Datum *values, bool *nulls);
static Datum slice_text(SkySlice slice);

PG_FUNCTION_INFO_V1(scrapersky_current_tenant_id);
PG_FUNCTION_INFO_V1(scrapersky_current_user_id);
PG_FUNCTION_INFO_V1(scrapersky_current_subject);
PG_FUNCTION_INFO_V1(scrapersky_current_roles);
PG_FUNCTION_INFO_V1(scrapersky_current_permissions);
PG_FUNCTION_INFO_V1(scrapersky_claim);
PG_FUNCTION_INFO_V1(scrapersky_is_authenticated);
PG_FUNCTION_INFO_V1(scrapersky_has_role);
PG_FUNCTION_INFO_V1(scrapersky_has_permission);
PG_FUNCTION_INFO_V1(scrapersky_require_permission);
PG_FUNCTION_INFO_V1(scrapersky_clear_identity);
PG_FUNCTION_INFO_V1(scrapersky_whoami);
PG_FUNCTION_INFO_V1(scrapersky_permission_support);

/*
 * The tenant of the identity; an identity without a tenant has no rows and
 * gets an error, as no identity does.
 */
Datum
scrapersky_current_tenant_id(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);
	const SkyIdentity *identity;

	if (site != NULL)
		return site->answer;
	identity = sky_identity_required();
	if (identity != NULL && !identity->has_tenant)
	{
		if (sky_missing_identity == SKY_MISSING_EMPTY)
			PG_RETURN_NULL();
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the identity has no tenant"),
				 errhint("Name one of the user's tenants: in the token, as an argument of authenticate(), or in the header X-Tenant-Id.")));
	}
	return uuid_answer(fcinfo, identity, identity ? &identity->tenant_id : NULL);
}

/*
 * The user of the identity.
 */
Datum
scrapersky_current_user_id(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);
	const SkyIdentity *identity;

	if (site != NULL)
		return site->answer;
	identity = sky_identity_required();
	return uuid_answer(fcinfo, identity, identity ? &identity->user_id : NULL);
}

/*
 * The token's sub.
 */
Datum
scrapersky_current_subject(PG_FUNCTION_ARGS)
{
	const SkyIdentity *identity = sky_identity_required();

	if (identity == NULL)
		PG_RETURN_NULL();
	return slice_text(identity->subject);
}

/*
 * The names of the roles, sorted.
 */
Datum
scrapersky_current_roles(PG_FUNCTION_ARGS)
{
	const SkyIdentity *identity = sky_identity_required();

	if (identity == NULL)
		PG_RETURN_NULL();
	return list_to_array(identity->roles);
}

/*
 * The names of the permissions, sorted.
 */
Datum
scrapersky_current_permissions(PG_FUNCTION_ARGS)
{
	const SkyIdentity *identity = sky_identity_required();

	if (identity == NULL)
		PG_RETURN_NULL();
	return list_to_array(identity->permissions);
}

/*
 * A claim of the token, by path, as text; NULL if it is not there or null.
 */
Datum
scrapersky_claim(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);
	const SkyIdentity *identity;
	Datum		result;

	LOCAL_FCINFO(call, 2);

	if (site != NULL)
	{
		fcinfo->isnull = site->isnull;
		return site->answer;
	}
	identity = sky_identity_required();
	if (identity == NULL || PG_ARGISNULL(0))
		PG_RETURN_NULL();
	InitFunctionCallInfoData(*call, NULL, 2, InvalidOid, NULL, NULL);
	call->args[0].value = JsonbPGetDatum(identity_claims(identity));
	call->args[0].isnull = false;
	call->args[1].value = PG_GETARG_DATUM(0);
	call->args[1].isnull = false;
	result = jsonb_extract_path_text(call);
	fcinfo->isnull = call->isnull;
	if (has_constant_argument(fcinfo))
		keep_answer(fcinfo, result, call->isnull, -1);
	return result;
}

/*
 * Is there an identity in force?  Never raises.
 */
Datum
scrapersky_is_authenticated(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(sky_identity() != NULL);
}

/*
 * Does the identity have this role?
 */
Datum
scrapersky_has_role(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);

	if (site != NULL)
		return site->answer;
	PG_RETURN_BOOL(is_in_list(fcinfo, true));
}

/*
 * Does the identity have this permission?
 */
Datum
scrapersky_has_permission(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);

	if (site != NULL)
		return site->answer;
	PG_RETURN_BOOL(is_in_list(fcinfo, false));
}

/*
 * True if the identity has this permission, else an error (42501).
 */
Datum
scrapersky_require_permission(PG_FUNCTION_ARGS)
{
	const Site *site = fresh_site(fcinfo);
	text	   *permission;

	if (site != NULL && DatumGetBool(site->answer))
		PG_RETURN_BOOL(true);
	if (is_in_list(fcinfo, false))
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("permission must not be null")));
	permission = PG_GETARG_TEXT_PP(0);
	sky_require_permission(VARDATA_ANY(permission), VARSIZE_ANY_EXHDR(permission));
	PG_RETURN_BOOL(true);
}

/*
 * Return if the identity has this permission, else raise 42501, whatever
 * scrapersky.missing_identity says.
 */
void
sky_require_permission(const char *permission, int len)
{
	const SkyIdentity *identity = sky_identity_required();

	if (identity == NULL ||
		!sky_list_contains(identity->permissions, permission, len))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission \"%.*s\" is required", len, permission)));
}

/*
 * Drop the identity.
 */
Datum
scrapersky_clear_identity(PG_FUNCTION_ARGS)
{
	sky_identity_clear();
	PG_RETURN_VOID();
}

/*
 * One row about the identity, of nulls and empty lists if there is none.
 * Columns are found by name, so that later versions may have more.
 */
Datum
scrapersky_whoami(PG_FUNCTION_ARGS)
{
	const SkyIdentity *identity = sky_identity();
	SkySlice	none = {"", 0};
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values = palloc0(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	memset(nulls, true, desc->natts * sizeof(bool));

	set_column(desc, "roles", list_to_array(identity ? identity->roles : none),
			   values, nulls);
	set_column(desc, "permissions",
			   list_to_array(identity ? identity->permissions : none),
			   values, nulls);
	if (identity != NULL)
	{
		set_column(desc, "user_id", UUIDPGetDatum(&identity->user_id), values, nulls);
		set_column(desc, "issuer", slice_text(identity->issuer), values, nulls);
		set_column(desc, "subject", slice_text(identity->subject), values, nulls);
		set_column(desc, "expires_at", TimestampTzGetDatum(identity->expires_at),
				   values, nulls);
		if (identity->email.data != NULL)
			set_column(desc, "email", slice_text(identity->email), values, nulls);
	}
	if (identity != NULL && identity->has_tenant)
	{
		set_column(desc, "tenant_id", UUIDPGetDatum(&identity->tenant_id),
				   values, nulls);
		set_column(desc, "tenant_name", slice_text(identity->tenant_name),
				   values, nulls);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * Planner support: a permission test lets through all rows or none, and plans
 * are made for the case that it lets them through.
 */
Datum
scrapersky_permission_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * The call site, if it has an answer that is still good, else NULL.
 */
static inline const Site *
fresh_site(FunctionCallInfo fcinfo)
{
	const Site *site = fcinfo->flinfo->fn_extra;

	if (site == NULL || site->generation != sky_generation ||
		sky_identity() == NULL)
		return NULL;
	return site;
}

/*
 * Keep a copy of an answer at the call site, for this generation.  typlen is
 * as datumCopy() wants it, or 0 for a value that is no pointer.
 */
static void
keep_answer(FunctionCallInfo fcinfo, Datum answer, bool isnull, int typlen)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Site	   *site = fcinfo->flinfo->fn_extra;

	if (site == NULL)
		fcinfo->flinfo->fn_extra = site = palloc0(sizeof(Site));
	site->answer = isnull ? (Datum) 0 : datumCopy(answer, typlen == 0, typlen);
	site->isnull = isnull;
	site->generation = sky_generation;
	MemoryContextSwitchTo(old);
}

/*
 * Answer with the call site's copy of a uuid of the identity, or NULL.
 */
static Datum
uuid_answer(FunctionCallInfo fcinfo, const SkyIdentity *identity,
			const pg_uuid_t *uuid)
{
	if (identity == NULL)
		PG_RETURN_NULL();
	keep_answer(fcinfo, UUIDPGetDatum(uuid), false, UUID_LEN);
	return ((Site *) fcinfo->flinfo->fn_extra)->answer;
}

/*
 * Is the argument a constant of the query?  (A parameter is not: plpgsql keeps
 * a call site while the parameter changes.)
 */
static bool
has_constant_argument(FunctionCallInfo fcinfo)
{
	Node	   *call = fcinfo->flinfo->fn_expr;

	return call != NULL && IsA(call, FuncExpr) &&
		IsA(linitial(((FuncExpr *) call)->args), Const);
}

/*
 * Is the argument one of the identity's roles, or permissions?  For a constant
 * the list is searched once per call site and generation.  Null never is.
 */
static bool
is_in_list(FunctionCallInfo fcinfo, bool roles)
{
	const SkyIdentity *identity = sky_identity_required();
	text	   *name;
	bool		result;

	if (identity == NULL || PG_ARGISNULL(0))
		return false;
	name = PG_GETARG_TEXT_PP(0);
	result = sky_list_contains(roles ? identity->roles : identity->permissions,
							   VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (has_constant_argument(fcinfo))
		keep_answer(fcinfo, BoolGetDatum(result), false, 0);
	return result;
}

/*
 * A list as text[].
 */
static Datum
list_to_array(SkySlice list)
{
	ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	SkySlice	item;

	while (sky_list_next(&list, &item))
		accumArrayResult(array, slice_text(item), false, TEXTOID,
						 CurrentMemoryContext);
	return makeArrayResult(array, CurrentMemoryContext);
}

/*
 * The claims as jsonb, parsed once per generation.  Good until the identity
 * changes.
 */
static const Jsonb *
identity_claims(const SkyIdentity *identity)
{
	static MemoryContext context = NULL;
	static uint64 generation = 0;
	static Jsonb *claims = NULL;
	MemoryContext old;

	if (claims != NULL && generation == sky_generation)
		return claims;
	claims = NULL;
	if (context == NULL)
		context = AllocSetContextCreate(CacheMemoryContext, "scrapersky claims",
										ALLOCSET_SMALL_SIZES);
	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	claims = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(pnstrdup(identity->claims.data,
																		 identity->claims.len))));
	MemoryContextSwitchTo(old);
	generation = sky_generation;
	return claims;
}

/*
 * Fill the column of this name, if there is one.
 */
static void
set_column(TupleDesc desc, const char *name, Datum value,
		   Datum *values, bool *nulls)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
		{
			values[i] = value;
			nulls[i] = false;
		}
	}
}

/*
 * A copy of a slice, as text.
 */
static Datum
slice_text(SkySlice slice)
{
	return PointerGetDatum(cstring_to_text_with_len(slice.data, slice.len));
}
