import { join } from 'node:path'
import { type PostgresServer, startPostgres } from '../support/postgresql-server.ts'
import { privateDirectory, type TemporaryDirectory } from '../support/unprivileged.ts'
import type { ArchiveSettings, Contestant, LogLine, Statistics } from './contestant.ts'
import { LogFile } from './log-file.ts'

export interface ContestantOptions {
  major: number
  /** A cluster that is this contestant's own. */
  dataDirectory: string
  /** For everything else. */
  directory: TemporaryDirectory
}

/** Of both servers. Nothing but the script ends a segment, and no segment leaves pg_wal. */
export const serverSettings = {
  archive_mode: 'on',
  autovacuum: 'off',
  checkpoint_timeout: '1h',
  wal_keep_size: '1GB',
  log_line_prefix: '%b [%p] ',
}

/** The server's own archiver with a library of its own. */
export class ServerContestant implements Contestant {
  readonly name: string
  readonly server: PostgresServer
  readonly archiveDirectory: string
  readonly archivesInRecovery = false
  readonly repeatsAtOnce = true
  readonly refusesBothSet: boolean
  readonly countsLastCycle: boolean
  readonly #log: LogFile

  protected constructor(name: string, server: PostgresServer, archiveDirectory: string) {
    this.name = name
    this.server = server
    this.archiveDirectory = archiveDirectory
    this.refusesBothSet = server.major >= 16
    this.countsLastCycle = server.major >= 18
    this.#log = new LogFile(join(server.socketDirectory, 'server.log'), parseServerLog)
  }

  static async create(options: ContestantOptions): Promise<ServerContestant> {
    const { major, dataDirectory, directory } = options
    const archive = join(directory.path, 'archive')
    await privateDirectory(archive)
    const settings = {
      ...serverSettings,
      log_min_messages: 'debug3',
      archive_library: 'basic_archive',
      'basic_archive.archive_directory': archive,
    }
    const server = await startPostgres({ major, dataDirectory, settings })
    return new ServerContestant(`basic_archive in PostgreSQL ${major}`, server, archive)
  }

  async start(): Promise<void> {
    await this.server.start()
  }

  async stop(): Promise<void> {
    await this.server.stop('fast')
  }

  /** The postmaster passes the signal on before it accepts the next connection, and this makes one. */
  async configure(settings: ArchiveSettings): Promise<void> {
    await this.server.configure({ ...settings })
  }

  async archiverPid(): Promise<number | undefined> {
    const [row] = await this.server.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'`,
    )
    return row?.pid
  }

  async statistics(): Promise<Statistics> {
    const [row] = await this.server.query<Statistics>(
      `SELECT archived_count::int, last_archived_wal, last_archived_time,
              failed_count::int, last_failed_wal, last_failed_time FROM pg_stat_archiver`,
    )
    if (row === undefined) throw new Error('pg_stat_archiver has no row')
    return row
  }

  async log(): Promise<readonly LogLine[]> {
    return await this.#log.lines()
  }

  /** An archiver that has ended is started again when something wakes the postmaster, such as a connection. */
  async nudge(): Promise<void> {
    await this.server.query('SELECT').catch(() => undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]()
  }
}

function parseServerLog(line: string): LogLine | undefined {
  const [, from, text] = /^(archiver|postmaster) \[\d+\] (\w+: {2}.*)$/.exec(line) ?? []
  return from === undefined || text === undefined ? undefined : { from: from as LogLine['from'], text }
}
