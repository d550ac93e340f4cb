import type { Clock } from '../system/clock.ts'
import { FileError } from '../system/system-error.ts'
import { timelineHistoryName, timelineOf, timelineText } from '../wal/timeline-history.ts'
import { type CheckedObject, checkWalObject } from './check-wal-object.ts'
import { mapInOrder } from './map-in-order.ts'
import {
  isSystemIdentifier,
  markerKey,
  parseWalObjectKey,
  type WalObject,
  walObjectKey,
  walPrefix,
} from './object-key.ts'
import type { Repository } from './repository.ts'
import { RepositoryError } from './repository-error.ts'
import type { ListedObject, UnfinishedWrite } from './store/store.ts'
import { isUnfinishedWrite } from './store/unfinished-write.ts'
import { type SurveyedCluster, surveyRepository } from './survey.ts'
import { newestGapsHeld, type SegmentRange, segmentsIn, TimelineCheck } from './timeline-check.ts'
import {
  type ClusterReport,
  type FindingKind,
  FindingLog,
  findingKinds,
  type NoteKind,
  noteKinds,
  type TimelineReport,
  type VerifyReport,
} from './verify-report.ts'
import type { TimelineNeeds } from './wal-lineage.ts'

// Enough for people to see what it is about, and for a program to fetch these files again.
const findingsShownMax = 100

// Of a long gap, only the ends may be gaps no more: it is closed from there, or was never real.
const gapEndsLookedAt = 32

// A file that works its way into the repository while later ones are there already needs seconds, not minutes.
const newestLooks = 4
const newestLooksApartMs = 1_000

export interface VerifyOptions {
  repository: Repository
  clock: Pick<Clock, 'sleep'>
  /** All clusters where none is named. */
  systemIdentifier?: string | undefined
  /** A cluster of which something has to be there, also where all are looked at. */
  expectedCluster?: string | undefined
  /** All timelines where none is named. */
  timelines?: readonly number[] | undefined
  /** How many objects are read at once. */
  jobs: number
  /** Private keys; none where there are none. */
  identities: () => Promise<readonly string[]>
  /** Decode every object, too? */
  decode: boolean
  /** Writes that were cut off long ago, where the store can tell. */
  unfinishedWrites?: () => AsyncIterable<UnfinishedWrite>
  progress?: (progress: VerifyProgress) => void
  findingsShownMax?: number
}

export interface VerifyProgress {
  /** First names are looked at, then objects are read. */
  phase: 'looking' | 'reading'
  objects: number
  bytes: number
  objectsTotal: number
  bytesTotal: number
}

/**
 * Is every object there, readable and right? Changes nothing, and never throws for what it finds. It goes through all
 * names twice: the second time it reads every object, and knows from the first what each of them is needed for. What it
 * keeps meanwhile grows with timelines and base backups, not with segments.
 */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  return await new Verification(options).run()
}

interface CheckedCluster {
  surveyed: SurveyedCluster | undefined
  timelines: Map<number, TimelineCheck>
}

class Verification {
  readonly #options: VerifyOptions
  readonly #repository: Repository
  readonly #findings: FindingLog<FindingKind>
  readonly #notes: FindingLog<NoteKind>
  readonly #clusters = new Map<string, CheckedCluster>()
  readonly #reports: ClusterReport[] = []
  #objects = 0
  #bytes = 0
  #removed = 0
  /** What could not even be listed, by its message. */
  readonly #unlisted = new Map<string, unknown>()

  constructor(options: VerifyOptions) {
    this.#options = options
    this.#repository = options.repository
    const shownMax = options.findingsShownMax ?? findingsShownMax
    this.#findings = new FindingLog(findingKinds, shownMax)
    this.#notes = new FindingLog(noteKinds, shownMax)
  }

  async run(): Promise<VerifyReport> {
    const error = await this.#lookAtAll().then(
      () => null,
      (thrown: unknown) => asError(thrown),
    )
    if (error !== null && this.#reports.length === 0) this.#reportWithoutGaps()
    return {
      version: 1,
      repository: this.#repository.url,
      status: error !== null ? 'incomplete' : this.#findings.isEmpty ? 'ok' : 'findings',
      error,
      decoded: this.#options.decode,
      objects: this.#objects,
      bytes: this.#bytes,
      removed_meanwhile: this.#removed,
      clusters: this.#reports,
      findings: this.#findings.all,
      notes: this.#notes.all,
    }
  }

