import type { Socket } from 'node:net'

/** One direction of a line that all connections share. */
export class Line {
  /** From one end to the other. */
  delayMs = 0
  bytesPerSecond = Number.POSITIVE_INFINITY
  #freeAtMs = 0

  get isImmediate(): boolean {
    return this.delayMs === 0 && this.bytesPerSecond === Number.POSITIVE_INFINITY
  }

  /** When bytes that are sent at this moment are at the other end, if nothing holds them up. */
  arrivalMs(bytes: number): number {
    // One after another: what another connection sent before is in front of it.
    this.#freeAtMs = Math.max(this.#freeAtMs, performance.now()) + (bytes / this.bytesPerSecond) * 1000
    return this.#freeAtMs + this.delayMs
  }
}

// What one connection may have on its way: more than fast stores send in a tenth of a second.
const underwayBytesMax = 16 * 1024 * 1024

interface Underway {
  dueMs: number
  bytes: Buffer | undefined
  act: (() => void) | undefined
}

/**
 * Takes bytes, and acts that have to stay in order with them, from one socket to another, each as late as the line makes
 * it and never early.
 */
export class DelayedPipe {
  readonly #source: Socket
  readonly #sink: Socket
  readonly #line: Line
  #queue: Underway[] = []
  #underwayBytes = 0
  #notBeforeMs = 0
  #timer: NodeJS.Timeout | undefined
  #isSinkFull = false
  #isClosed = false

  constructor(source: Socket, sink: Socket, line: Line) {
    this.#source = source
    this.#sink = sink
    this.#line = line
    sink.on('drain', () => {
      this.#isSinkFull = false
      this.#deliver()
    })
  }

  /** What is sent from now on counts as sent no earlier than this. */
  holdFor(ms: number): void {
    this.#notBeforeMs = performance.now() + ms
  }

  /** Forgets what is on its way and what is still sent. */
  close(): void {
    clearTimeout(this.#timer)
    this.#queue = []
    this.#isClosed = true
    this.#source.resume()
  }

  send(bytes: Buffer): void {
    if (this.#isClosed) return
    if (this.#queue.length === 0 && !this.#isSinkFull && this.#line.isImmediate && !this.#isHeld()) {
      this.#write(bytes)
      if (this.#isSinkFull) this.#source.pause()
      return
    }
    this.#underwayBytes += bytes.length
    this.#enqueue(bytes, undefined)
    if (this.#underwayBytes > underwayBytesMax) this.#source.pause()
  }

  /** Does this when all that was sent before has arrived. */
  afterwards(act: () => void): void {
    if (this.#isClosed) return
    this.#enqueue(undefined, act)
  }

  #isHeld(): boolean {
    return this.#notBeforeMs > 0 && performance.now() < this.#notBeforeMs
  }

  #enqueue(bytes: Buffer | undefined, act: (() => void) | undefined): void {
    // Others do not wait for what only this connection is held up by.
    const dueMs = Math.max(this.#line.arrivalMs(bytes?.length ?? 0), this.#notBeforeMs + this.#line.delayMs)
    const last = this.#queue.at(-1)?.dueMs ?? 0
    // The line may have become shorter meanwhile; nothing overtakes all the same.
    this.#queue.push({ dueMs: Math.max(dueMs, last), bytes, act })
    this.#deliver()
  }

  #deliver(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    let delivered = 0
    for (const { dueMs, bytes, act } of this.#queue) {
      if (this.#isSinkFull || dueMs > performance.now()) break
      delivered++
      if (bytes !== undefined) {
        this.#underwayBytes -= bytes.length
        this.#write(bytes)
      }
      // An act may send or drop, so the queue has to be right before it.
      if (act !== undefined) {
        this.#queue = this.#queue.slice(delivered)
        delivered = 0
        act()
        this.#deliver()
        return
      }
    }
    this.#queue = this.#queue.slice(delivered)
    if (this.#underwayBytes <= underwayBytesMax / 2 && !this.#isSinkFull) this.#source.resume()
    const next = this.#queue[0]
    if (next !== undefined && !this.#isSinkFull)
      this.#timer = setTimeout(() => this.#deliver(), Math.max(1, Math.ceil(next.dueMs - performance.now())))
  }

  #write(bytes: Buffer): void {
    if (this.#sink.destroyed || this.#sink.writableEnded) return
    this.#isSinkFull = !this.#sink.write(bytes)
  }
}
