/** What module authors import, types mostly: `import type { ArchiveServer } from 'pgarchivist'`. */
export type {
  ArchiveFileContext,
  ArchiveModuleCallbacks,
  ArchiveModuleInit,
  ArchiveModuleState,
} from './archive-module.ts'
export type { ArchiveServer } from './archive-server.ts'
export {
  type BackgroundWorker,
  type BackgroundWorkerContext,
  type BackgroundWorkerMain,
  BGW_NEVER_RESTART,
  type BgWorkerStartTime,
} from './background-worker.ts'
export type { AnyLevel, ErrorReport, LogLevel, ThrowingLevel } from './error-report.ts'
export type {
  GucBool,
  GucCheck,
  GucContext,
  GucDeclaration,
  GucEnum,
  GucFlag,
  GucInt,
  GucReal,
  GucSource,
  GucString,
  GucUnit,
  GucVariable,
} from './guc.ts'
