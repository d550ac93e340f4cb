/*
 * server-library-16.c
 *		The library for PostgreSQL 16, from the headers of 17.  For tests only.
 *
 * Debian has no headers of 16, so the tests take those of the next version and
 * say in the places that count that it is 16.  A structure that differs between
 * the two would break this without a word from the compiler, which is why
 * nothing but the tests may do so: what is installed for a 16 is built with the
 * headers of 16.
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "archive/archive_module.h"

/* The magic block is made of it, and pg_compat.h goes by it. */
#undef PG_VERSION_NUM
#define PG_VERSION_NUM 160014

/* The first page of a segment of 16. */
#undef XLOG_PAGE_MAGIC
#define XLOG_PAGE_MAGIC 0xD113

/* 16 has no such function; pg_compat.h makes up for it. */
#undef arch_module_check_errdetail

#include "pgarchivist.c"
