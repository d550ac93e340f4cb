// Who archives: the server's own archiver, or ours, each on the data directory of one throwaway cluster.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, copyFile, mkdir, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type PostgresServer, startPostgres } from '../test/support/postgresql-server.ts'
import {
  checkout,
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../test/support/unprivileged.ts'
import { childrenOf, titleOf } from './process-cost.ts'
import { publishPackage } from './published-package.ts'

const stopPatienceMs = 30_000
const logTailLines = 10

/** Somebody who archives from the cluster of an arena, and can be started again and again. */
export interface Contestant {
  name: string
  start(): Promise<Running>
}

export interface Running {
  /** When it was asked to start, in milliseconds since the epoch. */
  startedAt: number
  hasEnded(): boolean
  /** The processes that archive, each with its part in that. */
  processes(): Promise<Array<{ part: string; pid: number }>>
  stop(): Promise<void>
  /** The end of its log. */
  logTail(): Promise<string>
}

/**
 * A stopped cluster, in which contestants take turns. It has segments of 1 MB, so that those which the server writes
 * in passing cost little, and it calls fsync as in real life.
 */
export class Arena implements AsyncDisposable {
  readonly major: number
  readonly #server: PostgresServer
  readonly #directory: TemporaryDirectory
  #published: Promise<string> | undefined

  private constructor(major: number, server: PostgresServer, directory: TemporaryDirectory) {
    this.major = major
    this.#server = server
    this.#directory = directory
  }

  static async open(major: number): Promise<Arena> {
    const directory = await temporaryDirectory()
    try {
      const settings = { archive_mode: 'on', archive_library: '', archive_command: '', fsync: 'on' }
      const server = await startPostgres({ major, walSegmentMegabytes: 1, settings })
      await server.stop('fast')
      return new Arena(major, server, directory)
    } catch (error) {
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  get dataDirectory(): string {
    return this.#server.dataDirectory
  }

  get archiveDirectory(): string {
    return join(this.#directory.path, 'archive')
  }

  /** An empty directory to archive to. */
  async emptyArchive(): Promise<void> {
    await rm(this.archiveDirectory, { recursive: true, force: true })
    await privateDirectory(this.archiveDirectory)
  }

  /** The server's own archiver: the server is started, and its archiver finds what waits. */
  serverArchiver(name: string, settings: ArchiverSettings): Contestant {
    const server = this.#server
    return {
      name,
      start: async () => {
        const lines = settingLines({ archive_library: '', archive_command: '', ...settings })
        await appendFile(join(this.dataDirectory, 'postgresql.conf'), lines)
        const startedAt = Date.now()
        await server.start()
        return {
          startedAt,
          hasEnded: () => server.pid === undefined,
          processes: async () => {
            const pids = server.pid === undefined ? [] : await childrenOf(server.pid)
            for (const pid of pids) {
              if ((await titleOf(pid)).startsWith('postgres: archiver')) return [{ part: 'archiver', pid }]
            }
            return []
          },
          stop: async () => await server.stop('fast'),
          logTail: async () => tail(await server.log()),
        }
      },
    }
  }

  /** Ours, on the data directory alone. */
  pgarchivist(name: string, settings: ArchiverSettings, form: Form = 'published'): Contestant {
    return {
      name,
      start: async () => {
        const place = form === 'published' ? await this.#publishedPackage() : await checkout()
        const command = [join(place, 'bin/pgarchivist'), 'archiver', '-D', this.dataDirectory]
        for (const [key, value] of Object.entries({
          archive_library: '',
          archive_command: '',
          ...settings,
        })) {
          command.push('-c', `${key}=${value}`)
        }
        const logPath = join(this.#directory.path, 'pgarchivist.log')
        await using log = await open(logPath, 'w')
        const startedAt = Date.now()
        // If the benchmark is killed, the kernel ends the archiver.
        const child: ChildProcess = spawn('setpriv', ['--pdeathsig', 'TERM', ...command], {
          ...unprivileged,
          env: unprivilegedEnvironment,
          cwd: '/',
          detached: true,
          stdio: ['ignore', log.fd, log.fd],
        })
        await once(child, 'spawn')
        const hasEnded = () => child.exitCode !== null || child.signalCode !== null
        return {
          startedAt,
          hasEnded,
          processes: async () => {
            if (child.pid === undefined || hasEnded()) return []
            const archivers = (await childrenOf(child.pid)).map(pid => ({ part: 'archiver', pid }))
            return [...archivers, { part: 'supervisor', pid: child.pid }]
          },
          stop: async () => {
            if (hasEnded()) return
            const ended = once(child, 'exit')
            child.kill('SIGTERM')
            const patience = setTimeout(() => child.kill('SIGKILL'), stopPatienceMs)
            await ended.finally(() => clearTimeout(patience))
          },
          logTail: async () => tail(await readFile(logPath, 'utf8').catch(() => '')),
        }
      },
    }
  }

  async #publishedPackage(): Promise<string> {
    this.#published ??= publishPackage(join(this.#directory.path, 'published'))
    return await this.#published
  }

  /** The path of our module that does nothing, where the unprivileged user can read it. */
  async doNothingModule(): Promise<string> {
    return await this.#place('do-nothing.ts')
  }

  /** The path of our module that waits for each file. */
  async waitingModule(): Promise<string> {
    return await this.#place('wait-50ms.ts')
  }

  /** The module that does nothing for the server, compiled; what prevents that, where something does. */
  async doNothingLibrary(): Promise<{ library: string } | { missing: string }> {
    const library = join(await this.#modules(), 'do-nothing.so')
    const source = join(import.meta.dirname, 'do-nothing.c')
    try {
      await promisify(execFile)(
        'gcc',
        ['-O2', '-fPIC', '-shared', `-DPG_MAJOR=${this.major}`, '-o', library, source],
        { timeout: 60_000 },
      )
    } catch (error) {
      const missing = error instanceof Error ? error.message : String(error)
      return { missing: missing.endsWith('ENOENT') ? 'there is no gcc here' : missing }
    }
    return { library }
  }

  async #place(file: string): Promise<string> {
    const path = join(await this.#modules(), file)
    await copyFile(join(import.meta.dirname, file), path)
    return path
  }

  async #modules(): Promise<string> {
    const path = join(this.#directory.path, 'modules')
    await mkdir(path, { recursive: true })
    await giveAway(path)
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]()
    await this.#directory[Symbol.asyncDispose]()
  }
}

/** JavaScript, as it is installed from npm, or TypeScript, as it lies in a checkout. */
export type Form = 'published' | 'checkout'

/** By PostgreSQL's names. */
export type ArchiverSettings = Record<string, string>

/** As postgresql.conf has them. */
export function settingLines(settings: ArchiverSettings): string {
  const lines = Object.entries(settings).map(
    ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
  )
  return `\n${lines.join('')}`
}

/** The end of a log. */
export function tail(text: string): string {
  return text.trimEnd().split('\n').slice(-logTailLines).join('\n')
}
