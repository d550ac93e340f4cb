import { type AnyLevel, logLevels } from '../contract/error-report.ts'
import type { GucVariable } from '../contract/guc.ts'
import type { GucRegistry } from '../host/guc-registry.ts'

/** The server's own settings that an archiver obeys, with their meaning in PostgreSQL. */
export interface ArchiverGucs {
  archive_mode: GucVariable<string>
  archive_library: GucVariable<string>
  archive_command: GucVariable<string>
  dynamic_library_path: GucVariable<string>
  log_min_messages: GucVariable<string>
  /** Ours, as the library in a server has it. */
  archive_ahead: GucVariable<number>
}

/** What `archive_mode` says. The server takes the words of a boolean too; `undefined` for any other word. */
export function archiveModeOf(value: string): 'always' | 'on' | 'off' | undefined {
  switch (value.toLowerCase()) {
    case 'always':
      return 'always'
    case 'on':
    case 'true':
    case 'yes':
    case '1':
      return 'on'
    case 'off':
    case 'false':
    case 'no':
    case '0':
      return 'off'
    default:
      return undefined
  }
}

/**
 * The level that `log_min_messages` sets for an archiver: a word, or from 19 on a list in which a kind of process may
 * have a level of its own (`warning, archiver:debug1`). `undefined` for what is no such list.
 */
export function archiverLogLevel(value: string): AnyLevel | undefined {
  let level: AnyLevel | undefined
  for (const entry of value.split(',').map(each => each.trim().toUpperCase())) {
    const [kind, word] = entry.includes(':') ? entry.split(':').map(each => each.trim()) : ['ALL', entry]
    const known = logLevels.find(each => each === (word === 'DEBUG' ? 'DEBUG2' : word))
    if (known === undefined) return undefined
    if (kind === 'ARCHIVER') return known
    if (kind === 'ALL') level = known
  }
  return level
}

export function defineArchiverGucs(gucs: GucRegistry): ArchiverGucs {
  return {
    archive_mode: gucs.defineString(
      {
        name: 'archive_mode',
        short_desc: 'Allows archiving of WAL files.',
        // Off in PostgreSQL. Here somebody has started an archiver, which says it clearly enough.
        boot_value: 'on',
        check_hook: (value, check) => {
          if (archiveModeOf(value) !== undefined) return true
          check.GUC_check_errhint('Available values: always, on, off.')
          return false
        },
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
    archive_ahead: gucs.defineInt(
      {
        name: 'pgarchivist.archive_ahead',
        short_desc: 'How many files a module that can do so archives at once.',
        boot_value: 4,
        min_value: 1,
        max_value: 64,
      },
      'core',
    ),
    log_min_messages: gucs.defineString(
      {
        name: 'log_min_messages',
        short_desc: 'The least severe messages that are logged.',
        boot_value: 'warning',
        check_hook: (value, check) => {
          if (archiverLogLevel(value) !== undefined) return true
          check.GUC_check_errhint(
            `Available values: ${logLevels.map(each => each.toLowerCase()).join(', ')}.`,
          )
          return false
        },
      },
      'core',
    ),
  }
}
