import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Spool } from '../restore/spool.ts'
import { identityOf, isRunning } from '../system/process-identity.ts'
import { realFiles } from '../system/real-files.ts'
import type { FetcherStart } from './fetcher-process.ts'
import { siblingProgram } from './sibling-program.ts'

/** The process that fetches ahead of a recovery. */
export class FetcherAhead {
  readonly #spool: Spool
  readonly #started: ChildProcess | undefined

  private constructor(spool: Spool, started: ChildProcess | undefined) {
    this.#spool = spool
    this.#started = started
  }

  /** Starts one where there is none. `mark` stands for what it has to fetch from. */
  static async find(spool: Spool, mark: string, start: FetcherStart): Promise<FetcherAhead> {
    await spool.open(process.geteuid?.())
    const state = await spool.readState()
    if (state !== undefined && state.source !== mark && (await isRunning(realFiles, state.fetcher))) {
      // It fetches from somewhere else, as it was told before.
      process.kill(state.fetcher.pid, 'SIGTERM')
    } else if (await spool.hasFetcher()) return new FetcherAhead(spool, undefined)
    // Where another recovery was.
    await spool.removePosition()
    const fetcher = spawn(
      process.execPath,
      [...process.execArgv, siblingProgram('fetcher-process'), 'pgarchivist: fetcher', JSON.stringify(start)],
      {
        cwd: '/',
        detached: true,
        stdio: 'ignore',
      },
    )
    // What prevents it is told here at once, or never.
    fetcher.on('error', () => undefined)
    fetcher.unref()
    const identity = fetcher.pid === undefined ? undefined : await identityOf(realFiles, fetcher.pid)
    if (identity !== undefined) await spool.writeStarted(identity)
    return new FetcherAhead(spool, fetcher)
  }

  /** Tells it which segment the server has got, at this path. */
  async goOnFrom(name: string, path: string, isHandedOver: boolean): Promise<void> {
    // What is handed over it sees by itself, if it was there before.
    if (isHandedOver && this.#started === undefined) return
    const { size } = await realFiles.stat(path)
    await this.#spool.writePosition({ name, segmentBytes: size }, `${process.pid} ${Date.now()}`, process.pid)
  }

  /**
   * Ends it, unless it was there before: where nothing can be fetched, whoever asks for the next file should not wait for two
   * in vain. Waits for its end, because the server may be the first process of a container, which would take one
   * that it has to reap for a crash of its own.
   */
  async stop(): Promise<void> {
    const fetcher = this.#started
    if (fetcher?.pid === undefined || fetcher.exitCode !== null || fetcher.signalCode !== null) return
    fetcher.ref()
    const ended = once(fetcher, 'exit')
    fetcher.kill('SIGTERM')
    await ended
  }
}
