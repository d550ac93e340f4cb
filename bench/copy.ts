// basic_archive against basic_archive: what the loop and the module together cost, fsync included.

import type { Benchmark, BenchmarkOptions, Result, Row } from './benchmark.ts'
import { rowOf } from './benchmark.ts'
import { Arena } from './contestants.ts'
import { figures, takeTurns } from './rounds.ts'

const usualRounds = 3
const limitMs = 60_000

const kinds = [
  { what: 'small files (8 kB)', count: 1_000, bytes: 8_192 },
  { what: 'segments (16 MB)', count: 32, bytes: 16 * 1024 * 1024 },
]

export const copy: Benchmark = { name: 'copy', run }

async function run(options: BenchmarkOptions): Promise<Result> {
  const rounds = options.rounds ?? usualRounds
  await using arena = await Arena.open(options.major)
  const settings = {
    archive_library: 'basic_archive',
    'basic_archive.archive_directory': arena.archiveDirectory,
  }
  const contestants = [arena.pgarchivist('pgarchivist', settings), arena.serverArchiver('server', settings)]
  const rows: Row[] = []
  const aims: Result['aims'] = []
  for (const { what, count, bytes } of kinds) {
    const drains = await takeTurns({ arena, contestants, count, bytes, rounds, limitMs, options })
    const [ours, server] = [...drains].map(([{ name }, each]) => rowOf(`${what}, ${name}`, each.map(figures)))
    if (ours === undefined || server === undefined) throw new Error('a contestant is missing')
    const ratio = (ours.values['msPerFile'] ?? Number.NaN) / (server.values['msPerFile'] ?? Number.NaN)
    rows.push(ours, server)
    aims.push({
      text: `basic_archive not slower than the server's, ${what}`,
      figure: `${ratio.toFixed(2)} of its time`,
      met: ratio <= 1,
    })
  }
  return {
    title: `copy: basic_archive to a local directory, PostgreSQL ${arena.major}, medians of ${rounds} rounds`,
    columns: [
      { key: 'msPerFile', heading: 'ms/file', digits: 3 },
      { key: 'cpuMsPerFile', heading: 'CPU ms/file', digits: 3 },
      { key: 'archiverMegabytes', heading: 'peak MB, archiver', digits: 0 },
      { key: 'supervisorMegabytes', heading: 'peak MB, supervisor', digits: 0 },
    ],
    rows,
    aims,
    notes: [],
  }
}