  async #lookAtAll(): Promise<void> {
    await this.#repository.requireRepository()
    const clusters = await this.#survey(this.#prefix)
    this.#requireWanted(clusters)
    const total = this.#total(clusters)
    for (const prefix of this.#prefixes(clusters)) await this.#readObjects(prefix, clusters, total)
    // Everything else was looked at; but what is missing there cannot be told.
    for (const thrown of this.#unlisted.values()) throw thrown
    for (const [systemIdentifier, cluster] of this.#clusters) {
      this.#reports.push(await this.#finishCluster(systemIdentifier, cluster))
    }
    for await (const { key, length } of this.#options.unfinishedWrites?.() ?? []) {
      const message = `"${key}" is a write that has not ended (${length} bytes)`
      this.#notes.add('unfinished_write', { message, key })
    }
    // What was gone may have been gone because the disk was.
    await this.#repository.requireRepository()
    this.#tellNothingArchived(clusters)
  }

  /** What has gone as a whole leaves no gap behind that would tell. */
  #tellNothingArchived(surveyed: ReadonlyMap<string, SurveyedCluster>): void {
    const { url } = this.#repository
    const cluster = this.#options.expectedCluster
    if (cluster !== undefined) {
      if (surveyed.has(cluster) || this.#clusters.has(cluster)) return
      const message = `repository "${url}" has no file of the cluster with system identifier ${cluster}`
      this.#findings.add('nothing_archived', { message, system_identifier: cluster })
    } else if (surveyed.size === 0 && this.#clusters.size === 0) {
      this.#findings.add('nothing_archived', { message: `repository "${url}" has no file of any cluster` })
    }
  }

  get #prefix(): string {
    const { systemIdentifier } = this.#options
    return systemIdentifier === undefined ? '' : `${systemIdentifier}/`
  }

