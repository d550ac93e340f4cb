// A backlog of WAL goes to an object store, and comes back from it, at several distances: the module `repository` beside
// pgBackRest, both to the same real Ceph.

import { join } from 'node:path'
import { openStore } from '../src/cli/open-store.ts'
import { parseRepositoryUrl } from '../src/repository/repository-url.ts'
import { Distance } from '../test/support/distance.ts'
import { RunningCeph } from '../test/support/running-ceph.ts'
import { temporaryDirectory } from '../test/support/unprivileged.ts'
import { type Aim, type Benchmark, type BenchmarkOptions, type Result, rowOf } from './benchmark.ts'
import type { ArchiverSettings } from './contestants.ts'
import { configure, createStanza, findPgBackRest, type PgBackRest } from './pgbackrest.ts'
import { publishPackage } from './published-package.ts'
import { type RestoreContestant, restoreOnce } from './restore-once.ts'
import { WalArena, type WalContestant } from './wal-arena.ts'
import { buildLibraryFor, type Ours } from './wal-contestants.ts'
import { walCorpus } from './wal-corpus.ts'
import { workloads } from './workloads.ts'

const usualSegments = 100
const usualRounds = 3
const roundTripsMs = [0, 10, 30, 100]
const factorAt30Aim = 2
const megabytesAim = 150

// As the example in pgBackRest's manual has it for archiving asynchronously.
const pgBackRestProcesses = 2
const bucket = 'bench'

export const distance: Benchmark = { name: 'distance', isLong: true, run }

/** Archives and restores, each turn under a prefix of its own. */
interface Contestant {
  name: string
  archives(prefix: string): WalContestant
  restores(prefix: string): RestoreContestant
}

async function run(options: BenchmarkOptions): Promise<Result> {
  const { major, signal, progress } = options
  const segments = options.segments ?? usualSegments
  const rounds = options.rounds ?? usualRounds
  const [workload] = workloads
  if (workload === undefined) throw new Error('there is no workload')
  const corpus = await walCorpus({ major, workload, segments, signal, progress })
  await using directory = await temporaryDirectory()
  progress('building the package')
  const ours = await buildLibraryFor(await publishPackage(join(directory.path, 'published')), major)
  const found = await findPgBackRest()
  progress('starting Ceph')
  await using ceph = await RunningCeph.start()
  await ceph.createBucket(bucket)

  const samples = new Map<string, Array<Record<string, number>>>()
  const complaints = new Set<string>()
  await using arena = await WalArena.open(major, corpus)
  for (const roundTripMs of roundTripsMs) {
    await using line = await DelayLine.to(ceph, roundTripMs)
    const contestants = [
      throughTheBridge(ours, line, 'ours, all defaults'),
      throughTheBridge(ours, line, 'ours, `archive_ahead = 16`', { 'pgarchivist.archive_ahead': '16' }),
      ...('missing' in found ? [] : [pgBackRest(found, line)]),
    ]
    for (let round = 0; round < rounds; round++) {
      const first = round % contestants.length
      for (const contestant of [...contestants.slice(first), ...contestants.slice(0, first)]) {
        const { name } = contestant
        const prefix = `${roundTripMs}-${round}-${contestants.indexOf(contestant)}`
        const about = `${roundTripMs} ms away, round ${round + 1} of ${rounds}: ${name}`
        progress(`archiving ${about}`)
        const all = [corpus.backupSegment, ...corpus.segments]
        const archive = arena.path(`unused-${prefix}`)
        const drain = await arena.archiveTo(archive, contestant.archives(prefix), all, signal)
        progress(`restoring ${about}`)
        const restored = await restoreOnce(arena, contestant.restores(prefix), '', signal)
        for (const complaint of drain.complaints.slice(0, 1)) complaints.add(`${name}: ${complaint}`)
        const each = samples.get(name) ?? []
        samples.set(name, each)
        each[round] = {
          ...each[round],
          [`${roundTripMs}.drain`]: drain.wallSeconds,
          [`${roundTripMs}.restore`]: restored.wallSeconds,
          [`${roundTripMs}.cpu`]: drain.cpuSeconds,
          [`${roundTripMs}.megabytes`]: drain.largestMegabytes,
        }
      }
    }
  }

  const rows = [...samples].map(([name, each]) => rowOf(name, each))
  for (const { values, samples: each } of rows) {
    values['megabytes'] = Math.max(...roundTripsMs.flatMap(ms => each[`${ms}.megabytes`] ?? []))
  }
  const version = 'missing' in found ? 'without pgBackRest' : `pgBackRest ${found.version}`
  return {
    title: `distance: ${segments} segments of 16 MB to a Ceph and back, over TLS, PostgreSQL ${major}, ${version}, medians of ${rounds} rounds`,
    isMarkdown: true,
    columns: [
      ...roundTripsMs.flatMap(ms => [
        { key: `${ms}.drain`, heading: `${ms} ms: archive, s`, digits: 2 },
        { key: `${ms}.restore`, heading: 'restore, s', digits: 2 },
        { key: `${ms}.cpu`, heading: 'CPU, s', digits: 2 },
      ]),
      { key: 'megabytes', heading: 'peak MB, largest process', digits: 0 },
    ],
    rows,
    aims: aimsOf(rows),
    notes: [
      ...('missing' in found ? [`Not covered: pgBackRest (${found.missing}).`] : []),
      ...[...complaints].map(complaint => `The server complained of ${complaint}`),
    ],
  }
}

