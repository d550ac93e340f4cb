import type { LogMessage } from '../contract/error-report.ts'

/** When a message was written, and by which process. */
export interface LogOrigin {
  /** Milliseconds since the epoch. */
  time: number
  pid: number
}

/**
 * A message as PostgreSQL writes it with its default `log_line_prefix`, always in UTC:
 *
 *     2026-11-21 10:15:00.250 UTC [4711] LOG:  database system is ready to accept connections
 */
export function textLines(message: LogMessage, { time, pid }: LogOrigin): string {
  const prefix = `${new Date(time).toISOString().replace('T', ' ').replace('Z', ' UTC')} [${pid}]`
  const line = (label: string, text: string) => `${prefix} ${label}:  ${text.replaceAll('\n', '\n\t')}\n`
  let lines = line(message.level.startsWith('DEBUG') ? 'DEBUG' : message.level, message.errmsg)
  if (message.errdetail) lines += line('DETAIL', message.errdetail)
  if (message.errhint) lines += line('HINT', message.errhint)
  return lines
}

/** A message as one line of JSON, with the keys of PostgreSQL's `jsonlog`. */
export function jsonLine(message: LogMessage, { time, pid }: LogOrigin): string {
  const entry = {
    timestamp: new Date(time).toISOString(),
    pid,
    error_severity: message.level,
    state_code: message.errcode,
    message: message.errmsg,
    detail: message.errdetail,
    hint: message.errhint,
    backend_type: 'archiver',
  }
  return `${JSON.stringify(entry)}\n`
}
