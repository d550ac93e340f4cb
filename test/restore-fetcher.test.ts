// The fetcher over a real directory, with everything else in the test's hands.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { xxh3 } from '../src/repository/codec/xxhash.ts'
import type { FetchedFile, FetchOptions } from '../src/repository/repository.ts'
import { fetchWhole } from '../src/restore/archive-get.ts'
import { Fetcher, type FetcherEnd, type FetcherOptions } from '../src/restore/fetcher.ts'
import { Spool } from '../src/restore/spool.ts'
import type { Clock } from '../src/system/clock.ts'
import type { Files } from '../src/system/files.ts'
import { identityOf } from '../src/system/process-identity.ts'
import { realFiles } from '../src/system/real-files.ts'
import { segmentName } from '../src/wal/segment-position.ts'
import { until } from './restore/archived-server.ts'
import { type TemporaryDirectory, temporaryDirectory } from './support/unprivileged.ts'

const segmentBytes = 1024 * 1024
const nameOf = (segment: number, timeline = 1) =>
  segmentName({ timeline, segment: BigInt(segment) }, segmentBytes)
const self = await identityOf(realFiles, process.pid)

/** What is archived, and what fetching it does. */
class Archive {
  readonly asked: string[] = []
  atOnce = 0
  atOnceMax = 0
  readonly content = new Map<string, Buffer>()
  before: (name: string) => Promise<void> | void = () => {}

  add(from: number, to: number, timeline = 1): void {
    for (let segment = from; segment <= to; segment++)
      this.content.set(nameOf(segment, timeline), randomBytes(100))
  }

  async fetch(
    { name, signal }: FetchOptions,
    sink: (bytes: Uint8Array) => Promise<void>,
  ): Promise<FetchedFile | false> {
    this.asked.push(name)
    this.atOnceMax = Math.max(this.atOnceMax, ++this.atOnce)
    try {
      await this.before(name)
      signal?.throwIfAborted()
      const content = this.content.get(name)
      if (content === undefined) return false
      await sink(content.subarray(0, 50))
      await setImmediate()
      await sink(content.subarray(50))
      using hash = await xxh3()
      hash.update(content)
      return { digest: hash.digest() }
    } finally {
      this.atOnce--
    }
  }
}

class Stage implements AsyncDisposable {
  readonly directory: TemporaryDirectory
  readonly spool: Spool
  readonly archive = new Archive()
  readonly wal: string
  state: 'goes on' | 'over' | 'gone' = 'goes on'
  haveChanged = false
  free = 1e12
  now = 0
  end: Promise<FetcherEnd> | undefined

  private constructor(directory: TemporaryDirectory) {
    this.directory = directory
    this.wal = join(directory.path, 'pg_wal')
    this.spool = new Spool(realFiles, join(this.wal, 'spool'), 0o600)
  }

  static async create(): Promise<Stage> {
    const stage = new Stage(await temporaryDirectory())
    await mkdir(stage.spool.directory, { recursive: true })
    return stage
  }

  start(position: string | undefined, options: Partial<FetcherOptions> = {}): void {
    assert.ok(self)
    const clock: Clock = {
      now: () => this.now,
      monotonic: () => this.now,
      // A look is always due, so that the test need not wait for one.
      sleep: async () => {
        await setImmediate()
        this.now += 1
      },
    }
    const fetcher = new Fetcher({
      files: realFiles,
      clock,
      spool: this.spool,
      self,
      source: { repository: this.archive, systemIdentifier: '1', identities: async () => [] },
      sourceMark: 'mark',
      walDirectory: this.wal,
      handOver: 'rename',
      filesAtOnce: 2,
      writtenAtOnce: 2,
      limitBytes: 1e9,
      recovery: { look: async () => this.state },
      haveSettingsChanged: async () => this.haveChanged,
      diskSpace: async () => ({ free: this.free, total: 1e12 }),
      watched: [],
      ...options,
    })
    const run = async () => {
      if (position !== undefined) await this.spool.writePosition({ name: position, segmentBytes }, 'start', 1)
      return await fetcher.run(async () => {})
    }
    this.end = run()
  }

