import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import { errnoCode, isMissing } from '../system/system-error.ts'
import { ArchiveStatus } from './archive-status.ts'
import { identityOf } from './file-identity.ts'

// What the server itself takes from one scan. Looking further ahead than it will go would gain nothing.
const filesAheadMax = 64
// Between two looks where no notification comes.
const lookMs = 1_000
// A file that could not be archived is asked for by the server each second, and is not ours to insist on.
const retryMs = 5_000

export interface PushAheadOptions {
  files: Files
  clock: Clock
  walDirectory: string
  /** Where notes are left, which has to be there; see `PushNotes`. */
  notesDirectory: string
  /** Archives one file durably; whatever it throws, the file was not archived. */
  archiveFile(name: string, path: string): Promise<void>
  filesAtOnce: number
  /** It ends when there was nothing to do for so long. */
  idleMs: number
  /** Asked at least every second, and before a file is begun: may it go on? `gone`: the directory is somebody else's now. */
  mayGoOn(): Promise<'goes on' | 'over' | 'gone'>
}

/**
 * Archives what is ready before the server asks for it, where the server runs a command for each file. For each file
 * that is archived it leaves a note, which says of which very file that is true; the next command finds the note and
 * answers at once. A note is removed when its file is not ready any more.
 *
 * A failure leaves no note: the command that is run for the file tries it itself and has something to say about it.
 */
export class PushAhead {
  readonly #options: PushAheadOptions
  readonly #status: ArchiveStatus
  readonly #notes: PushNotes
  readonly #underWay = new Map<string, Promise<void>>()
  readonly #archived = new Set<string>()
  /** When it may be tried again, in monotonic milliseconds. */
  readonly #failed = new Map<string, number>()
  #wake = Promise.withResolvers<void>()

  constructor(options: PushAheadOptions) {
    this.#options = options
    this.#status = new ArchiveStatus(options.files, options.walDirectory)
    this.#notes = new PushNotes(options.files, options.notesDirectory)
  }

  /** Removes what one before it has left. */
  async clear(): Promise<void> {
    await this.#notes.clear()
  }

  /** Resolves when it has ended, with no attempt under way and no note left. */
  async run(): Promise<void> {
    const { files, clock, idleMs } = this.#options
    const watch = files.watch(this.#status.directory, () => this.#wake.resolve())
    let state: 'goes on' | 'over' | 'gone' = 'over'
    try {
      let lastBusy = clock.monotonic()
      while ((state = await this.#options.mayGoOn()) === 'goes on') {
        if (await this.#look()) lastBusy = clock.monotonic()
        if (clock.monotonic() - lastBusy > idleMs) break
        await this.#pause()
      }
    } finally {
      watch.close()
      // pg_rewind fails when a file vanishes that it is about to remove, and nobody trusts the notes of a process that has
      // ended. What is under way ends with the process; the next command removes what that leaves.
      if (state !== 'gone') await this.#endTidily()
    }
  }

  /** Nobody may trust a note that is not looked after. */
  async #endTidily(): Promise<void> {
    await this.#notes.clear()
    await Promise.allSettled(this.#underWay.values())
    await this.#notes.clear()
  }

  /** Begins what may be begun. Is there anything to do? */
  async #look(): Promise<boolean> {
    const { clock, filesAtOnce } = this.#options
    const { first } = await this.#status.ready(filesAheadMax, () => undefined)
    const ready = new Set(first)
    for (const name of [...this.#archived]) {
      if (ready.has(name)) continue
      this.#archived.delete(name)
      await this.#notes.remove(name)
    }
    for (const name of first) {
      if (this.#underWay.size >= filesAtOnce) break
      if (this.#underWay.has(name) || this.#archived.has(name)) continue
      if (clock.monotonic() < (this.#failed.get(name) ?? 0)) continue
      const attempt = this.#archive(name).finally(() => {
        this.#underWay.delete(name)
        this.#wake.resolve()
      })
      this.#underWay.set(name, attempt)
    }
    return first.length > 0
  }

  async #archive(name: string): Promise<void> {
    const { clock, files, walDirectory } = this.#options
    const path = `${walDirectory}/${name}`
    try {
      await this.#notes.begin(name)
      const before = identityOf(await files.stat(path))
      await this.#options.archiveFile(name, path)
      // Another file of this name may have come while that one was being read.
      if (before !== identityOf(await files.stat(path))) return
      this.#failed.delete(name)
      this.#archived.add(name)
      await this.#notes.archived(name, before)
    } catch {
      this.#failed.set(name, clock.monotonic() + retryMs)
    } finally {
      await this.#notes.end(name).catch(() => undefined)
    }
  }

  async #pause(): Promise<void> {
    const woken = new AbortController()
    await Promise.race([this.#wake.promise, this.#options.clock.sleep(lookMs, woken.signal)])
    woken.abort()
    this.#wake = Promise.withResolvers()
  }
}

const archivedSuffix = '.archived'
const busySuffix = '.busy'

/**
 * Files that tell the commands of the server what became of a WAL file, also known in bin/pgarchivist:
 *
 * - `NAME.busy`: it is being archived.
 * - `NAME.archived`: it was archived, and holds the identity of the file that was, as `identityOf` has it.
 *
 * They count only while the process lives that wrote them.
 */
class PushNotes {
  readonly #files: Files
  readonly #directory: string

  constructor(files: Files, directory: string) {
    this.#files = files
    this.#directory = directory
  }

  begin(name: string): Promise<void> {
    return this.#write(`${name}${busySuffix}`, '')
  }

  async end(name: string): Promise<void> {
    await this.#remove(`${name}${busySuffix}`)
  }

  archived(name: string, identity: string): Promise<void> {
    return this.#write(`${name}${archivedSuffix}`, `${identity}\n`)
  }

  async remove(name: string): Promise<void> {
    await this.#remove(`${name}${archivedSuffix}`)
  }

  /** All notes, also those of a process that has died. */
  async clear(): Promise<void> {
    for (const file of await this.#files.list(this.#directory)) {
      if (file.endsWith(archivedSuffix) || file.endsWith(busySuffix)) await this.#remove(file)
    }
  }

  async #write(file: string, text: string): Promise<void> {
    const path = `${this.#directory}/${file}`
    try {
      await this.#create(path, text)
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EEXIST') throw thrown
      await this.#remove(file)
      await this.#create(path, text)
    }
  }

  /** A note that is read while it is being written matches nothing. */
  async #create(path: string, text: string): Promise<void> {
    await using file = await this.#files.open(path, 'create')
    await file.write(Buffer.from(text))
  }

  async #remove(file: string): Promise<void> {
    try {
      await this.#files.unlink(`${this.#directory}/${file}`)
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown
    }
  }
}
