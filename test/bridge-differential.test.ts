import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { BridgeContestant } from './differential/bridge-contestant.ts'
import { bridgeDifferences } from './differential/bridge-differences.ts'
import { unlisted } from './differential/compare.ts'
import type { Contestant } from './differential/contestant.ts'
import { script } from './differential/script.ts'
import { ServerContestant } from './differential/server-contestant.ts'
import { type Observation, Stage } from './differential/stage.ts'
import { availableMajors, startPostgres } from './support/postgresql-server.ts'
import { buildableMajors } from './support/server-library.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const run = promisify(execFile)

const available = await availableMajors()
const majors = (await buildableMajors()).filter(major => available.includes(major))
const used = new Set<string>()

describe("the same script is played to contrib's library and to ours", { concurrency: majors.length }, () => {
  for (const major of majors) {
    test(`in PostgreSQL ${major}, all differences are listed`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}`)
      await using template = await temporaryDirectory()
      await using theirDirectory = await temporaryDirectory()
      await using ourDirectory = await temporaryDirectory()
      const cluster = join(template.path, 'data')
      await makeCluster(major, cluster)
      const theirCluster = join(theirDirectory.path, 'data')
      const ourCluster = join(ourDirectory.path, 'data')
      for (const copy of [theirCluster, ourCluster]) await run('cp', ['-a', cluster, copy])

      await using server = await ServerContestant.create({
        major,
        dataDirectory: theirCluster,
        directory: theirDirectory,
      })
      await using bridge = await BridgeContestant.create({
        major,
        dataDirectory: ourCluster,
        directory: ourDirectory,
      })
      const [theirs, ours] = await Promise.all([play(server), play(bridge)])

      const problems = script.flatMap(({ name: scene }, index) => {
        const applicable = bridgeDifferences.filter(
          ({ majors: only, scenes }) => (only?.includes(major) ?? true) && (scenes?.includes(scene) ?? true),
        )
        const [their, our] = [theirs[index], ours[index]]
        assert(their !== undefined && our !== undefined)
        const lines = unlisted(their, our, applicable, title => used.add(title))
        return lines.length === 0 ? [] : [`\n${scene}:`, ...lines]
      })
      assert(problems.length === 0, `-: contrib's alone, +: ours alone\n${problems.join('\n')}`)
    })
  }
})

test('every listed difference was seen', () => {
  const titles = bridgeDifferences.flatMap(({ title, isOfTiming }) => (isOfTiming ? [] : [title]))
  assert.deepEqual(
    [...new Set(titles)].filter(title => !used.has(title)),
    [],
  )
})

/** A cluster to be copied, so that both contestants name their segments alike. */
async function makeCluster(major: number, dataDirectory: string): Promise<void> {
  await using server = await startPostgres({ major, dataDirectory, walSegmentMegabytes: 1 })
  await server.stop('fast')
}

async function play(contestant: Contestant): Promise<Observation[]> {
  const stage = new Stage(contestant)
  const observations: Observation[] = []
  try {
    for (const scene of script) {
      await scene.play(stage)
      observations.push(await stage.observe(scene))
    }
  } finally {
    // A server whose archiver stands still would not stop.
    stage.resume()
  }
  return observations
}
