import { type ArchiverStatistics, countArchived, countFailed, newStatistics } from '../archiver/statistics.ts'
import type { Log } from '../contract/error-report.ts'
import { systemErrorText } from '../system/system-error.ts'
import type { StateDirectory } from './state-directory.ts'

const saveIntervalMs = 1_000

/** Counts attempts, and writes the counts when there is time for it, or a second after they changed. */
export class StatisticsKeeper {
  readonly #directory: StateDirectory
  readonly #statistics: ArchiverStatistics
  readonly #log: Log
  #timer: NodeJS.Timeout | undefined
  #saving: Promise<void> = Promise.resolve()
  #isChanged = false
  #hasFailed = false

  private constructor(directory: StateDirectory, statistics: ArchiverStatistics, log: Log) {
    this.#directory = directory
    this.#statistics = statistics
    this.#log = log
  }

  static async open(directory: StateDirectory, log: Log): Promise<StatisticsKeeper> {
    const statistics = (await directory.readStatistics()) ?? newStatistics(Date.now())
    return new StatisticsKeeper(directory, statistics, log)
  }

  archived(file: string): void {
    countArchived(this.#statistics, file, Date.now())
    this.#saveSoon()
  }

  failed(file: string): void {
    countFailed(this.#statistics, file, Date.now())
    this.#saveSoon()
  }

  /** Resolves when what was counted so far is written. Never rejects: statistics must not stop archiving. */
  save(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#saving = this.#saving.then(() => this.#write())
    return this.#saving
  }

  #saveSoon(): void {
    this.#isChanged = true
    this.#timer ??= setTimeout(() => void this.save(), saveIntervalMs)
  }

  async #write(): Promise<void> {
    if (!this.#isChanged) return
    this.#isChanged = false
    try {
      await this.#directory.writeStatistics(this.#statistics)
      this.#hasFailed = false
    } catch (thrown) {
      // Told once, not each second for as long as a disk is full.
      if (!this.#hasFailed) {
        const errmsg = `could not write statistics file "${this.#directory.statisticsPath}": ${systemErrorText(thrown)}`
        this.#log({ level: 'WARNING', errmsg })
      }
      this.#hasFailed = true
    }
  }
}
