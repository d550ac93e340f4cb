import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import type { ProcessIdentity } from '../system/process-identity.ts'
import { type SegmentPosition, segmentName, segmentPosition } from '../wal/segment-position.ts'
import { isTimelineHistory, walFileKind } from '../wal/wal-file-name.ts'
import { type FetchSource, fetchWhole } from './archive-get.ts'
import type { Recovery } from './recovery.ts'
import type { Answer, Delivered, Question, Spool } from './spool.ts'
import { historyOf, nextSegment, type TimelineBegin, timelineBegins } from './timeline-history.ts'
import { Turns } from './turns.ts'
import { removeIfThere } from './whole-file.ts'

/** After this long without a segment taken or a question it is not worth to be there. */
const idleMs = 60_000
/** A server that has ended its recovery asks for the history of the timeline that it has left. */
const lastQuestionsMs = 2_000
/** How often it is looked whether settings or timelines have changed; whatever else happens is noticed at once. */
const lookIntervalMs = 1_000
/** How many segments are fetched ahead at first. A recovery that is slow, or soon over, shall not fetch much in vain. */
const firstWindow = 8
/** By how many more with each one that is taken. */
const windowGrowth = 2
/** What the disk keeps free: a share of it, and room for the server to go on. */
const freeShareMin = 0.05
const freeSegmentsMin = 4

/** Before all others, which have their numbers. */
const rankOfAsked = -1

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
  /** Whether the server gets the file itself or a copy of it. */
  handOver: 'rename' | 'copy'
  filesAtOnce: number
  /** How many of those are written at once; the others wait with what has come of them. */
  writtenAtOnce: number
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
 * that far by itself, so that nobody is ever told by what was found out before that something is not there.
 *
 * Launchers may ask for a file, which saves them a start of Node. Such a question is answered by what the repository says
 * then, under the settings that are in force then; whatever is not clear is left to Node.
 */
export class Fetcher {
  readonly #options: FetcherOptions
  /** Not known before the server got a segment. */
  #position: SegmentPosition | undefined
  #segmentBytes = 0
  #positionText: string | undefined
  #window = firstWindow
  #lastTakenMs: number
  readonly #ready = new Set<string>()
  readonly #fetching = new Map<string, Promise<Answer>>()
  readonly #missing = new Set<string>()
  readonly #failed = new Set<string>()
  /** Was the last one that was asked for not there? Then its followers hardly are. */
  #isAtEnd = false
  /** What was on its way then. */
  #besideEnd = new Set<string>()
  /** What was asked for last; kept until something else is. */
  #asked: string | undefined
  #answering: Promise<void> = Promise.resolve()
  #histories: TimelineBegin[][] = []
  readonly #turns: Turns
  readonly #abort = new AbortController()
  #wake: () => void = () => {}

