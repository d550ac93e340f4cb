import assert from 'node:assert/strict'
import { test } from 'node:test'
import { identityOf } from '../src/host/file-identity.ts'
import { PushAhead } from '../src/host/push-ahead.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { SimulatedDisk } from '../src/system/simulated-files.ts'

const wal = '/data/pg_wal'
const notesDirectory = `${wal}/notes`
const segment = (number: number) =>
  `0000000100000000000000${number.toString(16).toUpperCase().padStart(2, '0')}`

interface StageOptions {
  ready: number[]
  filesAtOnce?: number
  /** Attempts end when the test says so. */
  isManual?: boolean
}

function stage({ ready, filesAtOnce = 2, isManual = false }: StageOptions) {
  const clock = new SimulatedClock()
  const disk = new SimulatedDisk(new SeededRandom(1), () => clock.now())
  for (const path of ['/data', wal, `${wal}/archive_status`, notesDirectory]) disk.makeDirectory(path)
  const files = disk.mount()
  const makeReady = (number: number) => {
    disk.place(`${wal}/${segment(number)}`, `content of ${number}`)
    disk.place(`${wal}/archive_status/${segment(number)}.ready`, '')
  }
  ready.forEach(makeReady)
  const begun: number[] = []
  const answers = new Map<number, (isArchived: boolean) => void>()
  const failing = new Set<number>()
  let isAllowed = true
  const ahead = new PushAhead({
    files,
    clock,
    walDirectory: wal,
    notesDirectory,
    archiveFile: async name => {
      const number = Number.parseInt(name.slice(-2), 16)
      begun.push(number)
      if (isManual) {
        const isArchived = await new Promise<boolean>(resolve => answers.set(number, resolve))
        if (!isArchived) throw new Error('not archived')
      } else if (failing.has(number)) throw new Error('not archived')
    },
    filesAtOnce,
    idleMs: 60_000,
    mayGoOn: async () => (isAllowed ? 'goes on' : 'over'),
  })
  return {
    clock,
    disk,
    files,
    ahead,
    begun,
    answers,
    failing,
    makeReady,
    notes: () => disk.names(notesDirectory).toSorted(),
    done: (number: number) => disk.remove(`${wal}/archive_status/${segment(number)}.ready`),
    forbid: () => {
      isAllowed = false
    },
  }
}

test('what is ready is archived in order, and a note tells which very file that was', async () => {
  const { ahead, begun, clock, disk, files, notes } = stage({ ready: [3, 1, 2] })
  const ended = ahead.run()
  await clock.pass(100)
  assert.deepEqual(begun, [1, 2, 3])
  assert.deepEqual(
    notes(),
    [1, 2, 3].map(number => `${segment(number)}.archived`),
  )
  const note = Buffer.from(disk.content(`${notesDirectory}/${segment(2)}.archived`) ?? []).toString()
  assert.equal(note, `${identityOf(await files.stat(`${wal}/${segment(2)}`))}\n`)
  void ended
})

test('an identity is printed as the program stat prints it', () => {
  const status = {
    device: 2049n,
    inode: 77n,
    size: 5,
    modifiedNs: 1_700_000_000_000_000_001n,
    changedNs: 999_999_999n,
  }
  const whole = { ...status, kind: 'file' as const, mode: 0o600, uid: 1, gid: 1 }
  assert.equal(identityOf(whole), '2049 77 5 1700000000.000000001 0.999999999')
})

test('while a file is being archived a note says so, and no more are begun than may be', async () => {
  const { ahead, begun, clock, answers, notes } = stage({ ready: [1, 2, 3], isManual: true })
  void ahead.run()
  await clock.pass(100)
  assert.deepEqual(begun, [1, 2])
  assert.deepEqual(notes(), [`${segment(1)}.busy`, `${segment(2)}.busy`])
  answers.get(2)?.(true)
  await clock.pass(10)
  assert.deepEqual(begun, [1, 2, 3])
  assert.deepEqual(notes(), [`${segment(1)}.busy`, `${segment(2)}.archived`, `${segment(3)}.busy`])
})

test('a failure leaves no note, and is not tried again for five seconds', async () => {
  const { ahead, begun, clock, failing, notes } = stage({ ready: [1] })
  failing.add(1)
  void ahead.run()
  await clock.pass(4_500)
  assert.deepEqual(begun, [1])
  assert.deepEqual(notes(), [])
  failing.clear()
  await clock.pass(2_000)
  assert.deepEqual(begun, [1, 1])
  assert.deepEqual(notes(), [`${segment(1)}.archived`])
})

test('a file that was replaced while it was being archived gets no note, and is archived again', async () => {
  const { ahead, answers, begun, clock, disk, notes } = stage({ ready: [1], isManual: true })
  void ahead.run()
  await clock.pass(100)
  disk.place(`${wal}/${segment(1)}`, 'other content')
  answers.get(1)?.(true)
  await clock.pass(100)
  assert.deepEqual(begun, [1, 1])
  assert.deepEqual(notes(), [`${segment(1)}.busy`])
})

test('a note goes when its file is not ready any more', async () => {
  const { ahead, clock, done, notes } = stage({ ready: [1, 2] })
  void ahead.run()
  await clock.pass(100)
  done(1)
  await clock.pass(1_100)
  assert.deepEqual(notes(), [`${segment(2)}.archived`])
})

test('it ends after a minute with nothing to do, and leaves no note', async () => {
  const { ahead, clock, done, makeReady, begun, notes } = stage({ ready: [1] })
  const ended = ahead.run()
  await clock.pass(30_000)
  done(1)
  await clock.pass(59_000)
  makeReady(2)
  await clock.pass(2_000)
  done(2)
  await clock.run(ended)
  assert.deepEqual(begun, [1, 2])
  assert.deepEqual(notes(), [])
})

test('when it may not go on no note is left, and none comes from what was under way', async () => {
  const { ahead, answers, clock, forbid, notes } = stage({ ready: [1, 2], isManual: true })
  const ended = ahead.run()
  await clock.pass(100)
  answers.get(1)?.(true)
  await clock.pass(10)
  forbid()
  await clock.pass(1_100)
  assert.ok(!notes().includes(`${segment(1)}.archived`))
  answers.get(2)?.(true)
  await clock.run(ended)
  assert.deepEqual(notes(), [])
})

test('what one before it has left is removed, and nothing else', async () => {
  const { ahead, disk, notes } = stage({ ready: [] })
  for (const name of ['state', 'lock', `${segment(1)}.archived`, `${segment(2)}.busy`]) {
    disk.place(`${notesDirectory}/${name}`, '')
  }
  await ahead.clear()
  assert.deepEqual(notes(), ['lock', 'state'])
})
