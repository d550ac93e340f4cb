// A server whose archiver, or which itself, is ended again and again, while the process beside the archiver is in
// whatever state. What was chosen can be chosen again by its seed.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  BridgedServer,
  descendantsOf,
  exists,
  isStillAlive,
  type OwnProcess,
  until,
  writeFor,
} from './bridged-server.ts'
import { ComparedArchive, segmentBytes } from './compared-archive.ts'
import { type Random, randomFrom, shuffled } from './random.ts'
import { stormModule } from './storm-module.ts'

export interface EndingsOptions {
  major: number
  seed: number
  /** It begins no round after so many seconds, or so many rounds. */
  lasts: { seconds: number } | { rounds: number }
  archivesAhead?: boolean
  /** An archiver that was told to end is sometimes left alone for the minute that it takes to do so. */
  isPatient?: boolean
  /** Told of every round. */
  onRound?: (text: string) => void
}

type State = (typeof states)[number]
type Ending = (typeof endings)[number]

/** Of the process beside the archiver. */
const states = [
  'idle',
  'busy',
  'stopped',
  'its keeper stopped',
  'blocked',
  'silent',
  'ended by the module',
  'starting',
] as const

const endings = [
  'shut down at once',
  'its postmaster killed',
  'shut down fast',
  'its archiver told to end, then shut down at once',
  'its archiver told to end, then its postmaster killed',
  'its archiver told to end, then shut down fast',
  'its archiver killed',
  'a backend killed',
] as const

const patientEnding = 'its archiver told to end'
const patientEndingEvery = 8

interface Pair {
  state: State
  ending: Ending
}
const allPairs: Pair[] = states.flatMap(state => endings.map(ending => ({ state, ending })))

const filesMax = 8
const pauseMaxMs = 400
/** Nobody of ours is left so long after an ending. */
const goneWithinMs = 5_000
/** An archiver that was told to end waits a minute for the end of its server. */
const toldToEndWithinMs = 75_000
/** The server does not start an archiver again within ten seconds. */
const againWithinMs = 90_000

/**
 * Rejects when a process is left behind, files are not archived after the next start, or one is lost or differs.
 * Resolves with what there was to see.
 */
export async function runEndings(options: EndingsOptions): Promise<string> {
  const { major, seed, lasts, archivesAhead = false } = options
  await using bridged = await BridgedServer.start({
    major,
    module: stormModule({ archivesAhead, hasWorkers: true }),
    settings: { wal_keep_size: '256MB', max_wal_size: '64MB' },
  })
  const round = new Round(bridged, randomFrom(seed))
  const counts = new Map<string, number>()
  const start = Date.now()
  const isOver = (rounds: number) =>
    'rounds' in lasts ? rounds >= lasts.rounds : Date.now() >= start + lasts.seconds * 1_000
  let rounds = 0
  for (; !isOver(rounds); rounds++) {
    const { state, ending } = round.choose(options.isPatient ?? false)
    options.onRound?.(`${((Date.now() - start) / 1_000).toFixed(1)} s: ${state}, ${ending}`)
    for (const each of [state, ending]) counts.set(each, (counts.get(each) ?? 0) + 1)
    await round.play(state, ending)
  }
  const files = await round.finish()
  return [
    `PostgreSQL ${major}, seed ${seed}: ${rounds} endings, ${files} files archived and compared`,
    Array.from(counts, ([what, count]) => `${count} × ${what}`).join(', '),
    `all processes were gone after ${round.slowestEndMs} ms at the latest`,
    `the next file was archived after ${round.slowestReturnMs} ms at the latest`,
  ].join('\n  ')
}

class Round {
  readonly #bridged: BridgedServer
  readonly #random: Random
  readonly #archive: ComparedArchive
  #number = 0
  #pairs: Pair[] = []
  #crashesSeen = 0
  slowestEndMs = 0
  slowestReturnMs = 0

  constructor(bridged: BridgedServer, random: Random) {
    this.#bridged = bridged
    this.#random = random
    this.#archive = new ComparedArchive(bridged)
  }

