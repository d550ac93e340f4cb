// From the start of the command to the first file that is archived.

import { type Benchmark, type BenchmarkOptions, type Result, rowOf } from './benchmark.ts'
import { Arena } from './contestants.ts'
import { figures, takeTurns } from './rounds.ts'

const usualRounds = 11
const limitMs = 10_000
const firstMsAim = 300

export const start: Benchmark = { name: 'start', run }

async function run(options: BenchmarkOptions): Promise<Result> {
  const rounds = options.rounds ?? usualRounds
  await using arena = await Arena.open(options.major)
  const typeScript = { archive_library: await arena.doNothingModule() }
  const basicArchive = {
    archive_library: 'basic_archive',
    'basic_archive.archive_directory': arena.archiveDirectory,
  }
  const command = { archive_command: 'true' }
  const contestants = [
    arena.pgarchivist('published package, basic_archive', basicArchive),
    arena.pgarchivist("published package, archive_command = 'true'", command),
    arena.pgarchivist('published package, a module in TypeScript', typeScript),
    arena.pgarchivist('checkout, a module in TypeScript', typeScript, 'checkout'),
  ]
  const drains = await takeTurns({ arena, contestants, count: 2, bytes: 8_192, rounds, limitMs, options })
  const rows = [...drains].map(([{ name }, each]) => rowOf(name, each.map(figures)))
  return {
    title: `start: bin/pgarchivist archiver to the first file archived, medians of ${rounds} starts`,
    columns: [
      { key: 'firstMs', heading: 'ms', digits: 0 },
      { key: 'archiverMegabytes', heading: 'peak MB, archiver', digits: 0 },
      { key: 'supervisorMegabytes', heading: 'peak MB, supervisor', digits: 0 },
    ],
    rows,
    aims: rows.map(({ name, values: { firstMs = Number.NaN } }) => ({
      text: `start to the first file archived, below ${firstMsAim} ms, ${name}`,
      figure: `${firstMs.toFixed(0)} ms`,
      met: firstMs < firstMsAim,
    })),
    notes: [],
  }
}
