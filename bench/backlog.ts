// What a backlog costs: time per file and memory, by the number of files that wait.

import type { Benchmark, BenchmarkOptions, Result, Row } from './benchmark.ts'
import { rowOf } from './benchmark.ts'
import { Arena, type Contestant } from './contestants.ts'
import type { Drain } from './drain.ts'
import { figures, takeTurns } from './rounds.ts'

const sizes = [1_000, 10_000, 100_000]
const usualRounds = 3
// The server's archiver needs minutes for 100,000; its time per file shows long before.
const serverLimitMs = 20_000
const oursLimitMs = 180_000
const growthAim = 2
const megabytesAim = 150

export const backlog: Benchmark = { name: 'backlog', run }

async function run(options: BenchmarkOptions): Promise<Result> {
  const rounds = options.rounds ?? usualRounds
  await using arena = await Arena.open(options.major)
  const ours = arena.pgarchivist('pgarchivist', { archive_library: await arena.doNothingModule() })
  const fromCheckout = arena.pgarchivist(
    'pgarchivist, checkout',
    { archive_library: await arena.doNothingModule() },
    'checkout',
  )
  const built = await arena.doNothingLibrary()
  const notes: string[] = []
  let server: Contestant | undefined
  if ('library' in built) {
    server = arena.serverArchiver('server, C module', { archive_library: built.library })
  } else {
    notes.push(`Not covered: the server beside it, with a C module that does nothing (${built.missing}).`)
  }

  const rows: Row[] = []
  const oursRows: Row[] = []
  const checkoutRows: Row[] = []
  for (const count of sizes) {
    const waiting = `${count.toLocaleString('en')} waiting`
    const shared = { arena, count, bytes: 0, options }
    const turns = { ...shared, contestants: [ours, fromCheckout], rounds, limitMs: oursLimitMs }
    for (const [contestant, drains] of await takeTurns(turns)) {
      const row = rowOf(`${waiting}, ${contestant.name}`, drains.map(figures))
      rows.push(row)
      ;(contestant === ours ? oursRows : checkoutRows).push(row)
    }
    if (server === undefined) continue
    // Once is enough for a figure that nothing is decided by.
    const serverTurns = { ...shared, contestants: [server], rounds: 1, limitMs: serverLimitMs }
    const serverDrains: Drain[] = (await takeTurns(serverTurns)).get(server) ?? []
    rows.push(rowOf(`${waiting}, ${server.name}`, serverDrains.map(figures)))
    for (const { files, isComplete } of serverDrains) {
      if (isComplete) continue
      const seconds = serverLimitMs / 1_000
      notes.push(
        `The server with ${waiting} was stopped after ${seconds} s, ${files.toLocaleString('en')} files done.`,
      )
    }
  }

  const timeAt = (index: number) => oursRows.at(index)?.values['msPerFile'] ?? Number.NaN
  const growth = timeAt(-1) / Math.min(timeAt(0), timeAt(1))
  const peak = (row: Row) =>
    Math.max(...['archiver', 'supervisor'].flatMap(part => row.samples[`${part}Megabytes`] ?? []))
  const peakOurs = Math.max(...oursRows.map(peak))
  const peakCheckout = Math.max(...checkoutRows.map(peak))
  return {
    title: `backlog: a module that does nothing, PostgreSQL ${arena.major}, medians of ${rounds} rounds (server: 1)`,
    columns: [
      { key: 'msPerFile', heading: 'ms/file', digits: 3 },
      { key: 'cpuMsPerFile', heading: 'CPU ms/file', digits: 3 },
      { key: 'firstMs', heading: 'start to first file, ms', digits: 0 },
      { key: 'archiverMegabytes', heading: 'peak MB, archiver', digits: 0 },
      { key: 'supervisorMegabytes', heading: 'peak MB, supervisor', digits: 0 },
    ],
    rows,
    aims: [
      {
        text: `time per file with 100,000 waiting, at most ${growthAim} times the lowest with fewer`,
        figure: `${growth.toFixed(2)} times`,
        met: growth <= growthAim,
      },
      {
        text: `most memory of any one process, below ${megabytesAim} MB, published package`,
        figure: `${peakOurs.toFixed(0)} MB`,
        met: peakOurs < megabytesAim,
      },
      {
        text: `the same, checkout`,
        figure: `${peakCheckout.toFixed(0)} MB`,
        met: peakCheckout < megabytesAim,
      },
    ],
    notes,
  }
}
