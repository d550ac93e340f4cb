// Time per file of the loop itself: all it does for a file beside archiving it.

import type { Benchmark, BenchmarkOptions, Result, Row } from './benchmark.ts'
import { rowOf } from './benchmark.ts'
import { Arena, type Contestant } from './contestants.ts'
import { figures, takeTurns } from './rounds.ts'

const usualFiles = 5_000
const usualRounds = 5
const limitMs = 60_000
const msPerFileAim = 2

export const loop: Benchmark = { name: 'loop', run }

async function run(options: BenchmarkOptions): Promise<Result> {
  const count = options.files ?? usualFiles
  const rounds = options.rounds ?? usualRounds
  await using arena = await Arena.open(options.major)
  const ours = arena.pgarchivist('pgarchivist, a module that does nothing', {
    archive_library: await arena.doNothingModule(),
  })
  const command = arena.serverArchiver("server, archive_command = 'true'", { archive_command: 'true' })
  const contestants: Contestant[] = [ours, command]
  const built = await arena.doNothingLibrary()
  const notes: string[] = []
  if ('library' in built) {
    const settings = { archive_library: built.library }
    contestants.push(arena.serverArchiver('server, a C module that does nothing', settings))
  } else {
    notes.push(`Not covered: the server with a C module that does nothing (${built.missing}).`)
  }

  const drains = await takeTurns({ arena, contestants, count, bytes: 8_192, rounds, limitMs, options })
  const rows: Row[] = [...drains].map(([{ name }, each]) => rowOf(name, each.map(figures)))
  const [oursRow, commandRow] = rows
  for (const row of rows) {
    row.values['ratio'] =
      (row.values['msPerFile'] ?? Number.NaN) / (oursRow?.values['msPerFile'] ?? Number.NaN)
  }
  const msPerFile = oursRow?.values['msPerFile'] ?? Number.NaN
  const ratio = msPerFile / (commandRow?.values['msPerFile'] ?? Number.NaN)
  return {
    title: `loop: ${count.toLocaleString('en')} files that wait, PostgreSQL ${arena.major}, medians of ${rounds} rounds`,
    columns: [
      { key: 'msPerFile', heading: 'ms/file', digits: 3 },
      { key: 'cpuMsPerFile', heading: 'CPU ms/file', digits: 3 },
      { key: 'ratio', heading: 'time against ours', digits: 2 },
    ],
    rows,
    aims: [
      {
        text: `time per file with a module that does nothing, below ${msPerFileAim} ms`,
        figure: `${msPerFile.toFixed(3)} ms`,
        met: msPerFile < msPerFileAim,
      },
      {
        text: "not slower than the server's own archiver with archive_command = 'true'",
        figure: `${ratio.toFixed(2)} of its time`,
        met: ratio <= 1,
      },
    ],
    notes,
  }
}
