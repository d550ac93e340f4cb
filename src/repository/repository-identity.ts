import type { Clock } from '../system/clock.ts'
import { both } from './both.ts'
import type { KnownRepositories } from './known-repositories.ts'
import { encodeMarker, markerBytesMax, parseMarker, repositoryFormat } from './marker.ts'
import { markerKey } from './object-key.ts'
import { RepositoryError } from './repository-error.ts'
import type { NewObject, Store } from './store/store.ts'

export interface RepositoryIdentityOptions {
  store: Store
  clock: Pick<Clock, 'now' | 'monotonic'>
  /** Makes a text that nobody has made before, for a new repository. */
  newId: () => string
  /** What is written into what we store: the name and version of the program. */
  writer: string
  /** Where it is remembered which repository this is; without it, that is forgotten when the process ends. */
  known?: KnownRepositories | undefined
  /** Told when a new repository was begun. */
  created?: ((url: string, id: string) => void) | undefined
  /** Told once of a store that replaces what is there, for the log. */
  unguarded?: ((warning: RepositoryWarning) => void) | undefined
}

/** What an operator should know although it is no failure. */
export interface RepositoryWarning {
  message: string
  detail: string
  hint: string
}

/** How long a look at the marker is good for, where no disk can be unmounted. */
const lookMs = 10_000

/**
 * Knows by the marker which repository is at a place, begins one where there is none, and notices when it is gone or
 * another one: then nothing may be stored, and nothing may be concluded from what is missing.
 */
export class RepositoryIdentity {
  readonly #options: RepositoryIdentityOptions
  readonly #store: Store
  /** The one that was there last. */
  #id: string | undefined
  /** The one that was certainly read as it is. */
  #believed: string | undefined
  /** The one that is remembered for good. */
  #remembered: string | undefined
  /** The one of which nothing is left to be done before something is stored there. */
  #settled: string | undefined
  /** The one that was begun here. */
  #begun: string | undefined
  // Each under way at most once, however many files are archived at the same time.
  #beginning: Promise<string> | undefined
  #settling: { id: string; done: Promise<void> } | undefined
  #proving: Promise<void> | undefined
  #remembering: Promise<void> = Promise.resolve()
  /** The last look at the marker, and when it began. */
  #look: { atMs: number; id: Promise<string | undefined> } | undefined
  /** What the marker was when it was read last. */
  #bytes: Buffer | undefined
  #isUnguarded = false

  constructor(options: RepositoryIdentityOptions) {
    this.#options = options
    this.#store = options.store
  }

