import type { Files } from '../system/files.ts'
import { LookAhead } from './look-ahead.ts'
import type { Configured, ModuleHost } from './module-host.ts'

/** What an archiver may do with the module that it has started; `ModuleHost` says what each means. */
export interface RunningModule {
  checkConfigured(): Promise<Configured>
  archiveFile(file: string, path: string, signal: AbortSignal): Promise<boolean>
  shutdown(): Promise<boolean>
}

export interface AheadOptions {
  files: Files
  dataDirectory: string
  /** How many files may be archived at once; asked each time, because it is a setting. */
  filesAtOnce: () => number
}

/** The same module, given later files too while its archiver waits for one; for a module that declares `archive_ahead`. */
export class RunningModuleAhead implements RunningModule {
  readonly #host: ModuleHost
  readonly #lookAhead: LookAhead
  readonly #stop = new AbortController()

  constructor(host: ModuleHost, { files, dataDirectory, filesAtOnce }: AheadOptions) {
    this.#host = host
    this.#lookAhead = new LookAhead({
      files,
      dataDirectory,
      archiveFile: (file, path, signal, isAhead) => host.archiveFile(file, path, signal, isAhead),
      filesAtOnce,
      signal: this.#stop.signal,
    })
  }

  checkConfigured(): Promise<Configured> {
    return this.#host.checkConfigured()
  }

  async archiveFile(file: string, _path: string, signal: AbortSignal): Promise<boolean> {
    const stop = () => this.#stop.abort()
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    try {
      return await this.#lookAhead.archive(file)
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  /** After a reload that changed a setting: what was archived may have gone elsewhere. */
  forget(): void {
    this.#lookAhead.forget()
  }

  shutdown(): Promise<boolean> {
    this.#stop.abort()
    return this.#host.shutdown()
  }
}
