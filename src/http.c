/*
 * http.c
 *		What PostgREST calls before each request (db-pre-request).
 *
 * Trust: PostgREST has verified a token, chosen the role by it, and set the
 * request.* settings; none of that is believed.  The token is verified again
 * from the raw header, with our own pinned algorithm and key; its claims and
 * its role must be those that PostgREST acted upon (of two Authorization
 * headers it checks the first and hands on the last).  Failures are PT401 and
 * PT403 with constant messages: a message becomes the HTTP reason phrase.
 * Runs as the request's role, in transactions that may be read only.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define MAX_HEADERS		65536	/* bytes of request.headers */

static bool check_request(const char *role, StringInfo wire,
						  const char **reason);
static bool check_token(const char *authorization, const json_t *tenant,
						const char *role, StringInfo wire,
						const char **reason);
static bool same_claims(json_t *token, const char *role);
static bool same_json(json_t *a, json_t *b);
static const char *anon_role(void);

PG_FUNCTION_INFO_V1(scrapersky_pre_request);

/*
 * pre_request(): see its COMMENT.
 */
Datum
scrapersky_pre_request(PG_FUNCTION_ARGS)
{
	const char *role = GetUserNameFromId(GetUserId(), false);
	const char *reason;
	StringInfoData wire = {0};
	MemoryContext work;
	MemoryContext old;

	if (superuser() || has_bypassrls_privilege(GetUserId()))
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE('P', 'T', '4', '0', '3')),
				 errmsg("this role is not allowed"),
				 errdetail_log("A request may not run as a superuser or with BYPASSRLS."),
				 errhidestmt(true), errhidecontext(true)));

	work = AllocSetContextCreate(CurrentMemoryContext, "scrapersky request",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(work);
	if (!check_request(role, &wire, &reason))
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE('P', 'T', '4', '0', '1')),
				 errmsg("authentication failed"),
				 errdetail_log("%s.", reason),
				 errhidestmt(true), errhidecontext(true)));
	if (wire.data != NULL)
		sky_identity_set(wire.data, true);
	else
		sky_identity_clear();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	PG_RETURN_VOID();
}

/*
 * Look at the request's headers: a good token fills wire; no Authorization
 * header leaves it empty, and then the role must be the anonymous one.
 */
static bool
check_request(const char *role, StringInfo wire, const char **reason)
{
	const char *headers = GetConfigOption("request.headers", true, false);
	const char *anon = anon_role();
	json_t	   *json;
	json_t	   *authorization;

	*reason = "there are no request headers, or they cannot be read";
	if (headers == NULL || strlen(headers) > MAX_HEADERS)
		return false;
	json = sky_json_object(headers, strlen(headers));
	if (json == NULL)
		return false;

	*reason = "setup_api() has not been called";
	if (anon == NULL)
		return false;
	authorization = json_object_get(json, "authorization");
	*reason = "the role is the anonymous one with a token, or another without";
	if ((authorization == NULL) != (strcmp(role, anon) == 0))
		return false;
	if (authorization == NULL)
		return true;
	*reason = "the header Authorization is not a bearer token";
	return json_is_string(authorization) &&
		check_token(json_string_value(authorization),
					json_object_get(json, "x-tenant-id"), role, wire, reason);
}

/*
 * Verify the header's token, and that PostgREST acted upon the same one.
 */
static bool
check_token(const char *authorization, const json_t *tenant,
			const char *role, StringInfo wire, const char **reason)
{
	const char *token = authorization + strlen("Bearer ");
	pg_uuid_t	uuid;
	SkyJwt		jwt;

	if (pg_strncasecmp(authorization, "Bearer ", strlen("Bearer ")) != 0)
		return false;
	*reason = "the header X-Tenant-Id is no uuid";
	if (tenant != NULL && (!json_is_string(tenant) ||
						   !sky_parse_uuid(json_string_value(tenant), &uuid)))
		return false;
	*reason = "the token is too long";
	if (strlen(token) > SKY_MAX_TOKEN)
		return false;
	if (!sky_login(token, strlen(token), tenant ? &uuid : NULL, &jwt, wire, reason))
		return false;
	*reason = "PostgREST acted upon another token, or another role, than the header's";
	return same_claims(jwt.claims, role);
}

/*
 * Are the token's claims those of request.jwt.claims, and is its role the
 * current one?  PostgREST writes an audience of one as a string.
 */
static bool
same_claims(json_t *token, const char *role)
{
	const char *claims = GetConfigOption("request.jwt.claims", true, false);
	json_t	   *both[2];

	if (claims == NULL || strlen(claims) > MAX_HEADERS)
		return false;
	both[0] = token;
	both[1] = sky_json_object(claims, strlen(claims));
	if (both[1] == NULL)
		return false;
	for (int i = 0; i < 2; i++)
	{
		json_t	   *claimed = json_object_get(both[i], "role");
		json_t	   *aud = json_object_get(both[i], "aud");

		if (!json_is_string(claimed) || strcmp(json_string_value(claimed), role) != 0)
			return false;
		if (json_is_array(aud) && json_array_size(aud) == 1 &&
			json_object_set(both[i], "aud", json_array_get(aud, 0)) != 0)
			return false;
	}
	return same_json(both[0], both[1]);
}

/*
 * Are two values the same, however their numbers are written?
 */
static bool
same_json(json_t *a, json_t *b)
{
	const char *key;
	json_t	   *value;
	size_t		index;

	if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
		return json_number_value(a) == json_number_value(b);
	if (a == NULL || b == NULL || json_typeof(a) != json_typeof(b))
		return false;
	if (json_is_object(a))
	{
		if (json_object_size(a) != json_object_size(b))
			return false;
		json_object_foreach(a, key, value)
		{
			if (!same_json(value, json_object_get(b, key)))
				return false;
		}
		return true;
	}
	if (json_is_array(a))
	{
		if (json_array_size(a) != json_array_size(b))
			return false;
		json_array_foreach(a, index, value)
		{
			if (!same_json(value, json_array_get(b, index)))
				return false;
		}
		return true;
	}
	return json_equal(a, b);
}

/*
 * The name of the anonymous role, or NULL before setup_api(); kept until the
 * settings change.
 */
static const char *
anon_role(void)
{
	static char kept[NAMEDATALEN];
	static uint64 since;
	uint64		clock;
	char	   *name;

	if (kept[0] != '\0' && sky_settings_unchanged(since))
		return kept;
	kept[0] = '\0';
	clock = sky_rbac_clock();
	name = sky_setting("anon");
	if (name != NULL && sky_settings_unchanged(clock))
	{
		strlcpy(kept, name, NAMEDATALEN);
		since = clock;
	}
	return name;
}
