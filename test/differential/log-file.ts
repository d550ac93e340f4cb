import { open } from 'node:fs/promises'
import type { LogLine } from './contestant.ts'

/** A log that grows, read piece by piece: the script looks at it many times a second. */
export class LogFile {
  readonly #path: string
  readonly #parse: (line: string) => LogLine | undefined
  readonly #lines: LogLine[] = []
  #position = 0
  #rest = ''
  #reading: Promise<void> = Promise.resolve()

  /** `parse` gives undefined for lines of others, and for those that have no prefix. */
  constructor(path: string, parse: (line: string) => LogLine | undefined) {
    this.#path = path
    this.#parse = parse
  }

  async lines(): Promise<readonly LogLine[]> {
    this.#reading = this.#reading.then(() => this.#readOn())
    await this.#reading
    return this.#lines
  }

  async #readOn(): Promise<void> {
    await using file = await open(this.#path, 'r')
    const buffer = Buffer.alloc(64 * 1024)
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#position)
      if (bytesRead === 0) return
      this.#position += bytesRead
      // All of it is ASCII, so no character is cut in two.
      const lines = (this.#rest + buffer.toString('latin1', 0, bytesRead)).split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) {
        const parsed = this.#parse(line)
        if (parsed !== undefined) this.#lines.push(parsed)
      }
    }
  }
}
