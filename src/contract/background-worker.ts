/** A worker that runs beside the archiver: PostgreSQL's `BackgroundWorker`, with what TypeScript needs. */
import type { ErrorReport, LogLevel, ThrowingLevel } from './error-report.ts'

/** When a worker is first started, as in PostgreSQL. */
export type BgWorkerStartTime =
  | 'BgWorkerStart_PostmasterStart'
  | 'BgWorkerStart_ConsistentState'
  | 'BgWorkerStart_RecoveryFinished'

/** A worker that has ended stays ended. */
export const BGW_NEVER_RESTART = 'BGW_NEVER_RESTART'

export interface BackgroundWorker {
  /** For the log and the process list. Unique in a module. */
  bgw_name: string
  /** Name of the module's export to run. Not a function, because a closure cannot enter another process. */
  bgw_function_name: string
  /** Handed to the function; anything that structured clone can copy. */
  bgw_main_arg?: unknown
  /** Default: `BgWorkerStart_PostmasterStart`. */
  bgw_start_time?: BgWorkerStartTime
  /**
   * Seconds until it is started again after it ended with a status other than 0. After a status of 0, which is
   * what returning means, it stays ended, as in PostgreSQL. Default: `BGW_NEVER_RESTART`.
   */
  bgw_restart_time?: number | typeof BGW_NEVER_RESTART
}

/** The exported function of a worker. Returning ends the worker with status 0, throwing with status 1. */
export type BackgroundWorkerMain = (
  main_arg: unknown,
  context: BackgroundWorkerContext,
) => void | Promise<void>

export interface BackgroundWorkerContext {
  /** Aborted when the worker is asked to stop; it is killed when it has not ended five seconds later. */
  readonly signal: AbortSignal
  /** The value of a setting that the module declared, as of the last reload; ERROR if there is none. */
  GetConfigOption(name: string): boolean | number | string
  /** As the module's own. ERROR and FATAL end the worker unless caught. */
  ereport(level: ThrowingLevel, report: ErrorReport): never
  ereport(level: LogLevel, report: ErrorReport): void
  readonly data_directory: string
}
