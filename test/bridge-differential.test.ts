import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BridgeContestant } from './differential/bridge-contestant.ts'
import { bridgeDifferences } from './differential/bridge-differences.ts'
import { playBoth } from './differential/play-both.ts'
import { availableMajors } from './support/postgresql-server.ts'
import { buildableMajors } from './support/server-library.ts'

const available = await availableMajors()
const majors = (await buildableMajors()).filter(major => available.includes(major))
const used = new Set<string>()
const use = (title: string) => void used.add(title)

describe("the same script is played to contrib's library and to ours", { concurrency: majors.length }, () => {
  for (const major of majors) {
    test(`in PostgreSQL ${major}, all differences are listed`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}`)
      const problems = await playBoth(major, BridgeContestant.create, bridgeDifferences, use)
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
