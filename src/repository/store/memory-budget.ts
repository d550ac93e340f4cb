import { markerBytesMax } from '../marker.ts'

/** As much as several large objects need while they are on their way. */
export const memoryBudgetBytes = 32 * 1024 ** 2

/**
 * What one write or one reading holds. Meanwhile it must not wait for another one of the same budget, unless that is small,
 * and for one of another budget only if both were opened in one step: then the oldest is so in both.
 */
export interface MemoryShare extends Disposable {
  /** Resolves when there is room. Rejects with the reason of `signal`. */
  take(bytes: number, signal?: AbortSignal): Promise<void>
  /** Takes it only where there is room that nobody waits for. */
  tryTake(bytes: number): boolean
  give(bytes: number): void
}

interface Held {
  bytes: number
  waiting: { bytes: number; grant: () => void }[]
}

/**
 * Bounds the memory of all that is on its way to or from a store at once. Bytes are granted while there is room; the
 * share that was opened first is granted whatever it asks for, so that there is always one that comes to its end. So
 * there is never more than the budget and what a single object needs, and what is small of each of the others.
 */
export class MemoryBudget {
  readonly #bytes: number
  readonly #smallBytes: number
  #usedBytes = 0
  /** In the order in which they were opened. */
  readonly #shares = new Set<Held>()

  /**
   * A share that holds nothing gets up to `smallBytes` at once. The marker is read within a write, which holds memory
   * that others wait for: it would wait behind them for ever.
   */
  constructor(bytes: number = memoryBudgetBytes, smallBytes: number = markerBytesMax) {
    this.#bytes = bytes
    this.#smallBytes = smallBytes
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  open(): MemoryShare {
    const held: Held = { bytes: 0, waiting: [] }
    this.#shares.add(held)
    return {
      take: (bytes, signal) => this.#take(held, bytes, signal),
      tryTake: bytes => this.#tryTake(held, bytes),
      give: bytes => this.#give(held, bytes),
      [Symbol.dispose]: () => {
        this.#shares.delete(held)
        this.#give(held, held.bytes)
      },
    }
  }

  async #take(held: Held, bytes: number, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    if (held.bytes === 0 && held.waiting.length === 0 && bytes <= this.#smallBytes) {
      this.#hold(held, bytes)
      return
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiting = { bytes, grant: resolve }
    const giveUp = () => {
      const index = held.waiting.indexOf(waiting)
      if (index < 0) return
      held.waiting.splice(index, 1)
      reject(signal?.reason)
      this.#grant()
    }
    signal?.addEventListener('abort', giveUp, { once: true })
    held.waiting.push(waiting)
    this.#grant()
    await promise.finally(() => signal?.removeEventListener('abort', giveUp))
  }

  #tryTake(held: Held, bytes: number): boolean {
    for (const { waiting } of this.#shares) if (waiting.length > 0) return false
    if (!this.#mayTake(held, bytes)) return false
    this.#hold(held, bytes)
    return true
  }

  #give(held: Held, bytes: number): void {
    this.#hold(held, -bytes)
    this.#grant()
  }

  #hold(held: Held, bytes: number): void {
    held.bytes += bytes
    this.#usedBytes += bytes
  }

  #mayTake(held: Held, bytes: number): boolean {
    const [oldest] = this.#shares
    return held === oldest || this.#usedBytes + bytes <= this.#bytes
  }

  /** Older ones first: those who come later must not take what one of them waits for. */
  #grant(): void {
    for (const held of this.#shares) {
      for (let next = held.waiting[0]; next !== undefined; next = held.waiting[0]) {
        if (!this.#mayTake(held, next.bytes)) return
        held.waiting.shift()
        this.#hold(held, next.bytes)
        next.grant()
      }
    }
  }
}
