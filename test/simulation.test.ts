import assert from 'node:assert/strict'
import { test } from 'node:test'
import { failAndCut, lieAboutArchiver, strikeBothLives, strikeStory } from './simulation/archiver-proofs.ts'
import { stories } from './simulation/every-step.ts'
import { lies } from './simulation/lies.ts'
import { runStorms } from './simulation/many-storms.ts'
import { storm } from './simulation/storm.ts'
import { inThread } from './support/in-thread.ts'

const storms = 2_000

const proofs = new URL('simulation/archiver-proofs.ts', import.meta.url)

for (const story of stories) {
  test(`the archiver may be killed, or lose power, at every step of: ${story.name}`, async t => {
    t.diagnostic(`${await inThread(proofs, strikeStory, story.name, 'blows')} runs`)
  })

  test(`every step may fail, in each of several ways, in: ${story.name}`, async t => {
    t.diagnostic(`${await inThread(proofs, strikeStory, story.name, 'failures')} runs`)
  })

  test(`another server may be quicker at every step of: ${story.name}`, async t => {
    t.diagnostic(`${await inThread(proofs, strikeStory, story.name, 'rivals')} runs`)
  })
}

test('the archiver may be killed, or lose power, at every step, and again at every step of its next life', async t => {
  t.diagnostic(`${await inThread(proofs, strikeBothLives)} runs`)
})

test('every step may fail, and then the power may be cut at every later step', async t => {
  t.diagnostic(`${await inThread(proofs, failAndCut)} runs`)
})

test('no promise is broken in any of thousands of storms', async t => {
  const { failed, text } = await inThread(new URL('simulation/many-storms.ts', import.meta.url), runStorms, {
    first: 0,
    seeds: storms,
  })
  t.diagnostic(text)
  assert.equal(failed.length, 0, text)
})

test('a seed tells the same story every time', async () => {
  const told = async () => {
    const lines: string[] = []
    await storm({ seed: 4, trace: line => lines.push(line) })
    return lines
  }
  const first = await told()
  assert.ok(first.length > 100)
  assert.deepEqual(await told(), first)
})

for (const lie of Object.keys(lies)) {
  test(`an archiver would be found out of which it is true that ${lie}`, async () => {
    await assert.rejects(inThread(proofs, lieAboutArchiver, lie))
  })
}
