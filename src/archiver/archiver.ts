import { type Log, ReportedError, reportOf } from '../contract/error-report.ts'
import { ArchiveStatus } from '../host/archive-status.ts'
import type { RunningModule } from '../host/running-module.ts'
import type { Settings } from '../host/settings.ts'
import { type Clock, resolvesWithin } from '../system/clock.ts'
import type { Files, Watch } from '../system/files.ts'
import { isMissing, systemErrorText } from '../system/system-error.ts'
import { isTimelineHistory } from '../wal/wal-file-name.ts'
import type { ArchiverEvents } from './events.ts'
import { Latch } from './latch.ts'
import { ReadyQueue } from './ready-queue.ts'

// The constants of pgarch.c.
const autowakeIntervalMs = 60_000 // PGARCH_AUTOWAKE_INTERVAL
const attemptsMax = 3 // NUM_ARCHIVE_RETRIES
const orphanRemovalsMax = 3 // NUM_ORPHAN_CLEANUP_RETRIES
const retryDelayMs = 1_000
const terminatedExitDelayMs = 60_000 // after SIGTERM

// Not in pgarch.c, where a shutdown_cb that hangs keeps the process for ever.
const shutdownCallbackTimeoutMs = 20_000

// Names that are not WAL are told once each, but a directory full of them is no reason to fill the log.
const ignoredNamesToldMax = 20

// Where notifications are lost, the memory of what they would have said must not grow; forgetting costs a scan.
const ownRenamesMax = 1_000

export type ExitStatus = 0 | 1

/** What the archiver needs of the settings; PostgreSQL's names. */
export interface ArchiverSettings {
  readonly archive_library: string
  readonly archive_command: string
  /** Puts new values in place of the old ones. */
  reload(settings: Settings): void
}

export interface ArchiverOptions {
  files: Files
  clock: Clock
  log: Log
  /** Absolute. */
  dataDirectory: string
  settings: ArchiverSettings
  /** Loads and starts the module that the settings name: `LoadArchiveLibrary`. */
  startModule: () => Promise<RunningModule>
  events: ArchiverEvents
}

/**
 * The archiver process of PostgreSQL, `pgarch.c`: hands every file that is ready to one module, in archive order,
 * one at a time, and marks it done when the module says true.
 *
 * Its life is a loop of cycles (`run`). A cycle archives until nothing is ready or until a file has failed three
 * times; then the loop waits for its latch, 60 s at most. Requests only leave a note and set the latch:
 *
 * - `wake`: a file became ready.
 * - `reload` (SIGHUP): new settings, put in force between two attempts, never under a callback.
 * - `stop` (SIGUSR2): one more full cycle, then the end. It is looked at only at the top of the loop, so a request
 *   that comes during a cycle is followed by one that sees all files.
 * - `terminate` (SIGTERM): no more files; the process ends by itself a minute later, unless told to stop before.
 * - `abandon` (not in PostgreSQL, which waits for ever): no more files, and the end as soon as the module lets go.
 *
 * `run` resolves with the exit status. FATAL conditions are logged and give status 1, after `shutdown_cb`.
 */
export class Archiver {
  readonly #options: ArchiverOptions
  readonly #status: ArchiveStatus
  readonly #queue: ReadyQueue
  readonly #latch: Latch
  readonly #abort = new AbortController()
  readonly #ignoredNames = new Set<string>()
  /** Whose `.ready` we have renamed ourselves: the watch will report that too, and it is no news. */
  readonly #ownRenames = new Set<string>()
  #watch: Watch | undefined
  /** Which directory is watched, or could not be. */
  #watched: string | undefined
  #module: RunningModule | undefined
  #pendingSettings: Settings | undefined
  #historyIsReady = false
  #isStopping = false
  #isFinishing = false
  #terminatedAt: number | undefined
  #libraryChanged = false

  constructor(options: ArchiverOptions) {
    this.#options = options
    this.#status = new ArchiveStatus(options.files, `${options.dataDirectory}/pg_wal`)
    this.#queue = new ReadyQueue(this.#status, options.clock, name => this.#tellIgnored(name))
    this.#latch = new Latch(options.clock)
  }

  wake(): void {
    this.#latch.set()
  }

  reload(settings: Settings): void {
    this.#pendingSettings = settings
    this.#latch.set()
  }

  stop(): void {
    this.#isStopping = true
    this.#latch.set()
  }

  /** The same, and SIGTERM does not count any more: systemd sends that to every process of a service. */
  finish(): void {
    this.#isFinishing = true
    this.#terminatedAt = undefined
    this.stop()
  }

