/*
 * keeper.c
 *		The process between the archiver and Node, which outlives neither of
 *		them and lets nobody else do so.
 *
 * A postmaster that is process number 1, as in a container, becomes the parent
 * of everybody who loses theirs, and takes the death of such a child by a
 * signal for the crash of a backend: it restarts the whole cluster.  So what
 * the archiver starts needs a parent that is still there when the archiver is
 * not, and that ends with status 0 itself.  This is it:
 *
 *	- It is the parent of Node, and adopts whoever loses his parent below it.
 *	- When Node has ended it tells the archiver how, kills all others, reaps
 *	  them and ends.
 *	- When the other end of the lifeline is closed, because the archiver wants
 *	  it or has died of whatever, it kills Node first.
 *
 * It waits for the end of all, however long that takes, because leaving them
 * alone is what it is there to prevent; the archiver need not wait for it.
 *
 * It is a copy of the archiver that starts no other program, as all processes
 * of the server are copies of the postmaster.  It lets go of what they share,
 * so that it keeps no server from starting, and never returns into the
 * server's code or runs its exit handlers.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/* Where Node finds the channel, and the keeper the lifeline. */
#define CHANNEL_FD	3
#define LIFELINE_FD	4

/*
 * The status of a child that could not become Node.  A process that may be
 * left to a postmaster with PID 1 ends with 0 or 1.
 */
#define EXEC_FAILED_STATUS	1

/*
 * Who was killed and does not end is looked for again after such a pause, which
 * grows: a disk that does not answer may keep a process for long.
 */
#define KILL_AGAIN_MIN_MS	10
#define KILL_AGAIN_MAX_MS	1000

/* Of the list of children.  Who is not in it any more is found the next time. */
#define CHILDREN_BYTES_MAX	4096

static void
close_descriptors_from(int lowest)
{
	struct rlimit limit;
	rlim_t		highest = 1024;

#ifdef SYS_close_range
	/* By number, because glibc has a name for it since 2.34 only. */
	if (syscall(SYS_close_range, (unsigned int) lowest, ~0U, 0U) == 0)
		return;
#endif
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		highest = limit.rlim_cur;
	for (int fd = lowest; (rlim_t) fd < highest; fd++)
		close(fd);
}

/* Leaves standard error, and puts the two ends where they are looked for. */
static bool
arrange_descriptors(int channel, int lifeline)
{
	int			null;

	/* Each may be where the other is to be. */
	channel = fcntl(channel, F_DUPFD, LIFELINE_FD + 1);
	lifeline = fcntl(lifeline, F_DUPFD, LIFELINE_FD + 1);
	if (channel < 0 || lifeline < 0 ||
		dup2(channel, CHANNEL_FD) < 0 ||
		dup2(lifeline, LIFELINE_FD) < 0 ||
		fcntl(LIFELINE_FD, F_SETFD, FD_CLOEXEC) < 0)
		return false;
	null = open("/dev/null", O_RDONLY);
	if (null != STDIN_FILENO)
		dup2(null, STDIN_FILENO);
	/* What a module prints goes to the server's log. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	close_descriptors_from(LIFELINE_FD + 1);
	return true;
}

/*
 * Lets go of all memory that others write to.  The segments of the server are
 * gone already; what is found here are dynamic ones and such.
 */
static void
unmap_shared_memory(void)
{
#ifdef __linux__
	FILE	   *maps;
	char		line[1024];
	bool		is_start = true;

	maps = fopen("/proc/self/maps", "re");
	if (maps == NULL)
		return;
	while (fgets(line, sizeof(line), maps) != NULL)
	{
		uintptr_t	from;
		uintptr_t	to;
		char		access[5];

		if (is_start &&
			sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, access) == 3 &&
			access[1] == 'w' && access[3] == 's')
			munmap((void *) from, to - from);
		/* The name of a file may be longer than the buffer. */
		is_start = strchr(line, '\n') != NULL;
	}
	fclose(maps);
#endif
}

static void
become_node(const NodeCommand *command, pid_t keeper)
{
	char	   *arguments[] = {(char *) command->launcher, "bridge", NULL};
	sigset_t	none;

	setsid();
#ifdef __linux__
	/* Should somebody kill the keeper.  It may have happened before this takes effect. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
	if (getppid() != keeper)
		_exit(EXEC_FAILED_STATUS);

	signal(SIGCHLD, SIG_DFL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	/* PGARCHIVIST_NODE is how the launcher is told; the archiver's own environment stays as it is. */
	if (command->node[0] != '\0')
		setenv("PGARCHIVIST_NODE", command->node, 1);
	execv(command->launcher, arguments);
	_exit(EXEC_FAILED_STATUS);
}

