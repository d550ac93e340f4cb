// basic_archive against the recommendations of PostgreSQL's chapter on archiving, each by its number, then against
// the faults of contrib's module. On the real file system; where a fault or a power cut is needed, on a simulated one.

import assert from 'node:assert/strict'
import { chmod, link, mkdir, readdir, readFile, realpath, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Archiver } from '../src/archiver/archiver.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import { GucRegistry } from '../src/host/guc-registry.ts'
import { parseCommandLineSetting, type Settings, settingsOf } from '../src/host/settings.ts'
import { startModule } from '../src/host/start-module.ts'
import { basicArchive } from '../src/modules/basic-archive.ts'
import type { Files } from '../src/system/files.ts'
import { realFiles } from '../src/system/real-files.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { type Fate, type MountOptions, SimulatedDisk, type Step } from '../src/system/simulated-files.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const file = '000000010000000000000001'
const kinds = [file, `${file}.partial`, `${file}.00000028.backup`, '00000002.history']

function settings(...texts: string[]): Settings {
  return settingsOf(texts.map(text => parseCommandLineSetting(text)))
}

const archiveTo = (directory: string) => settings(`basic_archive.archive_directory=${directory}`)

interface ServerOptions {
  files: Files
  dataDirectory: string
  /** Settings at start. */
  with: Settings
  hostName?: string
}

/** The module in a server of its own. */
async function startServer({ files, dataDirectory, with: atStart, hostName = 'host' }: ServerOptions) {
  const told: string[] = []
  const log = ({ level, errmsg, errdetail }: LogMessage) => {
    if (level === 'DEBUG3' && errmsg.startsWith('archiving ')) return // told before every attempt
    told.push(`${level}: ${errmsg}`)
    if (errdetail !== undefined) told.push(`DETAIL: ${errdetail}`)
  }
  const gucs = new GucRegistry({ log })
  gucs.load(atStart)
  const host = await startModule({
    init: basicArchive({ files, hostName }),
    facts: {
      data_directory: dataDirectory,
      server_version_num: undefined,
      system_identifier: undefined,
      wal_segment_size: undefined,
      wal_page_magic: undefined,
    },
    gucs,
    registerWorker: () => {},
    log,
  })
  const { signal } = new AbortController()
  return {
    host,
    gucs,
    told,
    log,
    archive: (name = file) => host.archiveFile(name, `${dataDirectory}/pg_wal/${name}`, signal),
  }
}

/** A data directory and an archive beside it in a real directory. */
async function real({ mode = 0o700 } = {}) {
  const directory = await temporaryDirectory()
  const root = await realpath(directory.path)
  const [data, archive] = [join(root, 'data'), join(root, 'archive')]
  await mkdir(join(data, 'pg_wal'), { recursive: true })
  await chmod(data, mode)
  await mkdir(archive)
  return {
    ...(await startServer({ files: realFiles, dataDirectory: data, with: archiveTo(archive) })),
    data,
    archiveDirectory: archive,
    put: (content: string | Uint8Array, name = file) => writeFile(join(data, 'pg_wal', name), content),
    stored: (name = file) => readFile(join(archive, name), 'utf8'),
    names: async () => (await readdir(archive)).toSorted(),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

/** The same on a disk in memory. */
async function simulated({ seed = 1, ...mount }: MountOptions & { seed?: number } = {}) {
  const disk = new SimulatedDisk(new SeededRandom(seed))
  for (const path of ['/data', '/data/pg_wal', '/archive']) disk.makeDirectory(path)
  const steps: Step[] = []
  const files = disk.mount({ ...mount, stepped: step => void steps.push(step) })
  const start = (on: Files = files) =>
    startServer({ files: on, dataDirectory: '/data', with: archiveTo('/archive') })
  return {
    ...(await start()),
    disk,
    steps,
    /** After a power cut. */
    restart: () => start(disk.mount()),
    put: (content: string, name = file) => disk.place(`/data/pg_wal/${name}`, content),
    stored: (name = file) => text(disk.content(`/archive/${name}`)),
    names: () => disk.names('/archive').toSorted(),
  }
}

const text = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes)

/** Comes after everything that a simulated disk without delays can do. */
function tick(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}

/** More than one page, so that a power cut can tear it, and with a part of a page at the end. */
const content = 'WAL '.repeat(5_000)

// The recommendations

test('1. success is reported only for a file that is safely stored, whichever step fails', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    for (let failing = 1; ; failing++) {
      let failed = false
      const it = await simulated({
        seed,
        fate: ({ number }) => {
          if (number !== failing) return undefined
          failed = true
          return { kind: 'fails', code: 'EIO', took: seed % 2 === 0 }
        },
      })
      it.put(content)
      const answer = await it.archive()
      it.disk.powerCut()
      if (answer) assert.equal(it.stored(), content, `step ${failing}, seed ${seed}`)
      if (!failed) break
    }
  }
})

