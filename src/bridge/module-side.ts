import { type Log, ReportedError, reportOf } from '../contract/error-report.ts'
import type { ServerFacts } from '../host/archive-server.ts'
import type { BackgroundWorkers } from '../host/background-workers.ts'
import { type LoadedModule } from '../host/loader.ts'
import { LookAhead } from '../host/look-ahead.ts'
import type { ModuleHost } from '../host/module-host.ts'
import type { RawSetting, Settings } from '../host/settings.ts'
import { settingsOf } from '../host/settings.ts'
import { startModule } from '../host/start-module.ts'
import type { Files } from '../system/files.ts'
import { DeclaringGucRegistry, type ServerGuc } from './declaring-guc-registry.ts'
import { replacementCharacter } from './frame.ts'
import type { FromServer, Hello, ServerSetting, ServerSettings, ToServer } from './messages.ts'

export interface ModuleSideOptions {
  files: Files
  send(message: ToServer): void
  /** Settings that the library in the server defines itself. */
  inServer: readonly ServerGuc[]
  /** What the server's configuration files say, without what its command line overrides. */
  settingsAsWritten(configFile: string, dataDirectory: string): Promise<Settings>
  /** A name of the working directory that is always UTF-8, where the system has one. */
  nameOfWorkingDirectory(): Promise<string | undefined>
  load(hello: Hello, dataDirectory: string): Promise<LoadedModule>
  /** The workers of the module that was loaded. */
  workers(source: string, dataDirectory: string, log: Log): BackgroundWorkers
}

/**
 * The side of the bridge that runs the module, in a thread of its own: the host, driven by what the server's archiver
 * asks. Resolves with the exit status of the process when the server has said that it ends, or when the module could
 * not be started, which has been reported then.
 */
export class ModuleSide {
  readonly #options: ModuleSideOptions
  readonly #log: Log
  readonly #gucs: DeclaringGucRegistry
  readonly #stop = new AbortController()
  /** Start and reloads, which what is asked after them waits for. */
  #settled: Promise<void> = Promise.resolve()
  #host: ModuleHost | undefined
  #lookAhead: LookAhead | undefined
  #dataDirectory = ''
  #archiveAhead = 1
  #workers: BackgroundWorkers | undefined

  constructor(options: ModuleSideOptions) {
    this.#options = options
    this.#log = message => options.send({ type: 'log', message })
    this.#gucs = new DeclaringGucRegistry({ log: this.#log, send: options.send, inServer: options.inServer })
  }

  /** Acts on one message. Resolves with an exit status when the process has to end. */
  async handle(message: FromServer): Promise<0 | 1 | undefined> {
    try {
      switch (message.type) {
        case 'hello':
          await (this.#settled = this.#start(message))
          return undefined
        case 'settings':
          await (this.#settled = this.#settled.then(() => this.#reload(message)))
          return undefined
        case 'check':
          await this.#settled
          await this.#check(message.request)
          return undefined
        case 'archive':
          await this.#settled
          await this.#archive(message)
          return undefined
        case 'quit':
          return await this.#quit()
        case 'ping':
          return undefined
        default:
          return message satisfies never
      }
    } catch (thrown) {
      // Shown as an ERROR by the server's end, which starts the module again.
      const level = thrown instanceof ReportedError ? thrown.level : 'FATAL'
      this.#log({ level, ...reportOf(thrown) })
      return 1
    }
  }

  async #start(hello: Hello): Promise<void> {
    const dataDirectory = await this.#dataDirectoryOf(hello)
    if (hello.module.includes(replacementCharacter)) throw notUtf8('the value of "pgarchivist.module"')
    this.#dataDirectory = dataDirectory
    this.#gucs.load(rawSettings(hello.settings))
    this.#archiveAhead = hello.archiveAhead
    const { source, init } = await this.#options.load(hello, dataDirectory)
    const workers = this.#options.workers(source, dataDirectory, this.#log)
    this.#host = await startModule({
      init,
      facts: factsOf(hello, dataDirectory),
      gucs: this.#gucs,
      registerWorker: worker => workers.register(worker),
      log: this.#log,
    })
    const host = this.#host
    this.#lookAhead = new LookAhead({
      files: this.#options.files,
      dataDirectory,
      archiveFile: (file, path, signal, isAhead) => host.archiveFile(file, path, signal, isAhead),
      filesAtOnce: () => (host.archivesAhead ? this.#archiveAhead : 1),
      signal: this.#stop.signal,
    })
    this.#workers = workers
    workers.start(this.#gucs.values())
    this.#options.send({ type: 'ready' })
  }

  /** The server's path of it, or another name for the same: this process works in it, and stays there. */
  async #dataDirectoryOf({ dataDirectory }: Hello): Promise<string> {
    const name = dataDirectory ?? (await this.#options.nameOfWorkingDirectory())
    if (name === undefined) throw notUtf8('the path of the data directory')
    return name
  }

  async #reload(message: ServerSettings): Promise<void> {
    this.#archiveAhead = message.archiveAhead
    const asWritten = await this.#options.settingsAsWritten(message.configFile, this.#dataDirectory)
    const changes = this.#gucs.reload(mergeWritten(rawSettings(message.settings), asWritten))
    if (changes.length > 0) this.#lookAhead?.forget()
    this.#workers?.reload(this.#gucs.values())
  }

  async #check(request: number): Promise<void> {
    const answer = await this.#running().checkConfigured()
    const detail = answer.configured ? '' : (answer.errdetail ?? '')
    this.#options.send({ type: 'checked', request, configured: answer.configured, detail })
  }

  async #archive({ request, file }: { request: number; file: string }): Promise<void> {
    if (this.#lookAhead === undefined) throw new Error('the module has not been started')
    const archived = await this.#lookAhead.archive(file)
    this.#options.send({ type: 'archived', request, archived, file })
  }

  async #quit(): Promise<0 | 1> {
    this.#stop.abort()
    const isClean = (await this.#host?.shutdown()) ?? true
    await this.#workers?.stop()
    return isClean ? 0 : 1
  }

  #running(): ModuleHost {
    if (this.#host === undefined) throw new Error('the module has not been started')
    return this.#host
  }
}

function notUtf8(what: string): ReportedError {
  const errhint =
    'Programs in TypeScript find files only where their paths are UTF-8. A symbolic link can be such a path.'
  return new ReportedError('FATAL', { errmsg: `${what} is not UTF-8`, errhint })
}

/**
 * The server keeps the old value of a setting where the new one is refused, and keeps silent about it. What is written
 * in its files is looked at too, so that the refusal can be told.
 */
function mergeWritten(inForce: Settings, asWritten: Settings): Settings {
  const settings = new Map(inForce)
  for (const [key, setting] of asWritten) if (settings.has(key)) settings.set(key, setting)
  return settings
}

function factsOf(hello: Hello, dataDirectory: string): ServerFacts {
  return {
    data_directory: dataDirectory,
    server_version_num: hello.serverVersionNum,
    system_identifier: hello.systemIdentifier,
    wal_segment_size: hello.walSegmentSize,
    wal_page_magic: hello.walPageMagic,
  }
}

function rawSettings(settings: readonly ServerSetting[]): Settings {
  return settingsOf(settings.map((setting): RawSetting => ({ ...setting, source: 'PGC_S_FILE' })))
}
