import type { Clock } from '../../system/clock.ts'
import type { Files } from '../../system/files.ts'
import { couldNot, errnoCode } from '../../system/system-error.ts'
import { RepositoryError } from '../repository-error.ts'
import { isTemporaryName, isUnfinishedWrite } from './unfinished-write.ts'

export interface ObjectDirectoriesOptions {
  files: Files
  clock: Pick<Clock, 'now'>
  root: string
  /** Permission bits of those that are made. */
  mode: number
  owner: { uid: number; gid: number } | undefined
  /** Was the unfinished write of this name left by somebody who certainly writes no more? */
  isLeft: (name: string) => Promise<boolean>
}

// An unfinished write that is older than this was left by a process that has died.
const leftoverAgeNs = 24n * 60n * 60n * 1_000_000_000n

// A directory that may not be opened, or a file system that syncs none.
const unsyncable: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EROFS', 'EINVAL'])

/** The directories in which objects are: there, in the root, and with names that survive a power cut. */
export class ObjectDirectories {
  readonly #options: ObjectDirectoriesOptions
  readonly #files: Files
  readonly #root: string
  readonly #prepared = new Set<string>()

  constructor(options: ObjectDirectoriesOptions) {
    this.#options = options
    this.#files = options.files
    this.#root = options.root
  }

  /** To be called when something failed: perhaps the root was exchanged for another one. */
  forget(): void {
    this.#prepared.clear()
  }

  /** Makes a directory, and those above it up to the root, where they are missing. */
  async prepare(directory: string): Promise<void> {
    if (this.#prepared.has(directory)) return
    if (directory === this.#root) {
      await this.#syncNameOfRoot()
    } else {
      const parent = parentOf(directory)
      await this.prepare(parent)
      await this.#make(directory)
      await this.requireInside(directory)
      await this.requireOwnDisk(directory)
      // Also where it was there: whoever made it may have died before this.
      await this.#files.syncDirectory(parent).catch(couldNot(`fsync file "${parent}"`))
    }
    await this.#removeOldLeftovers(directory)
    this.#prepared.add(directory)
  }

  /** Throws where a symbolic link leads out of the root: nothing is written or read there. */
  async requireInside(directory: string): Promise<void> {
    if (directory === this.#root) return
    const real = await this.#realPath(directory)
    if (real.startsWith(withSlash(await this.#realPath(this.#root)))) return
    throw new RepositoryError('SETTINGS', `"${directory}" leads out of the repository, to "${real}"`, {
      hint: 'Remove the symbolic link.',
    })
  }

  /**
   * Throws where another disk is mounted below the root: on the day when it is not, what is written would lie beneath its
   * mount point, and nothing but the marker in the root tells that a disk is missing.
   */
  async requireOwnDisk(directory: string): Promise<void> {
    if (directory === this.#root) return
    const device = async (path: string) =>
      (await this.#files.stat(path).catch(couldNot(`stat file "${path}"`))).device
    if ((await device(directory)) === (await device(this.#root))) return
    throw new RepositoryError(
      'SETTINGS',
      `"${directory}" is on another file system than repository directory "${this.#root}"`,
      {
        hint: 'Mount the disk as the repository directory itself, not below it, and move there what is stored.',
      },
    )
  }

  /** Is it where its path says, without a symbolic link below the root? */
  async isNoLink(directory: string): Promise<boolean> {
    const below = directory.slice(withSlash(this.#root).length)
    return (await this.#realPath(directory)) === `${withSlash(await this.#realPath(this.#root))}${below}`
  }

  async #realPath(path: string): Promise<string> {
    return await this.#files.realPath(path).catch(couldNot(`resolve path "${path}"`))
  }

  async #make(directory: string): Promise<void> {
    const { mode, owner } = this.#options
    try {
      await this.#files.makeDirectory(directory, mode)
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EEXIST') couldNot(`create directory "${directory}"`)(thrown)
      const there = await this.#files.stat(directory).catch(couldNot(`stat file "${directory}"`))
      // Unless root was cut off before it could give it away, it belongs to whom it should.
      if (there.uid !== 0) return
    }
    if (owner === undefined) return
    await this.#files
      .changeOwner(directory, owner.uid, owner.gid)
      .catch(couldNot(`change owner of directory "${directory}"`))
  }

  /** Whoever made the root may not have synced its name. That of a mount point is not of this disk. */
  async #syncNameOfRoot(): Promise<void> {
    const root = await this.#realPath(this.#root)
    const parent = parentOf(root)
    const [here, above] = await Promise.all([this.#files.stat(root), this.#files.stat(parent)]).catch(
      couldNot(`stat file "${root}"`),
    )
    if (here.device !== above.device) return
    await this.#files.syncDirectory(parent).catch(thrown => {
      if (!unsyncable.has(errnoCode(thrown) ?? '')) couldNot(`fsync file "${parent}"`)(thrown)
    })
  }

  /**
   * A write that was cut off is removed by the next one of the same object, unless another process makes that, as each
   * attempt of a command does. But that has to prepare the same directory, and so finds here what others have left.
   */
  async #removeOldLeftovers(directory: string): Promise<void> {
    const before = BigInt(this.#options.clock.now()) * 1_000_000n - leftoverAgeNs
    // Tidying up must not keep anything from being archived.
    const names = await this.#files.list(directory).catch(() => [])
    for (const name of names.filter(isUnfinishedWrite)) {
      const path = `${directory}/${name}`
      const isOld = () =>
        this.#files.stat(path).then(
          status => status.kind === 'file' && status.changedNs < before,
          () => false,
        )
      // Whether a lock is in use, its age does not tell.
      const isLeft = (await this.#options.isLeft(name)) || (isTemporaryName(name) && (await isOld()))
      if (isLeft) await this.#files.unlink(path).catch(() => undefined)
    }
  }
}

/** Of an absolute path. */
export function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}

export function withSlash(directory: string): string {
  return directory === '/' ? directory : `${directory}/`
}
