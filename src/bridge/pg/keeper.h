/*
 * keeper.h
 *		The process between the archiver and Node.
 */
#ifndef PGARCHIVIST_KEEPER_H
#define PGARCHIVIST_KEEPER_H

#include <stdint.h>
#include <sys/types.h>

#include "node_process.h"

typedef enum KeeperReportKind
{
	KEEPER_STARTED = 1,			/* the process number of Node follows */
	KEEPER_FAILED,				/* errno follows: there is no Node */
	KEEPER_ENDED				/* the wait status of Node follows */
} KeeperReportKind;

/* What the keeper says on the lifeline. */
typedef struct KeeperReport
{
	int32_t		kind;
	int32_t		value;
} KeeperReport;

#pragma GCC visibility push(hidden)

extern void keeper_run(const NodeCommand *command, int channel, int lifeline, pid_t archiver)
			__attribute__((noreturn));
extern void keeper_kill_children(void);

#pragma GCC visibility pop

#endif							/* PGARCHIVIST_KEEPER_H */
