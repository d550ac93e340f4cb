import type { AnyLevel } from '../contract/error-report.ts'
import type { GucVariable } from '../contract/guc.ts'
import type { GucRegistry } from '../host/guc-registry.ts'

/** The server's own settings that an archiver obeys, with their meaning in PostgreSQL. */
export interface ArchiverGucs {
  archive_mode: GucVariable<ArchiveMode>
  archive_library: GucVariable<string>
  archive_command: GucVariable<string>
  dynamic_library_path: GucVariable<string>
  log_min_messages: GucVariable<Lowercase<AnyLevel>>
}

export type ArchiveMode = 'always' | 'on' | 'off'

const logMinMessages = [
  'debug5',
  'debug4',
  'debug3',
  'debug2',
  'debug1',
  'info',
  'notice',
  'warning',
  'error',
  'log',
  'fatal',
  'panic',
] as const satisfies ReadonlyArray<Lowercase<AnyLevel>>

export function defineArchiverGucs(gucs: GucRegistry): ArchiverGucs {
  return {
    archive_mode: gucs.defineEnum(
      {
        name: 'archive_mode',
        short_desc: 'Allows archiving of WAL files.',
        // Off in PostgreSQL. Here somebody has started an archiver, which says it clearly enough.
        boot_value: 'on',
        options: ['always', 'on', 'off'],
      },
      'core',
    ),
    archive_library: gucs.defineString(
      {
        name: 'archive_library',
        short_desc: 'The module that archives completed WAL files.',
        long_desc: 'An empty string indicates that "archive_command" should be used.',
        boot_value: '',
      },
      'core',
    ),
    archive_command: gucs.defineString(
      {
        name: 'archive_command',
        short_desc: 'The shell command that is called to archive a WAL file.',
        boot_value: '',
      },
      'core',
    ),
    dynamic_library_path: gucs.defineString(
      {
        name: 'dynamic_library_path',
        short_desc: 'Directories in which modules are looked for, separated by colons.',
        boot_value: '$libdir',
      },
      'core',
    ),
    log_min_messages: gucs.defineEnum(
      {
        name: 'log_min_messages',
        short_desc: 'The least severe messages that are logged.',
        boot_value: 'warning',
        options: logMinMessages,
      },
      'core',
    ),
  }
}
