import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import { Worker } from 'node:worker_threads'
import type {
  ForkedProcess,
  ForkOptions,
  ParentProcess,
  ProcessEnd,
  Processes,
  StartFailure,
} from './processes.ts'

/** `setpriv` is for tests: without it, a program watches by itself whether we are still there. */
export function createRealProcesses({ setpriv = findSetpriv } = {}): Processes {
  let launcher: string | undefined | null = null // not looked for yet
  return {
    shell: runShell,
    fork: (program, options) => {
      if (launcher === null) launcher = setpriv()
      return new RealForkedProcess(program, options, launcher)
    },
  }
}

export const realProcesses: Processes = createRealProcesses()

// Less than the supervisor waits before it kills the process that waits for this.
const terminationPatienceMs = 500

function runShell(
  command: string,
  { cwd, signal }: { cwd: string; signal?: AbortSignal },
): Promise<ProcessEnd> {
  return new Promise((resolve, reject) => {
    // A group of its own: Ctrl-C on the terminal is for us, and what the command started can be ended with it.
    const child = spawn('/bin/sh', ['-c', command], {
      cwd,
      // The cache of our own program is not for Node programs of the user's.
      env: { ...process.env, NODE_COMPILE_CACHE: undefined },
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    let patience: NodeJS.Timeout | undefined
    const terminate = () => {
      killGroup(child, 'SIGTERM')
      patience = setTimeout(() => killGroup(child, 'SIGKILL'), terminationPatienceMs)
    }
    child.once('error', error => {
      if (child.pid === undefined) reject(error)
    })
    child.once('spawn', () => {
      if (signal?.aborted) terminate()
      else signal?.addEventListener('abort', terminate, { once: true })
    })
    child.once('exit', (code, by) => {
      signal?.removeEventListener('abort', terminate)
      if (patience !== undefined) {
        clearTimeout(patience)
        killGroup(child, 'SIGKILL') // the shell is gone; what it started may have ignored the request
      }
      resolve(processEnd(code, by))
    })
  })
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    // All of the group have ended, which is what was wanted.
  }
}

function processEnd(code: number | null, signal: NodeJS.Signals | null): ProcessEnd {
  return signal === null ? { code: code ?? 0, signal } : { code: null, signal }
}

/** A setpriv that can arrange for a signal at the death of the parent. That of BusyBox cannot. */
function findSetpriv(): string | undefined {
  for (const path of ['/usr/bin/setpriv', '/bin/setpriv', '/usr/local/bin/setpriv']) {
    const { status } = spawnSync(path, ['--pdeathsig', 'KILL', '--', '/bin/sh', '-c', ':'], {
      stdio: 'ignore',
    })
    if (status === 0) return path
  }
  return undefined
}

/** What lies unread in the channel when its process has ended arrives within this time. */
const drainPatienceMs = 1_000

// Node lets short-lived objects pile up to three times this before it collects them. Our programs make many, such as
// the names of a directory, keep few, and gain nothing from the default, which is eight times as much.
const youngGeneration = '--max-semi-space-size=2'

class RealForkedProcess implements ForkedProcess {
  readonly #child: ChildProcess
  readonly ended: Promise<ProcessEnd | StartFailure>

  constructor(program: string, { cwd, title, onMessage }: ForkOptions, setpriv: string | undefined) {
    // The title is an argument too: it is seen before the program sets it, and makes room for it to be set.
    const watched = setpriv === undefined ? [`${watchArgument}${process.pid}`] : []
    const node = [process.execPath, youngGeneration, ...nodeFlags(), program, title, ...watched]
    // The signal comes when the thread that forked ends, which is one more reason to fork from the main thread.
    const launch = setpriv === undefined ? node : [setpriv, '--pdeathsig', 'KILL', '--', ...node]
    this.#child = spawn(launch[0] ?? process.execPath, launch.slice(1), {
      cwd,
      detached: true, // signals of the terminal are for us to act on
      stdio: ['ignore', 2, 'inherit', 'ipc'],
      serialization: 'advanced',
    })
    this.#child.on('message', onMessage)
    this.ended = this.#awaitEnd()
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  send(message: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      try {
        this.#child.send(message as object, () => resolve())
      } catch (error) {
        reject(error)
      }
    })
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #awaitEnd(): Promise<ProcessEnd | StartFailure> {
    const child = this.#child
    return new Promise(resolve => {
      // Errors after the start are those of messages to a process that has ended, which its end tells better.
      child.on('error', startFailure => {
        if (child.pid === undefined) resolve({ startFailure })
      })
      child.once('exit', (code, signal) => {
        void this.#drain().then(() => resolve(processEnd(code, signal)))
      })
    })
  }

  async #drain(): Promise<void> {
    if (!this.#child.connected) return
    await once(this.#child, 'disconnect', { signal: AbortSignal.timeout(drainPatienceMs) }).catch(() => {
      if (this.#child.connected) this.#child.disconnect() // a process that it left behind keeps the channel open
    })
  }
}

/** The flags that we run with, without those that belong to one program or to one debugger's port. */
function nodeFlags(): string[] {
  return process.execArgv.filter((flag, index, flags) => {
    if (/^(-e|--eval|-p|--print|-pe)$/.test(flags[index - 1] ?? '')) return false
    return !/^(-e$|--eval|-p$|--print|-pe$|--inspect|--test|--watch|--input-type|-c$|--check)/.test(flag)
  })
}

const watchArgument = 'watch-parent='
const watchIntervalMs = 500

/**
 * The channel to the process that forked this one. Only the first caller gets it, so that nothing else in this
 * program can flood it. From here on this process ignores the signals that its parent acts on.
 */
export function connectToParent(): ParentProcess {
  const send = process.send?.bind(process)
  if (send === undefined) throw new Error('this program is started by another one')
  delete process.send
  const [title = '', watch = ''] = process.argv.slice(2)
  process.title = title
  process.once('disconnect', () => process.exit(1))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  if (watch.startsWith(watchArgument)) watchParent(Number(watch.slice(watchArgument.length)))

  return {
    onMessage: listener => process.on('message', listener),
    send: message => new Promise(resolve => send(message, undefined, undefined, () => resolve())),
  }
}

/** A program in an endless loop does not see that its channel was closed. A thread of its own does. */
function watchParent(parentPid: number): void {
  const watcher = new Worker(
    `const { workerData } = require('node:worker_threads')
    setInterval(() => {
      if (process.ppid !== workerData.parentPid) process.kill(process.pid, ${constants.signals.SIGKILL})
    }, workerData.watchIntervalMs)`,
    { eval: true, workerData: { parentPid, watchIntervalMs }, execArgv: [], stdout: false, stderr: false },
  )
  watcher.unref()
}
