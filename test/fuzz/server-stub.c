/*
 * server-stub.c
 *		As much of a server as the library needs to be fuzzed without one.
 *
 * Time passes only when somebody looks at it or waits.  What the real server
 * would take for granted, and check with assertions at most, ends the program:
 * a library that does such a thing is wrong, however little comes of it.
 */
#include "postgres.h"

#include <stdarg.h>
#include <sys/socket.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/pg_shmem.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/timestamp.h"

#include "node_process.h"
#include "server-stub.h"

#undef snprintf
#undef vsnprintf
#undef fprintf
#undef free
#undef malloc

#define STARTS_MAX		64
#define RESERVED_MAX	1024
#define REPORTS_DEPTH	8

MemoryContext CurrentMemoryContext;
MemoryContext TopMemoryContext;
sigjmp_buf *PG_exception_stack = NULL;
ErrorContextCallback *error_context_stack = NULL;
char	   *DataDir = "/data";
int			wal_segment_size = 16 * 1024 * 1024;
TimestampTz PgReloadTime = 1;
volatile sig_atomic_t InterruptPending = false;
volatile sig_atomic_t ShutdownRequestPending = false;
volatile uint32 InterruptHoldoffCount = 0;
volatile sig_atomic_t postmaster_possibly_dead = false;
bool		proc_exit_inprogress = false;
char	   *arch_module_check_errdetail_string;

static TimestampTz now = 1000000;
static int	starts;
static int	reserved;
static int	levels[REPORTS_DEPTH];
static int	depth;

/* What the other end says, and how much of it comes at once. */
static const unsigned char *input;
static size_t input_bytes;
static size_t chunk_bytes;
static bool input_ends;

static void
require(bool is_true, const char *what)
{
	if (is_true)
		return;
	fprintf(stderr, "the server would not stand this: %s\n", what);
	abort();
}

/* Begins a life of the server in which the other end says this. */
void
stub_reset(const unsigned char *bytes, size_t count, size_t chunk, bool ends)
{
	input = bytes;
	input_bytes = count;
	chunk_bytes = chunk;
	input_ends = ends;
	starts = reserved = depth = 0;
	PgReloadTime = 1;
	proc_exit_inprogress = false;
	InterruptHoldoffCount = 0;
}

void
stub_reload(void)
{
	PgReloadTime++;
}

/*
 * Memory: all of it lives until the library's life ends
 */

typedef struct Block
{
	struct Block *next;
} Block;

static Block *blocks = NULL;

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	Block	   *block;

	require(size <= MaxAllocSize, "an allocation of that size");
	block = malloc(sizeof(Block) + size);
	block->next = blocks;
	blocks = block;
	return block + 1;
}

void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return memset(MemoryContextAlloc(context, size), 0, size);
}

char *
MemoryContextStrdup(MemoryContext context, const char *text)
{
	return strcpy(MemoryContextAlloc(context, strlen(text) + 1), text);
}

void
stub_free_all(void)
{
	while (blocks != NULL)
	{
		Block	   *next = blocks->next;

		free(blocks);
		blocks = next;
	}
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size minContextSize,
							  Size initBlockSize, Size maxBlockSize)
{
	return (MemoryContext) MemoryContextAlloc(parent, 1);
}

void
MemoryContextReset(MemoryContext context)
{
}

/*
 * Reports
 */

