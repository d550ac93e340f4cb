// The repository on a disk that forgets, fails, fills up and goes away, killed and power-cut at every step, seeded.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { knownRepositoryPath } from '../src/repository/known-repositories.ts'
import type { Files } from '../src/system/files.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { type Fate, type MountOptions, SimulatedDisk, type Step } from '../src/system/simulated-files.ts'
import { synchronousCodec } from './simulation/repository-codec.ts'
import { repositoryStories } from './simulation/repository-every-step.ts'
import { equal } from './simulation/repository-judge.ts'
import { readingLies, repositoryLies } from './simulation/repository-lies.ts'
import { lieAboutRepository, strikeRepositoryStory } from './simulation/repository-proofs.ts'
import { repositoryStorm } from './simulation/repository-storm.ts'
import { runRepositoryStorms } from './simulation/repository-storms.ts'
import { inThread } from './support/in-thread.ts'
import { archivingServer, keyOf, type ServerOptions, startMachine } from './support/repository-stage.ts'

const storms = 200

const proofs = new URL('simulation/repository-proofs.ts', import.meta.url)

for (const { name } of repositoryStories) {
  test(`a server may be killed, or lose power, at every step of: ${name}`, async t => {
    t.diagnostic(`${await inThread(proofs, strikeRepositoryStory, name, 'blows')} runs`)
  })

  test(`every step may fail, in each of several ways, in: ${name}`, async t => {
    t.diagnostic(`${await inThread(proofs, strikeRepositoryStory, name, 'failures')} runs`)
  })
}

test('no promise is broken in any of hundreds of storms', async t => {
  const { failed, text } = await inThread(
    new URL('simulation/repository-storms.ts', import.meta.url),
    runRepositoryStorms,
    0,
    storms,
  )
  t.diagnostic(text)
  assert.equal(failed, 0, text)
})

test('a seed tells the same story every time', async () => {
  const told = async () => {
    const lines: string[] = []
    await repositoryStorm({ seed: 4, trace: line => lines.push(line) })
    return lines
  }
  const first = await told()
  assert.ok(first.length > 100)
  assert.deepEqual(await told(), first)
})

for (const lie of Object.keys(repositoryLies)) {
  test(`a repository would be found out of which it is true that ${lie}`, async () => {
    await assert.rejects(inThread(proofs, lieAboutRepository, lie, storms), { name: 'BrokenPromise' })
  })
}

// Reading

const name = '000000010000000000000001'
const content = new SeededRandom(1).bytes(20_000)

