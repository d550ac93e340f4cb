import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

export interface DistanceOptions {
  /** Where the store is: `http://127.0.0.1:1234`, `sftp://127.0.0.1:1234`. */
  target: string
  roundTripMs: number
  bytesPerSecond?: number
}

/** A store that is some milliseconds away, for measurements: a process of its own stands in between. */
export class Distance implements AsyncDisposable {
  /** Stands for the store. */
  readonly port: number
  readonly #child: ChildProcess

  private constructor(port: number, child: ChildProcess) {
    this.port = port
    this.#child = child
  }

  static async start({ target, roundTripMs, bytesPerSecond }: DistanceOptions): Promise<Distance> {
    const { hostname, port } = new URL(target)
    const width = bytesPerSecond === undefined ? [] : [String(bytesPerSecond)]
    const program = join(import.meta.dirname, 'distance-process.ts')
    // It ends when its input does, and so with this process, however that ends.
    const child = spawn(process.execPath, [program, hostname, port, String(roundTripMs), ...width], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const [line] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
    const own = Number(String(line))
    if (!(own > 0) || child.exitCode !== null)
      throw new Error(`nothing could be put between us and "${target}"`)
    return new Distance(own, child)
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
