import type { Clock } from './clock.ts'

/**
 * The simulated twin of the clock. Time stands still while anything can happen without it, and then jumps to the
 * next moment that somebody sleeps for: an hour of waiting costs nothing, and the order of events depends on no
 * machine.
 *
 * "Nothing can happen" is known soundly as long as everything else is simulated too: whatever is not asleep is then
 * a chain of promises, and Node runs all of these to their end before it takes the next turn of its event loop. Work
 * that really runs elsewhere (compression on Node's threads) is announced with `standStill`.
 */
export class SimulatedClock implements Clock {
  #elapsed = 0
  #wall: number
  #timers: Timer[] = []
  #held = 0

  /** `wall` is the time of day at the start. */
  constructor(wall: number = Date.UTC(2026, 0, 1)) {
    this.#wall = wall
  }

  now(): number {
    return Math.floor(this.#wall + this.#elapsed)
  }

  monotonic(): number {
    return this.#elapsed
  }

  /** Sets the time of day forward, or back where `ms` is negative, as an administrator does. */
  setWallClock(ms: number): void {
    this.#wall += ms
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (signal?.aborted) return resolve()
      const timer: Timer = { at: this.#elapsed + Math.max(0, ms), ring: () => end() }
      const onAbort = () => {
        this.#timers = this.#timers.filter(other => other !== timer)
        end()
      }
      const end = () => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      insert(this.#timers, timer)
    })
  }

  /** Calls `ring` when that much time has passed. */
  after(ms: number, ring: () => void): void {
    insert(this.#timers, { at: this.#elapsed + Math.max(0, ms), ring })
  }

  /** Time does not pass until `work`, which runs on real threads, is settled. */
  async standStill<T>(work: Promise<T>): Promise<T> {
    this.#held++
    try {
      return await work
    } finally {
      this.#held--
    }
  }

  /**
   * Lets time pass until `work` is settled. Throws when nothing is left that could settle it: a deadlock, which in
   * a real program would be a hang.
   */
  async run<T>(work: Promise<T>): Promise<T> {
    let settled = false
    const watched = work.finally(() => {
      settled = true
    })
    watched.catch(() => {}) // it is returned below; until then a rejection is not unhandled
    for (;;) {
      await turn()
      if (settled) return watched
      if (this.#held > 0) continue
      const timer = this.#timers.pop()
      if (timer === undefined) throw new Error('nothing is left to wait for, yet the work has not ended')
      this.#elapsed = Math.max(this.#elapsed, timer.at)
      timer.ring()
    }
  }

  /** Lets that much time pass. */
  async pass(ms: number): Promise<void> {
    await this.run(this.sleep(ms))
  }
}

interface Timer {
  at: number
  ring: () => void
}

/** Keeps the next timer last. Of two timers for one moment, the older rings first. */
function insert(timers: Timer[], timer: Timer): void {
  const index = timers.findLastIndex(other => other.at > timer.at)
  timers.splice(index + 1, 0, timer)
}

/** One turn of the event loop: comes back when every promise chain that could go on has gone on. */
function turn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
