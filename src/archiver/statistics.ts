/** The columns of `pg_stat_archiver`, times in ISO 8601. */
export interface ArchiverStatistics {
  archived_count: number
  last_archived_wal: string | null
  last_archived_time: string | null
  failed_count: number
  last_failed_wal: string | null
  last_failed_time: string | null
  stats_reset: string
}

/** Statistics of an archiver that has not done anything yet. `now` is in milliseconds since the epoch. */
export function newStatistics(now: number): ArchiverStatistics {
  return {
    archived_count: 0,
    last_archived_wal: null,
    last_archived_time: null,
    failed_count: 0,
    last_failed_wal: null,
    last_failed_time: null,
    stats_reset: new Date(now).toISOString(),
  }
}

/** Every attempt counts: a file that fails three times and then succeeds gives three failures and a success. */
export function countArchived(statistics: ArchiverStatistics, file: string, now: number): void {
  statistics.archived_count++
  statistics.last_archived_wal = file
  statistics.last_archived_time = new Date(now).toISOString()
}

export function countFailed(statistics: ArchiverStatistics, file: string, now: number): void {
  statistics.failed_count++
  statistics.last_failed_wal = file
  statistics.last_failed_time = new Date(now).toISOString()
}

/** Reads what `JSON.stringify` wrote; `undefined` for anything else, because losing statistics loses nothing else. */
export function parseStatistics(text: string): ArchiverStatistics | undefined {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined
  const fields = parsed as Record<keyof ArchiverStatistics, unknown>
  const isText = (value: unknown) => value === null || typeof value === 'string'
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
  const isWhole =
    isCount(fields.archived_count) &&
    isText(fields.last_archived_wal) &&
    isText(fields.last_archived_time) &&
    isCount(fields.failed_count) &&
    isText(fields.last_failed_wal) &&
    isText(fields.last_failed_time) &&
    typeof fields.stats_reset === 'string'
  return isWhole ? (parsed as ArchiverStatistics) : undefined
}
