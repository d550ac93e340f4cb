import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { unlisted } from './differential/compare.ts'
import type { Contestant } from './differential/contestant.ts'
import { differences } from './differential/differences.ts'
import { OurContestant } from './differential/our-contestant.ts'
import { script } from './differential/script.ts'
import { ServerContestant } from './differential/server-contestant.ts'
import { type Observation, Stage } from './differential/stage.ts'
import { availableMajors, startPostgres } from './support/postgresql-server.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const run = promisify(execFile)
const majors = await availableMajors()
const used = new Set<string>()

// The contestants mostly wait, for pauses between attempts and before restarts.
describe('the same script is played to the archiver of the server and to ours', { concurrency: 3 }, () => {
  for (const major of majors) {
    test(`with PostgreSQL ${major}, all differences are listed`, async t => {
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
      await using we = await OurContestant.create({
        major,
        dataDirectory: ourCluster,
        directory: ourDirectory,
      })
      const [theirs, ours] = await Promise.all([play(server), play(we)])

      const problems = script.flatMap(({ name: scene }, index) => {
        const applicable = differences.filter(
          ({ majors, scenes }) => (majors?.includes(major) ?? true) && (scenes?.includes(scene) ?? true),
        )
        const [their, our] = [theirs[index], ours[index]]
        assert(their !== undefined && our !== undefined)
        const lines = unlisted(their, our, applicable, title => used.add(title))
        return lines.length === 0 ? [] : [`\n${scene}:`, ...lines]
      })
      assert(problems.length === 0, `-: the server alone, +: we alone\n${problems.join('\n')}`)
    })
  }
})

test('docs/differences.md gives the reason for every difference that was seen, and for no other', async () => {
  const page = await readFile(join(import.meta.dirname, '../docs/differences.md'), 'utf8')
  const [, seen = ''] = /^## Seen by the test$(.*)^## Not seen by the test$/ms.exec(page) ?? []
  const headings = Array.from(seen.matchAll(/^### (.*)$/gm), ([, heading]) => heading)
  assert.deepEqual(headings, [...new Set(differences.map(({ title }) => title))])
  assert.deepEqual([...used].toSorted(), headings.toSorted())
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
