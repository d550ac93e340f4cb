import type { SimulatedDisk, Step } from '../../src/system/simulated-files.ts'

export const dataDirectory = '/data'
export const walDirectory = '/data/pg_wal'
export const statusDirectory = '/data/pg_wal/archive_status'
export const archiveDirectory = '/archive'

/** What the archiver promised and did not keep. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise'
}

/**
 * Watches one run from outside and holds the archiver to its promises:
 *
 * - A file that was acknowledged, or marked as done, survives a power cut in the archive, byte for byte.
 * - A name in the archive stands for all of its file's bytes from the moment that it can be seen, and for ever.
 * - A file of other content that was there before stays, and the file of that name is never acknowledged.
 * - What was needed on the way is gone for good when a file is acknowledged.
 */
export class Judge {
  /** Rejects with the first broken promise. */
  readonly broken: Promise<never>
  readonly acknowledged = new Set<string>()
  readonly #disk: SimulatedDisk
  /** Every file that the server has finished, as it was. */
  readonly #truth: ReadonlyMap<string, Uint8Array>
  readonly #foreign = new Map<string, Uint8Array>()
  /** What the server had under a name before it replaced it, unarchived as far as it knew. */
  readonly #former = new Map<string, Uint8Array[]>()
  readonly #seen = new Set<string>()
  /** Temporary files that could not be removed when the archiver tried. */
  readonly #stubborn = new Set<string>()
  #break: (broken: BrokenPromise) => void = () => {}

  constructor(disk: SimulatedDisk, truth: ReadonlyMap<string, Uint8Array>) {
    this.#disk = disk
    this.#truth = truth
    this.broken = new Promise((_resolve, reject) => {
      this.#break = reject
    })
    this.broken.catch(() => {}) // whoever waits for it is told; until then it is not unhandled
  }

  fail(message: string): void {
    this.#break(new BrokenPromise(message))
  }

  /** Somebody else put a file of this name into the archive, before the archiver could. */
  expectForeign(name: string, content: Uint8Array): void {
    this.#foreign.set(name, content)
  }

  /**
   * The server has another file under this name, and has not been told of any success for it. Who read the former one
   * before that may have archived it; but nobody may say that the new one is archived then.
   */
  replaced(name: string, former: Uint8Array): void {
    this.#former.set(name, [...(this.#former.get(name) ?? []), former])
    this.acknowledged.delete(name)
  }

  /** The operator has taken it away again. */
  forgetForeign(name: string): void {
    this.#foreign.delete(name)
    this.#seen.delete(name)
  }

  /** Names under which the archive holds something else than the server's file. */
  get conflicts(): string[] {
    const foreign = [...this.#foreign.keys()].filter(name => !this.#isTruth(name, this.#foreign.get(name)))
    const former = [...this.#former.keys()].filter(name => {
      const content = this.#disk.content(`${archiveDirectory}/${name}`)
      return content !== undefined && !this.#foreign.has(name) && !this.#isTruth(name, content)
    })
    return [...foreign, ...former]
  }