  async #survey(prefix: string, tell = this.#options.progress) {
    const { jobs, identities } = this.#options
    return await surveyRepository({
      repository: this.#repository,
      prefix,
      jobs,
      identities,
      unreadable: thrown => this.#tellUnlisted(thrown),
      counted: names =>
        tell?.({ phase: 'looking', objects: names, bytes: 0, objectsTotal: 0, bytesTotal: 0 }),
    })
  }

  #list(prefix: string): AsyncIterable<ListedObject> {
    return this.#repository.store.list(prefix, { unreadable: thrown => this.#tellUnlisted(thrown) })
  }

  #tellUnlisted(thrown: unknown): void {
    if (!(thrown instanceof RepositoryError)) throw thrown
    const { message, cause } = thrown
    // Both looks come here.
    if (this.#unlisted.has(message)) return
    this.#unlisted.set(message, thrown)
    const code = cause instanceof FileError ? cause.code : undefined
    this.#findings.add('unreadable', { message, ...(code !== undefined && { code }) })
  }

  #requireWanted(clusters: ReadonlyMap<string, SurveyedCluster>): void {
    const { systemIdentifier, timelines } = this.#options
    const { url } = this.#repository
    if (systemIdentifier !== undefined && !clusters.has(systemIdentifier)) {
      const message = `repository "${url}" has no file of a cluster with system identifier ${systemIdentifier}`
      throw new RepositoryError('UNKNOWN_CLUSTER', message)
    }
    const known = new Set([...clusters.values()].flatMap(cluster => [...cluster.timelines.keys()]))
    const unknown = timelines?.find(each => !known.has(each))
    if (unknown !== undefined) {
      throw new RepositoryError('SETTINGS', `repository "${url}" has no file of timeline ${unknown}`, {
        hint: 'Name a timeline that is there, or none.',
      })
    }
  }

  #prefixes(clusters: ReadonlyMap<string, SurveyedCluster>): string[] {
    const { timelines } = this.#options
    if (timelines === undefined) return [this.#prefix]
    const wanted = timelines.toSorted((a, b) => a - b)
    return [...clusters].flatMap(([systemIdentifier, cluster]) =>
      wanted
        .filter(each => cluster.timelines.has(each))
        .map(each => walPrefix(systemIdentifier, timelineText(each))),
    )
  }

  #total(clusters: ReadonlyMap<string, SurveyedCluster>): { objects: number; bytes: number } {
    const { timelines } = this.#options
    const total = { objects: 0, bytes: 0 }
    for (const cluster of clusters.values()) {
      for (const { timeline, objects, bytes } of cluster.timelines.values()) {
        if (timelines?.includes(timeline) === false) continue
        total.objects += objects
        total.bytes += bytes
      }
    }
    return total
  }

  async #readObjects(
    prefix: string,
    surveyed: ReadonlyMap<string, SurveyedCluster>,
    total: { objects: number; bytes: number },
  ): Promise<void> {
    const { jobs, decode, identities, progress } = this.#options
    const checks = mapInOrder(this.#list(prefix), jobs, async listed => {
      const object = parseWalObjectKey(listed.key)
      if (object === undefined) return { listed }
      const checked = await checkWalObject(
        this.#repository,
        { ...listed, ...object },
        { decode: decode ? identities : undefined },
      )
      return { listed, found: { object, checked } }
    })
    let current: TimelineCheck | undefined
    for await (const { listed, found } of checks) {
      if (found === undefined) {
        this.#tellStranger(listed)
        continue
      }
      const timeline = this.#timeline(found.object, surveyed.get(found.object.systemIdentifier))
      if (timeline !== current) current?.end()
      current = timeline
      this.#takeIn(timeline, listed, found)
      this.#objects++
      this.#bytes += listed.length
      progress?.({
        phase: 'reading',
        objects: this.#objects,
        bytes: this.#bytes,
        objectsTotal: total.objects,
        bytesTotal: total.bytes,
      })
    }
    current?.end()
  }

  #timeline({ systemIdentifier, name }: WalObject, surveyed: SurveyedCluster | undefined): TimelineCheck {
    let cluster = this.#clusters.get(systemIdentifier)
    if (cluster === undefined) {
      cluster = { surveyed, timelines: new Map() }
      this.#clusters.set(systemIdentifier, cluster)
    }
    const timeline = timelineOf(name)
    let check = cluster.timelines.get(timeline)
    if (check === undefined) {
      check = this.#newTimeline(timeline, cluster)
      cluster.timelines.set(timeline, check)
    }
    return check
  }

  #newTimeline(timeline: number, { surveyed, timelines }: CheckedCluster): TimelineCheck {
    const needs = surveyed?.needs.get(timeline)
    return new TimelineCheck({
      timeline,
      surveyed: surveyed?.timelines.get(timeline),
      needs,
      segmentBytes: surveyed?.timelines.get(timeline)?.segmentBytes ?? surveyed?.segmentBytes,
      hasBackups: surveyed?.hasBackups ?? false,
      predecessor: needs?.predecessor === undefined ? undefined : timelines.get(needs.predecessor),
      gapsHeldMax: this.#options.findingsShownMax ?? findingsShownMax,
    })
  }

  #takeIn(
    timeline: TimelineCheck,
    { key, length }: ListedObject,
    { object, checked }: { object: WalObject; checked: CheckedObject },
  ): void {
    const about = { key, system_identifier: object.systemIdentifier, timeline: timeline.timeline }
    const isRightSize = timeline.add(object.name, length, checked)
    if (checked.kind === 'removed') this.#removed++
    if (checked.kind === 'faulty') {
      const { fault, message, code } = checked
      this.#findings.add(fault, { message, ...about, ...(code !== undefined && { code }) })
    }
    if (!isRightSize && checked.kind !== 'removed') {
      const { plaintext_length, wal_segment_size } = checked.metadata ?? {}
      const size = wal_segment_size == null ? '' : `, the segment size of its cluster is ${wal_segment_size}`
      this.#findings.add('wrong_size', {
        message: `"${key}" is no segment that this cluster can have: it holds ${plaintext_length} bytes${size}`,
        ...about,
      })
    }
  }

  #tellStranger({ key }: ListedObject): void {
    // Writes that have not ended come and go.
    if (key === markerKey || isUnfinishedWrite(key.slice(key.lastIndexOf('/') + 1))) return
    const [cluster = '', room] = key.split('/')
    const finding = { message: `"${key}" is not an object of a repository`, key }
    if (room === 'wal' && isSystemIdentifier(cluster)) this.#findings.add('stranger', finding)
    else this.#notes.add('stranger', finding)
  }

  async #finishCluster(systemIdentifier: string, cluster: CheckedCluster): Promise<ClusterReport> {
    const { surveyed, timelines } = cluster
    // A timeline that nothing at all is left of may be needed all the same.
    for (const [timeline, { to }] of this.#options.timelines === undefined ? (surveyed?.needs ?? []) : []) {
      if (to === undefined || timelines.has(timeline)) continue
      timelines.set(timeline, this.#newTimeline(timeline, cluster))
    }
    const checks = [...timelines.values()].sort((a, b) => a.timeline - b.timeline)
    this.#tellSizes(systemIdentifier, checks)
    const missing = await this.#tellGaps(systemIdentifier, surveyed, checks)
    const reports: TimelineReport[] = []
    for (const check of checks) {
      await this.#tellHistory(systemIdentifier, surveyed, check)
      this.#tellUnneeded(systemIdentifier, check)
      reports.push(check.report(missing.get(check.timeline) ?? 0))
    }
    return clusterReport(systemIdentifier, surveyed, reports)
  }

  /** Where not everything could be looked at, nothing is called missing. */
  #reportWithoutGaps(): void {
    for (const [systemIdentifier, { surveyed, timelines }] of this.#clusters) {
      const reports = [...timelines.values()].map(check => ({ ...check.report(0), restore: null }))
      this.#reports.push(clusterReport(systemIdentifier, surveyed, reports))
    }
  }

  #tellSizes(systemIdentifier: string, checks: readonly TimelineCheck[]): void {
    const sizes = new Map<number, { name: string; timeline: number }>()
    for (const check of checks) {
      for (const [bytes, name] of check.segmentSizes) {
        if (!sizes.has(bytes)) sizes.set(bytes, { name, timeline: check.timeline })
      }
    }
    if (sizes.size < 2) return
    const told = [...sizes].map(([bytes, { name }]) => `${bytes} bytes from "${name}" on`).join(', ')
    this.#findings.add('mixed_segment_sizes', {
      message: `cluster ${systemIdentifier} has segments of several sizes: ${told}`,
      system_identifier: systemIdentifier,
    })
  }

  /** Returns how many segments are missing on each timeline. */
  async #tellGaps(
    systemIdentifier: string,
    surveyed: SurveyedCluster | undefined,
    checks: readonly TimelineCheck[],
  ): Promise<Map<number, number>> {
    const missing = new Map<number, number>()
    const suspicious = checks.filter(check => {
      const { held, unheld } = check.gaps(surveyed?.needs.get(check.timeline))
      return held.length > 0 || unheld.count > 0
    })
    if (suspicious.length === 0) return missing
    // Expiry removes from the old end, perhaps since the first look: what nothing begins before any more is no gap.
    const again = (await this.#survey(`${systemIdentifier}/`, undefined)).get(systemIdentifier)
    for (const check of suspicious) {
      const needs = stillNeeded(surveyed?.needs.get(check.timeline), again?.needs.get(check.timeline))
      if (needs === undefined) continue
      const { held, unheld } = check.gaps(needs)
      let segments = 0
      for (const gap of await this.#stillMissing(systemIdentifier, check, held)) {
        const { first, last, count } = segmentsIn(check.timeline, gap)
        segments += count
        this.#findings.add('missing', {
          message: gapMessage(check, gap),
          system_identifier: systemIdentifier,
          timeline: check.timeline,
          first,
          last,
          count,
        })
      }
      if (unheld.count > 0) this.#findings.add('missing', undefined, unheld.count)
      missing.set(check.timeline, segments + unheld.segments)
    }
    return missing
  }

  async #stillMissing(
    systemIdentifier: string,
    check: TimelineCheck,
    gaps: readonly SegmentRange[],
  ): Promise<SegmentRange[]> {
    const { timeline, newestEnd = 0n } = check
    const look = (some: readonly SegmentRange[]) => this.#lookAgain(systemIdentifier, timeline, some)
    const isNewest = ({ to, segmentBytes }: SegmentRange) =>
      newestEnd - to < BigInt(newestGapsHeld) * BigInt(segmentBytes)
    const left = await look(gaps)
    const old = left.filter(gap => !isNewest(gap))
    let newest = left.filter(isNewest)
    for (let looks = 1; looks < newestLooks && newest.length > 0; looks++) {
      await this.#options.clock.sleep(newestLooksApartMs)
      newest = await look(newest)
    }
    return [...old, ...newest]
  }

  /** What is left of gaps when what has been archived meanwhile is taken out. */
  async #lookAgain(
    systemIdentifier: string,
    timeline: number,
    gaps: readonly SegmentRange[],
  ): Promise<SegmentRange[]> {
    const left: SegmentRange[] = []
    for (const gap of gaps) {
      const size = BigInt(gap.segmentBytes)
      let { from } = gap
      for (let at = gap.from; at < gap.to; at += size) {
        const isInside =
          at - gap.from >= size * BigInt(gapEndsLookedAt) && gap.to - at > size * BigInt(gapEndsLookedAt)
        if (isInside) at = gap.to - size * BigInt(gapEndsLookedAt)
        const { first } = segmentsIn(timeline, { ...gap, from: at, to: at + size })
        if (!(await this.#isThere({ systemIdentifier, name: first }))) continue
        if (at > from) left.push({ ...gap, from, to: at })
        from = at + size
      }
      if (gap.to > from) left.push({ ...gap, from })
    }
    return left
  }

  /** Is there an object of this name after all? One that cannot be opened is told, and is not missing. */
  async #isThere({ systemIdentifier, name }: WalObject): Promise<boolean> {
    const key = walObjectKey(systemIdentifier, name)
    try {
      await using object = await this.#repository.store.open(key, { bytesWanted: 1 })
      return object !== undefined
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError)) throw thrown
      // Something of this name that is no object, as a directory.
      if (thrown.code === 'CORRUPT') return false
      const about = { key, system_identifier: systemIdentifier, timeline: timelineOf(name) }
      this.#findings.add('unreadable', { message: thrown.message, ...about })
      return true
    }
  }

  async #tellHistory(
    systemIdentifier: string,
    surveyed: SurveyedCluster | undefined,
    { timeline, segments, firstSegment }: TimelineCheck,
  ): Promise<void> {
    const about = { system_identifier: systemIdentifier, timeline }
    const { hasHistory, historyIs, badBackups } = surveyed?.timelines.get(timeline) ?? { badBackups: [] }
    const name = timelineHistoryName(timeline)
    const key = walObjectKey(systemIdentifier, name)
    if (!hasHistory && timeline > 1 && segments > 0 && !(await this.#isThere({ systemIdentifier, name }))) {
      const message = `"${name}" of cluster ${systemIdentifier} is missing, and there are segments of its timeline, as "${firstSegment}"`
      this.#findings.add('missing_history', { message, key, ...about })
    }
    if (hasHistory && historyIs === 'bad') {
      const message = `"${name}" of cluster ${systemIdentifier} is not a timeline history`
      this.#findings.add('bad_history', { message, key, ...about })
    }
    if (hasHistory && historyIs === 'encrypted') {
      const message = `where timeline ${timeline} of cluster ${systemIdentifier} branched off is not known, because "${name}" is encrypted`
      this.#notes.add('unknown_lineage', { message, key, ...about })
    }
    for (const each of badBackups) {
      const message = `"${each}" of cluster ${systemIdentifier} does not say where the backup began and ended`
      this.#notes.add('bad_backup_history', { message, key: walObjectKey(systemIdentifier, each), ...about })
    }
  }

  #tellUnneeded(systemIdentifier: string, check: TimelineCheck): void {
    const { shown, count } = check.unneeded
    for (const gap of shown) {
      this.#notes.add('unneeded_gap', {
        message: `${gapMessage(check, gap)}; no restore needs it`,
        system_identifier: systemIdentifier,
        timeline: check.timeline,
        ...segmentsIn(check.timeline, gap),
      })
    }
    if (count > shown.length) this.#notes.add('unneeded_gap', undefined, count - shown.length)
  }
}

/** `undefined` where nothing needs the timeline any more. */
function stillNeeded(
  before: TimelineNeeds | undefined,
  now: TimelineNeeds | undefined,
): TimelineNeeds | undefined {
  return now?.from === undefined || before === undefined ? undefined : { ...before, from: now.from }
}

function gapMessage(check: TimelineCheck, gap: SegmentRange): string {
  const { first, last, count } = segmentsIn(check.timeline, gap)
  const names =
    count === 1 ? `segment "${first}" is missing` : `${count} segments are missing, "${first}" to "${last}"`
  const partial = check.partials.find(name => name >= first && name.slice(0, last.length) <= last)
  return partial === undefined ? names : `${names}; of its beginning there is "${partial}"`
}

function clusterReport(
  systemIdentifier: string,
  surveyed: SurveyedCluster | undefined,
  timelines: TimelineReport[],
): ClusterReport {
  return { system_identifier: systemIdentifier, wal_segment_size: surveyed?.segmentBytes ?? null, timelines }
}

function asError(thrown: unknown): VerifyReport['error'] {
  if (thrown instanceof RepositoryError) {
    return { message: thrown.message, detail: thrown.detail ?? null, hint: thrown.hint }
  }
  throw thrown
}
