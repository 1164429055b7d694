/*
 * identity.c
 *		Who is asking: an identity that nobody can forge and that ends with
 *		its transaction.
 *
 * The identity is the value of the GUC scrapersky.identity, so that
 * PostgreSQL itself takes care of savepoints, rollback, functions with a SET
 * clause and parallel workers.  Trust: the check hook accepts a value only
 * while sky_identity_set() is setting it, or while a parallel worker receives
 * its leader's; every other way to set it (SET, set_config(), ALTER ROLE,
 * PGOPTIONS, a placeholder from before the library was loaded) is refused.
 * The holder may always drop it (RESET).
 *
 * Lifetime: the check hook parses the value into the GUC's "extra", which the
 * server frees when the value goes.  Therefore nothing hands out a pointer
 * into it: callers copy, once per call site and generation.
 *
 * Wire form: a version byte, then sections of a tag, a decimal length, a colon
 * and that many bytes.  A tag in upper case must be understood, one in lower
 * case may be skipped.  A list is a section of items with a decimal length and
 * a colon each.  All of it is text without NUL, in UTF-8.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "miscadmin.h"
#include "scrapersky.h"
#include "utils/guc.h"
#include "utils/portal.h"

#define WIRE_VERSION	'1'
#define REQUIRED_TAGS	"IUSXC"

static char *identity_string = NULL;
const SkyIdentity *sky_current = NULL;
uint64		sky_generation = 0;
static bool setting = false;

static bool identity_check(char **newval, void **extra, GucSource source);
static void identity_assign(const char *newval, void *extra);
static SkyIdentity *parse_wire(const char *wire);
static bool parse_sections(SkyIdentity *identity, SkySlice rest);
static bool parse_section(SkyIdentity *identity, char tag, SkySlice value);
static bool parse_length(SkySlice *rest, int *len);
static bool parse_timestamp(SkySlice value, TimestampTz *result);
static bool changes_identity(const char *wire);
static void set_identity_guc(const char *value, GucAction action);

/*
 * Define the GUC.  Called once, by _PG_init.
 */
void
sky_identity_init(void)
{
	DefineCustomStringVariable("scrapersky.identity",
							   "The identity of this transaction.",
							   "Set by scrapersky.authenticate() only.",
							   &identity_string,
							   "",
							   PGC_USERSET,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE | GUC_SUPERUSER_ONLY,
							   identity_check,
							   identity_assign,
							   NULL);
}

/*
 * The identity in force; without one an error (42501), or NULL when
 * scrapersky.missing_identity is 'empty'.
 */
const SkyIdentity *
sky_identity_required(void)
{
	const SkyIdentity *identity = sky_identity();

	if (identity == NULL && sky_missing_identity == SKY_MISSING_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 sky_current ? errmsg("the identity has expired") :
				 errmsg("no identity in this transaction"),
				 sky_current ? errhint("Authenticate again, with a new token.") :
				 errhint("Call scrapersky.authenticate(token) first, in the same transaction.")));
	return identity;
}

/*
 * Make wire the identity, until the end of the transaction if is_local.
 * Refused while cursors are open if it names another user or tenant: a cursor
 * would go on with other rows than it began with.  (One WITH HOLD has its rows
 * already; whoever has the connection next can read them, but not under an
 * identity of their own.)
 */
void
sky_identity_set(const char *wire, bool is_local)
{
	/*
	 * in this order: when it finds one, it leaves a scan open for an abort to
	 * end
	 */
	if (changes_identity(wire) && !ThereAreNoReadyPortals())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot change the identity while cursors are open"),
				 errhint("Close them first: CLOSE ALL.")));

	/* PG_FINALLY: a flag left on would let anybody set the GUC */
	setting = true;
	PG_TRY();
	{
		set_identity_guc(wire, is_local ? GUC_ACTION_LOCAL : GUC_ACTION_SET);
	}
	PG_FINALLY();
	{
		setting = false;
	}
	PG_END_TRY();
}

/*
 * Drop the identity, for the rest of the transaction and of the session.
 */
void
sky_identity_clear(void)
{
	set_identity_guc("", GUC_ACTION_SET);
}

/*
 * Start a wire form.
 */
void
sky_wire_begin(StringInfo wire)
{
	initStringInfo(wire);
	appendStringInfoChar(wire, WIRE_VERSION);
}

/*
 * Add a section.
 */
void
sky_wire_append(StringInfo wire, char tag, const char *data, int len)
{
	appendStringInfoChar(wire, tag);
	sky_list_append(wire, data, len);
}

/*
 * Add an item to a list.
 */
void
sky_list_append(StringInfo list, const char *data, int len)
{
	appendStringInfo(list, "%d:", len);
	appendBinaryStringInfo(list, data, len);
}

/*
 * Take the next item off a list; false at its end, or where it is broken.
 */
bool
sky_list_next(SkySlice *list, SkySlice *item)
{
	if (list->len == 0 || !parse_length(list, &item->len))
		return false;
	item->data = list->data;
	list->data += item->len;
	list->len -= item->len;
	return true;
}

/*
 * Is this string an item of the list?
 */
bool
sky_list_contains(SkySlice list, const char *data, int len)
{
	SkySlice	item;

	while (sky_list_next(&list, &item))
	{
		if (item.len == len && memcmp(item.data, data, len) == 0)
			return true;
	}
	return false;
}

