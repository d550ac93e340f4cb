// Bringing repositories up to date from each other: what is copied, what is left alone, and what is said of it.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { CatchingUp } from '../src/modules/catching-up.ts'
import { type CatchUpOptions, catchUp } from '../src/repository/catch-up.ts'
import { encodeMarker } from '../src/repository/marker.ts'
import { encodeMetadataBlock } from '../src/repository/metadata-block.ts'
import { markerKey } from '../src/repository/object-key.ts'
import { Repository } from '../src/repository/repository.ts'
import { MemoryBudget } from '../src/repository/store/memory-budget.ts'
import { MemoryDriver } from '../src/repository/store/memory-driver.ts'
import { RemoteStore } from '../src/repository/store/remote-store.ts'
import { type Send, sendTo } from '../src/repository/store/requests.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { noise } from './support/coded-bytes.ts'
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

/** Of two repositories, each of which has its own content under one name, stored in as many bytes. */
async function splitBrain(name: string): Promise<SeveralStage> {
  const stage = new SeveralStage()
  for (const [content, away] of [
    ['1\t0/A000000\tno recovery target specified\n', '/b'],
    ['1\t0/B000000\tno recovery target specified\n', '/a'],
  ] as const) {
    stage.put(name, content)
    stage.away.set(away, 'EIO')
    await stage.archive(stage.set(1), name)
    stage.away.clear()
  }
  assert.equal(stage.object('/a', name)?.length, stage.object('/b', name)?.length)
  return stage
}

test('other content of the same length is told of all files but segments, and of these where all are compared', async () => {
  for (const name of [third, `${first}.00000028.backup`, `${first}.partial`]) {
    const stage = await splitBrain(name)
    const report = await run(stage)
    assert.deepEqual(
      [report.status, report.differing.shown],
      ['differences', [`"${keyOf(name)}" has other content in "file:///a" and "file:///b"`]],
    )
  }
  const stage = await splitBrain(first)
  assert.equal((await run(stage)).status, 'ok')
  assert.equal((await run(stage, { comparesAll: true })).status, 'differences')
})

