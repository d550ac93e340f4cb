import { freeMemory } from '../../system/free-memory.ts'
import { RepositoryError } from '../repository-error.ts'
import type { MemoryShare } from './memory-budget.ts'
import type { ObjectPiece, Send } from './requests.ts'
import type { StoredObject } from './store.ts'

/** How many pieces are asked for ahead of the reader, while there is memory for them. */
const piecesAheadMax = 4

export interface RemoteObjectOptions {
  send: Send
  url: string
  key: string
  /** From the first byte on. */
  first: ObjectPiece
  /** Holds the bytes of `first`. */
  share: MemoryShare
  /** How much is asked for at a time. */
  pieceBytes: number
  /** Is it going to be read to its end? */
  isWantedWhole: boolean
  signal: AbortSignal | undefined
}

interface Ahead {
  bytes: number
  piece: Promise<Uint8Array>
}

/** An object that is read in pieces, several of which are on their way at once. */
export class RemoteObject implements StoredObject {
  readonly length: number
  readonly #options: RemoteObjectOptions
  readonly #share: MemoryShare
  readonly #abort = new AbortController()
  readonly #signal: AbortSignal
  /** What has come and was not read yet, and how many bytes of it were. */
  #piece: Uint8Array
  #taken = 0
  readonly #ahead: Ahead[] = []
  /** Up to where pieces were asked for. */
  #asked: number
  #isWantedWhole: boolean

  constructor(options: RemoteObjectOptions) {
    const { first, share, signal, isWantedWhole } = options
    this.#options = options
    this.#share = share
    this.length = first.length
    this.#piece = first.bytes
    this.#asked = first.bytes.length
    this.#isWantedWhole = isWantedWhole
    this.#signal = signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal])
    this.#askAhead()
  }

  async read(buffer: Uint8Array): Promise<number> {
    let filled = 0
    while (filled < buffer.length) {
      if (this.#taken === this.#piece.length && !(await this.#next())) break
      const bytes = this.#piece.subarray(this.#taken, this.#taken + buffer.length - filled)
      buffer.set(bytes, filled)
      filled += bytes.length
      this.#taken += bytes.length
    }
    return filled
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort()
    await Promise.allSettled(this.#ahead.map(({ piece }) => piece))
    this.#share[Symbol.dispose]()
  }

  /** `false` at the end. */
  async #next(): Promise<boolean> {
    this.#share.give(this.#piece.length)
    freeMemory(this.#piece)
    this.#piece = new Uint8Array(0)
    this.#taken = 0
    if (this.#ahead.length === 0) {
      const bytes = this.#bytesAt(this.#asked)
      if (bytes === 0) return false
      await this.#share.take(bytes, this.#signal)
      this.#ask(bytes)
    }
    const next = this.#ahead.shift()
    if (next === undefined) return false
    // Whoever reads on after what was wanted at least wants all of it.
    this.#isWantedWhole = true
    this.#askAhead()
    this.#piece = await next.piece
    return true
  }

  #askAhead(): void {
    while (this.#isWantedWhole && this.#ahead.length < piecesAheadMax) {
      const bytes = this.#bytesAt(this.#asked)
      if (bytes === 0 || !this.#share.tryTake(bytes)) return
      this.#ask(bytes)
    }
  }

  #bytesAt(start: number): number {
    return Math.min(this.#options.pieceBytes, this.length - start)
  }

  #ask(bytes: number): void {
    const piece = this.#fetch(this.#asked, bytes)
    piece.catch(() => {}) // told when it is read
    this.#ahead.push({ bytes, piece })
    this.#asked += bytes
  }

  async #fetch(start: number, bytes: number): Promise<Uint8Array> {
    const { send, key, url } = this.#options
    const piece = await send('get', { key, start, bytes }, this.#signal)
    if (piece?.length === this.length && piece.bytes.length === bytes) return piece.bytes
    const what = piece === undefined ? 'was removed' : 'was changed'
    throw new RepositoryError(
      'UNREACHABLE',
      `"${key}" in repository "${url}" ${what} while it was being read`,
    )
  }
}
