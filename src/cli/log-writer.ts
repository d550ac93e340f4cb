import { writeSync } from 'node:fs'
import type { LogFormat } from '../archiver/messages.ts'
import { type AnyLevel, type Log, logLevels } from '../contract/error-report.ts'
import { jsonLine, textLines } from '../observe/log-line.ts'
import { errnoCode } from '../system/system-error.ts'

const stderr = 2
const fullPipeWaitsMax = 1_000 // of a millisecond each

export interface LogWriterOptions {
  format: LogFormat
  /** Messages below this level are dropped; asked each time, because it is a setting. */
  minLevel: () => AnyLevel
}

/**
 * Writes the log to standard error, each message with one synchronous write: a line is out before the next thing
 * happens, also before the end of the process, and lines of several processes do not mix.
 */
export function logWriter({ format, minLevel }: LogWriterOptions): Log {
  const formatted = format === 'json' ? jsonLine : textLines
  return message => {
    if (logLevels.indexOf(message.level) < logLevels.indexOf(minLevel())) return
    write(formatted(message, { time: Date.now(), pid: process.pid }))
  }
}

// A reader that has stopped reading is waited for once, not with every message.
let isStuck = false

function write(text: string): void {
  const bytes = Buffer.from(text)
  for (let written = 0, waits = 0; written < bytes.length; ) {
    try {
      written += writeSync(stderr, bytes, written)
      isStuck = false
    } catch (thrown) {
      // A log that nobody reads (EPIPE) or that has no room (ENOSPC) must not stop archiving. A pipe that is full for
      // the moment (EAGAIN) is tried again for a second: its reader may be slow.
      if (errnoCode(thrown) !== 'EAGAIN' || isStuck || ++waits > fullPipeWaitsMax) {
        isStuck = true
        return
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}
