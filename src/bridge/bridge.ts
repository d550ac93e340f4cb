import type { Log, LogMessage } from '../contract/error-report.ts'
import { type Clock, resolvesWithin } from '../system/clock.ts'
import { FrameSplitter } from './frame.ts'
import { decodeFromServer, encodeToServer, type FromServer, type ToServer } from './messages.ts'

const memoryLookIntervalMs = 500
const mebibyte = 1024 * 1024

// A module thread that does not take a message within this time after its call's time has ended is blocked.
const blockedAfterMs = 2_000

// What the server's archiver makes before it turns to something else. An attempt joins the one before it that has not
// ended, so a module that has forgotten a file for good would keep it from being archived for ever.
const unansweredAttemptsMax = 3

// The server reads only while it waits. What a module says in a call that it takes no part in must not fill our memory.
const unsentBytesMax = 1024 * 1024

export interface BridgeOptions {
  clock: Clock
  /** The channel to the server's end. */
  channel: { write(bytes: Uint8Array): void; unsentBytes(): number }
  /** The thread of the module; see `ModuleSide`. */
  moduleThread: { post(message: FromServer): void; isAlive(): Promise<void> }
  /** Writes to the server's log by way of standard error: for what is said while the server does not listen. */
  stderr: Log
  /** Resident memory of this process, in bytes. */
  residentBytes(): number
  /** Ends the process at once. */
  exit(status: 0 | 1): void
}

type ArchiveRequest = Extract<FromServer, { type: 'archive' }>

/**
 * The thread that serves the channel. It runs nothing of the module, so that it always answers: it passes requests to
 * the thread of the module and answers back, and ends the process when that thread is blocked or the process has grown
 * too large. What is lost by that is started again by the server's end.
 */
export class Bridge {
  readonly #options: BridgeOptions
  readonly #splitter = new FrameSplitter()
  /** Requests that have not been answered, and what ends the watch over each. While there are some, the server listens. */
  readonly #open = new Map<number, AbortController>()
  /** Attempts in a row that got no answer in their time, by file. */
  readonly #unanswered = new Map<string, number>()
  #isStarting = true
  #memoryLimitBytes = 0
  #dropped = 0

  constructor(options: BridgeOptions) {
    this.#options = options
  }

  /** Bytes from the server. */
  receive(bytes: Uint8Array): void {
    try {
      for (const { type, payload } of this.#splitter.push(bytes))
        this.#handle(decodeFromServer(type, payload))
    } catch (thrown) {
      const errmsg = thrown instanceof Error ? thrown.message : String(thrown)
      this.#options.stderr({ level: 'FATAL', errmsg: `pgarchivist: ${errmsg}` })
      this.#options.exit(1)
    }
  }

  /** A message from the thread of the module. */
  forward(message: ToServer): void {
    if (message.type === 'log') return this.#log(message.message)
    if (message.type === 'ready') this.#isStarting = false
    if (message.type === 'checked' || message.type === 'archived') this.#close(message.request)
    if (message.type === 'archived') this.#unanswered.delete(message.file)
    this.#write(message)
  }

  /** Looks at the memory of this process for as long as it lives. */
  async watchMemory(): Promise<void> {
    const { clock, residentBytes, exit } = this.#options
    for (;;) {
      await clock.sleep(memoryLookIntervalMs)
      const bytes = residentBytes()
      if (this.#memoryLimitBytes === 0 || bytes <= this.#memoryLimitBytes) continue
      const used = Math.round(bytes / mebibyte)
      const limit = Math.round(this.#memoryLimitBytes / mebibyte)
      this.#log({
        level: 'WARNING',
        errmsg: `archive module uses ${used} MB of memory and is started again`,
        errhint: `"pgarchivist.memory_limit" is ${limit} MB.`,
      })
      return exit(1)
    }
  }

  #handle(message: FromServer): void {
    switch (message.type) {
      case 'ping':
        this.#write({ type: 'pong' })
        return
      case 'hello':
      case 'settings':
        this.#memoryLimitBytes = message.memoryLimit * mebibyte
        break
      case 'check':
        this.#open.set(message.request, new AbortController())
        break
      case 'archive': {
        const answered = new AbortController()
        this.#open.set(message.request, answered)
        void this.#watchCall(message, answered.signal)
        break
      }
      case 'quit':
        break
      default:
        message satisfies never
    }
    this.#options.moduleThread.post(message)
  }

  /** When the time of a call has ended, is it waiting for something, or does it hold its thread? */
  async #watchCall({ request, timeoutMs, file }: ArchiveRequest, answered: AbortSignal): Promise<void> {
    const { clock, moduleThread, exit } = this.#options
    await clock.sleep(timeoutMs, answered)
    if (answered.aborted) return
    this.#close(request) // the server does not wait for it any longer
    const attempts = (this.#unanswered.get(file) ?? 0) + 1
    this.#unanswered.set(file, attempts)
    if (await resolvesWithin(blockedAfterMs, moduleThread.isAlive(), clock)) {
      if (attempts < unansweredAttemptsMax || !this.#unanswered.has(file)) return
      const errmsg = `archive module has not answered for "${file}" in ${attempts} attempts and is started again`
      this.#log({ level: 'WARNING', errmsg })
    } else this.#log({ level: 'WARNING', errmsg: 'archive module blocks its thread and is started again' })
    exit(1)
  }

  #close(request: number): void {
    this.#open.get(request)?.abort()
    this.#open.delete(request)
  }

  #log(message: LogMessage): void {
    const isHeard = this.#isStarting || this.#open.size > 0
    if (!isHeard) return this.#options.stderr(message)
    if (this.#options.channel.unsentBytes() > unsentBytesMax) {
      this.#dropped++
      return
    }
    if (this.#dropped > 0) {
      const errmsg = `${this.#dropped} messages of the archive module came too fast and were dropped`
      this.#dropped = 0
      this.#write({ type: 'log', message: { level: 'WARNING', errmsg } })
    }
    this.#write({ type: 'log', message })
  }

  #write(message: ToServer): void {
    this.#options.channel.write(encodeToServer(message))
  }
}
