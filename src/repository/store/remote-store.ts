import type { Clock } from '../../system/clock.ts'
import { orAborted } from '../../system/or-aborted.ts'
import { markerKey, parseWalObjectKey } from '../object-key.ts'
import { RepositoryError } from '../repository-error.ts'
import { KeepingTrial } from './keeping-trial.ts'
import { MemoryBudget, type MemoryShare } from './memory-budget.ts'
import { partBytesDefault } from './part-bytes.ts'
import { RemoteObject } from './remote-object.ts'
import { type Collected, RemoteWrite } from './remote-write.ts'
import { type Answers, type RemoteDriver, type RemoteFeatures, type Send, sendTo } from './requests.ts'
import type {
  ListedObject,
  NewObject,
  OpenOptions,
  PutOptions,
  Store,
  StoredObject,
  StoreFeatures,
  UnfinishedWrite,
} from './store.ts'
import { RequestCounts, withCounts } from './with-counts.ts'
import { withDeadline } from './with-deadline.ts'
import { withHedging } from './with-hedging.ts'
import { withLimit } from './with-limit.ts'
import { withRetries } from './with-retries.ts'

export interface RemoteStoreOptions {
  url: string
  features: RemoteFeatures
  send: Send
  clock: Pick<Clock, 'now' | 'monotonic' | 'sleep'>
  budget?: MemoryBudget
  /** How much of an object goes in one request, unless the store wants more. */
  partBytes?: number
  /** Lets go of what `send` uses. */
  close?: () => Promise<void>
}

/** Names in a page, as the common stores have it at most. */
const pageNames = 1_000
/** An upload this old has lost its writer. */
const lostUploadMs = 24 * 3_600_000
/** How long whoever lets go of the store waits for the last uploads to be abandoned. */
const lastAbandoningMs = 5_000
/** Of so many objects the lengths are remembered, to know how much the next one is going to have. */
const lengthsRemembered = 32
/** What is asked for of an object at least, and the step in which more is asked for. */
const pieceStepBytes = 1024 ** 2
// Two clusters may have put the same bytes: what is looked at must tell whose they are.
const lookBytes = 64 * 1024

const manyFilesAtOnce = 16

/** What one object may hold at most, where it would better come in one piece: all of a segment as large as most are. */
const wholeBytesMax = 64 * 1024 ** 2 + 64 * 1024

/** Objects that are asked for across a network. What is sent, and how often, is the matter of `send`. */
export class RemoteStore implements Store {
  readonly url: string
  readonly features: StoreFeatures
  readonly #options: RemoteStoreOptions
  readonly #send: Send
  readonly #budget: MemoryBudget
  readonly #keeping: KeepingTrial
  readonly #partBytes: number
  readonly #lengths: number[] = []
  /** Abandoning uploads, which nobody waits for who was told to stop. */
  readonly #background = new Set<Promise<void>>()
  readonly #closing = new AbortController()
  #lost: () => void = () => {}
  #puts = 0
  #cleanedMs: number | undefined

  constructor(options: RemoteStoreOptions) {
    this.#options = options
    this.url = options.url
    this.features = {
      canBeUnmounted: options.features.canBeUnmounted ?? false,
      filesAtOnce: manyFilesAtOnce,
    }
    this.#send = options.send
    this.#partBytes = Math.max(options.partBytes ?? partBytesDefault, options.features.partBytesMin)
    this.#budget = options.budget ?? new MemoryBudget()
    this.#keeping = new KeepingTrial(options.send, options.features)
  }

  async inspect(): Promise<void> {
    await this.#send('inspect', undefined)
  }

  async isEmpty(): Promise<boolean> {
    return !(await this.mayHave(''))
  }

