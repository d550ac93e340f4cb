// A base backup and the WAL after it: how long a server takes to replay all of it, by who brings the segments.

import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { giveAway, temporaryDirectory } from '../test/support/unprivileged.ts'
import { type Aim, type Benchmark, type BenchmarkOptions, type Result, rowOf } from './benchmark.ts'
import { type ArchiverSettings, settingLines, tail } from './contestants.ts'
import { configure, findPgBackRest, type PgBackRest } from './pgbackrest.ts'
import { publishPackage } from './published-package.ts'
import { copySegments, serverSettings, WalArena, type WalContestant, warm } from './wal-arena.ts'
import { buildLibraryFor, type Ours, pgBackRestPush, throughTheBridge } from './wal-contestants.ts'
import { type Corpus, segmentBytes, walCorpora } from './wal-corpus.ts'
import { WatchedServer } from './watched-server.ts'
import { workloads } from './workloads.ts'

const run = promisify(execFile)

const usualSegments = 200
const usualRounds = 3
const pollMs = 10
const limitMsPerSegment = 5_000
const limitMsMin = 60_000

// In the server's words. The checkpoint that follows is the same for all.
const recoveryStart = /starting (backup|archive) recovery/
const recoveryEnd = /archive recovery complete$/m

// The fewest bytes to read and the least to decompress among those that it can write.
const pgBackRestCompression = { 'compress-type': 'zst', 'compress-level': '1' }

export const restore: Benchmark = { name: 'restore', isLong: true, run: runBenchmark }

/** Somebody who brings the segments of a corpus back. */
interface RestoreContestant {
  name: string
  /** Archives to what it restores from later, where that is not what all have. */
  archives?: WalContestant
  /** Returns the settings of a server that restores; nothing of that is measured. */
  prepare(turn: RestoreTurn): Promise<ArchiverSettings>
}

interface RestoreTurn {
  corpus: Corpus
  /** What was archived before, or the segments as they are. */
  archive: string
  dataDirectory: string
  /** A path that is free. */
  scratch: string
}

interface Restore {
  /** From the beginning of recovery until there is nothing more to be replayed. */
  wallSeconds: number
  /** Of the server and all that it has started, from its start to the same moment. */
  cpuSeconds: number
}

async function runBenchmark(options: BenchmarkOptions): Promise<Result> {
  const { major, signal, progress } = options
  const segments = options.segments ?? usualSegments
  const rounds = options.rounds ?? usualRounds
  const corpora = await walCorpora({ major, segments, signal, progress })
  await using directory = await temporaryDirectory()
  progress('building the package')
  const ours = await buildLibraryFor(await publishPackage(join(directory.path, 'published')), major)
  const found = await findPgBackRest()
  const pgBackRest = 'missing' in found ? undefined : found

  const mine = archiveGet(ours, 'ours, `archive-get`, all defaults')
  const theirs = pgBackRest === undefined ? [] : pgBackRestContestants(pgBackRest)
  const contestants = [mine, ...theirs, copy, alreadyThere]
  const samples = new Map<string, Array<Record<string, number>>>(contestants.map(({ name }) => [name, []]))
  for (const corpus of corpora) {
    const { name: kind, title } = corpus.workload
    progress(`${title}: copying the cluster`)
    await using arena = await WalArena.open(major, corpus)
    const archives = new Map<WalContestant, string>()
    for (const { archives: archiving } of contestants) {
      if (archiving === undefined || archives.has(archiving)) continue
      progress(`${title}: archiving for ${archiving.name}`)
      const archive = arena.path(`to-restore-${archives.size}`)
      await arena.archiveTo(archive, archiving, [corpus.backupSegment, ...corpus.segments], signal)
      archives.set(archiving, archive)
    }
    for (let round = 0; round < rounds; round++) {
      const first = round % contestants.length
      for (const contestant of [...contestants.slice(first), ...contestants.slice(0, first)]) {
        progress(`${title}, ${segments} segments, round ${round + 1} of ${rounds}: ${contestant.name}`)
        const archive = (contestant.archives && archives.get(contestant.archives)) ?? corpus.walDirectory
        const { wallSeconds, cpuSeconds } = await restoreOnce(arena, contestant, archive, signal)
        const all = samples.get(contestant.name) ?? []
        all[round] = {
          ...all[round],
          [`${kind}.wallSeconds`]: wallSeconds,
          [`${kind}.cpuSeconds`]: cpuSeconds,
        }
      }
    }
  }

  const rows = [...samples].map(([name, each]) => rowOf(name, each))
  const seconds = (name: string, kind: string) =>
    rows.find(row => row.name === name)?.values[`${kind}.wallSeconds`] ?? Number.NaN
  const aims: Aim[] = workloads.flatMap(({ name: kind, title }) =>
    [...theirs, copy].map(other => {
      const ratio = seconds(mine.name, kind) / seconds(other.name, kind)
      return {
        text: `${title}, not slower than ${other.name}`,
        figure: `${ratio.toFixed(2)} of its time`,
        met: ratio <= 1,
      }
    }),
  )
  const version = pgBackRest === undefined ? 'without pgBackRest' : `pgBackRest ${pgBackRest.version}`
  return {
    title: `restore: ${segments} segments of 16 MB that are replayed, PostgreSQL ${major}, ${version}, medians of ${rounds} rounds`,
    isMarkdown: true,
    columns: workloads.flatMap(({ name: kind, title }) => [
      { key: `${kind}.wallSeconds`, heading: `${title}, s`, digits: 2 },
      { key: `${kind}.cpuSeconds`, heading: 'CPU, s', digits: 2 },
    ]),
    rows,
    aims,
    notes: 'missing' in found ? [`Not covered: pgBackRest (${found.missing}).`] : [],
  }
}

