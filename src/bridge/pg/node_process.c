/*
 * node_process.c
 *		Starts and ends the Node process beside the archiver.
 *
 * Between fork and exec only async-signal-safe calls are made, and the child
 * never returns into the server's code or runs its exit handlers.
 */
#include "node_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/* Where the child finds the channel. */
#define CHANNEL_FD	3

/*
 * The status of a child that could not become Node.  A process that may be
 * left to a postmaster with PID 1 ends with 0 or 1, because that postmaster
 * takes any other end for the crash of a backend.
 */
#define EXEC_FAILED_STATUS	1

/* How long a process that has closed its channel may take to end. */
#define END_TIMEOUT_MS		200

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

static void
become_node(const NodeCommand *command, int channel, pid_t archiver)
{
	char	   *arguments[] = {(char *) command->launcher, "bridge", NULL};
	int			null;
	sigset_t	none;

	/* Its own session: a signal to the archiver's process group is not for it. */
	setsid();
#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The archiver may have ended before that took effect. */
	if (getppid() != archiver)
		_exit(EXEC_FAILED_STATUS);
#else
	(void) archiver;
#endif

	/* The archiver ignores some signals and handles others; Node starts afresh. */
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	if (channel != CHANNEL_FD && dup2(channel, CHANNEL_FD) < 0)
		_exit(EXEC_FAILED_STATUS);
	if (channel == CHANNEL_FD && fcntl(channel, F_SETFD, 0) < 0)
		_exit(EXEC_FAILED_STATUS);
	null = open("/dev/null", O_RDONLY);
	if (null != STDIN_FILENO)
		dup2(null, STDIN_FILENO);
	/* What a module prints goes to the server's log. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	close_descriptors_from(CHANNEL_FD + 1);

	execv(command->launcher, arguments);
	_exit(EXEC_FAILED_STATUS);
}

/* Starts the process.  On failure nothing is left behind. */
bool
node_process_start(const NodeCommand *command, pid_t *pid, int *channel,
				   NodeStartError *error)
{
	int			ends[2];
	pid_t		archiver = getpid();

	if (access(command->launcher, X_OK) != 0)
	{
		error->call = "execute";
		error->number = errno;
		return false;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
	{
		error->call = "make a socket pair for";
		error->number = errno;
		return false;
	}
	if (fcntl(ends[0], F_SETFD, FD_CLOEXEC) < 0 ||
		fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
		(*pid = fork()) < 0)
	{
		error->call = "fork";
		error->number = errno;
		close(ends[0]);
		close(ends[1]);
		return false;
	}
	if (*pid == 0)
	{
		/* PGARCHIVIST_NODE is how the launcher is told; the archiver's own environment stays as it is. */
		if (command->node[0] != '\0')
			setenv("PGARCHIVIST_NODE", command->node, 1);
		become_node(command, ends[1], archiver);
	}
	close(ends[1]);
	*channel = ends[0];
	return true;
}

/* Has it ended by itself?  If so it is reaped, and its status set. */
bool
node_process_has_ended(pid_t pid, int *status)
{
	return waitpid(pid, status, WNOHANG) == pid;
}

/* Kills and reaps it, and returns its status. */
int
node_process_kill(pid_t pid)
{
	int			status = 0;

	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/*
 * For one that has closed its channel, which is its last deed: gives it the
 * moment that its own end takes, so that its status is not ours.
 */
int
node_process_await(pid_t pid)
{
	int			status = 0;

	for (int ms = 0; ms < END_TIMEOUT_MS; ms++)
	{
		struct timespec pause = {0, 1000 * 1000};

		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		nanosleep(&pause, NULL);
	}
	return node_process_kill(pid);
}
