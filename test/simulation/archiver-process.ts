import { Archiver } from '../../src/archiver/archiver.ts'
import type { ArchiveModuleCallbacks, ArchiveModuleInit } from '../../src/contract/archive-module.ts'
import type { ArchiveServer } from '../../src/contract/archive-server.ts'
import {
  type AnyLevel,
  type ErrorReport,
  type LogMessage,
  ReportedError,
} from '../../src/contract/error-report.ts'
import type { ArchiveServerHandle } from '../../src/host/archive-server.ts'
import { type ArchiveFile, LookAhead } from '../../src/host/look-ahead.ts'
import { ModuleHost } from '../../src/host/module-host.ts'
import { basicArchive } from '../../src/modules/basic-archive.ts'
import type { Clock } from '../../src/system/clock.ts'
import type { Files } from '../../src/system/files.ts'
import type { SimulatedClock } from '../../src/system/simulated-clock.ts'
import type { Fate, SimulatedDisk, SimulatedFiles, Step } from '../../src/system/simulated-files.ts'
import { archiveDirectory, dataDirectory, type Judge } from './judge.ts'

/** What may be put between the archiver and the world, to see whether the simulation notices. */
export interface Lies {
  files?: (files: Files) => Files
  module?: (init: ArchiveModuleInit) => ArchiveModuleInit
  /** What only the look-ahead sees. */
  aheadFiles?: (files: Files) => Files
  /** Between the look-ahead and the module. */
  ahead?: (archiveFile: ArchiveFile) => ArchiveFile
}

export interface ProcessOptions {
  clock: SimulatedClock
  disk: SimulatedDisk
  judge: Judge
  lies: Lies
  fate: (step: Step) => Fate | undefined
  delay: (step: Step) => Promise<void>
  /** How many files the module is given at once. More than one: it archives ahead. */
  filesAtOnce: number
  losesNotification: () => boolean
  /** Told of each attempt that the archiver counts as failed. */
  failed: (file: string) => void
  stepped: (step: Step, code: string | undefined) => void
  stopped: (step: Step) => void
  log: (message: LogMessage) => void
}

/** One life of the archiver, with basic_archive, from its start until it ends or is ended. */
export class ArchiverProcess {
  /** Settles when the archiver has ended by itself. After a kill nobody is left who could say so. */
  readonly exited: Promise<number>
  readonly #files: SimulatedFiles
  readonly #archiver: Archiver
  readonly #stop = new AbortController()
  #lookAhead: LookAhead | undefined
  #requested: string | undefined

  constructor(options: ProcessOptions) {
    const { clock, disk, judge, lies, log } = options
    this.#files = disk.mount({
      fate: options.fate,
      delay: options.delay,
      losesNotification: options.losesNotification,
      stopped: options.stopped,
      stepped: (step, code) => {
        options.stepped(step, code)
        if (step.operation === 'sync' && code !== undefined) judge.acceptDamage()
        judge.look(step, code)
      },
    })
    const files = lies.files?.(this.#files) ?? this.#files
    const init =
      lies.module?.(basicArchive({ files, copyBufferBytes: 8 * 1024, hostName: 'host' })) ??
      basicArchive({ files, copyBufferBytes: 8 * 1024, hostName: 'host' })
    this.#archiver = new Archiver({
      files,
      clock: mortalClock(clock, this.#files),
      log: message => {
        if (!this.isDead) log(message)
      },
      dataDirectory,
      settings: { archive_library: 'basic_archive', archive_command: '', reload: () => {} },
      startModule: async () => {
        const handle = archiveServer(log)
        const given = await init(handle.server)
        const callbacks = options.filesAtOnce > 1 ? await this.#ahead(given, handle, options, files) : given
        const archive = callbacks.archive_file_cb.bind(callbacks)
        callbacks.archive_file_cb = async (state, file, path, context) => {
          this.#requested = file
          const answer = await archive(state, file, path, context)
          this.#requested = undefined
          if (answer && !this.isDead) judge.acknowledge(file)
          return answer
        }
        return ModuleHost.start(callbacks, handle, log)
      },
      events: { archiving: () => {}, archived: () => {}, failed: options.failed, idle: () => {} },
    })
    this.exited = this.#archiver.run().finally(() => {
      this.#stop.abort()
      // What it had begun ahead ends with the process.
      if (options.filesAtOnce > 1) this.#files.kill()
    })
  }

  /** The module as the bridge runs it: what the archiver asks for may have been archived before. */
  async #ahead(
    callbacks: ArchiveModuleCallbacks,
    handle: ArchiveServerHandle,
    { log, lies, filesAtOnce }: ProcessOptions,
    files: Files,
  ): Promise<ArchiveModuleCallbacks> {
    const host = await ModuleHost.start(
      { archive_file_cb: callbacks.archive_file_cb.bind(callbacks) },
      handle,
      message => {
        if (!this.isDead) log(message)
      },
    )
    const archiveFile: ArchiveFile = (file, path, signal) => host.archiveFile(file, path, signal)
    this.#lookAhead = new LookAhead({
      files: lies.aheadFiles?.(files) ?? files,
      dataDirectory,
      archiveFile: lies.ahead?.(archiveFile) ?? archiveFile,
      filesAtOnce: () => filesAtOnce,
      signal: this.#stop.signal,
    })
    const lookAhead = this.#lookAhead
    return { ...callbacks, archive_file_cb: (_state, file) => lookAhead.archive(file) }
  }

  /** What the archiver waits for at the moment. */
  get requested(): string | undefined {
    return this.isDead ? undefined : this.#requested
  }

  /** As after a reload that changed a setting. */
  forget(): void {
    this.#lookAhead?.forget()
  }

  get isDead(): boolean {
    return this.#files.isDead
  }

  get steps(): number {
    return this.#files.steps
  }

  kill(): void {
    this.#files.kill()
  }

  stop(): void {
    this.#archiver.stop()
  }

  terminate(): void {
    this.#archiver.terminate()
  }
}

/** For a dead process no time comes. */
function mortalClock(clock: SimulatedClock, files: SimulatedFiles): Clock {
  return {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    sleep: async (ms, signal) => {
      await clock.sleep(ms, signal)
      if (files.isDead) await new Promise(() => {})
    },
  }
}

function archiveServer(log: (message: LogMessage) => void): ArchiveServerHandle {
  function ereport(level: AnyLevel, report: ErrorReport): void {
    if (level === 'ERROR' || level === 'FATAL' || level === 'PANIC') throw new ReportedError(level, report)
    log({ level, ...report })
  }
  const undeclared = () => {
    throw new Error('not part of this simulation')
  }
  const server: ArchiveServer = {
    DefineCustomBoolVariable: undeclared,
    DefineCustomIntVariable: undeclared,
    DefineCustomRealVariable: undeclared,
    DefineCustomStringVariable: () => ({ value: archiveDirectory }),
    DefineCustomEnumVariable: undeclared,
    MarkGUCPrefixReserved: () => {},
    RegisterBackgroundWorker: undeclared,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- an overload with `never` has no other form
    ereport: ereport as ArchiveServer['ereport'],
    arch_module_check_errdetail: () => {},
    server_version_num: 180000,
    data_directory: dataDirectory,
    system_identifier: '7000000000000000001',
    wal_segment_size: undefined,
    wal_page_magic: undefined,
    contract_version: 1,
  }
  return { server, takeCheckErrdetail: () => undefined, throwIfEnding: () => {} }
}