function archiveGet(ours: Ours, name: string): RestoreContestant {
  return {
    name,
    archives: throughTheBridge(ours, 'ours'),
    prepare: async ({ archive }) => ({
      restore_command: `${ours.launcher} archive-get "%f" "%p"`,
      'pgarchivist.repository': `file://${archive}`,
    }),
  }
}

function pgBackRestContestants(pgBackRest: PgBackRest): RestoreContestant[] {
  const asynchronous = { 'archive-async': 'y', 'process-max': '2' }
  const archives = pgBackRestPush(pgBackRest, 'pgBackRest', { ...asynchronous, ...pgBackRestCompression })
  const contestant = (name: string, settings: Record<string, string>): RestoreContestant => ({
    name,
    archives,
    prepare: async ({ archive, dataDirectory, scratch }) => {
      const all = { ...asynchronous, ...settings }
      const command = await configure(pgBackRest, {
        directory: scratch,
        repository: archive,
        dataDirectory,
        settings: all,
      })
      return { restore_command: `${command.join(' ')} archive-get %f "%p"` }
    },
  })
  return [
    contestant('pgBackRest, asynchronous, 2 processes, its usual queue (128 MiB)', {}),
    contestant('pgBackRest, asynchronous, 2 processes, a queue of 1 GiB', {
      'archive-get-queue-max': '1GiB',
    }),
  ]
}

const copy: RestoreContestant = {
  name: '`cp` of uncompressed segments',
  prepare: async ({ archive }) => ({ restore_command: `cp "${archive}/%f" "%p"` }),
}

/** What replaying takes by itself. */
const alreadyThere: RestoreContestant = {
  name: 'nobody: the segments are in `pg_wal` already',
  prepare: async ({ corpus, dataDirectory }) => {
    await copySegments(corpus, join(dataDirectory, 'pg_wal'))
    return { restore_command: 'false' }
  },
}

async function restoreOnce(
  arena: WalArena,
  contestant: RestoreContestant,
  archive: string,
  signal: AbortSignal,
): Promise<Restore> {
  signal.throwIfAborted()
  const { corpus } = arena
  const [dataDirectory, scratch] = [arena.path('restored'), arena.path('restored-scratch')]
  try {
    await run('cp', ['-a', '--reflink=never', corpus.backupDirectory, dataDirectory])
    const settings = await contestant.prepare({ corpus, archive, dataDirectory, scratch })
    const configuration = join(dataDirectory, 'postgresql.conf')
    const lines = settingLines({ ...serverSettings(arena.path('')), archive_mode: 'off', ...settings })
    await writeFile(configuration, `${await readFile(configuration, 'utf8')}${lines}`)
    const signalFile = join(dataDirectory, 'recovery.signal')
    await writeFile(signalFile, '')
    await giveAway(signalFile)
    await run('sync', ['-f', dataDirectory])
    await warm(archive)
    await using server = await WatchedServer.start({
      reaper: arena.reaper,
      programDirectory: arena.programDirectory,
      dataDirectory,
      logPath: arena.path('restored.log'),
    })
    const deadline = server.startedAt + Math.max(limitMsMin, corpus.segments.length * limitMsPerSegment)
    while (!recoveryEnd.test(await server.log())) {
      await server.requireAlive().catch((error: unknown) => {
        throw new Error(`${contestant.name}: ${error instanceof Error ? error.message : String(error)}`)
      })
      if (Date.now() > deadline) {
        const log = tail(await server.log())
        throw new Error(`${contestant.name} has not restored everything; the log ends with:\n${log}`)
      }
      await sleep(pollMs, undefined, { signal })
    }
    const cpuSeconds = await server.cpuSeconds()
    const log = await server.log()
    const end = endOfRedo(log)
    if (end !== corpus.segments.at(-1)) {
      throw new Error(
        `with ${contestant.name} recovery has ended in "${end}"; the log ends with:\n${tail(log)}`,
      )
    }
    const wallSeconds = (timeOf(log, recoveryEnd) - timeOf(log, recoveryStart)) / 1_000
    return { wallSeconds, cpuSeconds }
  } finally {
    await rm(dataDirectory, { recursive: true, force: true })
    await rm(scratch, { recursive: true, force: true })
  }
}

/** When the server wrote the first such line of its log. */
function timeOf(log: string, message: RegExp): number {
  const line = log.split('\n').find(each => message.test(each)) ?? ''
  const time = /^(\S+) (\S+) GMT /.exec(line)
  return Date.parse(`${time?.[1]}T${time?.[2]}Z`)
}

/** The segment with the last record that was replayed, on the first timeline. */
function endOfRedo(log: string): string | undefined {
  const [, high = '', low = ''] = /redo done at ([0-9A-F]+)\/([0-9A-F]+)/.exec(log) ?? []
  if (high === '') return undefined
  const segment = Math.floor(Number.parseInt(low, 16) / segmentBytes)
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `00000001${hex(Number.parseInt(high, 16))}${hex(segment)}`
}
