// The command as a user starts it, over a directory that has what an archiver needs and no server.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { access, chmod, mkdir, readFile, realpath, rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  checkout,
  giveAway,
  type Identity,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from './unprivileged.ts'

// More than anything here takes on a busy machine. What has not come by then never will.
const patienceMs = 30_000

export interface BareCluster extends AsyncDisposable {
  /** The directory around all of it. */
  root: string
  data: string
  walDirectory: string
  statusDirectory: string
  archive: string
  /** What a server does when it has finished a WAL file. */
  makeReady(name: string, content?: string | Uint8Array): Promise<void>
  /** Resolves when the archiver has marked the file done. */
  done(name: string): Promise<void>
  /** Writes a file, by its path from `root`, for the unprivileged user. */
  write(path: string, content: string | Uint8Array): Promise<string>
}

/** A data directory with pg_wal and nothing else, and an archive beside it, both of the unprivileged user. */
export async function bareCluster(): Promise<BareCluster> {
  const directory = await temporaryDirectory()
  const root = await realpath(directory.path)
  const data = join(root, 'data')
  const walDirectory = join(data, 'pg_wal')
  const statusDirectory = join(walDirectory, 'archive_status')
  const archive = join(root, 'archive')
  for (const path of [data, walDirectory, statusDirectory, archive]) {
    await mkdir(path)
    await chmod(path, 0o700)
    await giveAway(path)
  }
  let written = 0
  const write = async (path: string, content: string | Uint8Array) => {
    // An archiver may be quick: a file gets its name when it is complete and belongs to whom it should.
    const incomplete = join(root, `incomplete-${++written}`)
    await writeFile(incomplete, content)
    await giveAway(incomplete)
    const full = join(root, path)
    await rename(incomplete, full)
    return full
  }
  return {
    root,
    data,
    walDirectory,
    statusDirectory,
    archive,
    write,
    makeReady: async (name, content = `content of ${name}`) => {
      await write(`data/pg_wal/${name}`, content)
      await write(`data/pg_wal/archive_status/${name}.ready`, '')
    },
    done: name => appears(join(statusDirectory, `${name}.done`)),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/** Resolves when a file is there: told by its directory, not asked for again and again. */
export async function appears(path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const late = setTimeout(() => {
    reject(new Error(`"${path}" has not appeared within ${patienceMs} ms`))
  }, patienceMs)
  const look = () => {
    exists(path).then(isThere => {
      if (isThere) resolve()
    }, reject)
  }
  // The watch begins before the first look, so that what comes in between is not missed.
  const watcher = watch(dirname(path), look)
  look()
  try {
    await promise
  } finally {
    clearTimeout(late)
    watcher.close()
  }
}

export interface StartOptions {
  /** Instead of the unprivileged user. */
  identity?: Identity
  env?: NodeJS.ProcessEnv
  /** What starts the command. */
  wrapper?: string[]
  cwd?: string
}

export async function startArchiver(args: string[], options: StartOptions = {}): Promise<RunningArchiver> {
  const command = [...(options.wrapper ?? []), join(await checkout(), 'bin/pgarchivist'), 'archiver', ...args]
  const child = spawn('/usr/bin/env', command, {
    ...(options.identity ?? unprivileged),
    env: { ...unprivilegedEnvironment, PGDATA: undefined, ...options.env },
    cwd: options.cwd ?? '/',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  await once(child, 'spawn')
  return new RunningArchiver(child)
}

/** Starts it on a cluster with basic_archive. */
export function startBasicArchive(
  cluster: BareCluster,
  more: string[] = [],
  options: StartOptions = {},
): Promise<RunningArchiver> {
  const settings = ['archive_library=basic_archive', `basic_archive.archive_directory=${cluster.archive}`]
  return startArchiver(['-D', cluster.data, ...settings.flatMap(text => ['-c', text]), ...more], options)
}

/** Starts it on a cluster with a module of this text. */
export async function startModuleText(
  cluster: BareCluster,
  text: string,
  more: string[] = [],
): Promise<RunningArchiver> {
  const path = await cluster.write('module.ts', text)
  return startArchiver(['-D', cluster.data, '-c', `archive_library=${path}`, ...more])
}

export class RunningArchiver implements AsyncDisposable {
  readonly #child: ChildProcess
  /**
   * Its status, or the signal that ended it, when it has ended and so has everything that could still write to its
   * log.
   */
  readonly ended: Promise<number | NodeJS.Signals>
  #hasEnded = false
  #stdout = ''
  #stderr = ''
  #changed: () => void = () => {}

  constructor(child: ChildProcess) {
    this.#child = child
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
      this.#changed()
    })
    this.ended = new Promise(resolve => {
      child.once('close', (status, signal) => {
        this.#hasEnded = true
        this.#changed()
        resolve(signal ?? status ?? 0)
      })
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get stdout(): string {
    return this.#stdout
  }

  /** What it wrote, as it is. */
  get text(): string {
    return this.#stderr
  }

  /**
   * Its log, line by line, without times: "S LOG:  text" of the supervisor, which is the command, "A LOG:  text" of
   * an archiver process, anything else as it is.
   */
  get lines(): string[] {
    const lines = this.#stderr.split('\n').slice(0, -1)
    return lines.map(line => {
      const parts = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC \[(\d+)\] (.*)$/.exec(line)
      if (parts === null) return line
      const who = Number(parts[1]) === this.pid ? 'S' : 'A'
      return `${who} ${(parts[2] ?? '').replace(/\(PID \d+\)/, '(PID n)')}`
    })
  }

  /** Resolves when the log has this line, as often as `times` says. */
  async line(expected: string, times = 1): Promise<void> {
    const has = () => this.lines.filter(line => line === expected).length >= times
    const timeout = AbortSignal.timeout(patienceMs)
    while (!has()) {
      if (this.#hasEnded || timeout.aborted) {
        const why = this.#hasEnded ? 'it ended' : `${patienceMs} ms passed`
        throw new Error(`${why} without the line "${expected}" in the log:\n${this.#stderr}`)
      }
      await new Promise<void>(resolve => {
        this.#changed = resolve
        timeout.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  /** Resolves when it archives: its process is there and has been told what to do. */
  started(dataDirectory: string): Promise<void> {
    return this.line(`S LOG:  archiving write-ahead log of data directory "${dataDirectory}"`)
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Nobody reads its log any more. */
  closeLog(): void {
    this.#child.stdout?.destroy()
    this.#child.stderr?.destroy()
  }

  /** The processes that it has started and that run now. */
  async children(): Promise<number[]> {
    const text = await readFile(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').catch(() => '')
    return text.split(' ').filter(Boolean).map(Number)
  }

  /** Its one archiver process. */
  async archiverPid(): Promise<number> {
    const [pid, ...others] = await this.children()
    if (pid === undefined || others.length > 0) throw new Error(`it has ${others.length + 1} children`)
    return pid
  }

  async stop(): Promise<number | NodeJS.Signals> {
    this.kill('SIGTERM')
    return this.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return
    this.#child.kill('SIGKILL')
    // What it started ends with it, however it ends. Should that fail, a test must not wait for it for ever.
    const late = setTimeout(() => this.closeLog(), patienceMs)
    await this.ended
    clearTimeout(late)
  }
}

export interface Finished {
  status: number
  stdout: string
  stderr: string
}

/** Runs any command of pgarchivist to its end. */
export async function runCommand(args: string[], options: StartOptions = {}): Promise<Finished> {
  const program = join(await checkout(), 'bin/pgarchivist')
  return new Promise(resolve => {
    execFile(
      program,
      args,
      {
        ...(options.identity ?? unprivileged),
        env: { ...unprivilegedEnvironment, PGDATA: undefined, ...options.env },
        cwd: options.cwd ?? '/',
        timeout: patienceMs,
        killSignal: 'SIGKILL',
      },
      (error, stdout, stderr) => {
        resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
      },
    )
  })
}

/** What the process list shows. */
export async function processTitle(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8')
  return text.replaceAll('\0', ' ').trimEnd()
}
