// A server that is process number 1, as in a container that starts nothing but it: whoever loses its parent becomes its
// child, and one that dies by a signal is to it a crashed backend.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type PostgresOptions,
  PostgresServer,
  programDirectories,
  type StopMode,
} from '../support/postgresql-server.ts'
import {
  giveAway,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../support/unprivileged.ts'
import { childrenOf } from './bridged-server.ts'

const remedy =
  'these tests need a PID namespace: run them as root (in Docker with --privileged), or allow user namespaces with "sysctl kernel.unprivileged_userns_clone=1" and "sysctl kernel.apparmor_restrict_unprivileged_userns=0"'

const startTimeoutMs = 60_000
const stopTimeoutMs = 60_000
const stopSignals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const

/** To be given to BridgedServer.start. */
export async function startContained(options: PostgresOptions): Promise<ContainedServer> {
  const programDirectory = (await programDirectories()).get(options.major)
  if (programDirectory === undefined) throw new Error(`PostgreSQL ${options.major} is not available here`)
  const directory = await temporaryDirectory()
  try {
    const server = new ContainedServer(options, programDirectory, directory)
    await server.prepare(options)
    await server.start()
    return server
  } catch (error) {
    await directory[Symbol.asyncDispose]()
    throw error
  }
}

export class ContainedServer extends PostgresServer {
  #outside: ChildProcess | undefined
  #postmaster: number | undefined

  /** The postmaster's number outside of the namespace. */
  override get pid(): number | undefined {
    return this.#hasEnded() ? undefined : this.#postmaster
  }

  #hasEnded(): boolean {
    const child = this.#outside
    return child === undefined || child.exitCode !== null || child.signalCode !== null
  }

  override async start(): Promise<void> {
    const path = join(this.socketDirectory, 'server.log')
    await using log = await open(path, 'a')
    await giveAway(path)
    const isRoot = unprivileged.uid !== undefined
    const namespace = [...(isRoot ? [] : ['--user', '--map-current-user']), '--pid', '--fork', '--kill-child']
    const identity = isRoot
      ? [
          // The kernel forgets what --kill-child has set when a process becomes another user's.
          ...['setpriv', '--pdeathsig', 'KILL', `--reuid=${unprivileged.uid}`, `--regid=${unprivileged.gid}`],
          ...['--clear-groups', '--'],
        ]
      : []
    // If the test process ends in whatever way, so does all that is in the namespace.
    const command = ['--pdeathsig', 'KILL', 'unshare', ...namespace, '--mount-proc', '--', ...identity]
    const server = [join(this.programDirectory, 'postgres'), '-D', this.dataDirectory]
    const child = spawn('setpriv', [...command, ...server], {
      env: unprivilegedEnvironment,
      cwd: this.socketDirectory,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    this.#outside = child
    await once(child, 'spawn')
    const deadline = Date.now() + startTimeoutMs
    while (!(await this.#isReady())) {
      if (this.#hasEnded() || Date.now() > deadline) {
        child.kill('SIGKILL')
        throw new Error(`PostgreSQL ${this.major} did not become process 1: ${remedy}\n${await this.log()}`)
      }
      await sleep(10)
    }
    ;[this.#postmaster] = await childrenOf(child.pid ?? 0)
  }

  async #isReady(): Promise<boolean> {
    const text = await readFile(join(this.dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')
    const lines = text.split('\n')
    return lines[0] === '1' && lines[7]?.trim() === 'ready'
  }

  override async stop(mode: StopMode = 'fast'): Promise<void> {
    const child = this.#outside
    if (child === undefined || this.#hasEnded()) return
    const ended = once(child, 'exit', { signal: AbortSignal.timeout(stopTimeoutMs) })
    this.kill(stopSignals[mode])
    await ended
  }

  override kill(signal: NodeJS.Signals): void {
    if (this.pid !== undefined) process.kill(this.pid, signal)
  }

  override async ended(): Promise<void> {
    if (!this.#hasEnded() && this.#outside !== undefined) await once(this.#outside, 'exit')
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    const patience = setTimeout(() => this.#outside?.kill('SIGKILL'), 20_000)
    await this.stop('fast').finally(() => clearTimeout(patience))
    await super[Symbol.asyncDispose]()
  }
}
