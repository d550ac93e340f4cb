import type { Files } from '../system/files.ts'
import { couldNot, isMissing } from '../system/system-error.ts'
import { inArchiveOrder } from '../wal/archive-order.ts'

// In messages, as the server names it.
const shownDirectory = 'pg_wal/archive_status'

export interface ReadyFiles {
  count: number
  /** In archive order. */
  first: string[]
}

/**
 * The directory `pg_wal/archive_status`, in which the server and its archiver tell each other about WAL files:
 * `NAME.ready` says that `pg_wal/NAME` waits to be archived, `NAME.done` that it was. Nobody else touches it.
 */
export class ArchiveStatus {
  readonly directory: string
  readonly #files: Files

  constructor(files: Files, walDirectory: string) {
    this.#files = files
    this.directory = `${walDirectory}/archive_status`
  }

  /**
   * The files that wait: how many, and the first `atMost` of them in archive order. `ignored` is told of each `.ready`
   * that no server would have made. Keeps no more than twice as many names, however many wait.
   */
  async ready(atMost: number, ignored: (statusFile: string) => void): Promise<ReadyFiles> {
    let names: string[] = []
    let count = 0
    const remember = (statusFile: string): void => {
      if (!statusFile.endsWith('.ready')) return
      const name = statusFile.slice(0, -'.ready'.length)
      if (!isArchivable(name)) return ignored(statusFile)
      count++
      names.push(name)
      if (names.length >= 2 * atMost) names = inArchiveOrder(names).slice(0, atMost)
    }
    await this.#files.visit(this.directory, remember).catch(couldNot(`open directory "${shownDirectory}"`))
    return { count, first: inArchiveOrder(names).slice(0, atMost) }
  }

  async isReady(name: string): Promise<boolean> {
    try {
      await this.#files.stat(this.readyPath(name))
      return true
    } catch (thrown) {
      if (isMissing(thrown)) return false
      return couldNot(`stat file "${shownDirectory}/${name}.ready"`)(thrown)
    }
  }

  /**
   * The rename is not made durable, so after a crash the file may come again. That is fine: modules accept repeats.
   */
  async markDone(name: string): Promise<void> {
    await this.#files.rename(this.readyPath(name), this.donePath(name))
  }

  async removeReady(name: string): Promise<void> {
    await this.#files.unlink(this.readyPath(name))
  }

  readyPath(name: string): string {
    return `${this.directory}/${name}.ready`
  }

  donePath(name: string): string {
    return `${this.directory}/${name}.done`
  }
}

// MIN_XFN_CHARS, MAX_XFN_CHARS and VALID_XFN_CHARS of pgarch.h: a set of letters, not a grammar of names.
const archivableName = /^[0-9A-F.historybackuppartial]{16,40}$/

function isArchivable(name: string): boolean {
  return archivableName.test(name)
}
