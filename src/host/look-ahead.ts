import type { FileStatus, Files } from '../system/files.ts'
import { ArchiveStatus } from './archive-status.ts'

// What the server itself takes from one scan. Looking further ahead than it will go would gain nothing.
const filesAheadMax = 64

/** Archives one file; what `ModuleHost.archiveFile` is. */
export type ArchiveFile = (
  file: string,
  path: string,
  signal: AbortSignal,
  isAhead?: boolean,
) => Promise<boolean>

export interface LookAheadOptions {
  files: Files
  dataDirectory: string
  archiveFile: ArchiveFile
  /** How many files may be archived at once, the requested one included; asked each time, because it is a setting. */
  filesAtOnce: () => number
  /** Aborted when the archiver ends. */
  signal: AbortSignal
}

interface Attempt {
  isArchived: boolean
  /** Of the file, if it was the same before and after; `undefined` otherwise. */
  identity: string | undefined
  /** The settings that it was begun with: how often they had changed. */
  settings: number
}

/**
 * Archives files before the server asks for them, for a module that declares `archive_ahead`. While the server waits
 * for one file, the next ones that are ready are given to the module too, in archive order; when their turn comes, the
 * answer is known.
 *
 * Nothing changes for the server: answers are per file, in its order. A success is kept in memory only, tied to the
 * identity of the file that was read, and forgotten once it has been told. A failure ahead is not kept: the file is
 * tried again when it is asked for. No file is given to the module twice at once; a request for one that is under way
 * waits for that attempt.
 */
export class LookAhead {
  readonly #options: LookAheadOptions
  readonly #status: ArchiveStatus
  readonly #attempts = new Map<string, { isAhead: boolean; outcome: Promise<Attempt> }>()
  /** Archived, and not yet asked for. */
  readonly #archived = new Map<string, string>()
  /** Failed ahead, so not tried again until asked for. */
  readonly #failed = new Set<string>()
  /** Said to be archived. The server renames their status files a moment later, and a scan may come in between. */
  #told = new Set<string>()
  #settings = 0
  /** Ready according to the last scan and not yet begun, in archive order. */
  #candidates: string[] = []
  #scanning: Promise<void> | undefined

  constructor(options: LookAheadOptions) {
    this.#options = options
    this.#status = new ArchiveStatus(options.files, `${options.dataDirectory}/pg_wal`)
  }

  /** The server asks for a file. It never waits for a place among those that run. */
  async archive(file: string): Promise<boolean> {
    this.#failed.delete(file)
    this.#candidates = this.#candidates.filter(each => each !== file)
    const known = this.#archived.get(file)
    this.#archived.delete(file)
    if (known !== undefined && known === (await this.#identity(file))) {
      this.#told.add(file)
      void this.#goOn()
      return true
    }
    const underWay = this.#attempts.get(file)
    const attempt = this.#begin(file)
    void this.#goOn()
    let answer = await attempt
    this.#archived.delete(file) // told now, so not to be kept for a later request
    if (underWay !== undefined) {
      // What was read before may have been another file than the one that is asked for, or have gone elsewhere; and
      // what fails ahead fails nothing that is asked for.
      const isInVain = answer.isArchived ? !this.#counts(answer) : underWay.isAhead
      if (isInVain) answer = await this.#begin(file)
    }
    if (answer.isArchived) this.#told.add(file)
    return answer.isArchived
  }

  /** After a reload that changed a setting: what was archived, or is being archived, may have gone elsewhere. */
  forget(): void {
    this.#settings++
    this.#archived.clear()
    this.#failed.clear()
  }

  /** Resolves when no attempt is under way. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#attempts.values()].map(({ outcome }) => outcome))
  }

  /** No file is given to the module twice at once: one that is under way is joined. */
  #begin(file: string, isAhead = false): Promise<Attempt> {
    const running = this.#attempts.get(file)
    if (running !== undefined) return running.outcome
    const outcome = this.#attempt(file, isAhead).finally(() => this.#attempts.delete(file))
    this.#attempts.set(file, { isAhead, outcome })
    return outcome
  }

  async #attempt(file: string, isAhead: boolean): Promise<Attempt> {
    const { archiveFile, signal } = this.#options
    const settings = this.#settings
    const before = await this.#identity(file)
    const isArchived = await archiveFile(file, this.#path(file), signal, isAhead)
    const isSame = before !== undefined && before === (await this.#identity(file))
    return { isArchived, identity: isSame ? before : undefined, settings }
  }

  /** Is the attempt good for a request that comes after its begin? */
  #counts({ identity, settings }: Attempt): boolean {
    return identity !== undefined && settings === this.#settings
  }

  /** Starts what may be started ahead. */
  async #goOn(): Promise<void> {
    if (!this.#hasRoom()) return
    if (this.#candidates.length === 0) await (this.#scanning ??= this.#scan())
    while (this.#hasRoom()) {
      const file = this.#candidates.shift()
      if (file === undefined) return
      if (!this.#attempts.has(file) && !this.#archived.has(file) && !this.#failed.has(file)) {
        void this.#archiveAhead(file)
      }
    }
  }

  #hasRoom(): boolean {
    const { signal, filesAtOnce } = this.#options
    const isAllowed = filesAtOnce() > 1 && !signal.aborted
    return isAllowed && this.#attempts.size < filesAtOnce() && this.#archived.size < filesAheadMax
  }

  async #scan(): Promise<void> {
    try {
      const { first } = await this.#status.ready(filesAheadMax, () => undefined)
      this.#candidates = first.filter(file => !this.#told.has(file))
      this.#told = new Set(first.filter(file => this.#told.has(file)))
    } catch {
      // The server looks into the same directory, and says what is wrong with it.
    } finally {
      this.#scanning = undefined
    }
  }

  async #archiveAhead(file: string): Promise<void> {
    try {
      const attempt = await this.#begin(file, true)
      const { isArchived, identity } = attempt
      if (isArchived && identity !== undefined && this.#counts(attempt)) this.#archived.set(file, identity)
      else this.#failed.add(file)
    } catch {
      // The process has to end; the next request meets the same and says so.
      this.#failed.add(file)
    }
    void this.#goOn()
  }

  async #identity(file: string): Promise<string | undefined> {
    try {
      return identityOf(await this.#options.files.stat(this.#path(file)))
    } catch {
      return undefined
    }
  }

  #path(file: string): string {
    return `${this.#options.dataDirectory}/pg_wal/${file}`
  }
}

function identityOf({ device, inode, size, modifiedNs, changedNs }: FileStatus): string {
  return [device, inode, size, modifiedNs, changedNs].join(' ')
}
