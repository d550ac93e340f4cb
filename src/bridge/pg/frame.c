/*
 * frame.c
 *		Reading and writing the frames of src/bridge/PROTOCOL.md.
 *
 * Everything that comes from the other end is checked here: a length is
 * compared with what may come before it is believed, a string has its
 * terminator within the frame, and a frame has no bytes left over.
 */
#include "frame.h"

#include <string.h>

/*
 * Looks at the first bytes that were received.  When they are a whole frame,
 * its type, its payload and its length in bytes are set.
 */
FrameState
frame_next(const FrameBuffer *received, char *type, FrameReader *payload,
		   size_t *frame_bytes)
{
	const unsigned char *data = (const unsigned char *) received->data;
	uint32_t	length;

	if (received->used < FRAME_HEADER_BYTES)
		return FRAME_INCOMPLETE;
	length = ((uint32_t) data[1] << 24) | ((uint32_t) data[2] << 16) |
		((uint32_t) data[3] << 8) | (uint32_t) data[4];

	/* The length counts itself, but not the type. */
	if (length < 4 || length > FRAME_BYTES_MAX - 1)
		return FRAME_INVALID;
	if (received->used < (size_t) length + 1)
		return FRAME_INCOMPLETE;

	*type = received->data[0];
	*frame_bytes = (size_t) length + 1;
	payload->at = received->data + FRAME_HEADER_BYTES;
	payload->end = received->data + *frame_bytes;
	payload->broken = false;
	return FRAME_COMPLETE;
}

int32_t
frame_read_int32(FrameReader *reader)
{
	const unsigned char *at = (const unsigned char *) reader->at;

	if (reader->broken || reader->end - reader->at < 4)
	{
		reader->broken = true;
		return 0;
	}
	reader->at += 4;
	return (int32_t) (((uint32_t) at[0] << 24) | ((uint32_t) at[1] << 16) |
					  ((uint32_t) at[2] << 8) | (uint32_t) at[3]);
}

/* One byte, 0 or 1. */
bool
frame_read_bool(FrameReader *reader)
{
	char		value;

	if (reader->broken || reader->at == reader->end)
	{
		reader->broken = true;
		return false;
	}
	value = *reader->at++;
	if (value != 0 && value != 1)
		reader->broken = true;
	return value == 1;
}

/* Points into the buffer.  Never NULL, so that callers need not look at once. */
const char *
frame_read_string(FrameReader *reader)
{
	const char *start = reader->at;
	const char *terminator;

	if (reader->broken || reader->at == reader->end ||
		(terminator = memchr(start, '\0', reader->end - start)) == NULL)
	{
		reader->broken = true;
		return "";
	}
	reader->at = terminator + 1;
	return start;
}

/* Were all fields there, and nothing else? */
bool
frame_is_whole(const FrameReader *reader)
{
	return !reader->broken && reader->at == reader->end;
}

static bool
put_bytes(FrameBuffer *buffer, const char *bytes, size_t count)
{
	if (buffer->size - buffer->used < count)
		return false;
	memcpy(buffer->data + buffer->used, bytes, count);
	buffer->used += count;
	return true;
}

/* Starts a frame in an empty buffer.  The putters are false when it is full. */
bool
frame_begin(FrameBuffer *buffer, char type)
{
	static const char header[FRAME_HEADER_BYTES] = {0};

	buffer->used = 0;
	if (!put_bytes(buffer, header, FRAME_HEADER_BYTES))
		return false;
	buffer->data[0] = type;
	return true;
}

bool
frame_put_int32(FrameBuffer *buffer, int32_t value)
{
	uint32_t	bits = (uint32_t) value;
	char		bytes[4] = {(char) (bits >> 24), (char) (bits >> 16),
	(char) (bits >> 8), (char) bits};

	return put_bytes(buffer, bytes, 4);
}

bool
frame_put_string(FrameBuffer *buffer, const char *value)
{
	return put_bytes(buffer, value, strlen(value) + 1);
}

/* Writes the length, now that it is known. */
void
frame_end(FrameBuffer *buffer)
{
	uint32_t	length = (uint32_t) (buffer->used - 1);

	buffer->data[1] = (char) (length >> 24);
	buffer->data[2] = (char) (length >> 16);
	buffer->data[3] = (char) (length >> 8);
	buffer->data[4] = (char) length;
}
