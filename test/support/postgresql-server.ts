// Real PostgreSQL servers for tests and the demo: each in a throwaway directory, reachable only through a Unix
// socket in it, run by an unprivileged user.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { appendFile, type FileHandle, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Client, type ClientConfig, type QueryResultRow } from 'pg'
import { type BaseBackup, type BaseBackupOptions, takeBaseBackup } from './postgresql-base-backup.ts'
import {
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from './unprivileged.ts'

const run = promisify(execFile)

export const requiredMajors = [15, 16, 17, 18]

export interface PostgresOptions {
  /** What the postmaster, and all that it starts, has in its environment besides. */
  environment?: Record<string, string> | undefined
  major: number
  /** Written to postgresql.conf, so that others who read the file see them too. */
  settings?: Record<string, string>
  walSegmentMegabytes?: number
  /** Used as it is if it holds a cluster (such as a base backup), else created. Not removed with the server. */
  dataDirectory?: string
  /** Starts in recovery: `recovery` for a targeted recovery, `standby` for one that goes on. */
  signalFile?: 'recovery' | 'standby'
}

export type StopMode = 'smart' | 'fast' | 'immediate'

const stopSignals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const

let programs: Promise<Map<number, string>> | undefined

/** The directories of PostgreSQL's programs by major version. What is missing and can be had is fetched first. */
export function programDirectories(): Promise<Map<number, string>> {
  programs ??= (async () => {
    const install = join(import.meta.dirname, '../../scripts/postgresql/install')
    const child = spawn(install, ['--list'], { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(child, 'close')
    const lines = (await child.stdout.setEncoding('utf8').toArray()).join('').split('\n')
    const [status] = await ended
    if (status !== 0)
      throw new Error('there are no PostgreSQL servers to test with; scripts/postgresql/install says why')
    return new Map(
      lines
        .filter(line => line !== '')
        .map(line => [Number.parseInt(line), line.slice(line.indexOf(' ') + 1)]),
    )
  })()
  return programs
}

/** The majors that can be started here, ascending: 15 to 18, and 19 where it could be fetched. */
export async function availableMajors(): Promise<number[]> {
  return [...(await programDirectories()).keys()].toSorted((a, b) => a - b)
}

// A throwaway cluster need not survive the machine, only its own processes, and for those the kernel's page
// cache is enough. A test that is about fsync sets it on again.
const testSettings = {
  fsync: 'off',
  listen_addresses: '',
  shared_buffers: '16MB',
  max_connections: '20',
  // Debian's servers look for time zones where the system has them, which it may not.
  log_timezone: 'GMT',
  timezone: 'GMT',
}

export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const programDirectory = (await programDirectories()).get(options.major)
  if (programDirectory === undefined) throw new Error(`PostgreSQL ${options.major} is not available here`)
  const directory = await temporaryDirectory()
  try {
    const server = new PostgresServer(options, programDirectory, directory)
    await server.prepare(options)
    await server.start()
    return server
  } catch (error) {
    await directory[Symbol.asyncDispose]()
    throw error
  }
}

const startTimeoutMs = 60_000
const stopTimeoutMs = 60_000
const orphansPatienceMs = 10_000
const logTailLines = 20

export class PostgresServer implements AsyncDisposable {
  readonly major: number
  readonly dataDirectory: string
  readonly socketDirectory: string
  // Every server has a directory of its own, so all can have the same port.
  readonly port = 5432
  readonly programDirectory: string
  readonly #directory: TemporaryDirectory
  readonly #environment: Record<string, string>
  #postmaster: ChildProcess | undefined
  /** Children that the postmaster had when it was killed. */
  #orphans: number[] = []

  constructor(options: PostgresOptions, programDirectory: string, directory: TemporaryDirectory) {
    this.major = options.major
    this.programDirectory = programDirectory
    this.#directory = directory
    this.#environment = options.environment ?? {}
    this.socketDirectory = directory.path
    this.dataDirectory = options.dataDirectory ?? join(directory.path, 'data')
  }

  /** Called once by startPostgres: makes the cluster and its configuration. */
  async prepare({ settings, walSegmentMegabytes, signalFile }: PostgresOptions): Promise<void> {
    const exists = await readFile(join(this.dataDirectory, 'PG_VERSION')).catch(() => undefined)
    if (exists === undefined) {
      const segmentSize = walSegmentMegabytes === undefined ? [] : [`--wal-segsize=${walSegmentMegabytes}`]
      const cluster = ['-D', this.dataDirectory, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C']
      await run(
        join(this.programDirectory, 'initdb'),
        [...cluster, '--no-sync', '--no-instructions', ...segmentSize],
        {
          ...unprivileged,
          env: unprivilegedEnvironment,
          cwd: this.socketDirectory,
        },
      )
    }
    await this.#writeSettings({ ...testSettings, unix_socket_directories: this.socketDirectory, ...settings })
    if (signalFile !== undefined) {
      const path = join(this.dataDirectory, `${signalFile}.signal`)
      await writeFile(path, '')
      await giveAway(path)
    }
  }

  // The last line of a setting wins, so what is there need not be read.
  async #writeSettings(settings: Record<string, string>): Promise<void> {
    const quoted = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoted(value)}\n`)
    await appendFile(join(this.dataDirectory, 'postgresql.conf'), `\n${lines.join('')}`)
  }

  /** The postmaster's process number; undefined while the server is down. */
  get pid(): number | undefined {
    const child = this.#postmaster
    return child === undefined || hasEnded(child) ? undefined : child.pid
  }

  get #logPath(): string {
    return join(this.socketDirectory, 'server.log')
  }

  /** The text of the server log so far, over all starts. */
  async log(): Promise<string> {
    return await readFile(this.#logPath, 'utf8').catch(() => '')
  }

  /** Starts it, and returns when it accepts connections; in recovery without hot standby, when it is going on. */
  async start(): Promise<void> {
    if (this.pid !== undefined) throw new Error('the server is running already')
    await using logFile = await openLog(this.#logPath)
    // If the test process ends in whatever way, SIGKILL included, the kernel sends the postmaster SIGQUIT, an
    // immediate shutdown. Its own process group keeps Ctrl-C away from it, so that the test process decides the order.
    const command = [
      'setpriv',
      '--pdeathsig',
      'QUIT',
      join(this.programDirectory, 'postgres'),
      '-D',
      this.dataDirectory,
    ]
    const child = spawn('/usr/bin/env', command, {
      ...unprivileged,
      env: { ...unprivilegedEnvironment, ...this.#environment },
      cwd: this.socketDirectory,
      detached: true,
      stdio: ['ignore', logFile.fd, logFile.fd],
    })
    this.#postmaster = child
    await once(child, 'spawn')
    const deadline = Date.now() + startTimeoutMs
    while (!(await this.#isReady(child))) {
      if (hasEnded(child)) throw await this.#failure(`PostgreSQL ${this.major} ended while starting`)
      if (Date.now() > deadline) {
        await this.stop('immediate')
        throw await this.#failure(`PostgreSQL ${this.major} was not ready after ${startTimeoutMs} ms`)
      }
      await sleep(10)
    }
  }

  // postmaster.pid is how a postmaster tells pg_ctl: its number on the first line, its state on the eighth.
  async #isReady(child: ChildProcess): Promise<boolean> {
    const text = await readFile(join(this.dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')
    const lines = text.split('\n')
    const state = lines[7]?.trim()
    return Number(lines[0]) === child.pid && (state === 'ready' || state === 'standby')
  }

  async #failure(message: string): Promise<Error> {
    const tail = (await this.log()).trimEnd().split('\n').slice(-logTailLines)
    return new Error(`${message}; its log ends with:\n${tail.join('\n')}`)
  }

  /** Stops it and returns when the postmaster is gone. Does nothing if it is down. */
  async stop(mode: StopMode = 'fast'): Promise<void> {
    const child = this.#postmaster
    if (child === undefined || hasEnded(child)) return
    const ended = once(child, 'exit', { signal: AbortSignal.timeout(stopTimeoutMs) })
    child.kill(stopSignals[mode])
    try {
      await ended
    } catch (cause) {
      throw new Error(`PostgreSQL ${this.major} is not down ${stopTimeoutMs} ms after a ${mode} shutdown`, {
        cause,
      })
    }
  }

  /** Sends a signal to the postmaster. */
  kill(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') this.#orphans = this.#children()
    this.#postmaster?.kill(signal)
  }

  /**
   * Returns when the postmaster has ended by itself or by a signal. What it could not take along ends a moment later, and has
   * the shared memory until then, which the next postmaster would complain of.
   */
  async ended(): Promise<void> {
    const child = this.#postmaster
    if (child !== undefined && !hasEnded(child)) await once(child, 'exit')
    const deadline = performance.now() + orphansPatienceMs
    while (this.#orphans.some(pid => existsSync(`/proc/${pid}`)) && performance.now() < deadline)
      await sleep(10)
    this.#orphans = []
  }

  #children(): number[] {
    const { pid } = this
    if (pid === undefined) return []
    try {
      return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
    } catch {
      return [] // It has ended by itself.
    }
  }

  /** A connected client, to be ended by the caller. */
  async connect(options: ClientConfig & { replication?: 'true' } = {}): Promise<Client> {
    const client = new Client({
      host: this.socketDirectory,
      port: this.port,
      user: 'postgres',
      database: 'postgres',
      ...options,
    })
    // A test that stops the server under its clients would end with them. Their queries fail nevertheless.
    client.on('error', () => {})
    await client.connect()
    return client
  }

  /** The rows of one statement, each time over a new connection, so that no connection outlives a restart. */
  async query<Row extends QueryResultRow = Record<string, unknown>>(
    sql: string,
    params?: unknown[],
  ): Promise<Row[]> {
    const client = await this.connect()
    try {
      return (await client.query<Row>(sql, params)).rows
    } finally {
      await client.end()
    }
  }

  /** Changes settings in postgresql.conf and reloads. */
  async configure(settings: Record<string, string>): Promise<void> {
    await this.#writeSettings(settings)
    await this.reload()
  }

  /**
   * Reloads the configuration; returns when the postmaster has read it, and also when it has found errors in it,
   * which the log then tells. Other processes follow on their own.
   */
  async reload(): Promise<void> {
    const loaded = async () =>
      (await this.query<{ at: string }>('SELECT pg_conf_load_time()::text AS at'))[0]?.at
    const before = await loaded()
    const logged = (await this.log()).length
    // A file that it cannot read as a whole leaves the time of loading as it was.
    const refused = async () =>
      / configuration file ".*" contains errors/.test((await this.log()).slice(logged))
    this.kill('SIGHUP')
    const deadline = Date.now() + startTimeoutMs
    while ((await loaded()) === before && !(await refused())) {
      if (Date.now() > deadline) throw await this.#failure('the configuration was not reloaded')
      await sleep(10)
    }
  }

  /** Ends recovery; returns when the server can be written to. */
  async promote(): Promise<void> {
    const [row] = await this.query<{ promoted: boolean }>('SELECT pg_promote(true, 60) AS promoted')
    if (!row?.promoted) throw await this.#failure('the server could not be promoted')
  }

  /** Ends the current WAL segment, also if nothing was written to it, and returns its name. */
  async switchWal(): Promise<string> {
    const client = await this.connect()
    try {
      await client.query(`SELECT pg_logical_emit_message(false, 'test', 'something to switch after')`)
      const { rows } = await client.query<{ name: string }>('SELECT pg_walfile_name(pg_switch_wal()) AS name')
      return rows[0]?.name ?? ''
    } finally {
      await client.end()
    }
  }

  /** Takes a base backup over the replication protocol and unpacks it into a new directory. */
  async baseBackup(directory: string, options: BaseBackupOptions = {}): Promise<BaseBackup> {
    await privateDirectory(directory)
    const client = await this.connect({ replication: 'true' })
    try {
      return await takeBaseBackup(client, directory, options)
    } finally {
      await client.end()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A fast shutdown waits for the archiver; a test whose archiver hangs must be able to end all the same.
    const child = this.#postmaster
    if (child !== undefined && !hasEnded(child)) {
      const patience = setTimeout(() => this.kill('SIGQUIT'), 20_000)
      await this.stop('fast').finally(() => clearTimeout(patience))
    }
    await this.#directory[Symbol.asyncDispose]()
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

async function openLog(path: string): Promise<FileHandle> {
  const file = await open(path, 'a')
  if (unprivileged.uid !== undefined) await file.chown(unprivileged.uid, unprivileged.gid)
  return file
}
