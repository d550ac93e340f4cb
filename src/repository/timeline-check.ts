import { formatLsn, segmentName } from '../wal/segment-position.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import type { CheckedObject } from './check-wal-object.ts'
import type { ObjectMetadata } from './metadata-block.ts'
import { rangeOfSegment, type SurveyedBackup, type SurveyedTimeline, segmentBytesIn } from './survey.ts'
import type { RestoreReach, TimelineReport } from './verify-report.ts'
import type { TimelineNeeds } from './wal-lineage.ts'
import { HeldRanges, type WalRange, WalRuns } from './wal-runs.ts'

// Gaps near the newest segment may be files that are being archived at this very moment, so some of the last are kept
// besides the first: as many as an archiver that works ahead may have under way, and that is what a server hands over.
export const newestGapsHeld = 64

export interface TimelineCheckOptions {
  timeline: number
  /** What the first look told; `undefined` for a timeline that has appeared since. */
  surveyed: SurveyedTimeline | undefined
  needs: TimelineNeeds | undefined
  /** Of segments that do not tell. */
  segmentBytes: number | undefined
  /** Does any backup of the cluster tell where restores begin? */
  hasBackups: boolean
  /** The timeline that comes before this one in the chain of a restore. */
  predecessor: TimelineCheck | undefined
  gapsHeldMax: number
}

/** A segment size on a timeline, and what there is of it. In a sound cluster there is one. */
interface Chain {
  segmentBytes: number
  present: WalRuns
  sound: WalRuns
  /** What restores miss. */
  gaps: HeldRanges
  /** What nobody needs. */
  unneeded: HeldRanges
  firstName: string
  /** The one that was added last. */
  lastSound: { name: string; writtenAt: string } | undefined
}

export interface SegmentRange extends WalRange {
  segmentBytes: number
}

/** What there is of one timeline, computed while its objects go by in the order of their names. */
export class TimelineCheck {
  readonly timeline: number
  readonly #options: TimelineCheckOptions
  readonly #chains = new Map<number, Chain>()
  readonly #reachAt = new Map<bigint, RestoreReach>()
  readonly #partials: string[] = []
  #best: RestoreReach | undefined
  #segmentBytes: number | undefined
  #firstSegment: string | undefined
  #newestSegment: string | undefined
  #segments = 0
  #partialCount = 0
  #backups = 0
  #storedBytes = 0
  #plaintextBytes = 0

  constructor(options: TimelineCheckOptions) {
    this.#options = options
    this.timeline = options.timeline
    this.#segmentBytes = options.segmentBytes
  }

  /** Where restores come from that go on at a branch; `undefined` where none gets there. */
  reachAt(branch: bigint): RestoreReach | undefined {
    return this.#reachAt.get(branch)
  }

  get firstSegment(): string | undefined {
    return this.#firstSegment
  }

  get segments(): number {
    return this.#segments
  }

  get partials(): readonly string[] {
    return this.#partials
  }

