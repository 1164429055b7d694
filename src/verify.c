/*
 * verify.c
 *		Signatures: the only file that calls libjwt's functions.
 *
 * Trust: called only with tokens that passed sky_jwt_parse(), and never with
 * an empty key (libjwt accepts anything then).  The algorithm is ours, not
 * the token's: the key decides it, and it is compared before and after.
 *
 * Memory: libjwt and OpenSSL use malloc; nothing between getting and freeing
 * can throw.
 */
#include "postgres.h"

#include <jwt.h>
#include <openssl/err.h>

#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

static jwt_t *make_token(const char *claims, const SkyKey *key,
						 time_t issued_at, time_t expires_at);
static bool add_default(jwt_t *token, const char *claim, time_t value);

/*
 * Is the token signed with this key, by HS256?
 */
bool
sky_verify(const SkyJwt *jwt, const SkyKey *key, const char **reason)
{
	jwt_t	   *decoded = NULL;
	bool		valid;

	*reason = "the token's algorithm is not the key's";
	if (strcmp(jwt->alg, "HS256") != 0 || key->len < SKY_MIN_SECRET)
		return false;

	elog(DEBUG2, "verifying a signature with libjwt");
	*reason = "the token's signature is wrong";
	valid = sky_libjwt.decode(&decoded, jwt->token,
							  (const unsigned char *) key->data, key->len) == 0 &&
		decoded != NULL &&
		sky_libjwt.get_alg(decoded) == JWT_ALG_HS256;
	if (decoded != NULL)
		sky_libjwt.free(decoded);
	ERR_clear_error();
	return valid;
}

PG_FUNCTION_INFO_V1(scrapersky_sign_token);

/*
 * sign_token(claims jsonb, expires_in interval): a token for these claims,
 * with iat now and exp after expires_in, unless the claims have their own.
 */
Datum
scrapersky_sign_token(PG_FUNCTION_ARGS)
{
	Jsonb	   *claims = PG_GETARG_JSONB_P(0);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;
	const SkyKey *key;
	const char *reason;
	char	   *grants;
	jwt_t	   *token;
	char	   *encoded = NULL;
	text	   *result;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser can sign tokens")));
	if (!JB_ROOT_IS_OBJECT(claims))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("claims must be a JSON object")));
	if (!sky_key_load(&key, &reason))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no secret to sign with"),
				 errdetail("%s", reason)));

	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(now),
													PG_GETARG_DATUM(1)));
	grants = JsonbToCString(NULL, &claims->root, VARSIZE(claims));
	token = make_token(grants, key, timestamptz_to_time_t(now),
					   timestamptz_to_time_t(until));
	if (token != NULL)
	{
		encoded = sky_libjwt.encode_str(token);
		sky_libjwt.free(token);
	}
	ERR_clear_error();
	if (encoded == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not make a token of these claims")));

	/* PG_FINALLY: the copy may throw, and libjwt's string is malloc'd */
	PG_TRY();
	{
		result = cstring_to_text(encoded);
	}
	PG_FINALLY();
	{
		free(encoded);
	}
	PG_END_TRY();
	PG_RETURN_TEXT_P(result);
}

/*
 * A libjwt token with these claims, signed by HS256 when it is encoded; NULL
 * if libjwt refuses.  Never throws.
 */
static jwt_t *
make_token(const char *claims, const SkyKey *key,
		   time_t issued_at, time_t expires_at)
{
	jwt_t	   *token = NULL;

	if (sky_libjwt.new(&token) != 0)
		return NULL;
	if (sky_libjwt.add_grants_json(token, claims) == 0 &&
		add_default(token, "iat", issued_at) &&
		add_default(token, "exp", expires_at) &&
		sky_libjwt.set_alg(token, JWT_ALG_HS256, (unsigned char *) key->data,
						   key->len) == 0)
		return token;
	sky_libjwt.free(token);
	return NULL;
}

/*
 * Add a number to the claims unless they have it.  Never throws.
 */
static bool
add_default(jwt_t *token, const char *claim, time_t value)
{
	int			result = sky_libjwt.add_grant_int(token, claim, value);

	return result == 0 || result == EEXIST;
}
