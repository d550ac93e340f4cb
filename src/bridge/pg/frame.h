/*
 * frame.h
 *		The frames of src/bridge/PROTOCOL.md, without anything of PostgreSQL in
 *		it, so that the parser can be tested and fuzzed by itself.
 */
#ifndef PGARCHIVIST_FRAME_H
#define PGARCHIVIST_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_PROTOCOL_VERSION	1
#define FRAME_HEADER_BYTES		5
/* A longer frame is an error of the other end, whatever its type. */
#define FRAME_BYTES_MAX			(256 * 1024)

/* What is left to read of one received frame. */
typedef struct FrameReader
{
	const char *at;
	const char *end;
	/* Set by the first field that was not there, and never reset. */
	bool		broken;
} FrameReader;

/* A frame that is being written, or the bytes that have been received so far. */
typedef struct FrameBuffer
{
	char	   *data;
	size_t		used;
	size_t		size;
} FrameBuffer;

/* What the first bytes of a buffer are. */
typedef enum FrameState
{
	FRAME_INCOMPLETE,
	FRAME_COMPLETE,
	FRAME_INVALID
} FrameState;

/* The server makes the symbols of a library visible to all others, and 15 gives no choice for the whole. */
#pragma GCC visibility push(hidden)

extern FrameState frame_next(const FrameBuffer *received, char *type,
							 FrameReader *payload, size_t *frame_bytes);
extern int32_t frame_read_int32(FrameReader *reader);
extern bool frame_read_bool(FrameReader *reader);
extern const char *frame_read_string(FrameReader *reader);
extern bool frame_is_whole(const FrameReader *reader);

extern bool frame_begin(FrameBuffer *buffer, char type);
extern bool frame_put_int32(FrameBuffer *buffer, int32_t value);
extern bool frame_put_string(FrameBuffer *buffer, const char *value);
extern void frame_end(FrameBuffer *buffer);

#pragma GCC visibility pop

#endif							/* PGARCHIVIST_FRAME_H */
