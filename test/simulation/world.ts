import type { LogMessage } from '../../src/contract/error-report.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { SimulatedClock } from '../../src/system/simulated-clock.ts'
import { type CutMode, type Fate, SimulatedDisk, type Step } from '../../src/system/simulated-files.ts'
import { ArchiverProcess, type Lies } from './archiver-process.ts'
import {
  archiveDirectory,
  BrokenPromise,
  dataDirectory,
  Judge,
  statusDirectory,
  walDirectory,
} from './judge.ts'
import { SimulatedServer } from './simulated-server.ts'

const stepMs = 0.1
const archivedWithinMs = 5 * 60_000 // generous: three wake-ups, with every retry, and a restart between them
const idleMs = 10 * 60_000
// A wake-up costs one scan; one that finds nothing costs no more. Twice the least, because a mark may be late.
const idleStepsMax = 4 * (idleMs / 60_000)
const stopWithinMs = 60_000

export interface WorldOptions {
  seed: number
  segmentBytes?: number
  lies?: Lies
  /** How many files the module is given at once; 1 where nothing else is said. */
  filesAtOnce?: number
  /** Told the name of a file when it is marked as done, and of one when an attempt to archive it has failed. */
  done?: (file: string) => void
  failed?: (file: string) => void
  /** More steps than any of this can take. */
  stepsMax?: number
  /** Told what happens, one line for each event. */
  trace?: (line: string) => void
}

/** One machine: a disk, a clock, a server, an archive, and an archiver that is started again whenever it ends. */
export class World {
  readonly clock = new SimulatedClock()
  readonly disk: SimulatedDisk
  readonly random: SeededRandom
  readonly server: SimulatedServer
  readonly judge: Judge
  /** What becomes of each step of the archiver. */
  fate: (step: Step) => Fate | undefined = () => undefined
  /** How long a step takes. */
  delayMs: (step: Step) => number = () => stepMs
  losesNotifications = false
  /** Where it is false, every link fails, as on FAT and on some network file systems. */
  hasHardLinks = true
  /** Called when a fate was that the archiver stops. */
  stopped: () => void = () => {}
  archiver: ArchiverProcess | undefined
  /** Steps of all archivers so far. */
  steps = 0
  #trace: ((line: string) => void) | undefined
  #lies: Lies
  #cuts = 0
  #stepsMax: number
  readonly #filesAtOnce: number
  readonly #done: (file: string) => void
  readonly #failed: (file: string) => void

  constructor(options: WorldOptions) {
    const { seed, segmentBytes = 16_384, lies = {}, stepsMax = 20_000, trace } = options
    this.#filesAtOnce = options.filesAtOnce ?? 1
    this.#done = options.done ?? (() => {})
    this.#failed = options.failed ?? (() => {})
    this.#stepsMax = stepsMax
    this.random = new SeededRandom(seed)
    this.#trace = trace
    this.#lies = lies
    this.disk = new SimulatedDisk(this.random.fork(), () => this.clock.now())
    for (const path of [dataDirectory, walDirectory, statusDirectory, archiveDirectory]) {
      this.disk.makeDirectory(path)
    }
    this.server = new SimulatedServer(this.disk, this.random.fork(), segmentBytes)
    this.judge = new Judge(this.disk, this.server.truth)
    this.server.judgedBy(this.judge)
  }

  /** How often the power was cut. */
  get cuts(): number {
    return this.#cuts
  }

  /** Runs the story to its end, or to the first broken promise. */
  async run(story: () => Promise<void>): Promise<void> {
    // Node ends a process that leaves a rejection unhandled. The rejections of a run do not outlive it.
    const onUnhandled = (thrown: unknown) =>
      this.judge.fail(`a rejection was left unhandled: ${String(thrown)}`)
    process.on('unhandledRejection', onUnhandled)
    try {
      await this.clock.run(Promise.race([story(), this.judge.broken]))
    } finally {
      process.off('unhandledRejection', onUnhandled)
    }
  }

  tell(line: string): void {
    this.#trace?.(`${(this.clock.monotonic() / 1_000).toFixed(4).padStart(10)} s  ${line}`)
  }

