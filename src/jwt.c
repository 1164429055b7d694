/*
 * jwt.c
 *		A token taken apart and looked at, before any library sees it.
 *
 * Trust: everything here is the attacker's.  What passes is a token of three
 * segments in canonical base64url (RFC 7515, section 2), no longer than
 * SKY_MAX_TOKEN, whose header and payload are JSON objects in valid UTF-8
 * without duplicate members, not deep and not many.  libjwt 1.x lets nearly
 * all of the rest through (it even crashes on a long token), therefore it is
 * called only with what passed here, and the claims are taken from here.
 *
 * Memory: text is palloc'd; jansson's objects are freed with the memory
 * context that was current when they were made, so an error leaks nothing.
 */
#include "postgres.h"

#include <ctype.h>

#include "mb/pg_wchar.h"
#include "scrapersky.h"
#include "utils/memutils.h"

static bool split_token(const char *token, int len, SkySlice segment[3]);
static char *decode_segment(SkySlice segment, int *len);
static int	base64url_value(char c);
static void free_json(void *json);
static bool within_bounds(const json_t *json, int depth, int *members);
static bool check_header(const json_t *header, SkyJwt *jwt,
						 const char **reason);

/*
 * Take a token apart; false, with the reason for the log, if it is not one
 * that may be verified.
 */
bool
sky_jwt_parse(const char *token, int len, SkyJwt *jwt, const char **reason)
{
	SkySlice	segment[3];
	char	   *header;
	char	   *signature;
	int			header_len;
	int			signature_len;
	json_t	   *json;

	memset(jwt, 0, sizeof(SkyJwt));
	*reason = "the token is not three segments of base64url";
	if (!split_token(token, len, segment))
		return false;
	jwt->token = token;
	jwt->len = len;

	header = decode_segment(segment[0], &header_len);
	jwt->payload = decode_segment(segment[1], &jwt->payload_len);
	signature = decode_segment(segment[2], &signature_len);
	if (header == NULL || jwt->payload == NULL || signature == NULL)
		return false;

	*reason = "the token's header is not an acceptable JSON object";
	json = sky_json_object(header, header_len);
	if (json == NULL || !check_header(json, jwt, reason))
		return false;

	*reason = "the token's payload is not an acceptable JSON object";
	jwt->claims = sky_json_object(jwt->payload, jwt->payload_len);
	return jwt->claims != NULL;
}

/*
 * Parse a JSON object, strictly: duplicates, invalid UTF-8, NUL, and more
 * depth or members than our bounds give NULL.  Freed with the current memory
 * context.
 */
json_t *
sky_json_object(const char *json_text, int len)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	json_t	   *json;
	int			members = -1;	/* the object itself is none */

	if (memchr(json_text, '\0', len) != NULL ||
		!pg_verify_mbstr(PG_UTF8, json_text, len, true))
		return NULL;

	json = json_loadb(json_text, len, JSON_REJECT_DUPLICATES, NULL);
	if (json == NULL)
		return NULL;
	callback->func = free_json;
	callback->arg = json;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);

	if (!json_is_object(json) || !within_bounds(json, 1, &members))
		return NULL;
	return json;
}

/*
 * Read a uuid in its canonical form of 36 characters (either case), and no
 * other form that uuid_in() would take.
 */
bool
sky_parse_uuid(const char *string, pg_uuid_t *uuid)
{
	if (strlen(string) != 36)
		return false;
	for (int i = 0, byte = 0; i < 36;)
	{
		char		hex[3];

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (string[i++] != '-')
				return false;
			continue;
		}
		if (!isxdigit((unsigned char) string[i]) ||
			!isxdigit((unsigned char) string[i + 1]))
			return false;
		hex[0] = string[i];
		hex[1] = string[i + 1];

		hex[2] = '\0';
		uuid->data[byte++] = (unsigned char) strtoul(hex, NULL, 16);
		i += 2;
	}
	return true;
}

/*
 * Find the three segments; false unless there are exactly three and none is
 * empty.
 */
static bool
split_token(const char *token, int len, SkySlice segment[3])
{
	const char *end = token + len;

	if (len > SKY_MAX_TOKEN)
		return false;
	for (int i = 0; i < 3; i++)
	{
		const char *dot = memchr(token, '.', end - token);

		if ((dot == NULL) != (i == 2))
			return false;
		segment[i].data = token;
		segment[i].len = (dot ? dot : end) - token;
		if (segment[i].len == 0)
			return false;
		token = dot ? dot + 1 : end;
	}
	return true;
}

/*
 * Decode base64url without padding; NULL unless it is the one canonical
 * spelling (no other alphabet, no padding, no spare bits set).
 */
static char *
decode_segment(SkySlice segment, int *len)
{
	char	   *result = palloc(segment.len * 3 / 4 + 1);
	uint32		bits = 0;
	int			nbits = 0;

	*len = 0;
	if (segment.len % 4 == 1)
		return NULL;
	for (int i = 0; i < segment.len; i++)
	{
		int			value = base64url_value(segment.data[i]);

		if (value < 0)
			return NULL;
		bits = (bits << 6) | value;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			result[(*len)++] = (char) (bits >> nbits);
			bits &= (1U << nbits) - 1;
		}
	}
	if (bits != 0)
		return NULL;
	result[*len] = '\0';
	return result;
}

/*
 * The value of one character of base64url, or -1.
 */
static int
base64url_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	if (c == '_')
		return 63;
	return -1;
}

/*
 * Memory context callback: give an object back to jansson.
 */
static void
free_json(void *json)
{
	json_decref((json_t *) json);
}

/*
 * Is this neither too deep nor too much?  (jansson has a limit of its own, of
 * 2048 levels, for the time before this is asked.)
 */
static bool
within_bounds(const json_t *json, int depth, int *members)
{
	const char *key;
	json_t	   *value;
	size_t		index;

	if (++*members > SKY_MAX_MEMBERS || depth > SKY_MAX_DEPTH)
		return false;
	if (json_is_object(json))
	{
		json_object_foreach((json_t *) json, key, value)
		{
			if (!within_bounds(value, depth + 1, members))
				return false;
		}
	}
	else if (json_is_array(json))
	{
		json_array_foreach((json_t *) json, index, value)
		{
			if (!within_bounds(value, depth + 1, members))
				return false;
		}
	}
	return true;
}

/*
 * Look at the header (RFC 7515, section 4; RFC 8725, section 3): alg must be a
 * string, typ JWT or absent; what would change the meaning of the token (crit,
 * b64, zip, a nested token) is refused; what would bring a key of its own
 * (jku, jwk, x5u, x5c) is ignored.
 */
static bool
check_header(const json_t *header, SkyJwt *jwt, const char **reason)
{
	static const char *const refused[] = {"crit", "b64", "zip", "enc", "cty"};
	json_t	   *typ = json_object_get(header, "typ");

	for (int i = 0; i < lengthof(refused); i++)
	{
		if (json_object_get(header, refused[i]) != NULL)
		{
			*reason = "the token's header asks for something that is not supported";
			return false;
		}
	}
	if (typ != NULL && (!json_is_string(typ) ||
						pg_strcasecmp(json_string_value(typ), "JWT") != 0))
	{
		*reason = "the token's type is not JWT";
		return false;
	}
	*reason = "the token's header names no algorithm";
	if (!json_is_string(json_object_get(header, "alg")))
		return false;
	jwt->alg = pstrdup(json_string_value(json_object_get(header, "alg")));
	return true;
}
