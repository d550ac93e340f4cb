/**
 * What takes too long for every change. `npm run soak` with
 *
 *   --minutes 60    the simulation for as long as there is time. Starts at a seed that the day decides, so that every
 *                   day finds something new and two runs of one day agree; `--first` chooses another. With
 *                   `--thorough` it begins with the archiver ended twice, at every pair of steps.
 *   --bridge        a real server that archives 10,000 files, or `--files`, while the process beside its archiver is
 *                   killed, stopped, blocked and replaced; with `--ahead` several files at once.
 *   --store         a real Ceph behind a proxy that does what networks and stores do: 10,000 files, or `--files`, each way.
 *                   The store is away for a minute. With `--server` they are archived by a real server.
 *   --endings       a real server that is ended 200 times, or `--rounds`, in all ways and at any moment.
 *
 * All of these take `--seed`, those with a server `--major 18`.
 */
import { parseArgs } from 'node:util'
import { removeTemplates } from './bridge/bridged-server.ts'
import { runEndings } from './bridge/endings.ts'
import { runStorm } from './bridge/storm.ts'
import {
  blows,
  failures,
  oneSegment,
  stories,
  strikeEverywhere,
  strikeTwice,
} from './simulation/every-step.ts'
import { runStorms } from './simulation/many-storms.ts'
import { runServerStorm } from './store-storm/server-storm.ts'
import { runStoreStorm } from './store-storm/store-storm.ts'
import { RunningCeph } from './support/running-ceph.ts'
import { S3Profiles } from './support/s3-profiles.ts'

const dayMs = 86_400_000
const day = Math.floor(Date.now() / dayMs)
const seedsPerDay = 1_000_000
const progressEvery = 1_000
const awayMs = 60_000
/** Of the files of a real server, so many are archived in peace at the end. */
const calmShare = 0.2

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: `${seedsPerDay}` },
    minutes: { type: 'string', default: '10' },
    first: { type: 'string', default: `${(day % 1_000) * seedsPerDay}` },
    thorough: { type: 'boolean', default: false },
    bridge: { type: 'boolean', default: false },
    endings: { type: 'boolean', default: false },
    store: { type: 'boolean', default: false },
    server: { type: 'boolean', default: false },
    ahead: { type: 'boolean', default: false },
    major: { type: 'string', default: '18' },
    files: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '200' },
    seed: { type: 'string', default: `${day}` },
  },
})

const real = { major: Number(values.major), seed: Number(values.seed), archivesAhead: values.ahead }

if (values.bridge) {
  const files = Number(values.files)
  const calmFiles = Math.ceil(files * calmShare)
  await withTemplates(
    async () =>
      await runStorm({ ...real, lasts: { files: files - calmFiles }, calmFiles, onProgress: console.log }),
  )
} else if (values.store) {
  await using ceph = await RunningCeph.start()
  await using profiles = await S3Profiles.begin()
  const { files, seed } = { files: Number(values.files), seed: Number(values.seed) }
  const common = { ceph, profiles, files, seed, onProgress: console.log }
  if (values.server) {
    await withTemplates(async () => await runServerStorm({ ...common, major: real.major, awayMs }))
  } else {
    const report = await runStoreStorm({ ...common, awayMs })
    console.log(JSON.stringify(report, null, 1))
    if (report.brokenPromises.length > 0) process.exitCode = 1
  }
} else if (values.endings) {
  const lasts = { rounds: Number(values.rounds) }
  await withTemplates(async () => await runEndings({ ...real, lasts, isPatient: true, onRound: console.log }))
} else await simulate()

async function withTemplates(run: () => Promise<string>): Promise<void> {
  try {
    console.log(await run())
  } finally {
    await removeTemplates()
  }
}

async function simulate(): Promise<void> {
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
    ahead: values.ahead,
    progress: done => {
      if (done % progressEvery === 0) console.log(`${done} seeds`)
    },
  })
  console.log(summary.text)
  if (summary.failed.length > 0) process.exitCode = 1
}