  async names(): Promise<string[]> {
    return (await readdir(this.spool.directory)).toSorted()
  }

  async segments(): Promise<string[]> {
    return (await this.names()).filter(name => name.length === 24)
  }

  /** As the launcher takes it. */
  async take(name: string): Promise<Buffer> {
    const taken = join(this.wal, 'RECOVERYXLOG')
    await rename(this.spool.path(name), taken)
    return await readFile(taken)
  }

  async hasFetched(names: string[]): Promise<void> {
    const wanted = names.flatMap(name => [name, `${name}.verified`])
    await until(`${wanted.join(', ')} in the spool`, async () => {
      const there = (await this.names()).filter(name => name !== 'position')
      return there.length === wanted.length && wanted.every(name => there.includes(name))
    }).catch(async thrown => {
      throw new Error(`${(thrown as Error).message}; there is ${(await this.names()).join(', ')}`)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.state = 'gone'
    await this.end
    await this.directory[Symbol.asyncDispose]()
  }
}

const range = (from: number, to: number, timeline = 1) =>
  Array.from({ length: to - from + 1 }, (_, index) => nameOf(from + index, timeline))

test('it fetches ahead, several at once, and slides on with what is taken', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  stage.start(nameOf(4))
  await stage.hasFetched(range(5, 12))
  assert.equal(stage.archive.atOnceMax, 2)
  assert.deepEqual(await stage.take(nameOf(5)), stage.archive.content.get(nameOf(5)))
  await stage.hasFetched(range(6, 15))
  await stage.take(nameOf(6))
  await stage.take(nameOf(7))
  await stage.hasFetched(range(8, 21))
  assert.deepEqual(stage.archive.asked, range(5, 21), 'each once')
})

test('it never keeps more than the limit', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  let most = 0
  stage.archive.before = async () => {
    most = Math.max(most, (await stage.names()).filter(name => /^[0-9A-F]{24}(\.part)?$/.test(name)).length)
  }
  stage.start(nameOf(0), { limitBytes: 3.5 * segmentBytes })
  for (let segment = 1; segment < 20; segment++) {
    await stage.hasFetched(range(segment, segment + 2))
    await stage.take(nameOf(segment))
  }
  assert.ok(most <= 3, String(most))
})

test('at first it fetches half of the window at once, and more as it grows', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const { promise: held, resolve: go } = Promise.withResolvers<void>()
  stage.archive.before = () => held
  stage.start(nameOf(0), { filesAtOnce: 7 })
  const looked = async () => {
    const then = stage.now
    await until('some looks', () => stage.now > then + 20)
  }
  await looked()
  assert.deepEqual(stage.archive.asked, range(1, 4))
  go()
  await stage.hasFetched(range(1, 8))
  stage.archive.before = () => new Promise<void>(() => {})
  for (const segment of [1, 2, 3, 4]) await stage.take(nameOf(segment))
  await looked()
  assert.deepEqual(stage.archive.asked, range(1, 15))
})

test('what a launcher asks for is written before what was begun before it', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 20)
  const { promise: held, resolve: go } = Promise.withResolvers<void>()
  stage.archive.before = () => held
  const written: string[] = []
  const files: Files = {
    ...realFiles,
    open: async (path, access, mode) => {
      if (/[0-9A-F]{24}\.part$/.test(path)) written.push(basename(path, '.part'))
      return await realFiles.open(path, access, mode)
    },
  }
  stage.start(nameOf(0), { files, filesAtOnce: 4, writtenAtOnce: 1 })
  await until('what is ahead is on its way', () => stage.archive.atOnce === 4)
  await writeFile(stage.spool.path('question.1'), `${nameOf(15)}\n`)
  await until('what is asked for, too', () => stage.archive.atOnce === 5)
  go()
  await until('an answer', async () => (await stage.names()).includes('answer.1'))
  await until('the others', () => written.length >= 5)
  assert.deepEqual(
    written.slice(0, 5),
    [1, 15, 2, 3, 4].map(segment => nameOf(segment)),
  )
})

