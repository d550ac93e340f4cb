import type { SegmentPosition } from '../wal/segment-position.ts'
import { parseTimelineHistory } from '../wal/timeline-history.ts'

/** Where a timeline began: it left its parent at `begin`. */
export interface TimelineBegin {
  timeline: number
  begin: bigint
}

/**
 * The timelines of a history file with where they begin, oldest first, the one of the file itself last; `undefined` for
 * what is not such a file.
 */
export function timelineBegins(timeline: number, text: string): TimelineBegin[] | undefined {
  const switches = parseTimelineHistory(text, timeline)
  if (switches === undefined) return undefined
  // Each begins where the one before was left.
  const begins = [0n, ...switches.map(({ lsn }) => lsn)]
  const timelines = [...switches.map(each => each.timeline), timeline]
  return timelines.map((each, index) => ({ timeline: each, begin: begins[index] ?? 0n }))
}

/**
 * The segment that a recovery asks for after `position`. In the segment in which a timeline begins, the server reads
 * the newer one, which has what the older one had in front.
 */
export function nextSegment(
  { timeline, segment }: SegmentPosition,
  segmentBytes: number,
  history: readonly TimelineBegin[] | undefined,
): SegmentPosition {
  const next = segment + 1n
  const size = BigInt(segmentBytes)
  const reached = (history ?? []).filter(each => each.timeline > timeline && each.begin / size <= next)
  return { timeline: reached.at(-1)?.timeline ?? timeline, segment: next }
}

/** Of the histories that are known, the newest that leads on from a timeline; that is where a recovery goes. */
export function historyOf(
  timeline: number,
  histories: Iterable<readonly TimelineBegin[]>,
): readonly TimelineBegin[] | undefined {
  let newest: readonly TimelineBegin[] | undefined
  for (const each of histories) {
    const isOurs = each.some(begin => begin.timeline === timeline)
    if (isOurs && (each.at(-1)?.timeline ?? 0) > (newest?.at(-1)?.timeline ?? 0)) newest = each
  }
  return newest
}