test('in the background other content of the same length is told, and what cannot be compared', async () => {
  const stage = await splitBrain(third)
  stage.put(fourth)
  await stage.archive(stage.set(), fourth)
  const bytes = Uint8Array.from(stage.object('/b', fourth) ?? [])
  bytes[100] = (bytes[100] ?? 0) ^ 1
  stage.disk.place(`/b/${keyOf(fourth)}`, bytes)
  const log: string[] = []
  const catching = new CatchingUp({
    clock: stage.clock,
    systemIdentifier: () => anySystemIdentifier,
    open: async () => stage.repositories('catch-up'),
    isBusy: () => false,
    log: (level, { errmsg }) => void log.push(`${level}: ${errmsg}`),
  })
  catching.start()
  await stage.clock.run(stage.clock.sleep(600_000).then(() => catching.stop()))
  assert.deepEqual(log, [
    `WARNING: 1 objects could not be compared or copied: "${keyOf(fourth)}": "${keyOf(fourth)}" in repository "file:///b" is damaged: its metadata block is damaged`,
    `WARNING: "${keyOf(third)}" has other content in "file:///a" and "file:///b"`,
  ])
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

test('two repositories that lack large files of each other do not wait for each other for ever', async () => {
  // Each copy held memory of the one that it wrote to while it waited for that of the other one.
  const clock = new SimulatedClock()
  const bodies = new Map(['A', 'B'].map(each => [each, noise(20 * 1024 ** 2)]))
  const driverWith = (url: string, which: string, id: string) => {
    const driver = new MemoryDriver({ url, clock })
    driver.objects.set(markerKey, encodeMarker(id, '', 'test'))
    // In turns, so that the copies begin in both directions at once.
    for (let file = 1; file <= 2; file++) {
      const name = `0000000100000000000000${file}${which}`
      driver.objects.set(keyOf(name), wholeObject(name, bodies.get(which) ?? new Uint8Array()))
    }
    return driver
  }
  const drivers = [
    driverWith('memory:a', 'A', '00000000-0000-4000-8000-00000000000a'),
    driverWith('memory:b', 'B', '00000000-0000-4000-8000-00000000000b'),
  ]
  const repositories = drivers.map(driver => {
    const { url, features } = driver
    const budget = new MemoryBudget(8 * 1024 ** 2)
    const store = new RemoteStore({ url, features, send: sendTo(driver), clock, budget })
    return new Repository({ store, clock, newId: () => '', writer: 'test' })
  })
  const report = await catchUp({ repositories, systemIdentifier: anySystemIdentifier, filesAtOnce: 4 })
  assert.deepEqual([report.status, report.repositories.map(({ copied }) => copied)], ['ok', [2, 2]])
  const [a, b] = drivers
  for (const [key, bytes] of a?.objects ?? []) {
    if (key !== markerKey) assert.ok(Buffer.compare(bytes, b?.objects.get(key) ?? Buffer.alloc(0)) === 0, key)
  }
})

/**
 * Three stores that lack large files of each other, some of which can be unmounted, with little memory for each. Their
 * requests take as long as the seed says, and time passes only while something can still happen: the clock throws where
 * copies wait for each other.
 */
async function copyStorm(seed: number): Promise<void> {
  const random = new SeededRandom(seed)
  const clock = new SimulatedClock()
  const body = noise(1024 ** 2)
  const files = Array.from({ length: 12 }, (_, index) => {
    const name = `0000000100000000000000${(index + 16).toString(16).toUpperCase()}`
    return { key: keyOf(name), bytes: wholeObject(name, body.subarray(0, random.integer(1, body.length))) }
  })
  const drivers = ['a', 'b', 'c'].map(each => {
    const features = { canBeUnmounted: random.chance(0.6), partBytesMin: 64 * 1024 }
    const driver = new MemoryDriver({ url: `memory:${each}`, clock, features })
    driver.objects.set(markerKey, encodeMarker(`00000000-0000-4000-8000-00000000000${each}`, '', 'test'))
    return driver
  })
  for (const { key, bytes } of files) {
    const [one, other] = [random.pick(drivers), random.pick(drivers)]
    one.objects.set(key, bytes)
    other.objects.set(key, bytes)
  }
  const budgets: MemoryBudget[] = []
  const repositories = drivers.map(driver => {
    const { url, features } = driver
    const plain = sendTo(driver)
    const send: Send = async (kind, request, signal) => {
      await clock.sleep(random.integer(0, 20))
      return await plain(kind, request, signal)
    }
    const budget = new MemoryBudget(random.integer(256, 1024) * 1024)
    budgets.push(budget)
    const partBytes = random.integer(64, 512) * 1024
    const store = new RemoteStore({ url, features, send, clock, budget, partBytes })
    return new Repository({ store, clock, newId: () => '', writer: 'test' })
  })
  const filesAtOnce = random.integer(2, 32)
  const report = await clock.run(
    catchUp({ repositories, systemIdentifier: anySystemIdentifier, filesAtOnce }),
  )
  assert.equal(report.status, 'ok', report.failed.shown.join())
  for (const { objects } of drivers) {
    for (const { key, bytes } of files) assert.ok(objects.get(key) && bytes.equals(objects.get(key) ?? bytes))
  }
  assert.deepEqual(
    budgets.map(each => each.usedBytes),
    [0, 0, 0],
  )
}

test('however many copies there are in whatever directions, with little memory, none waits for ever', async () => {
  for (let seed = 1; seed <= 25; seed++) {
    await copyStorm(seed).catch(thrown => {
      throw new Error(`seed ${seed}`, { cause: thrown })
    })
  }
})

function wholeObject(name: string, body: Uint8Array): Buffer {
  const block = encodeMetadataBlock({
    name,
    system_identifier: anySystemIdentifier,
    plaintext_xxh128: '0'.repeat(32),
    plaintext_length: body.length,
    stored_sha256: createHash('sha256').update(body).digest('hex'),
    stored_length: body.length,
    compression: 'zstd',
    encryption: 'none',
    recipients: [],
    wal_segment_size: null,
    wal_page_magic: null,
    archived_at: '2026-11-21T04:00:00.000Z',
    modified_at: '2026-11-21T04:00:00.000Z',
    writer: 'test',
  })
  return Buffer.concat([block, body])
}
