// WAL files that wait to be archived, made by hand: same names, same contents for whoever archives them.

import {
  chownSync,
  closeSync,
  fchownSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { unprivileged } from '../test/support/unprivileged.ts'

// A file of ext4 can have 65,000 names.
const linksPerFileMax = 50_000

// Far beyond what a benchmark's server writes: it neither removes nor overwrites files that are still to come.
const firstLog = 0x1000

export interface WaitingFilesOptions {
  dataDirectory: string
  count: number
  bytes: number
}

/** What was archived so far, told by the status files. */
export interface Drained {
  files: number
  /** From the first file to the last one, so that no start is in it. */
  ms: number
  /** Of the first file, in milliseconds since the epoch. */
  firstAt: number
}

/**
 * Files that were archived are known by their `.done`, and when, by the time of its last status change, which the
 * rename from `.ready` sets. So nothing has to watch, and every archiver is measured in the same way. The kernel
 * takes that time from its last timer tick, which makes it up to 10 ms old.
 */
export class WaitingFiles {
  readonly count: number
  readonly #walDirectory: string
  readonly #statusDirectory: string
  readonly #names: string[]

  constructor({ dataDirectory, count, bytes }: WaitingFilesOptions) {
    this.count = count
    this.#walDirectory = `${dataDirectory}/pg_wal`
    this.#statusDirectory = `${this.#walDirectory}/archive_status`
    this.#names = Array.from({ length: count }, (_, index) => segmentName(index))
    mkdirSync(this.#statusDirectory, { recursive: true })
    this.#makeFiles(bytes)
    for (const name of this.#names) makeEmpty(this.#statusFile(name, 'ready'))
    sync(this.#statusDirectory)
  }

  // Small files are names of one file: 100,000 of them then take no room. Large ones are not in memory once more
  // for each archiver in real life, so they are files of their own.
  #makeFiles(bytes: number): void {
    const contents = Buffer.alloc(bytes)
    for (let at = 0; at < bytes; at++) contents[at] = (at * 31) ^ (at >> 8)
    const linked = bytes <= 64 * 1024
    let first = ''
    this.#names.forEach((name, index) => {
      const path = `${this.#walDirectory}/${name}`
      if (linked && index % linksPerFileMax > 0) return linkSync(first, path)
      // On disk like the segments of a server, so that nobody's fsync has to wait for ours.
      writeFileSync(path, contents, { mode: 0o600, flush: true })
      if (unprivileged.uid !== undefined) chownSync(path, unprivileged.uid, unprivileged.gid)
      first = path
    })
  }

  #statusFile(name: string, status: 'ready' | 'done'): string {
    return `${this.#statusDirectory}/${name}.${status}`
  }

  /** Files are archived in the order of their names, so those that are done are the first ones. */
  doneCount(): number {
    let done = 0
    for (let notDone = this.count; done < notDone; ) {
      const middle = (done + notDone) >> 1
      if (this.#doneAt(middle) === undefined) notDone = middle
      else done = middle + 1
    }
    return done
  }

  isAllDone(): boolean {
    return this.#doneAt(this.count - 1) !== undefined
  }

  isAnyDone(): boolean {
    return this.#doneAt(0) !== undefined
  }

  drained(): Drained {
    const files = this.doneCount()
    const firstAt = this.#doneAt(0) ?? Number.NaN
    return { files, firstAt, ms: (this.#doneAt(files - 1) ?? Number.NaN) - firstAt }
  }

  #doneAt(index: number): number | undefined {
    const name = this.#names[index]
    if (name === undefined) return undefined
    return statSync(this.#statusFile(name, 'done'), { throwIfNoEntry: false })?.ctimeMs
  }

  /** Those not archived so far no longer wait: a server would not stop before they are. */
  withdraw(): void {
    for (const name of this.#names.slice(this.doneCount())) {
      rmSync(this.#statusFile(name, 'ready'), { force: true })
    }
  }

  /** With the status files of a server's own segments: it makes them anew, and none is archived in the next round. */
  [Symbol.dispose](): void {
    for (const name of this.#names) rmSync(`${this.#walDirectory}/${name}`, { force: true })
    for (const name of readdirSync(this.#statusDirectory)) unlinkSync(`${this.#statusDirectory}/${name}`)
  }
}

function segmentName(index: number): string {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `00000001${hex(firstLog + (index >> 8))}${hex(index & 0xff)}`
}

function makeEmpty(path: string): void {
  const file = openSync(path, 'wx', 0o600)
  if (unprivileged.uid !== undefined) fchownSync(file, unprivileged.uid, unprivileged.gid)
  closeSync(file)
}

/** Of a directory; file systems with a journal write down at the same time what else was made so far. */
function sync(path: string): void {
  const directory = openSync(path, 'r')
  fsyncSync(directory)
  closeSync(directory)
}
