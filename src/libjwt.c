/*
 * libjwt.c
 *		libjwt, loaded so that it finds its own functions.
 *
 * libjwt calls jansson's json_object(), and the PostgreSQL executable exports
 * a function of that name, which the dynamic linker would find first: a token
 * would crash the server.  Loaded with RTLD_DEEPBIND, libjwt looks into its
 * own dependencies before the executable.  So it is opened here, and not
 * linked with; verify.c calls it through sky_libjwt.
 */
#include "postgres.h"

#include <dlfcn.h>

#include "scrapersky.h"

SkyLibjwt	sky_libjwt;

static void *find(void *handle, const char *name);

/*
 * Load libjwt.  Called once, by _PG_init; without it the library must not run.
 */
void
sky_libjwt_init(void)
{
	void	   *handle = dlopen(SKY_LIBJWT, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);

	if (handle == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("could not load %s: %s", SKY_LIBJWT, dlerror()),
				 errhint("Install libjwt, the version that scrapersky was built with.")));
	sky_libjwt.decode = find(handle, "jwt_decode");
	sky_libjwt.new = find(handle, "jwt_new");
	sky_libjwt.free = find(handle, "jwt_free");
	sky_libjwt.get_alg = find(handle, "jwt_get_alg");
	sky_libjwt.set_alg = find(handle, "jwt_set_alg");
	sky_libjwt.add_grants_json = find(handle, "jwt_add_grants_json");
	sky_libjwt.add_grant_int = find(handle, "jwt_add_grant_int");
	sky_libjwt.encode_str = find(handle, "jwt_encode_str");
}

/*
 * A function of the library, by name.
 */
static void *
find(void *handle, const char *name)
{
	void	   *result = dlsym(handle, name);

	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s has no function %s", SKY_LIBJWT, name)));
	return result;
}
