/**
 * What runs in the process of one background worker, and the messages between it and `BackgroundWorkers`. The front
 * door wires it to a real process.
 */
import { format } from 'node:util'
import type { BackgroundWorkerContext, BackgroundWorkerMain } from '../contract/background-worker.ts'
import {
  type AnyLevel,
  type ErrorReport,
  type LogMessage,
  logLevels,
  ReportedError,
  reportOf,
} from '../contract/error-report.ts'
import type { ModuleFiles } from '../system/module-files.ts'
import type { ParentProcess } from '../system/processes.ts'
import { type BuiltInModules, loadModuleExports } from './loader.ts'

/** The settings that the module declared, by name. */
export type SettingValues = ReadonlyMap<string, boolean | number | string>

export type ToWorker =
  | { type: 'start'; task: WorkerTask; values: SettingValues }
  | { type: 'reload'; values: SettingValues }
  | { type: 'stop' }
  /** So many of its messages are in the log. */
  | { type: 'logged'; count: number }

export type FromWorker = { type: 'log'; message: LogMessage }

export interface WorkerTask {
  /** Of the module, as the loader told it. */
  source: string
  functionName: string
  argument: unknown
  dataDirectory: string
}

/** More than these on their way to the log are dropped and counted, so that no memory fills with them. */
export const messagesInFlightMax = 1_000
/** Characters of one text that reach the log. */
export const messageTextMax = 8_192

export interface WorkerSystem {
  builtIns: BuiltInModules
  modules: ModuleFiles
  /** Rejects with what nothing in the process has caught. */
  uncaught: Promise<never>
}

/** Resolves with the exit status of the process, when everything that it logged is on its way. */
export async function runBackgroundWorker(parent: ParentProcess, system: WorkerSystem): Promise<number> {
  const stopping = new AbortController()
  const outbox = new Outbox(parent)
  let values: SettingValues = new Map()
  const task = await new Promise<WorkerTask>(resolve => {
    parent.onMessage(message => {
      const order = message as ToWorker
      switch (order.type) {
        case 'start':
          values = order.values
          resolve(order.task)
          break
        case 'reload':
          values = order.values
          break
        case 'stop':
          stopping.abort()
          break
        case 'logged':
          outbox.acknowledge(order.count)
          break
        default:
          order satisfies never
      }
    })
  })

  const context: BackgroundWorkerContext = {
    signal: stopping.signal,
    GetConfigOption: name => {
      const wanted = name.toLowerCase()
      for (const [known, value] of values) if (known.toLowerCase() === wanted) return value
      const errmsg = `unrecognized configuration parameter "${name}"`
      throw new ReportedError('ERROR', { errmsg, errcode: '42704' })
    },
    ereport: ((level: AnyLevel, report: ErrorReport) => {
      if (!logLevels.includes(level)) {
        throw new ReportedError('ERROR', { errmsg: `unrecognized error level "${level}"` })
      }
      if (level === 'ERROR' || level === 'FATAL' || level === 'PANIC') throw new ReportedError(level, report)
      outbox.log({ ...report, level })
    }) as BackgroundWorkerContext['ereport'],
    data_directory: task.dataDirectory,
  }

  try {
    await Promise.race([callFunction(task, context, system), system.uncaught])
    await outbox.flush()
    return 0
  } catch (thrown) {
    const level = thrown instanceof ReportedError ? thrown.level : 'ERROR'
    outbox.log({ ...reportOf(thrown), level })
    await outbox.flush()
    return 1
  }
}

async function callFunction(
  { source, functionName, argument }: WorkerTask,
  context: BackgroundWorkerContext,
  system: WorkerSystem,
): Promise<void> {
  const exports = await loadModuleExports(source, system)
  const main = exports[functionName]
  if (typeof main !== 'function') {
    const errmsg = `could not find function "${functionName}" in file "${source}"`
    throw new ReportedError('ERROR', { errmsg, errcode: '42883' })
  }
  if (context.signal.aborted) return // asked to stop before it could start
  await (main as BackgroundWorkerMain)(argument, context)
}

/** Messages on their way to the log, so many at most. */
class Outbox {
  readonly #parent: ParentProcess
  #inFlight = 0
  #dropped = 0
  #lastSent: Promise<void> = Promise.resolve()

  constructor(parent: ParentProcess) {
    this.#parent = parent
  }

  log(message: LogMessage): void {
    // The message that ends the worker is worth a place beyond the limit: there is only one of them.
    const isLast = message.level === 'ERROR' || message.level === 'FATAL' || message.level === 'PANIC'
    if (this.#inFlight >= messagesInFlightMax && !isLast) this.#dropped++
    else this.#send(message)
  }

  acknowledge(count: number): void {
    this.#inFlight -= count
    this.#reportDropped()
  }

  async flush(): Promise<void> {
    this.#reportDropped()
    await this.#lastSent
  }

  #reportDropped(): void {
    if (this.#dropped === 0) return
    const errmsg = `background worker logged too much at once: ${this.#dropped} messages were dropped`
    this.#dropped = 0
    this.#send({ level: 'WARNING', errmsg })
  }

  #send(message: LogMessage): void {
    this.#inFlight++
    this.#lastSent = this.#parent.send({ type: 'log', message: limited(message) } satisfies FromWorker)
  }
}

/** Plain texts of bounded length, whatever a module passes: what arrives has to be copied and read. */
function limited({ level, errmsg, errdetail, errhint, errcode }: LogMessage): LogMessage {
  const text = (value: unknown) =>
    value === undefined ? undefined : format('%s', value).slice(0, messageTextMax)
  return {
    level,
    errmsg: text(errmsg) ?? '',
    errdetail: text(errdetail),
    errhint: text(errhint),
    errcode: text(errcode),
  }
}
