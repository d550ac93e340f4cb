import type { Clock } from '../system/clock.ts'
import { ArchivingMember } from './archiving-member.ts'
import type { ByteSink } from './codec/byte-source.ts'
import type { ArchiveOptions, FetchedFile, FetchOptions, Repository, WalSource } from './repository.ts'
import { RepositoryError, type RepositoryErrorKind } from './repository-error.ts'
import { sameFileSource } from './same-file-source.ts'

/** A repository that could not answer is asked after the others for so long. */
const laterMs = 60_000

/** What an operator should know although the others sufficed. */
export interface SetWarning {
  message: string
  detail?: string | undefined
  hint?: string
}

export interface RepositorySetOptions {
  /** In the order in which they are read. */
  repositories: readonly Repository[]
  /** In how many of them a file has to be before it counts as archived; 0 for all. */
  quorum: number
  clock: Pick<Clock, 'monotonic'>
  warn?: ((warning: SetWarning) => void) | undefined
  /** Told when files may be missing in a repository that others have. */
  fellBehind?: ((repository: Repository) => void) | undefined
  /** Told when one that had failed has taken a file. */
  answersAgain?: ((repository: Repository) => void) | undefined
  /** When each repository could not answer, by its URL, where others have noted it, in milliseconds of `clock`. */
  failedAt?: ReadonlyMap<string, number> | undefined
  /** Told when a repository could not answer, or could again. */
  answered?: ((url: string, isAnswer: boolean) => void) | undefined
}

/**
 * Several repositories as one. A file is archived when as many of them have it as the quorum says; each makes its own
 * progress, and none waits for another one. A file is read from whichever can answer, and is missing only where it
 * provably is in none.
 */
export class RepositorySet implements AsyncDisposable {
  readonly #options: RepositorySetOptions
  readonly #members: readonly ArchivingMember[]
  readonly #needed: number
  readonly #ended = new AbortController()
  readonly #failedAt: Map<string, number>
  /** Ids of the repositories that have answered, because one place may have several URLs. */
  readonly #ids = new Map<string, Repository>()
  #calls = 0

