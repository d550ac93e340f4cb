import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { differences } from './differential/differences.ts'
import { OurContestant } from './differential/our-contestant.ts'
import { playBoth } from './differential/play-both.ts'
import { availableMajors } from './support/postgresql-server.ts'

const majors = await availableMajors()
const used = new Set<string>()
const use = (title: string) => void used.add(title)

// The contestants mostly wait, for pauses between attempts and before restarts.
describe('the same script is played to the archiver of the server and to ours', {
  concurrency: majors.length,
}, () => {
  for (const major of majors) {
    test(`with PostgreSQL ${major}, all differences are listed`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}`)
      const problems = await playBoth(major, OurContestant.create, differences, use)
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
