/*
 * keys.c
 *		The secret that tokens are signed with.
 *
 * Trust: the setting scrapersky.jwt_secret_file holds a path, never the secret
 * (a setting can be read by too many).  The file must belong to the server's
 * user or to root and be closed to everybody else, as PostgreSQL asks of its
 * TLS key.  Its text is the secret, one trailing newline apart; PostgREST reads
 * the same file in the same way.
 *
 * Lifetime: one copy per backend, looked at again (one stat) for each token,
 * so that a new secret counts at once; the old one is wiped.
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scrapersky.h"
#include "storage/fd.h"
#include "utils/memutils.h"

static SkyKey secret = {NULL, 0};
static char *secret_path = NULL;
static struct stat secret_stat;
static bool secret_settled = false;

static bool same_file(const struct stat *a, const struct stat *b);
static bool is_private(const struct stat *st);
static bool read_secret(const char *path, const char **reason);
static void forget_secret(void);

/*
 * The secret of the built-in issuer; false, with the reason for the log, if
 * there is none that may be used.  The key is good until the next call.
 */
bool
sky_key_load(const SkyKey **key, const char **reason)
{
	struct stat st;

	*reason = "scrapersky.jwt_secret_file is not set";
	if (sky_jwt_secret_file == NULL || sky_jwt_secret_file[0] == '\0')
	{
		forget_secret();
		return false;
	}

	*reason = "the file of scrapersky.jwt_secret_file cannot be read";
	if (stat(sky_jwt_secret_file, &st) != 0)
	{
		forget_secret();
		return false;
	}

	if (secret.data == NULL || secret_path == NULL || !secret_settled ||
		strcmp(secret_path, sky_jwt_secret_file) != 0 ||
		!same_file(&st, &secret_stat))
	{
		forget_secret();
		if (!read_secret(sky_jwt_secret_file, reason))
		{
			forget_secret();
			return false;
		}
	}
	*key = &secret;
	return true;
}

/*
 * Is this the very file, unchanged, that was read before?
 */
static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
		a->st_size == b->st_size && a->st_mode == b->st_mode &&
		a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
		a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
		a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
		a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/*
 * May only the server's user (or, if it is root's, its group) read the file?
 */
static bool
is_private(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return false;
	if (st->st_uid == 0)
		return (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) == 0;
	return st->st_uid == geteuid() && (st->st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

/*
 * Read the file into the backend's copy; false, with the reason, if it is not
 * what a secret must be.
 */
static bool
read_secret(const char *path, const char **reason)
{
	int			fd;
	int			len = -1;

	secret.data = MemoryContextAlloc(TopMemoryContext, SKY_MAX_SECRET + 2);
	secret_path = MemoryContextStrdup(TopMemoryContext, path);
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		return false;
	if (fstat(fd, &secret_stat) == 0 && is_private(&secret_stat))
		len = read(fd, secret.data, SKY_MAX_SECRET + 2);
	else
		*reason = "the file of scrapersky.jwt_secret_file must be the server user's, with mode 0600";
	CloseTransientFile(fd);
	if (len < 0)
		return false;
	/* a second change within one tick of the file system would not show */
	secret_settled = time(NULL) > secret_stat.st_ctim.tv_sec + 1;

	if (len > 0 && secret.data[len - 1] == '\n')
		len--;
	secret.len = len;
	*reason = "the secret must have 32 to 4096 bytes";
	if (len < SKY_MIN_SECRET || len > SKY_MAX_SECRET)
		return false;
	*reason = "the secret must not look like JSON: PostgREST would take it for a key set";
	for (len = 0; len < secret.len && isspace((unsigned char) secret.data[len]);)
		len++;
	return len < secret.len && secret.data[len] != '{' && secret.data[len] != '[';
}

/*
 * Wipe the backend's copy.
 */
static void
forget_secret(void)
{
	if (secret.data != NULL)
	{
		explicit_bzero(secret.data, SKY_MAX_SECRET + 2);
		pfree(secret.data);
		secret.data = NULL;
		secret.len = 0;
	}
	if (secret_path != NULL)
	{
		pfree(secret_path);
		secret_path = NULL;
	}
}
