import { createHash } from 'node:crypto'
import type { Files } from '../system/files.ts'
import { couldNot, errnoCode, FileError, isMissing } from '../system/system-error.ts'
import { ReplacedError, writeDurably } from '../system/write-durably.ts'
import { RepositoryError } from './repository-error.ts'

/** Remembers which repository a cluster archives to, so that another one in its place is noticed after a restart too. */
export interface KnownRepositories {
  /** The file in which the one at this URL is remembered, for messages. */
  pathOf(url: string): string
  /** The id of the repository that was at this URL; `undefined` where none was known. */
  idOf(url: string): Promise<string | undefined>
  /** Resolves when it would survive a power cut. */
  remember(url: string, id: string): Promise<void>
}

export interface KnownRepositoriesOptions {
  files: Files
  dataDirectory: string
  /** May the owner's group read the data directory? Then it may back it up, this file included. */
  isGroupReadable: boolean
  /** Tells those apart that may write it at once; the same each time for one of them. */
  writer: string
  /** Whom the file shall belong to, where that is not who writes it; only root can do so. */
  owner?: { uid: number; gid: number } | undefined
}

const attemptsMax = 10

/**
 * In the data directory, where base backups and standbys get it too: a file for each repository, so that processes which
 * remember different ones at the same moment do not undo what the other one wrote.
 */
export class KnownRepositoryFiles implements KnownRepositories {
  readonly #options: KnownRepositoriesOptions
  readonly #directory: string
  /** In one process, those who remember take turns. */
  #last: Promise<unknown> = Promise.resolve()
  readonly #writer: string

  constructor(options: KnownRepositoriesOptions) {
    this.#options = options
    this.#directory = directoryIn(options.dataDirectory)
    this.#writer = digestOf(options.writer)
  }

  pathOf(url: string): string {
    return knownRepositoryPath(this.#options.dataDirectory, url)
  }

  async idOf(url: string): Promise<string | undefined> {
    const path = this.pathOf(url)
    let text: string
    try {
      text = await this.#options.files.readText(path)
    } catch (thrown) {
      if (isMissing(thrown)) return undefined
      throw failure(new FileError(`read file "${path}"`, thrown))
    }
    const known = parse(text)
    if (known?.url === url) return known.id
    throw new RepositoryError('MEMORY', `file "${path}" is damaged`, {
      hint: `It tells which repository is the right one at "${url}". Make sure that the right one is there, then remove the file.`,
    })
  }

  remember(url: string, id: string): Promise<void> {
    const remembered = this.#last.catch(() => undefined).then(() => this.#remember(url, id))
    this.#last = remembered
    return remembered
  }

  async #remember(url: string, id: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const known = await this.idOf(url)
      try {
        return known === id ? await this.#makeDurable(url) : await this.#write(url, id)
      } catch (thrown) {
        // Others begin at the same moment. What the last of them has written is there, and most likely says the same.
        if (!(thrown instanceof ReplacedError) || attempt === attemptsMax) throw failure(thrown)
      }
    }
  }

  async #write(url: string, id: string): Promise<void> {
    const { files, owner, isGroupReadable } = this.#options
    await this.#makeDirectory()
    const name = nameOf(url)
    const text = `${JSON.stringify({ url, id }, null, 1)}\n`
    await writeDurably(files, {
      directory: this.#directory,
      name,
      temporaryName: `${name}.${this.#writer}.tmp`,
      mode: isGroupReadable ? 0o640 : 0o600,
      owner,
      replace: true,
      write: file => file.write(Buffer.from(text)),
    })
  }

  async #makeDirectory(): Promise<void> {
    const { files, owner, isGroupReadable } = this.#options
    try {
      await files.makeDirectory(this.#directory, isGroupReadable ? 0o750 : 0o700)
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EEXIST') couldNot(`create directory "${this.#directory}"`)(thrown)
    }
    // Also where it was there: whoever made it may have died before this.
    if (owner !== undefined) {
      await files
        .changeOwner(this.#directory, owner.uid, owner.gid)
        .catch(couldNot(`change owner of directory "${this.#directory}"`))
    }
    await this.#sync(this.#options.dataDirectory)
  }

  /** What is there was written by somebody who may have died before it was certain to last. */
  async #makeDurable(url: string): Promise<void> {
    const { files, dataDirectory } = this.#options
    const path = this.pathOf(url)
    await using file = await files.open(path, 'read').catch(couldNot(`open file "${path}"`))
    await file.sync().catch(couldNot(`fsync file "${path}"`))
    await this.#sync(this.#directory)
    await this.#sync(dataDirectory)
  }

  async #sync(directory: string): Promise<void> {
    await this.#options.files.syncDirectory(directory).catch(couldNot(`fsync file "${directory}"`))
  }
}

/** Where a data directory remembers the repository at a URL. */
export function knownRepositoryPath(dataDirectory: string, url: string): string {
  return `${directoryIn(dataDirectory)}/${nameOf(url)}`
}

function directoryIn(dataDirectory: string): string {
  return `${dataDirectory}/pgarchivist`
}

function nameOf(url: string): string {
  return `repository-${digestOf(url)}.json`
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

/** `undefined` for what is no such file. */
function parse(text: string): { url: string; id: string } | undefined {
  let known: unknown
  try {
    known = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof known !== 'object' || known === null) return undefined
  const { url, id } = known as Record<string, unknown>
  return typeof url === 'string' && typeof id === 'string' ? { url, id } : undefined
}

function failure(thrown: unknown): unknown {
  const first: unknown = thrown instanceof SuppressedError ? thrown.suppressed : thrown
  if (first instanceof RepositoryError || !(first instanceof Error)) return first
  return new RepositoryError('MEMORY', first.message, { cause: first })
}