test('the memory of what was written is given back at once', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 1)
  const pieces = [randomBytes(10_000), randomBytes(20_000)].map(bytes => Uint8Array.from(bytes))
  const written = Buffer.concat(pieces)
  const repository = {
    fetch: async (_: FetchOptions, sink: (bytes: Uint8Array) => Promise<void>) => {
      for (const piece of pieces) await sink(piece)
      return { digest: 'x' }
    },
  }
  const path = stage.spool.path(nameOf(1))
  const target = { path, temporaryPath: `${path}.part`, mode: 0o600 }
  const source = { repository, systemIdentifier: '1', identities: async () => [] }
  assert.deepEqual(await fetchWhole(realFiles, target, source, nameOf(1)), { digest: 'x' })
  assert.ok(written.equals(await readFile(path)))
  assert.deepEqual(
    pieces.map(({ length }) => length),
    [0, 0],
  )
})

/** Files that remember which were synced, while they could not be taken yet. */
function syncedFiles(synced: string[], fail = (_name: string) => {}): Files {
  return {
    ...realFiles,
    open: async (path, access, mode) => {
      const file = await realFiles.open(path, access, mode)
      const sync = file.sync.bind(file)
      file.sync = async () => {
        await assert.rejects(readFile(`${path}.verified`), { code: 'ENOENT' })
        fail(basename(path))
        synced.push(basename(path))
        await sync()
      }
      return file
    },
  }
}

test('what nobody waits for is on the disk before it can be taken', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const synced: string[] = []
  stage.start(nameOf(0), { files: syncedFiles(synced), filesAtOnce: 1 })
  await stage.hasFetched(range(1, 8))
  assert.deepEqual(synced, range(2, 8))
})

test('what has to be copied to the server need not be on the disk', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const synced: string[] = []
  stage.start(nameOf(0), { files: syncedFiles(synced), handOver: 'copy' })
  await stage.hasFetched(range(1, 8))
  assert.deepEqual(synced, [])
})

test('what the disk does not take is not handed over', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 4)
  const full = (name: string) => assert.notEqual(name, nameOf(3), 'Input/output error')
  stage.start(nameOf(0), { files: syncedFiles([], full) })
  const verified = [1, 2, 4].map(segment => `${nameOf(segment)}.verified`)
  await until('the others', async () => {
    const there = await stage.names()
    return verified.every(name => there.includes(name))
  })
  await until(
    'the one in doubt is gone',
    async () => !(await stage.names()).some(name => name.includes(nameOf(3))),
  )
})

test('of what could not be noted as verified nothing is left, and nobody is told that it can be taken', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 4)
  let isFull = true
  const notNoted: Files = {
    ...realFiles,
    rename: async (from, to) => {
      if (isFull && basename(to) === `${nameOf(3)}.verified`) throw new Error('No space left on device')
      await realFiles.rename(from, to)
    },
  }
  const spool = new Spool(notNoted, stage.spool.directory, 0o600)
  stage.start(nameOf(0), { files: notNoted, spool })
  await until('it was tried', () => stage.archive.asked.length > 4)
  await stage.hasFetched([1, 2, 4].map(segment => nameOf(segment)))
  isFull = false
  await writeFile(stage.spool.path('question.1'), `${nameOf(3)}\n`)
  await until('an answer', async () => (await stage.names()).includes('answer.1'))
  assert.equal(await readFile(stage.spool.path('answer.1'), 'utf8'), 'fetched\n')
  assert.equal(stage.archive.asked.filter(name => name === nameOf(3)).length, 2, 'it was fetched again')
})

test('it leaves room on the disk', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  // 5 % of it are five segments, so there is room for one as long as six are free.
  const total = 100 * segmentBytes
  let free = 5.9 * segmentBytes
  const diskSpace = async () => ({ free: free - (await stage.segments()).length * segmentBytes, total })
  stage.start(nameOf(0), { diskSpace })
  await until('some looks', () => stage.now > 20)
  assert.deepEqual(stage.archive.asked, [])
  free = 7.9 * segmentBytes
  await stage.hasFetched(range(1, 2))
  const then = stage.now
  await until('more looks', () => stage.now > then + 20)
  assert.deepEqual(stage.archive.asked, range(1, 2))
})

