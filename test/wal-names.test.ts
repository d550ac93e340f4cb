// Names of WAL files: what each stands for, which are archived, and in what order.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ArchiveStatus } from '../src/host/archive-status.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedDisk } from '../src/system/simulated-files.ts'
import { inArchiveOrder } from '../src/wal/archive-order.ts'
import { isTimelineHistory, walFileKind } from '../src/wal/wal-file-name.ts'

test('the four kinds of WAL files are told by their names', () => {
  assert.equal(walFileKind('00000001000000A900000065'), 'segment')
  assert.equal(walFileKind('00000001000000A900000065.partial'), 'partial segment')
  assert.equal(walFileKind('00000001000000A900000065.00000028.backup'), 'backup history')
  assert.equal(walFileKind('00000002.history'), 'timeline history')
})

test('what only looks like one is none', () => {
  const names = [
    '',
    '00000001000000A90000006', // one digit too few
    '00000001000000A9000000650', // one too many
    '00000001000000a900000065', // the server writes capitals
    '00000001000000G900000065',
    '00000001000000A900000065 ',
    '00000001000000A900000065\n',
    ' 00000001000000A900000065',
    '00000001000000A900000065.Partial',
    '00000001000000A900000065.partial.partial',
    '00000001000000A900000065.0000028.backup',
    '00000001000000A900000065.backup',
    '2.history',
    '000000002.history',
    '0000000g.history',
    '00000002.history.bak',
    '00000001000000A900000065.history',
    '../0000000100000000000001',
  ]
  for (const name of names) {
    assert.equal(walFileKind(name), undefined, name)
    assert.equal(isTimelineHistory(name), false, name)
  }
})

test('archive order: histories, then the order of the bytes, whatever order they come in', () => {
  const ordered = [
    '00000002.history',
    '0000000A.history',
    '000000010000000000000001',
    '000000010000000000000001.00000028.backup',
    '000000010000000000000001.partial',
    '000000010000000000000002',
    '000000010000000000000009',
    '00000001000000000000000A', // a digit comes before a letter
    '000000010000000100000000',
    '000000020000000000000001', // older timelines first, whatever the segment
    'historyhistoryhistory', // like none of the server's, yet of letters that are let through
  ]
  const random = new SeededRandom(7)
  for (let round = 0; round < 50; round++) {
    const shuffled = ordered
      .map(name => ({ name, key: random.integer(0, 1_000_000) }))
      .toSorted((a, b) => a.key - b.key)
      .map(({ name }) => name)
    assert.deepEqual(inArchiveOrder(shuffled), ordered)
  }
})

test('only eight digits and the suffix make a history that goes first', () => {
  const names = ['000000010000000000000001.history', '000000010000000000000001', '00000009.history']
  assert.deepEqual(inArchiveOrder(names), [
    '00000009.history',
    '000000010000000000000001',
    '000000010000000000000001.history',
  ])
})

test('ordering leaves the list that it is given alone', () => {
  const names = Object.freeze(['B'.repeat(24), 'A'.repeat(24)])
  assert.deepEqual(inArchiveOrder(names), ['A'.repeat(24), 'B'.repeat(24)])
})

// Which status files are taken

async function sorted(...statusFiles: string[]) {
  const disk = new SimulatedDisk(new SeededRandom(1))
  disk.makeDirectory('/pg_wal')
  disk.makeDirectory('/pg_wal/archive_status')
  for (const name of statusFiles) disk.place(`/pg_wal/archive_status/${name}`, '')
  const ignored: string[] = []
  const status = new ArchiveStatus(disk.mount(), '/pg_wal')
  const { first } = await status.ready(100, name => ignored.push(name))
  return { taken: first, ignored }
}

test('names of 16 to 40 characters are taken', async () => {
  const lengths = [15, 16, 17, 39, 40, 41]
  const { taken, ignored } = await sorted(...lengths.map(length => `${'0'.repeat(length)}.ready`))
  assert.deepEqual(taken.map(name => name.length).toSorted(), [16, 17, 39, 40])
  assert.deepEqual(ignored.map(name => name.length - '.ready'.length).toSorted(), [15, 41])
})

test('the letters of a name form a set, not a grammar, as in the server', async () => {
  const { taken } = await sorted(
    'rotarybackupstory.ready',
    '0123456789ABCDEF.ready',
    'bachiklopurstuy.0.ready',
  )
  assert.deepEqual(taken.toSorted(), ['0123456789ABCDEF', 'bachiklopurstuy.0', 'rotarybackupstory'])
})

test('every other letter makes a name that is ignored and told', async () => {
  const names = 'defgjmnqvwxzGHIZ-_ ~%é\\'.split('').map(letter => `00000001000000000000000${letter}.ready`)
  const { taken, ignored } = await sorted(...names)
  assert.deepEqual(taken, [])
  assert.deepEqual(ignored.toSorted(), names.toSorted())
})

test('names that climb out of the directory cannot be made of these letters', async () => {
  // "..", which no directory entry can hold together with a slash, is too short; sixteen dots are one harmless name.
  const { taken, ignored } = await sorted('...ready', `${'.'.repeat(16)}.ready`)
  assert.deepEqual(taken, ['.'.repeat(16)])
  assert.deepEqual(ignored, ['...ready'])
})

test('what does not end in .ready is not looked at', async () => {
  const name = '000000010000000000000001'
  const { taken, ignored } = await sorted(`${name}.done`, name, `${name}.ready.tmp`, `${name}.READY`, 'ready')
  assert.deepEqual(taken, [])
  assert.deepEqual(ignored, [])
})

test('all that wait are counted, and no more than asked for are named: the first in archive order', async () => {
  const disk = new SimulatedDisk(new SeededRandom(1))
  disk.makeDirectory('/pg_wal')
  disk.makeDirectory('/pg_wal/archive_status')
  const random = new SeededRandom(7)
  const numbers = Array.from({ length: 50 }, (_, number) => ({ number, key: random.integer(0, 1_000_000) }))
  for (const { number } of numbers.toSorted((a, b) => a.key - b.key)) {
    disk.place(`/pg_wal/archive_status/0000000100000000000000${number + 10}.ready`, '')
  }
  disk.place('/pg_wal/archive_status/00000002.history.ready', '')
  const status = new ArchiveStatus(disk.mount(), '/pg_wal')
  assert.deepEqual(await status.ready(3, () => {}), {
    count: 51,
    first: ['00000002.history', '000000010000000000000010', '000000010000000000000011'],
  })
})
