import type { SeededRandom } from '../../src/system/seeded-random.ts'
import { pageBytes, type SimulatedDisk } from '../../src/system/simulated-files.ts'
import { archiveDirectory, type Judge, statusDirectory, walDirectory } from './judge.ts'

const segmentsKept = 2 // what a server needs for its own recovery, and never removes

/**
 * As much of a PostgreSQL server as an archiver can see: it finishes WAL files, marks them as ready, and lets go of
 * what is marked as done. It syncs what PostgreSQL syncs: the content of a segment before `.ready`, its name, and
 * its removal; but no status file, so that after a power cut marks are missing or back again.
 */
export class SimulatedServer {
  /** Every file that was finished, as it was. */
  readonly truth = new Map<string, Uint8Array>()
  readonly #disk: SimulatedDisk
  readonly #random: SeededRandom
  readonly #segmentBytes: number
  #judge: Judge | undefined
  #timeline = 1
  #segment = 1
  #recycled = new Set<string>()

  constructor(disk: SimulatedDisk, random: SeededRandom, segmentBytes: number) {
    this.#disk = disk
    this.#random = random
    this.#segmentBytes = segmentBytes
  }

  judgedBy(judge: Judge): void {
    this.#judge = judge
  }

  get nextSegment(): string {
    return segmentName(this.#timeline, this.#segment)
  }

  /** What the next segment will hold is known before, so that others can have it in the archive already. */
  finishSegment(content = walContent(this.#random, this.#segmentBytes), isNotified = true): string {
    const name = this.nextSegment
    this.#segment++
    this.#recycled.delete(name)
    this.#finish(name, content)
    if (isNotified) this.notify(name)
    return name
  }

  finishBackupHistory(): string {
    const name = `${segmentName(this.#timeline, Math.max(1, this.#segment - 1))}.00000028.backup`
    if (!this.truth.has(name)) this.#finish(name, new TextEncoder().encode('START WAL LOCATION: 0/2000028\n'))
    this.notify(name)
    return name
  }

  /** The end of recovery: the half-written segment of the old timeline, and the history of the new one. */
  switchTimeline(): void {
    const partial = `${this.nextSegment}.partial`
    this.#finish(partial, walContent(this.#random, this.#segmentBytes))
    this.notify(partial)
    this.#timeline++
    const history = `${hex(this.#timeline)}.history`
    this.#finish(history, new TextEncoder().encode(`${this.#timeline - 1}\t0/3000000\tno recovery target\n`))
    // Nothing in the server would notice that this mark is missing, so it makes no sense to lose it here.
    this.#disk.place(`${statusDirectory}/${history}.ready`, '')
  }

  /** A mark without a file, as when the server crashed between removing the one and the other. */
  leaveOrphan(): void {
    this.#disk.scribble(`${statusDirectory}/${segmentName(0xff, this.#random.integer(1, 1_000))}.ready`, '')
  }

  /** Files that are nobody's business. */
  leaveJunk(): void {
    this.#disk.scribble(`${statusDirectory}/${this.#random.pick(['x.ready', 'notes.txt', 'core'])}`, '')
  }

  /** Somebody has a file archived once more. */
  archiveAgain(): void {
    const done = this.#statusFiles('.done').filter(name => this.#isPresent(name))
    if (done.length === 0) return
    const name = this.#random.pick(done)
    this.#disk.drop(`${statusDirectory}/${name}.done`)
    this.notify(name)
  }

  /**
   * Another file takes the place of one that waits, by a rename as when one is recycled, and keeps its size: after a
   * crash a server may use a name again whose file it has not been told to be archived. But not of one that the
   * archiver works at.
   */
  replaceWaiting(requested: string | undefined): string | undefined {
    const replaceable = this.unarchived.filter(name => name !== requested)
    const waiting = replaceable.filter(
      name => /^[0-9A-F]{24}$/.test(name) && !this.#judge?.acknowledged.has(name),
    )
    if (waiting.length === 0) return undefined
    const name = this.#random.pick(waiting)
    const former = this.truth.get(name) ?? new Uint8Array()
    const content = walContent(this.#random, former.length)
    this.#judge?.replaced(name, former)
    this.truth.set(name, content)
    this.#disk.place(`${walDirectory}/${name}`, content)
    return name
  }

  /** A checkpoint removes or recycles what is done, and repairs marks that a crash has lost. */
  checkpoint(): void {
    for (const name of this.#files()) {
      if (name.endsWith('.history') || this.#isKept(name)) continue
      if (this.#isDone(name)) this.#letGo(name)
    }
    for (const name of this.#files()) {
      if (!this.#isDone(name) && !this.#isReady(name)) this.notify(name)
    }
  }

  /** Files that the server waits for. */
  get unarchived(): string[] {
    return this.#files().filter(name => !this.#isDone(name))
  }

  notify(name: string): void {
    if (!this.#isReady(name)) this.#disk.scribble(`${statusDirectory}/${name}.ready`, '')
  }

  #finish(name: string, content: Uint8Array): void {
    this.truth.set(name, content)
    this.#disk.place(`${walDirectory}/${name}`, content)
  }

  #letGo(name: string): void {
    this.#judge?.removeSource(name)
    const future = segmentName(this.#timeline, this.#segment + this.#random.integer(0, 4))
    const isFree = !this.truth.has(future) && this.#disk.content(`${walDirectory}/${future}`) === undefined
    if (/^[0-9A-F]{24}$/.test(name) && isFree && this.#random.chance(0.5)) {
      this.#recycled.add(future)
      this.#disk.place(`${walDirectory}/${future}`, this.truth.get(name) ?? '')
    }
    this.#disk.remove(`${walDirectory}/${name}`)
    this.#disk.drop(`${statusDirectory}/${name}.done`)
    this.#disk.drop(`${statusDirectory}/${name}.ready`)
  }

  #files(): string[] {
    return this.#disk.names(walDirectory).filter(name => this.truth.has(name) && !this.#recycled.has(name))
  }

  #isKept(name: string): boolean {
    return name.slice(0, 24) > segmentName(this.#timeline, this.#segment - 1 - segmentsKept)
  }

  #isPresent(name: string): boolean {
    return this.#disk.content(`${walDirectory}/${name}`) !== undefined && this.truth.has(name)
  }

  #isDone(name: string): boolean {
    return this.#disk.content(`${statusDirectory}/${name}.done`) !== undefined
  }

  #isReady(name: string): boolean {
    return this.#disk.content(`${statusDirectory}/${name}.ready`) !== undefined
  }

  #statusFiles(suffix: string): string[] {
    const names = this.#disk.names(statusDirectory).filter(name => name.endsWith(suffix))
    return names.map(name => name.slice(0, -suffix.length))
  }
}

/** Puts another's file into the archive, or the same file by another hand. */
export function placeInArchive(disk: SimulatedDisk, judge: Judge, name: string, content: Uint8Array): void {
  judge.expectForeign(name, content)
  disk.place(`${archiveDirectory}/${name}`, content)
}

/** No two files and no two pages are alike, and most of it costs nothing to make. */
export function walContent(random: SeededRandom, bytes: number): Uint8Array {
  const content = new Uint8Array(bytes)
  for (let page = 0; page < bytes; page += pageBytes) {
    content.fill(random.integer(1, 255), page)
    content.set(random.bytes(16), page)
  }
  return content
}

function segmentName(timeline: number, segment: number): string {
  return `${hex(timeline)}${hex(0)}${hex(segment)}`
}

function hex(number: number): string {
  return number.toString(16).toUpperCase().padStart(8, '0')
}