  terminate(): void {
    if (this.#isFinishing) return
    this.#terminatedAt ??= this.#options.clock.monotonic()
    this.#latch.set()
  }

  /** Ends the loop as soon as the module's current call ends, which is told that nobody waits for it any more. */
  abandon(): void {
    this.#abort.abort()
    this.#latch.set()
  }

  async run(): Promise<ExitStatus> {
    let status: ExitStatus = 0
    try {
      this.#refuseBothSet()
      this.#module = await this.#options.startModule()
      await this.#mainLoop()
    } catch (thrown) {
      const level = thrown instanceof ReportedError && thrown.level === 'PANIC' ? 'PANIC' : 'FATAL'
      this.#options.log({ level, ...reportOf(thrown) })
      if (level === 'PANIC') return 1
      status = 1
    } finally {
      this.#watch?.close()
    }
    return (await this.#shutDownModule()) ? status : 1
  }

  async #mainLoop(): Promise<void> {
    for (;;) {
      this.#latch.reset()
      const isLastCycle = this.#isStopping
      if (this.#processInterrupts() === 'exit') return
      if (this.#hasOutstayedTermination() || this.#abort.signal.aborted) return
      await this.#keepWatching()
      await this.#archiveReadyFiles()
      if (this.#libraryChanged) return
      await this.#options.events.idle()
      if (isLastCycle) return
      await this.#latch.wait(autowakeIntervalMs)
    }
  }

  #hasOutstayedTermination(): boolean {
    if (this.#terminatedAt === undefined) return false
    return this.#options.clock.monotonic() - this.#terminatedAt >= terminatedExitDelayMs
  }

  /** One cycle: `pgarch_ArchiverCopyLoop`. */
  async #archiveReadyFiles(): Promise<void> {
    this.#queue.forget()
    for (;;) {
      if (this.#historyIsReady) {
        this.#historyIsReady = false
        this.#queue.forget()
      }
      const file = await this.#queue.next()
      if (file === undefined) return
      if ((await this.#archiveWithRetries(file)) === 'end cycle') return
    }
  }

  async #archiveWithRetries(file: string): Promise<'next file' | 'end cycle'> {
    const { clock, log, events } = this.#options
    for (let failures = 0, removals = 0; ; ) {
      if (this.#terminatedAt !== undefined || this.#abort.signal.aborted) return 'end cycle'
      if (this.#processInterrupts() === 'exit') return 'end cycle'
      if (!(await this.#isConfigured())) return 'end cycle'
      if (await this.#isOrphan(file)) {
        if (await this.#removeOrphan(file)) return 'next file'
        if (++removals >= orphanRemovalsMax) {
          const statusFile = this.#shown(this.#status.readyPath(file))
          const errmsg = `removal of orphan archive status file "${statusFile}" failed too many times, will try again later`
          log({ level: 'WARNING', errmsg })
          return 'end cycle'
        }
        await clock.sleep(retryDelayMs, this.#abort.signal)
        continue
      }
      events.archiving(file)
      if (await this.#runningModule().archiveFile(file, this.#walPath(file), this.#abort.signal)) {
        events.archived(file)
        return (await this.#markDone(file)) ? 'next file' : 'end cycle'
      }
      events.failed(file)
      if (++failures >= attemptsMax) {
        const errmsg = `archiving write-ahead log file "${file}" failed too many times, will try again later`
        log({ level: 'WARNING', errmsg })
        return 'end cycle'
      }
      await clock.sleep(retryDelayMs, this.#abort.signal)
    }
  }

  async #isConfigured(): Promise<boolean> {
    const answer = await this.#runningModule().checkConfigured()
    if (answer.configured) return true
    const errmsg = '"archive_mode" enabled, yet archiving is not configured'
    this.#options.log({ level: 'WARNING', errmsg, errdetail: answer.errdetail })
    return false
  }

  /** A status file whose WAL file is gone: the server was interrupted between removing the one and the other. */
  async #isOrphan(file: string): Promise<boolean> {
    try {
      await this.#options.files.stat(this.#walPath(file))
      return false
    } catch (thrown) {
      // Any other failure is the module's to find and to report.
      return isMissing(thrown) && (await this.#walDirectoryIsThere())
    }
  }

  /** Where the whole directory is gone (an unmounted disk), nothing in it is an orphan. */
  async #walDirectoryIsThere(): Promise<boolean> {
    try {
      await this.#options.files.stat(this.#status.directory)
      return true
    } catch {
      return false
    }
  }

  async #removeOrphan(file: string): Promise<boolean> {
    try {
      await this.#status.removeReady(file)
    } catch {
      return false
    }
    const errmsg = `removed orphan archive status file "${this.#shown(this.#status.readyPath(file))}"`
    this.#options.log({ level: 'WARNING', errmsg })
    return true
  }

  /**
   * The file counts as archived even where this fails: it will come again. PostgreSQL goes on at once and finds the
   * same file ready, in a loop without a pause; here the cycle ends.
   */
  async #markDone(file: string): Promise<boolean> {
    this.#expectOwnRename(file)
    try {
      await this.#status.markDone(file)
      return true
    } catch (thrown) {
      this.#ownRenames.delete(file)
      const from = this.#shown(this.#status.readyPath(file))
      const to = this.#shown(this.#status.donePath(file))
      const errmsg = `could not rename file "${from}" to "${to}": ${systemErrorText(thrown)}`
      this.#options.log({ level: 'WARNING', errmsg })
      return false
    }
  }

  #expectOwnRename(file: string): void {
    if (this.#watch === undefined) return
    if (this.#ownRenames.size >= ownRenamesMax) this.#ownRenames.clear()
    this.#ownRenames.add(file)
  }

  /** What SIGHUP asked for: `ProcessPgArchInterrupts`. */
  #processInterrupts(): 'exit' | 'go on' {
    if (this.#pendingSettings !== undefined) {
      const { settings, log } = this.#options
      const libraryBefore = settings.archive_library
      settings.reload(this.#pendingSettings)
      this.#pendingSettings = undefined
      this.#refuseBothSet()
      if (settings.archive_library !== libraryBefore) {
        const errmsg = 'restarting archiver process because value of "archive_library" was changed'
        log({ level: 'LOG', errmsg })
        this.#libraryChanged = true
      }
    }
    return this.#libraryChanged ? 'exit' : 'go on'
  }

  #refuseBothSet(): void {
    const { archive_library, archive_command } = this.#options.settings
    if (archive_library === '' || archive_command === '') return
    throw new ReportedError('FATAL', {
      errmsg: 'both "archive_command" and "archive_library" set',
      errdetail: 'Only one of "archive_command", "archive_library" may be set.',
      errcode: '22023',
    })
  }

  async #shutDownModule(): Promise<boolean> {
    if (this.#module === undefined) return true
    const { clock, log } = this.#options
    const outcome = this.#module.shutdown()
    if (await resolvesWithin(shutdownCallbackTimeoutMs, outcome, clock)) return outcome
    const errmsg = `archive module did not shut down within ${shutdownCallbackTimeoutMs / 1_000} s`
    log({ level: 'WARNING', errmsg })
    return false
  }

  /** The directory may be another one by now: remounted, restored, moved to another disk. */
  async #keepWatching(): Promise<void> {
    const { files } = this.#options
    const directory = await files.stat(this.#status.directory).catch(() => undefined)
    const identity = directory && `${directory.device} ${directory.inode}`
    if (identity === undefined || identity === this.#watched) return
    this.#watch?.close()
    this.#watch = undefined
    this.#watched = identity
    this.#startWatch()
  }

  #startWatch(): void {
    const { files, log } = this.#options
    try {
      this.#watch = files.watch(this.#status.directory, name => this.#noticeChange(name))
    } catch (thrown) {
      log({
        level: 'WARNING',
        errmsg: `could not watch directory "${this.#shown(this.#status.directory)}": ${systemErrorText(thrown)}`,
        errhint: 'New files are found by looking once a minute.',
      })
    }
  }

  #noticeChange(statusFile: string | undefined): void {
    if (statusFile === undefined) return this.#latch.set()
    if (!statusFile.endsWith('.ready')) return
    const file = statusFile.slice(0, -'.ready'.length)
    if (this.#ownRenames.delete(file)) return
    if (isTimelineHistory(file)) this.#historyIsReady = true
    this.#latch.set()
  }

  #tellIgnored(statusFile: string): void {
    if (this.#ignoredNames.has(statusFile) || this.#ignoredNames.size >= ignoredNamesToldMax) return
    this.#ignoredNames.add(statusFile)
    this.#options.log({
      level: 'LOG',
      errmsg: `ignoring archive status file "${this.#shown(this.#status.directory)}/${statusFile}"`,
      errdetail: 'Its name is not one that a server gives to a WAL file.',
    })
  }

  #runningModule(): RunningModule {
    if (this.#module === undefined) throw new Error('the module has not been started')
    return this.#module
  }

  /** A path as the server's messages show it, which is relative to the data directory. */
  #shown(path: string): string {
    return path.slice(this.#options.dataDirectory.length + 1)
  }

  #walPath(file: string): string {
    return `${this.#options.dataDirectory}/pg_wal/${file}`
  }
}
