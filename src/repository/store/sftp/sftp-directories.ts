import { RepositoryError } from '../../repository-error.ts'
import { parentOf } from '../object-directories.ts'
import { sftpFailure } from './sftp-failure.ts'
import type { SftpFileStatus, SftpSession } from './sftp-session.ts'
import { hasStatus, ifAnswered } from './sftp-status.ts'
import type { SshPlace } from './ssh-failure.ts'

/** The directories of a repository on a server: there, in the root, and with names that survive a power cut. */
export class SftpDirectories {
  readonly #root: string
  readonly #place: SshPlace
  readonly #prepared = new Set<string>()

  constructor(root: string, place: SshPlace) {
    this.#root = root
    this.#place = place
  }

  /** To be called when something failed: perhaps the root was exchanged for another one. */
  forget(): void {
    this.#prepared.clear()
  }

  /** Throws unless the root is there. It is never made. */
  async requireRoot(session: SftpSession): Promise<void> {
    const { host, user } = this.#place
    let status: SftpFileStatus
    try {
      status = await session.stat(this.#root)
    } catch (thrown) {
      if (!hasStatus(thrown, 'no such file')) {
        throw await this.failure(thrown, session, `open repository directory "${this.#root}"`)
      }
      throw new RepositoryError(
        'UNREACHABLE',
        `there is no repository directory "${this.#root}" on server "${host}"`,
        {
          cause: thrown,
          hint: `Mount the disk on the server, or make an empty directory there that belongs to user "${user}": it is never made for you.`,
        },
      )
    }
    if (status.kind === 'directory') return
    throw new RepositoryError(
      'SETTINGS',
      `repository "${this.#root}" on server "${host}" is not a directory`,
      {
        hint: 'Let "pgarchivist.repository" name a directory.',
      },
    )
  }

  /** Makes a directory, and those above it up to the root, where they are missing. */
  async prepare(directory: string, session: SftpSession): Promise<void> {
    if (this.#prepared.has(directory)) return
    const parent = parentOf(directory)
    if (directory === this.#root) {
      await this.requireRoot(session)
      // Whoever made it may not have synced its name. It may also be a place that is closed to us.
      await this.sync(parent, session).catch(() => undefined)
    } else {
      await this.prepare(parent, session)
      await this.#make(directory, session)
      await this.requireInside(directory, session)
      // Also where it was there: whoever made it may have died before this.
      await this.sync(parent, session)
    }
    this.#prepared.add(directory)
  }

  /** Throws where a symbolic link leads out of the root: nothing is written or read there. */
  async requireInside(directory: string, session: SftpSession): Promise<void> {
    if (directory === this.#root) return
    const [root, real] = await Promise.all([session.realPath(this.#root), session.realPath(directory)]).catch(
      async (thrown: unknown) => {
        throw await this.failure(thrown, session, `resolve path "${directory}"`)
      },
    )
    if (real.startsWith(root === '/' ? root : `${root}/`)) return
    throw new RepositoryError('SETTINGS', `"${directory}" leads out of the repository, to "${real}"`, {
      hint: 'Remove the symbolic link.',
    })
  }

  /**
   * Makes the names in a directory durable, where the server opens directories as files, as that of OpenSSH does on
   * Linux. Elsewhere syncing the file behind a new name is all there is; most file systems write the name with it.
   */
  async sync(directory: string, session: SftpSession): Promise<void> {
    const handle = await session.open(directory, 'r').catch((thrown: unknown) => {
      if (hasStatus(thrown, 'failure', 'permission denied', 'unsupported', 'bad message')) return undefined
      throw thrown
    })
    if (handle === undefined) return
    try {
      await session.sync(handle)
    } catch (thrown) {
      // A file system that syncs no directories says so.
      if (!hasStatus(thrown, 'bad message', 'unsupported')) {
        throw await this.failure(thrown, session, `fsync directory "${directory}"`)
      }
    } finally {
      session.closeHandle(handle)
    }
  }

  /**
   * Is there something of this path, though it could not be opened? Missing is what its directory does not list, or a
   * directory above that one. The server's answer may have other reasons.
   */
  async isListed(target: string, session: SftpSession): Promise<boolean> {
    for (let path = target; path.length > this.#root.length; path = parentOf(path)) {
      const directory = parentOf(path)
      if (directory === this.#root) await this.requireRoot(session)
      try {
        const entries = await session.list(directory)
        const name = path.slice(path.lastIndexOf('/') + 1)
        if (entries.some(entry => entry.name === name)) return true
      } catch (thrown) {
        if (hasStatus(thrown, 'no such file') && directory !== this.#root) continue
        throw await this.failure(thrown, session, `read directory "${directory}"`)
      }
      // What is missing where a link leads to is not missing here.
      await this.requireInside(directory, session)
      // Nor is what a disk takes with it that is unmounted this moment.
      await this.requireRoot(session)
      return false
    }
    return false
  }

  /** What was refused, in words. */
  async failure(thrown: unknown, session: SftpSession, deed: string, bytes?: number): Promise<unknown> {
    return await sftpFailure(thrown, {
      deed,
      session,
      place: this.#place,
      root: this.#root,
      ...(bytes !== undefined && { bytes }),
    })
  }

  async #make(directory: string, session: SftpSession): Promise<void> {
    try {
      await session.makeDirectory(directory, 0o700)
    } catch (thrown) {
      const status = await session.stat(directory).catch(ifAnswered)
      if (status?.kind === 'directory') return
      if (status !== undefined) {
        throw new RepositoryError(
          'UNREACHABLE',
          `could not create directory "${directory}" on server "${this.#place.host}": File exists`,
          {
            cause: thrown,
            hint: 'There is a file where a directory of the repository belongs: move it away.',
          },
        )
      }
      throw await this.failure(thrown, session, `create directory "${directory}"`)
    }
  }
}