test('of a small disk it leaves four segments', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const diskSpace = async () => ({
    free: (6 - (await stage.segments()).length) * segmentBytes,
    total: 10 * segmentBytes,
  })
  stage.start(nameOf(0), { diskSpace })
  await stage.hasFetched(range(1, 2))
  const then = stage.now
  await until('more looks', () => stage.now > then + 20)
  assert.deepEqual(stage.archive.asked, range(1, 2))
})

test('what becomes ready while it looks at the spool was not taken', async () => {
  // Such a file was once thought to be taken, the position jumped there, and what came before was thrown away.
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const files: Files = {
    ...realFiles,
    list: async path => {
      const names = await realFiles.list(path)
      const { length } = await readdir(stage.spool.directory)
      const isFetching = stage.archive.atOnce > 0
      if (isFetching) {
        await until(
          'something is ready',
          async () => (await readdir(stage.spool.directory)).length > length,
          100,
        ).catch(() => undefined)
      }
      return names
    },
  }
  stage.start(nameOf(0), { files })
  await stage.hasFetched(range(1, 8))
  assert.deepEqual(stage.archive.asked, range(1, 8))
})

test('at a segment that is not there it stops, and tries again only when the server has got there', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 3)
  stage.start(nameOf(0))
  await stage.hasFetched(range(1, 3))
  for (const segment of [1, 2, 3]) await stage.take(nameOf(segment))
  await stage.hasFetched([])
  const asked = stage.archive.asked.toSorted()
  // Two at once, so the one after it may have been tried too.
  assert.ok(asked.length === 4 || asked.length === 5)
  stage.archive.add(4, 6)
  const then = stage.now
  await until('some looks', () => stage.now > then + 20)
  assert.deepEqual(stage.archive.asked.toSorted(), asked)

  await stage.spool.writePosition({ name: nameOf(4), segmentBytes }, 'mark', process.pid)
  await stage.hasFetched(range(5, 6))
  // Where one was not there, those behind it are not asked for before there is one again: each costs a request.
  await until('the end is found', () => stage.archive.asked.includes(nameOf(7)) && stage.archive.atOnce === 0)
  // What the last answer means it knows by its next look.
  const found = stage.now
  await until('another look', () => stage.now > found + 2)
  stage.archive.asked.length = 0
  const last = stage.now
  await stage.spool.writePosition({ name: nameOf(8), segmentBytes }, 'mark', process.pid)
  await until('more looks', () => stage.now > last + 20)
  assert.deepEqual(stage.archive.asked, [nameOf(9)])
})

test('what cannot be fetched is left for the server to find out, and what was begun of it is removed', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 9)
  const { before } = stage.archive
  stage.archive.before = name => {
    if (name === nameOf(3)) throw new Error('the repository cannot be reached')
  }
  stage.start(nameOf(0))
  // It fails none of the others.
  await stage.hasFetched([...range(1, 2), ...range(4, 8)])
  stage.archive.before = before
  await stage.spool.writePosition({ name: nameOf(3), segmentBytes }, 'mark', process.pid)
  await stage.hasFetched(range(4, 9))
})

test('where nothing can be fetched, it stops before it has tried everything', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 9)
  stage.archive.before = () => {
    throw new Error('the repository cannot be reached')
  }
  stage.start(nameOf(0), { filesAtOnce: 3 })
  const then = stage.now
  await until('some looks', () => stage.now > then + 20)
  assert.ok(stage.archive.asked.length < 6, `${stage.archive.asked.length} were tried`)
})

test('a file that takes its time holds up no other', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  const { promise: held, resolve: go } = Promise.withResolvers<void>()
  stage.archive.before = async name => {
    if (name === nameOf(2)) await held
  }
  stage.start(nameOf(0))
  const others = [nameOf(1), ...range(3, 8)]
  await until('the others', async () => {
    const there = await stage.segments()
    return others.every(name => there.includes(name))
  })
  go()
  await stage.hasFetched(range(1, 8))
})

