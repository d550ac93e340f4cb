/*
 * The archive module whose cost is nothing, for the server's own archiver.
 *
 * What it needs of the server's headers is declared here, because the servers that the benchmarks run bring none.
 * A server compares the block below with its own and refuses a module in which anything differs.
 *
 * Build: gcc -O2 -fPIC -shared -DPG_MAJOR=18 -o do-nothing.so do-nothing.c
 */
#include <stdbool.h>
#include <stddef.h>

typedef struct ModuleMagic
{
	int			len;
	int			version;
	int			funcmaxargs;
	int			indexmaxkeys;
	int			namedatalen;
	int			float8byval;
	char		abi_extra[32];
#if PG_MAJOR >= 18
	const char *name;
	const char *module_version;
#endif
} ModuleMagic;

const ModuleMagic *
Pg_magic_func(void)
{
	static const ModuleMagic magic = {
		.len = sizeof(ModuleMagic),
		.version = PG_MAJOR * 100,
		.funcmaxargs = 100,
		.indexmaxkeys = 32,
		.namedatalen = 64,
		.float8byval = sizeof(void *) == 8,
		.abi_extra = "PostgreSQL",
	};

	return &magic;
}

#if PG_MAJOR >= 16

typedef struct ArchiveModuleCallbacks
{
	void		(*startup_cb) (void *state);
	bool		(*check_configured_cb) (void *state);
	bool		(*archive_file_cb) (void *state, const char *file, const char *path);
	void		(*shutdown_cb) (void *state);
} ArchiveModuleCallbacks;

static bool
do_nothing(void *state, const char *file, const char *path)
{
	return true;
}

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	static const ArchiveModuleCallbacks callbacks = {.archive_file_cb = do_nothing};

	return &callbacks;
}

#else

typedef struct ArchiveModuleCallbacks
{
	bool		(*check_configured_cb) (void);
	bool		(*archive_file_cb) (const char *file, const char *path);
	void		(*shutdown_cb) (void);
} ArchiveModuleCallbacks;

static bool
do_nothing(const char *file, const char *path)
{
	return true;
}

void
_PG_archive_module_init(ArchiveModuleCallbacks *callbacks)
{
	callbacks->archive_file_cb = do_nothing;
}

#endif
