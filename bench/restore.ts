// A base backup and the WAL after it: how long a server takes to replay all of it, by who brings the segments.

import { join } from 'node:path'
import { temporaryDirectory } from '../test/support/unprivileged.ts'
import { type Aim, type Benchmark, type BenchmarkOptions, type Result, rowOf } from './benchmark.ts'
import { configure, findPgBackRest, type PgBackRest } from './pgbackrest.ts'
import { publishPackage } from './published-package.ts'
import { alreadyThere, type RestoreContestant, restoreOnce } from './restore-once.ts'
import { WalArena, type WalContestant } from './wal-arena.ts'
import { buildLibraryFor, type Ours, pgBackRestPush, throughTheBridge } from './wal-contestants.ts'
import { walCorpora } from './wal-corpus.ts'
import { workloads } from './workloads.ts'

const usualSegments = 200
const usualRounds = 3

// The fewest bytes to read and the least to decompress among those that it can write.
const pgBackRestCompression = { 'compress-type': 'zst', 'compress-level': '1' }

export const restore: Benchmark = { name: 'restore', isLong: true, run: runBenchmark }

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
