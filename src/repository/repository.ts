import type { Clock } from '../system/clock.ts'
import { orAborted } from '../system/or-aborted.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import { both } from './both.ts'
import type { ByteSink, ByteSource } from './codec/byte-source.ts'
import { CodecError, type CodecErrorKind } from './codec/codec-error.ts'
import type { Encoded } from './codec/encode.ts'
import type { KnownRepositories } from './known-repositories.ts'
import {
  encodeMetadataBlock,
  metadataBlockBytes,
  type ObjectMetadata,
  parseMetadataBlock,
} from './metadata-block.ts'
import { isSystemIdentifier, walObjectKey, walPrefix } from './object-key.ts'
import { RepositoryError, type RepositoryErrorCode } from './repository-error.ts'
import { RepositoryIdentity, type RepositoryWarning } from './repository-identity.ts'
import type { NewObject, OpenOptions, Store, StoredObject } from './store/store.ts'
import { type WalCodec, walCodec } from './wal-codec.ts'
import { type Cluster, hasPageHeader, originBytes, requireOrigin } from './wal-origin.ts'

export interface RepositoryOptions {
  store: Store
  clock: Pick<Clock, 'now' | 'monotonic'>
  /** Makes a text that nobody has made before, for a new repository. */
  newId: () => string
  /** What is written into what we store: the name and version of the program. */
  writer: string
  /** Where it is remembered which repository this is; without it, that is forgotten when the process ends. */
  known?: KnownRepositories | undefined
  /** Told when a new repository was begun. */
  created?: (url: string, id: string) => void
  /** Told once of a store that replaces what is there, for the log. */
  unguarded?: (warning: RepositoryWarning) => void
  codec?: WalCodec
}

/** A WAL file that is to be archived. */
export interface WalSource {
  /** Its name; it has to be that of a WAL file. */
  name: string
  /** Opens it at its first byte. May be called more than once. */
  open(): Promise<OpenWalSource>
}

export interface OpenWalSource extends ByteSource, AsyncDisposable {
  stat(): Promise<{ size: number; modifiedNs: bigint; changedNs: bigint; inode: bigint; device: bigint }>
}

export interface ArchiveOptions {
  cluster: Cluster
  /** Is a segment looked at before it is stored? */
  headerCheck: boolean
  compressionLevel: number
  /** Public keys; empty for no encryption. */
  recipients: readonly string[]
  signal?: AbortSignal
}

export interface FetchOptions {
  systemIdentifier: string
  name: string
  /** Private keys, asked for only where the object is encrypted. */
  identities: () => Promise<readonly string[]>
  /** Called before everything is handed over once more from the first byte, where there is another repository to read. */
  again?: () => Promise<void>
  signal?: AbortSignal
}

/** A file that was handed over, all of it and verified. */
export interface FetchedFile {
  /** XXH3-128 of its content in canonical order, as `xxh128sum` prints it. */
  digest: string
}

/** WAL files in a store, each write-once under a key that depends on cluster and name only. FORMAT.md describes it. */
export class Repository implements AsyncDisposable {
  readonly #options: RepositoryOptions
  readonly #store: Store
  readonly #identity: RepositoryIdentity
  readonly #codec: WalCodec

  constructor(options: RepositoryOptions) {
    this.#options = options
    this.#store = options.store
    this.#identity = new RepositoryIdentity(options)
    this.#codec = options.codec ?? walCodec
  }

  get url(): string {
    return this.#store.url
  }

  get store(): Store {
    return this.#store
  }

  /**
   * Stores a file, or makes sure that it is stored: resolves when it would survive a power cut, with whether it was
   * there before. Throws a `RepositoryError` otherwise, and has then replaced nothing.
   */
  async archive(source: WalSource, options: ArchiveOptions): Promise<'archived' | 'already archived'> {
    const { name } = source
    if (walFileKind(name) === undefined) {
      throw new RepositoryError('SOURCE', `"${name}" is not the name of a WAL file`, {
        hint: 'Only segments, timeline histories, backup histories and partial segments are archived.',
      })
    }
    const key = keyOf(options.cluster.systemIdentifier, name)
    try {
      return await this.#archive(key, source, options)
    } catch (thrown) {
      this.#identity.forget()
      throw asArchiveError(name, thrown, options.signal)
    }
  }

