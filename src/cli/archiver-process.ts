/**
 * The archiver process: what the `archiver` command starts, watches and starts again. It is a process of its own so
 * that a module that crashes, blocks or leaks takes nothing with it, and so that a changed library is loaded afresh.
 */

import { Archiver } from '../archiver/archiver.ts'
import { archiverLogLevel, defineArchiverGucs } from '../archiver/archiver-gucs.ts'
import { clusterFacts } from '../archiver/cluster-facts.ts'
import type { ArchiverMessage, ArchiverStart, SupervisorMessage } from '../archiver/messages.ts'
import type { AnyLevel } from '../contract/error-report.ts'
import { reportOf } from '../contract/error-report.ts'
import { BackgroundWorkers } from '../host/background-workers.ts'
import { GucRegistry, settingChangeMessage } from '../host/guc-registry.ts'
import { loadArchiveModule } from '../host/loader.ts'
import { RunningModuleAhead } from '../host/running-module.ts'
import { startModule } from '../host/start-module.ts'
import { shellArchive } from '../modules/shell-archive.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'
import { realModuleFiles } from '../system/real-module-files.ts'
import { connectToParent, realProcesses } from '../system/real-processes.ts'
import { exists } from '../system/write-durably.ts'
import { builtInModules } from './built-in-modules.ts'
import { librarySettings } from './library-settings.ts'
import { logWriter } from './log-writer.ts'
import { siblingProgram } from './sibling-program.ts'
import { StateDirectory } from './state-directory.ts'
import { StatisticsKeeper } from './statistics-keeper.ts'

const backgroundWorkerProgram = siblingProgram('background-worker')
const parent = connectToParent()
/** What came before there was an archiver to ask. */
let early: SupervisorMessage[] = []
let handle = (request: SupervisorMessage): void => void early.push(request)
parent.onMessage(message => {
  const request = message as SupervisorMessage
  if (request.type === 'start') void runArchiver(request.start)
  else handle(request)
})
process.on('SIGUSR2', () => handle({ type: 'stop' }))

async function runArchiver({ dataDirectory, settings, logFormat }: ArchiverStart): Promise<void> {
  process.chdir(dataDirectory)

  let minLevel: AnyLevel = 'WARNING'
  const log = logWriter({ format: logFormat, minLevel: () => minLevel })
  // What a module does after its call has ended reaches nobody else. Which file it belongs to is unknown, so the
  // process ends, as after FATAL: every file that is not marked done will be archived again.
  const endAtOnce = (thrown: unknown) => {
    log({ level: 'FATAL', ...reportOf(thrown) })
    process.exit(1)
  }
  process.on('uncaughtException', endAtOnce)
  process.on('unhandledRejection', endAtOnce)

  const gucs = new GucRegistry({ log })
  gucs.load(settings)
  const core = defineArchiverGucs(gucs)
  const followLogLevel = () => {
    minLevel = archiverLogLevel(core.log_min_messages.value) ?? 'WARNING'
  }
  followLogLevel()

  const send = (message: ArchiverMessage) => void parent.send(message)
  const statistics = await StatisticsKeeper.open(new StateDirectory(dataDirectory), log)
  let workers: BackgroundWorkers | undefined
  let ahead: RunningModuleAhead | undefined

  const archiver = new Archiver({
    files: realFiles,
    clock: realClock,
    log,
    dataDirectory,
    settings: {
      get archive_library() {
        return core.archive_library.value
      },
      get archive_command() {
        return core.archive_command.value
      },
      reload: newSettings => {
        const changes = gucs.reload(newSettings)
        for (const change of changes) log(settingChangeMessage(change))
        if (changes.length > 0) ahead?.forget()
        followLogLevel()
        workers?.reload(gucs.values())
      },
    },
    startModule: async () => {
      const { source, init } =
        core.archive_library.value === ''
          ? {
              source: 'shell_archive',
              init: shellArchive({
                processes: realProcesses,
                archiveCommand: () => core.archive_command.value,
              }),
            }
          : await loadArchiveModule({
              name: core.archive_library.value,
              builtIns: builtInModules,
              dynamicLibraryPath: core.dynamic_library_path.value,
              dataDirectory,
              files: realFiles,
              modules: realModuleFiles,
            })
      const registered = new BackgroundWorkers({
        source,
        program: backgroundWorkerProgram,
        dataDirectory,
        processes: realProcesses,
        clock: realClock,
        log,
      })
      const host = await startModule({
        init,
        facts: await clusterFacts(realFiles, dataDirectory),
        gucs,
        registerWorker: worker => registered.register(worker),
        log,
      })
      if (core.archive_library.value === 'repository') refuseMisspelt(gucs)
      workers = registered
      workers.start(gucs.values())
      if (!host.archivesAhead) return host
      ahead = new RunningModuleAhead(host, {
        files: realFiles,
        dataDirectory,
        filesAtOnce: () => core.archive_ahead.value,
      })
      return ahead
    },
    events: {
      archiving: file => showInProcessList(`archiving ${file}`),
      archived: file => {
        showInProcessList(`last was ${file}`)
        statistics.archived(file)
        send({ type: 'archived' })
      },
      failed: file => {
        showInProcessList(`failed on ${file}`)
        statistics.failed(file)
      },
      idle: async () => {
        await statistics.save()
        if (!(await isInRecovery(dataDirectory))) workers?.recoveryFinished()
      },
    },
  })

  showInProcessList('')
  handle = request => {
    if (request.type === 'reload') archiver.reload(request.settings)
    if (request.type === 'stop') archiver.finish()
    if (request.type === 'abandon') archiver.abandon()
  }
  for (const request of early) handle(request)
  early = []
  // Signals to this process itself mean what they mean to PostgreSQL's archiver.
  process.on('SIGTERM', () => archiver.terminate())
  process.on('SIGHUP', () => send({ type: 'reload requested' }))

  const status = await archiver.run()
  await workers?.stop()
  await statistics.save()
  process.exit(status)
}

/**
 * What a misspelt setting should have said, as to encrypt, would not be done. Those of the library mean nothing here, but
 * are no mistake: the server of the same configuration may load it.
 */
function refuseMisspelt(gucs: GucRegistry): void {
  for (const name of librarySettings) {
    // The archiver has it too.
    if (name === 'pgarchivist.archive_ahead') continue
    gucs.defineString({ name, short_desc: 'Of the library in the server.', boot_value: '' })
  }
  gucs.markPrefixReserved('pgarchivist')
}

/** A server that starts with one of these files removes it when its recovery ends. */
async function isInRecovery(dataDirectory: string): Promise<boolean> {
  const signals = ['standby.signal', 'recovery.signal'].map(name =>
    exists(realFiles, `${dataDirectory}/${name}`),
  )
  return (await Promise.all(signals)).includes(true)
}

function showInProcessList(activity: string): void {
  process.title = `pgarchivist: archiver ${activity}`.trimEnd()
}
