/*
 * fuzz-library.c
 *		The library of the server, with everything that the other end can say.
 *
 * The first byte of an input says how its rest arrives; the rest is what the
 * Node end sends while the archiver calls each callback, some of them twice.
 *
 * It is built with fuzz-driver.c and gcc, or, for days of it, with libFuzzer:
 *		clang -fsanitize=fuzzer,address,undefined -I src/bridge/pg -I HEADERS \
 *			test/fuzz/fuzz-library.c test/fuzz/server-stub.c src/bridge/pg/frame.c
 */
#include "postgres.h"

#include <sys/socket.h>

#include "server-stub.h"

#define send stub_send
#define recv stub_recv
#define poll stub_poll
#define PGARCHIVIST_LAUNCHER "/nowhere/bin/pgarchivist"

#include "pgarchivist.c"

extern int	LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Forgets all that the library remembers, as a new archiver process would have nothing of it. */
static void
forget(void)
{
	free(node.module);
	memset(&node, 0, sizeof(node));
	node.socket = -1;
	memset(&answer, 0, sizeof(answer));
	memset(&incoming, 0, sizeof(incoming));
	memset(&outgoing, 0, sizeof(outgoing));
	memset(declared_settings, 0, sizeof(declared_settings));
	declared_settings_count = 0;
#ifdef RESERVED_PREFIXES_MAX
	memset(reserved_prefixes, 0, sizeof(reserved_prefixes));
	reserved_prefixes_count = 0;
#endif
	callback_context = NULL;
	last_request = 0;
	restart_delay_ms = 0;
	next_start = 0;
	stop_deadline = 0;
	restart_archiver = false;
	stub_free_all();
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const char segment[] = "000000010000000000000001";
	/* 0 for a frame at a time. */
	static const size_t chunks[] = {0, 1, 7, 18, 64, 1000, 65536, 262144};
	ArchiveModuleState state = {0};

	if (size == 0)
		return 0;
	setting_module = "repository";
	setting_node = "";
	setting_archive_ahead = 4;
	setting_file_timeout = 5000;
	setting_start_timeout = 3000;
	setting_stop_timeout = 1000;
	setting_memory_limit = 512;
	stub_reset(bytes + 1, size - 1, chunks[bytes[0] & 7], (bytes[0] & 8) != 0);
	if (sigsetjmp(stub_exit, 0) == 0)
	{
		archive_startup(&state);
		(void) archive_configured(&state);
		(void) archive_file(&state, segment, "pg_wal/000000010000000000000001");
		stub_reload();
		(void) archive_configured(&state);
		(void) archive_file(&state, "00000002.history", "pg_wal/00000002.history");
		proc_exit_inprogress = true;
		HOLD_INTERRUPTS();
		archive_shutdown(&state);
	}
	forget();
	return 0;
}
