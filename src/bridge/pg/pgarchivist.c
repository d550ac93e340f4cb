/*
 * pgarchivist.c
 *		An archive module that hands every file to a TypeScript module, which
 *		runs in a Node process beside the archiver.
 *
 * This end holds no policy.  It defines settings, starts the process, carries
 * questions and answers over a socket (src/bridge/PROTOCOL.md), and waits no
 * longer than it was told to.  Whatever goes wrong on the other end, the worst
 * that happens here is that a file is not archived yet.
 *
 * It runs only inside the callbacks of the archiver.  It raises nothing of its
 * own: what the module reports as ERROR is shown and becomes "false".  All
 * memory of one callback is in a context of its own, because before version 17
 * nobody else frees it.
 */
#include "pg_compat.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/pg_shmem.h"
#include "storage/pmsignal.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/ps_status.h"
#include "utils/timestamp.h"

#include "frame.h"
#include "node_process.h"

PG_MODULE_MAGIC;

#ifndef PGARCHIVIST_LAUNCHER
#error "PGARCHIVIST_LAUNCHER has to be the absolute path of bin/pgarchivist"
#endif

/* Interrupts are served, and the postmaster looked at, at least this often. */
#define SLICE_MS				1000
/* A process that does not say "still here" within this time is not. */
#define PING_TIMEOUT_MS			2000
/* In shutdown_cb interrupts are held, so the server waits for it. */
#define SHUTDOWN_TIMEOUT_MS		1000
/* A process that ends before the handshake is not started again at once. */
#define RESTART_DELAY_MIN_MS	1000
#define RESTART_DELAY_MAX_MS	10000
/* Settings that user modules may declare during the life of an archiver. */
#define DECLARED_SETTINGS_MAX	256
#define RESERVED_PREFIXES_MAX	64
/* More settings than any server has; the other end takes no more. */
#define SETTINGS_MAX			10000
/* Bytes of one declaration, which stays for the life of an archiver. */
#define DECLARATION_BYTES_MAX	(16 * 1024)

/* Types of frames, named after what they say. */
#define FRAME_HELLO			'H'
#define FRAME_SETTINGS		'S'
#define FRAME_CHECK			'C'
#define FRAME_ARCHIVE		'A'
#define FRAME_PING			'P'
#define FRAME_QUIT			'Q'

#define FRAME_READY			'r'
#define FRAME_DECLARE		'd'
#define FRAME_RESERVE		'v'
#define FRAME_LOG			'l'
#define FRAME_CHECKED		'c'
#define FRAME_ARCHIVED		'a'
#define FRAME_PONG			'p'

/* Settings of our own. */
static char *setting_module;
static char *setting_node;
static int	setting_archive_ahead;
static int	setting_file_timeout;
static int	setting_start_timeout;
static int	setting_stop_timeout;
static int	setting_memory_limit;

/*
 * Settings of the module "repository".  They are defined here, so that they are
 * there before Node is; only the module reads them, and from the frames.
 */
static char *setting_repository;
static int	setting_repository_quorum;
static int	setting_compression_level;
static char *setting_encryption_recipients;
static char *setting_identity_file;
static char *setting_spool_directory;
static int	setting_spool_limit;
static bool setting_header_check;

/* A setting that the user's module declared, as it was declared. */
typedef struct DeclaredSetting
{
	char	   *declaration;	/* the payload of its frame */
	size_t		bytes;
	union
	{
		bool		as_bool;
		int			as_int;
		double		as_real;
		char	   *as_string;
	}			value;
} DeclaredSetting;

static DeclaredSetting *declared_settings[DECLARED_SETTINGS_MAX];
static int	declared_settings_count = 0;

static char *reserved_prefixes[RESERVED_PREFIXES_MAX];
static int	reserved_prefixes_count = 0;

/*
 * The process is absent (pid 0), starting (started, not ready) or ready.  It
 * becomes absent by its own end, by ours, and when it breaks the protocol.
 */
static struct
{
	pid_t		pid;
	int			socket;
	bool		is_ready;
	char	   *module;			/* that it was started with */
	TimestampTz settings_sent;	/* PgReloadTime of the settings that it has */
	TimestampTz start_deadline;
	int32		requests_before;	/* the last one that it was not asked */
	int			declarations;	/* frames that it has sent */
	int			reservations;
	bool		broke_protocol;
} node = {0, -1, false, NULL, 0, 0, 0, 0, 0, false};

static FrameBuffer incoming;
static FrameBuffer outgoing;
static MemoryContext callback_context;

static int32 last_request = 0;
/* Did the module answer when it was asked whether it is configured, before this attempt? */
static bool is_checked = false;
static int	restart_delay_ms = 0;
static TimestampTz next_start = 0;
static TimestampTz stop_deadline = 0;
static bool is_stop_told = false;
static bool restart_archiver = false;

/* What the request that is being waited for was answered. */
static struct
{
	char		expected;		/* type of the frame that answers, or 0 */
	int32		request;
	bool		is_answered;
	bool		value;
	const char *file;			/* of an 'a' frame: has to be the one asked for */
	char		detail[1024];
} answer;

static bool archive_configured(ARCHIVE_CALLBACK_STATE);
static bool archive_file(ARCHIVE_CALLBACK_STATE_AND const char *file, const char *path);
static void archive_shutdown(ARCHIVE_CALLBACK_STATE);

extern PGDLLEXPORT void _PG_init(void);

/*
 * What the server needs of us, in the order of its own header
 */

