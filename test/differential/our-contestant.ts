import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type PostgresServer, startPostgres } from '../support/postgresql-server.ts'
import {
  checkout,
  giveAway,
  privateDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../support/unprivileged.ts'
import {
  type ArchiveSettings,
  type Contestant,
  type LogLine,
  noStatistics,
  type Statistics,
} from './contestant.ts'
import { LogFile } from './log-file.ts'
import { type ContestantOptions, serverSettings } from './server-contestant.ts'
import { settle } from './settle.ts'

const run = promisify(execFile)

/** Our archiver beside a server that archives nothing by itself. */
export class OurContestant implements Contestant {
  readonly name: string
  readonly server: PostgresServer
  readonly archiveDirectory: string
  readonly archivesInRecovery = true
  readonly repeatsAtOnce = false
  readonly refusesBothSet = true
  readonly countsLastCycle = true
  readonly #program: string
  readonly #configFile: string
  readonly #logPath: string
  readonly #log: LogFile
  readonly #supervisorPids = new Set<string>()
  #supervisor: ChildProcess | undefined

  private constructor(server: PostgresServer, directory: string, program: string) {
    this.name = `pgarchivist beside PostgreSQL ${server.major}`
    this.server = server
    this.archiveDirectory = join(directory, 'archive')
    this.#program = program
    this.#configFile = join(directory, 'archiver.conf')
    this.#logPath = join(directory, 'archiver.log')
    this.#log = new LogFile(this.#logPath, line => this.#parse(line))
  }

  static async create({ major, dataDirectory, directory }: ContestantOptions): Promise<OurContestant> {
    const program = join(await checkout(), 'bin/pgarchivist')
    const server = await startPostgres({ major, dataDirectory, settings: serverSettings })
    const contestant = new OurContestant(server, directory.path, program)
    try {
      await contestant.#prepare()
      await contestant.#startArchiver()
    } catch (error) {
      await contestant[Symbol.asyncDispose]()
      throw error
    }
    return contestant
  }

  async #prepare(): Promise<void> {
    await privateDirectory(this.archiveDirectory)
    for (const path of [this.#configFile, this.#logPath]) {
      await writeFile(path, '')
      await giveAway(path)
    }
    await this.#writeSettings({
      log_min_messages: 'debug3',
      archive_library: 'basic_archive',
      archive_command: '',
      'basic_archive.archive_directory': this.archiveDirectory,
    })
  }

  // The last line of a setting wins.
  async #writeSettings(settings: Record<string, string>): Promise<void> {
    const lines = Object.entries(settings).map(
      ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
    )
    await appendFile(this.#configFile, lines.join(''))
  }

  async #startArchiver(): Promise<void> {
    await using logFile = await open(this.#logPath, 'a')
    // If the test process ends in whatever way, the kernel ends the archiver.
    const command = ['--pdeathsig', 'QUIT', this.#program, 'archiver']
    const options = ['--pgdata', this.server.dataDirectory, '--config-file', this.#configFile]
    this.#supervisor = spawn('setpriv', [...command, ...options], {
      ...unprivileged,
      env: unprivilegedEnvironment,
      cwd: '/',
      stdio: ['ignore', logFile.fd, logFile.fd],
    })
    await once(this.#supervisor, 'spawn')
    this.#supervisorPids.add(String(this.#supervisor.pid))
    await settle('our archiver has started a process', async () => {
      if (this.#supervisor?.exitCode !== null) throw new Error(await readFile(this.#logPath, 'utf8'))
      return (await this.archiverPid()) !== undefined
    })
  }

  async start(): Promise<void> {
    await this.server.start()
    await this.#startArchiver()
  }

  /** The server first, so that the last cycle finds the segment that its shutdown has ended. */
  async stop(): Promise<void> {
    await this.server.stop('fast')
    const status = await this.#end('SIGTERM')
    if (status !== 0) throw new Error(`our archiver ended with status ${status}`)
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const supervisor = this.#supervisor
    if (supervisor === undefined) return 0
    if (supervisor.exitCode === null && supervisor.signalCode === null) {
      const exited = once(supervisor, 'exit', { signal: AbortSignal.timeout(30_000) })
      supervisor.kill(signal)
      await exited
    }
    return supervisor.exitCode
  }

  /** The archiver tells each change when it takes it over; one that starts later starts with it. */
  async configure(settings: ArchiveSettings): Promise<void> {
    const pidBefore = await this.archiverPid()
    const linesBefore = (await this.log()).length
    await this.#writeSettings({ ...settings })
    this.#supervisor?.kill('SIGHUP')
    await settle('our archiver has the new settings', async () => {
      const texts = (await this.log()).slice(linesBefore).map(({ text }) => text)
      if (!texts.includes('LOG:  received SIGHUP, reloading configuration files')) return false
      const isTold = (name: string) => texts.some(text => text.includes(`parameter "${name}"`))
      return (
        Object.keys(settings).every(isTold) ||
        (await this.archiverPid()) !== pidBefore ||
        pidBefore === undefined
      )
    })
  }

  async archiverPid(): Promise<number | undefined> {
    const pid = this.#supervisor?.pid
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
    return Number.parseInt(children, 10) || undefined
  }

  async statistics(): Promise<Statistics> {
    const { stdout } = await run(
      this.#program,
      ['info', '--pgdata', this.server.dataDirectory, '--output', 'json'],
      { ...unprivileged, env: unprivilegedEnvironment, cwd: '/' },
    )
    const { statistics }: { statistics: Record<keyof Statistics, never> | null } = JSON.parse(stdout)
    if (statistics === null) return noStatistics
    const { archived_count, last_archived_wal, failed_count, last_failed_wal } = statistics
    const time = (text: string | null) => (text === null ? null : new Date(text))
    return {
      archived_count,
      last_archived_wal,
      last_archived_time: time(statistics.last_archived_time),
      failed_count,
      last_failed_wal,
      last_failed_time: time(statistics.last_failed_time),
    }
  }

  async log(): Promise<readonly LogLine[]> {
    return await this.#log.lines()
  }

  #parse(line: string): LogLine | undefined {
    const [, pid, text] = /^\S+ \S+ UTC \[(\d+)\] (\w+: {2}.*)$/.exec(line) ?? []
    if (pid === undefined || text === undefined) return undefined
    return { from: this.#supervisorPids.has(pid) ? 'postmaster' : 'archiver', text }
  }

  async nudge(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end('SIGQUIT')
    await this.server[Symbol.asyncDispose]()
  }
}
