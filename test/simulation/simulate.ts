/**
 * Runs the simulation: `npm run simulate -- --seed 123` replays one seed and tells what happens, step by step;
 * `--seeds 5000` runs many, from `--first` on, and prints how to replay the first one that fails. With `--ahead` the
 * module archives files before the server asks for them.
 */
import { parseArgs } from 'node:util'
import { runStorms } from './many-storms.ts'
import { storm } from './storm.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1000' },
    first: { type: 'string', default: '0' },
    ahead: { type: 'boolean', default: false },
    quiet: { type: 'boolean', default: false },
  },
})

if (values.seed === undefined) {
  const { ahead } = values
  const summary = await runStorms({
    first: wholeNumber(values.first),
    seeds: wholeNumber(values.seeds),
    ahead,
  })
  console.log(summary.text)
  if (summary.failed.length > 0) process.exitCode = 1
} else {
  const seed = wholeNumber(values.seed)
  try {
    const counts = await storm({
      seed,
      ahead: values.ahead,
      ...(!values.quiet && { trace: line => console.log(line) }),
    })
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