static void
report(KeeperReportKind kind, int value)
{
	KeeperReport report = {kind, value};

	/* An archiver that is gone or does not listen is of no interest. */
	(void) send(LIFELINE_FD, &report, sizeof(report), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Kills all children there are.  Theirs become ours then, and are found the next time. */
void
keeper_kill_children(void)
{
#ifdef __linux__
	char		list[CHILDREN_BYTES_MAX + 1];
	char	   *at = list;
	char	   *end;
	size_t		bytes = 0;
	ssize_t		count = 0;
	int			fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while (bytes < CHILDREN_BYTES_MAX &&
		   (count = read(fd, list + bytes, CHILDREN_BYTES_MAX - bytes)) > 0)
		bytes += count;
	close(fd);
	list[bytes] = '\0';
	/* Each number has a space after it.  One that was cut off has none. */
	while ((end = strchr(at, ' ')) != NULL)
	{
		pid_t		child = (pid_t) strtol(at, NULL, 10);
		siginfo_t	info;

		/*
		 * Is it?  Where /proc is that of another PID namespace, the number is
		 * somebody else's here.
		 */
		if (child > 0 &&
			waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
			kill(child, SIGKILL);
		at = end + 1;
	}
#endif
}

/* Reaps everybody who has ended.  False: there is nobody left. */
static bool
reap(pid_t *node)
{
	int			status;
	pid_t		child;

	while ((child = waitpid(-1, &status, WNOHANG)) > 0)
	{
		if (child != *node)
			continue;
		*node = 0;
		report(KEEPER_ENDED, status);
	}
	return child == 0 || errno == EINTR;
}

static bool
lifeline_is_closed(void)
{
	char		ignored[16];
	ssize_t		count = recv(LIFELINE_FD, ignored, sizeof(ignored), MSG_DONTWAIT);

	return count == 0 ||
		(count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void
ignore_signal(int number)
{
}

/* Its only purpose is to end a wait. */
static void
prepare_signals(sigset_t *while_waiting)
{
	struct sigaction action = {.sa_handler = ignore_signal};
	sigset_t	all;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&action.sa_mask);
	sigaction(SIGCHLD, &action, NULL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	*while_waiting = all;
	sigdelset(while_waiting, SIGCHLD);
}

/*
 * Is called in a new process with all signals blocked.  Most of them stay so:
 * the keeper has to be there for the last file of a server that is stopped with
 * a signal to everybody.
 */
void
keeper_run(const NodeCommand *command, int channel, int lifeline, pid_t archiver)
{
	sigset_t	while_waiting;
	pid_t		keeper = getpid();
	pid_t		node;
	bool		is_ending = false;
	int			pause_ms = KILL_AGAIN_MIN_MS;

	/* Its own session: a signal to the archiver's process group is not for it. */
	setsid();
	prepare_signals(&while_waiting);
#ifdef __linux__
	/* The lifeline tells of the archiver's end.  This is for one that somebody has stopped, to notice it. */
	prctl(PR_SET_PDEATHSIG, SIGCONT);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_NAME, "pgarchivist");
#endif
	/* The archiver may have ended before that took effect. */
	if (getppid() != archiver)
		_exit(0);
	if (!arrange_descriptors(channel, lifeline))
		_exit(0);
	command->leave_server();
	unmap_shared_memory();

	node = fork();
	if (node == 0)
		become_node(command, keeper);
	/* The end of the channel is Node's alone, so that its end is seen. */
	close(CHANNEL_FD);
	if (node < 0)
	{
		report(KEEPER_FAILED, errno);
		_exit(0);
	}
	report(KEEPER_STARTED, node);

	while (reap(&node))
	{
		struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000 * 1000};
		fd_set		readable;

		is_ending = is_ending || node == 0 || lifeline_is_closed();
		FD_ZERO(&readable);
		if (is_ending)
		{
			/* With its group, for where children cannot be listed.  It is not reaped yet, so the number is its. */
			if (node != 0)
				kill(-node, SIGKILL);
			keeper_kill_children();
			if (pause_ms < KILL_AGAIN_MAX_MS)
				pause_ms *= 2;
		}
		else
			FD_SET(LIFELINE_FD, &readable);
		(void) pselect(LIFELINE_FD + 1, &readable, NULL, NULL, is_ending ? &pause : NULL,
					   &while_waiting);
	}
	_exit(0);
}
