import type { Clock } from '../system/clock.ts'

/** A bell that stays rung until it is reset, as PostgreSQL's latch: a wake-up between two waits is not lost. */
export class Latch {
  readonly #clock: Clock
  #isSet = false
  #waiting: AbortController | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  set(): void {
    this.#isSet = true
    this.#waiting?.abort()
  }

  reset(): void {
    this.#isSet = false
  }

  /** Resolves once the latch is set, at once if it is, and after `timeoutMs` at the latest. */
  async wait(timeoutMs: number): Promise<void> {
    if (this.#isSet) return
    this.#waiting = new AbortController()
    await this.#clock.sleep(timeoutMs, this.#waiting.signal)
    this.#waiting = undefined
  }
}
