// WAL as servers write it, made by a real one and kept between runs, with a base backup from before it and the cluster
// that wrote it.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Client } from 'pg'
import { type PostgresServer, startPostgres } from '../test/support/postgresql-server.ts'
import { serverHeaders } from '../test/support/server-library.ts'
import { giveAway, temporaryDirectory } from '../test/support/unprivileged.ts'
import { type Workload, workloads } from './workloads.ts'

export const segmentBytes = 16 * 1024 * 1024

// One for each core of a small machine; more would only write the same in another order.
const sessions = 2

export interface Corpus {
  workload: Workload
  /** Names, one after another, and full. */
  segments: string[]
  /** The one before them, in which the backup was begun and ended: there is next to nothing in it. */
  backupSegment: string
  /** Holds all these. */
  walDirectory: string
  /** The cluster that wrote them, shut down later, without them. Not to be started, but to be copied. */
  dataDirectory: string
  /** A base backup whose recovery begins in its segment. Without WAL, and to be copied as well. */
  backupDirectory: string
}

export interface CorpusOptions {
  major: number
  workload: Workload
  segments: number
  signal: AbortSignal
  progress: (text: string) => void
}

/** Takes minutes the first time, for a few gigabytes. */
export async function walCorpus(options: CorpusOptions): Promise<Corpus> {
  const { major, workload, segments } = options
  const cache = join(await cacheDirectory(), 'bench-wal')
  const place = join(cache, `${major}-${workload.name}-${workload.recipe}-${segments}`)
  if (!existsSync(place)) {
    await mkdir(cache, { recursive: true })
    await chmod(cache, 0o755)
    await removeIncomplete(cache)
    // It gets its name complete.
    const incomplete = `${place}.${process.pid}`
    try {
      await make(incomplete, options)
      await rename(incomplete, place)
    } finally {
      await rm(incomplete, { recursive: true, force: true })
    }
  }
  const walDirectory = join(place, 'wal')
  const [backupSegment = '', ...full] = (await readdir(walDirectory)).toSorted()
  return {
    workload,
    segments: full,
    backupSegment,
    walDirectory,
    dataDirectory: join(place, 'data'),
    backupDirectory: join(place, 'backup'),
  }
}

/** All workloads, because what holds for one need not hold for the other. */
export async function walCorpora(options: Omit<CorpusOptions, 'workload'>): Promise<Corpus[]> {
  const corpora: Corpus[] = []
  for (const workload of workloads) corpora.push(await walCorpus({ ...options, workload }))
  return corpora
}

/** Where things outside of the checkout are kept: the headers of the servers are among them. */
async function cacheDirectory(): Promise<string> {
  const [headers] = (await serverHeaders()).values()
  if (headers === undefined)
    throw new Error('there are no server headers; scripts/postgresql/install says why')
  return dirname(headers)
}

async function removeIncomplete(cache: string): Promise<void> {
  for (const name of await readdir(cache)) {
    const pid = /\.(\d+)$/.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) {
      await rm(join(cache, name), { recursive: true, force: true })
    }
  }
}

async function make(place: string, options: CorpusOptions): Promise<void> {
  const { major, workload, segments, signal, progress } = options
  await using directory = await temporaryDirectory()
  const data = join(directory.path, 'data')
  await using server = await startPostgres({
    major,
    dataDirectory: data,
    walSegmentMegabytes: segmentBytes / 1024 / 1024,
    settings: {
      shared_buffers: '256MB',
      synchronous_commit: 'off',
      // Nothing is removed before it was copied. Checkpoints come as they do with the usual settings, and with them the
      // full-page images.
      wal_keep_size: `${(segments + 1_000) * 16}MB`,
    },
  })
  progress(`${workload.name}: making the tables`)
  await server.query(workload.schema)
  // Otherwise autovacuum does it while the backup is taken, which then ends many segments after it has begun.
  await server.query('VACUUM')
  await mkdir(place)
  await chmod(place, 0o755)
  await server.switchWal()
  const backup = join(place, 'backup')
  const { startLsn, endLsn } = await server.baseBackup(backup, { wal: false })
  const [first, consistent] = [await segmentOf(server, startLsn), await segmentOf(server, endLsn)]
  progress(`${workload.name}: writing ${segments} segments of WAL`)
  await write(server, workload, startLsn, segments, signal)
  const last = await server.switchWal()
  await server.stop('fast')

  const names = (await readdir(join(data, 'pg_wal'))).filter(name => /^[0-9A-F]{24}$/.test(name)).toSorted()
  const corpus = names.slice(names.indexOf(first)).slice(0, segments + 1)
  if (corpus.length <= segments || (corpus.at(-1) ?? '') > last || corpus[0] !== first) {
    throw new Error(`the server did not write ${segments} segments after "${first}"`)
  }
  if ((corpus.at(-1) ?? '') <= consistent) {
    throw new Error(
      `the base backup needs WAL up to "${consistent}", which is more than ${segments} segments`,
    )
  }
  const wal = join(place, 'wal')
  await mkdir(wal)
  for (const name of corpus) {
    await copyFile(join(data, 'pg_wal', name), join(wal, name))
    await giveAway(join(wal, name))
  }
  for (const name of names) {
    // What comes after the last checkpoint belongs to the cluster.
    if (name <= last) await rm(join(data, 'pg_wal', name))
  }
  await cp(data, join(place, 'data'), { recursive: true, preserveTimestamps: true })
  await promisify(execFile)('chown', ['-R', '--reference', data, join(place, 'data')])
  await promisify(execFile)('sync', ['-f', place])
}

/** Lets some sessions work until so many segments are full. */
async function write(
  server: PostgresServer,
  workload: Workload,
  startLsn: string,
  segments: number,
  signal: AbortSignal,
): Promise<void> {
  const bytes = (segments + 1) * segmentBytes
  const isEnough = async (client: Client) => {
    const { rows } = await client.query<{ enough: boolean }>(
      'SELECT pg_current_wal_lsn() - $1::pg_lsn >= $2 AS enough',
      [startLsn, bytes],
    )
    return rows[0]?.enough === true
  }
  await Promise.all(
    Array.from({ length: sessions }, async () => {
      const client = await server.connect()
      try {
        while (!(await isEnough(client))) {
          signal.throwIfAborted()
          await client.query(workload.work)
        }
      } finally {
        await client.end()
      }
    }),
  )
}

async function segmentOf(server: PostgresServer, lsn: string): Promise<string> {
  const [row] = await server.query<{ name: string }>('SELECT pg_walfile_name($1::pg_lsn) AS name', [lsn])
  return row?.name ?? ''
}
