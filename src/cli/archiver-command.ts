import { constants } from 'node:fs'
import { access, realpath } from 'node:fs/promises'
import path from 'node:path'
import {
  type ArchiverGucs,
  archiveModeOf,
  archiverLogLevel,
  defineArchiverGucs,
} from '../archiver/archiver-gucs.ts'
import type { ArchiverMessage, LogFormat } from '../archiver/messages.ts'
import { Supervisor } from '../archiver/supervisor.ts'
import {
  type AnyLevel,
  type Log,
  type LogMessage,
  ReportedError,
  reportOf,
} from '../contract/error-report.ts'
import { findConfigurationFile, readConfigurationFiles } from '../host/configuration-file.ts'
import { GucRegistry } from '../host/guc-registry.ts'
import { mergeSettings, parseCommandLineSetting, type Settings, settingsOf } from '../host/settings.ts'
import { realClock } from '../system/clock.ts'
import type { Lock } from '../system/locks.ts'
import { realFiles } from '../system/real-files.ts'
import { realLocks } from '../system/real-locks.ts'
import { realProcesses } from '../system/real-processes.ts'
import { FileError, isMissing, systemErrorText } from '../system/system-error.ts'
import { logWriter } from './log-writer.ts'
import { isAlive } from './running-server.ts'
import { warnOfServerArchiver } from './server-archiver.ts'
import { siblingProgram } from './sibling-program.ts'
import { StateDirectory } from './state-directory.ts'

export interface ArchiverCommandOptions {
  pgdata: string
  set: string[]
  configFile?: string
  logFormat: LogFormat
}

/** `pgarchivist archiver`: archives from a data directory until it is told to stop. Resolves with the exit status. */
export async function archiverCommand(options: ArchiverCommandOptions): Promise<number> {
  let minLevel: AnyLevel = 'WARNING'
  const log = logWriter({ format: options.logFormat, minLevel: () => minLevel })
  try {
    const dataDirectory = await openDataDirectory(options.pgdata)
    await using lock = await lockDataDirectory(dataDirectory)
    void lock
    const source = new SettingsSource(dataDirectory, options)
    const { settings, gucs } = await source.readAtStart(log)
    minLevel = archiverLogLevel(gucs.log_min_messages.value) ?? minLevel
    await warnOfServerArchiver(dataDirectory, log)
    return await superviseArchiver({ dataDirectory, settings, source, log, logFormat: options.logFormat })
  } catch (thrown) {
    if (!(thrown instanceof ReportedError || thrown instanceof FileError)) throw thrown
    log({ ...reportOf(thrown), level: 'FATAL' })
    return 1
  }
}

/** The absolute path of a directory that can be archived from; FATAL with what is wrong for any other. */
async function openDataDirectory(pgdata: string): Promise<string> {
  const dataDirectory = await realpath(pgdata).catch((thrown: unknown) => {
    throw fatal(`could not access directory "${pgdata}": ${systemErrorText(thrown)}`)
  })
  const statusDirectory = path.join(dataDirectory, 'pg_wal', 'archive_status')
  const status = await realFiles.stat(statusDirectory).catch((thrown: unknown) => {
    if (!isMissing(thrown))
      throw fatal(`could not access directory "${statusDirectory}": ${systemErrorText(thrown)}`)
  })
  if (status?.kind !== 'directory') {
    throw fatal(`directory "${dataDirectory}" is not a data directory of PostgreSQL`, {
      errdetail: `There is no directory "${statusDirectory}".`,
      errhint: 'Name the directory that "SHOW data_directory" shows.',
    })
  }
  await access(statusDirectory, constants.R_OK | constants.W_OK | constants.X_OK).catch((thrown: unknown) => {
    throw fatal(`could not write to directory "${statusDirectory}": ${systemErrorText(thrown)}`, {
      errhint: 'Run the archiver as the user that owns the data directory.',
    })
  })
  return dataDirectory
}

async function lockDataDirectory(dataDirectory: string): Promise<AsyncDisposable> {
  const state = new StateDirectory(dataDirectory)
  let lock: Lock | undefined
  try {
    await state.create()
    lock = await realLocks.acquire(state.lockPath, `${process.pid}\n`)
    if (lock !== undefined) await state.giveToOwner(state.lockPath)
  } catch (thrown) {
    const errmsg = thrown instanceof Error ? thrown.message : String(thrown)
    throw fatal(`could not lock data directory "${dataDirectory}": ${errmsg}`)
  }
  if (lock === undefined) {
    const pid = Number.parseInt(await realFiles.readText(state.lockPath).catch(() => ''), 10)
    const holder = isAlive(pid) ? `the archiver with PID ${pid}` : 'another archiver'
    throw fatal(`data directory "${dataDirectory}" is in use by ${holder}`, {
      errhint: 'Only one archiver may run on a data directory. End that one first.',
    })
  }
  return { [Symbol.asyncDispose]: () => lock.release() }
}

