// A server of which is known what archiving or restoring costs: whatever it starts, and whatever that leaves behind.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { unprivileged, unprivilegedEnvironment } from '../test/support/unprivileged.ts'
import { tail } from './contestants.ts'
import { childrenOf, cpuMs, peakMegabytes, titleOf, treeOf } from './process-cost.ts'

const startPatienceMs = 120_000
const stopPatienceMs = 60_000
// What was left behind notices within some seconds that the server is gone.
const leftBehindPatienceMs = 15_000

/** Compiles the program that servers are started with. */
export async function buildReaper(directory: string): Promise<string> {
  const reaper = join(directory, 'reaper')
  const source = join(import.meta.dirname, 'reaper.c')
  await promisify(execFile)('cc', ['-O2', '-o', reaper, source], { timeout: 60_000 })
  return reaper
}

export interface WatchedServerOptions {
  reaper: string
  /** The directory of PostgreSQL's programs. */
  programDirectory: string
  dataDirectory: string
  logPath: string
  /** Besides what all servers have. */
  environment?: NodeJS.ProcessEnv | undefined
}

export class WatchedServer implements AsyncDisposable {
  /** When it was asked to start, in milliseconds since the epoch. */
  readonly startedAt: number
  readonly #options: WatchedServerOptions
  readonly #reaper: ChildProcess
  readonly #peaks = new Map<number, number>()
  #peakTogether = 0

  private constructor(options: WatchedServerOptions, reaper: ChildProcess, startedAt: number) {
    this.#options = options
    this.#reaper = reaper
    this.startedAt = startedAt
  }

  static async start(options: WatchedServerOptions): Promise<WatchedServer> {
    const { reaper, programDirectory, dataDirectory, logPath } = options
    await using log = await open(logPath, 'w')
    const startedAt = Date.now()
    const child = spawn(reaper, [join(programDirectory, 'postgres'), '-D', dataDirectory], {
      ...unprivileged,
      env: { ...unprivilegedEnvironment, ...options.environment },
      cwd: '/',
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    await once(child, 'spawn')
    return new WatchedServer(options, child, startedAt)
  }

  get #pid(): number {
    return this.#reaper.pid ?? Number.NaN
  }

  get #hasEnded(): boolean {
    return this.#reaper.exitCode !== null || this.#reaper.signalCode !== null
  }

  /** Its process number, as it tells it itself; `undefined` while it is down. */
  async #postmaster(): Promise<number | undefined> {
    const path = join(this.#options.dataDirectory, 'postmaster.pid')
    const pid = Number.parseInt(await readFile(path, 'utf8').catch(() => ''))
    // There may be a file of a server before it.
    return (await childrenOf(this.#pid)).includes(pid) ? pid : undefined
  }

  /** Throws if the server is not there any more, or is not yet there although it should be. */
  async requireAlive(): Promise<void> {
    if (!this.#hasEnded) {
      if (Date.now() < this.startedAt + startPatienceMs || (await this.#postmaster()) !== undefined) return
    }
    throw new Error(`the server is down; its log ends with:\n${tail(await this.log())}`)
  }

  async log(): Promise<string> {
    return await readFile(this.#options.logPath, 'utf8').catch(() => '')
  }

  /** The server's archiver with all that it has started, and all that was left behind. */
  async #archiving(): Promise<number[]> {
    const postmaster = await this.#postmaster()
    if (postmaster === undefined) return []
    const found: number[] = []
    for (const pid of await childrenOf(this.#pid)) {
      if (pid !== postmaster) found.push(...(await treeOf(pid)))
    }
    for (const pid of await childrenOf(postmaster)) {
      if ((await titleOf(pid)).startsWith('postgres: archiver')) found.push(...(await treeOf(pid)))
    }
    return found
  }

  /** CPU seconds of archiving so far. */
  async archivingCpuSeconds(): Promise<number> {
    // What was left behind and has ended is in the times of the one that starts the server, which does nothing itself.
    return await cpuSeconds([this.#pid, ...(await this.#archiving())])
  }

  /** CPU seconds of the server and all else so far. */
  async cpuSeconds(): Promise<number> {
    return await cpuSeconds(await treeOf(this.#pid))
  }

  /** To be called now and then: memory of a process is known only while it runs. */
  async lookAtMemory(): Promise<void> {
    const pids = await this.#archiving()
    const megabytes = await Promise.all(pids.map(peakMegabytes))
    let together = 0
    pids.forEach((pid, index) => {
      // One that has just ended has no figure.
      const peak = megabytes[index] || 0
      this.#peaks.set(pid, Math.max(peak, this.#peaks.get(pid) ?? 0))
      together += peak
    })
    this.#peakTogether = Math.max(this.#peakTogether, together)
  }

  /** Of the largest process that was seen, and the most that all had who ran at one time. */
  get peakMegabytes(): { largest: number; together: number } {
    return { largest: Math.max(0, ...this.#peaks.values()), together: this.#peakTogether }
  }

  /** Returns when it has shut down and nothing of it is left. */
  async stop(): Promise<void> {
    if (this.#hasEnded) return
    const ended = once(this.#reaper, 'exit')
    const postmaster = await this.#postmaster()
    if (postmaster === undefined) process.kill(this.#pid, 'SIGQUIT')
    else process.kill(postmaster, 'SIGINT')
    const isDown = async () => this.#hasEnded || (await this.#postmaster()) === undefined
    if (postmaster !== undefined && !(await until(isDown, stopPatienceMs)))
      process.kill(postmaster, 'SIGQUIT')
    if (!(await until(async () => this.#hasEnded, leftBehindPatienceMs))) {
      for (const pid of (await treeOf(this.#pid)).slice(1)) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has ended meanwhile.
        }
      }
    }
    await ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

async function cpuSeconds(pids: readonly number[]): Promise<number> {
  const times = await Promise.all(pids.map(cpuMs))
  return times.reduce((sum, ms) => sum + ms, 0) / 1_000
}

async function until(condition: () => Promise<boolean>, patienceMs: number): Promise<boolean> {
  const deadline = performance.now() + patienceMs
  while (!(await condition())) {
    if (performance.now() > deadline) return false
    await sleep(20)
  }
  return true
}
