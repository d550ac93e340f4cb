// npm run bench: what archiving costs, measured from outside on a throwaway cluster beside the server's own
// archiver. docs/benchmarks.md says what is measured and how the figures are to be read.

import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, release } from 'node:os'
import { parseArgs } from 'node:util'
import { requiredMajors } from '../test/support/postgresql-server.ts'
import { backlog } from './backlog.ts'
import { asText, type Benchmark, type BenchmarkOptions, type Result } from './benchmark.ts'
import { bridge } from './bridge.ts'
import { copy } from './copy.ts'
import { distance } from './distance.ts'
import { loop } from './loop.ts'
import { repository } from './repository.ts'
import { restore } from './restore.ts'
import { start } from './start.ts'

const benchmarks: Benchmark[] = [start, loop, copy, backlog, bridge, repository, restore, distance]
const names = benchmarks.map(({ name }) => name)
const longNames = benchmarks.filter(({ isLong }) => isLong).map(({ name }) => name)

const usage = `Usage: npm run bench -- [NAME…] [--major N] [--rounds N] [--files N] [--segments N] [--json FILE]

  NAME         what to measure: ${names.join(', ')} (default: all but ${longNames.join(' and ')})
  --major N    the PostgreSQL to compare with: ${requiredMajors.join(', ')} (default: ${Math.max(...requiredMajors)})
  --rounds N   how often each is measured (default: by the benchmark)
  --files N    how many files wait in "loop" (default: 5000)
  --segments N how many segments wait, or are restored, in ${longNames.map(name => `"${name}"`).join(' and ')} (default: 200; 50 is a look
               of a quarter of the time and disk)
  --json FILE  also write all measurements there
`

class UsageError extends Error {}

function wholeNumber(name: string, text: string | undefined, min: number): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= min) return value
  throw new UsageError(`"--${name}" has to be a whole number, ${min} at least`)
}

function parseCommandLine() {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse()
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const { values, positionals } = parsed
  const unknown = positionals.find(name => !names.includes(name))
  if (unknown !== undefined) throw new UsageError(`there is no benchmark "${unknown}"`)
  const major = Number(values.major ?? Math.max(...requiredMajors))
  if (!requiredMajors.includes(major))
    throw new UsageError(`there is no PostgreSQL "${values.major}" to compare with`)
  return {
    help: values.help === true,
    chosen: benchmarks.filter(({ name, isLong }) =>
      positionals.length === 0 ? isLong !== true : positionals.includes(name),
    ),
    major,
    rounds: wholeNumber('rounds', values.rounds, 1),
    files: wholeNumber('files', values.files, 2),
    segments: wholeNumber('segments', values.segments, 2),
    json: values.json,
  }
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      major: { type: 'string' },
      rounds: { type: 'string' },
      files: { type: 'string' },
      segments: { type: 'string' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  })
}

// The first signal ends the measuring, with everything cleaned up; a second one a second later, Ctrl-C comes from the
// terminal and once more through npm, ends it now, and the kernel then stops what was started.
function interruptible(): AbortSignal {
  const interruption = new AbortController()
  let interruptedAt: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (interruptedAt !== undefined && performance.now() > interruptedAt + 1_000) process.exit(130)
      interruptedAt ??= performance.now()
      interruption.abort()
    })
  }
  return interruption.signal
}

async function machine() {
  const memory = /^MemTotal:\s*(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1]
  return {
    processors: availableParallelism(),
    model: cpus()[0]?.model ?? 'unknown',
    memoryMegabytes: Math.round(Number(memory) / 1024),
    kernel: release(),
    node: process.version,
  }
}

/** In a log each step has its line, and the time: who reads it later wants to know what took how long. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
  else if (text !== '') process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)
}

async function main(): Promise<number> {
  let options: ReturnType<typeof parseCommandLine>
  try {
    options = parseCommandLine()
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`bench: ${error.message}\n${usage}`)
    return 2
  }
  if (options.help) {
    process.stdout.write(usage)
    return 0
  }
  const signal = interruptible()
  const { major, rounds, files, segments } = options
  const benchmarkOptions: BenchmarkOptions = { major, rounds, files, segments, signal, progress }
  const where = await machine()
  console.log(`${where.processors} × ${where.model}, Linux ${where.kernel}, Node ${where.node}\n`)
  const results: Record<string, Result> = {}
  try {
    for (const benchmark of options.chosen) {
      const result = await benchmark.run(benchmarkOptions)
      progress('')
      results[benchmark.name] = result
      console.log(asText(result))
    }
  } catch (error) {
    progress('')
    if (signal.aborted) {
      process.stderr.write('bench: interrupted, everything is cleaned up\n')
      return 130
    }
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
  if (options.json !== undefined) {
    await writeFile(options.json, `${JSON.stringify({ machine: where, major, results }, null, 2)}\n`)
  }
  return 0
}

process.exitCode = await main()
