import type { Log, LogMessage } from '../contract/error-report.ts'
import { type Clock, resolvesWithin } from '../system/clock.ts'
import { FrameSplitter, ProtocolError } from './frame.ts'
import { decodeFromServer, encodeToServer, type FromServer, type ToServer } from './messages.ts'
import { OutputBudget } from './output-budget.ts'

const memoryLookIntervalMs = 500
const mebibyte = 1024 * 1024

// A module thread that does not take a message within this time after its call's time has ended is blocked.
const blockedAfterMs = 2_000

// What the server's archiver makes before it turns to something else. An attempt joins the one before it that has not
// ended, so a module that has forgotten a file for good would keep it from being archived for ever.
const unansweredAttemptsMax = 3

// The server reads only while it waits. What a module says in a call that it takes no part in must not fill our memory.
const unsentBytesMax = 1024 * 1024

// The server's end waits as long as this one, and began to a little earlier. It shall be the first to speak.
const afterServerMs = 200

const requestMax = 2_147_483_647

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
 * What the server's end may say: first `hello`, then nothing but `quit` until it was told `ready`, then everything but
 * another `hello`, and after `quit` nothing.
 */
type State = 'greeting' | 'starting' | 'serving' | 'quitting'

const allowed: Record<State, readonly FromServer['type'][]> = {
  greeting: ['hello'],
  starting: ['quit'],
  serving: ['settings', 'check', 'archive', 'ping', 'quit'],
  quitting: [],
}

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
  readonly #budgets: { debug: OutputBudget; other: OutputBudget }
  #state: State = 'greeting'
  #lastRequest: number | undefined
  #memoryLimitBytes = 0

  constructor(options: BridgeOptions) {
    this.#options = options
    this.#budgets = { debug: new OutputBudget(options.clock), other: new OutputBudget(options.clock) }
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
    if (message.type === 'ready' && this.#state === 'starting') this.#state = 'serving'
    if (message.type === 'archived') {
      this.#unanswered.delete(message.file)
      if (message.archived) for (const budget of Object.values(this.#budgets)) budget.reward()
    }
    // While the server listens: its log says what is missing of an attempt before it says how that ended.
    if (message.type === 'checked' || message.type === 'archived') {
      this.#tellLeftOut()
      this.#close(message.request)
    }
    this.#write(message)
  }

  /** Nothing more is forwarded. */
  end(): void {
    this.#tellLeftOut()
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
      this.say({
        level: 'WARNING',
        errmsg: `archive module uses ${used} MB of memory and is started again`,
        errhint: `"pgarchivist.memory_limit" is ${limit} MB.`,
      })
      return exit(1)
    }
  }

  #handle(message: FromServer): void {
    if (!allowed[this.#state].includes(message.type)) {
      throw new ProtocolError(`"${message.type}" is not possible while ${this.#state}`)
    }
    switch (message.type) {
      case 'ping':
        this.#write({ type: 'pong' })
        return
      case 'hello':
        this.#state = 'starting'
        this.#memoryLimitBytes = message.memoryLimit * mebibyte
        break
      case 'settings':
        this.#memoryLimitBytes = message.memoryLimit * mebibyte
        break
      case 'check':
        this.#expectNext(message.request)
        this.#open.set(message.request, new AbortController())
        break
      case 'archive': {
        this.#expectNext(message.request)
        const answered = new AbortController()
        this.#open.set(message.request, answered)
        void this.#watchCall(message, answered.signal)
        break
      }
      case 'quit':
        this.#state = 'quitting'
        break
      default:
        message satisfies never
    }
    this.#options.moduleThread.post(message)
  }

  /** Requests are numbered one after the other, so that no answer can be taken for another. */
  #expectNext(request: number): void {
    const last = this.#lastRequest
    this.#lastRequest = request
    if (last === undefined || request === (last === requestMax ? 1 : last + 1)) return
    throw new ProtocolError(`request ${request} does not follow ${last}`)
  }

  /** When the time of a call has ended, is it waiting for something, or does it hold its thread? */
  async #watchCall({ request, timeoutMs, file }: ArchiveRequest, answered: AbortSignal): Promise<void> {
    const { clock, moduleThread, exit } = this.#options
    await clock.sleep(timeoutMs + afterServerMs, answered)
    if (answered.aborted) return
    this.#close(request) // the server does not wait for it any longer
    this.#tellLeftOut()
    const attempts = (this.#unanswered.get(file) ?? 0) + 1
    this.#unanswered.set(file, attempts)
    if (await resolvesWithin(blockedAfterMs, moduleThread.isAlive(), clock)) {
      if (attempts < unansweredAttemptsMax || !this.#unanswered.has(file)) return
      const errmsg = `archive module has not answered for "${file}" in ${attempts} attempts and is started again`
      this.say({ level: 'WARNING', errmsg, errhint: 'See "pgarchivist.file_timeout".' })
    } else {
      const errdetail = `It was given "${file}".`
      this.say({
        level: 'WARNING',
        errmsg: 'archive module blocks its thread and is started again',
        errdetail,
      })
    }
    exit(1)
  }

  #close(request: number): void {
    this.#open.get(request)?.abort()
    this.#open.delete(request)
  }

  #log(message: LogMessage): void {
    const budget = message.level.startsWith('DEBUG') ? this.#budgets.debug : this.#budgets.other
    // Why an attempt has failed is never left out. It can be said once in each.
    const isMust = ['ERROR', 'FATAL', 'PANIC'].includes(message.level)
    if (!isMust) {
      const isBehind = this.#isHeard && this.#options.channel.unsentBytes() > unsentBytesMax
      const isTaken = isBehind ? budget.leaveOut() : budget.take(sizeOf(message))
      if (!isTaken) return
    }
    this.#tellLeftOut([budget])
    this.say(message)
  }

  #tellLeftOut(budgets: readonly OutputBudget[] = Object.values(this.#budgets)): void {
    const dropped = budgets.reduce((sum, budget) => sum + budget.takeLeftOut(), 0)
    if (dropped === 0) return
    const errmsg = `${dropped} messages of the archive module came too fast and were dropped`
    this.say({ level: 'WARNING', errmsg })
  }

  get #isHeard(): boolean {
    return this.#state === 'starting' || this.#state === 'quitting' || this.#open.size > 0
  }

  /** What is to be told of the module, however much the module says itself. */
  say(message: LogMessage): void {
    if (this.#isHeard) this.#write({ type: 'log', message })
    else this.#options.stderr(message)
  }

  #write(message: ToServer): void {
    let frame: Uint8Array
    try {
      frame = encodeToServer(message)
    } catch (thrown) {
      // What a module without a compiler gave us for a text, and nobody has looked at.
      const errmsg = thrown instanceof Error ? thrown.message : String(thrown)
      this.#options.stderr({
        level: 'FATAL',
        errmsg: `pgarchivist: could not send "${message.type}": ${errmsg}`,
      })
      return this.#options.exit(1)
    }
    this.#options.channel.write(frame)
  }
}

function sizeOf({ errmsg, errdetail, errhint }: LogMessage): number {
  return errmsg.length + (errdetail?.length ?? 0) + (errhint?.length ?? 0)
}
