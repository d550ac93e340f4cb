import type { ErrorReport, LogLevel } from '../contract/error-report.ts'
import { type CatchUpReport, catchUp } from '../repository/catch-up.ts'
import type { Repository } from '../repository/repository.ts'
import type { Clock } from '../system/clock.ts'

// A server that has just started has better things to do.
const firstPassAfterMs = 10_000
/** How often it is tried whether a repository that was away is there again. */
const lookMs = 60_000
// Listing a million objects takes its time: it is not to take more than a twentieth of all time.
const pauseShare = 20
const filesAtOnce = 2
/** How long a copy waits for a file that is being archived. On a busy server there is always one. */
const turnMs = 1_000
const turnLookMs = 50
// Of what is told once.
const toldMax = 1_000

export interface CatchingUpOptions {
  clock: Clock
  systemIdentifier: () => string
  /** The repositories, opened for one pass. */
  open: () => Promise<Repository[]>
  isBusy: () => boolean
  log: (level: LogLevel, message: ErrorReport) => void
}

/**
 * Brings repositories up to date in the background: once after the start, because nobody remembers what was missing when
 * the one before ended, and after one of them has failed, until nothing is missing any more.
 */
export class CatchingUp {
  readonly #options: CatchingUpOptions
  readonly #ended = new AbortController()
  readonly #told = new Set<string>()
  #isBehind = true
  #done: Promise<void> = Promise.resolve()
  #earliestMs = 0
  #wake: AbortController = new AbortController()

  constructor(options: CatchingUpOptions) {
    this.#options = options
  }

  start(): void {
    this.#earliestMs = this.#options.clock.monotonic() + firstPassAfterMs
    this.#done = this.#work()
  }

  /** Files may be missing in one of them; there is no hurry, because it has only just failed. */
  fellBehind(): void {
    this.#isBehind = true
  }

  /** One of them is there again. */
  answersAgain(): void {
    this.#isBehind = true
    this.#wake.abort()
  }

  async stop(): Promise<void> {
    this.#ended.abort()
    this.#wake.abort()
    await this.#done
  }

  async #work(): Promise<void> {
    const { clock } = this.#options
    let pauseMs = firstPassAfterMs
    while (!this.#ended.signal.aborted) {
      this.#wake = new AbortController()
      await clock.sleep(pauseMs, this.#wake.signal)
      await clock.sleep(Math.max(this.#earliestMs - clock.monotonic(), 0), this.#ended.signal)
      if (this.#ended.signal.aborted) return
      pauseMs = lookMs
      if (!this.#isBehind) continue
      const beganMs = clock.monotonic()
      this.#isBehind = false
      if (!(await this.#pass())) this.#isBehind = true
      const endedMs = clock.monotonic()
      this.#earliestMs = endedMs + (endedMs - beganMs) * pauseShare
    }
  }

  /** Never rejects. Is nothing missing now, as far as could be seen? */
  async #pass(): Promise<boolean> {
    const { open, systemIdentifier, log } = this.#options
    const { signal } = this.#ended
    let repositories: Repository[] = []
    try {
      repositories = await open()
      const urls = repositories.map(each => `"${each.url}"`).join(' and ')
      let hasBegun = false
      const begins = () => {
        hasBegun = true
        log('LOG', { errmsg: `begins to bring repositories ${urls} up to date from each other` })
      }
      const report = await catchUp({
        repositories,
        systemIdentifier: systemIdentifier(),
        filesAtOnce,
        turn: () => this.#turn(),
        begins,
        signal,
      })
      if (hasBegun) this.#tellEnd(report)
      this.#tellTrouble(report)
      return report.status !== 'incomplete'
    } catch (thrown) {
      if (!signal.aborted) {
        this.#once(
          `could not bring repositories up to date: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
        )
      }
      return false
    } finally {
      await Promise.allSettled(repositories.map(each => each[Symbol.asyncDispose]()))
    }
  }

  async #turn(): Promise<void> {
    const { clock, isBusy } = this.#options
    const untilMs = clock.monotonic() + turnMs
    while (isBusy() && clock.monotonic() < untilMs && !this.#ended.signal.aborted) {
      await clock.sleep(turnLookMs, this.#ended.signal)
    }
    this.#ended.signal.throwIfAborted()
  }

  #tellEnd({ repositories }: CatchUpReport): void {
    for (const { repository, lacking, copied, copied_bytes, error } of repositories) {
      if (lacking === 0) continue
      this.#options.log('LOG', {
        errmsg: `copied ${copied} of ${lacking} objects that were missing in repository "${repository}"`,
        errdetail: `${copied_bytes} bytes were copied.${error === null ? '' : ` It ended early: ${error}.`}`,
      })
    }
  }

  #tellTrouble({ differing, failed }: CatchUpReport): void {
    if (failed.count > 0) {
      this.#once(`${failed.count} objects could not be compared or copied: ${failed.shown[0]}`)
    }
    for (const message of differing.shown) {
      this.#once(
        message,
        'Neither was changed. Two servers of one origin may archive to these repositories: find out which content is the right one, and move the other one away.',
      )
    }
  }

  #once(errmsg: string, errhint?: string): void {
    if (this.#told.has(errmsg) || this.#told.size >= toldMax) return
    this.#told.add(errmsg)
    this.#options.log('WARNING', { errmsg, errhint })
  }
}
