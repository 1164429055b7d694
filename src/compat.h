/*
 * compat.h
 *		What differs between PostgreSQL 15 and 18, and between versions of
 *		libjwt, as small wrappers: the only place with #if.
 */
#ifndef SCRAPERSKY_COMPAT_H
#define SCRAPERSKY_COMPAT_H

#include "postgres.h"

#include <jwt.h>

#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/acl.h"
#include "utils/guc.h"

#if PG_VERSION_NUM < 150000
#error "scrapersky needs PostgreSQL 15 or later"
#endif

#if defined(JWT_VERSION_MAJOR) && JWT_VERSION_MAJOR >= 3
#error "scrapersky 0.1 needs libjwt 1.10 to 2.x (Debian 12 has 1.10.2)"
#endif

/* GUC "extra" must come from the allocator that the server frees it with */
#if PG_VERSION_NUM >= 160000
#define sky_guc_malloc(size)	guc_malloc(LOG, (size))
#define sky_guc_free(ptr)		guc_free(ptr)
#else
#define sky_guc_malloc(size)	malloc(size)
#define sky_guc_free(ptr)		free(ptr)
#endif

/* what ExecutorCheckPerms_hook is given, and one entry of it */
#if PG_VERSION_NUM >= 160000
typedef RTEPermissionInfo SkyPermInfo;

#define SKY_PERMS_ARGS			List *rtable, List *perminfos, bool ereport_on_violation
#define SKY_PERMS_PASS			rtable, perminfos, ereport_on_violation
#define SKY_PERMS_LIST			perminfos
#define sky_perm_is_relation(info)	true
#else
typedef RangeTblEntry SkyPermInfo;

#define SKY_PERMS_ARGS			List *rtable, bool ereport_on_violation
#define SKY_PERMS_PASS			rtable, ereport_on_violation
#define SKY_PERMS_LIST			rtable
#define sky_perm_is_relation(info)	((info)->rtekind == RTE_RELATION)
#endif

/*
 * From libpq/scram.h, which also wants Kerberos headers that Debian's server
 * headers come without.
 */
extern char *pg_be_scram_build_secret(const char *password);

/* does this role own the relation? */
static inline bool
sky_owns_relation(Oid relid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, roleid);
#else
	return pg_class_ownercheck(relid, roleid);
#endif
}

#endif							/* SCRAPERSKY_COMPAT_H */