  async #archive(
    key: string,
    source: WalSource,
    options: ArchiveOptions,
  ): Promise<'archived' | 'already archived'> {
    options.signal?.throwIfAborted()
    const identified = this.#identity.requireOrBegin()
    identified.catch(() => {}) // told by the store
    const object = this.#newObject(source, identified, options)
    let outcome: 'written' | 'exists'
    try {
      outcome = await this.#store.put(key, object, { allowed: identified, signal: options.signal })
    } catch (thrown) {
      // That the place is not the right one says more than what is wrong with a file which was made ready for it.
      if (options.signal?.aborted !== true) await orAborted(identified, options.signal)
      throw thrown
    }
    // Others may wait for the same look at the marker, so that goes on.
    const id = await orAborted(identified, options.signal)
    if (outcome === 'exists') await this.#acceptExisting(key, source, options, object)
    await this.#requireStill(id, options.signal)
    return outcome === 'exists' ? 'already archived' : 'archived'
  }

  /** A disk that was unmounted meanwhile has taken its marker with it, and what is written lies beside it. */
  async #requireStill(id: string, signal: AbortSignal | undefined): Promise<void> {
    if ((await orAborted(this.#identity.require(), signal)) === id) return
    throw new RepositoryError(
      'OTHER_REPOSITORY',
      `repository "${this.url}" was replaced by another one while it was being used`,
      { hint: 'Is the right disk mounted?' },
    )
  }

  /**
   * Hands over the content of a file piece by piece. Resolves when all of it was right, or with `false`
   * when the file is provably not in the repository. Throws a `RepositoryError` otherwise, or what `sink` or
   * `identities` throw; what was handed over before must not be used.
   */
  async fetch(options: FetchOptions, sink: ByteSink): Promise<FetchedFile | false> {
    const { systemIdentifier, name } = options
    if (walFileKind(name) === undefined) {
      throw new RepositoryError('SETTINGS', `"${name}" is not the name of a WAL file`, {
        hint: 'Only segments, timeline histories, backup histories and partial segments can be there.',
      })
    }
    const key = keyOf(systemIdentifier, name)
    try {
      return await this.#fetch(key, options, sink)
    } catch (thrown) {
      this.#identity.forget()
      throw thrown
    }
  }

  async #fetch(key: string, options: FetchOptions, sink: ByteSink): Promise<FetchedFile | false> {
    const { systemIdentifier, name, signal } = options
    const { id, opened } = await this.#openWithMarker(key, signal)
    await using object = opened
    if (object === undefined) {
      const hasCluster = await orAborted(this.#store.mayHave(walPrefix(systemIdentifier)), signal)
      // What is missing because the disk is missing is not missing.
      await this.#requireStill(id, signal)
      if (hasCluster) return false
      // It looks for its files in the wrong place.
      throw new RepositoryError(
        'UNKNOWN_CLUSTER',
        `repository "${this.url}" has no file of a cluster with system identifier ${systemIdentifier}`,
      )
    }
    const metadata = await this.#metadata(key, object)
    // Whoever asked has a disk, too, that is not to be filled by a few bytes.
    if (metadata.plaintext_length > plaintextBytesMax(name)) {
      throw this.#damaged(
        key,
        `it says that the file has ${metadata.plaintext_length} bytes, which none of its kind has`,
      )
    }
    const isEncrypted = metadata.encryption === 'age'
    const identities = isEncrypted ? await options.identities() : []
    const encoded = { ...encodedOf(metadata), isEncrypted, identities, ...(signal && { signal }) }
    await this.#naming(key, metadata, () => this.#codec.decode(object, encoded, sink))
    return { digest: metadata.plaintext_xxh128 }
  }

  /** Asks for both at once, because each may take its time. Without a marker nothing is said of the object. */
  async #openWithMarker(key: string, signal: AbortSignal | undefined) {
    const opening = this.#store.open(key, { signal })
    opening.catch(() => {}) // told when the marker was seen
    try {
      const id = await orAborted(this.#identity.require(), signal)
      let opened = await opening
      // The disk may have been mounted between the two looks. It is there now, so what it has is seen.
      if (this.#store.features.canBeUnmounted) opened ??= await this.#store.open(key, { signal })
      return { id, opened }
    } catch (thrown) {
      const opened = await opening.catch(() => undefined)
      await opened?.[Symbol.asyncDispose]()
      throw thrown
    }
  }

  /** Throws a `RepositoryError` where it is certain that nothing of a cluster could be archived here. Changes nothing. */
  async inspect(systemIdentifier?: string): Promise<void> {
    const prefix = systemIdentifier === undefined ? '' : walPrefix(systemIdentifier)
    await both(this.#store.inspect(prefix), this.#identity.look())
  }

  /** The id of the repository. Throws unless there is one; for readers. */
  async requireRepository(): Promise<string> {
    return await this.#identity.require()
  }

  /**
   * Stores an object as another repository has it; what is there stays as it is. Begins a new repository as `archive` does.
   * `begin` is called in the very step in which the store is asked.
   */
  async storeCopy(key: string, begin: () => NewObject, signal?: AbortSignal): Promise<'written' | 'exists'> {
    try {
      const id = await orAborted(this.#identity.requireOrBegin(), signal)
      const object = begin()
      const write: NewObject['write'] = async append => {
        await this.#requireStill(id, signal)
        return await object.write(append)
      }
      const outcome = await this.#store.put(key, { ...object, write }, { signal })
      await this.#requireStill(id, signal)
      return outcome
    } catch (thrown) {
      this.#identity.forget()
      throw thrown
    }
  }

  /** Reads what an object says of itself, and hands it back open behind that. `undefined` where it is not there. */
  async open(key: string, options: OpenOptions = {}): Promise<OpenObject | undefined> {
    const object = await this.#store.open(key, options)
    if (object === undefined) return undefined
    try {
      return { object, metadata: await this.#metadata(key, object) }
    } catch (thrown) {
      await object[Symbol.asyncDispose]()
      throw thrown
    }
  }

  /** Throws unless the bytes of an opened object are those that were stored; needs no key. */
  async checkObject(key: string, { object, metadata }: OpenObject, signal?: AbortSignal): Promise<void> {
    const expected = { ...encodedOf(metadata), ...(signal && { signal }) }
    await this.#naming(key, metadata, () => this.#codec.checkStored(object, expected))
  }

  /** Lets go of the store. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]()
  }

  #newObject(source: WalSource, identified: Promise<string>, options: ArchiveOptions): NewObject {
    const { compressionLevel: level, recipients, signal, cluster } = options
    return {
      frontBytes: metadataBlockBytes,
      write: async append => {
        // The file that is written to is open by now, and gets its name only where it is.
        if (this.#store.features.canBeUnmounted)
          await this.#requireStill(await orAborted(identified, signal), signal)
        await using opened = await source.open()
        const before = await opened.stat()
        const start = new Uint8Array(originBytes)
        const peeked = new PeekedSource(opened, start.subarray(0, await opened.read(start)))
        const magic = this.#checkOrigin(source.name, peeked.start, before.size, options)
        const encoded = await this.#codec.encode(
          peeked,
          { plaintextLength: before.size, level, recipients, ...(signal && { signal }) },
          append,
        )
        const after = await opened.stat()
        // Recycling renames first, which only this tells: the content may not have been touched yet.
        const isRenamed = after.changedNs !== before.changedNs || after.inode !== before.inode
        if (isRenamed || after.size !== before.size || after.modifiedNs !== before.modifiedNs) {
          throw new CodecError('source changed', 'it was written to')
        }
        return encodeMetadataBlock({
          name: source.name,
          system_identifier: cluster.systemIdentifier,
          plaintext_xxh128: encoded.plaintextDigest,
          plaintext_length: encoded.plaintextLength,
          stored_sha256: encoded.storedDigest,
          stored_length: encoded.storedLength,
          compression: 'zstd',
          encryption: recipients.length > 0 ? 'age' : 'none',
          recipients: [...recipients],
          wal_segment_size: cluster.walSegmentBytes ?? null,
          wal_page_magic: magic,
          archived_at: new Date(this.#options.clock.now()).toISOString(),
          modified_at: new Date(Number(before.modifiedNs / 1_000_000n)).toISOString(),
          writer: this.#options.writer,
        })
      },
    }
  }

  /** Returns the magic number of its pages, as it is kept. */
  #checkOrigin(name: string, start: Uint8Array, size: number, options: ArchiveOptions): string | null {
    if (!options.headerCheck || !hasPageHeader(name)) return null
    const header = requireOrigin(name, start, options.cluster)
    if (size !== header.segmentBytes) {
      throw new RepositoryError('FOREIGN_WAL', `file "${name}" is not complete`, {
        detail: `It has ${size} bytes, its header says ${header.segmentBytes}.`,
      })
    }
    return header.magic.toString(16).toUpperCase().padStart(4, '0')
  }

  /** An object of this name is there: fine if it has the same content and is durable. */
  async #acceptExisting(
    key: string,
    source: WalSource,
    options: ArchiveOptions,
    anew: NewObject,
  ): Promise<void> {
    const metadata = await this.#checkedMetadata(key, options.signal)
    const { digest, length } = await this.#digestOf(source, options.signal)
    if (digest !== metadata.plaintext_xxh128 || length !== metadata.plaintext_length) {
      const { name } = source
      throw new RepositoryError('DIFFERENT', `archive file "${name}" already exists with other content`, {
        detail:
          `Repository "${this.url}" has had it since ${metadata.archived_at}, ${metadata.plaintext_length} bytes with digest ${metadata.plaintext_xxh128}; ` +
          `the file that was to be archived has ${length} bytes with digest ${digest}.`,
      })
    }
    if ((await orAborted(this.#store.confirm(key), options.signal)) === 'durable') return
    // The file may have been changed since it was compared, and nothing is replaced by other content.
    const write: NewObject['write'] = async append => {
      const block = await anew.write(append)
      const parsed = parseMetadataBlock(block)
      if (parsed.kind === 'metadata' && parsed.metadata.plaintext_xxh128 === digest) return block
      throw new CodecError('source changed', 'it was written to')
    }
    const outcome = await this.#store.put(key, { ...anew, write }, { replace: true, signal: options.signal })
    // What is there may be what was to be replaced, or what an attempt has put there whose answer was lost.
    if (outcome === 'exists') {
      throw new RepositoryError(
        'UNREACHABLE',
        `"${key}" in repository "${this.url}" may not be on disk, and it could not be told whether it was written anew`,
      )
    }
  }

  /** Of an object that is there. Throws unless all of it is what was stored. */
  async #checkedMetadata(key: string, signal: AbortSignal | undefined): Promise<ObjectMetadata> {
    try {
      const opened = await this.open(key, { signal })
      if (opened === undefined) {
        throw new RepositoryError('UNREACHABLE', `"${key}" was in repository "${this.url}", and is gone`)
      }
      await using _ = opened.object
      await this.checkObject(key, opened, signal)
      return opened.metadata
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError) || thrown.code !== 'CORRUPT') throw thrown
      // This one is not lost yet: the server still has the file.
      const hint = `Move "${key}" out of the repository: the file is then archived anew. "pgarchivist verify" looks for other damage.`
      throw new RepositoryError('CORRUPT', thrown.message, { cause: thrown.cause, hint })
    }
  }

  async #digestOf(
    source: WalSource,
    signal: AbortSignal | undefined,
  ): Promise<{ digest: string; length: number }> {
    await using opened = await source.open()
    return await this.#codec.plaintextDigest({
      read: buffer => {
        signal?.throwIfAborted()
        return opened.read(buffer)
      },
    })
  }

  async #metadata(key: string, object: StoredObject): Promise<ObjectMetadata> {
    const block = new Uint8Array(metadataBlockBytes)
    const parsed = parseMetadataBlock(block.subarray(0, await object.read(block)))
    switch (parsed.kind) {
      case 'metadata':
        return this.#requireOwnKey(key, parsed.metadata)
      case 'damaged':
        throw this.#damaged(key, parsed.why)
      case 'newer':
        throw new RepositoryError(
          'NEWER_FORMAT',
          `"${key}" in repository "${this.url}" has format ${parsed.format}, which this version cannot read`,
        )
      default:
        return parsed satisfies never
    }
  }

  #requireOwnKey(key: string, metadata: ObjectMetadata): ObjectMetadata {
    const { system_identifier: cluster, name } = metadata
    if (walObjectKey(cluster, name) === key) return metadata
    throw this.#damaged(key, `it is "${name}" of cluster ${cluster}`)
  }

  /** Says what is wrong with the stored bytes of which object. */
  async #naming<T>(key: string, metadata: ObjectMetadata, read: () => Promise<T>): Promise<T> {
    try {
      return await read()
    } catch (thrown) {
      if (!(thrown instanceof CodecError)) throw thrown
      switch (thrown.kind) {
        case 'no key':
        case 'wrong key': {
          const code = thrown.kind === 'no key' ? 'NO_KEY' : 'WRONG_KEY'
          const what =
            code === 'NO_KEY'
              ? 'is encrypted, and there is no private key'
              : 'cannot be opened with this private key'
          throw new RepositoryError(code, `"${key}" in repository "${this.url}" ${what}`, {
            cause: thrown,
            detail: `It is encrypted for ${metadata.recipients.join(', ')}.`,
          })
        }
        case 'truncated':
        case 'altered':
        case 'too long':
          throw this.#damaged(key, thrown.message, thrown)
        case 'source changed':
        case 'invalid recipient':
        case 'invalid identity':
        case 'unsound output':
          throw thrown
        default:
          return thrown.kind satisfies never
      }
    }
  }

  #damaged(key: string, why: string, cause?: unknown): RepositoryError {
    return new RepositoryError('CORRUPT', `"${key}" in repository "${this.url}" is damaged: ${why}`, {
      cause,
    })
  }
}

