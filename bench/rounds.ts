// Contestants take turns, so that whatever else the machine does meanwhile falls on all of them.

import type { BenchmarkOptions } from './benchmark.ts'
import type { Arena, Contestant } from './contestants.ts'
import { type Drain, drain } from './drain.ts'
import { WaitingFiles } from './waiting-files.ts'

export interface RoundsOptions {
  arena: Arena
  contestants: Contestant[]
  count: number
  bytes: number
  rounds: number
  limitMs: number
  options: BenchmarkOptions
}

/** All measurements of each contestant. The one that begins is another one in each round. */
export async function takeTurns(turns: RoundsOptions): Promise<Map<Contestant, Drain[]>> {
  const { arena, contestants, count, bytes, rounds, limitMs, options } = turns
  const { signal, progress } = options
  const drains = new Map<Contestant, Drain[]>(contestants.map(contestant => [contestant, []]))
  for (let round = 0; round < rounds; round++) {
    const first = round % contestants.length
    for (const contestant of [...contestants.slice(first), ...contestants.slice(0, first)]) {
      progress(`${count.toLocaleString('en')} files, round ${round + 1} of ${rounds}: ${contestant.name}`)
      await arena.emptyArchive()
      using files = new WaitingFiles({ dataDirectory: arena.dataDirectory, count, bytes })
      drains.get(contestant)?.push(await drain(contestant, files, { limitMs, signal }))
    }
  }
  return drains
}

/** The figures of a drain that tables show. */
export function figures({
  msPerFile,
  cpuMsPerFile,
  firstMs,
  peakMegabytes,
  files,
}: Drain): Record<string, number> {
  const memory = Object.entries(peakMegabytes).map(([part, megabytes]) => [`${part}Megabytes`, megabytes])
  return { files, msPerFile, cpuMsPerFile, firstMs, ...Object.fromEntries(memory) }
}