/** A repository with one file, and somebody who reads. */
async function stored() {
  const disk = new SimulatedDisk(new SeededRandom(1))
  for (const path of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(path)
  disk.place(`/data/pg_wal/${name}`, content)
  const start = (files: Files) =>
    archivingServer({ files, data: '/data', root: '/repository', codec: synchronousCodec })
  await start(disk.mount()).archive(name, { headerCheck: false })
  return { disk, start }
}

/** Lets every step of reading fail, in each of these ways, and returns what was said to be missing then. */
async function falselyMissing(lie: (files: Files) => Files): Promise<string[]> {
  const { disk, start } = await stored()
  const missing: string[] = []
  for (const code of ['EIO', 'EACCES', 'ESTALE', 'EMFILE', 'ENOTDIR']) {
    for (let failing = 1; ; failing++) {
      let steps = 0
      let broken = ''
      // From then on, because what is not there is looked for twice.
      const fate = ({ number, operation, path }: Step): Fate | undefined => {
        steps = number
        if (number === failing) broken = `${operation} ${path}`
        return broken === `${operation} ${path}` ? { kind: 'fails', code } : undefined
      }
      const read = await start(lie(disk.mount({ fate })))
        .fetch(name)
        .catch(() => 'failed' as const)
      if (read === undefined) missing.push(`step ${failing} failing with ${code}`)
      else if (read !== 'failed') assert.ok(equal(read, content))
      if (steps < failing) break
    }
  }
  return missing
}

test('whatever fails while a file is read, it is never said to be missing', async () => {
  assert.deepEqual(await falselyMissing(files => files), [])
  for (const lie of Object.values(readingLies)) assert.notDeepEqual(await falselyMissing(lie), [])
})

test('a file is not missing because the disk is, whatever is in the place of it, whenever it goes', async () => {
  let steps = 0
  for (let last = 1; steps >= last - 1; last++) {
    const { disk, start } = await stored()
    const hand = disk.mount()
    steps = 0
    const delay = async () => {
      if (++steps !== last) return
      await hand.rename('/repository', '/elsewhere')
      // As when it was written to without the disk once, by another program.
      for (const path of ['', '/7300000000000000001', '/7300000000000000001/wal']) {
        await hand.makeDirectory(`/repository${path}`, 0o700)
      }
    }
    const read = await start(disk.mount({ delay }))
      .fetch(name)
      .catch((thrown: { kind: string }) => thrown.kind)
    if (read !== 'unreachable') assert.ok(read instanceof Uint8Array && equal(read, content), `step ${last}`)
  }
  assert.ok(steps > 10)
})

test('a file is missing only where nothing failed while it was looked for', async () => {
  const { disk, start } = await stored()
  for (const absent of ['000000010000000000000002', '000000020000000000000001', '00000002.history']) {
    for (let failing = 1; ; failing++) {
      let steps = 0
      let isClosing = false
      const fate = ({ number, operation }: Step): Fate | undefined => {
        steps = number
        if (number !== failing) return undefined
        isClosing = operation === 'close'
        return { kind: 'fails', code: 'EIO' }
      }
      const read = start(disk.mount({ fate })).fetch(absent)
      if (steps < failing && (await read.catch(() => 'failed')) === undefined && steps < failing) break
      if (isClosing)
        assert.equal(await read, undefined) // nothing is lost when closing what was read fails
      else await assert.rejects(read, { name: 'RepositoryError' }, `step ${failing}`)
    }
  }
})

test('a link that leads nowhere hides a file, and does not make it missing', async () => {
  const { disk, start } = await stored()
  const cluster = disk.names('/repository').find(each => /^\d+$/.test(each)) ?? ''
  disk.placeSymbolicLink(`/repository/${cluster}/wal/00000009`, '/elsewhere/not-mounted')
  await assert.rejects(start(disk.mount()).fetch('000000090000000000000001'), {
    code: 'UNREACHABLE',
    message: `could not open file "/repository/${cluster}/wal/00000009/00000000/000000090000000000000001.pgarchivist": a symbolic link on the way leads nowhere`,
    hint: 'Is the disk mounted that it leads to?',
  })
})

// Failures on the way, in words, with nothing left open or behind

interface Fault {
  /** Which step it is that fails. */
  hits(step: Step): boolean
  code: string
  said: string
  hint: string
}

const temporary = `/repository/7300000000000000001/wal/00000001/00000000/.${name}.pgarchivist.`
const directory = '/repository/7300000000000000001/wal/00000001/00000000'
const object = `${directory}/${name}.pgarchivist`
const makeRoom = 'Make room in the repository; archiving goes on by itself then.'
const failedDisk = 'The disk of the repository has failed: the log of the kernel says more.'
const notWritable = 'Mount the file system of the repository so that it can be written.'
const notOwn = 'Let the user that PostgreSQL runs as own the directory of the repository.'
const stale = 'Is the disk of the repository mounted?'

const faults: Fault[] = [
  {
    hits: ({ operation, path }) => operation === 'write' && path.startsWith(temporary),
    code: 'ENOSPC',
    said: 'could not write to file "TEMPORARY": No space left on device',
    hint: makeRoom,
  },
  {
    hits: ({ operation, path }) => operation === 'write' && path.startsWith(temporary),
    code: 'EDQUOT',
    said: 'could not write to file "TEMPORARY": Disk quota exceeded',
    hint: makeRoom,
  },
  {
    hits: ({ operation, path }) => operation === 'sync' && path.startsWith(temporary),
    code: 'EIO',
    said: 'could not fsync file "TEMPORARY": Input/output error',
    hint: failedDisk,
  },
  {
    hits: ({ operation, path }) => operation === 'syncDirectory' && path === directory,
    code: 'EIO',
    said: `could not fsync file "${directory}": Input/output error`,
    hint: failedDisk,
  },
  {
    hits: ({ operation, path }) => operation === 'syncDirectory' && path === '/repository',
    code: 'EIO',
    said: 'could not fsync file "/repository": Input/output error',
    hint: failedDisk,
  },
  {
    hits: ({ operation, path }) => operation === 'makeDirectory' && path === directory,
    code: 'EROFS',
    said: `could not create directory "${directory}": Read-only file system`,
    hint: notWritable,
  },
  {
    hits: ({ operation, path }) => operation === 'open' && path.startsWith(temporary),
    code: 'EACCES',
    said: 'could not create file "TEMPORARY": Permission denied',
    hint: notOwn,
  },
  {
    hits: ({ operation }) => operation === 'link',
    code: 'ENOSPC',
    said: `could not link file "/repository/.pgarchivist-repository.json.WRITER.tmp" to "/repository/pgarchivist-repository.json": No space left on device`,
    hint: makeRoom,
  },
  {
    hits: ({ operation, path }) => operation === 'link' && path.startsWith(temporary),
    code: 'ENOSPC',
    said: `could not link file "TEMPORARY" to "${object}": No space left on device`,
    hint: makeRoom,
  },
  {
    hits: ({ operation, path }) => operation === 'stat' && path === object,
    code: 'ESTALE',
    said: `could not stat file "${object}": Stale file handle`,
    hint: stale,
  },
  {
    hits: ({ operation, path }) => operation === 'realPath' && path === directory,
    code: 'ELOOP',
    said: `could not resolve path "${directory}": Too many levels of symbolic links`,
    hint: 'Symbolic links are not followed in a repository: put in its place what it leads to.',
  },
  {
    hits: ({ operation, path }) => operation === 'close' && path.startsWith(temporary),
    code: 'EIO',
    said: 'Input/output error',
    hint: failedDisk,
  },
]

/** A server that counts what it holds open. */
function faulty(isBroken: () => boolean, fault: Pick<Fault, 'hits' | 'code'>) {
  const disk = new SimulatedDisk(new SeededRandom(1))
  for (const path of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(path)
  disk.place(`/data/pg_wal/${name}`, content)
  let openFiles = 0
  const mount: MountOptions = {
    fate: step => (isBroken() && fault.hits(step) ? { kind: 'fails', code: fault.code } : undefined),
    stepped: ({ operation }, code) => {
      if (operation === 'open' && code === undefined) openFiles++
      if (operation === 'close') openFiles--
    },
  }
  const server = archivingServer({
    files: disk.mount(mount),
    data: '/data',
    root: '/repository',
    codec: synchronousCodec,
  })
  return {
    disk,
    openFiles: () => openFiles,
    archive: () => server.archive(name, { headerCheck: false }),
    fetch: () => server.fetch(name),
  }
}

test('every failure is told in words of its own with a remedy, holds nothing open, and is over when it is over', async () => {
  for (const fault of faults) {
    let isBroken = true
    const it = faulty(() => isBroken, fault)
    for (let attempt = 1; attempt <= 2; attempt++) {
      await assert.rejects(it.archive(), (thrown: { code: string; message: string; hint: string }) => {
        const said = thrown.message
          .replace(/"\/repository\/\d[^"]*\/\.[^"]*\.tmp"/, '"TEMPORARY"')
          .replace(/\.[0-9a-f]{16}\.tmp/, '.WRITER.tmp')
        assert.deepEqual([thrown.code, said, thrown.hint], ['UNREACHABLE', fault.said, fault.hint])
        return true
      })
      assert.equal(it.openFiles(), 0, fault.said)
    }
    isBroken = false
    await it.archive()
    it.disk.powerCut()
    assert.ok(it.disk.content(object))
    assert.deepEqual(it.disk.names(directory), [`${name}.pgarchivist`])
  }
})

test('whichever step fails, nothing is held open, and the failure is one of the repository', async () => {
  for (const code of ['EIO', 'EMFILE', 'ENOENT', 'EEXIST']) {
    for (let failing = 1; ; failing++) {
      let steps = 0
      const it = faulty(() => true, {
        code,
        hits: ({ number }) => {
          steps = number
          return number === failing
        },
      })
      for (const deed of [it.archive, it.archive, it.fetch]) {
        await deed().catch((thrown: Error) => assert.equal(thrown.name, 'RepositoryError', String(thrown)))
        assert.equal(it.openFiles(), 0, `step ${failing} failing with ${code}`)
      }
      if (steps < failing) break
    }
  }
})

test('an object whose fsync failed is not believed to be on disk, and is written once more', async () => {
  for (const operation of ['sync', 'syncDirectory'] as const) {
    let failures = 1
    const it = faulty(() => failures > 0, {
      code: 'EIO',
      hits: step => {
        if (step.operation !== operation || !(step.path.startsWith(temporary) || step.path === directory))
          return false
        failures--
        return true
      },
    })
    // The first directory fsync of that path comes after the link.
    await assert.rejects(it.archive(), { code: 'UNREACHABLE' })
    const before = it.disk.content(object)
    assert.equal(before === undefined, operation === 'sync')
    assert.equal(await it.archive(), operation === 'sync' ? 'archived' : 'already archived')
    assert.notEqual(it.disk.content(object), before)
    it.disk.powerCut()
    assert.ok(it.disk.content(object))
  }
})

test('an object that somebody else has written and not synced is made durable before it counts', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const { disk: source } = await stored()
    const bytes = source.content(object)
    assert.ok(bytes)
    const it = faulty(() => false, { hits: () => false, code: '' })
    await it.archive()
    it.disk.remove(object)
    it.disk.scribble(object, bytes)
    assert.equal(await it.archive(), 'already archived')
    it.disk.powerCut()
    assert.ok(equal(it.disk.content(object), bytes), `seed ${seed}`)
  }
})

