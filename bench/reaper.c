/*
 * Starts a program and becomes the parent of everything that it leaves behind, so that what that has cost is in the times
 * of this process's children. Ends when all of them have ended, with the program's status. When it is killed, the
 * program is sent SIGQUIT, which for a postmaster is an immediate shutdown.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	pid_t		program;
	int			programStatus = 1;

	if (argc < 2 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || prctl(PR_SET_PDEATHSIG, SIGQUIT) != 0)
	{
		perror("reaper");
		return 1;
	}
	program = fork();
	if (program == -1)
	{
		perror("reaper");
		return 1;
	}
	if (program == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGQUIT);
		execv(argv[1], argv + 1);
		perror(argv[1]);
		_exit(127);
	}
	for (;;)
	{
		int			status;
		pid_t		ended = wait(&status);

		if (ended == -1 && errno == EINTR)
			continue;
		if (ended == -1)
			break;
		if (ended == program)
			programStatus = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	return programStatus;
}
