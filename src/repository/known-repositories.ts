import { createHash } from 'node:crypto'
import type { Files } from '../system/files.ts'
import { couldNot, errnoCode, FileError, isMissing } from '../system/system-error.ts'
import { ReplacedError, writeDurably } from '../system/write-durably.ts'
import { RepositoryError } from './repository-error.ts'

/** Remembers which repository a cluster archives to, so that another one in its place is noticed after a restart too. */
export interface KnownRepositories {
  /** For messages. */
  readonly path: string
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

const name = 'repositories.json'
const attemptsMax = 10

/** In the data directory, where base backups and standbys get it too. */
export class KnownRepositoriesFile implements KnownRepositories {
  readonly path: string
  readonly #options: KnownRepositoriesOptions
  readonly #directory: string
  /** Several repositories may be remembered at once, and none may undo what another one wrote. */
  #last: Promise<unknown> = Promise.resolve()
  readonly #temporaryName: string

  constructor(options: KnownRepositoriesOptions) {
    this.#options = options
    this.#directory = `${options.dataDirectory}/pgarchivist`
    this.path = `${this.#directory}/${name}`
    const writer = createHash('sha256').update(options.writer).digest('hex').slice(0, 16)
    this.#temporaryName = `${name}.${writer}.tmp`
  }

  async idOf(url: string): Promise<string | undefined> {
    return (await this.#read()).get(url)
  }

  remember(url: string, id: string): Promise<void> {
    const remembered = this.#last.catch(() => undefined).then(() => this.#remember(url, id))
    this.#last = remembered
    return remembered
  }

  async #remember(url: string, id: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const known = await this.#read()
      try {
        if (known.get(url) === id) return await this.#makeDurable()
        return await this.#write(known.set(url, id))
      } catch (thrown) {
        // Others begin at the same moment. What the last of them has written is there, and most likely says the same.
        if (!(thrown instanceof ReplacedError) || attempt === attemptsMax) throw failure(thrown)
      }
    }
  }

  async #write(known: ReadonlyMap<string, string>): Promise<void> {
    const { files, owner, isGroupReadable } = this.#options
    await this.#makeDirectory()
    const text = `${JSON.stringify(Object.fromEntries(known), null, 1)}\n`
    await writeDurably(files, {
      directory: this.#directory,
      name,
      temporaryName: this.#temporaryName,
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
  async #makeDurable(): Promise<void> {
    const { files, dataDirectory } = this.#options
    await using file = await files.open(this.path, 'read').catch(couldNot(`open file "${this.path}"`))
    await file.sync().catch(couldNot(`fsync file "${this.path}"`))
    await this.#sync(this.#directory)
    await this.#sync(dataDirectory)
  }

  async #sync(directory: string): Promise<void> {
    await this.#options.files.syncDirectory(directory).catch(couldNot(`fsync file "${directory}"`))
  }

  async #read(): Promise<Map<string, string>> {
    let text: string
    try {
      text = await this.#options.files.readText(this.path)
    } catch (thrown) {
      if (isMissing(thrown)) return new Map()
      throw failure(new FileError(`read file "${this.path}"`, thrown))
    }
    const known = parse(text)
    if (known !== undefined) return known
    throw new RepositoryError('MEMORY', `file "${this.path}" is damaged`, {
      hint: 'It tells which repository is the right one. Make sure that the right one is there, then remove the file.',
    })
  }
}

/** By URL; `undefined` for what is no such file. */
function parse(text: string): Map<string, string> | undefined {
  let known: unknown
  try {
    known = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof known !== 'object' || known === null || Array.isArray(known)) return undefined
  const entries = Object.entries(known)
  return entries.every((entry): entry is [string, string] => typeof entry[1] === 'string')
    ? new Map(entries)
    : undefined
}

function failure(thrown: unknown): unknown {
  const first: unknown = thrown instanceof SuppressedError ? thrown.suppressed : thrown
  if (first instanceof RepositoryError || !(first instanceof Error)) return first
  return new RepositoryError('MEMORY', first.message, { cause: first })
}
