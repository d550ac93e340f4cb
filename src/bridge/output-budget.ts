import type { Clock } from '../system/clock.ts'

// What a module may say at once: more than anybody reads, less than fills a disk.
const messagesMax = 5_000
const bytesMax = 1024 * 1024

// What it may say in the long run, when no file is archived.
const messagesPerSecond = 50
const bytesPerSecond = 16 * 1024

// What it gains by each file that is archived: who works may talk about it.
const messagesPerFile = 100
const bytesPerFile = 64 * 1024

// After it has said too much, it is silent until this share is there again, so that it is not cut off in mid-word all
// the time.
const reopenShare = 0.1

/**
 * Bounds how much of what a module says is written: a module that says the same thing for ever would fill the disk of
 * the server's log within one attempt. What is left out is counted, to be told.
 */
export class OutputBudget {
  readonly #clock: Pick<Clock, 'monotonic'>
  #messages = messagesMax
  #bytes = bytesMax
  #refilledAt: number
  #isOpen = true
  #leftOut = 0

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock
    this.#refilledAt = clock.monotonic()
  }

  /** May this be written? */
  take(bytes: number, messages = 1): boolean {
    this.#refill()
    if (!this.#isOpen) return this.leaveOut(messages)
    this.#messages -= messages
    this.#bytes -= bytes
    this.#isOpen = this.#messages > 0 && this.#bytes > 0
    return true
  }

  /** Counts what is left out for another reason. */
  leaveOut(messages = 1): false {
    this.#leftOut += messages
    return false
  }

  /** A file was archived. */
  reward(): void {
    this.#add(messagesPerFile, bytesPerFile)
  }

  /** How much was left out since this was asked last. */
  takeLeftOut(): number {
    const leftOut = this.#leftOut
    this.#leftOut = 0
    return leftOut
  }

  get hasLeftOut(): boolean {
    return this.#leftOut > 0
  }

  #refill(): void {
    const now = this.#clock.monotonic()
    const seconds = (now - this.#refilledAt) / 1_000
    this.#refilledAt = now
    this.#add(messagesPerSecond * seconds, bytesPerSecond * seconds)
  }

  #add(messages: number, bytes: number): void {
    this.#messages = Math.min(messagesMax, this.#messages + messages)
    this.#bytes = Math.min(bytesMax, this.#bytes + bytes)
    this.#isOpen ||= this.#messages >= messagesMax * reopenShare && this.#bytes >= bytesMax * reopenShare
  }
}