  /** The sizes that there are, each with the name of the first segment that has it. */
  get segmentSizes(): Map<number, string> {
    return new Map([...this.#chains].map(([bytes, { firstName }]) => [bytes, firstName]))
  }

  /** Takes in an object. Returns `false` for a segment of a size that the server would refuse. */
  add(name: string, storedBytes: number, checked: CheckedObject): boolean {
    const kind = walFileKind(name)
    const metadata = checked.kind === 'removed' ? undefined : checked.metadata
    if (checked.kind !== 'removed') {
      this.#storedBytes += storedBytes
      this.#plaintextBytes += metadata?.plaintext_length ?? 0
    }
    if (kind === 'segment') return this.#addSegment(name, checked, metadata)
    if (checked.kind === 'removed') return true
    if (kind === 'partial segment') {
      this.#partialCount++
      if (this.#partials.length < this.#options.gapsHeldMax) this.#partials.push(name)
    }
    if (kind === 'backup history') this.#backups++
    return true
  }

  #addSegment(name: string, checked: CheckedObject, metadata: ObjectMetadata | undefined): boolean {
    // What was removed a moment ago belongs to the chain all the same: it is no gap, and nothing to restore from.
    if (checked.kind !== 'removed') {
      this.#segments++
      this.#firstSegment ??= name
      this.#newestSegment = name
    }
    const told = metadata && segmentBytesIn(metadata)
    const segmentBytes = told ?? this.#segmentBytes
    const range = segmentBytes === undefined ? undefined : rangeOfSegment(name, segmentBytes)
    if (segmentBytes === undefined || range === undefined) return metadata === undefined
    this.#segmentBytes = segmentBytes
    const chain = this.#chain(segmentBytes, name)
    chain.present.add(range)
    const isRightSize =
      metadata === undefined || (told !== undefined && metadata.plaintext_length === segmentBytes)
    if (checked.kind === 'sound' && isRightSize) {
      chain.sound.add(range)
      chain.lastSound = { name, writtenAt: checked.metadata.modified_at }
    }
    return isRightSize
  }

  #chain(segmentBytes: number, firstName: string): Chain {
    let chain = this.#chains.get(segmentBytes)
    if (chain === undefined) {
      const { gapsHeldMax } = this.#options
      const gaps = new HeldRanges(gapsHeldMax, newestGapsHeld)
      const unneeded = new HeldRanges(gapsHeldMax, 0)
      const present = new WalRuns(
        () => undefined,
        gap => this.#sortGap(gap, gaps, unneeded),
      )
      const sound = new WalRuns(
        run => this.#endSoundRun(run, chain?.lastSound),
        () => undefined,
      )
      chain = { segmentBytes, present, sound, gaps, unneeded, firstName, lastSound: undefined }
      this.#chains.set(segmentBytes, chain)
    }
    return chain
  }

  #sortGap(gap: WalRange, gaps: HeldRanges, unneeded: HeldRanges): void {
    const from = this.#options.needs?.from
    if (from === undefined || gap.to <= from) return unneeded.add(gap)
    if (gap.from < from) unneeded.add({ from: gap.from, to: from })
    gaps.add({ from: gap.from < from ? from : gap.from, to: gap.to })
  }

  #endSoundRun(run: WalRange, last: Chain['lastSound']): void {
    if (last === undefined) return
    for (const branch of this.#options.needs?.branches ?? []) {
      if (branch <= run.from || branch > run.to || this.#reachAt.has(branch)) continue
      this.#reachAt.set(branch, this.#reach(run, branch, last))
    }
    const reach = this.#reach(run, run.to, last)
    // The newest run that a restore can get to; in a cluster without any backup to be seen, just the newest.
    if (reach.backup !== null || !this.#options.hasBackups) this.#best = reach
  }

  #reach(run: WalRange, to: bigint, last: NonNullable<Chain['lastSound']>): RestoreReach {
    const { needs, surveyed, predecessor } = this.#options
    const begin = needs?.begin
    const before =
      begin !== undefined && run.from <= begin && begin < to ? predecessor?.reachAt(begin) : undefined
    const backup = before?.backup ?? oldestBackup(surveyed?.backups ?? [], run.from, to)
    return {
      from: before?.from ?? { timeline: this.timeline, lsn: formatLsn(run.from) },
      backup,
      to: {
        timeline: this.timeline,
        lsn: formatLsn(to),
        segment: last.name,
        written_at: last.writtenAt,
      },
    }
  }