test('2. a file that is archived is not overwritten', async () => {
  await using it = await real()
  await writeFile(join(it.archiveDirectory, file), 'of another server')
  await it.put('ours')
  assert.equal(await it.archive(), false)
  assert.equal(await it.stored(), 'of another server')
  assert.deepEqual(it.told, [`ERROR: archive file "${it.archiveDirectory}/${file}" already exists`])
  assert.deepEqual(await it.names(), [file])
})

test('3. a file that is there with the same content is success, once it is certain to last', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const it = await simulated({ seed })
    it.put(content)
    it.disk.scribble(`/archive/${file}`, content) // its writer died before it synced anything
    assert.equal(await it.archive(), true)
    assert.deepEqual(it.told, [
      `DEBUG3: archive file "/archive/${file}" already exists with identical contents`,
    ])
    it.disk.powerCut()
    assert.equal(it.stored(), content, `seed ${seed}`)
  }
})

test('4. a file that is there with other content is a failure, whatever differs and however often', async () => {
  await using it = await real()
  const big = 'x'.repeat(3 * 1024 * 1024)
  const pairs: Array<[string, string]> = [
    ['ours', 'OURS'],
    ['ours', 'our'],
    ['ours', 'ours and more'],
    ['ours', ''],
    ['', 'theirs'],
    [big, `${big}y`],
    [big, `${big.slice(0, -1)}y`],
    [big, big.slice(0, 1024 * 1024)],
  ]
  for (const name of kinds) {
    for (const [ours, theirs] of pairs) {
      await it.put(ours, name)
      await writeFile(join(it.archiveDirectory, name), theirs)
      for (let attempt = 1; attempt <= 2; attempt++) assert.equal(await it.archive(name), false)
      assert.equal((await it.stored(name)) === theirs, true)
    }
  }
  assert.deepEqual(await it.names(), kinds.toSorted())
})

test('5. the name stands for the whole file or for nothing, at every moment and after every end', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    for (let last = 1; ; last++) {
      let stopped = false
      const it = await simulated({
        seed,
        fate: ({ number }) => (number === last ? { kind: 'stops', took: seed % 2 === 0 } : undefined),
        stopped: () => {
          stopped = true
        },
      })
      it.put(content)
      await Promise.race([it.archive(), tick()])
      const seen = it.stored()
      assert.ok(seen === undefined || seen === content, `step ${last}, seed ${seed}: a reader sees a part`)
      it.disk.powerCut()
      const left = it.stored()
      assert.ok(left === undefined || left === content, `step ${last}, seed ${seed}: a part is left`)
      const next = await it.restart()
      assert.equal(await next.archive(), true)
      assert.equal(it.stored(), content)
      assert.deepEqual(it.names(), [file])
      if (!stopped) break
    }
  }
})

test('6. the name is preserved exactly', async () => {
  await using it = await real()
  for (const name of kinds) {
    await it.put(`content of ${name}`, name)
    assert.equal(await it.archive(name), true)
  }
  assert.deepEqual(await it.names(), kinds.toSorted())
  for (const name of kinds) assert.equal(await it.stored(name), `content of ${name}`)
})

