/**
 * Standard output and standard error of a program that runs beside a server, whose log both are.
 *
 * Node's own streams for them would do harm. In a worker thread they pass what is printed to the main thread, which
 * has it too late when the process ends, or never. In the main thread they make a pipe non-blocking, and with it the
 * server's: all processes of a server share that one pipe to its logger, and lines that do not fit at the moment would
 * be lost to all of them, for as long as the server lives. To load "node:util" is enough for that,
 * and this file loads nothing that does.
 */
import { writeSync } from 'node:fs'
import { Writable } from 'node:stream'
import { OutputBudget } from '../bridge/output-budget.ts'
import { textLines } from '../observe/log-line.ts'
import { realClock } from '../system/clock.ts'

const stderrFd = 2
const newline = 0x0a
const fullPipeWaitsMax = 1_000 // of a millisecond each

/** From now on what is printed is written at once, and no more of it than anybody could read. */
export function writeOutputDirectly(): void {
  const budget = new OutputBudget(realClock)
  for (const name of ['stdout', 'stderr'] as const) {
    const stream = new DirectOutput(budget)
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream })
  }
}

class DirectOutput extends Writable {
  readonly fd = stderrFd
  readonly #budget: OutputBudget

  constructor(budget: OutputBudget) {
    // Neither an end nor a failure of one who prints is the end of printing.
    super({ autoDestroy: false, emitClose: false })
    this.#budget = budget
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#print(chunk)
    done()
  }

  #print(chunk: Buffer): void {
    const budget = this.#budget
    const wasWhole = !budget.hasLeftOut
    const lines = Math.max(
      1,
      chunk.reduce((count, byte) => count + Number(byte === newline), 0),
    )
    if (budget.take(chunk.length, lines)) {
      if (!wasWhole) tell(`${budget.takeLeftOut()} lines that the archive module printed were left out`)
      writeWhole(chunk)
    } else if (wasWhole) tell('archive module prints too much, and further lines are left out')
  }
}

function tell(errmsg: string): void {
  const origin = { time: realClock.now(), pid: process.pid }
  writeWhole(Buffer.from(textLines({ level: 'WARNING', errmsg }, origin)))
}

function writeWhole(bytes: Buffer): void {
  for (let written = 0, waits = 0; written < bytes.length; ) {
    try {
      written += writeSync(stderrFd, bytes, written)
    } catch (thrown) {
      // A log that nobody reads (EPIPE) or that has no room (ENOSPC) must not stop archiving. A pipe that others have
      // made non-blocking and that is full for the moment (EAGAIN) is tried again for a second.
      if (!isFull(thrown) || ++waits > fullPipeWaitsMax) return
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

// Not by what "system" has for that, which imports "node:util".
function isFull(thrown: unknown): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === 'EAGAIN'
}