  /** The module has said `true`. */
  acknowledge(name: string): void {
    this.acknowledged.add(name)
    this.mustSurvive(name, 'was acknowledged')
    for (const possible of this.#disk.possibleNames(archiveDirectory)) {
      if (!isTemporary(possible) || !possible.includes(name) || this.#stubborn.has(possible)) continue
      if (finalNameOf(possible) === name)
        this.fail(`"${name}" was acknowledged, but "${possible}" may remain`)
    }
  }

  /** The server is about to let go of its copy. */
  removeSource(name: string): void {
    this.mustSurvive(name, 'was removed from pg_wal')
  }

  mustSurvive(name: string, because: string): void {
    const stored = this.#disk.surviving(`${archiveDirectory}/${name}`)
    if (this.#isTruth(name, stored)) return
    this.fail(
      `"${name}" ${because}, but a power cut ${stored === undefined ? 'could take it' : 'would spoil it'}`,
    )
  }

  /** Called after every step of the archiver, whatever came of it. */
  look(step: Step, code: string | undefined): void {
    if (step.operation === 'unlink' && step.path.startsWith(archiveDirectory)) {
      const name = step.path.slice(archiveDirectory.length + 1)
      if (code === undefined) this.#stubborn.delete(name)
      else if (code !== 'ENOENT') this.#stubborn.add(name)
    }
    for (const path of [step.path, step.to]) {
      if (path?.startsWith(`${archiveDirectory}/`)) this.#inspect(path.slice(archiveDirectory.length + 1))
    }
    if (step.operation === 'rename' && step.to?.endsWith('.done')) {
      const name = step.to.slice(statusDirectory.length + 1, -'.done'.length)
      if (!this.acknowledged.has(name))
        this.fail(`"${name}" was marked as done without having been acknowledged`)
    }
  }

  /** Called after every kill and power cut, and at the end. */
  lookAtAll(): void {
    for (const name of this.#seen) {
      if (this.#disk.content(`${archiveDirectory}/${name}`) === undefined) this.#seen.delete(name)
    }
    for (const name of this.#disk.names(archiveDirectory)) this.#inspect(name)
    for (const name of this.acknowledged) this.mustSurvive(name, 'was acknowledged')
  }

  /**
   * What is left of unfinished attempts. When a file that was archived before is submitted again, and the attempt is
   * cut off, and the server then forgets that it wanted this, nobody comes to tidy up; that is not counted.
   */
  get temporaryFiles(): string[] {
    const temporary = this.#disk.names(archiveDirectory).filter(isTemporary)
    return temporary.filter(name => {
      const isSubmitted = this.#disk.content(`${walDirectory}/${finalNameOf(name)}`) !== undefined
      return !this.#stubborn.has(name) && (isSubmitted || !this.acknowledged.has(finalNameOf(name)))
    })
  }

  /** A failed sync or a power cut, and not the archiver, has changed what others had written and not synced. */
  acceptDamage(): void {
    for (const name of this.#foreign.keys()) {
      const content = this.#disk.content(`${archiveDirectory}/${name}`)
      if (content === undefined) this.forgetForeign(name)
      else this.#foreign.set(name, content)
    }
  }

  #inspect(name: string): void {
    if (isTemporary(name)) return
    const content = this.#disk.content(`${archiveDirectory}/${name}`)
    const foreign = this.#foreign.get(name)
    if (foreign !== undefined) {
      if (content === undefined || !equal(content, foreign))
        this.fail(`the file of others "${name}" was touched`)
    } else if (content === undefined) {
      if (this.#seen.has(name)) this.fail(`"${name}" was removed from the archive`)
    } else if (!this.#isTruth(name, content) && !this.#wasTruth(name, content)) {
      this.fail(
        `"${name}" is in the archive, but with ${content.length} bytes that are not those of the file`,
      )
    }
    if (content !== undefined) this.#seen.add(name)
  }

  #wasTruth(name: string, content: Uint8Array): boolean {
    return this.#former.get(name)?.some(former => equal(former, content)) === true
  }

  #isTruth(name: string, content: Uint8Array | undefined): boolean {
    const truth = this.#truth.get(name)
    return truth !== undefined && content !== undefined && equal(content, truth)
  }
}

// Where there are no hard links: NAME.lock.TEMPORARY
const lockInfix = '.lock.'

/** Does somebody hold the lock for this name? */
export function isLocked(disk: SimulatedDisk, directory: string, name: string): boolean {
  return disk.names(directory).some(each => each.startsWith(`${name}${lockInfix}`))
}

export function isTemporary(name: string): boolean {
  return name.startsWith('archtemp.') || name.includes(lockInfix)
}

/** What a temporary file or a lock is for. */
function finalNameOf(temporary: string): string {
  const lock = temporary.indexOf(lockInfix)
  if (lock >= 0) return temporary.slice(0, lock)
  return temporary.slice('archtemp.'.length, temporary.lastIndexOf('.'))
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