#if PG_VERSION_NUM >= 160000
static void archive_startup(ARCHIVE_CALLBACK_STATE);

static const ArchiveModuleCallbacks callbacks = {
	.startup_cb = archive_startup,
	.check_configured_cb = archive_configured,
	.archive_file_cb = archive_file,
	.shutdown_cb = archive_shutdown
};

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	return &callbacks;
}
#else
void
_PG_archive_module_init(ArchiveModuleCallbacks *cb)
{
	cb->check_configured_cb = archive_configured;
	cb->archive_file_cb = archive_file;
	cb->shutdown_cb = archive_shutdown;
}
#endif

void
_PG_init(void)
{
	DefineCustomStringVariable("pgarchivist.module",
							   "The archive module: a TypeScript file, or one that pgarchivist ships.",
							   NULL, &setting_module, "repository",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pgarchivist.node",
							   "The Node program to use instead of the one that pgarchivist brings.",
							   NULL, &setting_node, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.archive_ahead",
							"How many files a module that can do so archives at once.",
							NULL, &setting_archive_ahead, 4, 1, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.file_timeout",
							"How long an attempt to archive a file may take.",
							NULL, &setting_file_timeout, 60 * 1000, 1000, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.start_timeout",
							"How long the module may take to start.",
							NULL, &setting_start_timeout, 10 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.stop_timeout",
							"How long a stopping server waits for a file to be archived.",
							NULL, &setting_stop_timeout, 20 * 1000, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.memory_limit",
							"Resident memory at which the Node process is ended and started again.",
							"0 means no limit.",
							&setting_memory_limit, 512, 0, MAX_KILOBYTES / 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);

	/* The same as in src/repository/repository-gucs.ts; a test compares them. */
	DefineCustomStringVariable("pgarchivist.repository",
							   "Where files are archived: URLs, separated by commas.",
							   "Credentials do not belong here, because every role may see it.",
							   &setting_repository, "",
							   PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.repository_quorum",
							"In how many repositories a file has to be before it counts as archived.",
							"0 means in all of them.",
							&setting_repository_quorum, 0, 0, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.compression_level",
							"Level at which archived files are compressed with zstd.",
							NULL, &setting_compression_level, 1, 1, 19,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pgarchivist.encryption_recipients",
							   "Public age keys for which archived files are encrypted.",
							   "An empty string means that they are not encrypted.",
							   &setting_encryption_recipients, "",
							   PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	DefineCustomStringVariable("pgarchivist.identity_file",
							   "File with the age identity that decrypts archived files.",
							   NULL, &setting_identity_file, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pgarchivist.spool_directory",
							   "Directory for files that are fetched before they are asked for.",
							   NULL, &setting_spool_directory, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgarchivist.spool_limit",
							"How much the spool directory may hold.",
							NULL, &setting_spool_limit, 1024 * 1024, 64 * 1024, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomBoolVariable("pgarchivist.header_check",
							 "Checks that a segment is from this cluster before it is archived.",
							 NULL, &setting_header_check, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("pgarchivist");
}

/*
 * Reporting
 */

static int
level_of(const char *name)
{
	static const struct
	{
		const char *name;
		int			level;
	}			levels[] = {
		{"DEBUG5", DEBUG5}, {"DEBUG4", DEBUG4}, {"DEBUG3", DEBUG3},
		{"DEBUG2", DEBUG2}, {"DEBUG1", DEBUG1}, {"LOG", LOG},
		{"INFO", LOG}, {"NOTICE", NOTICE}, {"WARNING", WARNING},
		/* Shown as ERROR, because nothing of the module may end the archiver. */
		{"ERROR", ERROR}, {"FATAL", ERROR}, {"PANIC", ERROR}
	};

	for (int i = 0; i < (int) lengthof(levels); i++)
		if (strcmp(levels[i].name, name) == 0)
			return levels[i].level;
	return -1;
}

static int
sqlstate_of(const char *text, int level)
{
	if (strlen(text) == 5 && strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
		return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]);
	if (level >= ERROR)
		return ERRCODE_INTERNAL_ERROR;
	return level >= WARNING ? ERRCODE_WARNING : ERRCODE_SUCCESSFUL_COMPLETION;
}

static void
report_text(int level, const char *sqlstate, const char *message, const char *detail,
			const char *hint)
{
	ereport(level,
			(errcode(sqlstate_of(sqlstate, level)),
			 errmsg_internal("%s", message),
			 detail[0] ? errdetail_internal("%s", detail) : 0,
			 hint[0] ? errhint("%s", hint) : 0));
}

/* An ERROR is shown like any other message, and goes no further. */
static void
report(int level, const char *sqlstate, const char *message, const char *detail,
	   const char *hint)
{
	MemoryContext context = CurrentMemoryContext;

	/* While the archiver ends, the server makes a FATAL of every ERROR, and ends shutdown_cb with it. */
	if (level < ERROR || proc_exit_inprogress)
	{
		report_text(level < ERROR ? level : WARNING, sqlstate, message, detail, hint);
		return;
	}
	PG_TRY();
	{
		report_text(level, sqlstate, message, detail, hint);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

/*
 * Time
 */

static TimestampTz
deadline_in(int ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

static long
ms_until(TimestampTz deadline)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
}

/*
 * The process
 */

static void
describe_end(int status, char *text, size_t size)
{
	if (WIFEXITED(status))
		snprintf(text, size, "exited with exit code %d", WEXITSTATUS(status));
	else
		snprintf(text, size, "was terminated by signal %d: %s", WTERMSIG(status),
				 pg_strsignal(WTERMSIG(status)));
}

/* After a start in vain the next one is not at once. */
static void
node_start_later(void)
{
	restart_delay_ms = Min(Max(restart_delay_ms * 2, RESTART_DELAY_MIN_MS), RESTART_DELAY_MAX_MS);
	next_start = deadline_in(restart_delay_ms);
}

/* Forgets a process that has ended or was killed. */
static void
node_forget(void)
{
	if (!node.is_ready || node.broke_protocol)
		node_start_later();
	close(node.socket);
	free(node.module);
	node.pid = 0;
	node.socket = -1;
	node.is_ready = false;
	node.module = NULL;
	incoming.used = 0;
}

static void
node_end(const char *reason)
{
	int			pid = (int) node.pid;

	node_process_kill(node.pid);
	node_forget();
	ereport(WARNING,
			(errmsg("pgarchivist process (PID %d) was ended: %s", pid, reason)));
}

/* The other end has closed the channel: it has ended, or is about to. */
static void
node_has_closed(void)
{
	int			pid = (int) node.pid;
	int			status = node_process_await(node.pid);
	char		how[128];

	describe_end(status, how, sizeof(how));
	node_forget();
	/* It ends orderly only when it was told to, which is nothing to tell. */
	ereport(status == 0 ? DEBUG1 : LOG, (errmsg("pgarchivist process (PID %d) %s", pid, how)));
}

/* Sends a frame whole, or ends the process.  It reads at once unless it hangs. */
static bool
node_send(TimestampTz deadline)
{
	size_t		sent = 0;

	frame_end(&outgoing);
	while (sent < outgoing.used)
	{
		ssize_t		count = send(node.socket, outgoing.data + sent,
								 outgoing.used - sent, MSG_NOSIGNAL);

		if (count >= 0)
			sent += count;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			struct pollfd waiting = {node.socket, POLLOUT, 0};

			if (ms_until(deadline) <= 0)
			{
				node_end("it does not read");
				return false;
			}
			poll(&waiting, 1, (int) Min(ms_until(deadline), SLICE_MS));
			if (InterruptHoldoffCount == 0)
				CHECK_FOR_INTERRUPTS();
		}
		else if (errno != EINTR)
		{
			node_has_closed();
			return false;
		}
	}
	return true;
}

/* Is it a setting that a module may want to know? */
static bool
is_custom(const struct config_generic *setting)
{
	return strchr(setting->name, '.') != NULL;
}

/* The path from the data directory, where it is in there: what is above may have bytes that are no UTF-8. */
static const char *
below_data_directory(const char *path)
{
	size_t		length = strlen(DataDir);

	return strncmp(path, DataDir, length) == 0 && path[length] == '/' ? path + length + 1 : path;
}

/*
 * Adds the settings of all prefixes to the frame.  What the server has only as
 * text, because nobody has declared it yet, is among them.
 */
static bool
put_settings(void)
{
	int			count;
	struct config_generic **settings = compat_guc_variables(&count);
	const char *config_file;
	int			custom = 0;
	bool		fits;

	for (int i = 0; i < count; i++)
		custom += is_custom(settings[i]);
	fits = frame_put_int32(&outgoing, custom);
	for (int i = 0; fits && i < count; i++)
	{
		const char *value;

		if (!is_custom(settings[i]))
			continue;

		/*
		 * Not GetConfigOptionByName(): for a setting that not everybody may
		 * see it asks for the privileges of the user, which takes a
		 * database, and the archiver has none.
		 */
		value = GetConfigOption(settings[i]->name, true, false);
		fits = frame_put_string(&outgoing, settings[i]->name) &&
			frame_put_string(&outgoing, value ? value : "");
	}
	config_file = GetConfigOption("config_file", true, false);
	return fits && custom <= SETTINGS_MAX &&
		frame_put_string(&outgoing, config_file ? below_data_directory(config_file) : "") &&
		frame_put_int32(&outgoing, setting_archive_ahead) &&
		frame_put_int32(&outgoing, setting_memory_limit);
}

static bool
put_hello(void)
{
	char		identifier[32];
	const char *library_path = GetConfigOption("dynamic_library_path", true, false);

	snprintf(identifier, sizeof(identifier), UINT64_FORMAT, GetSystemIdentifier());
	node.settings_sent = PgReloadTime;
	return frame_begin(&outgoing, FRAME_HELLO) &&
		frame_put_int32(&outgoing, FRAME_PROTOCOL_VERSION) &&
		frame_put_int32(&outgoing, PG_VERSION_NUM) &&
		frame_put_int32(&outgoing, wal_segment_size) &&
		frame_put_int32(&outgoing, XLOG_PAGE_MAGIC) &&
		frame_put_string(&outgoing, identifier) &&
		frame_put_string(&outgoing, DataDir) &&
		frame_put_string(&outgoing, library_path ? library_path : "") &&
		frame_put_string(&outgoing, setting_module) &&
		put_settings();
}

/* Says which setting is to blame that no module can be started. */
static void
report_long_settings(void)
{
	int			count;
	struct config_generic **settings = compat_guc_variables(&count);
	const char *longest = "pgarchivist.module";
	size_t		bytes = strlen(setting_module);

	for (int i = 0; i < count; i++)
	{
		const char *value = is_custom(settings[i]) ? GetConfigOption(settings[i]->name, true, false) : NULL;

		if (value != NULL && strlen(value) > bytes)
		{
			longest = settings[i]->name;
			bytes = strlen(value);
		}
	}
	ereport(WARNING,
			(errmsg("the settings are too long for the archive module, which is not started"),
			 errdetail("Of %d bytes for all settings with a prefix, \"%s\" takes %zu.",
					   FRAME_BYTES_MAX, longest, bytes),
			 errhint("Shorten or remove settings, whoever they are for.")));
}

/* A reload may have changed what the module reads. */
static bool
send_settings_if_changed(void)
{
	if (node.settings_sent == PgReloadTime)
		return true;
	if (!frame_begin(&outgoing, FRAME_SETTINGS) || !put_settings())
	{
		node_end("the settings are too long for it");
		return false;
	}
	node.settings_sent = PgReloadTime;
	return node_send(deadline_in(PING_TIMEOUT_MS));
}

/*
 * In the keeper, which is forked from this process: it must not keep a server
 * from starting, which looks who is attached to the memory of the one before.
 */
static void
leave_server(void)
{
	PGSharedMemoryDetach();
	init_ps_display("pgarchivist keeper");
}

static void
node_start(void)
{
	NodeCommand command = {PGARCHIVIST_LAUNCHER, setting_node, leave_server};
	NodeStartError error;

	if (!put_hello())
	{
		node_start_later();
		report_long_settings();
		return;
	}
	node.start_deadline = deadline_in(setting_start_timeout);
	node.module = strdup(setting_module);
	if (node.module == NULL ||
		!node_process_start(&command, &node.pid, &node.socket, &error))
	{
		free(node.module);
		node.module = NULL;
		node.pid = 0;
		node_start_later();
		errno = error.number;
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not %s \"%s\": %m", error.call, PGARCHIVIST_LAUNCHER),
				 strcmp(error.call, "execute") == 0 ?
				 errhint("Has pgarchivist been moved? Run \"pgarchivist install\" from where it is now.") : 0));
		return;
	}
	incoming.used = 0;
	node.requests_before = last_request;
	node.declarations = node.reservations = 0;
	node.broke_protocol = false;
	(void) node_send(node.start_deadline);
}

