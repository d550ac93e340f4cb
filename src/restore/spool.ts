import { createHash } from 'node:crypto'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import type { Files } from '../system/files.ts'
import { isRunning, type ProcessIdentity, parseIdentity, printIdentity } from '../system/process-identity.ts'
import { couldNot, errnoCode } from '../system/system-error.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import { temporaryPrefix } from './destination.ts'
import { removeIfThere, writeWhole } from './whole-file.ts'

const questionPrefix = 'question.'
const answerPrefix = 'answer.'

/**
 * Where files are kept that were fetched before the server has asked for them.
 *
 * | name            | what it is                                                                                  |
 * |-----------------|---------------------------------------------------------------------------------------------|
 * | NAME            | a segment, complete                                                                         |
 * | NAME.verified   | what its fetcher knows of it: on the first line the start of the machine and the identity of the file, by which the launcher trusts it; on the second its digest and where it is from |
 * | NAME.part       | a segment that is being fetched                                                             |
 * | state           | the fetcher that is at work, and for whom                                                   |
 * | started         | a fetcher that was started, and may not have got there yet                                  |
 * | position        | the last segment that Node has delivered                                                    |
 * | question.ID     | the name of a file that a launcher wants; it has made up ID, and waits                      |
 * | answer.ID       | what the fetcher has found out about it since, one of `Answer`                              |
 * | lock            | held by the fetcher                                                                         |
 *
 * bin/pgarchivist reads `state`, `started`, `NAME.verified` and answers, and writes questions.
 */
export class Spool {
  readonly directory: string
  readonly mode: number
  readonly #files: Files

  constructor(files: Files, directory: string, mode: number) {
    this.#files = files
    this.directory = directory
    this.mode = mode
  }

  path(name: string): string {
    return `${this.directory}/${name}`
  }

  verifiedPath(name: string): string {
    return this.path(`${name}.verified`)
  }

  partPath(name: string): string {
    return this.path(`${name}.part`)
  }

  get lockPath(): string {
    return this.path('lock')
  }

