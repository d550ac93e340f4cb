// Lets a contestant archive what waits, and measures it from outside.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Contestant, Running } from './contestants.ts'
import { cpuMs, peakMegabytes } from './process-cost.ts'
import type { WaitingFiles } from './waiting-files.ts'

const startPatienceMs = 30_000
const pollMs = 5

export interface DrainOptions {
  /** Where there is still something waiting after this time, what was done by then counts. */
  limitMs: number
  signal: AbortSignal
}

export interface Drain {
  files: number
  /** From the first file to the last one, for each file. */
  msPerFile: number
  /** CPU time of all processes that archive, and of what they start. */
  cpuMsPerFile: number
  /** From being asked to start to the first file. */
  firstMs: number
  /** Of each process, by its part. */
  peakMegabytes: Record<string, number>
  isComplete: boolean
}

export async function drain(
  contestant: Contestant,
  files: WaitingFiles,
  { limitMs, signal }: DrainOptions,
): Promise<Drain> {
  signal.throwIfAborted()
  const running = await contestant.start()
  try {
    const lives = async () => {
      if (!running.hasEnded()) return
      throw new Error(
        `${contestant.name} has ended too early; its log ends with:\n${await running.logTail()}`,
      )
    }
    await until(() => files.isAnyDone(), startPatienceMs, lives, signal)
    if (!files.isAnyDone()) {
      throw new Error(`${contestant.name} archives nothing; its log ends with:\n${await running.logTail()}`)
    }
    const before = await sample(running, files)
    await until(() => files.isAllDone(), limitMs, lives, signal)
    const after = await sample(running, files)
    const memory = (await running.processes()).map(
      async ({ part, pid }) => [part, await peakMegabytes(pid)] as const,
    )
    const { files: done, ms, firstAt } = files.drained()
    return {
      files: done,
      msPerFile: ms / (done - 1),
      cpuMsPerFile: (after.cpuMs - before.cpuMs) / (after.done - before.done),
      firstMs: firstAt - running.startedAt,
      peakMegabytes: Object.fromEntries(await Promise.all(memory)),
      isComplete: done === files.count,
    }
  } finally {
    files.withdraw()
    await running.stop()
  }
}

async function sample(running: Running, files: WaitingFiles): Promise<{ cpuMs: number; done: number }> {
  const processes = await running.processes()
  const times = await Promise.all(processes.map(async ({ pid }) => await cpuMs(pid)))
  // A contestant that was too quick to be seen twice has no figure.
  return { cpuMs: times.length === 0 ? Number.NaN : times.reduce((a, b) => a + b), done: files.doneCount() }
}

async function until(
  condition: () => boolean,
  limitMs: number,
  lives: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + limitMs
  while (!condition() && performance.now() < deadline) {
    await lives()
    await sleep(pollMs, undefined, { signal })
  }
}