/** A repository with an object that somebody has copied to its place and synced nothing of; and processes of one server. */
async function copiedIn(seed: number) {
  const { disk: source } = await stored()
  const bytes = source.content(object) ?? new Uint8Array()
  const disk = new SimulatedDisk(new SeededRandom(seed))
  for (const path of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(path)
  startMachine(disk)
  const start = (fate: MountOptions['fate'] = () => undefined, more: Partial<ServerOptions> = {}) =>
    archivingServer({
      files: disk.mount({ fate }),
      data: '/data',
      root: '/repository',
      codec: synchronousCodec,
      ...more,
    })
  // So that its directories and the marker are there.
  const next = '000000010000000000000002'
  for (const each of [name, next]) disk.place(`/data/pg_wal/${each}`, content)
  await start().archive(next, { headerCheck: false })
  disk.scribble(object, bytes)
  return {
    disk,
    bytes,
    archive: (...how: Parameters<typeof start>) => start(...how).archive(name, { headerCheck: false }),
  }
}

const fsyncs = [
  ['sync', object],
  ['syncDirectory', directory],
] as const

test('an object that is there and whose fsync fails is written once more, in the same attempt', async () => {
  for (const [operation, path] of fsyncs) {
    for (let seed = 1; seed <= 30; seed++) {
      const { disk, bytes, archive } = await copiedIn(seed)
      let failures = 1
      const outcome = await archive(step =>
        step.operation === operation && step.path === path && failures-- > 0
          ? { kind: 'fails', code: 'EIO' }
          : undefined,
      )
      assert.equal(outcome, 'already archived')
      assert.ok(failures <= 0)
      disk.powerCut()
      assert.ok(equal(disk.content(object), bytes), `${operation}, seed ${seed}`)
    }
  }
})

test('what an fsync could not write is never acknowledged, by another process neither', async () => {
  // Linux tells of it once: the next fsync succeeds, and has written nothing. Each attempt of a command is a new process.
  for (const [operation, path] of fsyncs) {
    for (let seed = 1; seed <= 30; seed++) {
      const { disk, bytes, archive } = await copiedIn(seed)
      const failing = archive(step => {
        if (step.operation === operation && step.path === path) return { kind: 'fails', code: 'EIO' }
        // Nor can it be written anew.
        return step.operation === 'sync' && step.path.startsWith('/repository')
          ? { kind: 'fails', code: 'EIO' }
          : undefined
      })
      await assert.rejects(failing, { code: 'UNREACHABLE' })
      const before = disk.content(object)
      const outcome = await archive().catch((thrown: { code: string }) => thrown.code)
      // Where the kernel has dropped what it could not write, it is read as damaged, and that is told.
      const isDropped = !equal(before, bytes)
      assert.equal(outcome, isDropped ? 'CORRUPT' : 'already archived')
      assert.equal(disk.content(object) === before, isDropped)
      disk.powerCut()
      if (!isDropped) assert.ok(equal(disk.content(object), bytes), `${operation}, seed ${seed}`)
    }
  }
})

test('after a power cut an fsync that failed before it is forgotten, and so is the note of it', async () => {
  const { disk, archive } = await copiedIn(1)
  await archive(step =>
    step.operation === 'syncDirectory' && step.path === directory
      ? { kind: 'fails', code: 'EIO' }
      : undefined,
  ).catch(() => undefined)
  assert.ok(disk.names('/data/pgarchivist').includes('failed-fsync.boot-0'))
  const before = disk.content(object)
  await archive()
  assert.notEqual(disk.content(object), before)
  startMachine(disk, 1)
  const written = disk.content(object)
  await archive()
  assert.equal(disk.content(object), written)
  // The next note takes the place of this one.
  disk.remove(object)
  disk.scribble(object, written ?? '')
  await archive(step =>
    step.operation === 'sync' && step.path === object ? { kind: 'fails', code: 'EIO' } : undefined,
  )
  const notes = disk.names('/data/pgarchivist').filter(each => each.startsWith('failed'))
  assert.deepEqual(notes, ['failed-fsync.boot-1'])
})

test('a process believes in what it has written itself, whatever has failed in another one', async () => {
  const { disk, archive } = await copiedIn(1)
  const next = '000000010000000000000003'
  disk.place(`/data/pg_wal/${next}`, content)
  const own = archivingServer({
    files: disk.mount(),
    data: '/data',
    root: '/repository',
    codec: synchronousCodec,
  })
  await own.archive(next, { headerCheck: false })
  const written = disk.content(`/repository/${keyOf(next)}`)
  await archive(step =>
    step.operation === 'syncDirectory' && step.path === directory
      ? { kind: 'fails', code: 'EIO' }
      : undefined,
  ).catch(() => undefined)
  const before = disk.content(object)
  for (const each of [name, next]) await own.archive(each, { headerCheck: false })
  assert.equal(disk.content(`/repository/${keyOf(next)}`), written)
  assert.notEqual(disk.content(object), before)
})

test('where the note cannot be written, or whether there is one cannot be told, nothing is lost either', async () => {
  const isNote = ({ path }: Step) => path.startsWith('/data/pgarchivist/failed')
  const { disk, bytes, archive } = await copiedIn(1)
  let failures = 1
  await archive(step => {
    if (step.operation === 'sync' && step.path === object && failures-- > 0)
      return { kind: 'fails', code: 'EIO' }
    return isNote(step) ? { kind: 'fails', code: 'EROFS' } : undefined
  })
  assert.ok(equal(disk.surviving(object), bytes))
  const before = disk.content(object)
  await archive(({ operation, path }) =>
    operation === 'list' && path === '/data/pgarchivist' ? { kind: 'fails', code: 'EIO' } : undefined,
  )
  assert.notEqual(disk.content(object), before)
})

test('a marker whose maker died before it was certain to last is made durable before it is remembered', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const disk = new SimulatedDisk(new SeededRandom(seed))
    for (const path of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(path)
    disk.place(`/data/pg_wal/${name}`, content)
    disk.place(
      '/repository/pgarchivist-repository.json',
      '{"format":1,"id":"00000000-0000-4000-8000-000000000009"}',
    )
    const marker = disk.content('/repository/pgarchivist-repository.json')
    disk.remove('/repository/pgarchivist-repository.json')
    disk.scribble('/repository/pgarchivist-repository.json', marker ?? '')
    const { promise: over, resolve } = Promise.withResolvers<string>()
    const server = archivingServer({
      files: disk.mount({
        // It has remembered it by now, and makes the first directory.
        fate: ({ operation, path }) =>
          operation === 'makeDirectory' && path.startsWith('/repository')
            ? { kind: 'stops', took: false }
            : undefined,
        stopped: () => resolve('stopped'),
      }),
      data: '/data',
      root: '/repository',
      codec: synchronousCodec,
    })
    assert.equal(await Promise.race([over, server.archive(name, { headerCheck: false })]), 'stopped')
    assert.ok(disk.content(knownRepositoryPath('/data', 'file:///repository')))
    disk.powerCut()
    const next = archivingServer({
      files: disk.mount(),
      data: '/data',
      root: '/repository',
      codec: synchronousCodec,
    })
    assert.equal(await next.archive(name, { headerCheck: false }), 'archived', `seed ${seed}`)
  }
})

