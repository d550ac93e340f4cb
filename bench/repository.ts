// A backlog of WAL is archived: by the module `repository`, by pgBackRest, and by what only copies.

import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { temporaryDirectory } from '../test/support/unprivileged.ts'
import { type Aim, type Benchmark, type BenchmarkOptions, type Result, rowOf } from './benchmark.ts'
import type { CodecCost } from './codec-alone.ts'
import { findPgBackRest } from './pgbackrest.ts'
import { publishPackage } from './published-package.ts'
import { WalArena, type WalContestant } from './wal-arena.ts'
import {
  archivePush,
  basicArchive,
  buildLibraryFor,
  copyAndSync,
  nothing,
  pgBackRestPush,
  throughTheBridge,
} from './wal-contestants.ts'
import { type Corpus, walCorpora } from './wal-corpus.ts'
import { workloads } from './workloads.ts'

const usualSegments = 200
const usualRounds = 3
const filesAtOnce = 4 // as "pgarchivist.archive_ahead" has it by default

const defaultsFactorAim = 10
const sameLevelFactorAim = 1.3
const sameLevelCpuAim = 0.8
const busyAim = 1.1
const megabytesAim = 150

export const repository: Benchmark = { name: 'repository', isLong: true, run }

type Sample = Record<string, number>

async function run(options: BenchmarkOptions): Promise<Result> {
  const { major, signal, progress } = options
  const segments = options.segments ?? usualSegments
  const rounds = options.rounds ?? usualRounds
  const corpora = await walCorpora({ major, segments, signal, progress })
  await using directory = await temporaryDirectory()
  progress('building the package')
  const ours = await buildLibraryFor(await publishPackage(join(directory.path, 'published')), major)
  const recipient = await identityToRecipient(await generateX25519Identity())

  const defaults = throughTheBridge(ours, 'ours, all defaults (level 1)')
  const level3 = throughTheBridge(ours, 'ours, level 3', { 'pgarchivist.compression_level': '3' })
  const encrypted = throughTheBridge(ours, 'ours, level 1, one age recipient', {
    'pgarchivist.encryption_recipients': recipient,
  })
  const push = archivePush(ours, 'ours, `archive-push`, all defaults')
  const peers = await pgBackRestContestants()
  const contestants = [
    defaults,
    level3,
    encrypted,
    push,
    ...peers.contestants,
    basicArchive,
    copyAndSync,
    nothing,
  ]
  const alone: Array<Alone & { of: WalContestant }> = [
    { name: 'compress and digest alone, level 1', of: defaults, level: 1, recipients: [] },
    { name: 'compress and digest alone, level 3', of: level3, level: 3, recipients: [] },
    { name: 'compress, digest and encrypt alone, level 1', of: encrypted, level: 1, recipients: [recipient] },
  ]

  const samples = new Map<string, Sample[]>([...contestants, ...alone].map(({ name }) => [name, []]))
  const complaints = new Set<string>()
  // By round, so that a row has all columns in each of its samples.
  const add = (name: string, round: number, sample: Sample) => {
    const all = samples.get(name) ?? []
    all[round] = { ...all[round], ...sample }
  }
  for (const corpus of corpora) {
    const { title } = corpus.workload
    progress(`${title}: copying the cluster`)
    await using arena = await WalArena.open(major, corpus)
    for (let round = 0; round < rounds; round++) {
      const first = round % contestants.length
      for (const contestant of [...contestants.slice(first), ...contestants.slice(0, first)]) {
        progress(`${title}, ${segments} segments, round ${round + 1} of ${rounds}: ${contestant.name}`)
        const drain = await arena.drain(contestant, signal)
        const { wallSeconds, cpuSeconds, storedMegabytes, largestMegabytes, togetherMegabytes } = drain
        add(contestant.name, round, {
          ...inColumns(corpus, { wallSeconds, cpuSeconds }),
          ...(contestant.storesNothing === true ? {} : inColumns(corpus, { storedMegabytes })),
          ...inColumns(corpus, { largestMegabytes, togetherMegabytes }),
        })
        for (const complaint of drain.complaints.slice(0, 1))
          complaints.add(`${contestant.name}: ${complaint}`)
      }
      for (const each of alone) {
        progress(`${title}, ${segments} segments, round ${round + 1} of ${rounds}: ${each.name}`)
        signal.throwIfAborted()
        const { wallSeconds, cpuSeconds, megabytes } = await codecAlone(corpus, each)
        add(each.name, round, inColumns(corpus, { wallSeconds, cpuSeconds, storedMegabytes: megabytes }))
      }
    }
  }

  const rows = [...samples].map(([name, each]) => rowOf(name, each))
  for (const { values, samples: each } of rows) {
    // Memory is the same with either.
    for (const kind of ['largestMegabytes', 'togetherMegabytes']) {
      const peaks = workloads.flatMap(({ name }) => each[`${name}.${kind}`] ?? [])
      if (peaks.length > 0) values[kind] = Math.max(...peaks)
    }
  }
  const figure = (name: string, key: string) => rows.find(row => row.name === name)?.values[key] ?? Number.NaN
  return {
    title: `repository: ${segments} segments of 16 MB that wait, PostgreSQL ${major}, ${peers.title}, medians of ${rounds} rounds`,
    isMarkdown: true,
    columns: [
      ...workloads.flatMap(({ name, title }) => [
        { key: `${name}.wallSeconds`, heading: `${title}, s`, digits: 2 },
        { key: `${name}.cpuSeconds`, heading: `CPU, s`, digits: 2 },
        { key: `${name}.storedMegabytes`, heading: `stored, MB`, digits: 0 },
      ]),
      { key: 'largestMegabytes', heading: 'peak MB, largest process', digits: 0 },
      { key: 'togetherMegabytes', heading: 'peak MB, all', digits: 0 },
    ],
    rows,
    aims: aims(),
    notes: [...peers.notes, ...[...complaints].map(complaint => `The server complained of ${complaint}`)],
  }

  function aims(): Aim[] {
    const cores = availableParallelism()
    const { defaults: theirs, async, sameLevel } = peers
    const of = (key: string) => (contestant: WalContestant) => figure(contestant.name, key)
    const found: Aim[] = []
    for (const { name, title } of workloads) {
      const wall = of(`${name}.wallSeconds`)
      const cpu = of(`${name}.cpuSeconds`)
      if (theirs !== undefined) {
        found.push(
          atLeast(
            `${title}, all defaults, pgBackRest's time divided by ours`,
            wall(theirs) / wall(defaults),
            defaultsFactorAim,
          ),
        )
      }
      for (const [mine, peer] of [
        [defaults, sameLevel[1]],
        [level3, sameLevel[3]],
      ] as const) {
        if (peer === undefined) continue
        const what = `${title}, ${mine.name}, ${peer.name}`
        found.push(
          atLeast(
            `${what}: time of the second divided by the first`,
            wall(peer) / wall(mine),
            sameLevelFactorAim,
          ),
          atMost(`${what}: CPU of the first divided by the second`, cpu(mine) / cpu(peer), sameLevelCpuAim),
        )
      }
      if (async !== undefined) {
        found.push(
          atMost(
            `${title}, ${push.name}, time divided by that of ${async.name}`,
            wall(push) / wall(async),
            1,
          ),
        )
      }
      for (const { name: alone_, of: contestant } of alone) {
        const busy = figure(alone_, `${name}.cpuSeconds`) / cores
        found.push(
          atMost(
            `${title}, ${contestant.name}, time divided by CPU of the codec alone on ${cores} cores`,
            wall(contestant) / busy,
            busyAim,
          ),
        )
      }
    }
    for (const contestant of [defaults, level3, encrypted, push]) {
      const peak = figure(contestant.name, 'largestMegabytes')
      found.push({
        text: `largest process of ${contestant.name}, at most ${megabytesAim} MB`,
        figure: `${peak.toFixed(0)} MB`,
        met: peak <= megabytesAim,
      })
    }
    return found
  }
}

