/** The thread of the module in the process beside the server's archiver. */
import { resolve } from 'node:path'
import { parentPort } from 'node:worker_threads'
import type { FromServer, ToServer } from '../bridge/messages.ts'
import { ModuleSide } from '../bridge/module-side.ts'
import { reportOf } from '../contract/error-report.ts'
import { BackgroundWorkers } from '../host/background-workers.ts'
import { readConfigurationFiles, readPostmasterOptions } from '../host/configuration-file.ts'
import { loadArchiveModule } from '../host/loader.ts'
import { postmasterOptions } from '../host/postmaster-options.ts'
import type { Settings } from '../host/settings.ts'
import { repositoryGucs } from '../repository/repository-gucs.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'
import { realModuleFiles } from '../system/real-module-files.ts'
import { realProcesses } from '../system/real-processes.ts'
import { exists } from '../system/write-durably.ts'
import { builtInModules } from './built-in-modules.ts'
import { writeOutputDirectly } from './direct-output.ts'
import { siblingProgram } from './sibling-program.ts'

export type FromModuleThread = ToServer | { type: 'alive' } | { type: 'end'; status: 0 | 1 }

// Before anything of the module can print.
writeOutputDirectly()

const send = (message: FromModuleThread): void => parentPort?.postMessage(message)

const side = new ModuleSide({
  files: realFiles,
  send,
  inServer: repositoryGucs,
  settingsAsWritten,
  nameOfWorkingDirectory,
  load: ({ module, dynamicLibraryPath }, dataDirectory) =>
    loadArchiveModule({
      name: module,
      builtIns: builtInModules,
      dynamicLibraryPath,
      dataDirectory,
      files: realFiles,
      modules: realModuleFiles,
    }),
  workers: (source, dataDirectory, log) =>
    new BackgroundWorkers({
      source,
      program: siblingProgram('background-worker'),
      dataDirectory,
      processes: realProcesses,
      clock: realClock,
      log,
    }),
})

/** Linux only. Children of this process that work in the same directory find it by this name too. */
async function nameOfWorkingDirectory(): Promise<string | undefined> {
  const name = '/proc/self/cwd'
  return (await exists(realFiles, name)) ? name : undefined
}

/** Files with errors are applied by nobody. */
async function settingsAsWritten(configFile: string, dataDirectory: string): Promise<Settings> {
  const path = resolve(dataDirectory, configFile)
  const read = await readConfigurationFiles({ files: realFiles, configFile: path, dataDirectory })
  if (read.errors.length > 0) return new Map()
  const fromCommandLine = postmasterOptions(await readPostmasterOptions(realFiles, dataDirectory))
  return new Map([...read.settings].filter(([key]) => !fromCommandLine.has(key)))
}

// What a module does after its call has ended belongs to no file. The process ends, and every file comes again.
const endAtOnce = (thrown: unknown): void => {
  send({ type: 'log', message: { level: 'FATAL', ...reportOf(thrown) } })
  send({ type: 'end', status: 1 })
}
process.on('uncaughtException', endAtOnce)
process.on('unhandledRejection', endAtOnce)

parentPort?.on('message', (message: FromServer) => {
  if (message.type === 'ping') return send({ type: 'alive' })
  void side.handle(message).then(status => {
    if (status !== undefined) send({ type: 'end', status })
  })
})
