import { parseLsn, type SegmentPosition } from '../wal/segment-position.ts'

/** Where a timeline began: it left its parent at `begin`. */
export interface TimelineBegin {
  timeline: number
  begin: bigint
}

/**
 * The content of a timeline history file: the ancestors, oldest first, each with where it was left, as
 * `readTimeLineHistory` of PostgreSQL reads it. Returns the timelines with where they begin, oldest first, the
 * one of the file itself last; `undefined` for what is not such a file.
 */
export function parseTimelineHistory(timeline: number, text: string): TimelineBegin[] | undefined {
  const timelines: TimelineBegin[] = []
  let begin = 0n
  for (const line of text.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue
    const [ancestor = '', end = ''] = line.trim().split(/\s+/)
    const lsn = parseLsn(end)
    if (!/^\d+$/.test(ancestor) || lsn === undefined) return undefined
    timelines.push({ timeline: Number(ancestor), begin })
    begin = lsn
  }
  timelines.push({ timeline, begin })
  const isAscending = timelines.every(
    (each, index) => index === 0 || each.timeline > (timelines[index - 1]?.timeline ?? 0),
  )
  return isAscending ? timelines : undefined
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