/*
 * Settings of the user's module
 */

/* Copies a string to where it stays for the life of this process, as the server wants it. */
static char *
keep(const char *text)
{
	return MemoryContextStrdup(TopMemoryContext, text);
}

/* The flags of all names, or -1 when one is not known. */
static int
flags_of(const char *names)
{
	static const struct
	{
		const char *name;
		int			flag;
	}			flags[] = {
		{"GUC_LIST_INPUT", GUC_LIST_INPUT}, {"GUC_NO_SHOW_ALL", GUC_NO_SHOW_ALL},
		{"GUC_NO_RESET_ALL", GUC_NO_RESET_ALL}, {"GUC_NOT_IN_SAMPLE", GUC_NOT_IN_SAMPLE},
		{"GUC_DISALLOW_IN_FILE", GUC_DISALLOW_IN_FILE},
		{"GUC_SUPERUSER_ONLY", GUC_SUPERUSER_ONLY},
		{"GUC_UNIT_BYTE", GUC_UNIT_BYTE}, {"GUC_UNIT_KB", GUC_UNIT_KB},
		{"GUC_UNIT_MB", GUC_UNIT_MB}, {"GUC_UNIT_BLOCKS", GUC_UNIT_BLOCKS},
		{"GUC_UNIT_XBLOCKS", GUC_UNIT_XBLOCKS}, {"GUC_UNIT_MS", GUC_UNIT_MS},
		{"GUC_UNIT_S", GUC_UNIT_S}, {"GUC_UNIT_MIN", GUC_UNIT_MIN}
	};
	int			result = 0;

	for (const char *name = names; *name;)
	{
		size_t		length = strcspn(name, " ");
		int			i = 0;

		while (i < (int) lengthof(flags) &&
			   (strlen(flags[i].name) != length || strncmp(flags[i].name, name, length) != 0))
			i++;
		if (i == (int) lengthof(flags))
			return -1;
		/* Two units make a third one, or one that the server raises an ERROR for when it has to name it. */
		if ((flags[i].flag & GUC_UNIT) != 0 && (result & GUC_UNIT) != 0)
			return -1;
		result |= flags[i].flag;
		name += length;
		name += strspn(name, " ");
	}
	return result;
}

