import { xxh3 } from '../repository/codec/xxhash.ts'
import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import { type SegmentPosition, segmentName, segmentPosition } from '../wal/segment-position.ts'
import { isTimelineHistory, walFileKind } from '../wal/wal-file-name.ts'
import { type FetchSource, fetchWhole } from './archive-get.ts'
import type { ProcessIdentity } from './process-identity.ts'
import type { Recovery } from './recovery.ts'
import type { Spool } from './spool.ts'
import { historyOf, nextSegment, type TimelineBegin, timelineBegins } from './timeline-history.ts'
import { removeIfThere } from './whole-file.ts'

/** After this long without a segment taken it is not worth to be there. */
const idleMs = 60_000
/** How often it is looked whether settings or timelines have changed; whatever else happens is noticed at once. */
const lookIntervalMs = 1_000
/** How many segments are fetched ahead at first. A recovery that is slow, or soon over, shall not fetch much in vain. */
const firstWindow = 8
/** By how many more with each one that is taken. */
const windowGrowth = 2
/** What the disk keeps free: a share of it, and room for the server to go on. */
const freeShareMin = 0.05
const freeSegmentsMin = 4

export type FetcherEnd = 'idle' | 'recovery is over' | 'settings have changed' | 'server is gone'

export interface FetcherOptions {
  files: Files
  clock: Clock
  spool: Spool
  self: ProcessIdentity
  source: FetchSource
  /** Stands for the source, see `sourceMark`. */
  sourceMark: string
  /** Where the server keeps timeline histories that it has restored. */
  walDirectory: string
  segmentBytes: number
  /** The segment that the server got last. */
  position: string
  filesAtOnce: number
  limitBytes: number
  recovery: Pick<Recovery, 'look'>
  haveSettingsChanged: () => Promise<boolean>
  diskSpace: (path: string) => Promise<{ free: number; total: number }>
  /** Calls back when something in one of these directories has changed, or may have. */
  watched: readonly string[]
}

/**
 * Fetches the segments that a recovery is going to ask for, in a window that slides on with every one that is taken.
 *
 * It knows the way from the last segment that was asked for: the next number, on the newest timeline that the server
 * has a history of. When something else is asked for, it goes on from there. A segment that is not in the
 * repository ends the window, one that cannot be fetched is left out. Both are tried again only when the server has got
 * that far by itself, so that nobody is ever told from here that something is not there.
 */
export class Fetcher {
  readonly #options: FetcherOptions
  #position: SegmentPosition
  #positionText: string | undefined
  #window = firstWindow
  #lastTakenMs: number
  readonly #ready = new Set<string>()
  readonly #fetching = new Map<string, Promise<void>>()
  readonly #missing = new Set<string>()
  readonly #failed = new Set<string>()
  /** Was the last one that was asked for not there? Then its followers hardly are. */
  #isAtEnd = false
  #histories: TimelineBegin[][] = []
  readonly #abort = new AbortController()
  #wake: () => void = () => {}

  constructor(options: FetcherOptions) {
    this.#options = options
    this.#position = segmentPosition(options.position, options.segmentBytes)
    this.#lastTakenMs = options.clock.monotonic()
  }