test('7. names of up to 64 letters, digits and dots are accepted, whatever they mean', async () => {
  await using it = await real()
  const names = ['A', '.hidden', 'a.b.c', 'zZ9'.repeat(21), 'x'.repeat(64)]
  for (const name of names) {
    await it.put('content', name)
    assert.equal(await it.archive(name), true, name)
  }
  assert.deepEqual(await it.names(), names.toSorted())
})

test('8. nobody but the owner may read the archive, and the group where it may read the cluster', async () => {
  const umask = process.umask(0)
  try {
    for (const [mode, expected] of [
      [0o700, 0o600],
      [0o750, 0o640],
      [0o755, 0o640],
      [0o740, 0o600],
    ] as const) {
      await using it = await real({ mode })
      await it.put('secret')
      await it.archive()
      assert.equal((await stat(join(it.archiveDirectory, file))).mode & 0o777, expected)
    }
  } finally {
    process.umask(umask)
  }
})

test('8. the temporary file is no more readable than the final one', async () => {
  const modes: number[] = []
  const it = await simulated({
    umask: 0,
    fate: ({ operation, path }) => {
      if (operation === 'write') modes.push(it.disk.find(path, true)?.mode ?? 0)
      return undefined
    },
  })
  it.put(content)
  await it.archive()
  assert.deepEqual(modes, [0o600])
})

