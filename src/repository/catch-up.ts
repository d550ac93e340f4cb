import { walFileKind } from '../wal/wal-file-name.ts'
import { type ComparedKey, compareRepositories } from './compare-repositories.ts'
import { CopySourceError, copyObject } from './copy-object.ts'
import { mapInOrder } from './map-in-order.ts'
import { metadataBlockBytes } from './metadata-block.ts'
import { parseWalObjectKey } from './object-key.ts'
import type { Repository } from './repository.ts'
import { RepositoryError } from './repository-error.ts'

// Of each kind of trouble; whatever is left is counted.
const shownMax = 100

export interface CatchUpOptions {
  repositories: readonly Repository[]
  /** Nothing of any other cluster is touched. */
  systemIdentifier: string
  filesAtOnce: number
  /** Only tells what it would do. */
  isDryRun?: boolean
  /**
   * Looks into segments of one name and equal length, too, whether they are of one content. That takes a request for each
   * in each repository. Other files are always looked into: they are few, and of one length whatever they say.
   */
  comparesAll?: boolean
  /** Called before each object that is copied: others may have to go first. */
  turn?: () => Promise<void>
  /** Told when there is something to do, before it is begun. */
  begins?: () => void
  signal?: AbortSignal | undefined
}

export interface CaughtUpRepository {
  repository: string
  /** Objects that others had and this one did not. */
  lacking: number
  copied: number
  copied_bytes: number
  /** Why nothing is said of the rest of it; `null` where all of it was compared. */
  error: string | null
}

export interface CatchUpReport {
  version: 1
  /** `incomplete`: not everything could be compared or copied. */
  status: 'ok' | 'differences' | 'incomplete'
  system_identifier: string
  dry_run: boolean
  compared: number
  repositories: CaughtUpRepository[]
  /** Objects of one name whose content is not the same everywhere. None of them is changed. */
  differing: { count: number; shown: string[] }
  /** What could not be copied, and why. */
  failed: { count: number; shown: string[] }
}

/**
 * Brings repositories up to date from each other: what one of them has and another one lacks is copied, byte for byte.
 * What is there stays as it is. It may end at any point, and be run at any time: what is missing is found by listing.
 */
export async function catchUp(options: CatchUpOptions): Promise<CatchUpReport> {
  return await new CatchUp(options).run()
}

class CatchUp {
  readonly #options: CatchUpOptions
  readonly #reports: Map<Repository, CaughtUpRepository>
  readonly #differing: string[] = []
  #differingCount = 0
  readonly #failed: string[] = []
  #failedCount = 0
  #compared = 0
  #hasBegun = false

