import type { Files } from '../../system/files.ts'
import { bootId } from '../../system/process-identity.ts'
import { isMissing } from '../../system/system-error.ts'

export interface FailedSyncsOptions {
  files: Files
  dataDirectory: string
  /** May the owner's group read the data directory? */
  isGroupReadable: boolean
  /** Whom the note shall belong to, where that is not who writes it; only root can do so. */
  owner?: { uid: number; gid: number } | undefined
}

const prefix = 'failed-fsync.'

/**
 * Tells all processes of a data directory that an fsync has failed. What it could not write may be gone from the kernel's
 * memory or stay there as if it were on disk, and the next fsync succeeds, also that of another process, which every
 * attempt of `archive-push` is.
 *
 * The note is an empty file that has the start of the machine in its name, so that it is there at once or not at all. With
 * the next start it counts no more: what the kernel has in memory then was read from the disk. So it need not last either.
 */
export class FailedSyncs {
  readonly #options: FailedSyncsOptions
  readonly #directory: string

  constructor(options: FailedSyncsOptions) {
    this.#options = options
    this.#directory = `${options.dataDirectory}/pgarchivist`
  }

  /** Has one failed since the machine was started? Where it cannot be told, it has. */
  async areNoted(): Promise<boolean> {
    const { files } = this.#options
    try {
      const notes = (await files.list(this.#directory)).filter(isNote)
      if (notes.length === 0) return false
      const boot = await bootId(files)
      return boot === undefined || notes.includes(`${prefix}${boot}`)
    } catch (thrown) {
      return !isMissing(thrown)
    }
  }

  /** Where it cannot be written, who has seen the failure remembers it for as long as it runs. */
  async note(): Promise<void> {
    const boot = await bootId(this.#options.files)
    if (boot === undefined) return
    await this.#make(`${prefix}${boot}`).catch(() => undefined)
    await this.#removeOthers(`${prefix}${boot}`).catch(() => undefined)
  }

  async #make(name: string): Promise<void> {
    const { files, isGroupReadable, owner } = this.#options
    try {
      await files.makeDirectory(this.#directory, isGroupReadable ? 0o750 : 0o700)
      if (owner !== undefined) await files.changeOwner(this.#directory, owner.uid, owner.gid)
    } catch {
      // Mostly it is there.
    }
    await using file = await files.open(
      `${this.#directory}/${name}`,
      'create',
      isGroupReadable ? 0o640 : 0o600,
    )
    if (owner !== undefined) await file.changeOwner(owner.uid, owner.gid)
  }

  async #removeOthers(name: string): Promise<void> {
    const { files } = this.#options
    const notes = (await files.list(this.#directory)).filter(isNote)
    for (const other of notes.filter(each => each !== name)) await files.unlink(`${this.#directory}/${other}`)
  }
}

function isNote(name: string): boolean {
  return name.startsWith(prefix)
}
