/** Where a segment stands in the WAL: the numbers in its name, as PostgreSQL's `XLogFromFileName` reads them. */
export interface SegmentPosition {
  timeline: number
  /** Its number, counted from the beginning of the cluster. */
  segment: bigint
}

const bytesPerLog = 0x1_0000_0000n

/** `name` is that of a segment, or begins with one; `segmentBytes` a size that initdb allows. */
export function segmentPosition(name: string, segmentBytes: number): SegmentPosition {
  const log = BigInt(Number.parseInt(name.slice(8, 16), 16))
  const inLog = BigInt(Number.parseInt(name.slice(16, 24), 16))
  return {
    timeline: Number.parseInt(name.slice(0, 8), 16),
    segment: log * (bytesPerLog / BigInt(segmentBytes)) + inLog,
  }
}

/** The name of a segment, as `XLogFileName` makes it. */
export function segmentName({ timeline, segment }: SegmentPosition, segmentBytes: number): string {
  const segmentsPerLog = bytesPerLog / BigInt(segmentBytes)
  const hex = (value: bigint | number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `${hex(timeline)}${hex(segment / segmentsPerLog)}${hex(segment % segmentsPerLog)}`
}

/** An LSN as the server writes it: `0/3000028`. */
export function formatLsn(lsn: bigint): string {
  const hex = (value: bigint) => value.toString(16).toUpperCase()
  return `${hex(lsn >> 32n)}/${hex(lsn & 0xffff_ffffn)}`
}

/** Reads an LSN as the server writes it; `undefined` for anything else. */
export function parseLsn(text: string): bigint | undefined {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text)
  return match === null ? undefined : (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)
}