  /** `prepared` is called when the launcher may take files. */
  async run(prepared: () => Promise<void>): Promise<FetcherEnd> {
    const { files, watched } = this.#options
    await this.#keepWhatIsGood()
    await prepared()
    const watches = watched.map(path => files.watch(path, () => this.#wake()))
    try {
      const end = await this.#work()
      this.#abort.abort()
      // Whoever owns the data directory now may have listed it already: nothing is touched any more.
      if (end === 'server is gone') return end
      await Promise.allSettled(this.#fetching.values())
      await this.#clear()
      return end
    } finally {
      for (const watch of watches) watch.close()
    }
  }

  async #work(): Promise<FetcherEnd> {
    const { clock, recovery } = this.#options
    let lookedMs = Number.NEGATIVE_INFINITY
    for (;;) {
      // From here on, so that nothing that happens meanwhile is missed.
      const woken = new Promise<void>(resolve => (this.#wake = resolve))
      const state = await recovery.look()
      if (state !== 'goes on') return state === 'gone' ? 'server is gone' : 'recovery is over'
      const now = clock.monotonic()
      if (now - lookedMs >= lookIntervalMs) {
        lookedMs = now
        if (await this.#options.haveSettingsChanged()) return 'settings have changed'
        await this.#readHistories()
      }
      await this.#follow()
      if (clock.monotonic() - this.#lastTakenMs > idleMs) return 'idle'
      await this.#fetchAhead()
      await this.#wait(woken)
    }
  }

  async #wait(woken: Promise<void>): Promise<void> {
    const timer = new AbortController()
    await Promise.race([woken, this.#options.clock.sleep(lookIntervalMs, timer.signal)])
    timer.abort()
  }

  /** What another fetcher has left and is right is used; the rest goes. */
  async #keepWhatIsGood(): Promise<void> {
    const { files, spool, self, sourceMark } = this.#options
    for (const name of await files.list(spool.directory)) {
      if (walFileKind(name) !== 'segment') continue
      const verified = await spool.readVerified(name)
      const identity = await spool.fileIdentity(self.boot, name).catch(() => undefined)
      if (verified?.source === sourceMark && verified.identity === identity) this.#ready.add(name)
    }
    for (const name of await files.list(spool.directory)) {
      const isKept =
        name === 'lock' ||
        name === 'started' ||
        name === 'position' ||
        this.#ready.has(name.replace(/\.verified$/, ''))
      if (!isKept) await removeIfThere(files, spool.path(name))
    }
  }

  async #clear(): Promise<void> {
    const { files, spool } = this.#options
    const names = await files.list(spool.directory).catch(() => [])
    // The state first: from then on nobody relies on the rest.
    names.sort((a, b) => Number(b === 'state') - Number(a === 'state'))
    for (const name of names) {
      if (name !== 'lock') await removeIfThere(files, spool.path(name)).catch(() => undefined)
    }
  }

  async #readHistories(): Promise<void> {
    const { files, walDirectory } = this.#options
    const names: string[] = []
    await files
      .visit(walDirectory, name => {
        if (isTimelineHistory(name)) names.push(name)
      })
      .catch(() => undefined)
    const histories: TimelineBegin[][] = []
    for (const name of names) {
      const text = await files.readText(`${walDirectory}/${name}`).catch(() => '')
      const history = timelineBegins(Number.parseInt(name, 16), text)
      if (history !== undefined) histories.push(history)
    }
    this.#histories = histories
  }

  /** Finds out what the server has got since the last time. */
  async #follow(): Promise<void> {
    const { files, clock, spool, segmentBytes } = this.#options
    // Before the look: what becomes ready during it was not taken because it was not seen.
    const before = [...this.#ready]
    const there = new Set(await files.list(spool.directory))
    const got: SegmentPosition[] = []
    for (const name of before) {
      if (there.has(name)) continue
      this.#ready.delete(name)
      await removeIfThere(files, spool.verifiedPath(name))
      got.push(segmentPosition(name, segmentBytes))
    }
    const position = await spool.readPosition()
    if (position !== undefined && position.text !== this.#positionText) {
      this.#positionText = position.text
      this.#missing.clear()
      this.#failed.clear()
      got.push(segmentPosition(position.name, segmentBytes))
    }
    if (got.length === 0) return
    this.#position = got.reduce((last, each) => (each.segment > last.segment ? each : last))
    this.#lastTakenMs = clock.monotonic()
    this.#window += got.length * windowGrowth
  }

  async #fetchAhead(): Promise<void> {
    const { files, spool, limitBytes, segmentBytes, filesAtOnce } = this.#options
    const names = this.#ahead(Math.min(this.#window, Math.floor(limitBytes / segmentBytes)))
    for (const name of this.#ready) {
      if (names.includes(name)) continue
      this.#ready.delete(name)
      await removeIfThere(files, spool.path(name))
      await removeIfThere(files, spool.verifiedPath(name))
    }
    for (const name of names) {
      if (this.#ready.has(name) || this.#fetching.has(name) || this.#failed.has(name)) continue
      // Where as many have failed it is not a matter of single files.
      if (this.#missing.has(name) || this.#failed.size >= filesAtOnce) return
      if (this.#fetching.size >= (this.#isAtEnd ? 1 : filesAtOnce)) return
      if ((this.#ready.size + this.#fetching.size + 1) * segmentBytes > limitBytes) return
      if (!(await this.#hasRoom())) return
      this.#fetching.set(
        name,
        this.#fetch(name).finally(() => {
          this.#fetching.delete(name)
          this.#wake()
        }),
      )
    }
  }

  /** The names that the server is going to ask for. */
  #ahead(count: number): string[] {
    const { segmentBytes } = this.#options
    const names: string[] = []
    for (let position = this.#position; names.length < count; ) {
      position = nextSegment(position, segmentBytes, historyOf(position.timeline, this.#histories))
      names.push(segmentName(position, segmentBytes))
    }
    return names
  }

  async #hasRoom(): Promise<boolean> {
    const { diskSpace, spool, segmentBytes } = this.#options
    const space = await diskSpace(spool.directory).catch(() => undefined)
    if (space === undefined) return false
    const toCome = (this.#fetching.size + 1) * segmentBytes
    return space.free - toCome >= Math.max(space.total * freeShareMin, freeSegmentsMin * segmentBytes)
  }

  /** Never rejects: what cannot be fetched here is told to the server when it asks for it itself. */
  async #fetch(name: string): Promise<void> {
    const { files, spool, self, source, sourceMark } = this.#options
    try {
      using hash = await xxh3()
      const target = { path: spool.path(name), temporaryPath: spool.partPath(name), mode: spool.mode }
      const options = {
        onlooker: hash,
        signal: this.#abort.signal,
      }
      this.#isAtEnd = !(await fetchWhole(files, target, source, name, options))
      if (this.#isAtEnd) {
        this.#missing.add(name)
        return
      }
      const identity = await spool.fileIdentity(self.boot, name)
      const digest = hash.digest()
      // First, because from the next moment on the launcher may take it.
      this.#ready.add(name)
      await spool.writeVerified(name, { identity, digest, source: sourceMark }, self.pid)
    } catch {
      this.#failed.add(name)
    }
  }
}
