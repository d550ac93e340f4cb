import { pageMagicOf } from '../wal/page-magic.ts'
import type { ArchiveServer } from './archive-server.ts'
import { type AnyLevel, type ErrorReport, type LogMessage, ReportedError } from './error-report.ts'
import type { GucCheck, GucDeclaration, GucVariable } from './guc.ts'

/** Values of settings, by full name, as they would stand in postgresql.conf. */
export type ConformanceSettings = Readonly<Record<string, boolean | number | string>>

/** A server that is only as much of one as a module can tell. */
export interface ConformanceServer {
  readonly server: ArchiveServer
  /** What the module reported. */
  readonly messages: readonly LogMessage[]
  /** Settings that were given and that the module has not declared. */
  undeclared(): string[]
}

export interface ConformanceCluster {
  dataDirectory: string
  systemIdentifier: bigint
  segmentSize: number
}

export const conformanceServerVersion = 170_005

export function createConformanceServer(
  settings: ConformanceSettings,
  { dataDirectory, systemIdentifier, segmentSize }: ConformanceCluster,
): ConformanceServer {
  const messages: LogMessage[] = []
  const declared = new Set<string>()

  const define = <T extends boolean | number | string>(declaration: GucDeclaration<T>): GucVariable<T> => {
    const { name, boot_value } = declaration
    if (declared.has(name)) {
      throw new ReportedError('ERROR', { errmsg: `attempt to redefine parameter "${name}"` })
    }
    declared.add(name)
    const given = settings[name]
    if (given !== undefined && typeof given !== typeof boot_value) {
      throw new TypeError(`the conformance settings give "${name}" a ${typeof given}, which it is not`)
    }
    const value = (given ?? boot_value) as T
    const complaint: ErrorReport = { errmsg: `invalid value for parameter "${name}": "${String(value)}"` }
    const check: GucCheck = {
      source: given === undefined ? 'PGC_S_DEFAULT' : 'PGC_S_FILE',
      GUC_check_errmsg: text => {
        complaint.errmsg = text
      },
      GUC_check_errdetail: text => {
        complaint.errdetail = text
      },
      GUC_check_errhint: text => {
        complaint.errhint = text
      },
    }
    if (declaration.check_hook?.(value, check) === false) throw new ReportedError('ERROR', complaint)
    declaration.assign_hook?.(value)
    return { value }
  }

  const ereport = ((level: AnyLevel, report: ErrorReport) => {
    if (level === 'ERROR' || level === 'FATAL' || level === 'PANIC') throw new ReportedError(level, report)
    messages.push({ ...report, level })
  }) as ArchiveServer['ereport']

  const server: ArchiveServer = {
    DefineCustomBoolVariable: define,
    DefineCustomIntVariable: define,
    DefineCustomRealVariable: define,
    DefineCustomStringVariable: define,
    DefineCustomEnumVariable: define,
    MarkGUCPrefixReserved: () => {},
    RegisterBackgroundWorker: () => {}, // workers run beside archiving, which is what is tried out here
    ereport,
    arch_module_check_errdetail: errdetail => {
      messages.push({ level: 'WARNING', errmsg: 'archiving is not configured', errdetail })
    },
    server_version_num: conformanceServerVersion,
    data_directory: dataDirectory,
    system_identifier: String(systemIdentifier),
    wal_segment_size: segmentSize,
    wal_page_magic: pageMagicOf(conformanceServerVersion),
    contract_version: 1,
  }
  return {
    server,
    messages,
    undeclared: () => Object.keys(settings).filter(name => !declared.has(name)),
  }
}
