import type { Ssh2Attributes, Ssh2Done, Ssh2Entry, Ssh2FileSystem, Ssh2Sftp } from 'ssh2'
import { RepositoryError } from '../../repository-error.ts'
import { hasStatus, sftpStatus } from './sftp-status.ts'

export type SftpHandle = Buffer

export interface SftpFileStatus {
  kind: 'file' | 'directory' | 'link' | 'other'
  size: number
  /** Milliseconds since the epoch. */
  modifiedMs: number
}

export interface SftpEntry extends SftpFileStatus {
  name: string
}

export interface SftpSpace {
  availableBytes: number
  /** Are there file systems' own limits on files, and have they been reached? */
  hasFilesLeft: boolean
  isReadOnly: boolean
}

// A server of OpenSSH takes 255 KiB at once, and its window holds 2 MiB.
const pieceBytes = 128 * 1024
const piecesInFlight = 16

// One answer holds a hundred names.
const listingsInFlight = 4

// Nobody keeps so many files in one directory; a server that never comes to an end must not fill our memory.
const entriesMax = 1_000_000

const [directoryKind, fileKind, linkKind, kindMask] = [0o040000, 0o100000, 0o120000, 0o170000]
const readOnlyFlag = 1

/**
 * One process of the server that reads and writes files, one request after another in the order in which they came.
 * Rejects with an `SftpStatus` where the server has answered, and with what `lost` makes where it did not.
 */
export class SftpSession {
  /** How many have work for it. */
  users = 0
  readonly #sftp: Ssh2Sftp
  readonly #lost: () => Error
  readonly #waiting = new Set<(error: Error) => void>()
  readonly #changed: () => void
  #isOpen = true