test('nothing gets its name where a disk was, whichever step it is unmounted at', async () => {
  // A process that has used the directories before, and one that has to make them.
  for (const isNew of [false, true]) {
    let steps = 0
    for (let last = 1; steps >= last - 1; last++) {
      const disk = new SimulatedDisk(new SeededRandom(last))
      for (const path of ['/data', '/data/pg_wal', '/mnt', '/mnt/repository']) disk.makeDirectory(path)
      const finish = (each: string) => disk.place(`/data/pg_wal/${each}`, content)
      finish(name)
      const hand = disk.mount()
      let isDue = false
      steps = 0
      const delay = async () => {
        if (!isDue || ++steps !== last) return
        await hand.rename('/mnt/repository', '/mnt/elsewhere')
        await hand.makeDirectory('/mnt/repository', 0o700)
      }
      const start = () =>
        archivingServer({
          files: disk.mount({ delay }),
          data: '/data',
          root: '/mnt/repository',
          codec: synchronousCodec,
        })
      const server = start()
      await server.archive(name, { headerCheck: false })
      isDue = true
      const next = '000000010000000100000002'
      finish(next)
      const outcome = await (isNew ? start() : server)
        .archive(next, { headerCheck: false })
        .catch((thrown: unknown) => String(thrown))
      if (steps < last) {
        assert.equal(outcome, 'archived')
        break
      }
      // There may be directories, and no files.
      const files = (at: string): string[] =>
        disk
          .names(at)
          .flatMap(each => (disk.content(`${at}/${each}`) === undefined ? files(`${at}/${each}`) : [each]))
      assert.deepEqual(files('/mnt/repository'), [], `step ${last}`)
      if (outcome === 'archived') assert.ok(disk.content(`/mnt/elsewhere/${keyOf(next)}`), `step ${last}`)
    }
  }
})