bool
errstart(int elevel, const char *domain)
{
	/* As the server does; an archiver must not come to this. */
	if (elevel == ERROR && (PG_exception_stack == NULL || proc_exit_inprogress))
		elevel = FATAL;
	require(elevel <= ERROR, "a report that ends the process");
	require(depth < REPORTS_DEPTH, "reports within reports");
	levels[depth++] = elevel;
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	int			level = levels[--depth];

	if (level == ERROR)
	{
		InterruptHoldoffCount = 0;
		siglongjmp(*PG_exception_stack, 1);
	}
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errcode_for_file_access(void)
{
	return 0;
}

/* Formats it, so that the sanitizers see what is read. */
static int
format(const char *fmt, va_list arguments)
{
	char		text[256];

	vsnprintf(text, sizeof(text), fmt, arguments);
	return 0;
}

#define FORMATS(name) \
int \
name(const char *fmt, ...) \
{ \
	va_list		arguments; \
	va_start(arguments, fmt); \
	format(fmt, arguments); \
	va_end(arguments); \
	return 0; \
}

FORMATS(errmsg)
FORMATS(errmsg_internal)
FORMATS(errdetail)
FORMATS(errdetail_internal)
FORMATS(errhint)

void
pre_format_elog_string(int errnumber, const char *domain)
{
}

char *
format_elog_string(const char *fmt, ...)
{
	va_list		arguments;

	va_start(arguments, fmt);
	format(fmt, arguments);
	va_end(arguments);
	return "";
}

int
pg_snprintf(char *text, size_t size, const char *fmt, ...)
{
	va_list		arguments;
	int			length;

	va_start(arguments, fmt);
	length = vsnprintf(text, size, fmt, arguments);
	va_end(arguments);
	return length;
}

char *
psprintf(const char *fmt, ...)
{
	char		text[4096];
	va_list		arguments;

	va_start(arguments, fmt);
	vsnprintf(text, sizeof(text), fmt, arguments);
	va_end(arguments);
	return MemoryContextStrdup(NULL, text);
}

void
EmitErrorReport(void)
{
}

void
FlushErrorState(void)
{
	depth = 0;
}

/*
 * Settings
 */

/* Raises what the server raises for a name that it knows as its own. */
static void
define(const char *name, const char *short_desc, const char *long_desc, GucContext context)
{
	require(strlen(name) + strlen(short_desc) + (long_desc ? strlen(long_desc) : 0) > 0, "a setting without a name");
	require(context != PGC_POSTMASTER, "a setting of the postmaster");
	if (strchr(name, '.') == NULL)
		ereport(ERROR, (errmsg("attempt to redefine parameter \"%s\"", name)));
}

void
DefineCustomBoolVariable(const char *name, const char *short_desc, const char *long_desc,
						 bool *valueAddr, bool bootValue, GucContext context, int flags,
						 GucBoolCheckHook check_hook, GucBoolAssignHook assign_hook,
						 GucShowHook show_hook)
{
	define(name, short_desc, long_desc, context);
	*valueAddr = bootValue;
}

void
DefineCustomIntVariable(const char *name, const char *short_desc, const char *long_desc,
						int *valueAddr, int bootValue, int minValue, int maxValue,
						GucContext context, int flags, GucIntCheckHook check_hook,
						GucIntAssignHook assign_hook, GucShowHook show_hook)
{
	define(name, short_desc, long_desc, context);
	require(minValue <= bootValue && bootValue <= maxValue, "an integer whose boot value is out of range");
	*valueAddr = bootValue;
}

void
DefineCustomRealVariable(const char *name, const char *short_desc, const char *long_desc,
						 double *valueAddr, double bootValue, double minValue, double maxValue,
						 GucContext context, int flags, GucRealCheckHook check_hook,
						 GucRealAssignHook assign_hook, GucShowHook show_hook)
{
	define(name, short_desc, long_desc, context);
	require(minValue <= bootValue && bootValue <= maxValue, "a number whose boot value is out of range");
	*valueAddr = bootValue;
}

void
DefineCustomStringVariable(const char *name, const char *short_desc, const char *long_desc,
						   char **valueAddr, const char *bootValue, GucContext context, int flags,
						   GucStringCheckHook check_hook, GucStringAssignHook assign_hook,
						   GucShowHook show_hook)
{
	define(name, short_desc, long_desc, context);
	*valueAddr = MemoryContextStrdup(NULL, bootValue);
}

void
DefineCustomEnumVariable(const char *name, const char *short_desc, const char *long_desc,
						 int *valueAddr, int bootValue, const struct config_enum_entry *options,
						 GucContext context, int flags, GucEnumCheckHook check_hook,
						 GucEnumAssignHook assign_hook, GucShowHook show_hook)
{
	int			count = 0;

	define(name, short_desc, long_desc, context);
	for (const struct config_enum_entry *entry = options; entry->name; entry++)
		if (strlen(entry->name) < MaxAllocSize)
			count++;
	require(bootValue >= 0 && bootValue < count, "an enum whose boot value is not among its options");
	*valueAddr = bootValue;
}

void
MarkGUCPrefixReserved(const char *className)
{
	require(className[0] != '\0', "a prefix without a character");
	require(++reserved <= RESERVED_MAX, "prefixes without end, none of which is ever forgotten");
}

struct config_generic **
get_guc_variables(int *count)
{
	static struct config_generic setting = {.name = "a.directory"};
	static struct config_generic *settings[] = {&setting};

	*count = 1;
	return settings;
}

const char *
GetConfigOption(const char *name, bool missing_ok, bool restrict_privileged)
{
	return "$libdir";
}

char *
GetConfigOptionByName(const char *name, const char **varname, bool missing_ok)
{
	return MemoryContextStrdup(NULL, "/archive");
}

/*
 * Time, interrupts, ends
 */

TimestampTz
GetCurrentTimestamp(void)
{
	return now += 100;
}

long
TimestampDifferenceMilliseconds(TimestampTz start_time, TimestampTz stop_time)
{
	return stop_time <= start_time ? 0 : (long) ((stop_time - start_time) / 1000);
}

void
pg_usleep(long microsec)
{
	now += microsec;
}

bool
PostmasterIsAliveInternal(void)
{
	return true;
}

void
ProcessInterrupts(void)
{
}

void
proc_exit(int code)
{
	require(code == 0, "an archiver that ends with another status than 0");
	siglongjmp(stub_exit, 1);
}

uint64
GetSystemIdentifier(void)
{
	return 42;
}

int
pg_strcasecmp(const char *s1, const char *s2)
{
	return strcasecmp(s1, s2);
}

int
pg_strncasecmp(const char *s1, const char *s2, size_t n)
{
	return strncasecmp(s1, s2, n);
}

const char *
pg_strsignal(int signum)
{
	return "Killed";
}

/*
 * The other end
 */

sigjmp_buf	stub_exit;

/* These two are for a process that is not started here. */
void
PGSharedMemoryDetach(void)
{
}

void
init_ps_display(const char *fixed_part)
{
}

bool
node_process_start(const NodeCommand *command, pid_t *pid, int *channel, NodeStartError *error)
{
	require(++starts <= STARTS_MAX, "processes started one after the other without a pause");
	*pid = 4711;
	*channel = -1;
	return true;
}

bool
node_process_has_ended(pid_t pid, int *status)
{
	*status = 0;
	return input_bytes == 0 && input_ends;
}

int
node_process_kill(pid_t pid)
{
	require(pid == 4711, "the end of a process that was not started");
	return 9;
}

int
node_process_await(pid_t pid)
{
	return 0;
}

ssize_t
stub_send(int fd, const void *bytes, size_t count, int flags)
{
	unsigned char sum = 0;

	for (size_t i = 0; i < count; i++)
		sum ^= ((const unsigned char *) bytes)[i];
	return count > 3 ? (ssize_t) count - (sum & 1) : (ssize_t) count;
}

int
stub_poll(struct pollfd *fds, unsigned long count, int timeout)
{
	if (input_bytes == 0 && !input_ends)
	{
		now += (TimestampTz) timeout * 1000;
		return 0;
	}
	return 1;
}

ssize_t
stub_recv(int fd, void *bytes, size_t room, int flags)
{
	size_t		count = chunk_bytes;

	if (count == 0 && input_bytes >= 5)
		count = 1 + (((size_t) input[1] << 24) | (input[2] << 16) | (input[3] << 8) | input[4]);
	else if (count == 0)
		count = 1;
	count = Min(Min(room, count), input_bytes);
	require(room > 0, "a buffer that is full without a frame in it");
	memcpy(bytes, input, count);
	input += count;
	input_bytes -= count;
	return (ssize_t) count;
}
