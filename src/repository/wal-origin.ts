import { type LongPageHeader, longPageHeaderBytes, parseLongPageHeader } from '../wal/page-header.ts'
import { majorOfPageMagic } from '../wal/page-magic.ts'
import { formatLsn, segmentPosition } from '../wal/segment-position.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import { RepositoryError } from './repository-error.ts'

/** The cluster that files are archived for, as it tells itself. */
export interface Cluster {
  systemIdentifier: string
  /** `undefined` where it is not known; then any size will do. */
  walSegmentBytes: number | undefined
  /** Of its WAL pages; `undefined` where it is not known; then any will do. */
  pageMagic: number | undefined
}

/** How many bytes of a file tell where it is from. */
export const originBytes = longPageHeaderBytes

/** Does the file have a page header that tells where it is from? */
export function hasPageHeader(name: string): boolean {
  const kind = walFileKind(name)
  return kind === 'segment' || kind === 'partial segment'
}

/**
 * Refuses a segment that is not what its name says: of another cluster, another major version, another size or
 * another place in the WAL, as a file is that was copied here, or recycled before it was archived. Returns its header.
 *
 * The timeline in the header may be lower than that of the name: a segment in which a timeline began has pages of
 * its parent in front.
 */
export function requireOrigin(name: string, start: Uint8Array, cluster: Cluster): LongPageHeader {
  const header = parseLongPageHeader(start)
  if (header === undefined) {
    return refuse(name, 'is not a WAL segment', 'It does not begin with the header of a WAL page.')
  }
  const { systemIdentifier, walSegmentBytes, pageMagic } = cluster
  if (header.systemIdentifier.toString() !== systemIdentifier) {
    return refuse(
      name,
      'belongs to another cluster',
      `Its system identifier is ${header.systemIdentifier}, that of this cluster is ${systemIdentifier}.`,
    )
  }
  if (pageMagic !== undefined && header.magic !== pageMagic) {
    return refuse(
      name,
      'was written by another version of PostgreSQL',
      `The magic number of its pages is ${describeMagic(header.magic)}, that of this server is ${describeMagic(pageMagic)}.`,
    )
  }
  if (walSegmentBytes !== undefined && header.segmentBytes !== walSegmentBytes) {
    return refuse(
      name,
      'has another segment size',
      `Its header says ${header.segmentBytes} bytes, the segments of this cluster have ${walSegmentBytes}.`,
    )
  }
  const { timeline, segment } = segmentPosition(name, header.segmentBytes)
  const address = segment * BigInt(header.segmentBytes)
  if (header.pageAddress !== address) {
    return refuse(
      name,
      'holds another segment',
      `Its first page is that of LSN ${formatLsn(header.pageAddress)}, its name stands for ${formatLsn(address)}.`,
    )
  }
  if (header.timeline > timeline) {
    return refuse(
      name,
      'holds another timeline',
      `Its first page is of timeline ${header.timeline}, its name stands for timeline ${timeline}.`,
    )
  }
  return header
}

function refuse(name: string, how: string, detail: string): never {
  throw new RepositoryError('FOREIGN_WAL', `file "${name}" ${how}`, { detail })
}

function describeMagic(magic: number): string {
  const hex = magic.toString(16).toUpperCase().padStart(4, '0')
  const major = majorOfPageMagic(magic)
  return major === undefined ? hex : `${hex} (PostgreSQL ${major})`
}
