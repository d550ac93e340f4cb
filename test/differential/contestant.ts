import type { PostgresServer } from '../support/postgresql-server.ts'

/** The columns of `pg_stat_archiver`. */
export interface Statistics {
  archived_count: number
  last_archived_wal: string | null
  last_archived_time: Date | null
  failed_count: number
  last_failed_wal: string | null
  last_failed_time: Date | null
}

/** Of an archiver that has done nothing yet. */
export const noStatistics: Statistics = {
  archived_count: 0,
  last_archived_wal: null,
  last_archived_time: null,
  failed_count: 0,
  last_failed_wal: null,
  last_failed_time: null,
}

/** One line of a log, without time and process number: `WARNING:  removed orphan …`, `DETAIL:  …`. */
export interface LogLine {
  /** Who speaks: the archiver, or whoever starts it, which is the postmaster or our supervisor. */
  from: 'archiver' | 'postmaster'
  text: string
}

/** What the script changes while it is played. */
export interface ArchiveSettings {
  archive_library?: string
  archive_command?: string
  'basic_archive.archive_directory'?: string
}

/**
 * An archiver beside a server of its own, to which the script can be played: the server's archiver, ours, or the
 * server's with something else as its library.
 */
export interface Contestant extends AsyncDisposable {
  readonly name: string
  /** The server whose WAL is archived. */
  readonly server: PostgresServer
  /** With `archive_mode` on, does it archive while the server is in recovery? */
  readonly archivesInRecovery: boolean
  /** Does it end where both a library and a command are set? */
  readonly refusesBothSet: boolean
  /** Do its statistics include what it archives in its last cycle, when the server has been told to stop? */
  readonly countsLastCycle: boolean
  /** Does it archive a file again at once whose status it could not change? */
  readonly repeatsAtOnce: boolean
  /** Where it archives at first. */
  readonly archiveDirectory: string
  /** Starts the server and its archiver. */
  start(): Promise<void>
  /** A fast shutdown of both, which includes the archiver's last cycle. */
  stop(): Promise<void>
  /** Changes settings and reloads; resolves when no attempt will be made any more with the old ones. */
  configure(settings: ArchiveSettings): Promise<void>
  /** `undefined` while there is no archiver process, such as between two of them. */
  archiverPid(): Promise<number | undefined>
  statistics(): Promise<Statistics>
  /** All that was logged so far, over all starts. */
  log(): Promise<readonly LogLine[]>
  /** Called again and again while something is waited for. */
  nudge(): Promise<void>
}
