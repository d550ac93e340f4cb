// Bringing repositories up to date from each other: what is copied, what is left alone, and what is said of it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CatchingUp } from '../src/modules/catching-up.ts'
import { type CatchUpOptions, catchUp } from '../src/repository/catch-up.ts'
import { keyOf } from './support/repository-stage.ts'
import { SeveralStage } from './support/several-stage.ts'
import { anySystemIdentifier } from './support/wal-segment.ts'

const names = [
  '00000001000000000000000A',
  '0000000100000001000000FF',
  '00000002.history',
  '00000003.history',
] as const
const [first, second, third, fourth] = names

const run = (stage: SeveralStage, more: Partial<CatchUpOptions> = {}) =>
  catchUp({
    repositories: stage.repositories('catch-up'),
    systemIdentifier: anySystemIdentifier,
    filesAtOnce: 2,
    ...more,
  })

/** Each repository has its own part, and nobody has everything. */
async function scattered(): Promise<SeveralStage> {
  const stage = new SeveralStage({ count: 3 })
  const parts = [
    [first, '/b /c'],
    [second, '/c'],
    [third, '/a'],
    [fourth, ''],
  ] as const
  for (const [name, away] of parts) {
    stage.put(name)
    for (const root of away.split(' ')) stage.away.set(root, 'EIO')
    await stage.archive(stage.set(1), name)
    await stage.set().giveUp()
    await new Promise(resolve => setTimeout(resolve))
    stage.away.clear()
  }
  return stage
}

test('each repository gets what any other one has, byte for byte', async () => {
  const stage = await scattered()
  const report = await run(stage)
  assert.deepEqual([report.status, report.compared], ['ok', 4])
  for (const name of names) {
    assert.equal(stage.has(name), '/a /b /c')
  }
  assert.deepEqual(stage.object('/b', first), stage.object('/a', first))
  assert.deepEqual(stage.object('/c', first), stage.object('/a', first))
  assert.ok([stage.object('/a', second), stage.object('/b', second)].some(each => each !== undefined))
  const again = await run(stage)
  assert.deepEqual(
    again.repositories.map(({ lacking, copied }) => [lacking, copied]),
    [
      [0, 0],
      [0, 0],
      [0, 0],
    ],
  )
})

test('a dry run tells what is missing and changes nothing', async () => {
  const stage = await scattered()
  const before = names.map(name => stage.has(name))
  const report = await run(stage, { isDryRun: true })
  assert.equal(report.status, 'differences')
  assert.deepEqual(
    report.repositories.map(({ lacking, copied }) => [lacking, copied]),
    [
      [1, 0],
      [1, 0],
      [2, 0],
    ],
  )
  assert.deepEqual(
    names.map(name => stage.has(name)),
    before,
  )
})

test('a new repository is begun and filled, also where objects are in one only', async () => {
  const stage = new SeveralStage()
  stage.away.set('/b', 'EIO')
  for (const name of names) {
    stage.put(name)
    await stage.archive(stage.set(1), name)
  }
  stage.away.clear()
  const report = await run(stage)
  assert.deepEqual(
    report.repositories.map(({ copied }) => copied),
    [0, 4],
  )
  for (const name of names) assert.deepEqual(stage.object('/b', name), stage.object('/a', name))
})

test('what is damaged is not copied, and another one is taken where there is one', async () => {
  const stage = await scattered()
  const damage = (root: string, name: string, at: number) => {
    const bytes = Uint8Array.from(stage.object(root, name) ?? [])
    const index = at < 0 ? bytes.length + at : at
    bytes[index] = (bytes[index] ?? 0) ^ 1
    stage.disk.place(`${root}/${keyOf(name)}`, bytes)
  }
  damage('/a', first, -1)
  damage('/b', third, 100)
  const report = await run(stage)
  assert.equal(report.status, 'incomplete')
  assert.deepEqual(report.failed.shown, [
    `"${keyOf(first)}": "${keyOf(first)}" in repository "file:///a" is damaged: the stored bytes do not match their digest`,
    `"${keyOf(first)}": "${keyOf(first)}" in repository "file:///a" is damaged: the stored bytes do not match their digest`,
    `"${keyOf(third)}": "${keyOf(third)}" in repository "file:///b" is damaged: its metadata block is damaged`,
  ])
  assert.equal(stage.has(first), '/a')
  assert.equal(stage.has(third), '/a /b /c')
})

