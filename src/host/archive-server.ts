import type { ArchiveServer } from '../contract/archive-server.ts'
import type { BackgroundWorker } from '../contract/background-worker.ts'
import {
  type AnyLevel,
  type ErrorReport,
  type Log,
  logLevels,
  ReportedError,
} from '../contract/error-report.ts'
import type { GucRegistry } from './guc-registry.ts'

/** What a module may know of the cluster that it archives for. */
export type ServerFacts = Pick<
  ArchiveServer,
  'server_version_num' | 'data_directory' | 'system_identifier' | 'wal_segment_size' | 'wal_page_magic'
>

/** The `server` of one module, and the host's own view of what the module did with it. */
export interface ArchiveServerHandle {
  readonly server: ArchiveServer
  /** The text that the module left for the DETAIL of "archiving is not configured", once. */
  takeCheckErrdetail(): string | undefined
  /** A module may catch what FATAL throws. That does not save the process: this throws it again. */
  throwIfEnding(): void
}

export interface ArchiveServerOptions {
  facts: ServerFacts
  gucs: GucRegistry
  registerWorker: (worker: BackgroundWorker) => void
  log: Log
}

/** A module may come without a compiler, and what is no text could not be written to a log. */
function asTexts({ errmsg, errdetail, errhint, errcode }: ErrorReport): ErrorReport {
  const text = (value: unknown): string | undefined => {
    if (value === undefined || value === null) return undefined
    return typeof value === 'string' ? value : (JSON.stringify(value) ?? typeof value)
  }
  return {
    errmsg: text(errmsg) ?? 'missing error text',
    errdetail: text(errdetail),
    errhint: text(errhint),
    errcode: text(errcode),
  }
}

/** Makes what a module gets as the argument of `_PG_archive_module_init`. */
export function createArchiveServer(options: ArchiveServerOptions): ArchiveServerHandle {
  const { facts, gucs, registerWorker, log } = options
  let checkErrdetail: string | undefined
  let ending: ReportedError | undefined

  const ereport = ((level: AnyLevel, given: ErrorReport) => {
    if (!logLevels.includes(level)) {
      throw new ReportedError('ERROR', { errmsg: `unrecognized error level "${level}"` })
    }
    const report = asTexts(given)
    if (level !== 'ERROR' && level !== 'FATAL' && level !== 'PANIC') {
      log({ ...report, level })
      return
    }
    const error = new ReportedError(level, report)
    if (level !== 'ERROR') ending ??= error
    throw error
  }) as ArchiveServer['ereport']

  const server: ArchiveServer = {
    DefineCustomBoolVariable: declaration => gucs.defineBool(declaration),
    DefineCustomIntVariable: declaration => gucs.defineInt(declaration),
    DefineCustomRealVariable: declaration => gucs.defineReal(declaration),
    DefineCustomStringVariable: declaration => gucs.defineString(declaration),
    DefineCustomEnumVariable: declaration => gucs.defineEnum(declaration),
    MarkGUCPrefixReserved: prefix => gucs.markPrefixReserved(prefix),
    RegisterBackgroundWorker: registerWorker,
    ereport,
    arch_module_check_errdetail: text => {
      checkErrdetail = text
    },
    ...facts,
    contract_version: 1,
  }

  return {
    server: Object.freeze(server),
    takeCheckErrdetail: () => {
      const text = checkErrdetail
      checkErrdetail = undefined
      return text
    },
    throwIfEnding: () => {
      if (ending !== undefined) throw ending
    },
  }
}