  constructor(options: RepositorySetOptions) {
    const { repositories, quorum } = options
    if (quorum > repositories.length) {
      const count = repositories.length === 1 ? 'one repository' : `${repositories.length} repositories`
      throw new RepositoryError(
        'SETTINGS',
        `nothing is archived, because "pgarchivist.repository_quorum" is ${quorum} and "pgarchivist.repository" names ${count}`,
        { hint: 'Name more repositories, or let fewer of them suffice.' },
      )
    }
    this.#options = options
    this.#needed = quorum === 0 ? repositories.length : quorum
    this.#failedAt = new Map(options.failedAt)
    this.#members = repositories.map(
      repository =>
        new ArchivingMember(repository, { requireOther: id => this.#requireOther(repository, id) }),
    )
  }

  get repositories(): readonly Repository[] {
    return this.#options.repositories
  }

  /** For messages, and the same for the same places: as in the setting. */
  get url(): string {
    return this.repositories.map(each => each.url).join(', ')
  }

  /** How many files at once make good use of the stores; `undefined` where that is for the processors to say. */
  get filesAtOnce(): number | undefined {
    const many = this.repositories.map(each => each.store.features.filesAtOnce ?? 0)
    return Math.max(...many) || undefined
  }

  /** Is a file being archived that somebody waits for? */
  get isBusy(): boolean {
    return this.#calls > 0
  }

  /**
   * As that of a repository. Resolves as soon as enough repositories have the file; what is then still under way in the
   * others goes on, and is given up when the set is disposed of.
   */
  async archive(source: WalSource, options: ArchiveOptions): Promise<'archived' | 'already archived'> {
    const [only, ...others] = this.repositories
    if (only !== undefined && others.length === 0) return await only.archive(source, options)
    this.#calls++
    try {
      return await this.#archive(source, options)
    } finally {
      this.#calls--
    }
  }

  async #archive(source: WalSource, options: ArchiveOptions): Promise<'archived' | 'already archived'> {
    const same = await sameFileSource(source)
    const signal = AbortSignal.any([this.#ended.signal, ...(options.signal ? [options.signal] : [])])
    const errors = new Map<Repository, unknown>()
    let archived = 0
    let isNew = false
    const enough = Promise.withResolvers<void>()
    const attempt = async (member: ArchivingMember) => {
      try {
        const outcome = await member.archive(same, { ...options, signal })
        isNew ||= outcome === 'archived'
        this.#tellAnswered(member)
        if (++archived === this.#needed) enough.resolve()
      } catch (thrown) {
        errors.set(member.repository, thrown)
        if (!signal.aborted) this.#tellFailed(member, source.name, thrown)
      }
    }
    // One that has several files to catch up with already is asked only where it is needed.
    const [ready, slow] = partition(this.#members, member => member.hasRoom)
    const begin = (members: readonly ArchivingMember[]) => Promise.all(members.map(attempt))
    await Promise.race([begin(ready), enough.promise])
    if (archived < this.#needed) await Promise.race([begin(slow), enough.promise])
    else for (const { repository } of slow) this.#options.fellBehind?.(repository)
    if (archived < this.#needed) throw this.#notArchived(source.name, archived, errors)
    for (const member of this.#members) member.endCall(same)
    return isNew ? 'archived' : 'already archived'
  }

  #tellAnswered(member: ArchivingMember): void {
    if (member.hasFailed) this.#options.answersAgain?.(member.repository)
    member.hasFailed = false
  }

  /** Once until it answers again: each further file has its own attempt, and its own message only where that matters. */
  #tellFailed(member: ArchivingMember, name: string, thrown: unknown): void {
    const { repository } = member
    this.#options.fellBehind?.(repository)
    const isTold = member.hasFailed && !isRefusal(thrown)
    member.hasFailed = true
    // What everybody waits for is told by the failure of the file itself.
    if (isTold || this.#needed === this.#members.length) return
    const { message, detail, hint } = told(thrown)
    this.#options.warn?.({
      message: `could not archive "${name}" in repository "${repository.url}": ${message}`,
      detail,
      ...(hint !== undefined && { hint }),
    })
  }

  /** In one line, with the names of those that failed. */
  #notArchived(name: string, archived: number, errors: ReadonlyMap<Repository, unknown>): unknown {
    const [first] = mostTelling([...errors.values()])
    if (!(first instanceof RepositoryError)) return first
    const { length } = this.#members
    const failed = [...errors].map(([{ url }, thrown]) => `"${url}": ${told(thrown).message}`)
    const [only] = [...errors.keys()]
    const where =
      errors.size === 1 && only !== undefined ? `repository "${only.url}"` : `${errors.size} repositories`
    return new RepositoryError(first.code, `could not archive "${name}" in ${where}: ${first.message}`, {
      cause: first,
      detail: [
        ...(first.detail === undefined ? [] : [first.detail]),
        `${archived} of ${length} repositories have it, ${this.#needed} are needed.`,
        ...(failed.length > 1 ? [`${failed.join('; ')}.`] : []),
      ].join(' '),
      hint: first.hint,
    })
  }

  async #requireOther(repository: Repository, id: string): Promise<void> {
    const known = this.#ids.get(id)
    this.#ids.set(id, known ?? repository)
    if (known === undefined || known === repository) return
    throw new RepositoryError(
      'SETTINGS',
      `repositories "${known.url}" and "${repository.url}" are one and the same, with id ${id}`,
      {
        hint: 'Name each once. If one was copied from the other, begin it in an empty place instead: "pgarchivist catch-up" fills it.',
      },
    )
  }

  /** Resolves when one of them has answered that it is there. Rejects with what the last one says. */
  async reach(): Promise<void> {
    let failure: { error: unknown } | undefined
    for (const repository of this.#readingOrder()) {
      try {
        await repository.requireRepository()
        this.#noteAnswer(repository, true)
        return
      } catch (error) {
        failure = { error }
        this.#noteAnswer(repository, canAnswer(error))
      }
    }
    if (failure) throw failure.error
  }

  /** As that of a repository; see `again` of its options. */
  async fetch(options: FetchOptions, sink: ByteSink): Promise<FetchedFile | false> {
    const answers: Array<{ repository: Repository; error: unknown }> = []
    const missing: Repository[] = []
    let handedOver = false
    let ofSink: { error: unknown } | undefined
    const guarded: ByteSink = async bytes => {
      handedOver = true
      try {
        await sink(bytes)
      } catch (error) {
        ofSink = { error }
        throw error
      }
    }
    for (const repository of this.#readingOrder()) {
      try {
        if (handedOver) await options.again?.()
        handedOver = false
        const fetched = await repository.fetch(options, guarded)
        this.#noteAnswer(repository, true)
        if (fetched !== false) {
          this.#tellHealed(options.name, repository, answers)
          return fetched
        }
        missing.push(repository)
      } catch (error) {
        // Nobody else's bytes would fare better, and who has given up does not ask on.
        if (ofSink !== undefined || options.signal?.aborted) throw error
        if (handedOver && options.again === undefined) throw error
        // A fault of ours with one store does not keep another one from answering.
        answers.push({ repository, error })
        this.#noteAnswer(repository, canAnswer(error))
      }
    }
    // A repository that was added later need not have a file of the cluster yet.
    const isMissing = ({ error }: { error: unknown }) =>
      error instanceof RepositoryError && error.code === 'UNKNOWN_CLUSTER' && missing.length > 0
    const unclear = answers.filter(answer => !isMissing(answer))
    if (unclear.length === 0) return this.#missing(answers)
    throw cannotTell(options.name, unclear, missing)
  }

  #missing(answers: readonly { error: unknown }[]): false {
    const [first] = answers
    if (first !== undefined && answers.length === this.repositories.length) throw first.error
    return false
  }

  #readingOrder(): Repository[] {
    const now = this.#options.clock.monotonic()
    const isLater = ({ url }: Repository) =>
      now - (this.#failedAt.get(url) ?? Number.NEGATIVE_INFINITY) < laterMs
    const [first, later] = partition(this.repositories, each => !isLater(each))
    return [...first, ...later]
  }

  #noteAnswer({ url }: Repository, isAnswer: boolean): void {
    // A single one is asked first in any case.
    if (this.repositories.length < 2 || (isAnswer && !this.#failedAt.has(url))) return
    if (isAnswer) this.#failedAt.delete(url)
    else this.#failedAt.set(url, this.#options.clock.monotonic())
    this.#options.answered?.(url, isAnswer)
  }

  #tellHealed(
    name: string,
    from: Repository,
    answers: readonly { repository: Repository; error: unknown }[],
  ): void {
    for (const { error: thrown } of answers) {
      const isUsual =
        thrown instanceof RepositoryError &&
        (thrown.kind === 'unreachable' || thrown.code === 'UNKNOWN_CLUSTER')
      if (isUsual) continue
      const error = told(thrown)
      this.#options.warn?.({
        message: `"${name}" was taken from repository "${from.url}", because ${error.message}`,
        detail: error.detail,
        ...(error.hint !== undefined && { hint: error.hint }),
      })
    }
  }

  /** Throws where it is certain that a file could not be archived. Changes nothing. */
  async inspect(systemIdentifier?: string): Promise<void> {
    const failures: unknown[] = []
    for (const repository of this.repositories) {
      await repository.inspect(systemIdentifier).catch(thrown => void failures.push(thrown))
    }
    const [first] = mostTelling(failures)
    if (first !== undefined) throw first
  }

  /** Gives up what is under way, and lets go of the stores. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.giveUp()
    await Promise.allSettled(this.repositories.map(each => each[Symbol.asyncDispose]()))
  }

  /** Resolves when nothing is under way any more. */
  async giveUp(): Promise<void> {
    this.#ended.abort()
    await Promise.allSettled(this.#members.map(each => each.settled()))
  }
}

