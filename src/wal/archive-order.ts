import { isTimelineHistory } from './wal-file-name.ts'

/**
 * Sorts names into the order in which files are archived, as `ready_file_comparator` of `pgarch.c` has it: timeline
 * history files first, because a standby that looks for the newest timeline must not miss one that waits behind
 * segments; then by name, byte by byte, which puts older timelines and segments first.
 */
export function inArchiveOrder(names: readonly string[]): string[] {
  // Names are ASCII, for which the default order, that of UTF-16 code units, is the order of the bytes.
  const histories = names.filter(isTimelineHistory).sort()
  const others = names.filter(name => !isTimelineHistory(name)).sort()
  return [...histories, ...others]
}