  /** To be called when the last object has gone by, before anything is asked. */
  end(): void {
    const chains = [...this.#chains.values()]
    for (const { present } of chains) present.end()
    // The newest one is to have the last word.
    for (const { sound } of chains.toSorted((a, b) => endOf(a) - endOf(b))) sound.end()
  }

  /** The gaps that are needed, in order, with those before the first and behind the newest segment; and the rest of them. */
  gaps(needs: TimelineNeeds | undefined): {
    held: SegmentRange[]
    unheld: { count: number; segments: number }
  } {
    const chains = [...this.#chains.values()]
    const held = chains.flatMap(chain => chain.gaps.held.map(gap => withSize(gap, chain)))
    const unheld = chains.reduce(
      (sum, { gaps, segmentBytes }) => ({
        count: sum.count + gaps.unheld.count,
        segments: sum.segments + Number(gaps.unheld.bytes / BigInt(segmentBytes)),
      }),
      { count: 0, segments: 0 },
    )
    const from = needs?.from
    if (from === undefined) return { held: [], unheld }
    held.push(...this.#gapsAround(from, needs?.to))
    const others = (gap: SegmentRange) => chains.filter(each => each.segmentBytes !== gap.segmentBytes)
    const needed = held.flatMap(gap => {
      // Where the size was changed, the other size has the WAL that this one does not have.
      const isElsewhere = others(gap).some(({ present }) => overlaps(present.hull, gap))
      if (isElsewhere || gap.to <= from) return []
      return [gap.from < from ? { ...gap, from } : gap]
    })
    return { held: needed.sort((a, b) => (a.from < b.from ? -1 : 1)), unheld }
  }

  /** Gaps that no restore needs, as far as they are kept, and how many there are. */
  get unneeded(): { shown: SegmentRange[]; count: number } {
    const chains = [...this.#chains.values()]
    const shown = chains.flatMap(chain => chain.unneeded.held.map(gap => withSize(gap, chain)))
    return {
      shown,
      count: chains.reduce((count, { unneeded }) => count + unneeded.unheld.count, shown.length),
    }
  }

  get newestEnd(): bigint | undefined {
    const ends = [...this.#chains.values()].flatMap(({ present }) => present.hull?.to ?? [])
    return ends.length === 0 ? undefined : ends.reduce((a, b) => (a > b ? a : b))
  }

  #gapsAround(from: bigint, to: bigint | undefined): SegmentRange[] {
    const hulls = [...this.#chains.values()]
      .flatMap(chain => (chain.present.hull === undefined ? [] : withSize(chain.present.hull, chain)))
      .sort((a, b) => (a.from < b.from ? -1 : 1))
    const segmentBytes = hulls[0]?.segmentBytes ?? this.#segmentBytes
    if (segmentBytes === undefined) return []
    const gaps: SegmentRange[] = []
    let end = from
    for (const hull of hulls) {
      if (hull.from > end) gaps.push({ from: end, to: hull.from, segmentBytes: hull.segmentBytes })
      if (hull.to > end) end = hull.to
    }
    if (to !== undefined && to > end) gaps.push({ from: end, to, segmentBytes })
    return gaps
  }

  report(missingSegments: number): TimelineReport {
    const { surveyed } = this.#options
    const parent = surveyed?.switches?.at(-1)
    return {
      timeline: this.timeline,
      parent: parent === undefined ? null : { timeline: parent.timeline, lsn: formatLsn(parent.lsn) },
      first_segment: this.#firstSegment ?? null,
      newest_segment: this.#newestSegment ?? null,
      segments: this.#segments,
      partial_segments: { count: this.#partialCount, shown: this.#partials },
      backup_histories: this.#backups,
      stored_bytes: this.#storedBytes,
      plaintext_bytes: this.#plaintextBytes,
      missing_segments: missingSegments,
      restore: this.#best ?? null,
    }
  }
}

/** Names of the first and the last segment in a range, and how many there are. */
export function segmentsIn(
  timeline: number,
  { from, to, segmentBytes }: SegmentRange,
): { first: string; last: string; count: number } {
  const size = BigInt(segmentBytes)
  return {
    first: segmentName({ timeline, segment: from / size }, segmentBytes),
    last: segmentName({ timeline, segment: (to - 1n) / size }, segmentBytes),
    count: Number((to + size - 1n) / size - from / size),
  }
}

function endOf({ present }: Chain): number {
  return Number(present.hull?.to ?? 0n)
}

function withSize(range: WalRange, { segmentBytes }: Chain): SegmentRange {
  return { ...range, segmentBytes }
}

function overlaps(a: WalRange | undefined, b: WalRange): boolean {
  return a !== undefined && a.from < b.to && b.from < a.to
}

function oldestBackup(backups: readonly SurveyedBackup[], from: bigint, to: bigint): RestoreReach['backup'] {
  const found = backups.find(
    ({ startLsn, stopLsn }) => startLsn >= from && startLsn < to && (stopLsn === undefined || stopLsn <= to),
  )
  return found === undefined ? null : { name: found.name, started_at: found.startTime ?? null }
}
