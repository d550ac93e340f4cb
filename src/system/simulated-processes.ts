import assert from 'node:assert/strict'
import type {
  ForkedProcess,
  ForkOptions,
  ProcessEnd,
  Processes,
  ShellOptions,
  StartFailure,
} from './processes.ts'

/** The simulated twin of processes: a test plays the programs. */
export class SimulatedProcesses implements Processes {
  /** All that were started, also those that have ended. */
  readonly forked: SimulatedProcess[] = []
  /** What a command line does; by default it succeeds. */
  onShell: (command: string, options: ShellOptions) => Promise<ProcessEnd> = async () => ({
    code: 0,
    signal: null,
  })
  /** Told each process that was started. */
  onFork: (process: SimulatedProcess) => void = () => {}
  /** The next start fails with this. */
  startFailure: Error | undefined

  shell(command: string, options: ShellOptions): Promise<ProcessEnd> {
    return this.onShell(command, options)
  }

  fork(program: string, options: ForkOptions): SimulatedProcess {
    const process = new SimulatedProcess(this.forked.length + 1, program, options, this.startFailure)
    this.startFailure = undefined
    this.forked.push(process)
    if (process.pid !== undefined) this.onFork(process)
    return process
  }
}

export class SimulatedProcess implements ForkedProcess {
  readonly pid: number | undefined
  readonly program: string
  readonly options: ForkOptions
  /** What it was sent, as it would read it. */
  readonly received: unknown[] = []
  readonly ended: Promise<ProcessEnd | StartFailure>
  /** Told each message that it is sent. */
  onMessage: (message: unknown) => void = () => {}
  #resolveEnded: (end: ProcessEnd | StartFailure) => void
  #hasEnded = false

  constructor(pid: number, program: string, options: ForkOptions, startFailure: Error | undefined) {
    const { promise, resolve } = Promise.withResolvers<ProcessEnd | StartFailure>()
    this.pid = startFailure === undefined ? pid : undefined
    this.program = program
    this.options = options
    this.ended = promise
    this.#resolveEnded = resolve
    if (startFailure !== undefined) this.#end({ startFailure })
  }

  async send(message: unknown): Promise<void> {
    const copy: unknown = structuredClone(message)
    if (this.#hasEnded) return
    this.received.push(copy)
    this.onMessage(copy)
  }

  kill(): void {
    this.#end({ code: null, signal: 'SIGKILL' })
  }

  /** The program sends a message. */
  sendToParent(message: unknown): void {
    assert(!this.#hasEnded)
    this.options.onMessage(structuredClone(message))
  }

  exit(code: number): void {
    this.#end({ code, signal: null })
  }

  crash(signal: NodeJS.Signals): void {
    this.#end({ code: null, signal })
  }

  #end(end: ProcessEnd | StartFailure): void {
    this.#hasEnded = true
    this.#resolveEnded(end)
  }
}
