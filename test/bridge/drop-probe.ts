import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from 'pg'
import type { BridgedServer } from './bridged-server.ts'
import { median } from './process-looks.ts'

const keptMaxMs = 2_000
const dropsWithoutTrouble = 5
const lookPauseMs = 25

interface Drop {
  ms: number
  /** So much of it was spent in waiting for the other processes of the server. */
  keptMs: number
}

/**
 * DROP DATABASE waits for all processes of the server, the archiver among them, wherever it is. So that wait tells
 * whether somebody has kept the server waiting. The rest of it is a checkpoint and the removal of files, for which a busy
 * machine takes as long as it likes.
 */
export class DropProbe {
  readonly #bridged: BridgedServer
  readonly #inPeace: Drop[] = []
  readonly #inTrouble: Drop[] = []

  constructor(bridged: BridgedServer) {
    this.#bridged = bridged
  }

  async dropInPeace(): Promise<void> {
    for (let drop = 0; drop < dropsWithoutTrouble; drop++) this.#inPeace.push(await this.#drop())
  }

  async dropInTrouble(): Promise<void> {
    const drop = await this.#drop()
    this.#inTrouble.push(drop)
    const { ms, keptMs } = drop
    assert(
      keptMs <= keptMaxMs,
      `DROP DATABASE took ${ms} ms, and waited ${keptMs} of them for other processes`,
    )
  }

  get text(): string {
    const times = (ms: number[]) => `median ${median(ms)} ms, slowest ${Math.max(...ms)} ms`
    const whole = (drops: Drop[]) => times(drops.map(({ ms }) => ms))
    return (
      `DROP DATABASE: ${whole(this.#inPeace)} in peace, ` +
      `${whole(this.#inTrouble)} of ${this.#inTrouble.length} in trouble; ` +
      `waiting for other processes there: ${times(this.#inTrouble.map(({ keptMs }) => keptMs))}`
    )
  }

  async #drop(): Promise<Drop> {
    const [session, watcher] = await Promise.all([
      this.#bridged.postgres.connect(),
      this.#bridged.postgres.connect(),
    ])
    try {
      const { rows } = await session.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      // By copying files, so that it writes no WAL to speak of.
      await session.query('CREATE DATABASE dropped STRATEGY file_copy')
      const over = new AbortController()
      const start = performance.now()
      const dropping = session.query('DROP DATABASE dropped').finally(() => over.abort())
      const [keptMs] = await Promise.all([keptFor(watcher, rows[0]?.pid, over.signal), dropping])
      return { ms: Math.round(performance.now() - start), keptMs }
    } finally {
      await Promise.all([session.end(), watcher.end()])
    }
  }
}

/** How long a process was seen to wait until all others have taken note of something. */
async function keptFor(watcher: Client, pid: number | undefined, over: AbortSignal): Promise<number> {
  let since: number | undefined
  let keptMs = 0
  while (!over.aborted) {
    const { rows } = await watcher.query<{ wait_event: string | null }>(
      'SELECT wait_event FROM pg_stat_activity WHERE pid = $1',
      [pid],
    )
    const now = performance.now()
    if (rows[0]?.wait_event === 'ProcSignalBarrier') keptMs = Math.round(now - (since ??= now))
    await sleep(lookPauseMs)
  }
  return keptMs
}
