import { type BackupHistory, backupStart, parseBackupHistory } from '../wal/backup-history.ts'
import { segmentName, segmentPosition } from '../wal/segment-position.ts'
import { parseTimelineHistory, type TimelineSwitch, timelineOf } from '../wal/timeline-history.ts'
import { type WalFileKind, walFileKind } from '../wal/wal-file-name.ts'
import { mapInOrder } from './map-in-order.ts'
import { metadataBlockBytes, type ObjectMetadata } from './metadata-block.ts'
import { parseWalObjectKey, type WalObject } from './object-key.ts'
import type { Repository } from './repository.ts'
import { RepositoryError } from './repository-error.ts'
import type { ListedObject } from './store/store.ts'
import { type KnownTimeline, type TimelineNeeds, walLineage } from './wal-lineage.ts'
import type { WalRange } from './wal-runs.ts'

// A history file has a line per timeline or a few lines; what is longer than this is none.
const historyBytesMax = 1024 * 1024
// Of more backups than this, those in the middle are forgotten: what counts are the oldest and the newest.
const backupsHeldMax = 10_000

/** The text of a small file, or why there is none. */
type Reading = { text: string } | 'encrypted' | 'unusable'

export interface SurveyedBackup {
  name: string
  startLsn: bigint
  stopLsn: bigint | undefined
  startTime: string | undefined
}

export interface SurveyedTimeline {
  timeline: number
  /** Of all kinds, and their bytes. */
  objects: number
  bytes: number
  segments: number
  /** Names, not places: with more than one segment size these are not the oldest and the newest. */
  firstSegment: string | undefined
  newestSegment: string | undefined
  segmentBytes: number | undefined
  hasHistory: boolean
  /** Why the ancestors are not known, though there is a history file. */
  historyIs: 'read' | 'encrypted' | 'unusable' | 'bad'
  switches: TimelineSwitch[] | undefined
  backups: SurveyedBackup[]
  /** What the backup history files say that could not be understood. */
  badBackups: string[]
}

export interface SurveyedCluster {
  systemIdentifier: string
  /** Of its segments, as the first one that could be read has it; `undefined` where none could. */
  segmentBytes: number | undefined
  timelines: Map<number, SurveyedTimeline>
  needs: Map<number, TimelineNeeds>
  hasBackups: boolean
}

export interface SurveyOptions {
  repository: Repository
  /** Of the keys to look at; empty or ends with a slash. */
  prefix: string
  jobs: number
  identities: () => Promise<readonly string[]>
  /** Told of what could not be looked at; without it, that ends the look. */
  unreadable?: (thrown: unknown) => void
  /** Told of every name. */
  counted?: (names: number) => void
}

/**
 * The first look: which names are there, and what the few small files say that tell where timelines and base backups
 * begin. What a segment is needed for is known only with all of these. Holds a few facts per timeline and per backup,
 * however many segments there are.
 */
export async function surveyRepository(options: SurveyOptions): Promise<Map<string, SurveyedCluster>> {
  const { repository, prefix, jobs, counted, unreadable } = options
  const clusters = new Map<string, SurveyedCluster>()
  let names = 0
  const looked = mapInOrder(
    repository.store.list(prefix, unreadable && { unreadable }),
    jobs,
    async listed => {
      const object = parseWalObjectKey(listed.key)
      const kind = object && walFileKind(object.name)
      const isSmall = kind === 'timeline history' || kind === 'backup history'
      return {
        listed,
        object,
        kind,
        reading: object && isSmall ? await readText(object, options) : undefined,
      }
    },
  )
  for await (const { listed, object, kind, reading } of looked) {
    counted?.(++names)
    if (object === undefined || kind === undefined) continue
    const cluster = clusterIn(clusters, object.systemIdentifier)
    const timeline = timelineIn(cluster, timelineOf(object.name))
    timeline.objects++
    timeline.bytes += listed.length
    note(timeline, object.name, kind, reading)
    // Damaged ones in front must not cost a look at each, nor hide what the others say.
    if (kind === 'segment' && timeline.segmentBytes === undefined && isPowerOfTwo(timeline.segments)) {
      timeline.segmentBytes = await segmentBytesOf(repository, listed)
      cluster.segmentBytes ??= timeline.segmentBytes
    }
  }
  for (const cluster of clusters.values()) finish(cluster)
  return clusters
}

function clusterIn(clusters: Map<string, SurveyedCluster>, systemIdentifier: string): SurveyedCluster {
  let cluster = clusters.get(systemIdentifier)
  if (cluster === undefined) {
    cluster = {
      systemIdentifier,
      segmentBytes: undefined,
      timelines: new Map(),
      needs: new Map(),
      hasBackups: false,
    }
    clusters.set(systemIdentifier, cluster)
  }
  return cluster
}

function timelineIn(cluster: SurveyedCluster, timeline: number): SurveyedTimeline {
  let found = cluster.timelines.get(timeline)
  if (found === undefined) {
    found = {
      timeline,
      objects: 0,
      bytes: 0,
      segments: 0,
      firstSegment: undefined,
      newestSegment: undefined,
      segmentBytes: undefined,
      hasHistory: false,
      historyIs: 'read',
      switches: undefined,
      backups: [],
      badBackups: [],
    }
    cluster.timelines.set(timeline, found)
  }
  return found
}