  async mayHave(prefix: string): Promise<boolean> {
    for await (const _ of this.#listed(prefix, 1)) return true
    return false
  }

  async put(key: string, object: NewObject, options: PutOptions = {}): Promise<'written' | 'exists'> {
    const failed = new AbortController()
    options.allowed?.catch(thrown => failed.abort(thrown))
    options.signal?.throwIfAborted()
    const replace = options.replace === true
    const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal
    const allowed = options.allowed && orAborted(options.allowed, signal)
    allowed?.catch(() => {}) // told to whoever waits for it
    const share = this.#budget.open()
    const { features } = this.#options
    const write = new RemoteWrite({
      send: this.#send,
      features,
      key,
      share,
      signal,
      allowed,
      partBytes: this.#partBytes,
      wholeBytes: () => this.#wholeBytes(),
    })
    let isEnded = false
    try {
      const collected = await write.collect(object)
      await allowed
      this.#cleanUp()
      const outcome = await this.#store(key, collected, replace, signal)
      isEnded = outcome === 'written' || collected.kind === 'whole'
      return outcome
    } finally {
      // Nothing more is sent for what has failed.
      if (isEnded) share[Symbol.dispose]()
      else {
        failed.abort(new Error('the write has failed'))
        const abandoned = this.#inBackground(this.#giveUp(key, write, share))
        if (options.signal?.aborted !== true) await abandoned
      }
    }
  }

  keepsWhatIsThere(key: string, bytes: Uint8Array, lost?: () => void): Promise<boolean> {
    if (lost !== undefined) this.#lost = lost
    return this.#keeping.try(key, bytes)
  }

  async open(key: string, options: OpenOptions = {}): Promise<StoredObject | undefined> {
    const { bytesWanted = Number.POSITIVE_INFINITY, signal } = options
    const bytes = Math.min(bytesWanted, this.#expectedBytes())
    const share = this.#budget.open()
    try {
      await share.take(bytes, signal)
      const first = await this.#send('get', { key, start: 0, bytes }, signal)
      if (first === undefined) {
        share[Symbol.dispose]()
        return undefined
      }
      if (first.bytes.length !== Math.min(bytes, first.length)) {
        throw new RepositoryError(
          'UNREACHABLE',
          `"${key}" in repository "${this.url}" came with ${first.bytes.length} bytes of ${Math.min(bytes, first.length)}`,
        )
      }
      share.give(bytes - first.bytes.length)
      const isWantedWhole = bytesWanted >= first.length
      if (isWantedWhole) this.#remember(first.length)
      const { url } = this
      const pieceBytes = this.#partBytes
      return new RemoteObject({ send: this.#send, url, key, first, share, pieceBytes, isWantedWhole, signal })
    } catch (thrown) {
      share[Symbol.dispose]()
      throw thrown
    }
  }

  async confirm(key: string): Promise<'durable' | 'distrusted'> {
    return await this.#send('confirm', { key })
  }

  list(prefix: string): AsyncIterable<ListedObject> {
    return this.#listed(prefix, pageNames)
  }

  async *unfinishedWrites(changedBeforeMs: number): AsyncIterable<UnfinishedWrite> {
    for await (const { key, length, begunMs } of this.#uploads()) {
      if (begunMs < changedBeforeMs) yield { key, length }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#background.size > 0) {
      const timer = new AbortController()
      const late = this.#options.clock.sleep(lastAbandoningMs, timer.signal)
      await Promise.race([Promise.allSettled(this.#background), late])
      timer.abort()
    }
    this.#closing.abort(new Error('the store was closed'))
    await this.#options.close?.()
  }

  async #store(
    key: string,
    collected: Collected,
    replace: boolean,
    signal: AbortSignal,
  ): Promise<'written' | 'exists'> {
    if (replace || (await this.#keeps(collected)))
      return await this.#sendWhole(key, collected, replace, signal)
    // It replaces what is there, or may do so: the best that is left is to look before and after.
    if ((await this.#start(key, 1, signal)) !== undefined) return 'exists'
    const outcome = await this.#sendWhole(key, collected, false, signal)
    if (outcome === 'exists') return outcome
    const own = startOf(collected)
    const stored = await this.#start(key, own.length, signal)
    if (stored === undefined) {
      throw new RepositoryError('UNREACHABLE', `"${key}" was stored in repository "${this.url}", and is gone`)
    }
    // Somebody else was there last. Whether that is the same file is for the caller to find out.
    const isOwn = stored.length === collected.length && Buffer.compare(stored.bytes, own) === 0
    return isOwn ? 'written' : 'exists'
  }

  async #keeps({ kind }: Collected): Promise<boolean> {
    const putKeeps = await this.#keeping.putKeeps
    if (kind === 'whole') return putKeeps
    const uploadKeeps = await this.#keeping.uploadKeeps()
    if (putKeeps && !uploadKeeps) this.#lost()
    return uploadKeeps
  }

  /** Where only a single request keeps what is there, it is better to hold a large object than to replace another one. */
  async #wholeBytes(): Promise<number> {
    const isBetterWhole = (await this.#keeping.putKeeps) && !(await this.#keeping.uploadKeeps())
    return isBetterWhole ? Math.max(wholeBytesMax, this.#partBytes) : this.#partBytes
  }

  async #sendWhole(
    key: string,
    collected: Collected,
    replace: boolean,
    signal: AbortSignal,
  ): Promise<'written' | 'exists'> {
    const { front, length } = collected
    const how = replace ? { replace } : {}
    if (collected.kind === 'whole') {
      const body = front.length > 0 ? [front, ...collected.body] : collected.body
      return await this.#send('put', { key, body, ...how }, signal)
    }
    const { firstPart, upload, parts } = collected
    const body = front.length > 0 ? [front, ...firstPart] : firstPart
    const first = await this.#send('putPart', { key, upload, part: 1, start: 0, body }, signal)
    return await this.#send('endUpload', { key, upload, parts: [first, ...parts], length, ...how }, signal)
  }

  async #start(key: string, bytes: number, signal: AbortSignal) {
    return await this.#send('get', { key, start: 0, bytes }, signal)
  }

  /** As much as one of the last objects had: the rest of a larger one takes another request, and memory is kept free. */
  #expectedBytes(): number {
    if (this.#lengths.length === 0) return this.#partBytes
    const steps = Math.ceil(Math.max(...this.#lengths) / pieceStepBytes)
    return Math.min(this.#partBytes, Math.max(1, steps) * pieceStepBytes)
  }

  #remember(length: number): void {
    this.#lengths.push(length)
    if (this.#lengths.length > lengthsRemembered) this.#lengths.shift()
  }

  /** Asks for the next page while the last one is being looked at. */
  async *#listed(prefix: string, limit: number): AsyncGenerator<ListedObject> {
    const ask = (after?: string): Promise<Answers['list']> => {
      const page = this.#send('list', { prefix, after, limit })
      page.catch(() => {}) // told when it is its turn
      return page
    }
    let after: string | undefined
    let next: Promise<Answers['list']> | undefined = ask()
    while (next !== undefined) {
      const { objects, isLast }: Answers['list'] = await next
      const last = objects.at(-1)
      if (last === undefined && !isLast) {
        throw new RepositoryError('UNREACHABLE', `repository "${this.url}" gave a page of names without any`)
      }
      this.#requireOrder(objects, after)
      after = last?.key
      next = isLast || limit === 1 ? undefined : ask(last?.key)
      yield* objects
    }
  }

  /** There are stores that know no order, or not how to go on behind a name: their lists would end nowhere, or hold gaps. */
  #requireOrder(objects: readonly ListedObject[], after: string | undefined): void {
    let last = after
    for (const { key } of objects) {
      if (last !== undefined && key <= last) {
        throw new RepositoryError(
          'UNREACHABLE',
          `could not list repository "${this.url}": its store names "${key}" after "${last}"`,
          { hint: 'Use a store that lists the names of objects in their order.' },
        )
      }
      last = key
    }
  }

  async *#uploads(signal?: AbortSignal) {
    for (let after: string | undefined; ; ) {
      const { uploads, next } = await this.#send('listUploads', { after }, signal)
      yield* uploads
      if (next === undefined) return
      after = next
    }
  }

  /** Once a day, what writers have left who are gone for good. One that stores a single file leaves it to others. */
  #cleanUp(): void {
    const now = this.#options.clock.monotonic()
    if (++this.#puts < 2) return
    if (this.#cleanedMs !== undefined && now - this.#cleanedMs < lostUploadMs) return
    this.#cleanedMs = now
    void this.#inBackground(this.#removeLost())
  }

  async #removeLost(): Promise<void> {
    const before = this.#options.clock.now() - lostUploadMs
    for await (const { key, upload, begunMs } of this.#uploads(this.#closing.signal)) {
      const isOurs = key === markerKey || parseWalObjectKey(key) !== undefined
      // One that cannot be removed keeps none of the others.
      if (isOurs && begunMs < before) await this.#abandon(key, upload).catch(() => undefined)
    }
  }

  async #giveUp(key: string, write: RemoteWrite, share: MemoryShare): Promise<void> {
    const upload = await write.begun()
    share[Symbol.dispose]()
    await this.#abandon(key, upload)
  }

  async #abandon(key: string, upload: string | undefined): Promise<void> {
    if (upload !== undefined) await this.#send('abandonUpload', { key, upload }, this.#closing.signal)
  }

  /** What fails here is left to those who clean up. */
  #inBackground(work: Promise<void>): Promise<void> {
    const settled = work.catch(() => undefined).finally(() => this.#background.delete(settled))
    this.#background.add(settled)
    return settled
  }
}

/** Enough to tell whose it is. */
function startOf({ front, ...rest }: Collected): Uint8Array {
  const start = new Uint8Array(Math.max(front.length, lookBytes))
  let filled = 0
  for (const piece of [front, ...(rest.kind === 'whole' ? rest.body : rest.firstPart)]) {
    const bytes = piece.subarray(0, start.length - filled)
    start.set(bytes, filled)
    filled += bytes.length
  }
  return start.subarray(0, filled)
}

export interface RemoteOptions {
  clock: Clock
  /** From 0 up to, not including, 1. */
  random: () => number
  /** For how long a request that fails is sent again. */
  retryMs: number
  counts?: RequestCounts
  budget?: MemoryBudget
  partBytes?: number
}

/** The store that a driver drives, with all that makes one request out of several which may fail. */
export function remoteStore(driver: RemoteDriver, options: RemoteOptions): RemoteStore {
  const { clock, random, retryMs, budget, partBytes, counts = new RequestCounts() } = options
  const { url, features } = driver
  let send = withCounts(sendTo(driver), { counts, clock })
  send = withDeadline(send, { url, clock })
  send = withHedging(send, { clock, hedged: kind => counts.of(kind).hedges++ })
  send = withLimit(send, { clock })
  send = withRetries(send, { clock, random, totalMs: retryMs, retried: kind => counts.of(kind).retries++ })
  const close = async () => await driver[Symbol.asyncDispose]()
  return new RemoteStore({
    url,
    features,
    send,
    clock,
    close,
    ...(budget && { budget }),
    ...(partBytes && { partBytes }),
  })
}
