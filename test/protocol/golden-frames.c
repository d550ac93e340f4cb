/*
 * golden-frames.c
 *		Writes and reads the golden frames with the C end's own functions.
 *
 * Standard input has a line for each field and, after those of a frame, one
 * for the frame: "int32 NUMBER", "bool 0|1", "string HEX", "frame TYPE HEX".
 * Each frame is written from its fields and compared, read and compared, and
 * then spoiled in all ways that are few enough to try.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

#define FIELDS_MAX	64

typedef enum FieldKind
{
	FIELD_INT32,
	FIELD_BOOL,
	FIELD_STRING
} FieldKind;

typedef struct Field
{
	FieldKind	kind;
	int32_t		number;
	char	   *text;
} Field;

static Field fields[FIELDS_MAX];
static int	fields_count = 0;

static void
expect(bool is_true, const char *what)
{
	if (is_true)
		return;
	fprintf(stderr, "golden frames: %s\n", what);
	exit(1);
}

/* Decodes hexadecimal into memory of exactly its size, so that a sanitizer sees any byte beyond. */
static char *
from_hex(const char *hex, size_t *size)
{
	char	   *bytes;

	*size = strlen(hex) / 2;
	bytes = malloc(*size > 0 ? *size : 1);
	for (size_t i = 0; i < *size; i++)
	{
		unsigned int byte;

		expect(sscanf(hex + 2 * i, "%2x", &byte) == 1, "the input has a digit that is none");
		bytes[i] = (char) byte;
	}
	return bytes;
}

/* Are these the fields, and nothing else? */
static bool
reads_as_fields(FrameReader *reader)
{
	bool		same = true;

	for (int i = 0; i < fields_count; i++)
	{
		if (fields[i].kind == FIELD_INT32)
			same &= frame_read_int32(reader) == fields[i].number;
		else if (fields[i].kind == FIELD_BOOL)
			same &= frame_read_bool(reader) == (fields[i].number == 1);
		else
			same &= strcmp(frame_read_string(reader), fields[i].text) == 0;
	}
	return frame_is_whole(reader) && same;
}

/* Writes the frame into a buffer of the given size.  Did it fit? */
static bool
write_fields(FrameBuffer *buffer, char type)
{
	if (!frame_begin(buffer, type))
		return false;
	for (int i = 0; i < fields_count; i++)
	{
		if (fields[i].kind == FIELD_INT32 && !frame_put_int32(buffer, fields[i].number))
			return false;
		if (fields[i].kind == FIELD_STRING && !frame_put_string(buffer, fields[i].text))
			return false;
	}
	frame_end(buffer);
	return true;
}

/* This end never writes a bool. */
static bool
can_be_written(void)
{
	for (int i = 0; i < fields_count; i++)
		if (fields[i].kind == FIELD_BOOL)
			return false;
	return true;
}

static void
check_written(char type, const char *bytes, size_t size)
{
	/* With no room to spare, and with every room that is too small. */
	for (size_t room = 0; room <= size; room++)
	{
		FrameBuffer buffer = {malloc(room > 0 ? room : 1), 0, room};
		bool		fits = write_fields(&buffer, type);

		expect(fits == (room == size), "a frame was written into too little room, or not into enough");
		if (fits)
			expect(buffer.used == size && memcmp(buffer.data, bytes, size) == 0,
				   "a frame was written in other bytes");
		free(buffer.data);
	}
}

static FrameState
next(char *bytes, size_t used, char *type, FrameReader *payload, size_t *frame_bytes)
{
	FrameBuffer received = {bytes, used, used};

	return frame_next(&received, type, payload, frame_bytes);
}