test('9. what is wrong is told with the path and the reason, and archiving goes on when it is over', async () => {
  const faults: Array<[(step: Step) => boolean, string, string]> = [
    [
      ({ operation }) => operation === 'write',
      'ENOSPC',
      'could not write to file "TEMPORARY": No space left on device',
    ],
    [
      ({ operation }) => operation === 'write',
      'EDQUOT',
      'could not write to file "TEMPORARY": Disk quota exceeded',
    ],
    [({ operation }) => operation === 'sync', 'EIO', 'could not fsync file "TEMPORARY": Input/output error'],
    [
      ({ operation }) => operation === 'syncDirectory',
      'EIO',
      'could not fsync file "/archive": Input/output error',
    ],
    [
      ({ operation, path }) => operation === 'open' && path.startsWith('/archive/'),
      'EROFS',
      'could not create file "TEMPORARY": Read-only file system',
    ],
    [
      ({ operation, path }) => operation === 'open' && path.startsWith('/data/'),
      'EACCES',
      `could not open file "/data/pg_wal/${file}": Permission denied`,
    ],
    [
      ({ operation }) => operation === 'read',
      'EIO',
      `could not read file "/data/pg_wal/${file}": Input/output error`,
    ],
    [
      ({ operation, path }) => operation === 'stat' && path.startsWith('/archive/'),
      'ESTALE',
      `could not stat file "/archive/${file}": Stale file handle`,
    ],
    [
      ({ operation }) => operation === 'link',
      'ENOSPC',
      `could not link file "TEMPORARY" to "/archive/${file}": No space left on device`,
    ],
  ]
  for (const [hits, code, message] of faults) {
    let isBroken = true
    const it = await simulated({
      fate: step => (isBroken && hits(step) ? { kind: 'fails', code } : undefined),
    })
    it.put(content)
    assert.equal(await it.archive(), false)
    const shown = it.told.map(line => line.replace(/\/archive\/archtemp\.[^"]*/, 'TEMPORARY'))
    assert.deepEqual(shown, [`ERROR: ${message}`])
    isBroken = false
    assert.equal(await it.archive(), true, message)
    it.disk.powerCut()
    assert.equal(it.stored(), content)
    assert.deepEqual(it.names(), [file])
  }
})

test('9. an archive directory that is not there is told, and used as soon as it appears', async () => {
  await using it = await real()
  const later = join(it.data, 'later')
  it.gucs.reload(archiveTo(later))
  await it.put('content')
  for (let attempt = 1; attempt <= 2; attempt++) assert.equal(await it.archive(), false)
  assert.match(
    it.told.join('\n'),
    /^ERROR: could not create file ".*\/later\/archtemp\.[^"]*": No such file or directory\nERROR: could not create file "[^"]*": No such file or directory$/,
  )
  await mkdir(later)
  assert.equal(await it.archive(), true)
  assert.deepEqual(await readdir(later), [file])
})

test('10. a backlog is archived without a pause, and with a scan for 64 files at the most', async () => {
  const clock = new SimulatedClock()
  const disk = new SimulatedDisk(new SeededRandom(1))
  for (const path of ['/data', '/data/pg_wal', '/data/pg_wal/archive_status', '/archive']) {
    disk.makeDirectory(path)
  }
  const names = Array.from(
    { length: 1_000 },
    (_, number) => `0000000100000000${String(number).padStart(8, '0')}`,
  )
  for (const name of names) {
    disk.place(`/data/pg_wal/${name}`, name)
    disk.place(`/data/pg_wal/archive_status/${name}.ready`, '')
  }
  let scans = 0
  const files = disk.mount({
    stepped: ({ operation, path }) => {
      if (operation === 'list' && path.endsWith('archive_status')) scans++
    },
  })
  const { host, log } = await startServer({ files, dataDirectory: '/data', with: archiveTo('/archive') })
  const archiver = new Archiver({
    files,
    clock,
    log,
    dataDirectory: '/data',
    settings: { archive_library: 'basic_archive', archive_command: '', reload: () => {} },
    startModule: async () => host,
    events: { archiving: () => {}, archived: () => {}, failed: () => {}, idle: () => {} },
  })
  archiver.stop()
  assert.equal(await clock.run(archiver.run()), 0)
  assert.equal(clock.monotonic(), 0)
  assert.deepEqual(disk.names('/archive').toSorted(), names)
  assert.ok(scans <= Math.ceil(names.length / 64) + 1, `${scans} scans`)
})

test('11. a file is kept in its full length, however little of it was used', async () => {
  await using it = await real()
  const segment = Buffer.alloc(16 * 1024 * 1024)
  segment.write('a record and then nothing')
  await it.put(segment)
  assert.equal(await it.archive(), true)
  const copy = await readFile(join(it.archiveDirectory, file))
  assert.equal(copy.equals(segment), true)
})

test('12. nothing but WAL gets into the archive: configuration files have to be saved otherwise', async () => {
  await using it = await real()
  await writeFile(join(it.data, 'postgresql.conf'), '')
  await it.put('content')
  await it.archive()
  assert.deepEqual(await it.names(), [file])
})

test('13. an empty archive_directory stops archiving for a while, and WAL is kept', async () => {
  await using it = await real()
  it.gucs.reload(archiveTo(''))
  assert.deepEqual(await it.host.checkConfigured(), {
    configured: false,
    errdetail: 'basic_archive.archive_directory is not set.',
  })
  it.gucs.reload(archiveTo(it.archiveDirectory))
  assert.deepEqual(await it.host.checkConfigured(), { configured: true })
})

test('14. of two servers that archive to one directory at once, each is told the truth', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const clock = new SimulatedClock()
    const random = new SeededRandom(seed)
    const disk = new SimulatedDisk(random.fork())
    const isSame = seed % 2 === 0
    const [ours, theirs] = [content, isSame ? content : content.replace('WAL', 'wal')]
    for (const [data, bytes] of [
      ['/ours', ours],
      ['/theirs', theirs],
    ] as const) {
      disk.makeDirectory(data)
      disk.makeDirectory(`${data}/pg_wal`)
      disk.place(`${data}/pg_wal/${file}`, bytes)
    }
    disk.makeDirectory('/archive')
    const linkless = seed % 3 === 0
    const mount = () =>
      disk.mount({
        delay: () => clock.sleep(random.integer(0, 3)),
        fate: ({ operation }): Fate | undefined =>
          linkless && operation === 'link' ? { kind: 'fails', code: 'ENOTSUP' } : undefined,
      })
    const start = (dataDirectory: string) =>
      startServer({ files: mount(), dataDirectory, with: archiveTo('/archive') })
    const [first, second] = [await start('/ours'), await start('/theirs')]
    const answers = await clock.run(Promise.all([first.archive(), second.archive()]))
    const stored = text(disk.surviving(`/archive/${file}`))
    const label = `seed ${seed}: ${answers.join()}`
    if (answers[0]) assert.equal(stored, ours, label)
    if (answers[1]) assert.equal(stored, theirs, label)
    // Where there are no hard links, each may have seen the other's lock and left it to its next attempt.
    assert.ok(linkless || answers[0] || answers[1], label)
    const again = await clock.run(first.archive().then(async answer => [answer, await second.archive()]))
    const now = text(disk.surviving(`/archive/${file}`))
    assert.deepEqual(again, [now === ours, now === theirs], label)
    assert.ok(stored === undefined || now === stored, label)
    assert.deepEqual(disk.names('/archive'), [file], label)
  }
})

test('15. what is archived is kept: nothing is ever removed or replaced but temporary files and locks of our own', async () => {
  const it = await simulated()
  for (const name of kinds) {
    it.put(name, name)
    await it.archive(name)
    await it.archive(name)
  }
  it.put('other', '00000002.history')
  assert.equal(await it.archive('00000002.history'), false)
  assert.deepEqual(it.names(), kinds.toSorted())
  for (const { operation, path } of it.steps) {
    if (operation === 'unlink') assert.match(path, /^\/archive\/([0-9A-F]+[.a-z0-9A-F]*\.lock\.)?archtemp\./)
    assert.notEqual(operation, 'rename')
  }
})

test('the WAL file itself is not taken for its copy: a hard link, or an archive that is pg_wal', async () => {
  await using server = await real()
  await server.put('content')
  await link(join(server.data, 'pg_wal', file), join(server.archiveDirectory, file))
  assert.equal(await server.archive(), false)
  assert.deepEqual(server.told, [
    `ERROR: archive file "${join(server.archiveDirectory, file)}" is the write-ahead log file itself, not a copy`,
  ])
})

test('16. no fault of the archive ends the archiver: each is one failed attempt', async () => {
  for (let failing = 1; ; failing++) {
    for (const code of ['EIO', 'ENOSPC', 'EACCES', 'EMFILE', 'ESTALE', 'ENOENT']) {
      const it = await simulated({
        fate: ({ number }) => (number === failing ? { kind: 'fails', code } : undefined),
      })
      it.put(content)
      assert.equal(typeof (await it.archive()), 'boolean') // it rejects only to end the process
      assert.ok(it.told.every(line => /^(ERROR|DEBUG\d): /.test(line)))
      if (it.steps.length < failing) return
    }
  }
})

// What contrib's module does and this one must not

test('a copy that failed leaves no temporary file behind', async () => {
  for (const operation of ['write', 'sync', 'fstat', 'link'] as const) {
    const it = await simulated({
      fate: step =>
        step.operation === operation ? { kind: 'fails', code: 'ENOSPC', written: 100 } : undefined,
    })
    it.put(content)
    for (let attempt = 1; attempt <= 3; attempt++) assert.equal(await it.archive(), false)
    assert.deepEqual(it.names(), [], operation)
  }
})

test('the temporary file of an attempt that was killed is removed by the next one', async () => {
  const it = await simulated({
    fate: ({ operation }) => (operation === 'sync' ? { kind: 'stops', took: false } : undefined),
  })
  it.put(content)
  await Promise.race([it.archive(), tick()])
  assert.match(it.names().join(' '), /^archtemp\.000000010000000000000001\.[0-9a-f]{16}$/)
  const next = await it.restart()
  assert.equal(await next.archive(), true)
  assert.deepEqual(it.names(), [file])
})

test('it is removed also where another server has archived the file meanwhile', async () => {
  const it = await simulated({
    fate: ({ operation }) => (operation === 'sync' ? { kind: 'stops', took: false } : undefined),
  })
  it.put(content)
  await Promise.race([it.archive(), tick()])
  it.disk.place(`/archive/${file}`, content)
  const next = await it.restart()
  assert.equal(await next.archive(), true)
  assert.deepEqual(it.names(), [file])
})

test('temporary files of other servers are left alone', async () => {
  await using it = await real()
  const others: string[] = []
  for (const [hostName, dataDirectory] of [
    ['other', it.data],
    ['host', `${it.data}/other`],
  ] as const) {
    const names: string[] = []
    const spying: Files = {
      ...realFiles,
      open: (path, access, mode) => {
        if (access === 'create') names.push(path)
        return realFiles.open(path, access, mode)
      },
    }
    await mkdir(join(dataDirectory, 'pg_wal'), { recursive: true })
    await writeFile(join(dataDirectory, 'pg_wal', file), 'content')
    const elsewhere = join(it.data, `archive-of-${hostName}`)
    await mkdir(elsewhere)
    const server = await startServer({ files: spying, dataDirectory, with: archiveTo(elsewhere), hostName })
    assert.equal(await server.archive(), true)
    others.push(...names.map(name => name.slice(elsewhere.length + 1)))
  }
  for (const name of others) await writeFile(join(it.archiveDirectory, name), 'under way')
  await it.put('content')
  assert.equal(await it.archive(), true)
  assert.equal(others.length, 2)
  assert.deepEqual(await it.names(), [file, ...others].toSorted())
})

test('an identical copy that may only be read is success', async () => {
  const it = await simulated({ uid: 1_000 })
  for (const path of ['/data', '/data/pg_wal', '/archive']) it.disk.setOwner(path, 1_000)
  it.disk.place(`/data/pg_wal/${file}`, content, 0o644)
  it.disk.place(`/archive/${file}`, content, 0o444)
  assert.equal(await it.archive(), true)
  assert.deepEqual(it.told, [
    `DEBUG3: archive file "/archive/${file}" already exists with identical contents`,
  ])
})

test('a copy that may not be read at all is a failure that says so', async () => {
  const it = await simulated({ uid: 1_000 })
  for (const path of ['/data', '/data/pg_wal', '/archive']) it.disk.setOwner(path, 1_000)
  it.disk.place(`/data/pg_wal/${file}`, content, 0o644)
  it.disk.place(`/archive/${file}`, content, 0o600)
  assert.equal(await it.archive(), false)
  assert.deepEqual(it.told, [`ERROR: could not open file "/archive/${file}": Permission denied`])
})

test('a file that another server makes between the look and the naming is not replaced', async () => {
  for (const theirs of ['theirs', content]) {
    const it = await simulated({
      fate: ({ operation }) => {
        if (operation === 'link') it.disk.place(`/archive/${file}`, theirs)
        return undefined
      },
    })
    it.put(content)
    assert.equal(await it.archive(), theirs === content)
    assert.equal(it.stored(), theirs)
    assert.deepEqual(it.names(), [file])
  }
})

// After a failed fsync nothing of that file is trusted: the system may have dropped what it could not write

test('an existing copy whose fsync failed is written anew before it counts', async () => {
  let written = 0
  for (let seed = 1; seed <= 40; seed++) {
    let failures = 1
    const it = await simulated({
      seed,
      fate: ({ operation, path }) =>
        operation === 'sync' && path === `/archive/${file}` && failures-- > 0
          ? { kind: 'fails', code: 'EIO' }
          : undefined,
    })
    it.put(content)
    it.disk.scribble(`/archive/${file}`, content)
    assert.equal(await it.archive(), false)
    assert.deepEqual(it.told.slice(1), [`ERROR: could not fsync file "/archive/${file}": Input/output error`])
    if (!(await it.archive())) continue // what everyone reads there is damaged: other content, and left alone
    written++
    it.disk.powerCut()
    assert.equal(it.stored(), content, `seed ${seed}`)
    assert.deepEqual(it.names(), [file])
  }
  assert.ok(written > 0)
})

test('a copy whose name may not have reached the disk is written anew before it counts', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    let failures = 1
    const it = await simulated({
      seed,
      fate: ({ operation }) =>
        operation === 'syncDirectory' && failures-- > 0 ? { kind: 'fails', code: 'EIO' } : undefined,
    })
    it.put(content)
    assert.equal(await it.archive(), false)
    assert.deepEqual(it.told, ['ERROR: could not fsync file "/archive": Input/output error'])
    const before = it.steps.length
    assert.equal(await it.archive(), true)
    assert.ok(it.steps.slice(before).some(({ operation }) => operation === 'write'))
    it.disk.powerCut()
    assert.equal(it.stored(), content)
    assert.deepEqual(it.names(), [file])
  }
})