test('it follows the server to another place and another timeline, and throws away what leads nowhere', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 5)
  stage.archive.add(2, 30, 2)
  stage.start(nameOf(0))
  await stage.hasFetched(range(1, 5))
  await stage.spool.writePosition({ name: nameOf(3, 2), segmentBytes }, 'mark', process.pid)
  await stage.hasFetched(range(4, 13, 2))
  await stage.spool.writePosition({ name: nameOf(19, 2), segmentBytes }, 'mark', process.pid)
  await stage.hasFetched(range(20, 30, 2))
})

test('it goes along the timelines of the newest history that the server has', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 9)
  stage.archive.add(3, 5, 2)
  stage.archive.add(5, 9, 3)
  await writeFile(join(stage.wal, '00000002.history'), '1\t0/300028\tno recovery target specified\n')
  await writeFile(
    join(stage.wal, '00000003.history'),
    '1\t0/300028\tno recovery target specified\n2\t0/5FFFFF\tno recovery target specified\n',
  )
  stage.start(nameOf(0))
  await stage.hasFetched([...range(1, 2), ...range(3, 4, 2), ...range(5, 8, 3)])
})

test('when recovery is over, when settings have changed and when nobody takes anything, nothing stays', async () => {
  for (const [why, cause] of [
    ['recovery is over', (stage: Stage) => void (stage.state = 'over')],
    ['settings have changed', (stage: Stage) => ((stage.haveChanged = true), void (stage.now += 1_000))],
    ['idle', (stage: Stage) => void (stage.now += 60_001)],
  ] as const) {
    await using stage = await Stage.create()
    stage.archive.add(1, 9)
    stage.start(nameOf(0))
    await stage.hasFetched(range(1, 8))
    await writeFile(stage.spool.path('lock'), '')
    cause(stage)
    assert.equal(await stage.end, why)
    assert.deepEqual(await stage.names(), ['lock'])
  }
})

test('with somebody who takes something it is not idle', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 100)
  stage.start(nameOf(0), { limitBytes: 2 * segmentBytes })
  for (let segment = 1; segment < 10; segment++) {
    await stage.hasFetched(range(segment, segment + 1))
    stage.now += 30_000
    await stage.take(nameOf(segment))
  }
  await stage.hasFetched(range(10, 11))
})

test('when the server is gone, nothing in the data directory is touched any more', async () => {
  await using stage = await Stage.create()
  stage.archive.add(1, 9)
  let go = () => {}
  const held = new Promise<void>(resolve => (go = resolve))
  stage.archive.before = async name => {
    if (name === nameOf(4)) await held
  }
  stage.start(nameOf(0), { filesAtOnce: 1 })
  await until('the fourth is being fetched', () => stage.archive.asked.includes(nameOf(4)))
  const before = await stage.names()
  stage.state = 'gone'
  assert.equal(await stage.end, 'server is gone')
  go()
  await setImmediate()
  assert.deepEqual(await stage.names(), before)
})

test('what an earlier fetcher has left is used if nothing has touched it since, and the rest goes', async () => {
  await using stage = await Stage.create()
  assert.ok(self)
  stage.archive.add(1, 20)
  const leave = async (segment: number, { source = 'mark', boot = self.boot } = {}) => {
    const name = nameOf(segment)
    await writeFile(stage.spool.path(name), stage.archive.content.get(name) ?? '')
    const identity = await stage.spool.fileIdentity(boot, name)
    await stage.spool.writeVerified(name, { identity, digest: 'x', source }, process.pid)
  }
  await leave(1)
  await leave(2)
  await leave(3, { source: 'another' })
  await leave(4, { boot: 'before' })
  await leave(5)
  await writeFile(stage.spool.path(nameOf(5)), 'touched')
  await writeFile(stage.spool.path(nameOf(6)), 'never verified')
  await writeFile(stage.spool.path(`${nameOf(7)}.part`), 'half')
  await writeFile(stage.spool.path(`${nameOf(8)}.verified`), 'of nothing')
  await leave(99)
  stage.start(nameOf(0))
  await stage.hasFetched(range(1, 8))
  assert.deepEqual(stage.archive.asked, range(3, 8))
  for (const name of range(1, 8)) {
    assert.deepEqual(await readFile(stage.spool.path(name)), stage.archive.content.get(name))
  }
  await rm(stage.spool.path(nameOf(1)))
})
