/**
 * What the server offers a module, under PostgreSQL's names. A module gets it as the argument of
 * `_PG_archive_module_init` and keeps it for as long as it lives.
 */
import type { BackgroundWorker } from './background-worker.ts'
import type { ErrorReport, LogLevel, ThrowingLevel } from './error-report.ts'
import type { GucBool, GucEnum, GucInt, GucReal, GucString, GucVariable } from './guc.ts'

export interface ArchiveServer {
  /**
   * Declare a setting (a GUC, "grand unified configuration" variable), normally in `_PG_archive_module_init`.
   * The value comes from postgresql.conf, postgresql.auto.conf and the command line, and is read from the
   * returned object's `value`. It changes on reload only, and never while a callback runs.
   *
   * Declaring one that exists is the ERROR `attempt to redefine parameter "…"`.
   */
  DefineCustomBoolVariable(declaration: GucBool): GucVariable<boolean>
  DefineCustomIntVariable(declaration: GucInt): GucVariable<number>
  DefineCustomRealVariable(declaration: GucReal): GucVariable<number>
  DefineCustomStringVariable(declaration: GucString): GucVariable<string>
  DefineCustomEnumVariable<const O extends string>(declaration: GucEnum<O>): GucVariable<O>

  /**
   * Say that all settings of this prefix are declared by now. Others with the prefix are removed with a
   * WARNING, which is how a user finds a misspelt one. Call it after the last declaration.
   */
  MarkGUCPrefixReserved(prefix: string): void

  /** Register a worker that runs beside the archiver, isolated from it. Only during initialisation. */
  RegisterBackgroundWorker(worker: BackgroundWorker): void

  /**
   * Report to the server's log. ERROR throws: what called it is over, as in C, and an attempt to archive
   * counts as failed. FATAL ends the archiver process after `shutdown_cb`, PANIC without; both are started again.
   */
  ereport(level: ThrowingLevel, report: ErrorReport): never
  ereport(level: LogLevel, report: ErrorReport): void

  /** Called in `check_configured_cb` before it answers `false`: the DETAIL of the server's WARNING. */
  arch_module_check_errdetail(text: string): void

  /** PG_VERSION_NUM of the cluster, as 170005; without the minor release where that cannot be told (170000); `undefined` where there is only a pg_wal. */
  readonly server_version_num: number | undefined
  /** Absolute path of the data directory, which is the working directory too. */
  readonly data_directory: string
  /** What `pg_controldata` shows as "Database system identifier", in decimal; `undefined` where there is only a pg_wal. */
  readonly system_identifier: string | undefined
  /** Bytes in a WAL segment; `undefined` where there is no segment that tells. */
  readonly wal_segment_size: number | undefined
  /** XLOG_PAGE_MAGIC, the first number on each page of WAL, which tells the major version; `undefined` where it is not known. */
  readonly wal_page_magic: number | undefined
  /** Version of this contract: grows by one when something is added. */
  readonly contract_version: 1
}