test('once it is stored it is trusted again, and not written a third time', async () => {
  let failures = 1
  const it = await simulated({
    fate: ({ operation }) =>
      operation === 'syncDirectory' && failures-- > 0 ? { kind: 'fails', code: 'EIO' } : undefined,
  })
  it.put(content)
  await it.archive()
  await it.archive()
  const before = it.steps.length
  assert.equal(await it.archive(), true)
  assert.ok(it.steps.slice(before).every(({ operation }) => operation !== 'write'))
})

// Where it archives to

test('a relative archive_directory is one of the data directory', async () => {
  await using it = await real()
  it.gucs.reload(archiveTo('.'))
  await it.put('content')
  assert.equal(await it.archive(), true)
  assert.equal(await readFile(join(it.data, file), 'utf8'), 'content')
})

test('a symbolic link to a directory serves as well', async () => {
  await using it = await real()
  await symlink(it.archiveDirectory, join(it.data, 'link'))
  it.gucs.reload(archiveTo(join(it.data, 'link')))
  await it.put('content')
  assert.equal(await it.archive(), true)
  assert.deepEqual(await it.names(), [file])
})

test('something else than a file in place of an archived one is a failure that says so', async () => {
  await using it = await real()
  await it.put('content')
  await mkdir(join(it.archiveDirectory, file))
  assert.equal(await it.archive(), false)
  assert.deepEqual(it.told, [`ERROR: could not read file "${it.archiveDirectory}/${file}": Is a directory`])
})

