/*
 * scrapersky.c
 *		The module: its settings, and what happens when it is loaded.
 *
 * Every setting with a say in security can be set by the server's
 * configuration or a superuser only.  None holds a secret.  That holds from the
 * moment the library is loaded: before, a client can put a placeholder in the
 * way of the configuration's value, which is then lost.  So nobody is
 * authenticated unless the server loaded the library itself, at its start.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

char	   *sky_jwt_secret_file = NULL;
char	   *sky_jwt_audience = NULL;
char	   *sky_jwt_issuer = NULL;
int			sky_jwt_leeway = 30;
char	   *sky_default_tenant_id = NULL;
int			sky_environment = SKY_ENV_PRODUCTION;
int			sky_missing_identity = SKY_MISSING_ERROR;
int			sky_rbac_cache_size = 1024;
bool		sky_allow_session_identity = false;
bool		sky_allow_drop = false;
bool		sky_preloaded = false;

static const struct config_enum_entry environments[] = {
	{"production", SKY_ENV_PRODUCTION, false},
	{"staging", SKY_ENV_STAGING, false},
	{"development", SKY_ENV_DEVELOPMENT, false},
	{"test", SKY_ENV_TEST, false},
	{NULL, 0, false}
};

static const struct config_enum_entry missing_identities[] = {
	{"error", SKY_MISSING_ERROR, false},
	{"empty", SKY_MISSING_EMPTY, false},
	{NULL, 0, false}
};

void		_PG_init(void);

static void define_token_settings(void);
static void define_behaviour_settings(void);
static bool check_uuid_setting(char **newval, void **extra, GucSource source);

/*
 * Load-time set-up, in every backend, or once in the postmaster if preloaded.
 */
void
_PG_init(void)
{
	sky_preloaded = process_shared_preload_libraries_in_progress;
	sky_libjwt_init();
	define_token_settings();
	define_behaviour_settings();
	sky_identity_init();
	MarkGUCPrefixReserved("scrapersky");
	sky_rbac_init();
	sky_guard_init();
}

/*
 * Settings about tokens: from the configuration file only.
 */
static void
define_token_settings(void)
{
	DefineCustomStringVariable("scrapersky.jwt_secret_file",
							   "File with the secret that HS256 tokens are signed with.",
							   "The server user's own, mode 0600; at least 32 bytes, one trailing newline is cut off.",
							   &sky_jwt_secret_file, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("scrapersky.jwt_audience",
							   "If set, tokens must name it in their claim aud.",
							   NULL, &sky_jwt_audience, "", PGC_SIGHUP,
							   0, NULL, NULL, NULL);
	DefineCustomStringVariable("scrapersky.jwt_issuer",
							   "If set, tokens must name exactly it in their claim iss.",
							   NULL, &sky_jwt_issuer, "", PGC_SIGHUP,
							   0, NULL, NULL, NULL);
	DefineCustomIntVariable("scrapersky.jwt_leeway",
							"How far the clocks of issuer and server may differ.",
							NULL, &sky_jwt_leeway, 30, 0, 300, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("scrapersky.default_tenant_id",
							   "Tenant of users whose token and memberships leave it open.",
							   "Denied when scrapersky.environment is production.",
							   &sky_default_tenant_id, "", PGC_SIGHUP,
							   0, check_uuid_setting, NULL, NULL);
	DefineCustomEnumVariable("scrapersky.environment",
							 "What this server is used for.",
							 NULL, &sky_environment, SKY_ENV_PRODUCTION,
							 environments, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/*
 * Settings about behaviour: superusers may change them in a session.
 */
static void
define_behaviour_settings(void)
{
	DefineCustomEnumVariable("scrapersky.missing_identity",
							 "What questions answer without an identity: an error, or nothing.",
							 NULL, &sky_missing_identity, SKY_MISSING_ERROR,
							 missing_identities, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("scrapersky.rbac_cache_size",
							"Memory that each backend keeps roles and permissions in.",
							"When it is full it is emptied.",
							&sky_rbac_cache_size, 1024, 64, 1024 * 1024, PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomBoolVariable("scrapersky.allow_session_identity",
							 "Allows authenticate(token, is_local => false).",
							 "Unsafe behind a pooler: the next client would inherit the identity.",
							 &sky_allow_session_identity, false, PGC_SUSET,
							 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("scrapersky.allow_drop",
							 "Allows DROP EXTENSION scrapersky while there are tenants.",
							 NULL, &sky_allow_drop, false, PGC_SUSET,
							 0, NULL, NULL, NULL);
}

/*
 * GUC check hook: empty, or a uuid.
 */
static bool
check_uuid_setting(char **newval, void **extra, GucSource source)
{
	pg_uuid_t	uuid;

	if (*newval == NULL || **newval == '\0' || sky_parse_uuid(*newval, &uuid))
		return true;
	GUC_check_errdetail("It must be a uuid of 36 characters.");
	return false;
}

PG_FUNCTION_INFO_V1(scrapersky_library_version);

/*
 * library_version(): the version of the loaded library, which may be newer
 * than that of the SQL objects.
 */
Datum
scrapersky_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(SKY_VERSION));
}
