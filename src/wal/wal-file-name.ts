/**
 * Names of the files that a server archives, as PostgreSQL's `access/xlog_internal.h` defines them:
 *
 * | kind             | name                            | example                                    |
 * |------------------|---------------------------------|--------------------------------------------|
 * | segment          | timeline, log, segment          | `00000001000000A900000065`                 |
 * | partial segment  | segment `.partial`              | `00000001000000A900000065.partial`         |
 * | backup history   | segment, offset, `.backup`      | `00000001000000A900000065.00000028.backup` |
 * | timeline history | timeline `.history`             | `00000002.history`                         |
 */
export type WalFileKind = 'segment' | 'partial segment' | 'backup history' | 'timeline history'

const timelineHistory = /^[0-9A-F]{8}\.history$/

const patterns: ReadonlyArray<readonly [WalFileKind, RegExp]> = [
  ['segment', /^[0-9A-F]{24}$/],
  ['timeline history', timelineHistory],
  ['backup history', /^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$/],
  ['partial segment', /^[0-9A-F]{24}\.partial$/],
]

/** What kind of WAL file the name stands for; `undefined` for any other name. */
export function walFileKind(name: string): WalFileKind | undefined {
  return patterns.find(([, pattern]) => pattern.test(name))?.[0]
}

export function isTimelineHistory(name: string): boolean {
  return timelineHistory.test(name)
}
