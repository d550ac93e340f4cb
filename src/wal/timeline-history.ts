/** A line of a timeline history: until where the timeline follows one of its ancestors. */
export interface TimelineSwitch {
  /** The ancestor. */
  timeline: number
  /** Where it was left. */
  lsn: bigint
}

const linePattern = /^\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})(?:\s|$)/
const timelineMax = 0xffff_ffff

/** The name of the file that says where a timeline came from. */
export function timelineHistoryName(timeline: number): string {
  return `${timelineText(timeline)}.history`
}

/** A timeline as it stands in the names of files. */
export function timelineText(timeline: number): string {
  return timeline.toString(16).toUpperCase().padStart(8, '0')
}

/** The timeline that the name of any WAL file begins with. */
export function timelineOf(name: string): number {
  return Number.parseInt(name.slice(0, 8), 16)
}

/**
 * Reads the content of a timeline history by the rules of the server's `readTimeLineHistory`: the ancestors, oldest
 * first, the last one being the parent. `undefined` where the server would refuse it, too.
 */
export function parseTimelineHistory(text: string, timeline: number): TimelineSwitch[] | undefined {
  const switches: TimelineSwitch[] = []
  for (const line of text.split('\n')) {
    const content = line.trimStart()
    if (content === '' || content.startsWith('#')) continue
    const [, ancestor, high, low] = linePattern.exec(line) ?? []
    if (ancestor === undefined) return undefined
    const last = switches.at(-1)?.timeline ?? 0
    const next = Number(ancestor)
    if (next <= last || next >= timeline || next > timelineMax) return undefined
    switches.push({ timeline: next, lsn: (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`) })
  }
  return switches
}