static void
check_read(char type, char *bytes, size_t size)
{
	char		seen;
	FrameReader payload;
	size_t		frame_bytes;

	expect(next(bytes, size, &seen, &payload, &frame_bytes) == FRAME_COMPLETE, "a frame was not read");
	expect(seen == type && frame_bytes == size, "a frame was read with another type or length");
	expect(reads_as_fields(&payload), "a frame was read with other fields");

	/* Cut off anywhere, it is not there yet. */
	for (size_t used = 0; used < size; used++)
	{
		char	   *part = malloc(used > 0 ? used : 1);

		memcpy(part, bytes, used);
		expect(next(part, used, &seen, &payload, &frame_bytes) == FRAME_INCOMPLETE,
			   "a part of a frame was read as a frame");
		free(part);
	}

	/* With a length that ends it early or late, its fields are not whole. */
	for (size_t used = FRAME_HEADER_BYTES; used <= size + 1; used++)
	{
		char	   *other = calloc(used, 1);
		uint32_t	length = (uint32_t) used - 1;

		memcpy(other, bytes, used < size ? used : size);
		other[1] = (char) (length >> 24);
		other[2] = (char) (length >> 16);
		other[3] = (char) (length >> 8);
		other[4] = (char) length;
		expect(next(other, used, &seen, &payload, &frame_bytes) == FRAME_COMPLETE && frame_bytes == used,
			   "a frame with a length of its own was not read");
		expect(reads_as_fields(&payload) == (used == size), "a frame with too few or too many bytes was whole");
		free(other);
	}

	/* A bool is nothing but 0 or 1. */
	for (int value = 2; value < 256; value++)
	{
		char		byte = (char) value;
		FrameReader one = {&byte, &byte + 1, false};

		expect(!frame_read_bool(&one) && !frame_is_whole(&one), "a bool was neither 0 nor 1");
	}
}

/* Lengths around the limits, with nothing behind them. */
static void
check_lengths(void)
{
	static const uint32_t invalid[] = {0, 1, 2, 3, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1,
	0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
	char	   *longest = calloc(FRAME_BYTES_MAX, 1);
	char		type;
	FrameReader payload;
	size_t		frame_bytes;

	for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
	{
		char		header[FRAME_HEADER_BYTES] = {'l', (char) (invalid[i] >> 24),
		(char) (invalid[i] >> 16), (char) (invalid[i] >> 8), (char) invalid[i]};

		expect(next(header, sizeof(header), &type, &payload, &frame_bytes) == FRAME_INVALID,
			   "a length beyond the limits was believed");
	}
	longest[0] = 'v';
	longest[2] = 3;
	longest[3] = longest[4] = (char) 0xff;
	memset(longest + FRAME_HEADER_BYTES, 'a', FRAME_BYTES_MAX - FRAME_HEADER_BYTES);
	expect(next(longest, FRAME_BYTES_MAX - 1, &type, &payload, &frame_bytes) == FRAME_INCOMPLETE,
		   "the longest frame was read too early");
	expect(next(longest, FRAME_BYTES_MAX, &type, &payload, &frame_bytes) == FRAME_COMPLETE,
		   "the longest frame was not read");
	expect(frame_read_string(&payload)[0] == '\0' && !frame_is_whole(&payload),
		   "a string without its end was read");
	free(longest);
}

int
main(void)
{
	static char line[4 * FRAME_BYTES_MAX];
	int			frames = 0;

	check_lengths();
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		size_t		size;

		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "frame ", 6) == 0)
		{
			char	   *bytes = from_hex(line + 8, &size);

			if (can_be_written())
				check_written(line[6], bytes, size);
			check_read(line[6], bytes, size);
			free(bytes);
			while (fields_count > 0)
				free(fields[--fields_count].text);
			frames++;
			continue;
		}
		expect(fields_count < FIELDS_MAX, "the input has too many fields");
		fields[fields_count] = (Field) {FIELD_INT32, 0, NULL};
		if (strncmp(line, "string ", 7) == 0)
		{
			char	   *text = from_hex(line + 7, &size);

			fields[fields_count].kind = FIELD_STRING;
			fields[fields_count].text = calloc(size + 1, 1);
			memcpy(fields[fields_count].text, text, size);
			free(text);
		}
		else
		{
			fields[fields_count].kind = line[0] == 'b' ? FIELD_BOOL : FIELD_INT32;
			fields[fields_count].number = (int32_t) atol(strchr(line, ' '));
		}
		fields_count++;
	}
	printf("%d frames\n", frames);
	return 0;
}
