/*
 * node_process.c
 *		Starts and ends the Node process beside the archiver.
 *
 * Between the two is the keeper (keeper.c), which ends Node, and everybody whom
 * that has started, when it is told to or left alone.  There is one at a time.
 */
#include "node_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "keeper.h"

/* How long the keeper may take to fork. */
#define START_TIMEOUT_MS	5000

/* How long a process that has closed its channel may take to end. */
#define END_TIMEOUT_MS		200

/* How long those who were killed are waited for. */
#define KILL_TIMEOUT_MS		1000

/* The keeper that was started last, if it has not been reaped, and what it said. */
static struct
{
	pid_t		pid;
	int			lifeline;
	bool		node_has_ended;
	int			node_status;
} keeper = {0, -1, false, 0};

static long
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / (1000 * 1000);
}

static void
pause_ms(int ms)
{
	struct timespec pause = {0, (long) ms * 1000 * 1000};

	nanosleep(&pause, NULL);
}

/*
 * Waits for a report.  Returns 1, 0 when the lifeline is closed, which is the
 * keeper's end, or -1 when the time is over.
 */
static int
read_report(KeeperReport *report, long deadline)
{
	for (;;)
	{
		struct pollfd waiting = {keeper.lifeline, POLLIN, 0};
		ssize_t		count = recv(keeper.lifeline, report, sizeof(*report), MSG_DONTWAIT);
		long		ms = deadline - now_ms();

		/* It is sent in one piece. */
		if (count == (ssize_t) sizeof(*report))
			return 1;
		if (count >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return 0;
		if (ms <= 0)
			return -1;
		(void) poll(&waiting, 1, (int) ms);
	}
}

/*
 * After the death of a keeper that somebody has killed: Node died with it, and
 * all whom it kept have become our children.  They would be left to the
 * postmaster.  An archiver with an archive library has no other children.
 */
static void
end_adopted(void)
{
	long		deadline = now_ms() + KILL_TIMEOUT_MS;

	for (;;)
	{
		pid_t		child = waitpid(-1, NULL, WNOHANG);

		if (child < 0 && errno != EINTR)
			return;
		if (child == 0)
		{
			if (now_ms() >= deadline)
				return;
			keeper_kill_children();
			pause_ms(1);
		}
	}
}

/* Waits so long for the keeper to end, which is when nobody is left below it, and reaps it. */
static bool
await_keeper(int timeout_ms)
{
	long		deadline = now_ms() + timeout_ms;
	KeeperReport report;
	int			said;
	int			status = 0;

	while ((said = read_report(&report, deadline)) == 1)
		if (report.kind == KEEPER_ENDED)
		{
			keeper.node_has_ended = true;
			keeper.node_status = report.value;
		}
	if (said < 0)
		return false;
	close(keeper.lifeline);
	/* It cannot be stopped any more. */
	while (waitpid(keeper.pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
	{
		if (!keeper.node_has_ended)
			keeper.node_status = status;
		end_adopted();
	}
	keeper.pid = 0;
	keeper.lifeline = -1;
	return true;
}

/* Tells the keeper to end everybody. */
static void
close_lifeline(void)
{
	/* What it says is still to be heard. */
	shutdown(keeper.lifeline, SHUT_WR);
	/* Somebody may have stopped it. */
	kill(keeper.pid, SIGCONT);
}

/* True in the new process too.  There, all signals are blocked, because their handlers are the server's. */
static bool
fork_keeper(void)
{
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	keeper.pid = fork();
	if (keeper.pid != 0)
	{
		int			number = errno;

		sigprocmask(SIG_SETMASK, &before, NULL);
		errno = number;
	}
	return keeper.pid >= 0;
}

/* Starts the process.  On failure nothing is left behind. */
bool
node_process_start(const NodeCommand *command, pid_t *pid, int *channel,
				   NodeStartError *error)
{
	int			channel_ends[2] = {-1, -1};
	int			lifeline_ends[2] = {-1, -1};
	pid_t		archiver = getpid();
	KeeperReport report;
	int			said;

	if (access(command->launcher, X_OK) != 0)
	{
		error->call = "execute";
		error->number = errno;
		return false;
	}
	/* A killed process that a disk keeps from ending keeps its memory too, so there is no second one. */
	if (keeper.pid != 0 && !await_keeper(0))
	{
		error->call = "start a second";
		error->number = EBUSY;
		return false;
	}
#ifdef __linux__
	/* For end_adopted(). */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
#endif
	error->call = "make a socket pair for";
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel_ends) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM, 0, lifeline_ends) != 0 ||
		fcntl(channel_ends[0], F_SETFD, FD_CLOEXEC) < 0 ||
		fcntl(channel_ends[0], F_SETFL, O_NONBLOCK) < 0 ||
		fcntl(lifeline_ends[0], F_SETFD, FD_CLOEXEC) < 0)
		goto failed;
	error->call = "fork";
	if (!fork_keeper())
	{
		keeper.pid = 0;
		goto failed;
	}
	if (keeper.pid == 0)
		keeper_run(command, channel_ends[1], lifeline_ends[1], archiver);
	close(channel_ends[1]);
	close(lifeline_ends[1]);
	keeper.lifeline = lifeline_ends[0];
	keeper.node_has_ended = false;
	keeper.node_status = SIGKILL;

	said = read_report(&report, now_ms() + START_TIMEOUT_MS);
	if (said == 1 && report.kind == KEEPER_STARTED)
	{
		*pid = report.value;
		*channel = channel_ends[0];
		return true;
	}
	error->number = said == 1 ? report.value : said == 0 ? ECHILD : ETIMEDOUT;
	close(channel_ends[0]);
	close_lifeline();
	(void) await_keeper(KILL_TIMEOUT_MS);
	return false;

failed:
	error->number = errno;
	for (int end = 0; end < 2; end++)
	{
		if (channel_ends[end] >= 0)
			close(channel_ends[end]);
		if (lifeline_ends[end] >= 0)
			close(lifeline_ends[end]);
	}
	return false;
}

/* Has it ended by itself, and with it all whom it started?  If so its status is set. */
bool
node_process_has_ended(pid_t pid, int *status)
{
	if (keeper.pid != 0 && !await_keeper(0))
		return false;
	*status = keeper.node_status;
	return true;
}

/*
 * Kills it with all whom it started, and returns its status.  Who does not end
 * within a moment is left to the keeper.
 */
int
node_process_kill(pid_t pid)
{
	if (keeper.pid != 0)
	{
		close_lifeline();
		(void) await_keeper(KILL_TIMEOUT_MS);
	}
	return keeper.node_status;
}

/*
 * For one that has closed its channel, which is its last deed: gives it the
 * moment that its own end takes, so that its status is not ours.
 */
int
node_process_await(pid_t pid)
{
	if (keeper.pid != 0 && !await_keeper(END_TIMEOUT_MS))
		return node_process_kill(pid);
	return keeper.node_status;
}
