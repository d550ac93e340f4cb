/**
 * The background workers of one module, each in a process of its own. A worker is
 *
 *   waiting   for `start()`, or with BgWorkerStart_RecoveryFinished for `recoveryFinished()`
 *   running   until its process ends
 *   resting   for its restart interval, after an end with another status than 0
 *   over      after status 0, or an end without a restart interval, or `stop()`
 */
import assert from 'node:assert/strict'
import { type BackgroundWorker, BGW_NEVER_RESTART } from '../contract/background-worker.ts'
import type { ErrorReport, Log } from '../contract/error-report.ts'
import type { Clock } from '../system/clock.ts'
import type { ForkedProcess, ProcessEnd, Processes, StartFailure } from '../system/processes.ts'
import { signalNumber, signalText } from '../system/signals.ts'
import { systemErrorText } from '../system/system-error.ts'
import type { FromWorker, SettingValues, ToWorker, WorkerTask } from './background-worker-main.ts'

export interface BackgroundWorkersOptions {
  /** Of the module whose functions are run, as the loader told it. */
  source: string
  /** The file that runs in the process of a worker. */
  program: string
  dataDirectory: string
  processes: Pick<Processes, 'fork'>
  clock: Clock
  log: Log
}

const restartIntervalMaxSeconds = 86_400
/** PostgreSQL's BGW_MAXLEN, its terminating zero counted. */
const nameBytesMax = 95
/** Between being told to stop and being killed. */
export const stopPatienceMs = 5_000

const startTimes: ReadonlySet<unknown> = new Set([
  'BgWorkerStart_PostmasterStart',
  'BgWorkerStart_ConsistentState',
  'BgWorkerStart_RecoveryFinished',
])

export class BackgroundWorkers {
  readonly #options: BackgroundWorkersOptions
  readonly #workers: BackgroundWorker[] = []
  readonly #stopping = new AbortController()
  readonly #lives = new Set<Promise<void>>()
  readonly #running = new Set<RunningWorker>()
  readonly #recovery = Promise.withResolvers<void>()
  #values: SettingValues = new Map()
  #started = false

  constructor(options: BackgroundWorkersOptions) {
    this.#options = options
  }

  /** Takes a registration, or says in the log why not. Never throws, as in PostgreSQL. */
  register(worker: BackgroundWorker): void {
    const refusal = this.#refusalOf(worker)
    if (refusal !== undefined) {
      this.#options.log({ level: 'LOG', ...refusal })
      return
    }
    this.#options.log({ level: 'DEBUG1', errmsg: `registering background worker "${worker.bgw_name}"` })
    // A copy, because the module may go on to change its object.
    this.#workers.push({ ...worker, bgw_main_arg: structuredClone(worker.bgw_main_arg) })
  }