test('other content under one name is told and left alone, and copied nowhere', async () => {
  const stage = new SeveralStage({ count: 3 })
  stage.put(first, 'one content')
  for (const away of ['/b', '/c']) stage.away.set(away, 'EIO')
  await stage.archive(stage.set(1), first)
  stage.away.clear()
  stage.put(first, 'quite another content')
  for (const away of ['/a', '/c']) stage.away.set(away, 'EIO')
  await stage.archive(stage.set(1), first)
  stage.away.clear()
  const before = stage.roots.map(root => stage.object(root, first))
  const report = await run(stage)
  assert.equal(report.status, 'differences')
  assert.deepEqual(report.differing, {
    count: 1,
    shown: [`"${keyOf(first)}" has other content in "file:///a" and "file:///b"`],
  })
  assert.deepEqual(
    stage.roots.map(root => stage.object(root, first)),
    before,
  )
})

test('a repository that is away is left out, and the others are brought up to date', async () => {
  const stage = await scattered()
  stage.away.set('/a', 'EIO')
  const report = await run(stage)
  assert.equal(report.status, 'incomplete')
  assert.deepEqual(
    report.repositories.map(({ error }) => error === null),
    [false, true, true],
  )
  assert.equal(stage.has(second), '/a /b /c')
})

test('an empty place where a repository was is not filled', async () => {
  const stage = await scattered()
  for (const name of stage.disk.names('/c')) stage.disk.remove(`/c/${name}`)
  const report = await run(stage)
  assert.match(report.repositories[2]?.error ?? '', /^repository "file:\/\/\/c" is gone/)
  assert.deepEqual(
    stage.disk.names('/c').filter(name => !name.startsWith('.')),
    [],
  )
})

test('files of other clusters are not touched', async () => {
  const stage = await scattered()
  const report = await run(stage, { systemIdentifier: '7000000000000000999' })
  assert.deepEqual([report.compared, report.status], [0, 'ok'])
  assert.equal(stage.has(first), '/a')
})

test('in the background it begins after the start, and again when one answers again, and says what it did', async () => {
  const stage = await scattered()
  const log: string[] = []
  const catching = new CatchingUp({
    clock: stage.clock,
    systemIdentifier: () => anySystemIdentifier,
    open: async () => stage.repositories('catch-up'),
    isBusy: () => false,
    log: (level, { errmsg }) => void log.push(`${level}: ${errmsg}`),
  })
  await stage.clock.run(
    (async () => {
      catching.start()
      await stage.clock.sleep(9_000)
      assert.deepEqual(log, [])
      await stage.clock.sleep(5_000)
      assert.equal(stage.has(first), '/a /b /c')
      stage.disk.remove(`/b/${keyOf(first)}`)
      await stage.clock.sleep(3_600_000)
      assert.equal(stage.has(first), '/a /c')
      catching.answersAgain()
      await stage.clock.sleep(1)
      assert.equal(stage.has(first), '/a /b /c')
      await catching.stop()
    })(),
  )
  assert.deepEqual(log, [
    'LOG: begins to bring repositories "file:///a" and "file:///b" and "file:///c" up to date from each other',
    'LOG: copied 1 of 1 objects that were missing in repository "file:///a"',
    'LOG: copied 1 of 1 objects that were missing in repository "file:///b"',
    'LOG: copied 2 of 2 objects that were missing in repository "file:///c"',
    'LOG: begins to bring repositories "file:///a" and "file:///b" and "file:///c" up to date from each other',
    'LOG: copied 1 of 1 objects that were missing in repository "file:///b"',
  ])
})