/** A segment has 1 GiB at most; the others are a few lines of text. */
function plaintextBytesMax(name: string): number {
  return hasPageHeader(name) ? 1024 ** 3 : 16 * 1024 ** 2
}

/** An object that is open behind its metadata. */
export interface OpenObject {
  object: StoredObject
  metadata: ObjectMetadata
}

function keyOf(systemIdentifier: string, name: string): string {
  if (isSystemIdentifier(systemIdentifier)) return walObjectKey(systemIdentifier, name)
  throw new RepositoryError('SETTINGS', `"${systemIdentifier}" is not a system identifier of PostgreSQL`, {
    hint: 'It is in the control file "global/pg_control", and "pg_controldata" shows it.',
  })
}

/** What the codec or the caller's signal says of the file that is archived. */
function asArchiveError(name: string, thrown: unknown, signal: AbortSignal | undefined): unknown {
  if (thrown instanceof RepositoryError) return thrown
  if (signal?.aborted === true) {
    return new RepositoryError('SOURCE', `archiving of file "${name}" was given up`, { cause: thrown })
  }
  const told = thrown instanceof CodecError ? saidOfSource[thrown.kind] : undefined
  if (told === undefined) return thrown
  const detail = `${sentence((thrown as CodecError).message)}.`
  return new RepositoryError(told.code, `file "${name}" ${told.what}`, { cause: thrown, detail })
}

const saidOfSource: Partial<Record<CodecErrorKind, { code: RepositoryErrorCode; what: string }>> = {
  'source changed': { code: 'SOURCE', what: 'was changed while it was being archived' },
  'unsound output': { code: 'SOURCE', what: 'could not be compressed' },
  'invalid recipient': { code: 'SETTINGS', what: 'could not be encrypted' },
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}

function encodedOf(metadata: ObjectMetadata): Encoded {
  return {
    plaintextDigest: metadata.plaintext_xxh128,
    plaintextLength: metadata.plaintext_length,
    storedDigest: metadata.stored_sha256,
    storedLength: metadata.stored_length,
  }
}

/** A source whose first bytes were looked at. */
class PeekedSource implements ByteSource {
  readonly start: Uint8Array
  readonly #source: ByteSource
  #startTaken = 0

  constructor(source: ByteSource, start: Uint8Array) {
    this.#source = source
    this.start = start
  }

  async read(buffer: Uint8Array): Promise<number> {
    const left = this.start.subarray(this.#startTaken, this.#startTaken + buffer.length)
    buffer.set(left)
    this.#startTaken += left.length
    return left.length + (await this.#source.read(buffer.subarray(left.length)))
  }
}
