/** A stretch of WAL, from its first byte to the one behind its last. */
export interface WalRange {
  from: bigint
  to: bigint
}

/** Joins stretches that come in ascending order; of all of them it keeps only the one that is still growing. */
export class WalRuns {
  readonly #ended: (run: WalRange) => void
  readonly #gap: (gap: WalRange) => void
  #run: WalRange | undefined
  #first: bigint | undefined

  /** Told of every run when it has ended, and of every gap between two of them. */
  constructor(ended: (run: WalRange) => void, gap: (gap: WalRange) => void) {
    this.#ended = ended
    this.#gap = gap
  }

  /** From the first byte of all to the last one; `undefined` before there is any. */
  get hull(): WalRange | undefined {
    return this.#run === undefined || this.#first === undefined
      ? undefined
      : { from: this.#first, to: this.#run.to }
  }

  add({ from, to }: WalRange): void {
    this.#first ??= from
    if (this.#run !== undefined && from <= this.#run.to) {
      if (to > this.#run.to) this.#run.to = to
      return
    }
    if (this.#run !== undefined) {
      this.#ended(this.#run)
      this.#gap({ from: this.#run.to, to: from })
    }
    this.#run = { from, to }
  }

  end(): void {
    if (this.#run !== undefined) this.#ended(this.#run)
  }
}

/** Counts stretches that come in ascending order, and keeps those at both ends of the list. */
export class HeldRanges {
  readonly #firstMax: number
  readonly #lastMax: number
  readonly #first: WalRange[] = []
  readonly #last: WalRange[] = []
  #count = 0
  #bytes = 0n

  constructor(firstMax: number, lastMax: number) {
    this.#firstMax = firstMax
    this.#lastMax = lastMax
  }

  add(range: WalRange): void {
    this.#count++
    this.#bytes += range.to - range.from
    if (this.#first.length < this.#firstMax) this.#first.push(range)
    else {
      this.#last.push(range)
      if (this.#last.length > this.#lastMax) this.#last.shift()
    }
  }

  get held(): WalRange[] {
    return [...this.#first, ...this.#last]
  }

  /** What is not among those held. */
  get unheld(): { count: number; bytes: bigint } {
    const held = this.held
    return {
      count: this.#count - held.length,
      bytes: held.reduce((rest, { from, to }) => rest - (to - from), this.#bytes),
    }
  }
}
