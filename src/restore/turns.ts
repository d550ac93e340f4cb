/**
 * Lets a few work at once; of those who wait, the one that came first is next, however often it has had its turn. So
 * what is needed first is ready first, where all at once would only be ready together.
 */
export class Turns {
  #free: number
  #comers = 0
  /** In the order in which they came. */
  readonly #waiting: { rank: number; go: () => void }[] = []

  constructor(atOnce: number) {
    this.#free = atOnce
  }

  /** For somebody who comes now: does a piece of work as soon as it is his turn. Meanwhile he must not wait for another one. */
  comer(): InTurn {
    const rank = this.#comers++
    return async work => {
      await this.#turn(rank)
      try {
        return await work()
      } finally {
        this.#free++
        this.#serve()
      }
    }
  }

  async #turn(rank: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const behind = this.#waiting.findIndex(other => other.rank > rank)
    this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, { rank, go: resolve })
    this.#serve()
    await promise
  }

  #serve(): void {
    while (this.#free > 0) {
      const next = this.#waiting.shift()
      if (next === undefined) return
      this.#free--
      next.go()
    }
  }
}

export type InTurn = <Result>(work: () => Promise<Result>) => Promise<Result>