test('a repository that was about to be begun is not, when it has been begun and unmounted meanwhile', async () => {
  const disk = new SimulatedDisk(new SeededRandom(1))
  for (const path of ['/mnt', '/mnt/repository', '/a', '/a/pg_wal', '/b', '/b/pg_wal'])
    disk.makeDirectory(path)
  const next = '000000010000000000000002'
  for (const path of [`/a/pg_wal/${name}`, `/a/pg_wal/${next}`, `/b/pg_wal/${name}`])
    disk.place(path, content)
  const { promise: hasCome, resolve: come } = Promise.withResolvers<void>()
  const { promise: mayGo, resolve: go } = Promise.withResolvers<void>()
  const start = (data: string, delay: (step: Step) => Promise<void>) =>
    archivingServer({ files: disk.mount({ delay }), data, root: '/mnt/repository', codec: synchronousCodec })
  const slow = start('/a', async ({ operation, path }) => {
    if (operation !== 'open' || !/\/\.pgarchivist-repository\..*\.tmp$/.test(path)) return
    come()
    await mayGo
  })
  const beginning = slow.archive(name, { headerCheck: false })
  await hasCome
  await start('/b', async () => {}).archive(name, { headerCheck: false })
  await slow.archive(next, { headerCheck: false })
  const hand = disk.mount()
  await hand.rename('/mnt/repository', '/mnt/elsewhere')
  await hand.makeDirectory('/mnt/repository', 0o700)
  go()
  await assert.rejects(beginning, { code: 'NO_MARKER' })
  assert.deepEqual([disk.names('/mnt/repository'), slow.created], [[], []])
})

test('the unfinished write of another server is removed when it is a day old, and not before', async () => {
  for (const [age, isLeft] of [
    [23, true],
    [25, false],
  ] as const) {
    let now = Date.UTC(2026, 0, 1)
    const disk = new SimulatedDisk(new SeededRandom(1), () => now)
    for (const path of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(path)
    const start = () =>
      archivingServer({
        files: disk.mount(),
        data: '/data',
        root: '/repository',
        now: () => now,
        codec: synchronousCodec,
      })
    const finish = (each: string) => disk.place(`/data/pg_wal/${each}`, content)
    finish(name)
    await start().archive(name, { headerCheck: false })
    const left = `${directory}/.000000010000000000000009.pgarchivist.0123456789abcdef.tmp`
    const notOurs = `${directory}/.notes.tmp`
    for (const path of [left, notOurs]) disk.place(path, 'half')
    now += age * 3_600_000
    const next = '000000010000000000000002'
    finish(next)
    await start().archive(next, { headerCheck: false })
    assert.equal(disk.content(left) !== undefined, isLeft)
    assert.ok(disk.content(notOurs))
  }
})
