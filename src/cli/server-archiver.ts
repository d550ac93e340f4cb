import { archiveModeOf } from '../archiver/archiver-gucs.ts'
import type { Log } from '../contract/error-report.ts'
import {
  findConfigurationFile,
  readConfigurationFiles,
  readPostmasterOptions,
} from '../host/configuration-file.ts'
import { postmasterOptions } from '../host/postmaster-options.ts'
import { mergeSettings } from '../host/settings.ts'
import { realFiles } from '../system/real-files.ts'
import { runningServerPid } from './running-server.ts'

/**
 * Tells the user at start when the running server would archive by itself as well, which makes two archivers take the
 * same files, or when it is set to make no files for any archiver.
 */
export async function warnOfServerArchiver(dataDirectory: string, log: Log): Promise<void> {
  const pid = await runningServerPid(dataDirectory)
  if (pid === undefined) return
  const configFile = await findConfigurationFile({ files: realFiles, dataDirectory })
  const { settings: fromFiles } = await readConfigurationFiles({
    files: realFiles,
    configFile,
    dataDirectory,
  })
  const fromCommandLine = postmasterOptions(await readPostmasterOptions(realFiles, dataDirectory))
  const settings = mergeSettings(fromFiles, fromCommandLine)
  const valueOf = (name: string) => settings.get(name)?.value ?? ''

  if ((archiveModeOf(valueOf('archive_mode')) ?? 'off') === 'off') {
    log({
      level: 'WARNING',
      errmsg: `server with PID ${pid} has "archive_mode" off and makes no files to archive`,
      errhint: 'Set "archive_mode" to "on" and restart the server.',
    })
    return
  }
  const configured = ['archive_library', 'archive_command'].find(name => valueOf(name) !== '')
  if (configured === undefined) return
  log({
    level: 'WARNING',
    errmsg: `server with PID ${pid} archives by itself as well`,
    errdetail: `Its "${configured}" is "${valueOf(configured)}".`,
    errhint: `Empty "${configured}" of the server and reload it, or do not run this archiver beside it.`,
  })
}
