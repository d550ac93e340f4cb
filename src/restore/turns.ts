/**
 * Lets a few work at once; of those who wait, the one of the lowest rank is next, however often it has had its turn. So
 * what is needed first is ready first, where all at once would only be ready together.
 */
export class Turns {
  #free: number
  /** By rank. */
  readonly #waiting: { rank: number; go: () => void }[] = []

  constructor(atOnce: number) {
    this.#free = atOnce
  }

  /** Does a piece of work as soon as it is its turn, which must not wait for another one meanwhile. */
  of(rank: number): InTurn {
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
    this.#waiting.push({ rank, go: resolve })
    this.#waiting.sort((a, b) => a.rank - b.rank)
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
