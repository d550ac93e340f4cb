import type {
  ClusterReport,
  FindingsOfKind,
  RestoreReach,
  TimelineReport,
  VerifyReport,
} from '../repository/verify-report.ts'

const kibibyte = 1024

/** The report for people. */
export function verifyText(report: VerifyReport): string {
  const lines = [`repository ${report.repository}`, '']
  for (const cluster of report.clusters) lines.push(...clusterLines(cluster), '')
  lines.push(...listLines('findings', report.findings), ...listLines('notes', report.notes))
  lines.push(resultLine(report), '')
  return lines.map(withoutControls).join('\n')
}

function clusterLines({ system_identifier, wal_segment_size, timelines }: ClusterReport): string[] {
  const size = wal_segment_size === null ? 'unknown size' : bytesText(wal_segment_size)
  return [`cluster ${system_identifier}, segments of ${size}`, ...timelines.flatMap(timelineLines)]
}

function timelineLines(timeline: TimelineReport): string[] {
  const { parent, first_segment, newest_segment, segments, partial_segments, backup_histories } = timeline
  const origin = parent === null ? '' : `, from timeline ${parent.timeline} at ${parent.lsn}`
  const names = first_segment === null ? '' : `: ${first_segment} to ${newest_segment}`
  const counts = [
    counted(segments, 'segment', 'segments'),
    ...(backup_histories > 0 ? [counted(backup_histories, 'backup history', 'backup histories')] : []),
    ...(partial_segments.count > 0
      ? [
          `${counted(partial_segments.count, 'partial segment', 'partial segments')} (${partial_segments.shown.join(', ')})`,
        ]
      : []),
    `${bytesText(timeline.plaintext_bytes)} stored as ${bytesText(timeline.stored_bytes)}`,
  ]
  const missing = timeline.missing_segments
  return [
    `  timeline ${timeline.timeline}${origin}${names}`,
    `    ${counts.join(', ')}`,
    ...(missing > 0 ? [`    ${counted(missing, 'segment is', 'segments are')} missing`] : []),
    `    ${restoreText(timeline.restore)}`,
  ]
}

function restoreText(restore: RestoreReach | null): string {
  if (restore === null) return 'nothing can be restored on it'
  const { from, to, backup } = restore
  const on = from.timeline === to.timeline ? '' : ` on timeline ${from.timeline}`
  const start =
    backup === null ? '' : ` (${backup.name}${backup.started_at === null ? '' : `, ${backup.started_at}`})`
  const oldest =
    backup === null
      ? `a base backup begun at ${from.lsn}${on} or later; none is known here`
      : `base backups begun at ${from.lsn}${on} or later, the oldest known one${start}`
  return `can be restored up to ${to.lsn} (written ${to.written_at}) from ${oldest}`
}

function listLines(title: string, kinds: readonly FindingsOfKind<string>[]): string[] {
  if (kinds.length === 0) return []
  const lines = [title]
  for (const { kind, count, hint, shown } of kinds) {
    lines.push(`  ${kind} (${count})`, ...shown.map(({ message }) => `    ${message}`))
    if (count > shown.length) lines.push(`    … and ${count - shown.length} more`)
    lines.push(`    HINT: ${hint}`)
  }
  return [...lines, '']
}

function resultLine({ status, objects, bytes, findings, decoded, removed_meanwhile }: VerifyReport): string {
  const removed = removed_meanwhile === 0 ? '' : `, ${removed_meanwhile} more were removed meanwhile`
  const read = `${counted(objects, 'object', 'objects')}, ${bytesText(bytes)}, ${decoded ? 'decoded' : 'read'}${removed}`
  switch (status) {
    case 'ok':
      return `all right: ${read}`
    case 'findings': {
      const count = findings.reduce((sum, each) => sum + each.count, 0)
      return `${counted(count, 'finding', 'findings')}: ${read}`
    }
    case 'incomplete':
      return `not complete: ${read}; gaps were not looked for`
    default:
      return status satisfies never
  }
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`
}

/** In the server's units, which are powers of 1024. */
export function bytesText(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB'] as const
  let value = bytes
  let unit = 0
  for (; value >= kibibyte && unit < units.length - 1; unit++) value /= kibibyte
  return `${unit === 0 || Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`
}

/** Whoever may name a file there must not be able to write to this terminal. */
export function withoutControls(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, character => {
    const hex = (character.codePointAt(0) ?? 0).toString(16)
    return `\\u{${hex}}`
  })
}
