import { createHash } from 'node:crypto'
import type { Clock } from '../../../system/clock.ts'
import { RepositoryError } from '../../repository-error.ts'
import { sftpUrl } from '../../sftp-location.ts'
import { parentOf } from '../object-directories.ts'
import { RequestError } from '../request-error.ts'
import type { Answers, RemoteDriver, RemoteFeatures, Requests } from '../requests.ts'
import { isTemporaryName, temporaryName } from '../unfinished-write.ts'
import { SftpConnection, type SftpConnectionOptions } from './sftp-connection.ts'
import { SftpDirectories } from './sftp-directories.ts'
import { pageMs, SftpListings } from './sftp-listings.ts'
import type { SftpEntry, SftpHandle, SftpSession } from './sftp-session.ts'
import { hasStatus, ifAnswered } from './sftp-status.ts'
import { walkTemporaryFiles } from './sftp-walk.ts'

export interface SftpDriverOptions extends SftpConnectionOptions {
  /** A text that nobody has made before: no two attempts write into one file. */
  newId: () => string
}

const uploadsPerPageMax = 1_000

// What is behind the name of the object in that of a temporary file.
const temporaryEnd = temporaryName('', '0123456789abcdef').slice(1)

/** More than there are directories above an object. */
const looksMax = 10

/**
 * Objects as files below a directory of a server that speaks SFTP, laid out as in a local directory.
 *
 * A file gets its name when all of it is on disk: by a hard link, which never replaces what is there. Then its name is
 * brought to disk. So a server is needed that offers hard links and fsync, which are extensions of OpenSSH.
 */
export class SftpDriver implements RemoteDriver {
  readonly url: string
  readonly features: RemoteFeatures = {
    putKeeps: true,
    endUploadKeeps: true,
    partBytesMin: 1,
    partsMax: 1_000_000,
    canBeUnmounted: true,
  }
  readonly #connection: SftpConnection
  readonly #directories: SftpDirectories
  readonly #root: string
  readonly #newId: () => string
  /** Of which it is not known whether their names are on disk. A later fsync may not tell what an earlier one has met. */
  readonly #distrusted = new Set<string>()
  /** Of which a part may not be on disk, for the same reason. */
  readonly #distrustedUploads = new Set<string>()
  readonly #clock: Clock
  readonly #listings: SftpListings

  constructor(options: SftpDriverOptions) {
    const { location, newId, clock } = options
    this.url = sftpUrl(location)
    this.#root = location.directory
    this.#newId = newId
    this.#clock = clock
    this.#listings = new SftpListings((prefix, signal) => this.#readDirectory(prefix, signal), clock)
    this.#connection = new SftpConnection(options)
    this.#directories = new SftpDirectories(this.#root, this.#connection.place)
  }

