// A copy of the cluster that wrote a corpus, in which contestants take turns at archiving it, each to a directory of its own.

import { execFile } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { programDirectories } from '../test/support/postgresql-server.ts'
import {
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
} from '../test/support/unprivileged.ts'
import { type ArchiverSettings, settingLines, tail } from './contestants.ts'
import type { Corpus } from './wal-corpus.ts'
import { buildReaper, WatchedServer } from './watched-server.ts'

const run = promisify(execFile)

const pollMs = 10
const memoryMs = 200
// Ten times what the slowest known one takes on a machine that does nothing else.
const limitMsPerSegment = 5_000
const limitMsMin = 60_000

/** Somebody who archives a corpus. */
export interface WalContestant {
  name: string
  /** Makes ready what it needs, and returns the server's settings. Nothing of that is measured. */
  prepare(turn: Turn): Promise<ArchiverSettings>
  /** Is there nothing stored in the end? */
  storesNothing?: boolean
  /** Bytes of all that is stored in the end, where that is not in the directory. */
  stored?(turn: Turn): Promise<number[]>
  /** Of the server, besides what all servers have. */
  environment?: NodeJS.ProcessEnv
}

/** All directories are for this turn alone. */
export interface Turn {
  /** Where to archive to; it is there, and empty. */
  archive: string
  /** A path that is free, for what a contestant needs beside it. */
  scratch: string
  dataDirectory: string
}

export interface WalDrain {
  /** From the start of the server until the last file is archived. */
  wallSeconds: number
  /** Of the archiver, of what it has started, and of what that has left behind. */
  cpuSeconds: number
  storedMegabytes: number
  largestMegabytes: number
  togetherMegabytes: number
  /** What the server said of it that it would not have to say. */
  complaints: string[]
}

export class WalArena implements AsyncDisposable {
  readonly major: number
  readonly corpus: Corpus
  readonly reaper: string
  readonly programDirectory: string
  readonly #directory: TemporaryDirectory
  readonly #configuration: string
  #turns = 0

  private constructor(fields: {
    major: number
    corpus: Corpus
    reaper: string
    programDirectory: string
    directory: TemporaryDirectory
    configuration: string
  }) {
    this.major = fields.major
    this.corpus = fields.corpus
    this.reaper = fields.reaper
    this.programDirectory = fields.programDirectory
    this.#directory = fields.directory
    this.#configuration = fields.configuration
  }