function aimsOf(rows: Result['rows']): Aim[] {
  const theirs = rows.find(({ name }) => name.startsWith('pgBackRest'))
  const aims: Aim[] = []
  for (const { name, values } of rows) {
    if (values === theirs?.values) continue
    for (const what of ['drain', 'restore'] as const) {
      for (const ms of theirs === undefined ? [] : roundTripsMs) {
        const factor =
          (theirs?.values[`${ms}.${what}`] ?? Number.NaN) / (values[`${ms}.${what}`] ?? Number.NaN)
        const aim = ms === 30 ? factorAt30Aim : 1
        aims.push({
          text: `${name}, ${ms} ms away, ${what === 'drain' ? 'archiving' : 'restoring'}: pgBackRest's time divided by ours, at least ${aim}`,
          figure: factor.toFixed(2),
          met: factor >= aim,
        })
      }
    }
    const peak = values['megabytes'] ?? Number.NaN
    aims.push({
      text: `${name}, largest process, at most ${megabytesAim} MB`,
      figure: `${peak.toFixed(0)} MB`,
      met: peak <= megabytesAim,
    })
  }
  return aims
}

function throughTheBridge(
  ours: Ours,
  line: DelayLine,
  name: string,
  settings: ArchiverSettings = {},
): Contestant {
  const environment = {
    AWS_ACCESS_KEY_ID: line.ceph.accessKey,
    AWS_SECRET_ACCESS_KEY: line.ceph.secretKey,
  }
  const url = (prefix: string) =>
    `s3://${bucket}/${prefix}?endpoint=${line.endpoint}&region=${line.ceph.region}&ca_file=${line.ceph.address.caFile}`
  return {
    name,
    archives: prefix => ({
      name,
      environment,
      prepare: async () => ({
        archive_library: ours.library,
        'pgarchivist.module': 'repository',
        'pgarchivist.repository': url(prefix),
        ...settings,
      }),
      stored: () => storedBelow(line, prefix),
    }),
    restores: prefix => ({
      name,
      environment,
      prepare: async () => ({
        restore_command: `${ours.launcher} archive-get "%f" "%p"`,
        'pgarchivist.repository': url(prefix),
      }),
    }),
  }
}

function pgBackRest(found: PgBackRest, line: DelayLine): Contestant {
  const name = `pgBackRest, asynchronous, ${pgBackRestProcesses} processes, zst 1`
  const commandFor = (
    prefix: string,
    { scratch, dataDirectory }: { scratch: string; dataDirectory: string },
  ) =>
    configure(found, {
      directory: scratch,
      repository: `/${prefix}`,
      dataDirectory,
      settings: {
        'archive-async': 'y',
        'process-max': `${pgBackRestProcesses}`,
        'compress-type': 'zst',
        'compress-level': '1',
        'repo1-type': 's3',
        'repo1-s3-bucket': bucket,
        'repo1-s3-endpoint': '127.0.0.1',
        'repo1-s3-region': line.ceph.region,
        'repo1-s3-key': line.ceph.accessKey,
        'repo1-s3-key-secret': line.ceph.secretKey,
        'repo1-s3-uri-style': 'path',
        'repo1-storage-port': `${line.port}`,
        'repo1-storage-ca-file': line.ceph.address.caFile,
      },
    })
  return {
    name,
    archives: prefix => ({
      name,
      prepare: async turn => {
        const command = await commandFor(prefix, turn)
        await createStanza(command)
        return { archive_command: `${command.join(' ')} archive-push %p` }
      },
      stored: () => storedBelow(line, prefix),
    }),
    restores: prefix => ({
      name,
      prepare: async turn => {
        const command = await commandFor(prefix, turn)
        return { restore_command: `${command.join(' ')} archive-get %f "%p"` }
      },
    }),
  }
}

/** Seen without the delay. */
async function storedBelow({ ceph }: DelayLine, prefix: string): Promise<number[]> {
  process.env['AWS_ACCESS_KEY_ID'] = ceph.accessKey
  process.env['AWS_SECRET_ACCESS_KEY'] = ceph.secretKey
  const url = `s3://${bucket}/${prefix}?endpoint=${ceph.address.secureEndpoint}&region=${ceph.region}&ca_file=${ceph.address.caFile}`
  await using store = await openStore(parseRepositoryUrl(url), {
    writer: 'bench',
    isGroupReadable: false,
    retryMs: 10_000,
    owner: undefined,
  })
  const lengths: number[] = []
  for await (const { length } of store.list('')) lengths.push(length)
  return lengths
}

/** The way to a store that is so far away. */
class DelayLine implements AsyncDisposable {
  readonly ceph: RunningCeph
  readonly #distance: Distance

  private constructor(ceph: RunningCeph, distance: Distance) {
    this.ceph = ceph
    this.#distance = distance
  }

  static async to(ceph: RunningCeph, roundTripMs: number): Promise<DelayLine> {
    return new DelayLine(ceph, await Distance.start({ target: ceph.address.secureEndpoint, roundTripMs }))
  }

  get port(): number {
    return this.#distance.port
  }

  get endpoint(): string {
    return `https://127.0.0.1:${this.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#distance.stop()
  }
}