/* The context of that name, or -1.  A setting that needs a restart cannot be made in a running server. */
static int
context_of(const char *name)
{
	if (strcmp(name, "PGC_SIGHUP") == 0)
		return PGC_SIGHUP;
	if (strcmp(name, "PGC_SUSET") == 0)
		return PGC_SUSET;
	if (strcmp(name, "PGC_USERSET") == 0)
		return PGC_USERSET;
	if (strcmp(name, "PGC_SU_BACKEND") == 0)
		return PGC_SU_BACKEND;
	if (strcmp(name, "PGC_BACKEND") == 0)
		return PGC_BACKEND;
	if (strcmp(name, "PGC_INTERNAL") == 0)
		return PGC_INTERNAL;
	return -1;
}

/* One part of the name of a setting, by the server's rule for those that it takes from a file. */
static bool
is_identifier(const char *text, size_t length)
{
	if (length == 0 || length >= NAMEDATALEN || isdigit((unsigned char) text[0]) || text[0] == '$')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char) text[i]) && text[i] != '_' && text[i] != '$' &&
			!IS_HIGHBIT_SET(text[i]))
			return false;
	return true;
}

/* A prefix and a name. */
static bool
is_setting_name(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot != NULL && is_identifier(name, dot - name) && is_identifier(dot + 1, strlen(dot + 1)) &&
		pg_strncasecmp(name, "pgarchivist.", strlen("pgarchivist.")) != 0;
}

