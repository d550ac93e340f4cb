import { parseLsn, segmentPosition } from './segment-position.ts'

/** What the history file of a base backup tells, as far as restoring from it needs it. */
export interface BackupHistory {
  /** Recovery begins here. */
  startLsn: bigint
  /** And is consistent from here on, at the earliest. */
  stopLsn: bigint
  /** In the server's own words and time zone. */
  startTime: string | undefined
  label: string | undefined
}

/** Where the backup began, which the name of the file tells as well: segment and offset. */
export function backupStart(name: string, segmentBytes: number): bigint {
  const { segment } = segmentPosition(name, segmentBytes)
  return segment * BigInt(segmentBytes) + BigInt(Number.parseInt(name.slice(25, 33), 16))
}

/** Reads the content of a backup history; `undefined` where it does not say from where to where the backup goes. */
export function parseBackupHistory(text: string): BackupHistory | undefined {
  const [startLsn, stopLsn] = [
    lsnIn(text, /^START WAL LOCATION: (\S+) \(file [0-9A-F]{24}\)$/m),
    lsnIn(text, /^STOP WAL LOCATION: (\S+) \(file [0-9A-F]{24}\)$/m),
  ]
  if (startLsn === undefined || stopLsn === undefined || stopLsn < startLsn) return undefined
  return {
    startLsn,
    stopLsn,
    startTime: /^START TIME: (.+)$/m.exec(text)?.[1],
    label: /^LABEL: (.*)$/m.exec(text)?.[1],
  }
}

function lsnIn(text: string, pattern: RegExp): bigint | undefined {
  return parseLsn(pattern.exec(text)?.[1] ?? '')
}
