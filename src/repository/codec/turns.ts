/** One of those who take turns. */
export interface Taker extends Disposable {
  /** Does something when it is its turn. It must not wait in there for another taker. */
  during<Result>(work: () => Promise<Result>): Promise<Result>
}

/**
 * Lets only so many work at a time, those who joined first before all others. What each does in one turn should be short:
 * who waits for something else meanwhile leaves the turn to the next one.
 */
export class Turns {
  readonly #atOnce: number
  #working = 0
  /** In the order in which they joined. */
  readonly #takers = new Set<{ grant: (() => void) | undefined }>()

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  join(): Taker {
    const taker: { grant: (() => void) | undefined } = { grant: undefined }
    this.#takers.add(taker)
    return {
      during: async work => {
        await new Promise<void>(resolve => {
          taker.grant = resolve
          this.#grant()
        })
        try {
          return await work()
        } finally {
          this.#working--
          this.#grant()
        }
      },
      [Symbol.dispose]: () => {
        this.#takers.delete(taker)
      },
    }
  }

  #grant(): void {
    for (const taker of this.#takers) {
      if (this.#working >= this.#atOnce) return
      if (taker.grant === undefined) continue
      this.#working++
      taker.grant()
      taker.grant = undefined
    }
  }
}