/* A number, whole or not, without anything behind it. */
static bool
read_number(const char *text, double *number)
{
	char	   *end;

	*number = strtod(text, &end);
	return end != text && *end == '\0' && !isnan(*number) && !isinf(*number);
}

/* The server only asserts what is checked here. */
static bool
is_in_range(const char *kind, const char *boot, const char *min, const char *max)
{
	double		number;
	double		lowest;
	double		highest;

	if (!read_number(boot, &number) || !read_number(min, &lowest) || !read_number(max, &highest) ||
		number < lowest || number > highest)
		return false;
	return strcmp(kind, "real") == 0 ||
		(lowest >= PG_INT32_MIN && highest <= PG_INT32_MAX && rint(number) == number &&
		 rint(lowest) == lowest && rint(highest) == highest);
}

/* Makes a real setting of what the frame describes.  May raise an ERROR. */
static void
define_setting(DeclaredSetting *setting, FrameReader *reader)
{
	const char *kind = frame_read_string(reader);
	char	   *name = keep(frame_read_string(reader));
	char	   *short_desc = keep(frame_read_string(reader));
	char	   *long_desc = keep(frame_read_string(reader));
	GucContext	context = (GucContext) context_of(frame_read_string(reader));
	int			flags = flags_of(frame_read_string(reader));
	const char *boot = keep(frame_read_string(reader));
	double		min = atof(frame_read_string(reader));
	double		max = atof(frame_read_string(reader));
	int			options = frame_read_int32(reader);

	if (strcmp(kind, "bool") == 0)
		DefineCustomBoolVariable(name, short_desc, long_desc, &setting->value.as_bool,
								 strcmp(boot, "true") == 0, context, flags, NULL, NULL, NULL);
	else if (strcmp(kind, "int") == 0)
		DefineCustomIntVariable(name, short_desc, long_desc, &setting->value.as_int,
								atoi(boot), (int) min, (int) max, context, flags,
								NULL, NULL, NULL);
	else if (strcmp(kind, "real") == 0)
		DefineCustomRealVariable(name, short_desc, long_desc, &setting->value.as_real,
								 atof(boot), min, max, context, flags, NULL, NULL, NULL);
	else if (strcmp(kind, "enum") == 0)
	{
		struct config_enum_entry *entries =
			MemoryContextAllocZero(TopMemoryContext, sizeof(*entries) * (options + 1));
		int			boot_index = 0;

		for (int i = 0; i < options; i++)
		{
			entries[i].name = keep(frame_read_string(reader));
			entries[i].val = i;
			if (strcmp(entries[i].name, boot) == 0)
				boot_index = i;
		}
		DefineCustomEnumVariable(name, short_desc, long_desc, &setting->value.as_int,
								 boot_index, entries, context, flags, NULL, NULL, NULL);
	}
	else
		DefineCustomStringVariable(name, short_desc, long_desc, &setting->value.as_string,
								   boot, context, flags, NULL, NULL, NULL);
}

/* Reads a declaration to its end without acting on it.  Is it one that the server can take? */
static bool
declaration_is_valid(FrameReader reader, const char **name)
{
	const char *kind = frame_read_string(&reader);
	const char *context;
	const char *flags;
	const char *boot;
	const char *min;
	const char *max;
	int			options;
	bool		is_number = strcmp(kind, "int") == 0 || strcmp(kind, "real") == 0;
	bool		is_enum = strcmp(kind, "enum") == 0;
	bool		is_boot_value_an_option = false;

	if (reader.end - reader.at > DECLARATION_BYTES_MAX)
		return false;
	*name = frame_read_string(&reader);
	(void) frame_read_string(&reader);	/* short description */
	(void) frame_read_string(&reader);	/* long description */
	context = frame_read_string(&reader);
	flags = frame_read_string(&reader);
	boot = frame_read_string(&reader);
	min = frame_read_string(&reader);
	max = frame_read_string(&reader);
	options = frame_read_int32(&reader);
	if (options < 0 || options > 1000 || (options > 0) != is_enum)
		return false;
	for (int i = 0; i < options; i++)
		is_boot_value_an_option |= (strcmp(frame_read_string(&reader), boot) == 0);
	if (!frame_is_whole(&reader) || !is_setting_name(*name) ||
		context_of(context) < 0 || flags_of(flags) < 0)
		return false;
	if (is_number)
		return is_in_range(kind, boot, min, max);
	if (min[0] != '\0' || max[0] != '\0')
		return false;
	if (is_enum)
		return is_boot_value_an_option;
	if (strcmp(kind, "bool") == 0)
		return strcmp(boot, "true") == 0 || strcmp(boot, "false") == 0;
	return strcmp(kind, "string") == 0;
}

static const char *
declared_name(const DeclaredSetting *setting)
{
	return setting->declaration + strlen(setting->declaration) + 1;
}

/* The setting of that name, if a library has defined it in this server already. */
static struct config_generic *
find_defined(const char *name)
{
	int			count;
	struct config_generic **settings = compat_guc_variables(&count);

	for (int i = 0; i < count; i++)
		if (pg_strcasecmp(settings[i]->name, name) == 0 &&
			(settings[i]->flags & GUC_CUSTOM_PLACEHOLDER) == 0)
			return settings[i];
	return NULL;
}

