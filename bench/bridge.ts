// What the bridge costs for each file, and what archiving ahead gains where each file has to wait.

import { buildServerLibrary } from '../test/support/server-library.ts'
import type { Benchmark, BenchmarkOptions, Result, Row } from './benchmark.ts'
import { rowOf } from './benchmark.ts'
import { Arena, type Contestant } from './contestants.ts'
import { figures, takeTurns } from './rounds.ts'

const usualFiles = 3_000
const waitingFiles = 400
const usualRounds = 3
const limitMs = 60_000
const bridgeMsAim = 1
const waitMs = 50 // as wait-50ms.ts does
const filesAtOnce = 8
const aheadAim = 0.9

export const bridge: Benchmark = { name: 'bridge', run }

async function run(options: BenchmarkOptions): Promise<Result> {
  const count = options.files ?? usualFiles
  const rounds = options.rounds ?? usualRounds
  const library = await buildServerLibrary(options.major)
  await using arena = await Arena.open(options.major)
  await arena.emptyArchive()
  const through = (name: string, module: string, more: Record<string, string> = {}): Contestant =>
    arena.serverArchiver(name, { archive_library: library, 'pgarchivist.module': module, ...more })

  const ours = through(
    'server, through the bridge, a module that does nothing',
    await arena.doNothingModule(),
  )
  const contrib = arena.serverArchiver("server, contrib's basic_archive", {
    archive_library: 'basic_archive',
    'basic_archive.archive_directory': arena.archiveDirectory,
  })
  const contestants = [ours, contrib]
  const built = await arena.doNothingLibrary()
  const notes: string[] = []
  if ('library' in built) {
    contestants.push(
      arena.serverArchiver('server, a C module that does nothing', { archive_library: built.library }),
    )
  } else {
    notes.push(`Not covered: the server with a C module that does nothing (${built.missing}).`)
  }
  const drains = await takeTurns({ arena, contestants, count, bytes: 8_192, rounds, limitMs, options })

  const module = await arena.waitingModule()
  const one = through(`each file waits ${waitMs} ms, one at a time`, module, {
    'pgarchivist.archive_ahead': '1',
  })
  const ahead = through(`each file waits ${waitMs} ms, ${filesAtOnce} at once`, module, {
    'pgarchivist.archive_ahead': `${filesAtOnce}`,
  })
  const waits = await takeTurns({
    arena,
    contestants: [one, ahead],
    count: waitingFiles,
    bytes: 8_192,
    rounds,
    limitMs,
    options,
  })

  const rows: Row[] = [...drains, ...waits].map(([{ name }, each]) => rowOf(name, each.map(figures)))
  const ms = (name: string | undefined) =>
    rows.find(row => row.name === name)?.values['msPerFile'] ?? Number.NaN
  const cost = ms(ours.name) - ms(contestants[2]?.name)
  const gain = waitMs / filesAtOnce / ms(ahead.name)
  return {
    title: `bridge: PostgreSQL ${options.major}, medians of ${rounds} rounds`,
    columns: [
      { key: 'msPerFile', heading: 'ms/file', digits: 3 },
      { key: 'cpuMsPerFile', heading: 'CPU ms/file', digits: 3 },
    ],
    rows,
    aims: [
      {
        text: `more than a C module that does nothing, below ${bridgeMsAim} ms per file`,
        figure: `${cost.toFixed(3)} ms`,
        met: cost < bridgeMsAim,
      },
      {
        text: `files per second with ${filesAtOnce} at once, at least ${aheadAim} of what the waiting allows`,
        figure: gain.toFixed(2),
        met: gain >= aheadAim,
      },
    ],
    notes,
  }
}