  startArchiver(): ArchiverProcess {
    this.tell('the archiver starts')
    const archiver = new ArchiverProcess({
      clock: this.clock,
      disk: this.disk,
      judge: this.judge,
      lies: this.#lies,
      fate: step => {
        if (++this.steps > this.#stepsMax)
          this.judge.fail('the archiver is busy although there is nothing to do')
        const fate = this.fate(step) ?? this.#fateOfLink(step)
        if (fate !== undefined) this.tell(`${told(step)} ${fateTold(fate)}`)
        return fate
      },
      delay: step => this.clock.sleep(this.delayMs(step)),
      filesAtOnce: this.#filesAtOnce,
      failed: this.#failed,
      losesNotification: () => this.losesNotifications && this.random.chance(0.5),
      stepped: (step, code) => {
        if (step.operation === 'rename' && code === undefined && step.to?.endsWith('.done'))
          this.#done(step.to.slice(statusDirectory.length + 1, -'.done'.length))
        if (this.#trace !== undefined) this.tell(`${told(step)}${code === undefined ? '' : `: ${code}`}`)
      },
      stopped: () => this.stopped(),
      log: (message: LogMessage) => this.tell(`${message.level}: ${message.errmsg}`),
    })
    this.archiver = archiver
    void archiver.exited.then(
      status => this.tell(`the archiver ended with status ${status}`),
      (thrown: unknown) => this.judge.fail(`the archiver threw ${String(thrown)}`),
    )
    return archiver
  }

  kill(): void {
    this.tell('the archiver is killed')
    this.archiver?.kill()
    this.judge.lookAtAll()
  }

  powerCut(mode?: CutMode): void {
    this.#cuts++
    this.tell('THE POWER IS CUT')
    this.disk.powerCut(mode)
    this.judge.acceptDamage()
    this.tell(`in the archive: ${this.disk.names(archiveDirectory).toSorted().join(' ') || 'nothing'}`)
    this.tell(`in archive_status: ${this.disk.names(statusDirectory).toSorted().join(' ') || 'nothing'}`)
    this.judge.lookAtAll()
  }

  /**
   * Everything works from now on. So within minutes every file has to be in the archive, then nothing may be left to
   * do or to tidy up, a stop has to be obeyed, and one more power cut may take nothing.
   */
  async comeToRest(): Promise<void> {
    this.tell('from here on nothing fails')
    this.fate = () => undefined
    this.delayMs = () => stepMs
    this.#resolveConflicts()
    this.server.checkpoint()
    await this.#archiveAll()
    this.server.checkpoint()
    if (this.judge.temporaryFiles.length > 0) {
      this.judge.fail(`temporary files were left behind: ${this.judge.temporaryFiles.join(', ')}`)
    }
    await this.#beIdle()
    await this.#stop()
    this.powerCut()
    for (const name of this.server.truth.keys()) this.judge.mustSurvive(name, 'should have been archived')
    await Promise.resolve() // so that a promise that broke last is noticed before the story ends
  }

  #resolveConflicts(): void {
    for (const name of this.judge.conflicts) {
      this.tell(`the operator removes "${name}", which is not ours, from the archive`)
      this.judge.forgetForeign(name)
      this.disk.remove(`${archiveDirectory}/${name}`)
    }
  }

  #fateOfLink(step: Step): Fate | undefined {
    return step.operation === 'link' && !this.hasHardLinks ? { kind: 'fails', code: 'EPERM' } : undefined
  }

  async #archiveAll(): Promise<void> {
    const deadline = this.clock.monotonic() + archivedWithinMs
    while (this.server.unarchived.length > 0) {
      // What was under way when a file was replaced may have brought the former one here since.
      this.#resolveConflicts()
      if (this.archiver === undefined || this.archiver.isDead || (await this.#hasExited()))
        this.startArchiver()
      if (this.clock.monotonic() > deadline) {
        throw new BrokenPromise(
          `after ${archivedWithinMs / 60_000} minutes without a fault, ${this.server.unarchived.join(', ')} had not been archived`,
        )
      }
      await this.clock.sleep(1_000)
    }
  }

  async #beIdle(): Promise<void> {
    if (this.archiver === undefined || this.archiver.isDead || (await this.#hasExited())) this.startArchiver()
    await this.clock.sleep(60_000)
    const stepsMax = this.#stepsMax
    this.#stepsMax = this.steps + idleStepsMax
    await this.clock.sleep(idleMs)
    this.#stepsMax = stepsMax
  }

  async #stop(): Promise<void> {
    const { archiver } = this
    if (archiver === undefined || (await this.#hasExited())) return
    this.tell('the archiver is asked to stop')
    archiver.stop()
    await Promise.race([archiver.exited, this.clock.sleep(stopWithinMs)])
    if (!(await this.#hasExited())) throw new BrokenPromise('the archiver did not stop when it was asked to')
  }

  async #hasExited(): Promise<boolean> {
    const { archiver } = this
    if (archiver === undefined) return true
    return Promise.race([
      archiver.exited.then(() => true),
      Promise.resolve().then(() => Promise.resolve(false)),
    ])
  }
}

function told({ number, operation, path, to, bytes }: Step): string {
  const target = to === undefined ? '' : ` -> ${to}`
  return `step ${number}: ${operation} ${path}${target}${bytes === undefined ? '' : ` (${bytes} bytes)`}`
}

function fateTold(fate: Fate): string {
  const effect = fate.took
    ? ', but took place'
    : fate.written === undefined
      ? ''
      : `, after ${fate.written} bytes`
  return fate.kind === 'fails' ? `fails: ${fate.code}${effect}` : `was the last thing it did${effect}`
}
