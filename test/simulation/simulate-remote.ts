/**
 * Runs the simulation of a store across a network: `scripts/node test/simulation/simulate-remote.ts --seed 123` replays
 * one seed and tells what happens, step by step; `--seeds 5000` runs many, from `--first` on, and goes on after failures.
 */
import { parseArgs } from 'node:util'
import { type RemoteStormCounts, remoteStorm } from './remote-storm.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1000' },
    first: { type: 'string', default: '0' },
  },
})

const isOne = values.seed !== undefined
const first = Number(values.seed ?? values.first)
const seeds = isOne ? 1 : Number(values.seeds)
const total: RemoteStormCounts = { files: 0, requests: 0, faults: 0, kills: 0, uploads: 0 }
let failed = 0
for (let seed = first; seed < first + seeds; seed++) {
  try {
    const counts = await remoteStorm({ seed, ...(isOne && { trace: line => console.log(line) }) })
    for (const key of Object.keys(total) as (keyof RemoteStormCounts)[]) total[key] += counts[key]
  } catch (thrown) {
    failed++
    console.log(`seed ${seed}: ${String(thrown)}`)
  }
}
console.log(`${seeds} seeds from ${first}, ${failed} failed`, total)
if (failed > 0) process.exitCode = 1
