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
import { alreadyThere, type RestoreContestant, restoreOnce } from './restore-once.ts'
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

export const distance: Benchmark = { name: 'distance', isLong: true, run }

/** Archives, unless only restoring is of interest, and restores, each turn in a bucket of its own. */
interface Contestant {
  name: string
  archives?(bucket: string): WalContestant
  restores(bucket: string): RestoreContestant
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
  await warmUp(ceph)

  const samples = new Map<string, Array<Record<string, number>>>()
  const complaints = new Set<string>()
  await using arena = await WalArena.open(major, corpus)
  for (const roundTripMs of roundTripsMs) {
    await using line = await DelayLine.to(ceph, roundTripMs)
    const contestants = [
      throughTheBridge(ours, line, 'ours, all defaults'),
      throughTheBridge(ours, line, 'ours, `archive_ahead = 16`', { 'pgarchivist.archive_ahead': '16' }),
      ...('missing' in found ? [] : Object.keys(theirSettings).map(how => pgBackRest(found, line, how))),
      // In each round, because the machine is not the same from hour to hour.
      { name: alreadyThere.name, restores: () => alreadyThere },
    ]
    for (let round = 0; round < rounds; round++) {
      const first = round % contestants.length
      for (const contestant of [...contestants.slice(first), ...contestants.slice(0, first)]) {
        const { name } = contestant
        const bucket = await ceph.createBucket()
        const about = `${roundTripMs} ms away, round ${round + 1} of ${rounds}: ${name}`
        const all = [corpus.backupSegment, ...corpus.segments]
        const archive = arena.path(`unused-${bucket}`)
        const archiving = contestant.archives?.(bucket)
        if (archiving !== undefined) progress(`archiving ${about}`)
        const drain = archiving && (await arena.archiveTo(archive, archiving, all, signal))
        progress(`restoring ${about}`)
        const restored = await restoreOnce(arena, contestant.restores(bucket), '', signal)
        // It keeps everything in memory, and would be full before the end.
        await ceph.removeBucket(bucket)
        for (const complaint of drain?.complaints.slice(0, 1) ?? []) complaints.add(`${name}: ${complaint}`)
        const each = samples.get(name) ?? []
        samples.set(name, each)
        each[round] = {
          ...each[round],
          [`${roundTripMs}.restore`]: restored.wallSeconds,
          ...(drain && {
            [`${roundTripMs}.drain`]: drain.wallSeconds,
            [`${roundTripMs}.cpu`]: drain.cpuSeconds,
            [`${roundTripMs}.megabytes`]: drain.largestMegabytes,
          }),
        }
      }
    }
  }

