/**
 * `basic_archive`: copies completed WAL files to a directory, as PostgreSQL's contrib module of that name does.
 * It is what this shell command would be if it were durable, atomic, and accepted a file twice:
 *
 *     test ! -f DIRECTORY/%f && cp %p DIRECTORY/%f
 *
 * It differs from contrib's module where that one has faults:
 * - No temporary file is left behind: not by a failed copy, and what a crash left is removed by the next attempt.
 * - The copy gets its name by link(), which never replaces; contrib's rename() replaces a file that another server
 *   made between the look and the rename.
 * - An identical copy that may only be read is success; contrib's module opens it for writing and PANICs.
 */
import { createHash } from 'node:crypto'
import type { ArchiveModuleInit } from '../contract/archive-module.ts'
import type { ArchiveServer } from '../contract/archive-server.ts'
import { ReportedError } from '../contract/error-report.ts'
import type { FileStatus, Files, OpenFile } from '../system/files.ts'
import { couldNot } from '../system/system-error.ts'
import { exists, removeLeftovers, type WritePlace, writeDurably } from '../system/write-durably.ts'

const copyBufferBytesDefault = 1024 * 1024
const pathMaxBytes = 1024 // MAXPGPATH
const fileNameMaxBytes = 64 // what the documentation promises to modules

export interface BasicArchiveOptions {
  files: Files
  /** Tells this machine from others that may archive to the same directory. */
  hostName: string
  /** Does this process run as root? What it stores is given to the owner of the cluster, who is to restore it. */
  isRoot?: boolean
  /** Smaller in tests, so that small files too are copied and compared in several pieces. */
  copyBufferBytes?: number
}

export function basicArchive({
  files,
  hostName,
  isRoot = false,
  copyBufferBytes = copyBufferBytesDefault,
}: BasicArchiveOptions): ArchiveModuleInit {
  return server => {
    const directory = server.DefineCustomStringVariable({
      name: 'basic_archive.archive_directory',
      short_desc: 'Archive file destination directory.',
      boot_value: '',
      context: 'PGC_SIGHUP',
      check_hook: (value, check) => {
        if (Buffer.byteLength(value) + fileNameMaxBytes + 2 < pathMaxBytes) return true
        check.GUC_check_errdetail('Archive directory too long.')
        return false
      },
    })
    server.MarkGUCPrefixReserved('basic_archive')

    const archive = new ArchiveDirectory({ files, server, hostName, isRoot, copyBufferBytes })

    return {
      check_configured_cb: () => {
        if (directory.value !== '') return true
        server.arch_module_check_errdetail('basic_archive.archive_directory is not set.')
        return false
      },
      archive_file_cb: async (_state, file, path) => {
        server.ereport('DEBUG3', { errmsg: `archiving "${file}" via basic_archive` })
        await archive.store(file, path, absolute(server, directory.value))
        return true
      },
    }
  }
}

function absolute(server: ArchiveServer, directory: string): string {
  return directory.startsWith('/') ? directory : `${server.data_directory}/${directory}`
}

interface ArchiveDirectoryOptions {
  files: Files
  server: ArchiveServer
  hostName: string
  isRoot: boolean
  copyBufferBytes: number
}

class ArchiveDirectory {
  readonly #files: Files
  readonly #server: ArchiveServer
  readonly #hostName: string
  readonly #isRoot: boolean
  readonly #copyBufferBytes: number
  /**
   * Where an attempt failed. A failed fsync may have dropped what it could not write, and the next one succeeds
   * without having written it: so what stands there is not believed to be on disk, and is written anew.
   */
  readonly #distrusted = new Set<string>()

  constructor({ files, server, hostName, isRoot, copyBufferBytes }: ArchiveDirectoryOptions) {
    this.#isRoot = isRoot
    this.#files = files
    this.#server = server
    this.#hostName = hostName
    this.#copyBufferBytes = copyBufferBytes
  }

