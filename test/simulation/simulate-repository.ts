/**
 * Runs the simulation of the repository: `scripts/node test/simulation/simulate-repository.ts --seed 123` replays one
 * seed and tells what happens, step by step; `--seeds 5000` runs many, from `--first` on, and goes on after failures.
 */
import { parseArgs } from 'node:util'
import { repositoryStorm } from './repository-storm.ts'
import { runRepositoryStorms } from './repository-storms.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1000' },
    first: { type: 'string', default: '0' },
    quiet: { type: 'boolean', default: false },
  },
})

if (values.seed === undefined) {
  const { text, failed } = await runRepositoryStorms(wholeNumber(values.first), wholeNumber(values.seeds))
  console.log(text)
  if (failed > 0) process.exitCode = 1
} else {
  const seed = wholeNumber(values.seed)
  try {
    const counts = await repositoryStorm({ seed, ...(!values.quiet && { trace: line => console.log(line) }) })
    console.log(`seed ${seed}: every promise was kept`, counts)
  } catch (thrown) {
    console.log(`seed ${seed}: ${String(thrown)}`)
    process.exitCode = 1
  }
}

function wholeNumber(text: string): number {
  const number = Number(text)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw new RangeError(`"${text}" is not a whole number`)
}