/*
 * GUC check hook: accept only what our own code sets, and what a parallel
 * worker is handed by its leader.
 */
static bool
identity_check(char **newval, void **extra, GucSource source)
{
	*extra = NULL;
	if (*newval == NULL || **newval == '\0')
		return true;

	if (!setting && !InitializingParallelWorker)
	{
		GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
		GUC_check_errdetail("An identity comes from scrapersky.authenticate() only.");
		return false;
	}

	*extra = parse_wire(*newval);
	return *extra != NULL;
}

/*
 * GUC assign hook: cannot fail.
 */
static void
identity_assign(const char *newval, void *extra)
{
	sky_current = (const SkyIdentity *) extra;
	sky_generation++;
}

/*
 * Parse a wire form into one allocation of the GUC's kind; NULL if any of it
 * is not understood.  Called inside a check hook: never throws.
 */
static SkyIdentity *
parse_wire(const char *wire)
{
	Size		size = strlen(wire);
	SkyIdentity *identity = sky_guc_malloc(sizeof(SkyIdentity) + size + 1);
	SkySlice	sections;

	if (identity == NULL)
		return NULL;
	memset(identity, 0, sizeof(SkyIdentity));
	memcpy(identity + 1, wire, size + 1);
	sections.data = (char *) (identity + 1) + 1;
	sections.len = (int) size - 1;
	if (wire[0] == WIRE_VERSION && parse_sections(identity, sections))
		return identity;
	sky_guc_free(identity);
	return NULL;
}

/*
 * Take all sections; false unless each is understood and no required one is
 * missing or there twice.
 */
static bool
parse_sections(SkyIdentity *identity, SkySlice rest)
{
	SkySlice	value;
	uint32		seen = 0;

	while (rest.len > 0)
	{
		char		tag = *rest.data;
		uint32		bit = tag >= 'A' && tag <= 'Z' ? 1U << (tag - 'A') : 0;

		rest.data++;
		rest.len--;
		if (!sky_list_next(&rest, &value) ||
			!parse_section(identity, tag, value) || (seen & bit))
			return false;
		seen |= bit;
	}
	for (const char *tag = REQUIRED_TAGS; *tag; tag++)
	{
		if (!(seen & (1U << (*tag - 'A'))))
			return false;
	}
	return true;
}

/*
 * Take one section; false if it is unknown and required, or malformed.
 */
static bool
parse_section(SkyIdentity *identity, char tag, SkySlice value)
{
	char		uuid[37];

	switch (tag)
	{
		case 'I':
			identity->issuer = value;
			return true;
		case 'S':
			identity->subject = value;
			return true;
		case 'M':
			identity->email = value;
			return true;
		case 'N':
			identity->tenant_name = value;
			return true;
		case 'R':
			identity->roles = value;
			return true;
		case 'P':
			identity->permissions = value;
			return true;
		case 'C':
			identity->claims = value;
			return true;
		case 'X':
			return parse_timestamp(value, &identity->expires_at);
		case 'U':
		case 'T':
			if (value.len != 36)
				return false;
			memcpy(uuid, value.data, 36);
			uuid[36] = '\0';
			if (tag == 'U')
				return sky_parse_uuid(uuid, &identity->user_id);
			identity->has_tenant = true;
			return sky_parse_uuid(uuid, &identity->tenant_id);
		default:
			return tag >= 'a' && tag <= 'z';
	}
}

/*
 * Take a decimal length and its colon off the front; false unless that many
 * bytes follow.
 */
static bool
parse_length(SkySlice *rest, int *len)
{
	int			i = 0;

	*len = 0;
	while (i < rest->len && i < 8 &&
		   rest->data[i] >= '0' && rest->data[i] <= '9')
		*len = *len * 10 + (rest->data[i++] - '0');
	if (i == 0 || i >= rest->len || rest->data[i] != ':')
		return false;
	rest->data += i + 1;
	rest->len -= i + 1;
	return *len <= rest->len;
}

/*
 * Read a moment, written as microseconds in PostgreSQL's epoch.
 */
static bool
parse_timestamp(SkySlice value, TimestampTz *result)
{
	char		buffer[24];
	char	   *end;

	if (value.len == 0 || value.len >= (int) sizeof(buffer))
		return false;
	memcpy(buffer, value.data, value.len);
	buffer[value.len] = '\0';
	errno = 0;
	*result = strtoi64(buffer, &end, 10);
	return errno == 0 && *end == '\0';
}

/*
 * Would this identity be another user's or another tenant's than the one in
 * force?  From none to one counts.
 */
static bool
changes_identity(const char *wire)
{
	const SkyIdentity *old = sky_identity();
	SkyIdentity *new = parse_wire(wire);
	bool		result;

	result = old == NULL || new == NULL ||
		old->has_tenant != new->has_tenant ||
		memcmp(&old->user_id, &new->user_id, sizeof(pg_uuid_t)) != 0 ||
		memcmp(&old->tenant_id, &new->tenant_id, sizeof(pg_uuid_t)) != 0;
	if (new != NULL)
		sky_guc_free(new);
	return result;
}

/*
 * Set the GUC through the server's machinery.
 */
static void
set_identity_guc(const char *value, GucAction action)
{
	(void) set_config_option("scrapersky.identity", value,
							 superuser() ? PGC_SUSET : PGC_USERSET,
							 PGC_S_SESSION, action, true, ERROR, false);
}