  const rows = [...samples].map(([name, each]) => rowOf(name, each))
  for (const { values, samples: each } of rows) {
    const megabytes = roundTripsMs.flatMap(ms => each[`${ms}.megabytes`] ?? [])
    if (megabytes.length > 0) values['megabytes'] = Math.max(...megabytes)
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
  const isTheirs = ({ name }: { name: string }) => name.startsWith('pgBackRest')
  const aims: Aim[] = []
  for (const { name, values } of rows.filter(row => row.name.startsWith('ours'))) {
    for (const theirs of rows.filter(isTheirs)) {
      for (const what of ['drain', 'restore'] as const) {
        for (const ms of roundTripsMs) {
          const factor =
            (theirs.values[`${ms}.${what}`] ?? Number.NaN) / (values[`${ms}.${what}`] ?? Number.NaN)
          const aim = ms === 30 ? factorAt30Aim : 1
          aims.push({
            text: `${name}, ${ms} ms away, ${what === 'drain' ? 'archiving' : 'restoring'}: time of ${theirs.name} divided by ours, at least ${aim}`,
            figure: factor.toFixed(2),
            met: factor >= aim,
          })
        }
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
  const url = (bucket: string) =>
    `s3://${bucket}/wal?endpoint=${line.endpoint}&region=${line.ceph.region}&ca_file=${line.ceph.address.caFile}`
  return {
    name,
    archives: bucket => ({
      name,
      environment,
      prepare: async () => ({
        archive_library: ours.library,
        'pgarchivist.module': 'repository',
        'pgarchivist.repository': url(bucket),
        ...settings,
      }),
      stored: () => storedIn(line, bucket),
    }),
    restores: bucket => ({
      name,
      environment,
      prepare: async () => ({
        restore_command: `${ours.launcher} archive-get "%f" "%p"`,
        'pgarchivist.repository': url(bucket),
      }),
    }),
  }
}

/** Besides what its manual advises: nothing, and the compression that we have. */
const theirSettings: Record<string, ArchiverSettings> = {
  'all else as by default (gz 6)': {},
  'zst 1': { 'compress-type': 'zst', 'compress-level': '1' },
}

function pgBackRest(found: PgBackRest, line: DelayLine, how: string): Contestant {
  const name = `pgBackRest, asynchronous, ${pgBackRestProcesses} processes, ${how}`
  const commandFor = (
    bucket: string,
    { scratch, dataDirectory }: { scratch: string; dataDirectory: string },
  ) =>
    configure(found, {
      directory: scratch,
      repository: '/wal',
      dataDirectory,
      settings: {
        'archive-async': 'y',
        'process-max': `${pgBackRestProcesses}`,
        ...theirSettings[how],
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
    archives: bucket => ({
      name,
      prepare: async turn => {
        const command = await commandFor(bucket, turn)
        await createStanza(command)
        return { archive_command: `${command.join(' ')} archive-push %p` }
      },
      stored: () => storedIn(line, bucket),
    }),
    restores: bucket => ({
      name,
      prepare: async turn => {
        const command = await commandFor(bucket, turn)
        return { restore_command: `${command.join(' ')} archive-get %f "%p"` }
      },
    }),
  }
}

/** Seen without the delay. */
async function storedIn({ ceph }: DelayLine, bucket: string): Promise<number[]> {
  process.env['AWS_ACCESS_KEY_ID'] = ceph.accessKey
  process.env['AWS_SECRET_ACCESS_KEY'] = ceph.secretKey
  const url = `s3://${bucket}?endpoint=${ceph.address.secureEndpoint}&region=${ceph.region}&ca_file=${ceph.address.caFile}`
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

/** What a gateway does for the first time takes a second, which is not to be anybody's. */
async function warmUp(ceph: RunningCeph): Promise<void> {
  const bucket = await ceph.createBucket()
  const path = `/${bucket}/warm`
  for (const body of ['warm', 'x'.repeat(4 * 1024 ** 2)]) await ceph.request({ method: 'PUT', path, body })
  for (const query of [{}, { 'list-type': '2' }])
    await ceph.request({ method: 'GET', path: `/${bucket}`, query })
  for (const each of [path, `${path}-missing`]) await ceph.request({ method: 'GET', path: each })
  await ceph.removeBucket(bucket)
}

/** The way to a store that is so far away. */
class DelayLine implements AsyncDisposable {
  readonly ceph: RunningCeph
  /** Stands for the gateway. */
  readonly endpoint: string
  readonly #distance: Distance | undefined

  private constructor(ceph: RunningCeph, distance: Distance | undefined) {
    this.ceph = ceph
    this.#distance = distance
    this.endpoint =
      distance === undefined ? ceph.address.secureEndpoint : `https://127.0.0.1:${distance.port}`
  }

  /** Where there is no distance, nothing is between. */
  static async to(ceph: RunningCeph, roundTripMs: number): Promise<DelayLine> {
    if (roundTripMs === 0) return new DelayLine(ceph, undefined)
    return new DelayLine(ceph, await Distance.start({ target: ceph.address.secureEndpoint, roundTripMs }))
  }

  get port(): number {
    return Number(new URL(this.endpoint).port)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#distance?.stop()
  }
}
