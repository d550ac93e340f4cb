import { createHash } from 'node:crypto'
import type { Clock } from '../../system/clock.ts'
import type { FileStatus, Files, OpenFile } from '../../system/files.ts'
import { isGone, type ProcessMark, printMark } from '../../system/process-mark.ts'
import {
  couldNot,
  couldNotSync,
  errnoCode,
  FileError,
  isMissing,
  SyncError,
  systemErrorText,
} from '../../system/system-error.ts'
import { exists, removeLeftovers, type WritePlace, writeDurably } from '../../system/write-durably.ts'
import { RepositoryError } from '../repository-error.ts'
import type { FailedSyncs } from './failed-syncs.ts'
import { ObjectDirectories, parentOf, withSlash } from './object-directories.ts'
import type {
  ListedObject,
  ListOptions,
  NewObject,
  PutOptions,
  Store,
  StoredObject,
  UnfinishedWrite,
} from './store.ts'
import { firstFailure, storeFailure, throwStoreFailure } from './store-failure.ts'
import { isUnfinishedWrite, temporaryName, writerOf } from './unfinished-write.ts'
import { unfinishedWrites } from './unfinished-writes.ts'

export interface LocalStoreOptions {
  files: Files
  clock: Pick<Clock, 'now'>
  /** The root, which has to be there; it is never made. */
  directory: string
  /** Tells writers apart that may store the same object at once; the same each time for one of them. */
  writer: string
  /** Which process this is, where the system tells: so others know when it has ended, and remove what it has left. */
  process?: ProcessMark | undefined
  /** May the owner's group read what is stored? */
  isGroupReadable: boolean
  /** Whom everything shall belong to, where that is not who writes it; only root can do so. */
  owner?: { uid: number; gid: number } | undefined
  /** What other processes know of failures, and are told; without it, they are forgotten when this one ends. */
  failedSyncs?: FailedSyncs | undefined
}

/** An object that is archived again is one of the last. */
const writtenKeysMax = 1_000

// What is in the root of a file system that nobody has used yet.
const ofFileSystems: ReadonlySet<string> = new Set(['lost+found', '.snapshot', '.snapshots', '.zfs'])

/** Objects as files below a directory. */
export class LocalStore implements Store {
  readonly url: string
  readonly features = { canBeUnmounted: true }
  readonly #options: LocalStoreOptions
  readonly #files: Files
  readonly #directories: ObjectDirectories
  readonly #writer: string
  /**
   * Where a write failed. A failed fsync may have dropped what it could not write, and the next one succeeds without
   * having written it: so what stands there is not believed to be on disk.
   */
  readonly #distrusted = new Set<string>()
  /** The last that this process has made durable, and so believes in, whatever failed in another one. */
  readonly #written = new Set<string>()

