/*
 * pg_compat.h
 *		Everything that differs between the major versions that pgarchivist
 *		is built for, 15 to 19.
 */
#ifndef PGARCHIVIST_PG_COMPAT_H
#define PGARCHIVIST_PG_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "pgarchivist needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 160000
#include "archive/archive_module.h"
#else
#include "postmaster/pgarch.h"
#endif
#include "utils/guc.h"
#include "utils/guc_tables.h"

/* 15 has no state argument and no startup callback, and fills a struct of the server's. */
#if PG_VERSION_NUM >= 160000
#define ARCHIVE_CALLBACK_STATE ArchiveModuleState *state
#define ARCHIVE_CALLBACK_STATE_AND ArchiveModuleState *state,
#else
#define ARCHIVE_CALLBACK_STATE void
#define ARCHIVE_CALLBACK_STATE_AND
extern PGDLLEXPORT void _PG_archive_module_init(ArchiveModuleCallbacks *cb);
#endif

/* The DETAIL of "archiving is not configured" came with 17. */
#if PG_VERSION_NUM < 170000
#define arch_module_check_errdetail(...) ((void) 0)
#endif

/*
 * What one major has and another has not.  A server that loads the library of
 * another major says so when it finds the version, unless the linker has
 * missed something before that; it misses nothing that is weak.
 */
#if PG_VERSION_NUM < 160000
#pragma weak GetNumConfigOptions
#elif PG_VERSION_NUM >= 170000
#pragma weak arch_module_check_errdetail_string
#endif

/* All settings that exist in this process; the array is palloc'd since 16. */
static inline struct config_generic **
compat_guc_variables(int *count)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(count);
#else
	*count = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

#endif							/* PGARCHIVIST_PG_COMPAT_H */
