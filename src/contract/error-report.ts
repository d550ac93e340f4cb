/** Severities of `ereport`, least first, in the order in which `log_min_messages` ranks them. */
export const logLevels = [
  'DEBUG5',
  'DEBUG4',
  'DEBUG3',
  'DEBUG2',
  'DEBUG1',
  'INFO',
  'NOTICE',
  'WARNING',
  'ERROR',
  'LOG',
  'FATAL',
  'PANIC',
] as const

export type AnyLevel = (typeof logLevels)[number]
/** Levels after which `ereport` does not return. */
export type ThrowingLevel = 'ERROR' | 'FATAL' | 'PANIC'
/** Levels that only write to the log. */
export type LogLevel = Exclude<AnyLevel, ThrowingLevel>

/** What one message says, the arguments of PostgreSQL's `ereport`. */
export interface ErrorReport {
  /** The message: lower case at its start, no full stop, the thing that it is about in double quotes. */
  errmsg: string
  /** More facts, in whole sentences. */
  errdetail?: string | undefined
  /** What the reader can do about it, in whole sentences. */
  errhint?: string | undefined
  /** SQLSTATE, five characters. */
  errcode?: string | undefined
}

/** One message on its way to the log. */
export interface LogMessage extends ErrorReport {
  level: AnyLevel
}

/** Where messages go. */
export type Log = (message: LogMessage) => void

/**
 * What `ereport(ERROR | FATAL | PANIC, …)` throws, and what our own code throws for a condition that the server
 * would report in those words. `level` decides how far it goes: an ERROR ends the attempt, the others the process.
 */
export class ReportedError extends Error implements ErrorReport {
  override readonly name = 'ReportedError'
  readonly level: ThrowingLevel
  readonly errmsg: string
  readonly errdetail: string | undefined
  readonly errhint: string | undefined
  readonly errcode: string | undefined

  constructor(level: ThrowingLevel, report: ErrorReport, options?: ErrorOptions) {
    super(report.errmsg, options)
    this.level = level
    this.errmsg = report.errmsg
    this.errdetail = report.errdetail
    this.errhint = report.errhint
    this.errcode = report.errcode
  }
}

/** What to log for whatever was thrown: a module may throw anything, also things that are not errors. */
export function reportOf(thrown: unknown): ErrorReport {
  if (thrown instanceof ReportedError) {
    const { errmsg, errdetail, errhint, errcode } = thrown
    return { errmsg, errdetail, errhint, errcode }
  }
  if (thrown instanceof Error) {
    // Foreign code does not know our fields, but when it brings them under PostgreSQL's names they are welcome.
    const { errdetail, errhint } = thrown as { errdetail?: unknown; errhint?: unknown }
    return {
      errmsg: messageOf(thrown),
      errdetail: typeof errdetail === 'string' ? errdetail : causesOf(thrown),
      errhint: typeof errhint === 'string' ? errhint : undefined,
    }
  }
  return { errmsg: `archive module threw a value that is not an error: ${describe(thrown)}` }
}

function messageOf(error: Error): string {
  try {
    return error.message || error.name
  } catch {
    return 'an error without a readable message'
  }
}

const causesMax = 8 // a cause may point back at its own error

function causesOf(error: Error): string | undefined {
  const texts: string[] = []
  for (let cause = error.cause; cause instanceof Error && texts.length < causesMax; cause = cause.cause) {
    texts.push(messageOf(cause))
  }
  return texts.length > 0 ? `Caused by: ${texts.join(': ')}` : undefined
}

function describe(thrown: unknown): string {
  try {
    return String(thrown)
  } catch {
    return typeof thrown
  }
}