function atLeast(text: string, factor: number, aim: number): Aim {
  return { text: `${text}, at least ${aim}`, figure: factor.toFixed(2), met: factor >= aim }
}

function atMost(text: string, factor: number, aim: number): Aim {
  return { text: `${text}, at most ${aim}`, figure: factor.toFixed(2), met: factor <= aim }
}

interface Peers {
  title: string
  contestants: WalContestant[]
  defaults?: WalContestant
  async?: WalContestant
  /** Asynchronous, by the level of zstd. */
  sameLevel: Record<number, WalContestant>
  notes: string[]
}

async function pgBackRestContestants(): Promise<Peers> {
  const found = await findPgBackRest()
  if ('missing' in found) {
    const notes = [`Not covered: pgBackRest (${found.missing}).`]
    return { title: 'without pgBackRest', contestants: [], sameLevel: {}, notes }
  }
  const asynchronous = { 'archive-async': 'y', 'process-max': '2' }
  const zstd = (level: number) =>
    pgBackRestPush(found, `pgBackRest, asynchronous, 2 processes, zst ${level}`, {
      ...asynchronous,
      'compress-type': 'zst',
      'compress-level': `${level}`,
    })
  const defaults = pgBackRestPush(found, 'pgBackRest, all defaults (synchronous, gz 6)')
  const async = pgBackRestPush(found, 'pgBackRest, asynchronous, 2 processes, gz 6', asynchronous)
  const sameLevel = { 1: zstd(1), 3: zstd(3) }
  return {
    title: `pgBackRest ${found.version}`,
    contestants: [defaults, async, sameLevel[3], sameLevel[1]],
    defaults,
    async,
    sameLevel,
    notes: [],
  }
}

function inColumns({ workload }: Corpus, figures: Sample): Sample {
  return Object.fromEntries(Object.entries(figures).map(([key, value]) => [`${workload.name}.${key}`, value]))
}

interface Alone {
  name: string
  level: number
  recipients: string[]
}

async function codecAlone(corpus: Corpus, { level, recipients }: Alone): Promise<CodecCost> {
  const program = join(import.meta.dirname, 'codec-alone.ts')
  const [first = ''] = corpus.segments
  const options = ['--disable-warning=ExperimentalWarning', program, corpus.walDirectory, first]
  const args = [...options, `${level}`, `${filesAtOnce}`, ...recipients]
  return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout)
}