  constructor(options: CatchUpOptions) {
    this.#options = options
    this.#reports = new Map(
      options.repositories.map(repository => [
        repository,
        { repository: repository.url, lacking: 0, copied: 0, copied_bytes: 0, error: null },
      ]),
    )
  }

  async run(): Promise<CatchUpReport> {
    const { systemIdentifier, filesAtOnce, signal } = this.#options
    const repositories: Repository[] = []
    for (const repository of this.#options.repositories) {
      if (await this.#canBeCompared(repository)) repositories.push(repository)
    }
    if (repositories.length > 1) {
      const left = (repository: Repository, thrown: unknown) => this.#leave(repository, thrown)
      const compared = compareRepositories({ repositories, systemIdentifier, left, signal })
      for await (const _ of mapInOrder(this.#troubled(compared), filesAtOnce, each => this.#settle(each))) {
        signal?.throwIfAborted()
        if (this.#compareable < 2) break
      }
      // What was listed as missing while the disk was away was never written to: but it was not compared, either.
      for (const repository of repositories) await this.#canBeCompared(repository)
    }
    return this.#report()
  }

  /** An empty place may become a repository; whatever else has no marker may be a disk that is away. */
  async #canBeCompared(repository: Repository): Promise<boolean> {
    try {
      await repository.inspect()
      if (await repository.store.isEmpty()) return true
      await repository.requireRepository()
      return true
    } catch (thrown) {
      this.#leave(repository, thrown)
      return false
    }
  }

  get #compareable(): number {
    return [...this.#reports.values()].filter(each => each.error === null).length
  }

  #leave(repository: Repository, thrown: unknown): void {
    const report = this.#of(repository)
    report.error ??= thrown instanceof Error ? thrown.message : String(thrown)
  }

  #of(repository: Repository): CaughtUpRepository {
    const report = this.#reports.get(repository)
    if (report === undefined) throw new Error(`"${repository.url}" is not among those that are compared`)
    return report
  }

  async *#troubled(compared: AsyncIterable<ComparedKey>): AsyncGenerator<ComparedKey> {
    for await (const each of compared) {
      this.#compared++
      const lengths = new Set(each.holders.values())
      // Segments of other content hardly ever have one length: so a difference costs a look only where it is likely.
      const mayHide = this.#options.comparesAll === true || !isSegment(each.key)
      const isSuspect = lengths.size > 1 || (mayHide && each.holders.size > 1)
      if (each.lacking.length > 0 || isSuspect) yield each
    }
  }

  async #settle(each: ComparedKey): Promise<void> {
    const { isDryRun, turn, begins } = this.#options
    const sources = await this.#sourcesOf(each)
    for (const repository of each.lacking) {
      this.#of(repository).lacking++
      if (isDryRun === true || sources.length === 0 || this.#of(repository).error !== null) continue
      if (!this.#hasBegun) begins?.()
      this.#hasBegun = true
      await turn?.()
      await this.#copy(each.key, sources, repository)
    }
  }

  /** What may be copied: nothing, if contents differ, because which one is right nobody can tell here. */
  async #sourcesOf({ key, holders }: ComparedKey): Promise<Repository[]> {
    const sources = [...holders.keys()]
    if (sources.length === 1) return sources
    const unreadable = new Set<Repository>()
    const looks = sources.map(async repository => {
      if (this.#of(repository).error !== null) return undefined
      try {
        const opened = await repository.open(key, { bytesWanted: metadataBlockBytes })
        if (opened === undefined) return undefined
        await using _ = opened.object
        return `${opened.metadata.plaintext_xxh128} ${opened.metadata.plaintext_length}`
      } catch (thrown) {
        this.#options.signal?.throwIfAborted()
        unreadable.add(repository)
        this.#fail(key, repository, thrown)
        return undefined
      }
    })
    const contents = new Map<string, string>()
    for (const [index, content] of (await Promise.all(looks)).entries()) {
      if (content !== undefined) contents.set(content, sources[index]?.url ?? '')
    }
    if (contents.size < 2) return sources.filter(each => !unreadable.has(each))
    this.#differingCount++
    const where = [...contents.values()].map(url => `"${url}"`).join(' and ')
    if (this.#differing.length < shownMax) this.#differing.push(`"${key}" has other content in ${where}`)
    return []
  }

  async #copy(key: string, sources: readonly Repository[], to: Repository): Promise<void> {
    const { signal } = this.#options
    const failures: Array<[Repository, unknown]> = []
    for (const from of sources) {
      try {
        const bytes = await copyObject(key, from, to, signal)
        if (bytes === undefined) return
        const report = this.#of(to)
        report.copied++
        report.copied_bytes += bytes
        return
      } catch (thrown) {
        signal?.throwIfAborted()
        if (!(thrown instanceof CopySourceError)) {
          // What keeps this one from being stored keeps the others from it, too.
          this.#leave(to, thrown)
          return
        }
        if (!thrown.isGone) failures.push([from, thrown.cause])
      }
    }
    for (const [repository, thrown] of failures) this.#fail(key, repository, thrown)
  }

  #fail(key: string, repository: Repository, thrown: unknown): void {
    this.#failedCount++
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    if (this.#failed.length < shownMax) this.#failed.push(`"${key}": ${message}`)
    if (thrown instanceof RepositoryError && thrown.kind === 'unreachable') this.#leave(repository, thrown)
  }

  #report(): CatchUpReport {
    const repositories = [...this.#reports.values()]
    const isIncomplete = this.#failedCount > 0 || repositories.some(each => each.error !== null)
    const { systemIdentifier, isDryRun = false } = this.#options
    const hasDifferences =
      this.#differingCount > 0 || (isDryRun && repositories.some(each => each.lacking > 0))
    return {
      version: 1,
      status: isIncomplete ? 'incomplete' : hasDifferences ? 'differences' : 'ok',
      system_identifier: systemIdentifier,
      dry_run: isDryRun,
      compared: this.#compared,
      repositories,
      differing: { count: this.#differingCount, shown: this.#differing },
      failed: { count: this.#failedCount, shown: this.#failed },
    }
  }
}

function isSegment(key: string): boolean {
  return walFileKind(parseWalObjectKey(key)?.name ?? '') === 'segment'
}
