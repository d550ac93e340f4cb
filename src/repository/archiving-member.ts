import { orAborted } from '../system/or-aborted.ts'
import type { ArchiveOptions, Repository } from './repository.ts'
import { RepositoryError } from './repository-error.ts'
import type { SameFileSource } from './same-file-source.ts'

/** So many attempts may go on after the others have sufficed. */
const attemptsAfterwardsMax = 4
/** As far as a server is ever ahead, with what is looked ahead. */
const rememberedMax = 256

type Outcome = 'archived' | 'already archived'

interface Attempt {
  identity: string
  outcome: Promise<Outcome>
  /** Does somebody wait for the file? */
  isAwaited: boolean
}

/**
 * One of several repositories that a file is archived to. It remembers which files it has, each by the identity of the
 * very file, because the server asks again for a file that another repository does not take; and no file is given to
 * it twice at once, because an attempt may go on when the server has its answer.
 */
export class ArchivingMember {
  readonly repository: Repository
  /** Has it failed since it answered last? */
  hasFailed = false
  readonly #requireOther: (id: string) => Promise<void>
  readonly #underWay = new Map<string, Attempt>()
  /** What is there, by name of the file, the latest last. */
  readonly #archived = new Map<string, string>()
  #isOther = false

  constructor(repository: Repository, { requireOther }: { requireOther: (id: string) => Promise<void> }) {
    this.repository = repository
    this.#requireOther = requireOther
  }

  get hasRoom(): boolean {
    return [...this.#underWay.values()].filter(each => !each.isAwaited).length < attemptsAfterwardsMax
  }

  async archive(source: SameFileSource, options: ArchiveOptions): Promise<Outcome> {
    const { cluster, signal } = options
    const identity = `${cluster.systemIdentifier} ${source.identity}`
    if (this.#archived.get(source.name) === identity) return 'already archived'
    const running = this.#underWay.get(source.name)
    if (running !== undefined) {
      running.isAwaited = true
      const outcome = await running.outcome.catch(() => undefined)
      if (outcome !== undefined && running.identity === identity) return outcome
      signal?.throwIfAborted()
    }
    const joined = this.#underWay.get(source.name)
    if (joined !== undefined && joined.identity === identity) return await joined.outcome
    if (joined !== undefined) throw changed(source.name)
    const outcome = this.#archive(source, identity, options).finally(() => this.#underWay.delete(source.name))
    this.#underWay.set(source.name, { identity, outcome, isAwaited: true })
    return await outcome
  }

  /** Nobody waits for the file any more. */
  endCall(source: SameFileSource): void {
    const attempt = this.#underWay.get(source.name)
    if (attempt !== undefined) attempt.isAwaited = false
  }

  async settled(): Promise<void> {
    await Promise.allSettled([...this.#underWay.values()].map(each => each.outcome))
  }

  async #archive(source: SameFileSource, identity: string, options: ArchiveOptions): Promise<Outcome> {
    let outcome: Outcome
    try {
      outcome = await this.repository.archive(source, options)
    } catch (thrown) {
      // A comparison with another file than the one that is meant says nothing.
      if (thrown instanceof RepositoryError && thrown.code === 'DIFFERENT' && !(await source.isSame())) {
        throw changed(source.name)
      }
      throw thrown
    }
    if (outcome === 'already archived' && !(await source.isSame())) throw changed(source.name)
    // Two URLs of one place must not count as two.
    if (!this.#isOther) {
      await this.#requireOther(await orAborted(this.repository.requireRepository(), options.signal))
      this.#isOther = true
    }
    this.#remember(source.name, identity)
    return outcome
  }

  #remember(name: string, identity: string): void {
    this.#archived.delete(name)
    this.#archived.set(name, identity)
    const [oldest] = this.#archived.keys()
    if (this.#archived.size > rememberedMax && oldest !== undefined) this.#archived.delete(oldest)
  }
}

function changed(name: string): RepositoryError {
  return new RepositoryError('SOURCE', `file "${name}" was changed while it was being archived`)
}
