import type { Settings } from '../host/settings.ts'

/** What the supervisor tells its archiver process. */
export type SupervisorMessage =
  | { type: 'start'; start: ArchiverStart }
  | { type: 'reload'; settings: Settings }
  | { type: 'stop' }
  | { type: 'abandon' }

/** All that an archiver process starts from. */
export interface ArchiverStart {
  dataDirectory: string
  settings: Settings
  logFormat: LogFormat
}

export type LogFormat = 'text' | 'json'

/** What an archiver process tells its supervisor. */
export type ArchiverMessage = { type: 'archived' } | { type: 'reload requested' }