/** Where the settings of this command come from: files, which can change, and its own command line, which cannot. */
class SettingsSource {
  readonly #dataDirectory: string
  readonly #configFile: string | undefined
  readonly #fromCommandLine: Settings

  constructor(dataDirectory: string, options: ArchiverCommandOptions) {
    this.#dataDirectory = dataDirectory
    this.#configFile = options.configFile === undefined ? undefined : path.resolve(options.configFile)
    this.#fromCommandLine = settingsOf(options.set.map(text => parseCommandLineSetting(text)))
  }

  /** FATAL when anything in them is wrong: whoever starts an archiver is there to read it. */
  async readAtStart(log: Log): Promise<{ settings: Settings; gucs: ArchiverGucs }> {
    const { settings, fileWithErrors } = await this.read(log)
    if (settings === undefined) throw fatal(`configuration file "${fileWithErrors}" contains errors`)
    let hasInvalid = false
    const registry = new GucRegistry({
      log: (message: LogMessage) => {
        hasInvalid = true
        log(message)
      },
    })
    registry.load(settings)
    const gucs = defineArchiverGucs(registry)
    for (const { name } of this.#fromCommandLine.values()) {
      // Others in the files are the server's; what is said to this command is meant for it.
      if (!name.includes('.') && !Object.hasOwn(gucs, name)) {
        throw fatal(`unrecognized configuration parameter "${name}"`)
      }
    }
    if (hasInvalid) throw fatal('configuration contains errors')
    if (archiveModeOf(gucs.archive_mode.value) === 'off') {
      throw fatal('archiving is switched off by "archive_mode"', {
        errhint: 'Set "archive_mode" to "on" in the server, which makes files to archive only then.',
      })
    }
    return { settings, gucs }
  }

  /** Says what is wrong with files that cannot be read or contain errors, and gives no settings then. */
  async read(log: Log): Promise<{ settings: Settings | undefined; fileWithErrors: string | undefined }> {
    const dataDirectory = this.#dataDirectory
    const files = realFiles
    const configFile = this.#configFile ?? (await findConfigurationFile({ files, dataDirectory }))
    const read = await readConfigurationFiles({ files, configFile, dataDirectory })
    for (const notice of read.notices) log(notice)
    for (const error of read.errors) log({ ...error, level: 'LOG' })
    const { fileWithErrors } = read
    if (read.errors.length > 0) return { settings: undefined, fileWithErrors }
    return { settings: mergeSettings(read.settings, this.#fromCommandLine), fileWithErrors }
  }
}

interface Supervision {
  dataDirectory: string
  settings: Settings
  source: SettingsSource
  log: Log
  logFormat: LogFormat
}

async function superviseArchiver(options: Supervision): Promise<number> {
  const { dataDirectory, settings, source, log, logFormat } = options
  // One at a time, or an earlier one might end last; requests that come meanwhile are answered by one more.
  let requested = 0
  const reload = async () => {
    log({ level: 'LOG', errmsg: 'received SIGHUP, reloading configuration files' })
    if (++requested > 1) return
    for (let answered = 0; answered < requested; ) {
      answered = requested
      await readAgain().catch((thrown: unknown) => {
        const errmsg = thrown instanceof Error ? thrown.message : String(thrown)
        log({ level: 'LOG', errmsg: `${errmsg}; no changes were applied` })
      })
    }
    requested = 0
  }
  const readAgain = async () => {
    const { settings: newSettings, fileWithErrors } = await source.read(log)
    if (newSettings !== undefined) return supervisor.reload(newSettings)
    const errmsg = `configuration file "${fileWithErrors}" contains errors; no changes were applied`
    log({ level: 'LOG', errmsg })
  }
  const supervisor = new Supervisor({
    clock: realClock,
    log,
    settings,
    fork: current => {
      const child = realProcesses.fork(siblingProgram('archiver-process'), {
        cwd: dataDirectory,
        title: 'pgarchivist: archiver',
        onMessage: message => {
          const { type } = message as ArchiverMessage
          if (type === 'archived') supervisor.noteProgress()
          if (type === 'reload requested') void reload()
        },
      })
      // One that could not be started ends by itself, and says why.
      child
        .send({ type: 'start', start: { dataDirectory, settings: current, logFormat } })
        .catch(() => undefined)
      return child
    },
  })

  process.title = 'pgarchivist: archiver supervisor'
  process.on('SIGHUP', () => void reload())
  process.on('SIGINT', () => void supervisor.stop())
  process.on('SIGTERM', () => void supervisor.stop())
  process.on('SIGUSR2', () => void supervisor.stop())
  process.on('SIGQUIT', () => void supervisor.stopNow())

  log({ level: 'LOG', errmsg: `archiving write-ahead log of data directory "${dataDirectory}"` })
  const status = await supervisor.run()
  log({ level: 'LOG', errmsg: 'archiver is shut down' })
  return status
}

function fatal(errmsg: string, more: { errdetail?: string; errhint?: string } = {}): ReportedError {
  return new ReportedError('FATAL', { errmsg, ...more })
}