  constructor(sftp: Ssh2Sftp, lost: () => Error, changed: () => void) {
    this.#sftp = sftp
    this.#lost = lost
    this.#changed = changed
    const close = () => this.close()
    for (const event of ['end', 'close', 'exit', 'error']) sftp.on(event, close)
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  /** How many requests have not been answered. */
  get unanswered(): number {
    return this.#waiting.size
  }

  hasExtension(name: string): boolean {
    return this.#sftp._extensions[name] !== undefined
  }

  /** To be called when it is known that no answer will come. */
  close(): void {
    this.#isOpen = false
    for (const reject of [...this.#waiting]) reject(this.#lost())
  }

  async open(path: string, flags: 'r' | 'wx' | 'r+', mode?: number): Promise<SftpHandle> {
    const attributes = mode === undefined ? {} : { mode }
    return await this.#ask(done => this.#sftp.open(path, flags, attributes, done))
  }

  /** Nobody waits for it: what was written has been synced, and what was read is known. */
  closeHandle(handle: SftpHandle): void {
    this.#ask<void>(done => this.#sftp.close(handle, done)).catch(() => undefined)
  }

  /** Writes all of `body` one after another from `start` on. */
  async write(
    handle: SftpHandle,
    body: readonly Uint8Array[],
    start: number,
    signal?: AbortSignal,
  ): Promise<void> {
    let position = start
    const pieces: Array<[bytes: Uint8Array, position: number]> = []
    for (const bytes of body) {
      for (let at = 0; at < bytes.length; at += pieceBytes) {
        pieces.push([bytes.subarray(at, at + pieceBytes), position + at])
      }
      position += bytes.length
    }
    await inFlight(piecesInFlight, pieces, async ([bytes, at]) => {
      signal?.throwIfAborted()
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      await this.#ask<void>(done => this.#sftp.write(handle, buffer, 0, buffer.length, at, done))
    })
  }

  /** Fewer bytes only where the file ends. */
  async read(handle: SftpHandle, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const buffer = Buffer.allocUnsafeSlow(length)
    let end = length
    const offsets = Array.from({ length: Math.ceil(length / pieceBytes) }, (_, index) => index * pieceBytes)
    await inFlight(piecesInFlight, offsets, async offset => {
      const upTo = Math.min(offset + pieceBytes, length)
      for (let at = offset; at < upTo && at < end; ) {
        signal?.throwIfAborted()
        const bytes = await this.#ask<number>(done =>
          this.#sftp.read(handle, buffer, at, upTo - at, start + at, done),
        )
        at += bytes
        if (bytes === 0) end = Math.min(end, at)
      }
    })
    return buffer.subarray(0, end)
  }

  async fstat(handle: SftpHandle): Promise<SftpFileStatus> {
    return fileStatus(await this.#ask<Ssh2Attributes>(done => this.#sftp.fstat(handle, done)))
  }

  async stat(path: string): Promise<SftpFileStatus> {
    return fileStatus(await this.#ask<Ssh2Attributes>(done => this.#sftp.stat(path, done)))
  }

  /** Of a symbolic link itself. */
  async lstat(path: string): Promise<SftpFileStatus> {
    return fileStatus(await this.#ask<Ssh2Attributes>(done => this.#sftp.lstat(path, done)))
  }

  async realPath(path: string): Promise<string> {
    return await this.#ask<string>(done => this.#sftp.realpath(path, done))
  }

  async makeDirectory(path: string, mode: number): Promise<void> {
    await this.#ask<void>(done => this.#sftp.mkdir(path, { mode }, done))
  }

  async unlink(path: string): Promise<void> {
    await this.#ask<void>(done => this.#sftp.unlink(path, done))
  }

  /** Fails rather than replace what has this name. */
  async hardLink(existing: string, name: string): Promise<void> {
    await this.#ask<void>(done => this.#sftp.ext_openssh_hardlink(existing, name, done))
  }

  /** Replaces what is at `to`. */
  async replaceWith(from: string, to: string): Promise<void> {
    await this.#ask<void>(done => this.#sftp.ext_openssh_rename(from, to, done))
  }

  async sync(handle: SftpHandle): Promise<void> {
    await this.#ask<void>(done => this.#sftp.ext_openssh_fsync(handle, done))
  }

  async space(path: string): Promise<SftpSpace> {
    const answer = await this.#ask<Ssh2FileSystem>(done => this.#sftp.ext_openssh_statvfs(path, done))
    return {
      availableBytes: Number(answer.f_bavail) * Number(answer.f_frsize),
      hasFilesLeft: Number(answer.f_files) === 0 || Number(answer.f_favail) > 0,
      isReadOnly: (Number(answer.f_flag) & readOnlyFlag) !== 0,
    }
  }

  /** What a directory holds, in no order; symbolic links as such. */
  async list(path: string): Promise<SftpEntry[]> {
    const handle = await this.#ask<Buffer>(done => this.#sftp.opendir(path, done))
    try {
      const entries: SftpEntry[] = []
      let isAtEnd = false
      const read = async () => {
        while (!isAtEnd) {
          const some = await this.#ask<Ssh2Entry[]>(done => this.#sftp.readdir(handle, done)).catch(
            (thrown: unknown) => {
              if (hasStatus(thrown, 'end of file')) return undefined
              throw thrown
            },
          )
          isAtEnd ||= some === undefined
          for (const { filename, attrs } of some ?? []) {
            if (filename !== '.' && filename !== '..') entries.push({ name: filename, ...fileStatus(attrs) })
          }
          if (entries.length > entriesMax) throw tooManyEntries(path)
        }
      }
      await allOf(Array.from({ length: listingsInFlight }, read))
      return entries
    } finally {
      this.closeHandle(handle)
    }
  }

  #ask<T>(send: (done: Ssh2Done<T>) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      // What is sent behind the end is never answered.
      if (!this.#isOpen) return reject(this.#lost())
      const settle = () => {
        this.#waiting.delete(giveUp)
        this.#changed()
      }
      const giveUp = (error: Error) => {
        settle()
        reject(error)
      }
      this.#waiting.add(giveUp)
      this.#changed()
      try {
        send((error, answer) => {
          if (!error) {
            settle()
            resolve(answer)
          } else giveUp(sftpStatus(error) ?? this.#lost())
        })
      } catch (thrown) {
        giveUp(thrown as Error)
      }
    })
  }
}

/** Does all of it, some at the same time, and rejects with the first failure when nothing is under way any more. */
async function inFlight<T>(count: number, all: readonly T[], each: (one: T) => Promise<void>): Promise<void> {
  let next = 0
  const work = async () => {
    while (next < all.length) {
      try {
        await each(all[next++] as T)
      } catch (thrown) {
        next = all.length
        throw thrown
      }
    }
  }
  await allOf(Array.from({ length: Math.min(count, all.length) }, work))
}

/** As `Promise.all`, but waits also for what goes on after the first failure. */
async function allOf(promises: ReadonlyArray<Promise<void>>): Promise<void> {
  const failed = (await Promise.allSettled(promises)).find(each => each.status === 'rejected')
  if (failed) throw failed.reason
}

function tooManyEntries(directory: string): RepositoryError {
  return new RepositoryError('UNREACHABLE', `directory "${directory}" holds more than ${entriesMax} names`, {
    hint: 'Let "pgarchivist.repository" name a directory that holds nothing else, and move away what is not of the repository.',
  })
}

function fileStatus({ mode, size, mtime }: Ssh2Attributes): SftpFileStatus {
  const bits = mode & kindMask
  const kind =
    bits === fileKind ? 'file' : bits === directoryKind ? 'directory' : bits === linkKind ? 'link' : 'other'
  return { kind, size, modifiedMs: mtime * 1000 }
}
