import type { ArchiveStatus } from '../host/archive-status.ts'
import type { Clock } from '../system/clock.ts'

const readyFilesPerScan = 64 // NUM_FILES_PER_DIRECTORY_SCAN of pgarch.c

// A scan costs time in proportion to what waits. Where very many wait, and 64 are archived in less than ten times the time
// of the scan that found them, the scan serves for more than 64, so that with 100,000 waiting the loop does not spend its
// time on scans. A late file that is older then waits at most that long. With fewer a scan is quick, and one that is not
// tells of a busy machine.
const scanAmortisation = 10
const veryMany = 1_000

// More than are archived while one scan serves, and few enough to bound the memory that names take.
const namesKept = 10_000

/**
 * Which file comes next: `pgarch_readyXlog`. Names are taken from one scan of the directory in archive order, at
 * least 64 of them before the next scan; a name whose status file is gone by then is passed over.
 */
export class ReadyQueue {
  readonly #status: ArchiveStatus
  readonly #clock: Clock
  readonly #ignored: (statusFile: string) => void
  /** In reverse order, so that taking the next one is a pop. */
  #names: string[] = []
  #taken = 0
  #rescanAt = 0
  #fresh = false

  constructor(status: ArchiveStatus, clock: Clock, ignored: (statusFile: string) => void) {
    this.#status = status
    this.#clock = clock
    this.#ignored = ignored
  }

  /** Makes the next call of `next` scan: at the start of a cycle, and when a timeline history file came. */
  forget(): void {
    this.#names = []
  }

  async next(): Promise<string | undefined> {
    for (;;) {
      if (this.#isUsedUp()) await this.#scan()
      const name = this.#names.pop()
      if (name === undefined) return undefined
      this.#taken++
      // What the scan has just seen needs no second look.
      const fresh = this.#fresh
      this.#fresh = false
      if (fresh || (await this.#status.isReady(name))) return name
    }
  }

  #isUsedUp(): boolean {
    if (this.#names.length === 0) return true
    return this.#taken >= readyFilesPerScan && this.#clock.monotonic() >= this.#rescanAt
  }

  async #scan(): Promise<void> {
    const start = this.#clock.monotonic()
    const { first, count } = await this.#status.ready(namesKept, this.#ignored)
    this.#names = first.reverse()
    this.#taken = 0
    this.#fresh = true
    const end = this.#clock.monotonic()
    this.#rescanAt = count > veryMany ? end + scanAmortisation * (end - start) : end
  }
}
