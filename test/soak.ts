/**
 * The simulation for as long as there is time: `npm run soak -- --minutes 60`. Starts at a seed that the day decides,
 * so that every day finds something new and two runs of one day agree; `--first` chooses another. With `--thorough`
 * it begins with the archiver ended twice, at every pair of steps.
 */
import { parseArgs } from 'node:util'
import {
  blows,
  failures,
  oneSegment,
  stories,
  strikeEverywhere,
  strikeTwice,
} from './simulation/every-step.ts'
import { runStorms } from './simulation/many-storms.ts'

const dayMs = 86_400_000
const seedsPerDay = 1_000_000
const progressEvery = 1_000

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: `${seedsPerDay}` },
    minutes: { type: 'string', default: '10' },
    first: { type: 'string', default: `${(Math.floor(Date.now() / dayMs) % 1_000) * seedsPerDay}` },
    thorough: { type: 'boolean', default: false },
  },
})

if (values.thorough) {
  let runs = 0
  for (const story of stories) runs += await strikeEverywhere(story, [...blows, ...failures], { seeds: 10 })
  runs += await strikeTwice(oneSegment, blows, blows, { seeds: 2 })
  console.log(`${runs} runs with trouble at every step`)
}

const summary = await runStorms({
  first: Number(values.first),
  seeds: Number(values.seeds),
  minutes: Number(values.minutes),
  progress: done => {
    if (done % progressEvery === 0) console.log(`${done} seeds`)
  },
})
console.log(summary.text)
if (summary.failed.length > 0) process.exitCode = 1