test('a link that leads nowhere in place of an archived file is a failure that says so', async () => {
  await using it = await real()
  await it.put('content')
  await symlink('/nowhere/at/all', join(it.archiveDirectory, file))
  assert.equal(await it.archive(), false)
  assert.deepEqual(it.told, [
    `ERROR: could not stat file "${it.archiveDirectory}/${file}": No such file or directory`,
  ])
  assert.deepEqual(await it.names(), [file])
})

test('a WAL file that is gone is a failure, never success', async () => {
  await using it = await real()
  assert.equal(await it.archive(), false)
  assert.deepEqual(it.told, [
    `ERROR: could not open file "${it.data}/pg_wal/${file}": No such file or directory`,
  ])
  await writeFile(join(it.archiveDirectory, file), 'archived before')
  assert.equal(await it.archive(), false)
  assert.deepEqual(await it.names(), [file])
})

test('an archive_directory that leaves no room for a name is refused', async () => {
  const tooLong = `/${'d'.repeat(957)}`
  const { host, told } = await startServer({
    files: realFiles,
    dataDirectory: '/data',
    with: archiveTo(tooLong),
  })
  assert.deepEqual(told, [
    `WARNING: invalid value for parameter "basic_archive.archive_directory": "${tooLong}"`,
    'DETAIL: Archive directory too long.',
  ])
  assert.equal((await host.checkConfigured()).configured, false)
  const longest = await startServer({
    files: realFiles,
    dataDirectory: '/data',
    with: archiveTo(tooLong.slice(0, -1)),
  })
  assert.deepEqual(longest.told, [])
  assert.equal((await longest.host.checkConfigured()).configured, true)
})

test('a setting that it does not have is told and removed', async () => {
  const { told } = await startServer({
    files: realFiles,
    dataDirectory: '/data',
    with: settings('basic_archive.archive_dir=/archive'),
  })
  assert.deepEqual(told, [
    'WARNING: invalid configuration parameter name "basic_archive.archive_dir", removing it',
    'DETAIL: "basic_archive" is now a reserved prefix.',
  ])
})
