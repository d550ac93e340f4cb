import { type Log, ReportedError, reportOf } from '../contract/error-report.ts'
import type { ServerFacts } from '../host/archive-server.ts'
import type { BackgroundWorkers } from '../host/background-workers.ts'
import { type LoadedModule } from '../host/loader.ts'
import type { ModuleHost } from '../host/module-host.ts'
import type { RawSetting, Settings } from '../host/settings.ts'
import { settingsOf } from '../host/settings.ts'
import { startModule } from '../host/start-module.ts'
import { DeclaringGucRegistry } from './declaring-guc-registry.ts'
import type { FromServer, Hello, ServerSetting, ToServer } from './messages.ts'

export interface ModuleSideOptions {
  send(message: ToServer): void
  load(hello: Hello): Promise<LoadedModule>
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
  /** The attempt that has not ended yet, by file. The next request for the file waits for it instead of a second one. */
  readonly #attempts = new Map<string, Promise<boolean>>()
  #host: ModuleHost | undefined
  #workers: BackgroundWorkers | undefined

  constructor(options: ModuleSideOptions) {
    this.#options = options
    this.#log = message => options.send({ type: 'log', message })
    this.#gucs = new DeclaringGucRegistry({ log: this.#log, send: options.send })
  }

  /** Acts on one message. Resolves with an exit status when the process has to end. */
  async handle(message: FromServer): Promise<0 | 1 | undefined> {
    try {
      switch (message.type) {
        case 'hello':
          await this.#start(message)
          return undefined
        case 'settings':
          this.#gucs.reload(rawSettings(message.settings))
          this.#workers?.reload(this.#gucs.values())
          return undefined
        case 'check':
          await this.#check(message.request)
          return undefined
        case 'archive':
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
    this.#gucs.load(rawSettings(hello.settings))
    const { source, init } = await this.#options.load(hello)
    const workers = this.#options.workers(source, hello.dataDirectory, this.#log)
    this.#host = await startModule({
      init,
      facts: factsOf(hello),
      gucs: this.#gucs,
      registerWorker: worker => workers.register(worker),
      log: this.#log,
    })
    this.#workers = workers
    workers.start(this.#gucs.values())
    this.#options.send({ type: 'ready' })
  }

  async #check(request: number): Promise<void> {
    const answer = await this.#running().checkConfigured()
    const detail = answer.configured ? '' : (answer.errdetail ?? '')
    this.#options.send({ type: 'checked', request, configured: answer.configured, detail })
  }

  async #archive({ request, file, path }: { request: number; file: string; path: string }): Promise<void> {
    let attempt = this.#attempts.get(file)
    if (attempt === undefined) {
      attempt = this.#running()
        .archiveFile(file, path, this.#stop.signal)
        .finally(() => this.#attempts.delete(file))
      this.#attempts.set(file, attempt)
    }
    const archived = await attempt
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

function factsOf(hello: Hello): ServerFacts {
  return {
    data_directory: hello.dataDirectory,
    server_version_num: hello.serverVersionNum,
    system_identifier: hello.systemIdentifier,
    wal_segment_size: hello.walSegmentSize,
  }
}

function rawSettings(settings: readonly ServerSetting[]): Settings {
  return settingsOf(settings.map((setting): RawSetting => ({ ...setting, source: 'PGC_S_FILE' })))
}
