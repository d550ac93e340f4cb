/*
 * node_process.h
 *		The Node process beside the archiver, and the socket to it.
 */
#ifndef PGARCHIVIST_NODE_PROCESS_H
#define PGARCHIVIST_NODE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* What is needed to start it.  The caller keeps the strings. */
typedef struct NodeCommand
{
	const char *launcher;		/* absolute path of bin/pgarchivist */
	const char *node;			/* absolute path of a Node to use, or "" */
	void		(*leave_server) (void); /* lets go of the server's shared memory, in a process forked from it */
} NodeCommand;

/* Why there is no process: the call that failed, and errno. */
typedef struct NodeStartError
{
	const char *call;
	int			number;
} NodeStartError;

/* The server makes the symbols of a library visible to all others, and 15 gives no choice for the whole. */
#pragma GCC visibility push(hidden)

extern bool node_process_start(const NodeCommand *command, pid_t *pid, int *socket,
							   NodeStartError *error);
extern bool node_process_has_ended(pid_t pid, int *status);
extern int	node_process_kill(pid_t pid);
extern int	node_process_await(pid_t pid);

#pragma GCC visibility pop

#endif							/* PGARCHIVIST_NODE_PROCESS_H */
