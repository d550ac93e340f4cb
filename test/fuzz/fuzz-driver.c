/*
 * fuzz-driver.c
 *		A fuzzer for where libFuzzer is not: gcc marks the ways through the code
 *		(-fsanitize-coverage=trace-pc), and an input that takes a new one is kept
 *		and changed further.
 *
 * Usage: fuzz-driver MILLISECONDS SEED < HEX-LINES
 *		  fuzz-driver 0 0 < HEX-LINES, to run just these inputs
 * Each line of standard input is a frame to begin with.  An input that ends
 * the program is printed as a line of the same form.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES_MAX		32768
#define CORPUS_MAX			4096
#define SEEDS_MAX			256
#define POINTS				65536

typedef struct Input
{
	uint8_t    *bytes;
	size_t		size;
} Input;

extern int	LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
extern void __sanitizer_cov_trace_pc(void);
extern void __sanitizer_set_death_callback(void (*callback) (void));

static Input corpus[CORPUS_MAX];
static int	corpus_count = 0;
static Input seeds[SEEDS_MAX];
static int	seeds_count = 0;
static uint8_t hits[POINTS];
static uint8_t seen[POINTS];
static uintptr_t last_point;
static uint64_t random_state;
static uint8_t current[INPUT_BYTES_MAX];
static size_t current_size;

/* Called by the instrumented code at every block: remembers the step from the block before. */
void
__sanitizer_cov_trace_pc(void)
{
	uintptr_t	point = (uintptr_t) __builtin_return_address(0);

	point = (point >> 4) ^ (point << 8);
	if (hits[(point ^ last_point) % POINTS] < 255)
		hits[(point ^ last_point) % POINTS]++;
	last_point = point >> 1;
}

static void
print_current(void)
{
	fprintf(stderr, "input: ");
	for (size_t i = 0; i < current_size; i++)
		fprintf(stderr, "%02x", current[i]);
	fprintf(stderr, "\n");
}

static void
on_abort(int number)
{
	(void) number;
	print_current();
	_exit(1);
}

static uint32_t
pick(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t) (random_state >> 32) % below;
}

static void
insert(size_t at, const uint8_t *bytes, size_t size)
{
	if (current_size + size > INPUT_BYTES_MAX)
		return;
	memmove(current + at + size, current + at, current_size - at);
	memcpy(current + at, bytes, size);
	current_size += size;
}

/* A golden frame with some of its payload changed, under a length that is right again. */
static void
insert_frame(void)
{
	const Input *seed = &seeds[pick(seeds_count)];
	uint8_t		bytes[INPUT_BYTES_MAX];
	size_t		size = seed->size;

	memcpy(bytes, seed->bytes, size);
	for (uint32_t changes = pick(4); changes > 0 && size > 5; changes--)
	{
		size_t		at = 5 + pick((uint32_t) size - 5);

		if (pick(3) == 0 && size < INPUT_BYTES_MAX / 2)
		{
			memmove(bytes + at + 1, bytes + at, size - at);
			size++;
		}
		else if (pick(3) == 0)
		{
			memmove(bytes + at, bytes + at + 1, size - at - 1);
			size--;
			continue;
		}
		bytes[at] = pick(2) ? (uint8_t) pick(256) : (uint8_t) "\0\1\2 .%9-\x7f\x80\xffn"[pick(12)];
	}
	bytes[1] = bytes[2] = 0;
	bytes[3] = (uint8_t) ((size - 1) >> 8);
	bytes[4] = (uint8_t) (size - 1);
	insert(pick(2) ? current_size : 1 + pick((uint32_t) current_size), bytes, size);
}

