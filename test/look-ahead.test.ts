import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LookAhead } from '../src/host/look-ahead.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedDisk } from '../src/system/simulated-files.ts'

const segment = (number: number) =>
  `0000000100000000000000${number.toString(16).toUpperCase().padStart(2, '0')}`

interface Attempt {
  file: string
  answer(archived: boolean): void
}

/** A directory with files that are ready, and a module whose attempts end when the test says so. */
function stage(options: { ready: number[]; filesAtOnce: number }) {
  let now = 1
  const disk = new SimulatedDisk(new SeededRandom(1), () => now++)
  for (const path of ['/data', '/data/pg_wal', '/data/pg_wal/archive_status']) disk.makeDirectory(path)
  const write = (file: string) => disk.place(`/data/pg_wal/${file}`, `content of ${file} at ${now}`)
  for (const number of options.ready) {
    write(segment(number))
    disk.place(`/data/pg_wal/archive_status/${segment(number)}.ready`, '')
  }
  const attempts: Attempt[] = []
  const stop = new AbortController()
  const lookAhead = new LookAhead({
    files: disk.mount(),
    dataDirectory: '/data',
    archiveFile: file =>
      new Promise(resolve => {
        attempts.push({ file, answer: resolve })
      }),
    filesAtOnce: () => options.filesAtOnce,
    signal: stop.signal,
  })
  /** Lets everything happen that waits for nothing but the simulated disk. */
  const settle = async () => {
    for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
  }
  const begun = () => attempts.map(({ file }) => Number.parseInt(file.slice(-2), 16))
  const answer = async (number: number, archived: boolean) => {
    attempts.findLast(({ file }) => file === segment(number))?.answer(archived)
    await settle()
  }
  const done = (number: number) => disk.remove(`/data/pg_wal/archive_status/${segment(number)}.ready`)
  return { lookAhead, attempts, begun, answer, done, settle, write, stop }
}

test('while the server waits for a file, the next ones in order are given to the module, as many as allowed', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [5, 1, 4, 2, 3], filesAtOnce: 3 })
  const first = lookAhead.archive(segment(1))
  await settle()
  assert.deepEqual(begun(), [1, 2, 3])
  await answer(2, true)
  assert.deepEqual(begun(), [1, 2, 3, 4])
  await answer(1, true)
  assert.equal(await first, true)
})

test('what was archived ahead is answered without another attempt, once', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2], filesAtOnce: 2 })
  const first = lookAhead.archive(segment(1))
  await settle()
  await answer(2, true)
  await answer(1, true)
  assert.equal(await first, true)
  assert.equal(await lookAhead.archive(segment(2)), true)
  assert.deepEqual(begun(), [1, 2])
  void lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [1, 2, 2])
})

test('a file that was changed or recycled since it was archived ahead is archived again', async () => {
  const { lookAhead, begun, answer, settle, write } = stage({ ready: [1, 2], filesAtOnce: 2 })
  void lookAhead.archive(segment(1))
  await settle()
  await answer(2, true)
  write(segment(2))
  const second = lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [1, 2, 2])
  await answer(2, true)
  assert.equal(await second, true)
})

test('a file that was changed while it was read ahead is archived again for a request that waited', async () => {
  const { lookAhead, begun, answer, settle, write } = stage({ ready: [1, 2], filesAtOnce: 2 })
  void lookAhead.archive(segment(1))
  await settle()
  const second = lookAhead.archive(segment(2))
  write(segment(2))
  await answer(2, true)
  assert.deepEqual(begun(), [1, 2, 2])
  await answer(2, false)
  assert.equal(await second, false)
})

test('a failure ahead fails nothing that was asked for, and is tried again only on request', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2, 3], filesAtOnce: 2 })
  const first = lookAhead.archive(segment(1))
  await settle()
  await answer(2, false)
  assert.deepEqual(begun(), [1, 2, 3])
  await answer(3, true)
  await answer(1, true)
  assert.equal(await first, true)
  const second = lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [1, 2, 3, 2])
  await answer(2, true)
  assert.equal(await second, true)
})

test('a request for a file that is under way waits for that attempt', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2], filesAtOnce: 2 })
  void lookAhead.archive(segment(1))
  await settle()
  const again = lookAhead.archive(segment(1))
  const second = lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [1, 2])
  await answer(2, true)
  await answer(1, true)
  assert.deepEqual(await Promise.all([again, second]), [true, true])
})

test('an attempt ahead that fails while its file is asked for is made again, and that one counts', async () => {
  for (const counts of [true, false]) {
    const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2], filesAtOnce: 2 })
    void lookAhead.archive(segment(1))
    await settle()
    const second = lookAhead.archive(segment(2))
    await answer(2, false)
    assert.deepEqual(begun(), [1, 2, 2])
    await answer(2, counts)
    assert.equal(await second, counts)
    assert.deepEqual(begun(), [1, 2, 2])
  }
})

test('the requested file never waits for a place', async () => {
  const { lookAhead, begun, settle } = stage({ ready: [2, 3, 4], filesAtOnce: 2 })
  void lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [2, 3])
  void lookAhead.archive(segment(4))
  await settle()
  assert.deepEqual(begun(), [2, 3, 4])
})

test('a module that takes one file at a time gets one', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2, 3], filesAtOnce: 1 })
  const first = lookAhead.archive(segment(1))
  await settle()
  await answer(1, true)
  assert.equal(await first, true)
  await settle()
  assert.deepEqual(begun(), [1])
})

test('what was archived ahead is forgotten when settings change', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2], filesAtOnce: 2 })
  void lookAhead.archive(segment(1))
  await settle()
  await answer(2, true)
  lookAhead.forget()
  void lookAhead.archive(segment(2))
  await settle()
  assert.deepEqual(begun(), [1, 2, 2])
})

test('what is under way when settings change is not kept, and a request that waited for it begins again', async () => {
  const { lookAhead, begun, answer, settle } = stage({ ready: [1, 2, 3], filesAtOnce: 3 })
  void lookAhead.archive(segment(1))
  await settle()
  const second = lookAhead.archive(segment(2))
  lookAhead.forget()
  await answer(2, true)
  assert.deepEqual(begun(), [1, 2, 3, 2])
  await answer(3, true)
  const third = lookAhead.archive(segment(3))
  await settle()
  assert.deepEqual(begun(), [1, 2, 3, 2, 3])
  await answer(2, false)
  await answer(3, true)
  assert.deepEqual(await Promise.all([second, third]), [false, true])
})

test('nothing is begun ahead once the archiver ends', async () => {
  const { lookAhead, begun, answer, settle, stop } = stage({ ready: [1, 2, 3], filesAtOnce: 2 })
  void lookAhead.archive(segment(1))
  await settle()
  stop.abort()
  await answer(2, true)
  assert.deepEqual(begun(), [1, 2])
})

test('it stays ahead for as long as files are ready', async () => {
  const count = 100
  const ready = Array.from({ length: count }, (_, index) => index + 1)
  const { lookAhead, begun, answer, done, settle } = stage({ ready, filesAtOnce: 2 })
  for (const number of ready.slice(0, -1)) {
    const request = lookAhead.archive(segment(number))
    await settle()
    assert.ok(begun().includes(number + 1), `while ${number} was waited for, ${number + 1} was not begun`)
    await answer(number, true)
    assert.equal(await request, true)
    done(number)
  }
})
