import { lchown, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { type ArchiverStatistics, parseStatistics } from '../archiver/statistics.ts'
import { couldNot, errnoCode } from '../system/system-error.ts'

/**
 * `DIR/pgarchivist`, where an archiver keeps what belongs to a data directory: who holds it, and statistics. Nothing
 * in it is needed to archive or to restore. It belongs to the owner of the data directory, also when root made it.
 */
export class StateDirectory {
  readonly path: string
  readonly #dataDirectory: string

  constructor(dataDirectory: string) {
    this.#dataDirectory = dataDirectory
    this.path = `${dataDirectory}/pgarchivist`
  }

  get lockPath(): string {
    return `${this.path}/archiver.lock`
  }

  get statisticsPath(): string {
    return `${this.path}/archiver.json`
  }

  async create(): Promise<void> {
    try {
      await mkdir(this.path, { mode: 0o700 })
      await this.giveToOwner(this.path)
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EEXIST') couldNot(`create directory "${this.path}"`)(thrown)
    }
  }

  /** What a process of root makes here would otherwise be unreadable for the user whose directory it is. */
  async giveToOwner(path: string): Promise<void> {
    if (process.geteuid?.() !== 0) return
    const { uid, gid } = await stat(this.#dataDirectory)
    await lchown(path, uid, gid)
  }

  /** `undefined` when there are none that can be read. */
  async readStatistics(): Promise<ArchiverStatistics | undefined> {
    const text = await readFile(this.statisticsPath, 'utf8').catch(() => '')
    return parseStatistics(text)
  }

  /** Not made durable: a crash may bring back older statistics or none, and nothing else. */
  async writeStatistics(statistics: ArchiverStatistics): Promise<void> {
    const temporary = `${this.statisticsPath}.tmp`
    // Made anew, because root must not follow a link that the owner of the directory has put there.
    await rm(temporary, { force: true })
    await writeFile(temporary, `${JSON.stringify(statistics)}\n`, { mode: 0o600, flag: 'wx' })
    await this.giveToOwner(temporary)
    await rename(temporary, this.statisticsPath)
  }
}
