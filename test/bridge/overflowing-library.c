/*
 * overflowing-library.c
 *		The library, doing what it must not when it is loaded.
 */
#define _PG_init rightful_init
#include "pgarchivist.c"
#undef _PG_init

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
#ifdef WRITE_TOO_FAR
	char	   *text = strdup("12345678");
	volatile size_t at = 9;

	text[at] = 'x';
#else
	char		text[8];
	volatile size_t at = 8;

	text[at] = 'x';
#endif
	rightful_init();
	/* So that the compiler does not leave it out. */
	elog(DEBUG5, "%p", text);
}
