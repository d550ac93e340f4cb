import type { CatchUpReport } from '../repository/catch-up.ts'
import { bytesText, withoutControls } from './verify-text.ts'

/** What several repositories have and lack of each other, for people. */
export function comparisonText(report: CatchUpReport): string {
  const lines = [
    `cluster ${report.system_identifier}: ${report.compared} WAL files compared in ${report.repositories.length} repositories`,
  ]
  for (const { repository, lacking, copied, copied_bytes, error } of report.repositories) {
    const done = report.dry_run ? '' : `, ${copied} copied (${bytesText(copied_bytes)})`
    const left = error === null ? '' : `; not all of it could be compared: ${error}`
    lines.push(`  "${repository}" lacks ${lacking} that others have${done}${left}`)
  }
  for (const kind of [report.differing, report.failed]) {
    for (const message of kind.shown) lines.push(`  ${message}`)
    const more = kind.count - kind.shown.length
    if (more > 0) lines.push(`  and ${more} more`)
  }
  return `${lines.map(withoutControls).join('\n')}\n`
}