  /** Makes it, and refuses one in which others could put files. */
  async open(uid: number | undefined): Promise<void> {
    const { directory } = this
    await this.#files.makeDirectory(directory, this.mode === 0o640 ? 0o750 : 0o700).catch(thrown => {
      if (errnoCode(thrown) !== 'EEXIST') couldNot(`create directory "${directory}"`)(thrown)
    })
    const status = await this.#files.stat(directory).catch(couldNot(`stat file "${directory}"`))
    if (status.kind === 'directory' && status.uid === uid && (status.mode & 0o022) === 0) return
    throw new Error(`spool directory "${directory}" is not one that belongs to this user alone`)
  }

  async readState(): Promise<FetcherState | undefined> {
    const [first = '', , source = ''] = (await this.#read('state')).split('\n')
    const fetcher = parseIdentity(first)
    return fetcher && { fetcher, source }
  }

  /** `options` are those of the command, which the launcher compares with its own. */
  async writeState(
    fetcher: ProcessIdentity,
    { handOver, options, source }: { handOver: 'rename' | 'copy'; options: string; source: string },
  ): Promise<void> {
    await this.#write('state', `${printIdentity(fetcher)} ${handOver}\n${options}\n${source}\n`, fetcher.pid)
  }

  async readStarted(): Promise<ProcessIdentity | undefined> {
    return parseIdentity((await this.#read('started')).trim())
  }

  async writeStarted(fetcher: ProcessIdentity): Promise<void> {
    await this.#write('started', `${printIdentity(fetcher)}\n`, fetcher.pid)
  }

  /** Is there a fetcher, or will there be one in a moment? */
  async hasFetcher(): Promise<boolean> {
    for (const fetcher of [(await this.readState())?.fetcher, await this.readStarted()]) {
      if (fetcher !== undefined && (await isRunning(this.#files, fetcher))) return true
    }
    return false
  }

  /** `mark` tells one request from the next one for the same name. */
  async writePosition({ name, segmentBytes }: Delivered, mark: string, pid: number): Promise<void> {
    await this.#write('position', `${name} ${segmentBytes} ${mark}\n`, pid)
  }

  async removePosition(): Promise<void> {
    await removeIfThere(this.#files, this.path('position'))
  }

  async readPosition(): Promise<(Delivered & { text: string }) | undefined> {
    const text = await this.#read('position')
    const [name = '', size = ''] = text.split(' ')
    const segmentBytes = Number(size)
    return walFileKind(name) === 'segment' && segmentBytes > 0 ? { name, segmentBytes, text } : undefined
  }

  /** Those that nobody has taken yet. */
  async questions(): Promise<Question[]> {
    const questions: Question[] = []
    for (const file of await this.#files.list(this.directory).catch(() => [])) {
      if (!file.startsWith(questionPrefix)) continue
      const [name = '', ...rest] = (await this.#read(file)).split('\n')
      // One that is being written has no end yet.
      if (rest.length > 0) questions.push({ id: file.slice(questionPrefix.length), name })
    }
    return questions
  }

  /** The launcher sees by that, too, that somebody looks after it. */
  async takeQuestion({ id }: Question): Promise<void> {
    await removeIfThere(this.#files, this.path(`${questionPrefix}${id}`))
  }

  async answer({ id }: Question, answer: Answer, pid: number): Promise<void> {
    await this.#write(`${answerPrefix}${id}`, `${answer}\n`, pid)
  }

  /** Nobody waits for one any more when the next question comes. */
  async removeAnswers(): Promise<void> {
    for (const file of await this.#files.list(this.directory)) {
      if (file.startsWith(answerPrefix)) await removeIfThere(this.#files, this.path(file))
    }
  }

  async readVerified(name: string): Promise<Verified | undefined> {
    const [identity = '', second = ''] = (await this.#read(`${name}.verified`)).split('\n')
    const [digest = '', source = ''] = second.split(' ')
    return digest === '' ? undefined : { identity, digest, source }
  }

  async writeVerified(name: string, { identity, digest, source }: Verified, pid: number): Promise<void> {
    await this.#write(`${name}.verified`, `${identity}\n${digest} ${source}\n`, pid)
  }

  /** Changes with whatever is done to the file; in the form of `stat -c '%d %i %s %.9Y %.9Z'`, which the launcher has. */
  async fileIdentity(boot: string, name: string): Promise<string> {
    const { device, inode, size, modifiedNs, changedNs } = await this.#files.stat(this.path(name))
    return [boot, device, inode, size, seconds(modifiedNs), seconds(changedNs)].join(' ')
  }

  async #read(name: string): Promise<string> {
    return await this.#files.readText(this.path(name)).catch(() => '')
  }

  async #write(name: string, text: string, pid: number): Promise<void> {
    const temporaryPath = this.path(`${name}.${pid}.tmp`)
    await writeWhole(this.#files, { path: this.path(name), temporaryPath, mode: 0o600 }, async append => {
      await append(Buffer.from(text))
      return true
    })
  }
}

export interface FetcherState {
  fetcher: ProcessIdentity
  source: string
}

/** A segment that the server got, and its size, which all of its cluster have. */
export interface Delivered {
  name: string
  segmentBytes: number
}

/** What a launcher wants to know: is there this file, and where? */
export interface Question {
  id: string
  name: string
}

/**
 * - `fetched`: it is in the spool, and verified.
 * - `not-there`: it is provably not in the repository, which was asked after the question had come.
 * - `unknown`: somebody else has to look, and to say what is wrong.
 */
export type Answer = 'fetched' | 'not-there' | 'unknown'

export interface Verified {
  identity: string
  digest: string
  /** Where it is from, see `sourceMark`. */
  source: string
}

/** Stands for the place that files come from, in few letters. */
export function sourceMark(repositories: readonly RepositoryUrl[], systemIdentifier: string): string {
  const place = JSON.stringify([repositories, systemIdentifier])
  return createHash('sha256').update(place).digest('hex').slice(0, 32)
}

/**
 * Beside the WAL it needs no setting and no permission that the server lacks, and handing over is one rename. A directory
 * that was set may serve several clusters, so each has one of its own in it.
 */
export function spoolPath(
  dataDirectory: string,
  walDirectory: string,
  spoolDirectory: string | undefined,
): string {
  if (spoolDirectory === undefined) return `${walDirectory}/${temporaryPrefix}`
  const cluster = createHash('sha256').update(dataDirectory).digest('hex').slice(0, 16)
  return `${spoolDirectory}/pgarchivist-${cluster}`
}

function seconds(ns: bigint): string {
  return `${ns / 1_000_000_000n}.${(ns % 1_000_000_000n).toString().padStart(9, '0')}`
}