  /** Starts what need not wait for the end of recovery. Registrations after this are refused. */
  start(values: SettingValues): void {
    assert(!this.#started)
    this.#started = true
    this.#values = values
    for (const worker of this.#workers) {
      const life = this.#live(worker).finally(() => this.#lives.delete(life))
      this.#lives.add(life)
    }
  }

  /** Starts what waited for that. To be called when the server is found to be out of recovery; again does nothing. */
  recoveryFinished(): void {
    this.#recovery.resolve()
  }

  /** Hands new values of the settings to the workers. */
  reload(values: SettingValues): void {
    this.#values = values
    for (const worker of this.#running) void worker.reload(values)
  }

  /** Tells all workers to stop, kills those that do not in time, and resolves when none is left. */
  async stop(): Promise<void> {
    this.#started = true
    this.#stopping.abort()
    for (const worker of this.#running) void worker.stop()
    await Promise.all(this.#lives)
  }

  #refusalOf(worker: BackgroundWorker): ErrorReport | undefined {
    // A module may come without a compiler, so none of its types can be relied on.
    const given: Partial<Record<keyof BackgroundWorker, unknown>> = worker
    const { bgw_name, bgw_function_name, bgw_main_arg, bgw_start_time, bgw_restart_time } = given
    const refuse = (problem: string) => ({
      errmsg: `background worker "${String(bgw_name)}": ${problem}`,
      errcode: '22023',
    })
    if (typeof bgw_name !== 'string' || bgw_name === '') return refuse('invalid name')
    if (Buffer.byteLength(bgw_name) > nameBytesMax) return refuse(`name is longer than ${nameBytesMax} bytes`)
    if (this.#started) return refuse('must be registered while the module is initialized')
    if (this.#workers.some(other => other.bgw_name === bgw_name)) return refuse('name is already in use')
    if (typeof bgw_function_name !== 'string' || bgw_function_name === '')
      return refuse('invalid function name')
    if (bgw_start_time !== undefined && !startTimes.has(bgw_start_time)) return refuse('invalid start time')
    if (!isRestartTime(bgw_restart_time)) return refuse('invalid restart interval')
    try {
      structuredClone(bgw_main_arg)
    } catch (error) {
      return { ...refuse('the argument cannot be copied to another process'), errdetail: `${String(error)}.` }
    }
    return undefined
  }

  /** From the start to the very end, restarts included. Never rejects. */
  async #live(worker: BackgroundWorker): Promise<void> {
    const stop = this.#stopping.signal
    const { clock } = this.#options
    if (worker.bgw_start_time === 'BgWorkerStart_RecoveryFinished') {
      await Promise.race([this.#recovery.promise, aborted(stop)])
    }
    while (!stop.aborted) {
      if (await this.#runOnce(worker)) return
      const restartTime = worker.bgw_restart_time ?? BGW_NEVER_RESTART
      if (restartTime === BGW_NEVER_RESTART) return
      await clock.sleep(restartTime * 1_000, stop)
    }
  }

  /** One process. Resolves with whether it ended with status 0. */
  async #runOnce(worker: BackgroundWorker): Promise<boolean> {
    const { bgw_name, bgw_function_name, bgw_main_arg } = worker
    const { source, dataDirectory, log } = this.#options
    log({ level: 'DEBUG1', errmsg: `starting background worker process "${bgw_name}"` })
    const running = new RunningWorker(bgw_name, this.#options)
    this.#running.add(running)
    const task = { source, functionName: bgw_function_name, argument: bgw_main_arg, dataDirectory }
    const end = await running.run(task, this.#values)
    this.#running.delete(running)
    if ('startFailure' in end) {
      log({
        level: 'LOG',
        errmsg: `could not fork background worker process: ${systemErrorText(end.startFailure)}`,
      })
      return false
    }
    const how =
      end.signal === null
        ? `exited with exit code ${end.code}`
        : `was terminated by signal ${signalNumber(end.signal)}: ${signalText(end.signal)}`
    log({ level: 'LOG', errmsg: `background worker "${bgw_name}" (PID ${running.pid}) ${how}` })
    return end.code === 0
  }
}

/** The process of a worker, and what travels between it and us. */
class RunningWorker {
  readonly #name: string
  readonly #process: ForkedProcess
  readonly #clock: Clock
  readonly #log: Log
  readonly #ended = new AbortController()
  #unacknowledged = 0
  #sending = false
  #unsentValues: SettingValues | undefined

  constructor(name: string, { program, dataDirectory, processes, clock, log }: BackgroundWorkersOptions) {
    this.#name = name
    this.#clock = clock
    this.#log = log
    this.#process = processes.fork(program, {
      cwd: dataDirectory,
      title: `pgarchivist: ${name}`,
      onMessage: message => this.#receive(message as FromWorker),
    })
  }

  get pid(): number | undefined {
    return this.#process.pid
  }

  async run(task: WorkerTask, values: SettingValues): Promise<ProcessEnd | StartFailure> {
    // What structured clone copies here may still not enter another process, shared memory for one.
    this.#tell({ type: 'start', task, values }).catch((error: unknown) => {
      const errmsg = `background worker "${this.#name}": the argument cannot be copied to another process`
      this.#log({ level: 'ERROR', errmsg, errdetail: `${String(error)}.` })
      this.#process.kill()
    })
    const end = await this.#process.ended
    this.#ended.abort()
    return end
  }

  /** A worker that does not read must not make us hoard values for it: only the newest ones wait. */
  async reload(values: SettingValues): Promise<void> {
    this.#unsentValues = values
    if (this.#sending) return
    this.#sending = true
    while (this.#unsentValues !== undefined) {
      const next = this.#unsentValues
      this.#unsentValues = undefined
      await this.#tell({ type: 'reload', values: next })
    }
    this.#sending = false
  }

  async stop(): Promise<void> {
    void this.#tell({ type: 'stop' })
    await this.#clock.sleep(stopPatienceMs, this.#ended.signal)
    this.#process.kill()
  }

  #tell(message: ToWorker): Promise<void> {
    return this.#process.send(message)
  }

  #receive({ message }: FromWorker): void {
    this.#log(message)
    // A worker may have so many messages on their way. That we are slow to ask for more bounds how fast it can log.
    this.#unacknowledged++
    if (this.#unacknowledged === 1) void this.#acknowledgeSoon()
  }

  async #acknowledgeSoon(): Promise<void> {
    await this.#clock.sleep(acknowledgementDelayMs, this.#ended.signal)
    const count = this.#unacknowledged
    this.#unacknowledged = 0
    await this.#tell({ type: 'logged', count })
  }
}

const acknowledgementDelayMs = 100

function isRestartTime(value: unknown): boolean {
  if (value === undefined || value === BGW_NEVER_RESTART) return true
  return typeof value === 'number' && value >= 0 && value <= restartIntervalMaxSeconds
}

/** Resolves when the signal is aborted. For signals that live no longer than who waits. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
