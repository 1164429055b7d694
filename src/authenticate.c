/*
 * authenticate.c
 *		From a token to an identity: the order of things, and the SQL function.
 *
 * Trust: a token is worth nothing until sky_login() has gone through all of
 * its steps; every failure looks the same to the client (28000, one constant
 * message), the reason goes to the server's log only, and neither the token
 * nor any claim appears in either.
 */
#include "postgres.h"

#include <math.h>

#include "access/detoast.h"
#include "pgstat.h"
#include "scrapersky.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* 9999-12-31, the last moment that other systems agree about */
#define MAX_MOMENT	INT64CONST(253402300799)

/* what is shorter, or has other characters, is not worth hiding */
#define MIN_TOKEN	64
#define TOKEN_CHARACTERS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

typedef struct Claims
{
	const char *subject;
	int64		expires_at;		/* Unix seconds */
	bool		has_tenant;
	pg_uuid_t	tenant;
} Claims;

static void keep_from_log(void *arg);
static const char *token_argument(Datum argument);
static bool check_claims(const json_t *json, Claims *claims,
						 const char **reason);
static bool check_times(const json_t *json, Claims *claims,
						const char **reason);
static bool read_moment(const json_t *json, int64 *moment);
static bool check_audience(const json_t *aud);
static void hide_statement(const char *token);

/*
 * Verify a token and append to wire the identity that it gives.  tenant is the
 * caller's wish, or NULL; it never widens the token.  False, with the reason
 * for the log, if the token is not acceptable in any way.
 */
bool
sky_login(const char *token, int len, const pg_uuid_t *tenant,
		  SkyJwt *jwt, StringInfo wire, const char **reason)
{
	const SkyKey *key;
	Claims		claims;
	SkyWish		wish;
	char		moment[24];
	int64		ends;

	*reason = "scrapersky is not in shared_preload_libraries";
	if (!sky_preloaded ||
		!sky_jwt_parse(token, len, jwt, reason) ||
		!sky_key_load(&key, reason) ||
		!sky_verify(jwt, key, reason) ||
		!check_claims(jwt->claims, &claims, reason))
		return false;

	*reason = "the tenant asked for is not the token's";
	if (claims.has_tenant && tenant != NULL &&
		memcmp(&claims.tenant, tenant, sizeof(pg_uuid_t)) != 0)
		return false;

	wish.issuer = SKY_BUILTIN_ISSUER;
	wish.subject = claims.subject;
	wish.tenant = claims.has_tenant ? &claims.tenant : tenant;
	sky_wire_begin(wire);
	if (!sky_rbac_resolve(&wish, wire, reason))
		return false;

	ends = (claims.expires_at + sky_jwt_leeway -
			(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) * USECS_PER_SEC;
	snprintf(moment, sizeof(moment), INT64_FORMAT, ends);
	sky_wire_append(wire, 'X', moment, strlen(moment));
	sky_wire_append(wire, 'C', jwt->payload, jwt->payload_len);
	return true;
}

PG_FUNCTION_INFO_V1(scrapersky_authenticate);

/*
 * authenticate(token text, is_local boolean, tenant uuid): see its COMMENT.
 */
Datum
scrapersky_authenticate(PG_FUNCTION_ARGS)
{
	bool		is_local = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	const char *token = PG_ARGISNULL(0) ? NULL : token_argument(PG_GETARG_DATUM(0));
	const char *reason = "there is no token, or it is too long";
	MemoryContext work;
	MemoryContext old;
	StringInfoData wire;
	SkyJwt		jwt;
	ErrorContextCallback quiet = {error_context_stack, keep_from_log, NULL};

	error_context_stack = &quiet;
	if (!is_local && !sky_allow_session_identity)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an identity ends with its transaction"),
				 errhint("Behind no pooler, an administrator may set scrapersky.allow_session_identity.")));

	work = AllocSetContextCreate(CurrentMemoryContext, "scrapersky token",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(work);
	if (token == NULL ||
		!sky_login(token, strlen(token), PG_ARGISNULL(2) ? NULL : PG_GETARG_UUID_P(2),
				   &jwt, &wire, &reason))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("authentication failed"),
				 errdetail_log("%s.", reason)));
	sky_identity_set(wire.data, is_local);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	error_context_stack = quiet.previous;
	PG_RETURN_VOID();
}

/*
 * Error context callback: whatever goes wrong in here, the statement and the
 * functions around it, which may hold the token, stay out of the log.
 */
static void
keep_from_log(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);
}

/*
 * The token as a string, hidden from onlookers; NULL if it is too long, which
 * is found out before anything of it is detoasted or copied.
 */