/** The order in which an error says most of what has to be done. */
const tellingFirst: readonly RepositoryErrorKind[] = ['refused', 'key', 'corrupt', 'settings', 'unreachable']

function mostTelling(errors: readonly unknown[]): unknown[] {
  const rank = (error: unknown) => {
    if (!(error instanceof RepositoryError)) return -1
    // That one has nothing says less than that another one cannot say.
    return error.code === 'UNKNOWN_CLUSTER' ? tellingFirst.length : tellingFirst.indexOf(error.kind)
  }
  return errors.toSorted((a, b) => rank(a) - rank(b))
}

function cannotTell(
  name: string,
  unclear: readonly { repository: Repository; error: unknown }[],
  missing: readonly Repository[],
): unknown {
  const [first, ...others] = mostTelling(unclear.map(each => each.error))
  if (!(first instanceof RepositoryError)) return first
  const rest = [
    ...others.map(error => `${told(error).message}.`),
    ...missing.map(({ url }) => `Repository "${url}" does not have "${name}".`),
  ]
  if (rest.length === 0) return first
  const detail = [...(first.detail === undefined ? [] : [first.detail]), ...rest].join(' ')
  const withoutIt =
    'To recover with what the other ones have, take it out of "pgarchivist.repository" of the server that recovers.'
  const hints = [first.hint, missing.length > 0 ? withoutIt : undefined]
  const hint = hints.filter(each => each !== undefined).join(' ')
  return new RepositoryError(first.code, first.message, { cause: first, detail, hint })
}

/** Is it an answer, although not the one that was wanted? */
function canAnswer(thrown: unknown): boolean {
  return thrown instanceof RepositoryError && thrown.kind !== 'unreachable'
}

function isRefusal(thrown: unknown): boolean {
  return thrown instanceof RepositoryError && (thrown.code === 'DIFFERENT' || thrown.code === 'CORRUPT')
}

function told(thrown: unknown): { message: string; detail?: string | undefined; hint?: string } {
  if (thrown instanceof RepositoryError) return thrown
  return { message: thrown instanceof Error ? thrown.message : String(thrown) }
}

function partition<T>(items: readonly T[], test: (item: T) => boolean): [T[], T[]] {
  return [items.filter(test), items.filter(item => !test(item))]
}