  constructor(options: FetcherOptions) {
    this.#options = options
    this.#turns = new Turns(options.writtenAtOnce)
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
      await Promise.allSettled([this.#answering, ...this.#fetching.values()])
      await this.#clear()
      return end
    } finally {
      for (const watch of watches) watch.close()
    }
  }

  async #work(): Promise<FetcherEnd> {
    const { clock, recovery } = this.#options
    let lookedMs = Number.NEGATIVE_INFINITY
    let overMs: number | undefined
    for (;;) {
      // From here on, so that nothing that happens meanwhile is missed.
      const woken = new Promise<void>(resolve => (this.#wake = resolve))
      // Before anything else is looked at: what follows is true of a moment after they were asked.
      const questions = await this.#options.spool.questions()
      const state = await recovery.look()
      if (state === 'gone') return 'server is gone'
      const now = clock.monotonic()
      if (state === 'over') overMs ??= now
      if (overMs !== undefined && now - overMs > lastQuestionsMs) return 'recovery is over'
      if (questions.length > 0 || now - lookedMs >= lookIntervalMs) {
        lookedMs = now
        if (await this.#options.haveSettingsChanged()) return 'settings have changed'
        await this.#readHistories()
      }
      await this.#follow()
      for (const question of questions) await this.#take(question)
      if (clock.monotonic() - this.#lastTakenMs > idleMs) return 'idle'
      if (overMs === undefined) await this.#fetchAhead()
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
      if (verified?.source !== sourceMark || verified.identity !== identity) continue
      this.#ready.add(name)
      this.#segmentBytes ||= (await files.stat(spool.path(name))).size
    }
    for (const name of await files.list(spool.directory)) {
      const isKept =
        name === 'lock' ||
        name === 'started' ||
        name.startsWith('position') ||
        this.#ready.has(name.replace(/\.verified$/, ''))
      if (!isKept) await removeIfThere(files, spool.path(name))
    }
  }

  async #clear(): Promise<void> {
    const { files, spool } = this.#options
    const names = await files.list(spool.directory).catch(() => [])
    // The state first: from then on nobody relies on the rest. Who has started last: until then there is no other one.
    const order = (name: string) => Number(name === 'started') - Number(name === 'state')
    names.sort((a, b) => order(a) - order(b))
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
    const { files, clock, spool } = this.#options
    // Before the look: what becomes ready during it was not taken because it was not seen.
    const before = [...this.#ready]
    const there = new Set(await files.list(spool.directory))
    const got: SegmentPosition[] = []
    for (const name of before) {
      // One that could not be noted as verified has left both meanwhile.
      if (there.has(name) || !this.#ready.delete(name)) continue
      await removeIfThere(files, spool.verifiedPath(name))
      got.push(segmentPosition(name, this.#segmentBytes))
    }
    const position = await spool.readPosition()
    if (position !== undefined && position.text !== this.#positionText) {
      this.#positionText = position.text
      this.#missing.clear()
      this.#failed.clear()
      got.push(this.#positionOf(position))
    }
    if (got.length === 0) return
    if (this.#position !== undefined) this.#window += got.length * windowGrowth
    this.#position = got.reduce((last, each) => (each.segment > last.segment ? each : last))
    this.#lastTakenMs = clock.monotonic()
  }

  /** From now on somebody waits for the answer, which is worked on while everything else goes on. */
  async #take(question: Question): Promise<void> {
    const { spool, self, clock } = this.#options
    await spool.takeQuestion(question)
    this.#lastTakenMs = clock.monotonic()
    this.#answering = this.#answering
      .then(async () => {
        await spool.removeAnswers()
        await spool.answer(question, await this.#answerTo(question.name), self.pid)
      })
      // Whoever waits in vain asks Node.
      .catch(() => undefined)
      .finally(() => this.#wake())
  }

  async #answerTo(name: string): Promise<Answer> {
    const kind = walFileKind(name)
    if (kind !== 'segment' && kind !== 'timeline history') return 'unknown'
    await this.#removeAsked(name)
    // It may be on its way already.
    while (this.#fetching.has(name)) await this.#fetching.get(name)
    const answer = this.#ready.has(name) ? 'fetched' : await this.#begin(name, rankOfAsked)
    if (answer === 'fetched' && kind === 'segment') await this.#goOnFrom(name)
    return answer
  }

  async #removeAsked(next: string): Promise<void> {
    const { files, spool } = this.#options
    const before = this.#asked
    this.#asked = next
    // A segment goes with the window, and when it was taken.
    if (before === undefined || !isTimelineHistory(before)) return
    await removeIfThere(files, spool.path(before))
    await removeIfThere(files, spool.verifiedPath(before))
  }

  /** The server is there now, and what was not to be had before may have come meanwhile. */
  async #goOnFrom(name: string): Promise<void> {
    const { files, spool } = this.#options
    this.#position = this.#positionOf({ name, segmentBytes: (await files.stat(spool.path(name))).size })
    this.#missing.clear()
    this.#failed.clear()
  }

  #positionOf({ name, segmentBytes }: Delivered): SegmentPosition {
    this.#segmentBytes = segmentBytes
    return segmentPosition(name, segmentBytes)
  }

  async #fetchAhead(): Promise<void> {
    const { files, spool, limitBytes, filesAtOnce } = this.#options
    const segmentBytes = this.#segmentBytes
    if (this.#position === undefined) return
    const names = this.#ahead(this.#position, Math.min(this.#window, Math.floor(limitBytes / segmentBytes)))
    for (const name of this.#ready) {
      if (names.includes(name) || name === this.#asked) continue
      this.#ready.delete(name)
      await removeIfThere(files, spool.path(name))
      await removeIfThere(files, spool.verifiedPath(name))
    }
    // The first ones are waited for, and share what there is of network and processors.
    const atOnce = Math.min(filesAtOnce, Math.ceil(this.#window / 2))
    let room = await this.#room()
    for (const name of names) {
      if (this.#ready.has(name) || this.#fetching.has(name) || this.#failed.has(name)) continue
      // Where as many have failed it is not a matter of single files.
      if (this.#missing.has(name) || this.#failed.size >= filesAtOnce) return
      if (this.#fetching.size >= (this.#isAtEnd ? 1 : atOnce)) return
      if ((this.#ready.size + this.#fetching.size + 1) * segmentBytes > limitBytes) return
      if (--room < 0) return
      void this.#begin(name, Number(segmentPosition(name, segmentBytes).segment))
    }
  }

  /** The names that the server is going to ask for. */
  #ahead(from: SegmentPosition, count: number): string[] {
    const segmentBytes = this.#segmentBytes
    const names: string[] = []
    for (let position = from; names.length < count; ) {
      position = nextSegment(position, segmentBytes, historyOf(position.timeline, this.#histories))
      names.push(segmentName(position, segmentBytes))
    }
    return names
  }

  /** How many segments more there is space for. */
  async #room(): Promise<number> {
    const { diskSpace, spool } = this.#options
    const segmentBytes = this.#segmentBytes
    const space = await diskSpace(spool.directory).catch(() => undefined)
    if (space === undefined) return 0
    const keptFree = Math.max(space.total * freeShareMin, freeSegmentsMin * segmentBytes)
    return Math.floor((space.free - keptFree) / segmentBytes) - this.#fetching.size
  }

  /** Never rejects: why something cannot be fetched is told by Node, when the server asks for it itself. */
  #begin(name: string, rank: number): Promise<Answer> {
    const fetching = this.#fetchOnce(name, rank)
      .catch((): Answer => 'unknown')
      .then(answer => {
        this.#fetching.delete(name)
        // Most timelines have no successor.
        if (!isTimelineHistory(name)) this.#noteEnd(name, answer)
        if (answer === 'not-there') this.#missing.add(name)
        if (answer === 'unknown') this.#failed.add(name)
        this.#wake()
        return answer
      })
    this.#fetching.set(name, fetching)
    return fetching
  }

  /** What was on its way beside the one that is not there is before it, or says nothing new. */
  #noteEnd(name: string, answer: Answer): void {
    if (answer === 'not-there') {
      this.#isAtEnd = true
      this.#besideEnd = new Set(this.#fetching.keys())
    } else if (!this.#besideEnd.delete(name)) this.#isAtEnd = false
  }

  async #fetchOnce(name: string, rank: number): Promise<Answer> {
    const { files, spool, self, source, sourceMark, handOver } = this.#options
    const target = { path: spool.path(name), temporaryPath: spool.partPath(name), mode: spool.mode }
    const fetched = await fetchWhole(files, target, source, name, {
      inTurn: this.#turns.of(rank),
      signal: this.#abort.signal,
    })
    if (fetched === false) return 'not-there'
    try {
      const isWaitedFor = this.#ready.size === 0 || name === this.#asked
      if (handOver === 'rename' && !isWaitedFor) await this.#flush(name)
      const identity = await spool.fileIdentity(self.boot, name)
      // First, because from the next moment on the launcher may take it.
      if (!isTimelineHistory(name)) this.#ready.add(name)
      await spool.writeVerified(name, { identity, digest: fetched.digest, source: sourceMark }, self.pid)
      return 'fetched'
    } catch (thrown) {
      // Nobody takes what is not known to be right, and who finds it would wait for that.
      this.#ready.delete(name)
      await removeIfThere(files, spool.path(name))
      throw thrown
    }
  }

  /**
   * The server calls fsync for each segment before it replays it, and waits for the disk. There is little left to write
   * then, if it was written here.
   */
  async #flush(name: string): Promise<void> {
    await using file = await this.#options.files.open(this.#options.spool.path(name), 'readNoLink')
    await file.sync()
  }
}
