// A server that tests start beside themselves: run by the unprivileged user, its output in a file, ended with the test
// process in whatever way that ends.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { unprivileged, unprivilegedEnvironment } from './unprivileged.ts'

const readyTimeoutMs = 60_000
const stopTimeoutMs = 30_000
const logTailLines = 12

export interface ServerProcessOptions {
  /** For messages. */
  name: string
  command: readonly [string, ...string[]]
  logPath: string
  cwd: string
  environment?: NodeJS.ProcessEnv
  /** For a command that gives its rights away itself. */
  isRoot?: boolean
}

export class ServerProcess {
  readonly #name: string
  readonly #logPath: string
  readonly #child: ChildProcess

  private constructor(name: string, logPath: string, child: ChildProcess) {
    this.#name = name
    this.#logPath = logPath
    this.#child = child
  }

  static async start(options: ServerProcessOptions): Promise<ServerProcess> {
    await using log = await open(options.logPath, 'a')
    // The kernel ends it with this process, SIGKILL included. Ctrl-C does not reach its process group, so that tests
    // decide in which order servers go.
    const child = spawn('/usr/bin/env', ['setpriv', '--pdeathsig', 'KILL', ...options.command], {
      ...(options.isRoot === true ? {} : unprivileged),
      env: { ...unprivilegedEnvironment, ...options.environment },
      cwd: options.cwd,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    await once(child, 'spawn')
    return new ServerProcess(options.name, options.logPath, child)
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.#name} has no process number`)
    return this.#child.pid
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** Asks until it says yes. */
  async ready(isReady: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + readyTimeoutMs
    while (!(await isReady())) {
      if (this.hasEnded) throw await this.#failure('ended while starting')
      if (Date.now() > deadline) {
        await this.end('SIGKILL')
        throw await this.#failure(`was not ready after ${readyTimeoutMs} ms`)
      }
      await sleep(20)
    }
  }

  async #failure(what: string): Promise<Error> {
    const log = await readFile(this.#logPath, 'utf8').catch(() => '')
    const tail = log.trimEnd().split('\n').slice(-logTailLines)
    return new Error(`${this.#name} ${what}; its log ends with:\n${tail.join('\n')}`)
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Sends the signal and returns when the process is gone. Does nothing when it is. */
  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.hasEnded) return
    const ended = once(this.#child, 'exit', { signal: AbortSignal.timeout(stopTimeoutMs) })
    this.#child.kill(signal)
    try {
      await ended
    } catch (cause) {
      throw new Error(`${this.#name} is not gone ${stopTimeoutMs} ms after ${signal}`, { cause })
    }
  }
}

// The kernel gives away ports from 32768 on by itself, for every connection.
const firstPort = 10_240
const lastPort = 32_000

/** Ports on loopback that nobody listens on, and that nobody is given who asks for any. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort))
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return true
  } catch {
    return false
  } finally {
    server.close()
  }
}

/** Whether somebody accepts connections there. */
export async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