  readonly handlers: RemoteDriver['handlers'] = {
    inspect: (_, signal) => this.#run(session => this.#inspect(session), signal),
    put: (request, signal) => this.#run(session => this.#put(request, session, signal), signal),
    get: (request, signal) => this.#run(session => this.#get(request, session, signal), signal),
    list: (request, signal) => this.#listings.page(request, signal),
    beginUpload: (request, signal) => this.#beginUpload(request, signal),
    putPart: (request, signal) => this.#run(session => this.#putPart(request, session, signal), signal),
    endUpload: (request, signal) => this.#run(session => this.#endUpload(request, session), signal),
    abandonUpload: (request, signal) => this.#run(session => this.#abandonUpload(request, session), signal),
    listUploads: (request, signal) => this.#listUploads(request, signal),
    confirm: (request, signal) => this.#run(session => this.#confirm(request, session), signal),
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]()
  }

  async #run<T>(work: (session: SftpSession) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return await this.#connection.run(async session => {
      try {
        return await work(session)
      } catch (thrown) {
        this.#directories.forget()
        throw thrown
      }
    }, signal)
  }

  async #inspect(session: SftpSession): Promise<void> {
    await this.#directories.requireRoot(session)
    const real = await session.realPath(this.#root)
    for (let directory = real; directory !== '/'; directory = parentOf(directory)) {
      if (!(await this.#isThere(`${directory}/PG_VERSION`, session))) continue
      const where = directory === real ? 'is' : 'is inside'
      throw new RepositoryError(
        'SETTINGS',
        `repository "${this.url}" ${where} a data directory of PostgreSQL`,
        { hint: 'Let "pgarchivist.repository" name a directory of its own.' },
      )
    }
  }

  async #put(
    { key, body, replace = false }: Requests['put'],
    session: SftpSession,
    signal: AbortSignal | undefined,
  ): Promise<Answers['put']> {
    const path = this.#path(key)
    const temporary = await this.#createTemporary(path, session, !replace)
    if (temporary === undefined) return 'exists'
    const { name, handle } = temporary
    let isThere = true
    try {
      const bytes = body.reduce((sum, piece) => sum + piece.length, 0)
      await session.write(handle, body, 0, signal).catch(async (thrown: unknown) => {
        throw await this.#failure(thrown, session, `write to file "${name}"`, bytes)
      })
      await session.sync(handle).catch(async (thrown: unknown) => {
        throw await this.#failure(thrown, session, `fsync file "${name}"`, bytes)
      })
      signal?.throwIfAborted()
      const outcome = await this.#giveName(key, name, session, replace)
      isThere = outcome === 'exists'
      return outcome
    } finally {
      session.closeHandle(handle)
      if (isThere) await this.#remove(name, session)
    }
  }

  /** `undefined` where `unlessThere` and there is something of the final name. */
  async #createTemporary(
    path: string,
    session: SftpSession,
    unlessThere: boolean,
  ): Promise<{ name: string; handle: SftpHandle } | undefined> {
    const directory = parentOf(path)
    await this.#directories.prepare(directory, session)
    const name = `${directory}/${temporaryName(path.slice(directory.length + 1), this.#newWriter())}`
    const [inside, there, opened] = await Promise.allSettled([
      this.#directories.requireInside(directory, session),
      session.lstat(path),
      session.open(name, 'wx', 0o600),
    ])
    const isThere = there.status === 'fulfilled'
    if (inside.status === 'fulfilled' && opened.status === 'fulfilled' && !(unlessThere && isThere)) {
      return { name, handle: opened.value }
    }
    if (opened.status === 'fulfilled') {
      session.closeHandle(opened.value)
      await this.#remove(name, session)
    }
    if (opened.status === 'rejected' && hasStatus(opened.reason, 'no such file')) {
      await this.#directories.requireRoot(session)
    }
    if (inside.status === 'rejected') throw inside.reason
    if (isThere && unlessThere) return undefined
    if (opened.status === 'rejected') {
      throw await this.#failure(opened.reason, session, `create file "${name}"`)
    }
    return undefined
  }

  /** Gives a file that is on disk its final name instead of its temporary one, and brings that to disk. */
  async #giveName(
    key: string,
    name: string,
    session: SftpSession,
    replace: boolean,
  ): Promise<'written' | 'exists'> {
    const path = this.#path(key)
    let isUnsure = true
    try {
      try {
        await (replace ? this.#replaceWith(name, path, session) : session.hardLink(name, path))
      } catch (thrown) {
        // Only what was not answered can have been done.
        if (
          !hasStatus(thrown, 'failure', 'no such file', 'permission denied', 'bad message', 'unsupported')
        ) {
          throw thrown
        }
        // The server does not say that it is there.
        const isThere = !replace && (await this.#isThere(path, session))
        isUnsure = false
        if (isThere) return 'exists'
        throw await this.#failure(thrown, session, `link file "${name}" to "${path}"`)
      }
      await Promise.all([this.#syncName(path, session), replace || this.#remove(name, session)])
      isUnsure = false
      this.#distrusted.delete(key)
      return 'written'
    } finally {
      if (isUnsure) this.#distrusted.add(key)
    }
  }

  async #replaceWith(name: string, path: string, session: SftpSession): Promise<void> {
    if (!session.hasExtension('posix-rename@openssh.com')) {
      throw new RepositoryError(
        'UNREACHABLE',
        `server "${this.#connection.place.host}" does not offer "posix-rename@openssh.com"`,
        { hint: `Move "${path}" away on the server: it may not be on disk, and could not be replaced.` },
      )
    }
    await session.replaceWith(name, path)
  }

  /** Through the file, which on common file systems takes its new name along, and through its directory. */
  async #syncName(path: string, session: SftpSession): Promise<void> {
    const [file, directory] = await Promise.allSettled([
      this.#syncFile(path, session),
      this.#directories.sync(parentOf(path), session),
    ])
    for (const each of [file, directory]) if (each.status === 'rejected') throw each.reason
  }

  async #syncFile(path: string, session: SftpSession): Promise<void> {
    const handle = await session.open(path, 'r').catch(async (thrown: unknown) => {
      throw await this.#failure(thrown, session, `open file "${path}"`)
    })
    try {
      await session.sync(handle)
    } catch (thrown) {
      throw await this.#failure(thrown, session, `fsync file "${path}"`)
    } finally {
      session.closeHandle(handle)
    }
  }

  async #get(
    { key, start, bytes }: Requests['get'],
    session: SftpSession,
    signal: AbortSignal | undefined,
  ): Promise<Answers['get']> {
    const path = this.#path(key)
    for (let attempt = 1; ; attempt++) {
      const [inside, there, opened] = await Promise.allSettled([
        this.#directories.requireInside(parentOf(path), session),
        session.lstat(path),
        session.open(path, 'r'),
      ])
      if (opened.status === 'fulfilled') {
        try {
          if (inside.status === 'rejected') throw inside.reason
          // Replaced this moment, or a link that leads elsewhere.
          const isFile = there.status === 'fulfilled' && there.value.kind === 'file'
          if (isFile) return await this.#read(path, opened.value, { start, bytes }, session, signal)
          if (there.status === 'fulfilled') {
            throw new RepositoryError('CORRUPT', `"${path}" is not a file`)
          }
        } finally {
          session.closeHandle(opened.value)
        }
      } else if (hasStatus(opened.reason, 'no such file')) {
        if (!(await this.#directories.isListed(path, session))) return undefined
      } else {
        throw await this.#failure(opened.reason, session, `open file "${path}"`)
      }
      // It may have come meanwhile, or only a directory on the way, one each time.
      if (attempt === looksMax) {
        throw new RepositoryError(
          'UNREACHABLE',
          `could not open file "${path}": a symbolic link on the way leads nowhere`,
          { hint: 'Is the disk mounted on the server that it leads to?' },
        )
      }
    }
  }

  async #read(
    path: string,
    handle: SftpHandle,
    { start, bytes }: { start: number; bytes: number },
    session: SftpSession,
    signal: AbortSignal | undefined,
  ): Promise<NonNullable<Answers['get']>> {
    const deed = `read file "${path}"`
    const failed = async (thrown: unknown) => {
      throw await this.#failure(thrown, session, deed)
    }
    const { size } = await session.fstat(handle).catch(failed)
    const wanted = Math.max(0, Math.min(bytes, size - start))
    if (wanted === 0) return { bytes: new Uint8Array(0), length: size }
    const piece = await session.read(handle, start, wanted, signal).catch(failed)
    if (piece.length === wanted) return { bytes: piece, length: size }
    throw new RequestError('UNREACHABLE', `could not ${deed}: it became shorter meanwhile`, {
      retry: 'again',
    })
  }

  async #readDirectory(prefix: string, signal: AbortSignal | undefined): Promise<SftpEntry[]> {
    const directory = prefix === '' ? this.#root : this.#path(prefix.slice(0, -1))
    return await this.#run(session => this.#entries(prefix, directory, session), signal)
  }

  async #entries(prefix: string, directory: string, session: SftpSession): Promise<SftpEntry[]> {
    try {
      const entries = await session.list(directory)
      if (prefix !== '') await this.#directories.requireInside(directory, session)
      return entries
    } catch (thrown) {
      if (!hasStatus(thrown, 'no such file')) {
        throw await this.#failure(thrown, session, `read directory "${directory}"`)
      }
      // The root has to be there; below it, nothing is made before it is needed.
      if (prefix !== '' && !(await this.#directories.isListed(directory, session))) return []
      await this.#directories.requireRoot(session)
      throw await this.#failure(thrown, session, `read directory "${directory}"`)
    }
  }

  /** Comes to its end also when it is aborted: only here is it known then what there is to remove. */
  async #beginUpload(
    { key }: Requests['beginUpload'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['beginUpload']> {
    signal?.throwIfAborted()
    return await this.#run(async session => {
      const temporary = await this.#createTemporary(this.#path(key), session, false)
      if (temporary === undefined) throw new Error(`no upload for "${key}"`)
      session.closeHandle(temporary.handle)
      if (signal?.aborted) {
        await this.#remove(temporary.name, session)
        signal.throwIfAborted()
      }
      return temporary.name.slice(temporary.name.lastIndexOf('/') + 1)
    }, undefined)
  }

  async #putPart(
    { key, upload, start, body }: Requests['putPart'],
    session: SftpSession,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const name = this.#uploadPath(key, upload)
    const bytes = body.reduce((sum, piece) => sum + piece.length, 0)
    const handle = await session.open(name, 'r+').catch(async (thrown: unknown) => {
      throw await this.#failure(thrown, session, `open file "${name}"`)
    })
    try {
      await session.write(handle, body, start, signal).catch(async (thrown: unknown) => {
        throw await this.#failure(thrown, session, `write to file "${name}"`, bytes)
      })
      // Each part by itself: another handle might not be told what this one has lost.
      await this.#syncUpload(name, handle, session)
    } finally {
      session.closeHandle(handle)
    }
    return `${start}+${bytes}`
  }

  async #endUpload(
    { key, upload, parts, length, replace = false }: Requests['endUpload'],
    session: SftpSession,
  ): Promise<Answers['endUpload']> {
    const name = this.#uploadPath(key, upload)
    requireWhole(key, parts, length)
    const handle = await session.open(name, 'r+').catch(async (thrown: unknown) => {
      // Asked once more, because the first answer was lost.
      if (hasStatus(thrown, 'no such file') && (await this.#isThere(this.#path(key), session)))
        return undefined
      throw await this.#failure(thrown, session, `open file "${name}"`)
    })
    if (handle === undefined) return 'exists'
    try {
      const { size } = await session.fstat(handle)
      if (size !== length) throw uploadSpoilt(key, `it has ${size} bytes instead of ${length}`)
      await this.#syncUpload(name, handle, session)
    } finally {
      session.closeHandle(handle)
    }
    const outcome = await this.#giveName(key, name, session, replace)
    if (outcome === 'exists') await this.#remove(name, session)
    return outcome
  }

  async #isThere(path: string, session: SftpSession): Promise<boolean> {
    return (await session.lstat(path).catch(ifAnswered)) !== undefined
  }

  async #syncUpload(name: string, handle: SftpHandle, session: SftpSession): Promise<void> {
    let isUnsure = true
    try {
      await session.sync(handle)
      isUnsure = false
    } catch (thrown) {
      throw await this.#failure(thrown, session, `fsync file "${name}"`)
    } finally {
      if (isUnsure) this.#distrustedUploads.add(name)
    }
  }

  async #abandonUpload({ key, upload }: Requests['abandonUpload'], session: SftpSession): Promise<void> {
    const path = this.#temporaryPath(key, upload)
    this.#distrustedUploads.delete(path)
    await session.unlink(path).catch(async (thrown: unknown) => {
      if (!hasStatus(thrown, 'no such file'))
        throw await this.#failure(thrown, session, `remove file "${path}"`)
      await this.#directories.requireRoot(session)
    })
  }

  async #listUploads(
    { after }: Requests['listUploads'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['listUploads']> {
    const list = (prefix: string) => this.#readDirectory(prefix, signal)
    const uploads: Answers['listUploads']['uploads'] = []
    const startedMs = this.#clock.monotonic()
    for await (const { key, isDirectory, length, modifiedMs } of walkTemporaryFiles(list, after)) {
      if (isDirectory) {
        // Most directories hold none. Each page has to come further than the last one.
        const isLong = this.#clock.monotonic() - startedMs >= pageMs
        if (isLong && key > (after ?? '')) return { uploads, next: key }
        continue
      }
      const slash = key.lastIndexOf('/') + 1
      const upload = key.slice(slash)
      const name = upload.slice(1, -temporaryEnd.length)
      uploads.push({ key: `${key.slice(0, slash)}${name}`, upload, begunMs: modifiedMs, length })
      if (uploads.length === uploadsPerPageMax) return { uploads, next: key }
    }
    return { uploads, next: undefined }
  }

  async #confirm({ key }: Requests['confirm'], session: SftpSession): Promise<Answers['confirm']> {
    if (this.#distrusted.has(key)) return 'distrusted'
    const path = this.#path(key)
    await this.#directories.prepare(parentOf(path), session)
    let isUnsure = true
    try {
      await this.#syncName(path, session)
      isUnsure = false
      return 'durable'
    } finally {
      if (isUnsure) this.#distrusted.add(key)
    }
  }

  /** What cannot be removed is found by `listUploads`. */
  async #remove(temporary: string, session: SftpSession): Promise<void> {
    await session.unlink(temporary).catch(() => undefined)
  }

  #uploadPath(key: string, upload: string): string {
    const path = this.#temporaryPath(key, upload)
    if (!this.#distrustedUploads.has(path)) return path
    throw uploadSpoilt(key, 'a part of it may not be on disk')
  }

  #temporaryPath(key: string, upload: string): string {
    const path = this.#path(key)
    const directory = parentOf(path)
    const isOfKey = upload.startsWith(`.${path.slice(directory.length + 1)}.`)
    if (!isTemporaryName(upload) || upload.includes('/') || !isOfKey) {
      throw new Error(`"${upload}" is no upload of "${key}"`)
    }
    return `${directory}/${upload}`
  }

  async #failure(thrown: unknown, session: SftpSession, deed: string, bytes?: number): Promise<unknown> {
    return await this.#directories.failure(thrown, session, deed, bytes)
  }

  /** 16 hexadecimal digits. */
  #newWriter(): string {
    return createHash('sha256').update(this.#newId()).digest('hex').slice(0, 16)
  }

  #path(key: string): string {
    return `${this.#root}/${key}`
  }
}

/** The parts that were written have to be all of the object, whatever somebody else wrote into its file. */
function requireWhole(key: string, parts: readonly string[], length: number): void {
  let end = 0
  for (const part of parts) {
    const [start, bytes] = part.split('+').map(Number)
    if (start !== end) throw uploadSpoilt(key, `byte ${end} on was not written`)
    end += bytes ?? Number.NaN
  }
  if (end !== length) throw uploadSpoilt(key, `${end} of ${length} bytes were written`)
}

function uploadSpoilt(key: string, why: string): RequestError {
  return new RequestError('UNREACHABLE', `could not store "${key}": ${why}`, {
    retry: 'never',
    hint: 'All of it is stored anew by the next attempt.',
  })
}
