import assert from 'node:assert/strict'
import type { BridgedServer } from './bridged-server.ts'
import { median } from './process-looks.ts'

const delayMaxMs = 2_000
const dropsWithoutTrouble = 5

/**
 * DROP DATABASE waits for all processes of the server, the archiver among them, wherever it is. So what it takes tells
 * whether somebody has kept the server waiting.
 */
export class DropProbe {
  readonly #bridged: BridgedServer
  readonly #inPeace: number[] = []
  readonly #inTrouble: number[] = []

  constructor(bridged: BridgedServer) {
    this.#bridged = bridged
  }

  async dropInPeace(): Promise<void> {
    for (let drop = 0; drop < dropsWithoutTrouble; drop++) this.#inPeace.push(await this.#drop())
  }

  async dropInTrouble(): Promise<void> {
    const ms = await this.#drop()
    this.#inTrouble.push(ms)
    const usualMs = Math.max(...this.#inPeace)
    assert(ms <= usualMs + delayMaxMs, `DROP DATABASE took ${ms} ms, and ${usualMs} ms without trouble`)
  }

  get text(): string {
    const times = (ms: number[]) => `median ${median(ms)} ms, slowest ${Math.max(...ms)} ms`
    return (
      `DROP DATABASE: ${times(this.#inPeace)} in peace, ` +
      `${times(this.#inTrouble)} of ${this.#inTrouble.length} in trouble`
    )
  }

  async #drop(): Promise<number> {
    const session = await this.#bridged.postgres.connect()
    try {
      // By copying files, so that it writes no WAL to speak of.
      await session.query('CREATE DATABASE dropped STRATEGY file_copy')
      const start = performance.now()
      await session.query('DROP DATABASE dropped')
      return Math.round(performance.now() - start)
    } finally {
      await session.end()
    }
  }
}