static const char *
token_argument(Datum argument)
{
	char	   *token;

	if (toast_raw_datum_size(argument) > SKY_MAX_TOKEN + VARHDRSZ)
		return NULL;
	token = TextDatumGetCString(argument);
	hide_statement(token);
	return token;
}

/*
 * Check what the token claims, and take what we need of it.
 */
static bool
check_claims(const json_t *json, Claims *claims, const char **reason)
{
	const json_t *sub = json_object_get(json, "sub");
	const json_t *iss = json_object_get(json, "iss");
	const json_t *tenant = json_object_get(json, "tenant_id");

	*reason = "the claim sub is missing, empty, too long or no string";
	if (!json_is_string(sub) || json_string_length(sub) == 0 ||
		json_string_length(sub) > SKY_MAX_SUBJECT)
		return false;
	claims->subject = json_string_value(sub);

	*reason = "the claim iss is not scrapersky.jwt_issuer";
	if (sky_jwt_issuer != NULL && sky_jwt_issuer[0] != '\0' &&
		(!json_is_string(iss) ||
		 strcmp(json_string_value(iss), sky_jwt_issuer) != 0))
		return false;
	*reason = "the claim aud does not hold scrapersky.jwt_audience";
	if (!check_audience(json_object_get(json, "aud")))
		return false;

	*reason = "the claim tenant_id is no uuid";
	claims->has_tenant = tenant != NULL;
	if (tenant != NULL && (!json_is_string(tenant) ||
						   !sky_parse_uuid(json_string_value(tenant), &claims->tenant)))
		return false;
	return check_times(json, claims, reason);
}

/*
 * Check exp, nbf and iat (RFC 7519, section 4.1), on our own clock.
 */
static bool
check_times(const json_t *json, Claims *claims, const char **reason)
{
	int64		now = timestamptz_to_time_t(GetCurrentTimestamp());
	const json_t *exp = json_object_get(json, "exp");
	const json_t *nbf = json_object_get(json, "nbf");
	const json_t *iat = json_object_get(json, "iat");
	int64		moment;

	*reason = "the claim exp is missing or no moment";
	if (!read_moment(exp, &claims->expires_at))
		return false;
	*reason = "the token has expired";
	if (claims->expires_at + sky_jwt_leeway <= now)
		return false;
	*reason = "the claim nbf is no moment, or still to come";
	if (nbf != NULL && (!read_moment(nbf, &moment) ||
						moment > now + sky_jwt_leeway))
		return false;
	*reason = "the claim iat is no moment, or still to come";
	return iat == NULL || (read_moment(iat, &moment) &&
						   moment <= now + sky_jwt_leeway);
}

/*
 * Read a JSON number of seconds since 1970, not negative and not beyond the
 * year 9999.  Fractions are cut off.
 */
static bool
read_moment(const json_t *json, int64 *moment)
{
	double		value;

	if (!json_is_number(json))
		return false;
	value = json_number_value(json);
	if (!(value >= 0 && value <= (double) MAX_MOMENT))
		return false;
	*moment = (int64) floor(value);
	return true;
}

/*
 * Is the token for us?  aud is a string or an array of strings (RFC 7519,
 * section 4.1.3); it is asked for only when we have a name.
 */
static bool
check_audience(const json_t *aud)
{
	size_t		index;
	json_t	   *item;

	if (sky_jwt_audience == NULL || sky_jwt_audience[0] == '\0')
		return true;
	if (json_is_string(aud))
		return strcmp(json_string_value(aud), sky_jwt_audience) == 0;
	json_array_foreach((json_t *) aud, index, item)
	{
		if (json_is_string(item) &&
			strcmp(json_string_value(item), sky_jwt_audience) == 0)
			return true;
	}
	return false;
}

/*
 * If the caller wrote the token into the statement, show the statement with the
 * token blotted out, in pg_stat_activity and in the log of errors.  (In a copy:
 * other modules read the text itself again, and rely on what they saw in it.)
 */
static void
hide_statement(const char *token)
{
	size_t		len = strlen(token);
	char	   *copy;

	if (len < MIN_TOKEN || strspn(token, TOKEN_CHARACTERS) != len ||
		debug_query_string == NULL || MessageContext == NULL ||
		strstr(debug_query_string, token) == NULL)
		return;
	copy = MemoryContextStrdup(MessageContext, debug_query_string);
	for (char *found = strstr(copy, token); found != NULL;
		 found = strstr(found + len, token))
		memset(found, '*', len);
	debug_query_string = copy;
	pgstat_report_activity(STATE_RUNNING, copy);
}
