import type { Log } from '../contract/error-report.ts'
import type { Settings } from '../host/settings.ts'
import { type Clock, resolvesWithin } from '../system/clock.ts'
import type { ForkedProcess, ProcessEnd } from '../system/processes.ts'
import { signalNumber, signalText } from '../system/signals.ts'
import type { ExitStatus } from './archiver.ts'
import { Latch } from './latch.ts'
import type { SupervisorMessage } from './messages.ts'

const restartIntervalMs = 10_000 // PGARCH_RESTART_INTERVAL: between two starts

// PostgreSQL waits for ever. Here a last cycle that archives nothing for this long is given up.
const stopTimeoutMs = 20_000
// A server that goes on writing gives a last cycle always more to do. Service managers wait for about 90 s.
const lastCycleMaxMs = 60_000
const abandonGraceMs = 1_000

export interface SupervisorOptions {
  clock: Clock
  log: Log
  /** Starts an archiver process, which will be sent `start` with these settings. */
  fork(settings: Settings): ForkedProcess
  settings: Settings
}

/**
 * What the postmaster does for its archiver: starts it, starts it again when it has ended, 10 s after the last start
 * at the earliest, and at the end lets it do one last cycle.
 *
 * It is *running* until `stop`, and *stopping* from then on. While it is running there is an archiver process or a
 * pause before the next one. While it is stopping, the process is waited for as long as it keeps archiving; when that
 * ends, or at a second `stop`, it is killed. What it was archiving then is simply not archived yet.
 */
export class Supervisor {
  readonly #options: SupervisorOptions
  /** Rung by a request to stop, which ends a pause. */
  readonly #latch: Latch
  /** The settings for the next start. */
  #settings: Settings
  #process: ForkedProcess | undefined
  #isStopping = false
  #isAbandoned = false
  #progress = 0

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#settings = options.settings
    this.#latch = new Latch(options.clock)
  }

  /** The process that archives now, if there is one. */
  get pid(): number | undefined {
    return this.#process?.pid
  }

  async run(): Promise<ExitStatus> {
    const { clock, fork } = this.#options
    while (!this.#isStopping) {
      const startedAt = clock.monotonic()
      this.#process = fork(this.#settings)
      const { pid } = this.#process
      this.#tellEnd(pid, await this.#process.ended)
      this.#process = undefined
      if (!this.#isStopping) {
        await this.#latch.wait(Math.max(0, startedAt + restartIntervalMs - clock.monotonic()))
      }
    }
    return this.#isAbandoned ? 1 : 0
  }

  /** SIGHUP. */
  reload(settings: Settings): void {
    this.#settings = settings
    this.#send({ type: 'reload', settings })
  }

  /** SIGINT, SIGTERM: one last cycle. A second time: now. */
  async stop(): Promise<void> {
    const { clock, log } = this.#options
    if (this.#isStopping) return this.stopNow()
    log({ level: 'LOG', errmsg: 'received fast shutdown request' })
    this.#isStopping = true
    this.#latch.set()
    this.#send({ type: 'stop' })
    const lastCycleEnd = clock.monotonic() + lastCycleMaxMs
    let reason: string | undefined
    while (this.#process !== undefined && reason === undefined) {
      const progressBefore = this.#progress
      const patienceMs = Math.min(stopTimeoutMs, Math.max(0, lastCycleEnd - clock.monotonic()))
      if (await resolvesWithin(patienceMs, this.#process.ended, clock)) return
      if (clock.monotonic() >= lastCycleEnd) reason = `is still archiving after ${lastCycleMaxMs / 1_000} s`
      else if (this.#progress === progressBefore) reason = `has archived nothing for ${patienceMs / 1_000} s`
    }
    if (this.#process === undefined || this.#isAbandoned) return
    log({
      level: 'WARNING',
      errmsg: `archiver ${reason} and is ended`,
      errdetail: 'The files that are left are archived after the next start.',
    })
    await this.#abandon()
  }

  /** SIGQUIT: without a last cycle. */
  async stopNow(): Promise<void> {
    this.#options.log({ level: 'LOG', errmsg: 'received immediate shutdown request' })
    this.#isStopping = true
    this.#latch.set()
    await this.#abandon()
  }

  /** The archiver process says that it has archived a file. */
  noteProgress(): void {
    this.#progress++
  }

  /** A module that heeds its signal, and an archive command, end by themselves; whatever does not is killed. */
  async #abandon(): Promise<void> {
    this.#isAbandoned = true
    if (this.#process === undefined) return
    this.#send({ type: 'abandon' })
    if (!(await resolvesWithin(abandonGraceMs, this.#process.ended, this.#options.clock)))
      this.#process?.kill()
  }

  #send(message: SupervisorMessage): void {
    // One that ends at this moment needs no message any more.
    void this.#process?.send(message).catch(() => undefined)
  }

  /** Statuses 0 and 1 are orderly: the archiver itself has said why. */
  #tellEnd(pid: number | undefined, end: Awaited<ForkedProcess['ended']>): void {
    if ('startFailure' in end) {
      const errmsg = `could not fork archiver process: ${end.startFailure.message}`
      this.#options.log({ level: 'LOG', errmsg })
    } else if (end.code !== 0 && end.code !== 1 && !this.#isAbandoned) {
      this.#options.log({ level: 'LOG', errmsg: `archiver process (PID ${pid}) ${endText(end)}` })
    }
  }
}

/** How a process ended, in the postmaster's words. */
function endText(end: ProcessEnd): string {
  if (end.signal === null) return `exited with exit code ${end.code}`
  return `was terminated by signal ${signalNumber(end.signal)}: ${signalText(end.signal)}`
}
