/**
 * `shell_archive`: runs `archive_command` for each file, as PostgreSQL does when `archive_library` is empty.
 * It equals `sh -c "$archive_command"` with `%f`, `%p` and `%%` replaced, run in the data directory.
 */
import path from 'node:path'
import type { ArchiveModuleInit } from '../contract/archive-module.ts'
import type { ArchiveServer } from '../contract/archive-server.ts'
import { ReportedError } from '../contract/error-report.ts'
import type { ProcessEnd, Processes } from '../system/processes.ts'
import { signalNumber, signalText } from '../system/signals.ts'
import { systemErrorText } from '../system/system-error.ts'

// Above this a shell reports that the command could not be run, or that a signal ended it; 128 + the signal.
const commandStatusMax = 125

export interface ShellArchiveOptions {
  processes: Processes
  /** The server's own setting, so it is not declared here. */
  archiveCommand: () => string
}

export function shellArchive({ processes, archiveCommand }: ShellArchiveOptions): ArchiveModuleInit {
  return server => ({
    check_configured_cb: () => {
      if (archiveCommand() !== '') return true
      server.arch_module_check_errdetail('"archive_command" is not set.')
      return false
    },
    archive_file_cb: async (_state, file, filePath, { signal }) => {
      const command = replacePercentPlaceholders(archiveCommand(), {
        f: file,
        p: path.relative(server.data_directory, filePath), // as the server gives it: the command runs there
      })
      server.ereport('DEBUG3', { errmsg: `executing archive command "${command}"` })
      const end = await processes
        .shell(command, { cwd: server.data_directory, signal })
        .catch((thrown: unknown) => {
          const errmsg = `could not execute archive command: ${systemErrorText(thrown)}`
          throw new ReportedError('ERROR', { errmsg }, { cause: thrown })
        })
      return wasArchived(server, file, command, end)
    },
    shutdown_cb: () => server.ereport('DEBUG1', { errmsg: 'archiver process shutting down' }),
  })
}

/** Judges how the command ended, as PostgreSQL does: some ends say that the next file would fare no better. */
function wasArchived(server: ArchiveServer, file: string, command: string, end: ProcessEnd): boolean {
  const errdetail = `The failed archive command was: ${command}`
  if (end.signal !== null) {
    const errmsg = `archive command was terminated by signal ${signalNumber(end.signal)}: ${signalText(end.signal)}`
    server.ereport('FATAL', { errmsg, errdetail })
  }
  if (end.code !== 0) {
    const errmsg = `archive command failed with exit code ${end.code}`
    if (end.code > commandStatusMax) server.ereport('FATAL', { errmsg, errdetail })
    server.ereport('LOG', { errmsg, errdetail })
    return false
  }
  server.ereport('DEBUG1', { errmsg: `archived write-ahead log file "${file}"` })
  return true
}

/** PostgreSQL's `replace_percent_placeholders` for `archive_command`: unknown ones are an ERROR. */
export function replacePercentPlaceholders(
  command: string,
  values: Readonly<Record<string, string>>,
): string {
  const invalid = (errdetail: string) =>
    new ReportedError('ERROR', {
      errmsg: `invalid value for parameter "archive_command": "${command}"`,
      errdetail,
      errcode: '22023',
    })
  return command.replaceAll(/%(.?)/gsu, (_match, letter: string) => {
    if (letter === '%') return '%'
    if (letter === '') throw invalid('String ends unexpectedly after escape character "%".')
    const value = Object.hasOwn(values, letter) ? values[letter] : undefined
    if (value === undefined) throw invalid(`String contains unexpected placeholder "%${letter}".`)
    return value
  })
}