  get #url(): string {
    return this.#store.url
  }

  /**
   * The id of the repository. Throws where there is none, or another one than before. Where nothing can be unmounted, a
   * look of the last ten seconds will do, also one for another file.
   */
  async require(): Promise<string> {
    const id = await this.#seen()
    if (id !== undefined) return id
    throw new RepositoryError(
      'NO_MARKER',
      `there is no repository at "${this.#url}": "${markerKey}" is missing`,
    )
  }

  /** The same for somebody who stores something: begins a new one in an empty place, and remembers which one it is. */
  async requireOrBegin(): Promise<string> {
    const id = (await this.#seen()) ?? (await this.#beginOnce())
    if (id !== this.#settled) await this.#settleOnce(id)
    return id
  }

  /** Throws where it is another one than before. Changes nothing. */
  async look(): Promise<void> {
    await this.#seen()
  }

  async #settleOnce(id: string): Promise<void> {
    if (this.#settling?.id !== id) {
      const done = this.#settle(id).finally(() => {
        if (this.#settling?.done === done) this.#settling = undefined
      })
      this.#settling = { id, done }
    }
    await this.#settling.done
  }

  async #settle(id: string): Promise<void> {
    await this.#believe(id)
    await both(this.#remember(id), this.#prove())
    this.#settled = id
  }

  /**
   * A network may have changed a byte of the marker, and what is remembered is missed for ever where it is not there. So
   * an id that is new here is read twice.
   */
  async #believe(id: string): Promise<void> {
    if (id === this.#believed || this.#store.features.canBeUnmounted) return
    if ((await this.#options.known?.idOf(this.#url)) !== id) {
      const bytes = await this.#markerBytes()
      const isSame = bytes !== undefined && this.#bytes?.equals(bytes) === true
      if (!isSame || parseMarker(bytes.toString())?.id !== id) {
        this.forget()
        this.#id = undefined
        throw new RepositoryError(
          'UNREACHABLE',
          `"${markerKey}" in repository "${this.#url}" was read twice, and was not the same`,
        )
      }
    }
    this.#believed = id
  }

  /** Something has failed: what was seen before does not count any more. */
  forget(): void {
    this.#look = undefined
  }

  async #seen(): Promise<string | undefined> {
    const atMs = this.#options.clock.monotonic()
    const last = this.#look
    if (last !== undefined && atMs - last.atMs < lookMs) return await last.id
    const id = this.read()
    if (this.#store.features.canBeUnmounted) return await id
    const look = { atMs, id }
    this.#look = look
    try {
      const seen = await id
      // What is not there may come at any moment.
      if (seen === undefined && this.#look === look) this.forget()
      return seen
    } catch (thrown) {
      if (this.#look === look) this.forget()
      throw thrown
    }
  }

  /** The id of the repository; `undefined` where there is none. Throws where it is another one than before. */
  async read(): Promise<string | undefined> {
    const bytes = await this.#markerBytes()
    if (bytes === undefined) return undefined
    const marker = parseMarker(bytes.toString())
    if (marker === undefined) {
      throw new RepositoryError(
        'CORRUPT',
        `"${markerKey}" in repository "${this.#url}" is damaged: it is not a marker`,
      )
    }
    const { format, id } = marker
    if (format > repositoryFormat) {
      throw new RepositoryError(
        'NEWER_FORMAT',
        `repository "${this.#url}" has format ${format}, this version can use ${repositoryFormat}`,
      )
    }
    if (id !== this.#id) await this.#requireExpected(id)
    this.#id = id
    this.#bytes = bytes
    return id
  }

  async #requireExpected(id: string): Promise<void> {
    const before = await this.#expected()
    if (before === undefined || before === id) return
    const { known } = this.#options
    throw new RepositoryError(
      'OTHER_REPOSITORY',
      `repository "${this.#url}" is not the one that was used before`,
      {
        detail: `Its id is ${id}, that of the one before was ${before}.`,
        hint:
          'Is the right disk mounted?' +
          (known === undefined
            ? ''
            : ` If it was replaced on purpose, remove "${known.pathOf(this.#url)}" to use it.`),
      },
    )
  }

  /** The id that has to be here; `undefined` where any will do, because nothing is known or is to be known any more. */
  async #expected(): Promise<string | undefined> {
    const known = await this.#options.known?.idOf(this.#url)
    return known ?? (this.#remembered === undefined ? this.#id : undefined)
  }

  #remember(id: string): Promise<void> {
    const { known } = this.#options
    if (known === undefined || id === this.#remembered) return Promise.resolve()
    // One after the other, so that none undoes what another one wrote.
    this.#remembering = this.#remembering
      .catch(() => undefined)
      .then(async () => {
        if (id === this.#remembered) return
        // What was written here is durable.
        if (id !== this.#begun) await this.#makeDurable(id)
        await known.remember(this.#url, id)
        this.#remembered = id
      })
    return this.#remembering
  }

  /**
   * Whoever made the marker may have died before it was certain to last. What is remembered and then lost with the
   * power would be missed for ever.
   */
  async #makeDurable(id: string): Promise<void> {
    if ((await this.#store.confirm(markerKey)) === 'durable') return
    const bytes = await this.#markerBytes()
    if (bytes === undefined || parseMarker(bytes.toString())?.id !== id) {
      throw new RepositoryError('NO_MARKER', `"${markerKey}" was in repository "${this.#url}", and is gone`)
    }
    if ((await this.#store.put(markerKey, newMarker(bytes), { replace: true })) === 'written') return
    throw new RepositoryError(
      'UNREACHABLE',
      `"${markerKey}" in repository "${this.#url}" may not be on disk, and it could not be told whether it was written anew`,
    )
  }

  async #markerBytes(): Promise<Buffer | undefined> {
    await using object = await this.#store.open(markerKey, { bytesWanted: markerBytesMax })
    if (object === undefined) return undefined
    const buffer = Buffer.alloc(markerBytesMax)
    return buffer.subarray(0, await object.read(buffer))
  }

  /** Once, and again only if it could not be told. */
  async #prove(): Promise<void> {
    const bytes = this.#bytes
    if (bytes === undefined) return
    this.#proving ??= this.#tryToReplace(bytes).catch(thrown => {
      this.#proving = undefined
      throw thrown
    })
    await this.#proving
  }

  async #tryToReplace(bytes: Uint8Array): Promise<void> {
    const warn = () => this.#warn()
    if (!(await this.#store.keepsWhatIsThere(markerKey, bytes, warn))) warn()
  }

  #warn(): void {
    if (this.#isUnguarded) return
    this.#isUnguarded = true
    this.#options.unguarded?.({
      message: `repository "${this.#url}" cannot keep two servers from archiving different files under one name`,
      detail:
        'Its store replaces objects that it was told to keep. Each file is looked for before it is stored and read back afterwards, but of two that are stored at the same moment one may replace the other.',
      hint: 'Let one server only archive to it, or use a store with conditional writes ("If-None-Match: *").',
    })
  }

  #beginOnce(): Promise<string> {
    this.#beginning ??= this.#beginUnlessBegun().finally(() => (this.#beginning = undefined))
    return this.#beginning
  }

  async #beginUnlessBegun(): Promise<string> {
    try {
      return await this.#begin()
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError) || thrown.code !== 'NO_MARKER') throw thrown
      // Another server may have begun it since we looked, and another file of ours may know it by now.
      const id = await this.read()
      if (id !== undefined) return id
      throw thrown
    }
  }

  async #begin(): Promise<string> {
    const inspected = this.#store.inspect().then(() => this.#requireUnknown())
    const [, isEmpty] = await both(inspected, this.#store.isEmpty())
    if (!isEmpty) {
      throw new RepositoryError('NO_MARKER', `"${this.#url}" is not empty, and is not a repository`, {
        hint: 'Let "pgarchivist.repository" name an empty directory, or one that holds a repository.',
      })
    }
    const { clock, newId, writer, created } = this.#options
    const id = newId()
    const marker = encodeMarker(id, new Date(clock.now()).toISOString(), writer)
    // Looked at once more when the file is open, which gets its name only where it is: perhaps the disk has gone since.
    const outcome = await this.#store.put(
      markerKey,
      newMarker(marker, () => this.#requireUnknown()),
    )
    if (outcome === 'written') created?.(this.#url, id)
    const seen = await this.require()
    if (outcome === 'written' && this.#bytes?.equals(marker)) {
      this.#begun = id
      this.#believed = id
    }
    return seen
  }

  /** Where a repository has been before, an empty place is a disk that is not mounted. */
  async #requireUnknown(): Promise<void> {
    const before = await this.#expected()
    if (before === undefined) return
    const { known } = this.#options
    throw new RepositoryError('NO_MARKER', `repository "${this.#url}" is gone: "${markerKey}" is missing`, {
      detail: `It had the id ${before}.`,
      hint:
        'Is the disk mounted? Nothing is archived until it is back.' +
        (known === undefined
          ? ''
          : ` If it was given up on purpose, remove "${known.pathOf(this.#url)}" to begin a new one.`),
    })
  }
}

function newMarker(bytes: Uint8Array, check?: () => Promise<void>): NewObject {
  return {
    frontBytes: 0,
    write: async append => {
      await check?.()
      await append(bytes)
      return new Uint8Array(0)
    },
  }
}