static void
change(void)
{
	static const uint32_t numbers[] = {0, 1, 2, 3, 4, 5, 255, 256, 1000, 1001, 0x3fffe, 0x3ffff, 0x40000,
	0x7fffffff, 0x80000000, 0xffffffff};
	size_t		at = pick((uint32_t) current_size);
	uint32_t	number = numbers[pick(sizeof(numbers) / sizeof(numbers[0]))];
	uint8_t		big_endian[4] = {(uint8_t) (number >> 24), (uint8_t) (number >> 16),
	(uint8_t) (number >> 8), (uint8_t) number};

	switch (pick(7))
	{
		case 0:
			current[at] ^= (uint8_t) (1 << pick(8));
			break;
		case 1:
			current[at] = (uint8_t) pick(256);
			break;
		case 2:
			if (current_size - at >= 4)
				memcpy(current + at, big_endian, 4);
			break;
		case 3:
			{
				size_t		size = 1 + pick((uint32_t) (current_size - at));

				if (size < current_size)
				{
					memmove(current + at, current + at + size, current_size - at - size);
					current_size -= size;
				}
				break;
			}
		case 4:
			{
				const Input *other = &corpus[pick((uint32_t) corpus_count)];

				insert(current_size, other->bytes + 1, other->size - 1);
				break;
			}
		default:
			insert_frame();
	}
}

/* Runs the current input.  Did it take a way that none has taken before? */
static int
run(void)
{
	/* Of exactly its size, so that a byte beyond is seen. */
	uint8_t    *exact = malloc(current_size);
	int			is_new = 0;

	memcpy(exact, current, current_size);
	memset(hits, 0, sizeof(hits));
	last_point = 0;
	LLVMFuzzerTestOneInput(exact, current_size);
	free(exact);
	for (int i = 0; i < POINTS; i++)
	{
		/* Once, twice, some times, many times are different ways. */
		uint8_t		count = hits[i];
		uint8_t		bit = count == 0 ? 0 : count == 1 ? 1 : count == 2 ? 2 : count < 16 ? 4 : 8;

		if (bit & ~seen[i])
		{
			seen[i] |= bit;
			is_new = 1;
		}
	}
	return is_new;
}

static void
keep(void)
{
	Input	   *input;

	if (corpus_count == CORPUS_MAX)
		return;
	input = &corpus[corpus_count++];
	input->size = current_size;
	input->bytes = malloc(current_size);
	memcpy(input->bytes, current, current_size);
}

static long
now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int
main(int argc, char **argv)
{
	static char line[2 * INPUT_BYTES_MAX + 2];
	long		ms = argc > 1 ? atol(argv[1]) : 0;
	long		end = now_ms() + ms;
	long		inputs = 0;
	int			points = 0;

	random_state = 0x9e3779b97f4a7c15u ^ (argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
	signal(SIGABRT, on_abort);
	__sanitizer_set_death_callback(print_current);
	while (fgets(line, sizeof(line), stdin) != NULL && seeds_count < SEEDS_MAX)
	{
		Input	   *seed = &seeds[seeds_count++];

		seed->size = strcspn(line, "\n") / 2;
		seed->bytes = malloc(seed->size + 1);
		for (size_t i = 0; i < seed->size; i++)
		{
			unsigned int byte;

			if (sscanf(line + 2 * i, "%2x", &byte) != 1)
				return 1;
			seed->bytes[i] = (uint8_t) byte;
		}
		/* Alone as an input of its own, and as what comes in one piece from an end that then ends. */
		current_size = 0;
		if (ms == 0)
			insert(0, seed->bytes, seed->size);
		else
		{
			insert(0, (const uint8_t *) "\x08", 1);
			insert(1, seed->bytes, seed->size);
		}
		(void) run();
		keep();
		inputs++;
	}
	while (seeds_count > 0 && now_ms() < end)
	{
		const Input *base = &corpus[pick((uint32_t) corpus_count)];

		current_size = base->size;
		memcpy(current, base->bytes, base->size);
		for (uint32_t changes = 1 + pick(4); changes > 0; changes--)
			change();
		if (run())
			keep();
		inputs++;
	}
	for (int i = 0; i < POINTS; i++)
		points += seen[i] != 0;
	printf("%ld inputs, %d kept, %d ways\n", inputs, corpus_count, points);
	return 0;
}
