import type { Clock } from '../../../system/clock.ts'
import type { Answers, Requests } from '../requests.ts'
import type { SftpEntry } from './sftp-session.ts'
import { type WalkedName, walkObjects } from './sftp-walk.ts'

/** As `ListDirectory`, until the signal of a request is aborted. */
export type ReadDirectory = (prefix: string, signal: AbortSignal | undefined) => Promise<readonly SftpEntry[]>

// So that a page, and a walk that is kept for the next one, stay small.
const namesMax = 1_000
const keptWalksMax = 4
/** After this long a page ends with what it has: a server that is far away may hold its names in many directories. */
export const pageMs = 2_000

/** A way through the directories, which one request goes on where another one has stopped. */
interface Walk {
  names: AsyncGenerator<WalkedName>
  /** Of the request that is under way: those before it have ended, and their signals with them. */
  signal: AbortSignal | undefined
  /** How many listings had begun when it did. */
  listingsBegun: number
}

/**
 * Pages of names, without reading for each of them the directories that lead to where the last one ended.
 *
 * A walk is kept only when its page was given whole, and belongs to one request at a time. A request that finds none (the
 * page was given up, or is asked for twice at once) walks anew from the name behind which it was asked to go on.
 */
export class SftpListings {
  readonly #read: ReadDirectory
  readonly #clock: Pick<Clock, 'monotonic'>
  /** Whose next page has not been asked for, by where it begins. */
  readonly #kept = new Map<string, Walk>()
  #begun = 0

  constructor(read: ReadDirectory, clock: Pick<Clock, 'monotonic'>) {
    this.#read = read
    this.#clock = clock
  }

  async page(
    { prefix, after, limit }: Requests['list'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['list']> {
    if (after === undefined) this.#begun++
    const walk = this.#take(place(prefix, after)) ?? this.#newWalk(prefix, after)
    walk.signal = signal
    const startedMs = this.#clock.monotonic()
    const objects: Answers['list']['objects'] = []
    while (objects.length < Math.min(limit, namesMax)) {
      const { value, done } = await walk.names.next()
      if (done) return { objects, isLast: true }
      if (!value.isDirectory) objects.push({ key: value.key, length: value.length })
      else if (objects.length > 0 && this.#clock.monotonic() - startedMs >= pageMs) break
    }
    // Nobody takes this page any more, so nobody may go on behind it.
    signal?.throwIfAborted()
    this.#keep(place(prefix, objects.at(-1)?.key), walk)
    return { objects, isLast: false }
  }

  #newWalk(prefix: string, after: string | undefined): Walk {
    const list = (directory: string) => this.#read(directory, walk.signal)
    const names = walkObjects(list, prefix, after)
    const walk: Walk = { names, signal: undefined, listingsBegun: this.#begun }
    return walk
  }

  #take(where: string): Walk | undefined {
    const walk = this.#kept.get(where)
    this.#kept.delete(where)
    return walk
  }

  #keep(where: string, walk: Walk): void {
    // It would hide from a listing that has begun since what was stored after a directory was read.
    if (walk.listingsBegun !== this.#begun) return
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= keptWalksMax && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(where, walk)
  }
}

function place(prefix: string, after: string | undefined): string {
  return `${prefix}\0${after ?? ''}`
}