function note(
  timeline: SurveyedTimeline,
  name: string,
  kind: WalFileKind,
  reading: Reading | undefined,
): void {
  const text = typeof reading === 'object' ? reading.text : undefined
  switch (kind) {
    case 'segment':
      timeline.segments++
      timeline.firstSegment ??= name
      timeline.newestSegment = name
      return
    case 'timeline history':
      timeline.hasHistory = true
      timeline.switches = text === undefined ? undefined : parseTimelineHistory(text, timeline.timeline)
      if (typeof reading === 'string') timeline.historyIs = reading
      else if (timeline.switches === undefined) timeline.historyIs = 'bad'
      return
    case 'backup history': {
      const history = text === undefined ? undefined : parseBackupHistory(text)
      if (text !== undefined && history === undefined) timeline.badBackups.push(name)
      timeline.backups.push(backupOf(name, history))
      if (timeline.backups.length > backupsHeldMax) timeline.backups.splice(backupsHeldMax / 2, 1)
      return
    }
    case 'partial segment':
      return
    default:
      kind satisfies never
  }
}

// Where a backup began is computed from the name when the segment size is known, unless the file itself tells it.
const unknownStart = -1n

function backupOf(name: string, history: BackupHistory | undefined): SurveyedBackup {
  return {
    name,
    startLsn: history?.startLsn ?? unknownStart,
    stopLsn: history?.stopLsn,
    startTime: history?.startTime,
  }
}

function finish(cluster: SurveyedCluster): void {
  const known: KnownTimeline[] = []
  for (const timeline of cluster.timelines.values()) {
    // The first timeline of a cluster has no parent, and so no history.
    if (timeline.timeline === 1) timeline.switches ??= []
    const segmentBytes = timeline.segmentBytes ?? cluster.segmentBytes
    timeline.segmentBytes = segmentBytes
    if (segmentBytes === undefined) {
      timeline.backups = timeline.backups.filter(({ startLsn }) => startLsn !== unknownStart)
      continue
    }
    for (const backup of timeline.backups) {
      if (backup.startLsn === unknownStart) backup.startLsn = backupStart(backup.name, segmentBytes)
    }
    timeline.backups.sort((a, b) => (a.startLsn < b.startLsn ? -1 : 1))
    known.push({ ...timeline, segmentBytes, stored: storedRange(timeline, segmentBytes) })
  }
  cluster.hasBackups = [...cluster.timelines.values()].some(({ backups }) => backups.length > 0)
  cluster.needs = walLineage(known)
}

function storedRange(timeline: SurveyedTimeline, segmentBytes: number): WalRange | undefined {
  const { firstSegment, newestSegment } = timeline
  if (firstSegment === undefined || newestSegment === undefined) return undefined
  const first = rangeOfSegment(firstSegment, segmentBytes)
  const newest = rangeOfSegment(newestSegment, segmentBytes)
  return first && newest && { from: first.from, to: newest.to }
}

/** The WAL that a segment holds; `undefined` where no segment of that size has such a name. */
export function rangeOfSegment(name: string, segmentBytes: number): WalRange | undefined {
  const position = segmentPosition(name, segmentBytes)
  if (segmentName(position, segmentBytes) !== name.slice(0, 24)) return undefined
  const from = position.segment * BigInt(segmentBytes)
  return { from, to: from + BigInt(segmentBytes) }
}

/** What an object says about the size of segments; `undefined` where that is no size a cluster can have. */
export function segmentBytesIn(metadata: ObjectMetadata): number | undefined {
  const isSegment = walFileKind(metadata.name) === 'segment'
  const bytes = metadata.wal_segment_size ?? (isSegment ? metadata.plaintext_length : 0)
  return bytes >= 1024 ** 2 && bytes <= 1024 ** 3 && isPowerOfTwo(bytes) ? bytes : undefined
}

async function segmentBytesOf(repository: Repository, { key }: ListedObject): Promise<number | undefined> {
  try {
    const opened = await repository.open(key, { bytesWanted: metadataBlockBytes })
    if (opened === undefined) return undefined
    await using _object = opened.object
    return segmentBytesIn(opened.metadata)
  } catch (thrown) {
    // The second look says what is wrong with it.
    if (thrown instanceof RepositoryError) return undefined
    throw thrown
  }
}

async function readText(object: WalObject, options: SurveyOptions): Promise<Reading> {
  const { repository, identities } = options
  const pieces: Uint8Array[] = []
  let length = 0
  try {
    const isThere = await repository.fetch({ ...object, identities }, async bytes => {
      length += bytes.length
      if (length <= historyBytesMax) pieces.push(bytes)
    })
    if (!isThere || length > historyBytesMax) return 'unusable'
    return { text: Buffer.concat(pieces).toString('utf8') }
  } catch (thrown) {
    if (!(thrown instanceof RepositoryError)) throw thrown
    if (thrown.code === 'NO_KEY' || thrown.code === 'WRONG_KEY') return 'encrypted'
    if (thrown.code === 'NO_MARKER' || thrown.code === 'OTHER_REPOSITORY') throw thrown
    return 'unusable'
  }
}

function isPowerOfTwo(count: number): boolean {
  return (count & (count - 1)) === 0
}
