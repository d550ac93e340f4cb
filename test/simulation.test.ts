import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  blows,
  failures,
  oneSegment,
  rivals,
  stories,
  strikeEverywhere,
  strikeTwice,
} from './simulation/every-step.ts'
import { lies } from './simulation/lies.ts'
import { runStorms } from './simulation/many-storms.ts'
import { storm } from './simulation/storm.ts'

const storms = 2_000

for (const story of stories) {
  test(`the archiver may be killed, or lose power, at every step of: ${story.name}`, async t => {
    t.diagnostic(`${await strikeEverywhere(story, blows)} runs`)
  })

  test(`every step may fail, in each of several ways, in: ${story.name}`, async t => {
    t.diagnostic(`${await strikeEverywhere(story, failures)} runs`)
  })

  test(`another server may be quicker at every step of: ${story.name}`, async t => {
    t.diagnostic(`${await strikeEverywhere(story, rivals)} runs`)
  })
}

test('the archiver may be killed, or lose power, at every step, and again at every step of its next life', async t => {
  const first = blows.filter(blow => blow.kind !== 'in order')
  const second = first.filter(blow => !blow.took)
  t.diagnostic(`${await strikeTwice(oneSegment, first, second)} runs`)
})

test('every step may fail, and then the power may be cut at every later step', async t => {
  const cuts = blows.filter(blow => blow.kind === 'any order' && !blow.took)
  t.diagnostic(`${await strikeTwice(oneSegment, failures.slice(0, 2), cuts)} runs`)
})

test('no promise is broken in any of thousands of storms', async t => {
  const { failed, text } = await runStorms({ first: 0, seeds: storms })
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

for (const [lie, how] of Object.entries(lies)) {
  test(`an archiver would be found out of which it is true that ${lie}`, async () => {
    await assert.rejects(async () => {
      for (const story of stories) await strikeEverywhere(story, [...rivals, ...blows], { lies: how })
    })
  })
}