  /** Every state meets every ending before one does so again. */
  choose(isPatient: boolean): { state: State; ending: Ending | typeof patientEnding } {
    this.#number++
    if (this.#pairs.length === 0) this.#pairs = shuffled(allPairs, this.#random)
    const pair = this.#pairs.pop()
    assert(pair !== undefined)
    const isTurn = isPatient && this.#number % patientEndingEvery === 0
    return isTurn ? { ...pair, ending: patientEnding } : pair
  }

  async play(state: State, ending: Ending | typeof patientEnding): Promise<void> {
    const { postgres } = this.#bridged
    await this.#write(1 + Math.floor(this.#random() * filesMax))
    await this.#enter(state)
    await sleep(this.#random() * pauseMaxMs)
    const left = await this.#bridged.ownProcesses()
    await this.#end(ending)
    const endTime = Date.now()
    await Promise.all([
      this.#areGone(left),
      // Others may have been started after they were counted.
      postgres.pid === undefined && this.#bridged.leavesNobody(),
    ])
    this.slowestEndMs = Math.max(this.slowestEndMs, Date.now() - endTime)

    await this.#archive.compare()
    await this.#bridged.endTrouble()
    const startTime = Date.now()
    if (postgres.pid === undefined) await postgres.start()
    await this.#bridged.archives(await this.#nextFile(), againWithinMs)
    this.slowestReturnMs = Math.max(this.slowestReturnMs, Date.now() - startTime)
    await this.#archive.compare()
    await this.#areKept()
  }

  /** Resolves with how many files there are. */
  async finish(): Promise<number> {
    const { postgres } = this.#bridged
    // It finds those that were finished a moment before an end, and not yet said to be ready.
    await postgres.query('CHECKPOINT')
    await this.#bridged.archives(await postgres.switchWal(), againWithinMs)
    await this.#bridged.archivesAll()
    await this.#archive.compare()
    await postgres.stop('fast')
    await this.#bridged.leavesNobody()
    const twice = (await this.#bridged.journal()).filter(line => line.startsWith('twice'))
    assert.deepEqual(twice, [])
    return await this.#archive.isComplete()
  }

  async #enter(state: State): Promise<void> {
    switch (state) {
      case 'idle':
        return
      case 'stopped':
        return this.#signal(await this.#bridged.nodePid(), 'SIGSTOP')
      case 'its keeper stopped': {
        const keeper = await this.#bridged.findKeeper(await this.#bridged.nodePid())
        if (keeper !== undefined) this.#signal(keeper, 'SIGSTOP')
        return
      }
      case 'starting':
        this.#signal(await this.#bridged.nodePid(), 'SIGKILL')
        await this.#nextFile()
        return
      case 'busy':
      case 'blocked':
      case 'silent':
      case 'ended by the module':
        await writeFor(this.#bridged.places.trouble, state)
        await until(
          `the module is ${state}`,
          async () => {
            if (!(await exists(this.#bridged.places.trouble))) return true
            await this.#nextFile()
            return false
          },
          againWithinMs,
        )
        return
      default:
        state satisfies never
    }
  }

  async #end(ending: Ending | typeof patientEnding): Promise<void> {
    const { postgres } = this.#bridged
    switch (ending) {
      case 'shut down at once':
        return await postgres.stop('immediate')
      case 'its postmaster killed':
        postgres.kill('SIGKILL')
        return await postgres.ended()
      case 'shut down fast':
        return await postgres.stop('fast')
      case 'its archiver told to end, then shut down at once':
      case 'its archiver told to end, then its postmaster killed':
      case 'its archiver told to end, then shut down fast': {
        this.#signal(await this.#archiver(), 'SIGTERM')
        await sleep(this.#random() * pauseMaxMs)
        const [, then] = ending.split(', then ')
        return await this.#end(then as Ending)
      }
      case 'its archiver killed':
        this.#signal(await this.#archiver(), 'SIGKILL')
        return await this.#crashes()
      case 'a backend killed': {
        const session = await postgres.connect()
        const { rows } = await session.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
        this.#signal(rows[0]?.pid ?? 0, 'SIGKILL')
        return await this.#crashes()
      }
      case 'its archiver told to end': {
        const archiver = await this.#archiver()
        this.#signal(archiver, 'SIGTERM')
        return await until(
          'the archiver has ended',
          async () => (await this.#bridged.archiverPid()) !== archiver,
          toldToEndWithinMs,
        )
      }
      default:
        ending satisfies never
    }
  }

  /** Resolves when the postmaster has seen that one of its processes has crashed, and has none of them any more. */
  async #crashes(): Promise<void> {
    const restarts = async () =>
      await this.#bridged.saidTimes('LOG:  all server processes terminated; reinitializing')
    const before = this.#crashesSeen
    await until('the server starts over', async () => (await restarts()) > before)
    this.#crashesSeen = await restarts()
    await until('the server is back', async () => {
      return await this.#bridged.postgres.query('SELECT').then(
        () => true,
        () => false,
      )
    })
  }

  async #areGone(processes: OwnProcess[]): Promise<void> {
    let left: OwnProcess[] = []
    await until(
      '',
      async () => {
        const lives = await Promise.all(processes.map(isStillAlive))
        left = processes.filter((_, at) => lives[at])
        return left.length === 0
      },
      goneWithinMs,
    ).catch(() => assert.deepEqual(left, [], 'processes are left behind'))
  }

  /** All of ours belong to the archiver that there is now. */
  async #areKept(): Promise<void> {
    let strays: number[] = []
    await until(
      '',
      async () => {
        const ours = await this.#bridged.ownProcesses()
        const kept = new Set(await descendantsOf(await this.#archiver()))
        strays = ours.map(({ pid }) => pid).filter(pid => !kept.has(pid))
        return strays.length === 0
      },
      goneWithinMs,
    ).catch(() => assert.deepEqual(strays, [], 'processes are left behind'))
  }

  async #write(files: number): Promise<void> {
    for (let file = 0; file < files; file++) {
      const text = `repeat(md5(random()::text), ${segmentBytes / 32})`
      await this.#bridged.postgres.query(`SELECT pg_logical_emit_message(false, 'ending', ${text})`)
    }
  }

  async #nextFile(): Promise<string> {
    return await this.#bridged.postgres.switchWal()
  }

  async #archiver(): Promise<number> {
    let pid: number | undefined
    await until(
      'there is an archiver',
      async () => (pid = await this.#bridged.archiverPid()) !== undefined,
      againWithinMs,
    )
    return pid ?? 0
  }

  #signal(pid: number, signal: NodeJS.Signals): void {
    assert(pid > 0)
    try {
      process.kill(pid, signal)
    } catch {
      // It has ended by itself meanwhile.
    }
  }
}
