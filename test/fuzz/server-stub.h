/*
 * server-stub.h
 *		What the fuzz target needs of the stub.
 */
#ifndef SERVER_STUB_H
#define SERVER_STUB_H

#include <setjmp.h>
#include <poll.h>
#include <sys/socket.h>

/* Where proc_exit leads to. */
extern sigjmp_buf stub_exit;

extern void stub_reset(const unsigned char *bytes, size_t count, size_t chunk, bool ends);
extern void stub_reload(void);
extern void stub_free_all(void);

extern ssize_t stub_send(int fd, const void *bytes, size_t count, int flags);
extern ssize_t stub_recv(int fd, void *bytes, size_t room, int flags);
extern int	stub_poll(struct pollfd *fds, unsigned long count, int timeout);

#endif							/* SERVER_STUB_H */