  static async open(major: number, corpus: Corpus): Promise<WalArena> {
    const directory = await temporaryDirectory()
    try {
      const programDirectory = (await programDirectories()).get(major)
      if (programDirectory === undefined) throw new Error(`PostgreSQL ${major} is not available here`)
      const data = join(directory.path, 'data')
      await run('cp', ['-a', '--reflink=never', corpus.dataDirectory, data])
      await copySegments(corpus, join(data, 'pg_wal'))
      const configuration = await readFile(join(data, 'postgresql.conf'), 'utf8')
      const reaper = await buildReaper(directory.path)
      return new WalArena({ major, corpus, reaper, programDirectory, directory, configuration })
    } catch (error) {
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  get dataDirectory(): string {
    return join(this.#directory.path, 'data')
  }

  /** For what belongs to the arena as a whole. */
  path(name: string): string {
    return join(this.#directory.path, name)
  }

  /** Lets somebody archive the segments, measures it, and removes what was archived. */
  async drain(contestant: WalContestant, signal: AbortSignal): Promise<WalDrain> {
    const archive = this.path(`archive-${++this.#turns}`)
    try {
      return await this.archiveTo(archive, contestant, this.corpus.segments, signal)
    } finally {
      await rm(archive, { recursive: true, force: true })
    }
  }

  /** The same, with what was archived left in a directory, which must not be there before. */
  async archiveTo(
    archive: string,
    contestant: WalContestant,
    names: readonly string[],
    signal: AbortSignal,
  ): Promise<WalDrain> {
    signal.throwIfAborted()
    await privateDirectory(archive)
    const scratch = this.path(`scratch-${++this.#turns}`)
    const turn = { archive, scratch, dataDirectory: this.dataDirectory }
    await this.#configure(await contestant.prepare(turn))
    const status = join(this.dataDirectory, 'pg_wal/archive_status')
    await markReady(status, names)
    // On disk like the segments of a server, so that nobody's fsync has to wait for ours, and in memory like what a
    // server has just written.
    await run('sync', ['-f', this.#directory.path])
    await warm(join(this.dataDirectory, 'pg_wal'))
    try {
      await using server = await WatchedServer.start({
        reaper: this.reaper,
        programDirectory: this.programDirectory,
        dataDirectory: this.dataDirectory,
        logPath: this.path('server.log'),
        environment: contestant.environment,
      })
      try {
        return await this.#watch(server, contestant, { ...turn, names, status, signal })
      } finally {
        // A server would not stop before they are archived.
        for (const name of names) await rm(join(status, `${name}.ready`), { force: true })
      }
    } finally {
      await rm(scratch, { recursive: true, force: true })
    }
  }

  async #watch(
    server: WatchedServer,
    contestant: WalContestant,
    turn: Turn & { names: readonly string[]; status: string; signal: AbortSignal },
  ): Promise<WalDrain> {
    const { archive, names, status, signal } = turn
    const deadline = server.startedAt + Math.max(limitMsMin, names.length * limitMsPerSegment)
    // Files are archived in the order of their names.
    const last = join(status, `${names.at(-1)}.done`)
    let lookedAt = 0
    while (!existsSync(last)) {
      await server.requireAlive()
      if (Date.now() > deadline) {
        const log = tail(await server.log())
        throw new Error(`${contestant.name} has not archived everything; the log ends with:\n${log}`)
      }
      if (performance.now() > lookedAt + memoryMs) {
        await server.lookAtMemory()
        lookedAt = performance.now()
      }
      await sleep(pollMs, undefined, { signal })
    }
    const cpuSeconds = await server.archivingCpuSeconds()
    await server.lookAtMemory()
    const { largest, together } = server.peakMegabytes
    const missing = names.find(name => !existsSync(join(status, `${name}.done`)))
    if (missing !== undefined) throw new Error(`${contestant.name} has left out "${missing}"`)
    const stored = (await contestant.stored?.(turn)) ?? (await sizesBelow(archive))
    if (contestant.storesNothing !== true && stored.length < names.length) {
      throw new Error(`${contestant.name} has stored ${stored.length} files of ${names.length}`)
    }
    const complaints = (await server.log())
      .split('\n')
      .filter(line => /(WARNING|ERROR|FATAL|PANIC|archive command failed)/.test(line))
    return {
      // The rename to its last name is when the server was told.
      wallSeconds: (statSync(last).ctimeMs - server.startedAt) / 1_000,
      cpuSeconds,
      storedMegabytes: stored.reduce((sum, bytes) => sum + bytes, 0) / 1e6,
      largestMegabytes: largest,
      togetherMegabytes: together,
      complaints,
    }
  }

  /** Nothing is left of the settings before. */
  async #configure(settings: ArchiverSettings): Promise<void> {
    const lines = settingLines({
      ...serverSettings(this.#directory.path),
      archive_mode: 'on',
      archive_library: '',
      archive_command: '',
      // The same segments are archived again and again.
      wal_keep_size: '1000GB',
      ...settings,
    })
    await writeFile(join(this.dataDirectory, 'postgresql.conf'), `${this.#configuration}${lines}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]()
  }
}

/** As in real life, other than where the WAL was made. */
export function serverSettings(socketDirectory: string): ArchiverSettings {
  return {
    unix_socket_directories: socketDirectory,
    fsync: 'on',
    synchronous_commit: 'on',
    shared_buffers: '512MB',
  }
}

async function markReady(status: string, names: readonly string[]): Promise<void> {
  await rm(status, { recursive: true, force: true })
  await mkdir(status, { mode: 0o700 })
  await giveAway(status)
  for (const name of names) {
    const path = join(status, `${name}.ready`)
    await writeFile(path, '', { mode: 0o600 })
    await giveAway(path)
  }
}

async function sizesBelow(directory: string): Promise<number[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile())
  return await Promise.all(
    files.map(async ({ parentPath, name }) => (await stat(join(parentPath, name))).size),
  )
}

/** Reads all that is there, so that nobody finds on disk what another one found in memory. */
export async function warm(directory: string): Promise<void> {
  await run('sh', ['-c', 'find "$1" -type f -exec cat {} + >/dev/null', 'sh', directory])
}

/** Copies the segments of a corpus to a directory, as a server would have them in pg_wal. */
export async function copySegments(corpus: Corpus, directory: string): Promise<void> {
  const files = [corpus.backupSegment, ...corpus.segments].map(name => join(corpus.walDirectory, name))
  await run('cp', ['-a', '--reflink=never', '-t', directory, ...files])
}
