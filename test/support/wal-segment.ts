import { segmentPosition } from '../../src/wal/segment-position.ts'

export interface WalSegmentOptions {
  /** Of the segment; its timeline and place in the WAL are taken from it. */
  name: string
  systemIdentifier?: string
  segmentBytes?: number
  magic?: number
  /** In the page header, where it differs from that in the name. */
  timeline?: number
  /** Two segments with different seeds have different content. */
  seed?: number
}

export const anySystemIdentifier = '7300000000000000001'
const mebibyte = 1024 * 1024

/** The bytes of a segment with a valid first page, and content that can be compressed, but not to nothing. */
export function walSegment(options: WalSegmentOptions): Buffer {
  const {
    name,
    systemIdentifier = anySystemIdentifier,
    segmentBytes = mebibyte,
    magic = 0xd116,
    seed = 1,
  } = options
  const { timeline, segment } = segmentPosition(name, segmentBytes)
  const bytes = Buffer.alloc(segmentBytes)
  let state = (seed * 2654435761 + Number(segment)) >>> 0
  for (let at = 64; at + 64 <= segmentBytes; at += 64) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    // A few different bytes in each line, and a line that comes again.
    bytes.writeUInt32LE(state, at)
    bytes.write('UPDATE accounts SET balance = balance + 1', at + 8)
  }
  bytes.writeUInt16LE(magic, 0)
  bytes.writeUInt16LE(0x0002, 2) // XLP_LONG_HEADER
  bytes.writeUInt32LE(options.timeline ?? timeline, 4)
  bytes.writeBigUInt64LE(segment * BigInt(segmentBytes), 8)
  bytes.writeBigUInt64LE(BigInt(systemIdentifier), 24)
  bytes.writeUInt32LE(segmentBytes, 32)
  bytes.writeUInt32LE(8_192, 36)
  return bytes
}