/* Does the declaration, from its beginning, speak of a setting of that type and unit? */
static bool
is_same_kind(const struct config_generic *setting, FrameReader declaration)
{
	static const char *const kinds[] = {
		[PGC_BOOL] = "bool",[PGC_INT] = "int",[PGC_REAL] = "real",
		[PGC_STRING] = "string",[PGC_ENUM] = "enum"
	};
	const char *kind = frame_read_string(&declaration);

	for (int i = 0; i < 4; i++)
		(void) frame_read_string(&declaration); /* name, descriptions, context */
	return strcmp(kinds[setting->vartype], kind) == 0 &&
		(setting->flags & GUC_UNIT) == (flags_of(frame_read_string(&declaration)) & GUC_UNIT);
}

static void
restart_archiver_because_full(void)
{
	if (!restart_archiver)
		ereport(LOG,
				(errmsg("restarting archiver process because it cannot take more declarations")));
	restart_archiver = true;
}

/*
 * The module declares a setting.  A module that was started again declares the
 * same ones; one that has changed may not, and since a setting cannot be
 * taken back, a new archiver process has to start from nothing.
 */
static bool
declare_setting(FrameReader *reader)
{
	MemoryContext context = CurrentMemoryContext;
	size_t		bytes = reader->end - reader->at;
	DeclaredSetting *setting;
	struct config_generic *defined;
	const char *name;

	if (++node.declarations > DECLARED_SETTINGS_MAX || !declaration_is_valid(*reader, &name))
		return false;
	for (int i = 0; i < declared_settings_count; i++)
	{
		setting = declared_settings[i];
		if (pg_strcasecmp(declared_name(setting), name) != 0)
			continue;
		if (!restart_archiver &&
			(setting->bytes != bytes || memcmp(setting->declaration, reader->at, bytes) != 0))
		{
			ereport(LOG,
					(errmsg("restarting archiver process because declaration of \"%s\" was changed",
							name)));
			restart_archiver = true;
		}
		return true;
	}
	if (declared_settings_count == DECLARED_SETTINGS_MAX)
	{
		/* Not all of this module, but with those that the modules before it have declared. */
		restart_archiver_because_full();
		return true;
	}

	setting = MemoryContextAllocZero(TopMemoryContext, sizeof(*setting));
	setting->declaration = MemoryContextAlloc(TopMemoryContext, bytes);
	setting->bytes = bytes;
	memcpy(setting->declaration, reader->at, bytes);
	declared_settings[declared_settings_count++] = setting;

	/* A library that all processes load may have made it; the value is the server's, whoever did. */
	defined = find_defined(name);
	if (defined != NULL)
	{
		if (!is_same_kind(defined, *reader))
			ereport(WARNING,
					(errmsg("setting \"%s\" is not what the archive module declares", name),
					 errdetail("Another library has defined it, with another type or unit.")));
		return true;
	}

	PG_TRY();
	{
		/* Not by the variable, which a longjmp may undo. */
		define_setting(declared_settings[declared_settings_count - 1], reader);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return true;
}

/* The server never forgets a reserved prefix, so there is a limit, and none is told to it twice. */
static bool
reserve_prefix(const char *prefix)
{
	MemoryContext context = CurrentMemoryContext;

	if (++node.reservations > RESERVED_PREFIXES_MAX || !is_identifier(prefix, strlen(prefix)))
		return false;
	for (int i = 0; i < reserved_prefixes_count; i++)
		if (strcmp(reserved_prefixes[i], prefix) == 0)
			return true;
	if (reserved_prefixes_count == RESERVED_PREFIXES_MAX)
	{
		restart_archiver_because_full();
		return true;
	}
	reserved_prefixes[reserved_prefixes_count++] = keep(prefix);

	PG_TRY();
	{
		MarkGUCPrefixReserved(prefix);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return true;
}

/*
 * Frames from the other end
 */

static bool
handle_log(FrameReader *reader)
{
	int			level = level_of(frame_read_string(reader));
	const char *sqlstate = frame_read_string(reader);
	const char *message = frame_read_string(reader);
	const char *detail = frame_read_string(reader);
	const char *hint = frame_read_string(reader);

	if (level < 0 || !frame_is_whole(reader))
		return false;
	report(level, sqlstate, message, detail, hint);
	return true;
}

/* Was this process asked it?  Numbers start over at 1 after the highest. */
static bool
was_asked(int32 request)
{
	if (request <= 0)
		return false;
	if (node.requests_before <= last_request)
		return request > node.requests_before && request <= last_request;
	return request > node.requests_before || request <= last_request;
}

static bool
handle_answer(char type, FrameReader *reader)
{
	int32		request = frame_read_int32(reader);
	bool		value = frame_read_bool(reader);
	const char *text = frame_read_string(reader);

	if (!frame_is_whole(reader) || !was_asked(request))
		return false;
	/* What was asked before and not waited for any longer is answered in vain. */
	if (request != answer.request || answer.expected == FRAME_PONG || answer.expected == 0)
		return request != answer.request || !answer.is_answered;
	if (answer.is_answered || type != answer.expected)
		return false;
	if (type == FRAME_ARCHIVED && strcmp(text, answer.file) != 0)
		return false;
	snprintf(answer.detail, sizeof(answer.detail), "%s", text);
	answer.value = value;
	answer.is_answered = true;
	/* One that only says that it is ready has not shown yet that it can be started at once. */
	restart_delay_ms = 0;
	return true;
}

/* Acts on one frame.  False: the other end does not keep to the protocol. */
static bool
handle_frame(char type, FrameReader *reader)
{
	const char *prefix;

	switch (type)
	{
		case FRAME_READY:
			if (frame_read_int32(reader) != FRAME_PROTOCOL_VERSION ||
				!frame_is_whole(reader) || node.is_ready)
				return false;
			node.is_ready = true;
			return true;
		case FRAME_DECLARE:
			/* While the archiver ends, nothing is made of what a module declares that has just been started. */
			return proc_exit_inprogress || declare_setting(reader);
		case FRAME_RESERVE:
			prefix = frame_read_string(reader);
			return frame_is_whole(reader) && (proc_exit_inprogress || reserve_prefix(prefix));
		case FRAME_LOG:
			return handle_log(reader);
		case FRAME_CHECKED:
		case FRAME_ARCHIVED:
			return handle_answer(type, reader);
		case FRAME_PONG:
			if (!frame_is_whole(reader))
				return false;
			if (answer.expected == FRAME_PONG)
				answer.expected = 0;
			return true;
		default:
			return false;
	}
}

/* Acts on all whole frames that have come, and keeps the beginning of the next. */
static void
handle_received(void)
{
	FrameBuffer rest = incoming;
	char		type;
	FrameReader payload;
	size_t		bytes;

	for (;;)
	{
		FrameState	state = frame_next(&rest, &type, &payload, &bytes);

		if (state == FRAME_INCOMPLETE)
			break;
		if (state == FRAME_INVALID || !handle_frame(type, &payload))
		{
			node.broke_protocol = true;
			node_end("it does not keep to the protocol");
			return;
		}
		if (node.pid == 0)
			return;
		rest.data += bytes;
		rest.used -= bytes;
	}
	memmove(incoming.data, rest.data, rest.used);
	incoming.used = rest.used;
}

/* Waits for something to come, one slice at most, and acts on it. */
static void
receive(TimestampTz deadline)
{
	struct pollfd waiting = {node.socket, POLLIN, 0};
	long		ms = Max(0, Min(ms_until(deadline), SLICE_MS));
	ssize_t		count;

	/* A signal ends the wait early, so that an interrupt is served at once. */
	if (poll(&waiting, 1, (int) ms) <= 0)
		return;
	count = recv(node.socket, incoming.data + incoming.used,
				 incoming.size - incoming.used, 0);
	if (count > 0)
	{
		incoming.used += count;
		handle_received();
	}
	else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
		node_has_closed();
}

/*
 * Waiting
 */

/* Does postmaster.pid say that the server is being stopped? */
static bool
server_is_stopping(void)
{
	char		text[1024];
	char	   *line = text;
	ssize_t		count;
	int			fd = open("postmaster.pid", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	count = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (count <= 0)
		return false;
	text[count] = '\0';
	for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS; i++)
	{
		line = strchr(line, '\n');
		if (line == NULL)
			return false;
		line++;
	}
	return strncmp(line, PM_STATUS_STOPPING, strlen("stopping")) == 0;
}

/*
 * Is there still a reason to wait?  From the moment the server is seen to be
 * stopping, all calls together have stop_timeout, renewed by each file.
 */
static bool
may_wait(TimestampTz deadline)
{
	CHECK_FOR_INTERRUPTS();
	if (ShutdownRequestPending || !PostmasterIsAlive())
		return false;
	if (stop_deadline == 0 && server_is_stopping())
		stop_deadline = deadline_in(setting_stop_timeout);
	if (stop_deadline != 0 && ms_until(stop_deadline) <= 0)
		return false;
	return ms_until(deadline) > 0;
}

/* What is waited for is not waited for beyond the time that a stopping server has. */
static TimestampTz
until_stop(TimestampTz deadline)
{
	return stop_deadline == 0 ? deadline : Min(deadline, stop_deadline);
}

/*
 * Brings the process to where it can be asked.  One that has ended is started
 * again and waited for.  One that cannot be started has said why; the attempt
 * fails, and it is not tried again before a while has passed.
 */
static bool
node_make_ready(TimestampTz deadline)
{
	/* Asked before anything is started or sent: a server that has no time left for it is not to be kept for that. */
	while (may_wait(deadline))
	{
		if (node.is_ready)
			return send_settings_if_changed();
		if (node.pid == 0)
		{
			if (ms_until(next_start) > 0)
				return false;
			node_start();
		}
		else if (ms_until(node.start_deadline) <= 0)
			node_end("it has not started within \"pgarchivist.start_timeout\"");
		else
			receive(until_stop(Min(deadline, node.start_deadline)));
	}
	return false;
}

/* A process that is silent may be busy with a file, or stopped for good. */
static void
node_end_if_silent(void)
{
	TimestampTz deadline = deadline_in(PING_TIMEOUT_MS);

	answer.expected = FRAME_PONG;
	if (!frame_begin(&outgoing, FRAME_PING) || !node_send(deadline))
		return;
	while (node.pid != 0 && answer.expected == FRAME_PONG && ms_until(deadline) > 0)
	{
		receive(deadline);
		CHECK_FOR_INTERRUPTS();
	}
	if (node.pid != 0 && answer.expected == FRAME_PONG)
		node_end("it does not answer");
}

/* Sends the request in the buffer and waits for its answer. */
static bool
ask(TimestampTz deadline, const char *file)
{
	answer.expected = file ? FRAME_ARCHIVED : FRAME_CHECKED;
	answer.request = last_request;
	answer.is_answered = false;
	answer.file = file;
	answer.detail[0] = '\0';
	if (!node_send(deadline))
	{
		answer.expected = 0;
		answer.file = NULL;
		return false;
	}
	while (node.pid != 0 && !answer.is_answered && may_wait(deadline))
		receive(until_stop(deadline));
	/* The name is the caller's. */
	answer.expected = 0;
	answer.file = NULL;
	return node.pid != 0 && answer.is_answered;
}

static void
next_request(void)
{
	last_request = last_request == PG_INT32_MAX ? 1 : last_request + 1;
}

/*
 * The callbacks
 */

static void
begin_callback(MemoryContext *before)
{
	if (callback_context == NULL)
	{
		callback_context = AllocSetContextCreate(TopMemoryContext, "pgarchivist",
												 ALLOCSET_DEFAULT_SIZES);
		incoming.size = outgoing.size = FRAME_BYTES_MAX;
		incoming.data = MemoryContextAlloc(TopMemoryContext, incoming.size);
		outgoing.data = MemoryContextAlloc(TopMemoryContext, outgoing.size);
	}
	*before = MemoryContextSwitchTo(callback_context);
}

static void
end_callback(MemoryContext before)
{
	MemoryContextSwitchTo(before);
	MemoryContextReset(callback_context);
}

#if PG_VERSION_NUM >= 160000
static void
archive_startup(ARCHIVE_CALLBACK_STATE)
{
	MemoryContext before;

	begin_callback(&before);
	/* Early, so that settings are declared and workers run before the first file. */
	(void) node_make_ready(deadline_in(setting_start_timeout));
	end_callback(before);
}
#endif

/* False only when the module itself said so; what else is wrong fails the attempt, which is counted. */
static bool
archive_configured(ARCHIVE_CALLBACK_STATE)
{
	MemoryContext before;
	TimestampTz deadline = deadline_in(setting_start_timeout);
	bool		is_configured = true;

	begin_callback(&before);
	if (node.module != NULL && strcmp(node.module, setting_module) != 0)
	{
		ereport(LOG,
				(errmsg("restarting archiver process because value of \"%s\" was changed",
						"pgarchivist.module")));
		restart_archiver = true;
	}
	if (restart_archiver)
		proc_exit(0);

	/* One that has ended since the last file is replaced; one that ends because of the question is not asked again. */
	is_checked = false;
	for (int tries = 0; tries < 2 && !is_checked && node_make_ready(deadline); tries++)
	{
		next_request();
		if (frame_begin(&outgoing, FRAME_CHECK) &&
			frame_put_int32(&outgoing, last_request) &&
			ask(deadline, NULL))
		{
			is_configured = answer.value;
			is_checked = true;
		}
		else if (node.pid != 0)
		{
			/* Its thread that serves the channel answers always, unless it is stopped. */
			if (ms_until(deadline) <= 0)
				node_end_if_silent();
			if (node.pid != 0 && ms_until(deadline) <= 0)
				node_end("it has not answered \"check_configured_cb\" within \"pgarchivist.start_timeout\"");
			break;
		}
	}
	if (!is_configured && answer.detail[0] != '\0')
		arch_module_check_errdetail("%s", answer.detail);
	end_callback(before);
	return is_configured;
}

static bool
archive_file(ARCHIVE_CALLBACK_STATE_AND const char *file, const char *path)
{
	MemoryContext before;
	TimestampTz deadline = deadline_in(setting_file_timeout);
	char	   *absolute_path;
	bool		is_archived = false;

	begin_callback(&before);
	absolute_path = psprintf("%s/%s", DataDir, path);
	/* A module that could not say whether it is configured is given nothing. */
	if (is_checked && node_make_ready(deadline))
	{
		next_request();
		if (!frame_begin(&outgoing, FRAME_ARCHIVE) ||
			!frame_put_int32(&outgoing, last_request) ||
			!frame_put_int32(&outgoing, setting_file_timeout) ||
			!frame_put_string(&outgoing, file) ||
			!frame_put_string(&outgoing, absolute_path))
			node_end("the path is too long for it");
		else if (ask(deadline, file))
			is_archived = answer.value;
		else if (node.pid != 0 && ms_until(deadline) <= 0)
		{
			ereport(WARNING,
					(errmsg("archiving write-ahead log file \"%s\" took longer than %d ms",
							file, setting_file_timeout),
					 errhint("See \"%s\".", "pgarchivist.file_timeout")));
			node_end_if_silent();
		}
	}
	if (is_archived && stop_deadline != 0)
		stop_deadline = deadline_in(setting_stop_timeout);
	else if (!is_archived && stop_deadline != 0 && ms_until(stop_deadline) <= 0 && !is_stop_told)
	{
		is_stop_told = true;
		ereport(WARNING,
				(errmsg("write-ahead log file \"%s\" and later ones are not archived before the server has stopped",
						file),
				 errhint("They are archived after its next start. See \"%s\".",
						 "pgarchivist.stop_timeout")));
	}
	end_callback(before);
	return is_archived;
}

/* Interrupts are held here, so nobody is kept waiting for long. */
static void
archive_shutdown(ARCHIVE_CALLBACK_STATE)
{
	TimestampTz deadline = deadline_in(SHUTDOWN_TIMEOUT_MS);

	if (node.pid == 0)
		return;
	answer.expected = 0;
	if (frame_begin(&outgoing, FRAME_QUIT) &&
		frame_put_int32(&outgoing, SHUTDOWN_TIMEOUT_MS) &&
		node_send(deadline))
	{
		/* Its last words.  It closes the channel when it has said them, and so does its end. */
		while (node.pid != 0 && ms_until(deadline) > 0)
			receive(deadline);
	}
	if (node.pid != 0)
		node_process_kill(node.pid);
	node.pid = 0;
}
