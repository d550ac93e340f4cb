import type { TimelineSwitch } from '../wal/timeline-history.ts'
import type { WalRange } from './wal-runs.ts'

/** What is known of a timeline before its objects are read. */
export interface KnownTimeline {
  timeline: number
  segmentBytes: number
  /** Its ancestors, oldest first; `undefined` where that is not known. */
  switches: readonly TimelineSwitch[] | undefined
  /** From the first stored segment to the last one. */
  stored: WalRange | undefined
  /** Base backups that began on it, oldest first. `stopLsn` is `undefined` where it is not known. */
  backups: ReadonlyArray<{ startLsn: bigint; stopLsn: bigint | undefined }>
}

/** Which WAL of a timeline has to be there. */
export interface TimelineNeeds {
  /** Where the timeline begins: with the segment in which its parent was left. */
  begin: bigint | undefined
  /** Whom recovery comes from at `begin`; that is the parent, unless the parent was left in the segment it began in. */
  predecessor: number | undefined
  /** Restoring needs all WAL from here on; `undefined` where nobody knows a restore that would need this timeline. */
  from: bigint | undefined
  /** And at least to here, even where the newest segment is older: `undefined` where nothing asks for that. */
  to: bigint | undefined
  /** Where other timelines branch off, each at the beginning of a segment. */
  branches: bigint[]
}

interface PathRange extends WalRange {
  timeline: number
}

const endOfWal = 1n << 64n

/**
 * Where the chains are that restores follow.
 *
 * A restore begins with a base backup, or, in a cluster that has none in the repository, with the oldest segment. It
 * ends anywhere on a timeline, and goes there by way of the timeline's ancestors, from each until the segment in which
 * it was left: that segment itself is taken from the descendant, which has the ancestor's pages in front of its own.
 */
export function walLineage(timelines: readonly KnownTimeline[]): Map<number, TimelineNeeds> {
  const known = new Map(timelines.map(each => [each.timeline, each]))
  const needs = new Map<number, TimelineNeeds>()
  const needsOf = (timeline: number): TimelineNeeds => {
    let found = needs.get(timeline)
    if (found === undefined) {
      found = { begin: undefined, predecessor: undefined, from: undefined, to: undefined, branches: [] }
      needs.set(timeline, found)
    }
    return found
  }
  const need = (timeline: number, from: bigint, to: bigint | undefined): void => {
    const each = needsOf(timeline)
    if (each.from === undefined || from < each.from) each.from = from
    if (to !== undefined && (each.to === undefined || to > each.to)) each.to = to
  }
  const hasBackups = timelines.some(({ backups }) => backups.length > 0)

  for (const timeline of timelines) {
    const path = pathTo(timeline)
    const [own, before] = [path.at(-1), path.at(-2)]
    const mine = needsOf(timeline.timeline)
    if (own !== undefined && before !== undefined) {
      mine.begin = own.from
      mine.predecessor = before.timeline
      const { branches } = needsOf(before.timeline)
      if (!branches.includes(own.from)) branches.push(own.from)
    }
    const origins = path.map(range => originIn(range, known.get(range.timeline), hasBackups))
    const start = origins.findIndex(origin => origin !== undefined)
    for (const [index, range] of path.entries()) {
      const origin = index === start ? origins[index] : range.from
      if (start === -1 || index < start || origin === undefined) continue
      const isLast = index === path.length - 1
      // Nothing of a timeline is needed before something of it is there.
      if (!isLast) need(range.timeline, origin, range.to)
      else if (timeline.stored !== undefined) need(range.timeline, origin, undefined)
    }
    for (const { startLsn, stopLsn } of timeline.backups) {
      need(timeline.timeline, segmentStart(startLsn, timeline), undefined)
      if (stopLsn !== undefined)
        need(timeline.timeline, segmentStart(startLsn, timeline), segmentEnd(stopLsn, timeline))
    }
    // Nobody knows what a timeline of unknown origin needs from others; of itself it is needed as far as it is there.
    if (start === -1 && timeline.switches === undefined && timeline.stored !== undefined) {
      need(timeline.timeline, timeline.stored.from, undefined)
    }
  }
  for (const { branches } of needs.values()) branches.sort((a, b) => (a < b ? -1 : 1))
  return needs
}

/** The ancestors of a timeline that recovery reads from on its way, and itself; without those that have no segment. */
function pathTo(timeline: KnownTimeline): PathRange[] {
  const path: PathRange[] = []
  let from = 0n
  for (const { timeline: ancestor, lsn } of timeline.switches ?? []) {
    const to = segmentStart(lsn, timeline)
    if (to > from) path.push({ timeline: ancestor, from, to })
    if (to > from) from = to
  }
  path.push({ timeline: timeline.timeline, from, to: endOfWal })
  return path
}

/** Where the oldest restore begins that takes this way; `undefined` where none does. */
function originIn(
  range: PathRange,
  timeline: KnownTimeline | undefined,
  hasBackups: boolean,
): bigint | undefined {
  if (timeline === undefined) return undefined
  const starts = hasBackups
    ? timeline.backups.map(({ startLsn }) => segmentStart(startLsn, timeline))
    : timeline.stored === undefined
      ? []
      : [timeline.stored.from]
  const oldest = starts.find(start => start < range.to)
  if (oldest === undefined) return undefined
  return oldest > range.from ? oldest : range.from
}

function segmentStart(lsn: bigint, { segmentBytes }: KnownTimeline): bigint {
  return lsn - (lsn % BigInt(segmentBytes))
}

/** The end of the segment with the last byte before `lsn`. */
function segmentEnd(lsn: bigint, timeline: KnownTimeline): bigint {
  return lsn === 0n ? 0n : segmentStart(lsn - 1n, timeline) + BigInt(timeline.segmentBytes)
}
