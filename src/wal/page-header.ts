/** The long header of a segment's first page, `XLogLongPageHeaderData` of PostgreSQL's `access/xlog_internal.h`. */
export interface LongPageHeader {
  /** Tells the major version; PostgreSQL changes it with each. */
  magic: number
  timeline: number
  /** The LSN of the page, which for the first one is that of its segment. */
  pageAddress: bigint
  /** The cluster that wrote it, as `pg_controldata` shows it. */
  systemIdentifier: bigint
  segmentBytes: number
}

export const longPageHeaderBytes = 40
const xlpLongHeader = 0x0002 // flag in xlp_info

/** Reads the first bytes of a segment; `undefined` where they are not such a header. Little-endian, as on all that we run on. */
export function parseLongPageHeader(bytes: Uint8Array): LongPageHeader | undefined {
  if (bytes.length < longPageHeaderBytes) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if ((view.getUint16(2, true) & xlpLongHeader) === 0) return undefined
  const segmentBytes = view.getUint32(32, true)
  if (!isSegmentSize(segmentBytes)) return undefined
  return {
    magic: view.getUint16(0, true),
    timeline: view.getUint32(4, true),
    pageAddress: view.getBigUint64(8, true),
    systemIdentifier: view.getBigUint64(24, true),
    segmentBytes,
  }
}

/** A power of two from 1 MiB to 1 GiB, which is what initdb allows. */
function isSegmentSize(bytes: number): boolean {
  return bytes >= 1024 ** 2 && bytes <= 1024 ** 3 && (bytes & (bytes - 1)) === 0
}
