import { parseWalObjectKey, walPrefix } from './object-key.ts'
import type { Repository } from './repository.ts'
import type { ListedObject } from './store/store.ts'

/** A key, and where an object of this key is. */
export interface ComparedKey {
  key: string
  /** With the length that each object has. */
  holders: ReadonlyMap<Repository, number>
  /** Those that were listed up to this key, and do not have it. */
  lacking: readonly Repository[]
}

export interface CompareOptions {
  repositories: readonly Repository[]
  systemIdentifier: string
  /** Told when a listing ended early: nothing is said of that repository from there on. */
  left: (repository: Repository, thrown: unknown) => void
  signal?: AbortSignal | undefined
}

/**
 * Goes through the WAL of a cluster in several repositories at once, in the order of keys, which is timeline by
 * timeline. As each of them lists its keys in this order, no more than one of each is held.
 */
export async function* compareRepositories(options: CompareOptions): AsyncGenerator<ComparedKey> {
  const { repositories, systemIdentifier, left, signal } = options
  const lists = repositories.map(repository => new OrderedList(repository, walPrefix(systemIdentifier)))
  let open: OrderedList[] = lists
  try {
    for (;;) {
      signal?.throwIfAborted()
      const advanced = await Promise.all(
        open.map(list =>
          list.fill().then(
            () => list,
            (thrown: unknown) => {
              left(list.repository, thrown)
              return undefined
            },
          ),
        ),
      )
      open = advanced.filter(list => list !== undefined)
      const key = open.map(list => list.head?.key).reduce(lower, undefined)
      if (key === undefined || open.length < 2) return
      const holders = new Map<Repository, number>()
      const lacking: Repository[] = []
      for (const list of open) {
        const taken = list.take(key)
        if (taken === undefined) lacking.push(list.repository)
        else holders.set(list.repository, taken.length)
      }
      yield { key, holders, lacking }
    }
  } finally {
    await Promise.allSettled(lists.map(list => list.end()))
  }
}

/** Strings are compared by UTF-16 units, and keys are ASCII, as are the listings. */
function lower(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return a < b ? a : b
}

class OrderedList {
  readonly repository: Repository
  readonly #objects: AsyncIterator<ListedObject>
  #head: ListedObject | undefined
  #hasEnded = false

  constructor(repository: Repository, prefix: string) {
    this.repository = repository
    this.#objects = repository.store.list(prefix)[Symbol.asyncIterator]()
  }

  get head(): ListedObject | undefined {
    return this.#head
  }

  /** Reads up to the next WAL object; what else lies there is nobody's to copy. */
  async fill(): Promise<void> {
    while (this.#head === undefined && !this.#hasEnded) {
      const { done, value } = await this.#objects.next()
      if (done === true) this.#hasEnded = true
      else if (parseWalObjectKey(value.key) !== undefined) this.#head = value
    }
  }

  take(key: string): ListedObject | undefined {
    if (this.#head?.key !== key) return undefined
    const taken = this.#head
    this.#head = undefined
    return taken
  }

  async end(): Promise<void> {
    await this.#objects.return?.()
  }
}
