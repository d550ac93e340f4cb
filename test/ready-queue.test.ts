// Which file is next, and how much looking it costs.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReadyQueue } from '../src/archiver/ready-queue.ts'
import { ArchiveStatus } from '../src/host/archive-status.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { SimulatedDisk, type Step } from '../src/system/simulated-files.ts'

const statusDirectory = '/pg_wal/archive_status'

function segment(number: number): string {
  return `0000000100000000${number.toString(16).toUpperCase().padStart(8, '0')}`
}

function segments(first: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => segment(first + index))
}

/** A queue over a directory whose scan takes some time. */
function stage({ scanMs = 0 } = {}) {
  const clock = new SimulatedClock()
  const disk = new SimulatedDisk(new SeededRandom(1))
  disk.makeDirectory('/pg_wal')
  disk.makeDirectory(statusDirectory)
  const steps: Step[] = []
  const files = disk.mount({
    delay: ({ operation }) => (operation === 'list' ? clock.sleep(scanMs) : Promise.resolve()),
    stepped: step => void steps.push(step),
  })
  const ignored: string[] = []
  const queue = new ReadyQueue(new ArchiveStatus(files, '/pg_wal'), clock, name => ignored.push(name))
  const operations = (operation: string) => steps.filter(step => step.operation === operation).length
  return {
    clock,
    disk,
    queue,
    ignored,
    scans: () => operations('list'),
    looks: () => operations('stat'),
    makeReady: (...names: string[]) => {
      for (const name of names) disk.place(`${statusDirectory}/${name}.ready`, '')
    },
    /** Takes the next one and marks it done, as an archiver does. */
    take: async () => {
      const name = await clock.run(queue.next())
      if (name !== undefined) disk.drop(`${statusDirectory}/${name}.ready`)
      return name
    },
  }
}

test('nothing is next where nothing is ready', async () => {
  const { take, scans } = stage()
  assert.equal(await take(), undefined)
  assert.equal(await take(), undefined)
  assert.equal(scans(), 2)
})

test('names come in archive order, all from one scan', async () => {
  const { take, makeReady, scans } = stage()
  makeReady(segment(3), '00000002.history', segment(1), segment(2))
  assert.deepEqual(
    [await take(), await take(), await take(), await take()],
    ['00000002.history', segment(1), segment(2), segment(3)],
  )
  assert.equal(scans(), 1)
})

test('after 64 names there is another scan, which finds what came late', async () => {
  const { take, makeReady, scans } = stage()
  makeReady(...segments(2, 70))
  assert.equal(await take(), segment(2))
  makeReady(segment(1))
  for (const expected of segments(3, 63)) assert.equal(await take(), expected)
  assert.equal(scans(), 1)
  assert.equal(await take(), segment(1))
  assert.equal(scans(), 2)
})

test('where very many wait, a scan that took long serves for more than 64 names, until ten times its time has passed', async () => {
  const { clock, take, makeReady, scans } = stage({ scanMs: 100 })
  makeReady(...segments(2, 1_001))
  await take()
  makeReady(segment(1))
  for (const expected of segments(3, 99)) assert.equal(await take(), expected)
  assert.equal(scans(), 1)
  await clock.pass(999)
  assert.equal(await take(), segment(102))
  await clock.pass(1)
  assert.equal(await take(), segment(1))
  assert.equal(scans(), 2)
})

test('where fewer wait, it serves for 64, however long it took', async () => {
  const { take, makeReady, scans } = stage({ scanMs: 100 })
  makeReady(...segments(2, 1_000))
  await take()
  makeReady(segment(1))
  for (const expected of segments(3, 63)) assert.equal(await take(), expected)
  assert.equal(scans(), 1)
  assert.equal(await take(), segment(1))
})

test('before 64 names are taken there is no other scan, however long it takes', async () => {
  const { clock, take, makeReady, scans } = stage({ scanMs: 100 })
  makeReady(...segments(1, 64))
  for (const expected of segments(1, 64)) {
    assert.equal(await take(), expected)
    await clock.pass(60_000)
  }
  assert.equal(scans(), 1)
})

test('a name whose status file has vanished is passed over', async () => {
  const { disk, take, makeReady } = stage()
  makeReady(...segments(1, 4))
  await take()
  disk.drop(`${statusDirectory}/${segment(2)}.ready`)
  disk.drop(`${statusDirectory}/${segment(3)}.ready`)
  assert.equal(await take(), segment(4))
  assert.equal(await take(), undefined)
})

test('the first name after a scan is not looked at again, every later one is', async () => {
  const { take, makeReady, looks } = stage()
  makeReady(...segments(1, 3))
  await take()
  assert.equal(looks(), 0)
  await take()
  await take()
  assert.equal(looks(), 2)
})

test('forgetting makes the next call scan', async () => {
  const { queue, take, makeReady, scans } = stage()
  makeReady(segment(2), segment(3))
  await take()
  makeReady(segment(1))
  queue.forget()
  assert.equal(await take(), segment(1))
  assert.equal(scans(), 2)
})

test('each scan tells of the names that it ignores', async () => {
  const { queue, take, makeReady, ignored } = stage()
  makeReady('foreign', segment(1))
  await take()
  queue.forget()
  await take()
  assert.deepEqual(ignored, ['foreign.ready', 'foreign.ready'])
})

test('a directory that cannot be read is an error, not an empty queue', async () => {
  const { disk, take } = stage()
  disk.remove(statusDirectory)
  await assert.rejects(take(), { code: 'ENOENT' })
})
