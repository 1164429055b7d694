/*
 * scrapersky.h
 *		What the files of the library share, grouped by the file that
 *		defines it.  The spine, in the order of a request:
 *
 *		token -> jwt.c (shape, header, claims) -> keys.c (secret) ->
 *		verify.c (libjwt) -> rbac.c (user, tenant, roles, permissions) ->
 *		identity.c (the guarded GUC) -> questions.c and guard.c (policies)
 */
#ifndef SCRAPERSKY_H
#define SCRAPERSKY_H

#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

/*
 * PostgreSQL has SQL functions of the names json_object and json_typeof: their
 * prototypes come first, and jansson's json_object() gets out of their way.
 */
#define json_object jansson_json_object
#include <jansson.h>
#undef json_object

/* what follows is the library's own: calls need no detour by the linker */
#pragma GCC visibility push(hidden)

#define SKY_VERSION			"0.1.0"
#define SKY_SCHEMA			"scrapersky"

/* the built-in issuer: tokens signed with the secret of jwt_secret_file */
#define SKY_BUILTIN_ISSUER	""

#define SKY_MAX_TOKEN		16384	/* bytes of a token */
#define SKY_MAX_DEPTH		32	/* nesting of header and claims */
#define SKY_MAX_MEMBERS		1000	/* members and elements of either */
#define SKY_MAX_SUBJECT		255 /* bytes of a subject */
#define SKY_MIN_SECRET		32	/* bytes of an HS256 secret */
#define SKY_MAX_SECRET		4096

/* scrapersky.c: settings, and the values of missing_identity and environment */
enum
{
	SKY_MISSING_ERROR,
	SKY_MISSING_EMPTY
};

enum
{
	SKY_ENV_PRODUCTION,
	SKY_ENV_STAGING,
	SKY_ENV_DEVELOPMENT,
	SKY_ENV_TEST
};

extern char *sky_jwt_secret_file;
extern char *sky_jwt_audience;
extern char *sky_jwt_issuer;
extern int	sky_jwt_leeway;
extern char *sky_default_tenant_id;
extern int	sky_environment;
extern int	sky_missing_identity;
extern int	sky_rbac_cache_size;
extern bool sky_allow_session_identity;
extern bool sky_allow_drop;
extern bool sky_preloaded;

/*
 * identity.c: who is asking.  A slice points into the same allocation, and
 * dies with the identity: nothing outside the library may keep one.
 */
typedef struct SkySlice
{
	const char *data;
	int			len;
} SkySlice;

typedef struct SkyIdentity
{
	pg_uuid_t	user_id;
	pg_uuid_t	tenant_id;
	bool		has_tenant;
	TimestampTz expires_at;
	SkySlice	issuer;
	SkySlice	subject;
	SkySlice	email;
	SkySlice	tenant_name;
	SkySlice	roles;			/* a list: see sky_list_next() */
	SkySlice	permissions;	/* a list */
	SkySlice	claims;			/* the token's payload, JSON text */
} SkyIdentity;

extern const SkyIdentity *sky_current;	/* use sky_identity() */
extern uint64 sky_generation;	/* moves whenever sky_current may have */

extern void sky_identity_init(void);
extern const SkyIdentity *sky_identity_required(void);
extern void sky_identity_set(const char *wire, bool is_local);
extern void sky_identity_clear(void);
extern void sky_wire_begin(StringInfo wire);
extern void sky_wire_append(StringInfo wire, char tag, const char *data, int len);
extern void sky_list_append(StringInfo list, const char *data, int len);
extern bool sky_list_next(SkySlice *list, SkySlice *item);
extern bool sky_list_contains(SkySlice list, const char *data, int len);

/*
 * The identity in force, or NULL if there is none or it has expired.  The
 * pointer is good until anything can change a setting: do not keep it.
 */
static inline const SkyIdentity *
sky_identity(void)
{
	if (sky_current == NULL ||
		sky_current->expires_at <= GetCurrentStatementStartTimestamp())
		return NULL;
	return sky_current;
}

/* questions.c: what policies and users ask */
extern void sky_require_permission(const char *permission, int len);

/* jwt.c: a token taken apart, before anything of it is trusted */
typedef struct SkyJwt
{
	const char *token;			/* NUL-terminated */
	int			len;
	const char *alg;
	json_t	   *claims;
	const char *payload;		/* the claims as they were written */
	int			payload_len;
} SkyJwt;

extern json_t *sky_json_object(const char *json_text, int len);
extern bool sky_jwt_parse(const char *token, int len, SkyJwt *jwt,
						  const char **reason);
extern bool sky_parse_uuid(const char *string, pg_uuid_t *uuid);

/* keys.c: the secret */
typedef struct SkyKey
{
	char	   *data;
	int			len;
} SkyKey;

extern bool sky_key_load(const SkyKey **key, const char **reason);

/* libjwt.c: the functions of libjwt */
typedef struct SkyLibjwt
{
	int			(*decode) (jwt_t **jwt, const char *token,
						   const unsigned char *key, int key_len);
	int			(*new) (jwt_t **jwt);
	void		(*free) (jwt_t *jwt);
	jwt_alg_t	(*get_alg) (jwt_t *jwt);
	int			(*set_alg) (jwt_t *jwt, jwt_alg_t alg,
							const unsigned char *key, int len);
	int			(*add_grants_json) (jwt_t *jwt, const char *json);
	int			(*add_grant_int) (jwt_t *jwt, const char *grant, long value);
	char	   *(*encode_str) (jwt_t *jwt);
} SkyLibjwt;

extern SkyLibjwt sky_libjwt;
extern void sky_libjwt_init(void);

/* verify.c: signatures, by libjwt */
extern bool sky_verify(const SkyJwt *jwt, const SkyKey *key,
					   const char **reason);

/* rbac.c: user, tenant, roles and permissions, from a bounded cache */
typedef struct SkyWish
{
	const char *issuer;
	const char *subject;
	const pg_uuid_t *tenant;	/* asked for by claim or argument, or NULL */
} SkyWish;

extern void sky_rbac_init(void);
extern bool sky_rbac_resolve(const SkyWish *wish, StringInfo wire,
							 const char **reason);
extern char *sky_setting(const char *name);
extern bool sky_permission_exists(const char *permission);
extern uint64 sky_rbac_clock(void);
extern bool sky_settings_unchanged(uint64 since);

/* authenticate.c: from a token to an identity */
extern bool sky_login(const char *token, int len, const pg_uuid_t *tenant,
					  SkyJwt *jwt, StringInfo wire, const char **reason);

/* ddl.c: statements that the library runs for its caller */
extern Oid	sky_owner(void);
extern int	sky_ddl_begin(void);
extern void sky_ddl_end(int nestlevel);
extern void sky_exec(const char *format,...) pg_attribute_printf(1, 2);
extern void sky_exec_as(Oid role, const char *format,...) pg_attribute_printf(2, 3);
extern uint64 sky_query(const char *query, Oid type, Datum value);
extern bool sky_exists(const char *query, Oid type, Datum value);

/* guard.c: what row security alone does not refuse */
typedef struct SkyProtection
{
	AttrNumber	tenant_column;	/* 0: not protected */
	char	   *read_permission;	/* NULL: none asked for */
	char	   *write_permission;
	bool		hide;			/* on_denied is 'hide' */
} SkyProtection;

extern void sky_guard_init(void);
extern void sky_protection(Oid relid, SkyProtection *protection);

#pragma GCC visibility pop

#endif							/* SCRAPERSKY_H */
