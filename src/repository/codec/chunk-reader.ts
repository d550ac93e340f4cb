import { type ByteSource, chunkBytes } from './byte-source.ts'
import { type ChunkBuffers, chunkBuffers } from './chunk-buffers.ts'

/** Something that wants to see all bytes, in order. */
export interface Onlooker {
  update(bytes: Uint8Array): unknown
}

/**
 * Reads a source of a length that is known, chunk by chunk, no more than a byte beyond it. There are two buffers: a
 * chunk stays what it is until the next but one is read, so that one can be processed while the next one is read. To
 * be disposed of when the last chunk was processed.
 */
export class ChunkReader implements Disposable {
  readonly #source: ByteSource
  readonly #expectedLength: number
  readonly #onlooker: Onlooker
  readonly #signal: AbortSignal | undefined
  readonly #buffers: ChunkBuffers
  #chunks = 0
  #length = 0
  #hasEnded = false
  #failure: { error: unknown } | undefined

  constructor(
    source: ByteSource,
    expectedLength: number,
    onlooker: Onlooker,
    signal: AbortSignal | undefined,
    chunkLength = chunkBytes,
  ) {
    this.#buffers = chunkBuffers(chunkLength)
    this.#source = source
    this.#expectedLength = expectedLength
    this.#onlooker = onlooker
    this.#signal = signal
  }

  /** How much was read so far. After the end one byte more than expected means: too many. */
  get length(): number {
    return this.#length
  }

  /**
   * Resolves with `undefined` at the end of the source, or when it turned out to be longer than expected. A source that
   * failed stays so: what it would give next belongs who knows where.
   */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#failure) throw this.#failure.error
    if (this.#hasEnded) return undefined
    try {
      this.#signal?.throwIfAborted()
      return await this.#read()
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  /** Calls back with every chunk that is left, reading the next one meanwhile. */
  async forEach(process: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    for (let bytes = await this.next(); bytes; ) {
      // If one of the two fails, the other one still has to end before anybody is told.
      const [processed, following] = await Promise.allSettled([process(bytes), this.next()])
      if (following.status === 'rejected') throw following.reason
      if (processed.status === 'rejected') throw processed.reason
      bytes = following.value
    }
  }

  async #read(): Promise<Uint8Array | undefined> {
    const missing = this.#expectedLength - this.#length
    const buffer = missing === 0 ? new Uint8Array(1) : this.#nextBuffer().subarray(0, missing)
    const bytesRead = await this.#source.read(buffer)
    this.#length += bytesRead
    this.#hasEnded = missing === 0 || bytesRead < buffer.length
    if (missing === 0 || bytesRead === 0) return undefined
    const bytes = buffer.subarray(0, bytesRead)
    this.#onlooker.update(bytes)
    return bytes
  }

  #nextBuffer(): Uint8Array {
    const [even, odd] = this.#buffers.pair
    return this.#chunks++ % 2 === 0 ? even : odd
  }

  [Symbol.dispose](): void {
    this.#buffers[Symbol.dispose]()
  }
}