  constructor(options: LocalStoreOptions) {
    const { files, clock, directory: root, owner, isGroupReadable } = options
    this.#options = options
    this.#files = files
    this.#directories = new ObjectDirectories({
      files,
      clock,
      root,
      mode: isGroupReadable ? 0o750 : 0o700,
      owner,
      isLeft: name => this.#isLeft(name),
    })
    this.url = fileUrl(root)
    this.#writer = createHash('sha256').update(options.writer).digest('hex').slice(0, 16)
  }

  get #root(): string {
    return this.#options.directory
  }

  async inspect(prefix?: string): Promise<void> {
    await this.#requireRoot()
    await this.#refuseDataDirectory().catch(throwStoreFailure)
    if (prefix !== undefined) await this.#requireWritable(prefix).catch(throwStoreFailure)
  }

  /** Where the next directory or object would be made: several users may share a root. */
  async #requireWritable(prefix: string): Promise<void> {
    let directory = this.#root
    for (const part of prefix.split('/').filter(each => each !== '')) {
      const below = withSlash(directory) + part
      if (!(await exists(this.#files, below))) break
      directory = below
    }
    await this.#files.requireWritable(directory).catch(couldNot(`write to directory "${directory}"`))
  }

  async isEmpty(): Promise<boolean> {
    const names = await this.#list(this.#root).catch(throwStoreFailure)
    return names.every(name => ofFileSystems.has(name) || isUnfinishedWrite(name))
  }

  async mayHave(prefix: string): Promise<boolean> {
    // An empty directory is where a disk belongs that is not mounted.
    const directory = this.#path(prefix.slice(0, -1))
    return await this.#files.list(directory).then(
      names => names.some(name => !isUnfinishedWrite(name) && !ofFileSystems.has(name)),
      thrown =>
        isMissing(thrown) ? false : throwStoreFailure(new FileError(`read directory "${directory}"`, thrown)),
    )
  }

  async put(key: string, object: NewObject, options: PutOptions = {}): Promise<'written' | 'exists'> {
    const place = this.#place(key)
    const { isGroupReadable, owner } = this.#options
    let ofObject: { error: unknown } | undefined
    await options.allowed
    try {
      await this.#directories.prepare(place.directory)
      await this.#directories.requireInside(place.directory)
      await this.#directories.requireOwnDisk(place.directory)
      if (!options.replace && (await exists(this.#files, this.#path(key)))) {
        await removeLeftovers(this.#files, place)
        return 'exists'
      }
      const outcome = await writeDurably(this.#files, {
        ...place,
        mode: isGroupReadable ? 0o640 : 0o600,
        owner,
        replace: options.replace === true,
        write: file =>
          writeFrontLast(file, `${place.directory}/${place.temporaryName}`, object).catch(
            (error: unknown) => {
              ofObject = { error }
              throw error
            },
          ),
      })
      if (outcome === 'written') this.#trust(key)
      return outcome
    } catch (thrown) {
      this.#directories.forget()
      // What failed before it was synced has left nothing under the final name.
      if (ofObject !== undefined) throw ofObject.error
      await this.#distrust(key, thrown)
      throw storeFailure(thrown)
    }
  }

  /** A name in a directory is given once. */
  async keepsWhatIsThere(): Promise<boolean> {
    return true
  }

  async open(key: string): Promise<StoredObject | undefined> {
    try {
      const file = await this.#openUnlessMissing(key)
      return file && (await this.#opened(key, file))
    } catch (thrown) {
      throw storeFailure(thrown)
    }
  }

  async confirm(key: string): Promise<'durable' | 'distrusted'> {
    if (this.#distrusted.has(key)) return 'distrusted'
    const path = this.#path(key)
    const directory = parentOf(path)
    try {
      await this.#directories.prepare(directory)
      await using file = await this.#files.open(path, 'readNoLink').catch(couldNot(`open file "${path}"`))
      await file.sync().catch(couldNotSync(path))
      await this.#files.syncDirectory(directory).catch(couldNotSync(directory))
    } catch (thrown) {
      this.#directories.forget()
      await this.#distrust(key, thrown)
      if (firstFailure(thrown) instanceof SyncError) return 'distrusted'
      throw storeFailure(thrown)
    }
    if (this.#written.has(key)) return 'durable'
    // Only now, because the one that failed may have been that of another process a moment ago.
    return (await this.#options.failedSyncs?.areNoted()) === true ? 'distrusted' : 'durable'
  }

  #trust(key: string): void {
    this.#distrusted.delete(key)
    this.#written.add(key)
    const [oldest] = this.#written
    if (this.#written.size > writtenKeysMax && oldest !== undefined) this.#written.delete(oldest)
  }

  async #distrust(key: string, thrown: unknown): Promise<void> {
    this.#distrusted.add(key)
    this.#written.delete(key)
    if (firstFailure(thrown) instanceof SyncError) await this.#options.failedSyncs?.note()
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncIterable<ListedObject> {
    const directory = prefix === '' ? this.#root : this.#path(prefix.slice(0, -1))
    let entries: Entry[]
    try {
      entries = await this.#entries(prefix, directory)
    } catch (thrown) {
      const failure = storeFailure(thrown)
      if (prefix === '' || options.unreadable === undefined) throw failure
      options.unreadable(failure)
      return
    }
    // A slash sorts where the keys below it do, so that all keys come in the order that an object store has.
    entries.sort((a, b) => (a.key < b.key ? -1 : 1))
    for (const { key, isDirectory, length } of entries) {
      if (isDirectory) yield* this.list(key, options)
      else yield { key, length }
    }
  }

  unfinishedWrites(changedBeforeMs: number): AsyncIterable<UnfinishedWrite> {
    return unfinishedWrites(this.#files, this.#root, changedBeforeMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #entries(prefix: string, directory: string): Promise<Entry[]> {
    let names: string[]
    try {
      names = await this.#files.list(directory)
    } catch (thrown) {
      // The root has to be there; below it, nothing is made before it is needed.
      if (isMissing(thrown) && prefix !== '') return []
      return couldNot(`read directory "${directory}"`)(thrown)
    }
    const entries: Entry[] = []
    for (const name of names) {
      if (isUnfinishedWrite(name) || (prefix === '' && ofFileSystems.has(name))) continue
      const path = this.#path(`${prefix}${name}`)
      const status = await this.#files.stat(path).catch(thrown => {
        if (isMissing(thrown)) return undefined
        return couldNot(`stat file "${path}"`)(thrown)
      })
      if (status === undefined) continue
      // A link to a directory is listed, and not followed: it may lead out of the root, or back to itself.
      const isDirectory = status.kind === 'directory' && (await this.#directories.isNoLink(path))
      entries.push({ key: `${prefix}${name}${isDirectory ? '/' : ''}`, isDirectory, length: status.size })
    }
    return entries
  }

  async #requireRoot(): Promise<void> {
    let status: FileStatus
    try {
      status = await this.#files.stat(this.#root)
    } catch (thrown) {
      const message = `could not open repository directory "${this.#root}": ${systemErrorText(thrown)}`
      // No disk that is mounted makes a file above it a directory.
      if (errnoCode(thrown) === 'ENOTDIR') {
        throw new RepositoryError('SETTINGS', message, {
          cause: thrown,
          hint: 'There is a file on the way to it: let "pgarchivist.repository" name a directory.',
        })
      }
      throw new RepositoryError('UNREACHABLE', message, {
        cause: thrown,
        ...(isMissing(thrown) && {
          hint: "Mount the disk, or make an empty directory that belongs to the server's user: it is never made for you.",
        }),
      })
    }
    if (status.kind === 'directory') return
    throw new RepositoryError('SETTINGS', `repository "${this.#root}" is not a directory`, {
      hint: 'Let "pgarchivist.repository" name a directory.',
    })
  }

  /** A server would take what is stored there for its own, and base backups would hold their own archive. */
  async #refuseDataDirectory(): Promise<void> {
    const root = await this.#files.realPath(this.#root).catch(couldNot(`resolve path "${this.#root}"`))
    for (let directory = root; directory !== '/'; directory = parentOf(directory)) {
      // Only for what is refused when it is there: a directory above ours may be closed to us.
      if (!(await exists(this.#files, `${directory}/PG_VERSION`).catch(() => false))) continue
      const where = directory === root ? 'is' : 'is inside'
      throw new RepositoryError(
        'SETTINGS',
        `repository "${this.#root}" ${where} a data directory of PostgreSQL`,
        { hint: 'Let "pgarchivist.repository" name a directory of its own, best on another disk.' },
      )
    }
  }

  async #openUnlessMissing(key: string): Promise<OpenFile | undefined> {
    const path = this.#path(key)
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#files.open(path, 'readNoLink')
      } catch (thrown) {
        if (errnoCode(thrown) === 'ENOTDIR') await this.#requireRoot()
        if (!isMissing(thrown)) return couldNot(`open file "${path}"`)(thrown)
        if (!(await this.#isListed(key))) return undefined
        // It may have come meanwhile.
        if (attempt > 1) {
          const message = `could not open file "${path}": a symbolic link on the way leads nowhere`
          throw new RepositoryError('UNREACHABLE', message, { hint: 'Is the disk mounted that it leads to?' })
        }
      }
    }
  }

  /** Missing is what its directory does not list, or a directory above that one. ENOENT may have other reasons. */
  async #isListed(key: string): Promise<boolean> {
    for (let path = this.#path(key); path.length > this.#root.length; path = parentOf(path)) {
      const directory = parentOf(path)
      if (directory === this.#root) await this.#requireRoot()
      let names: string[]
      try {
        names = await this.#files.list(directory)
      } catch (thrown) {
        if (!isMissing(thrown) || directory === this.#root) couldNot(`read directory "${directory}"`)(thrown)
        continue
      }
      if (names.includes(path.slice(path.lastIndexOf('/') + 1))) return true
      // What is missing where a link leads to is not missing here.
      await this.#directories.requireInside(directory)
      return false
    }
    return false
  }

  async #opened(key: string, file: OpenFile): Promise<StoredObject> {
    const path = this.#path(key)
    // It was only read, so nothing is lost when closing it fails.
    const close = () => file.close().catch(() => undefined)
    try {
      const { kind, size } = await file.stat().catch(couldNot(`stat file "${path}"`))
      if (kind !== 'file') throw new RepositoryError('CORRUPT', `"${path}" is not a file`)
      await this.#directories.requireInside(parentOf(path))
      return {
        length: size,
        read: buffer =>
          file
            .read(buffer)
            .catch(couldNot(`read file "${path}"`))
            .catch(throwStoreFailure),
        [Symbol.asyncDispose]: close,
      }
    } catch (thrown) {
      await close()
      throw thrown
    }
  }

  async #list(directory: string): Promise<string[]> {
    return await this.#files.list(directory).catch(couldNot(`read directory "${directory}"`))
  }

  #place(key: string): WritePlace {
    const path = this.#path(key)
    const name = path.slice(path.lastIndexOf('/') + 1)
    return {
      directory: parentOf(path),
      name,
      temporaryName: temporaryName(name, this.#writer, this.#options.process),
      isLeft: each => this.#isLeft(each),
    }
  }

  /** Was it left by this writer before it was started again, or by a process that has certainly ended? */
  async #isLeft(unfinished: string): Promise<boolean> {
    const by = writerOf(unfinished)
    const own = this.#options.process
    if (by?.process === undefined || own === undefined) return false
    if (printMark(by.process) === printMark(own)) return false
    return by.writer === this.#writer || (await isGone(this.#files, by.process))
  }

  #path(key: string): string {
    return `${withSlash(this.#root)}${key}`
  }
}

interface Entry extends ListedObject {
  isDirectory: boolean
}

/** The front is not known before the rest has been written. */
async function writeFrontLast(file: OpenFile, path: string, { frontBytes, write }: NewObject): Promise<void> {
  const writeAt = (bytes: Uint8Array, position: number) =>
    file
      .writeAt(bytes, position)
      .catch(couldNot(`write to file "${path}"`))
      .catch(throwStoreFailure)
  let position = frontBytes
  const front = await write(async bytes => {
    await writeAt(bytes, position)
    position += bytes.length
  })
  if (front.length !== frontBytes)
    throw new Error(`${front.length} bytes instead of ${frontBytes} for the front`)
  await writeAt(front, 0)
}

/** The absolute path as a URL. */
export function fileUrl(directory: string): string {
  return `file://${directory.split('/').map(encodeURIComponent).join('/')}`
}
