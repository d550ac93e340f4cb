import { spawn } from 'node:child_process'
import type { Spool } from '../restore/spool.ts'
import { identityOf, isRunning } from '../system/process-identity.ts'
import { realFiles } from '../system/real-files.ts'
import type { FetcherStart } from './fetcher-process.ts'
import { siblingProgram } from './sibling-program.ts'

/** The process that fetches ahead of a recovery, for the command that finds it or has to start it. */
export class FetcherAhead {
  readonly #spool: Spool
  /** Stands for what it has to fetch from. */
  readonly #mark: string
  readonly #start: FetcherStart
  #hasStarted = false

  constructor(spool: Spool, mark: string, start: FetcherStart) {
    this.#spool = spool
    this.#mark = mark
    this.#start = start
  }

  /**
   * Starts it before the command fetches its own file, which takes as long: unless the last one did not get to work, because
   * then this one will hardly do so.
   */
  async startEarly(): Promise<void> {
    const spool = this.#spool
    await spool.open(process.geteuid?.())
    const wasInVain = (await spool.readState()) === undefined && (await spool.readStarted()) !== undefined
    if (!wasInVain) await this.#ensure()
  }

  /** The repository has answered, so it goes on: behind the segment of this name, if that was delivered to this path. */
  async goOn(delivered: { name: string; path: string; isHandedOver: boolean } | undefined): Promise<void> {
    await this.#ensure()
    // What is handed over it sees by itself, if it was there before.
    if (delivered === undefined || (delivered.isHandedOver && !this.#hasStarted)) return
    const { name, path } = delivered
    const { size } = await realFiles.stat(path)
    const mark = `${process.pid} ${Date.now()}`
    await this.#spool.writePosition({ name, segmentBytes: size }, mark, process.pid)
  }

  async #ensure(): Promise<void> {
    const spool = this.#spool
    // One that went idle meanwhile has removed it.
    await spool.open(process.geteuid?.())
    const state = await spool.readState()
    if (state !== undefined && state.source !== this.#mark && (await isRunning(realFiles, state.fetcher))) {
      // It fetches from somewhere else, as it was told before.
      process.kill(state.fetcher.pid, 'SIGTERM')
    } else if (await spool.hasFetcher()) return
    this.#hasStarted = true
    // Where another recovery was.
    await spool.removePosition()
    const program = siblingProgram('fetcher-process')
    const fetcher = spawn(
      process.execPath,
      [...process.execArgv, program, 'pgarchivist: fetcher', JSON.stringify(this.#start)],
      { cwd: '/', detached: true, stdio: 'ignore' },
    )
    // What prevents it is told here at once, or never.
    fetcher.on('error', () => undefined)
    fetcher.unref()
    const identity = fetcher.pid === undefined ? undefined : await identityOf(realFiles, fetcher.pid)
    if (identity !== undefined) await spool.writeStarted(identity)
  }
}