  /** Resolves when the file is stored durably; rejects otherwise. */
  async store(file: string, path: string, directory: string): Promise<void> {
    const destination = `${directory}/${file}`
    try {
      if (await exists(this.#files, destination)) await this.#acceptExisting(file, path, directory)
      else await this.#storeNew(file, path, directory)
      this.#distrusted.delete(destination)
    } catch (thrown) {
      this.#distrusted.add(destination)
      throw thrown
    }
  }

  async #storeNew(file: string, path: string, directory: string): Promise<void> {
    // Where another server was quicker, what it stored decides, not who stored it.
    const outcome = await this.#write(file, path, directory, { replace: false })
    if (outcome === 'exists') await this.#acceptExisting(file, path, directory)
    else this.#server.ereport('DEBUG1', { errmsg: `archived "${file}" via basic_archive` })
  }

  /** A file of this name is there: success if it has the same content and is durable, ERROR otherwise. */
  async #acceptExisting(file: string, path: string, directory: string): Promise<void> {
    const destination = `${directory}/${file}`
    await this.#refuseSourceItself(path, destination)
    await using source = await open(this.#files, path)
    await using existing = await open(this.#files, destination)
    if (!(await haveSameContent(source, existing, this.#copyBufferBytes))) {
      throw new ReportedError('ERROR', { errmsg: `archive file "${destination}" already exists` })
    }
    const errmsg = `archive file "${destination}" already exists with identical contents`
    this.#server.ereport('DEBUG3', { errmsg })
    const cluster = await this.#cluster()
    await removeLeftovers(this.#files, this.#place(file, directory, cluster))
    if (this.#distrusted.has(destination)) {
      await this.#write(file, path, directory, { replace: true })
      return
    }
    // Whoever wrote it may have died before this.
    await existing.sync()
    await this.#files.syncDirectory(directory).catch(couldNot(`fsync file "${directory}"`))
  }

  /** A hard link to the WAL file, or an archive directory that leads to pg_wal: the server will recycle it. */
  async #refuseSourceItself(path: string, destination: string): Promise<void> {
    const source = await this.#files.stat(path).catch(couldNot(`stat file "${path}"`))
    const existing = await this.#files.stat(destination).catch(couldNot(`stat file "${destination}"`))
    if (source.device !== existing.device || source.inode !== existing.inode) return
    const errmsg = `archive file "${destination}" is the write-ahead log file itself, not a copy`
    throw new ReportedError('ERROR', { errmsg })
  }

  async #write(file: string, path: string, directory: string, how: { replace: boolean }) {
    const cluster = await this.#cluster()
    const place = this.#place(file, directory, cluster)
    await using source = await open(this.#files, path)
    return await writeDurably(this.#files, {
      ...place,
      // Readable by the group where the cluster is, as PostgreSQL's own files are.
      mode: (cluster.mode & 0o050) === 0o050 ? 0o640 : 0o600,
      owner: this.#isRoot ? cluster : undefined,
      replace: how.replace,
      write: target => copy(source, target, this.#copyBufferBytes),
    })
  }

  #cluster(): Promise<FileStatus> {
    const path = this.#server.data_directory
    return this.#files.stat(path).catch(couldNot(`stat file "${path}"`))
  }

  /**
   * Other servers may archive to the same directory, and an attempt has to find the leftover of an earlier one that was
   * killed. So the temporary name tells clusters and machines apart, and is the same each time.
   */
  #place(file: string, directory: string, { device, inode }: FileStatus): WritePlace {
    const { system_identifier, data_directory } = this.#server
    const writer = [this.#hostName, system_identifier, data_directory, device, inode].join('\0')
    const owner = createHash('sha256').update(writer).digest('hex').slice(0, 16)
    return { directory, name: file, temporaryName: `archtemp.${file}.${owner}` }
  }
}

async function haveSameContent(a: SourceFile, b: SourceFile, bufferBytes: number): Promise<boolean> {
  const aBuffer = Buffer.allocUnsafe(bufferBytes)
  const bBuffer = Buffer.allocUnsafe(bufferBytes)
  for (;;) {
    const aBytes = await a.read(aBuffer)
    const bBytes = await b.read(bBuffer)
    if (!aBuffer.subarray(0, aBytes).equals(bBuffer.subarray(0, bBytes))) return false
    if (aBytes < bufferBytes) return true
  }
}

async function copy(source: SourceFile, target: OpenFile, bufferBytes: number): Promise<void> {
  const buffer = Buffer.allocUnsafe(bufferBytes)
  for (;;) {
    const bytes = await source.read(buffer)
    if (bytes === 0) return
    await target.write(buffer.subarray(0, bytes))
  }
}

/** A file that is only read, and whose failures say which one it is. */
interface SourceFile extends AsyncDisposable {
  read(buffer: Uint8Array): Promise<number>
  sync(): Promise<void>
}

async function open(files: Files, path: string): Promise<SourceFile> {
  const file = await files.open(path, 'read').catch(couldNot(`open file "${path}"`))
  return {
    read: buffer => file.read(buffer).catch(couldNot(`read file "${path}"`)),
    sync: () => file.sync().catch(couldNot(`fsync file "${path}"`)),
    [Symbol.asyncDispose]: () => file.close(),
  }
}
