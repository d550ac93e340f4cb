import type { ArchiveModuleCallbacks, ArchiveModuleState } from '../contract/archive-module.ts'
import type { Log } from '../contract/error-report.ts'
import { ReportedError, reportOf } from '../contract/error-report.ts'
import type { ArchiveServerHandle } from './archive-server.ts'

/** What `check_configured_cb` answered; `errdetail` is for the DETAIL of the WARNING. */
export type Configured = { configured: true } | { configured: false; errdetail: string | undefined }

/**
 * One running module, and what its caller, an archiver, may rely on: an attempt to archive is true only when the
 * module said exactly `true`, and an ERROR in it is logged and counts as false. Everything else that a module may
 * throw comes out as a `ReportedError` of level FATAL, which ends the process as it ends PostgreSQL's archiver.
 */
export class ModuleHost {
  readonly #callbacks: ArchiveModuleCallbacks
  readonly #server: ArchiveServerHandle
  readonly #log: Log
  readonly #state: ArchiveModuleState = { private_data: undefined }

  private constructor(callbacks: ArchiveModuleCallbacks, server: ArchiveServerHandle, log: Log) {
    this.#callbacks = callbacks
    this.#server = server
    this.#log = log
  }

  /** Calls `startup_cb`. When that fails there is no host, and `shutdown_cb` is not called. */
  static async start(
    callbacks: ArchiveModuleCallbacks,
    server: ArchiveServerHandle,
    log: Log,
  ): Promise<ModuleHost> {
    const host = new ModuleHost(callbacks, server, log)
    await fatalOnError(async () => {
      await callbacks.startup_cb?.(host.#state)
      server.throwIfEnding()
    })
    return host
  }

  /** Has the module asked to be given several files at once? */
  get archivesAhead(): boolean {
    return this.#callbacks.archive_ahead === true
  }

  async checkConfigured(): Promise<Configured> {
    const { check_configured_cb } = this.#callbacks
    if (!check_configured_cb) return { configured: true }
    this.#server.takeCheckErrdetail() // what an earlier call left behind
    const configured = await fatalOnError(async () => {
      const answer = await check_configured_cb.call(this.#callbacks, this.#state)
      this.#server.throwIfEnding()
      return answer
    })
    if (configured === true) return { configured }
    return { configured: false, errdetail: this.#server.takeCheckErrdetail() }
  }

  /** One attempt. Rejects only when the process has to end: after FATAL or PANIC. */
  async archiveFile(file: string, path: string, signal: AbortSignal, isAhead = false): Promise<boolean> {
    // A signal for each attempt, so that what a module leaves on it goes when the attempt ends.
    const attempt = new AbortController()
    const abort = () => attempt.abort()
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    try {
      const context = { signal: attempt.signal }
      const answer: unknown = await this.#callbacks.archive_file_cb(this.#state, file, path, context)
      this.#server.throwIfEnding()
      if (typeof answer !== 'boolean') this.#tellWrongAnswer(file, answer)
      return answer === true
    } catch (thrown) {
      this.#server.throwIfEnding()
      if (thrown instanceof ReportedError && thrown.level !== 'ERROR') throw thrown
      // What fails ahead is tried again when it is asked for, and told then.
      this.#log({ level: isAhead ? 'DEBUG1' : 'ERROR', ...reportOf(thrown) })
      return false
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  /** A forgotten `return` or `await` is the commonest mistake of all, and would otherwise be seen nowhere. */
  #tellWrongAnswer(file: string, answer: unknown): void {
    this.#log({
      level: 'WARNING',
      errmsg: `archive module answered ${describeAnswer(answer)} for file "${file}"`,
      errhint: 'Only true means that it is archived.',
    })
  }

  /** Calls `shutdown_cb`. Resolves with false, after having logged why, when that failed. */
  async shutdown(): Promise<boolean> {
    try {
      await this.#callbacks.shutdown_cb?.(this.#state)
      return true
    } catch (thrown) {
      this.#log({ level: 'FATAL', ...reportOf(thrown) })
      return false
    }
  }
}

function describeAnswer(answer: unknown): string {
  return answer === undefined || answer === null ? String(answer) : `a ${typeof answer}`
}

/** Where PostgreSQL has no handler, an ERROR becomes FATAL; so it does here. */
export async function fatalOnError<T>(call: () => T | Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (thrown) {
    if (thrown instanceof ReportedError && thrown.level === 'PANIC') throw thrown
    throw new ReportedError('FATAL', reportOf(thrown), { cause: thrown })
  }
}
