import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Files } from '../src/system/files.ts'
import { realFiles } from '../src/system/real-files.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import {
  type CutMode,
  type Fate,
  pageBytes,
  SimulatedDisk,
  type Step,
} from '../src/system/simulated-files.ts'
import { errnoCode } from '../src/system/system-error.ts'

const seeds = Array.from({ length: 200 }, (_, seed) => seed)
const cutModes: CutMode[] = ['in order', 'any order']

function newDisk(seed = 0): SimulatedDisk {
  const disk = new SimulatedDisk(new SeededRandom(seed))
  disk.makeDirectory('/archive')
  return disk
}

async function create(files: Files, path: string, content: Uint8Array | string, sync = false): Promise<void> {
  await using file = await files.open(path, 'create')
  await file.write(typeof content === 'string' ? new TextEncoder().encode(content) : content)
  if (sync) await file.sync()
}

function text(disk: SimulatedDisk, path: string): string | undefined {
  const content = disk.content(path)
  return content && new TextDecoder().decode(content)
}

/** Everything that can be found after a power cut, over many seeds and both modes, sorted. */
async function afterPowerCut(
  before: (files: Files, disk: SimulatedDisk) => Promise<void>,
  path = '/archive',
) {
  const outcomes = new Set<string>()
  for (const mode of cutModes) {
    for (const seed of seeds) {
      const disk = newDisk(seed)
      await before(disk.mount(), disk)
      disk.powerCut(mode)
      outcomes.add(
        disk
          .names(path)
          .toSorted()
          .map(name => `${name}=${text(disk, `${path}/${name}`)}`)
          .join(' '),
      )
    }
  }
  return [...outcomes].toSorted()
}

test('a file that was synced, and whose directory was synced after it was named, survives every power cut', async () => {
  const outcomes = await afterPowerCut(async files => {
    await create(files, '/archive/a', 'hello', true)
    await files.syncDirectory('/archive')
  })
  assert.deepEqual(outcomes, ['a=hello'])
})

test('a name that no sync of its directory followed may be gone after a power cut', async () => {
  const outcomes = await afterPowerCut(files => create(files, '/archive/a', 'hello', true))
  assert.deepEqual(outcomes, ['', 'a=hello'])
})

test('content that was not synced may be gone after a power cut, although the name is there', async () => {
  const outcomes = await afterPowerCut(async files => {
    await create(files, '/archive/a', 'hello')
    await files.syncDirectory('/archive')
  })
  assert.deepEqual(outcomes, ['a=', 'a=\0\0\0\0\0', 'a=hello'])
})

test('content that was not synced may be torn by page: any subset, and zeroes for the others', async () => {
  const content = new Uint8Array(3 * pageBytes).map((_, i) => 1 + Math.floor(i / pageBytes))
  const shapes = new Set<string>()
  for (const seed of seeds) {
    const disk = newDisk(seed)
    const files = disk.mount()
    await create(files, '/archive/a', content)
    await files.syncDirectory('/archive')
    disk.powerCut()
    const left = disk.content('/archive/a') ?? assert.fail('the name was durable')
    assert.equal(left.length % pageBytes, 0)
    shapes.add(Array.from({ length: left.length / pageBytes }, (_, page) => left[page * pageBytes]).join(''))
  }
  const whole = ['000', '003', '020', '023', '100', '103', '120', '123']
  for (const shape of ['', ...whole]) assert.ok(shapes.has(shape), `"${shape}"`)
})

test('a kill loses nothing that was written, synced or not', async () => {
  for (const seed of seeds) {
    const disk = newDisk(seed)
    const files = disk.mount()
    await create(files, '/archive/a', 'hello')
    files.kill()
    assert.equal(await disk.mount().readText('/archive/a'), 'hello')
  }
})

test('after a failed sync the next one succeeds, and the content may be lost all the same', async () => {
  const left = new Set<string | undefined>()
  for (const seed of seeds) {
    const disk = newDisk(seed)
    const fails: Fate = { kind: 'fails', code: 'EIO' }
    let syncs = 0
    const files = disk.mount({
      fate: step => (step.operation === 'sync' && ++syncs === 1 ? fails : undefined),
    })
    const file = await files.open('/archive/a', 'create')
    await file.write(new TextEncoder().encode('hello'))
    await assert.rejects(file.sync(), { code: 'EIO' })
    await file.sync()
    await files.syncDirectory('/archive')
    disk.powerCut()
    left.add(text(disk, '/archive/a'))
  }
  assert.deepEqual(left, new Set(['\0\0\0\0\0', 'hello']))
})

test('a failed sync of a directory makes nothing durable, and the next one can', async () => {
  const outcomes = new Set<number>()
  for (const retried of [false, true]) {
    for (const seed of seeds) {
      const disk = newDisk(seed)
      let fails = true
      const files = disk.mount({
        fate: step =>
          step.operation === 'syncDirectory' && fails ? { kind: 'fails', code: 'EIO' } : undefined,
      })
      await create(files, '/archive/a', 'hello', true)
      await assert.rejects(files.syncDirectory('/archive'), { code: 'EIO' })
      fails = false
      if (retried) await files.syncDirectory('/archive')
      disk.powerCut()
      if (retried) assert.equal(text(disk, '/archive/a'), 'hello')
      else outcomes.add(disk.names('/archive').length)
    }
  }
  assert.deepEqual(outcomes, new Set([0, 1]))
})

test('a renamed file has its old name or its new one after a power cut, never both and never none', async () => {
  const outcomes = await afterPowerCut(async (files, disk) => {
    disk.place('/archive/a.ready', '')
    await files.rename('/archive/a.ready', '/archive/a.done')
  })
  assert.deepEqual(outcomes, ['a.done=', 'a.ready='])
})

test('a file that took the old name of a renamed one never makes that one disappear', async () => {
  const outcomes = await afterPowerCut(async (files, disk) => {
    disk.place('/archive/a', 'old')
    await files.rename('/archive/a', '/archive/b')
    await create(files, '/archive/a', 'new', true)
  })
  assert.deepEqual(outcomes, ['a=new b=old', 'a=old', 'b=old'])
})

test('a power cut keeps the order of changes in a directory in one mode, and only of each name in the other', async () => {
  const outcomesOf = async (mode: CutMode) => {
    const outcomes = new Set<string>()
    for (const seed of seeds) {
      const disk = newDisk(seed)
      const files = disk.mount()
      await create(files, '/archive/a', '', true)
      await create(files, '/archive/b', '', true)
      disk.powerCut(mode)
      outcomes.add(disk.names('/archive').toSorted().join(''))
    }
    return [...outcomes].toSorted()
  }
  assert.deepEqual(await outcomesOf('in order'), ['', 'a', 'ab'])
  assert.deepEqual(await outcomesOf('any order'), ['', 'a', 'ab', 'b'])
})

test('the temporary name may outlive a power cut, also when the final one does', async () => {
  const outcomes = await afterPowerCut(async files => {
    await create(files, '/archive/temporary', 'x', true)
    await files.link('/archive/temporary', '/archive/final')
    await files.unlink('/archive/temporary')
  })
  assert.deepEqual(outcomes, ['', 'final=x', 'final=x temporary=x', 'temporary=x'])
})

test('what certainly survives is told without cutting the power', async () => {
  const disk = newDisk()
  const files = disk.mount()
  await using file = await files.open('/archive/a', 'create')
  await file.write(new TextEncoder().encode('hello'))
  await files.syncDirectory('/archive')
  assert.equal(disk.surviving('/archive/a'), undefined)
  await file.sync()
  assert.equal(Buffer.from(disk.surviving('/archive/a') ?? '').toString(), 'hello')
  await files.link('/archive/a', '/archive/b')
  assert.equal(disk.surviving('/archive/b'), undefined)
  await files.unlink('/archive/a')
  assert.equal(disk.surviving('/archive/a'), undefined)
  assert.deepEqual(disk.possibleNames('/archive'), new Set(['a', 'b']))
  await files.syncDirectory('/archive')
  assert.equal(Buffer.from(disk.surviving('/archive/b') ?? '').toString(), 'hello')
  assert.deepEqual(disk.possibleNames('/archive'), new Set(['b']))
  await create(files, '/archive/c', 'hello', true)
  await files.rename('/archive/c', '/archive/b')
  assert.equal(Buffer.from(disk.surviving('/archive/b') ?? '').toString(), 'hello') // whichever of the two it is
})

test('a process that is stopped at a step is never told, whether or not the step had its effect', async () => {
  for (const took of [false, true]) {
    const disk = newDisk()
    const stopped: Step[] = []
    const files = disk.mount({
      fate: step => (step.number === 4 ? { kind: 'stops', took } : undefined),
      stopped: step => stopped.push(step),
    })
    let ended = false
    const work = create(files, '/archive/a', 'hello').then(() => files.link('/archive/a', '/archive/b'))
    void work.finally(() => {
      ended = true
    })
    await new Promise(setImmediate)
    assert.equal(ended, false)
    assert.equal(files.isDead, true)
    assert.deepEqual(stopped, [{ number: 4, operation: 'link', path: '/archive/a', to: '/archive/b' }])
    assert.deepEqual(disk.names('/archive'), took ? ['a', 'b'] : ['a'])
    // The handles of a dead process stay dead, and the next process finds what the last one left.
    assert.equal(await disk.mount().readText('/archive/a'), 'hello')
  }
})

test('a write can fail after a part of it, and a process can end within one', async () => {
  const fates: Fate[] = [
    { kind: 'fails', code: 'ENOSPC', written: 3 },
    { kind: 'stops', took: false, written: 3 },
  ]
  for (const fate of fates) {
    const disk = newDisk()
    const files = disk.mount({ fate: step => (step.operation === 'write' ? fate : undefined) })
    let told = ''
    void create(files, '/archive/a', 'hello').catch((thrown: unknown) => {
      told = errnoCode(thrown) ?? ''
    })
    await new Promise(setImmediate)
    assert.equal(text(disk, '/archive/a'), 'hel')
    assert.equal(told, fate.kind === 'fails' ? 'ENOSPC' : '')
  }
})

test('an operation under way when its process is killed may or may not have its effect', async () => {
  const left = new Set<number>()
  for (const seed of seeds) {
    const disk = newDisk(seed)
    const files = disk.mount({ delay: () => new Promise(setImmediate) })
    void files.open('/archive/a', 'create')
    files.kill()
    left.add(disk.names('/archive').length)
  }
  assert.deepEqual(left, new Set([0, 1]))
})

test('any operation can be made to fail, and the error looks like that of Node', async () => {
  const disk = newDisk()
  disk.place('/archive/a', 'hello')
  const files = disk.mount({ fate: () => ({ kind: 'fails', code: 'EIO' }) })
  await assert.rejects(files.rename('/archive/a', '/archive/b'), {
    name: 'Error',
    code: 'EIO',
    errno: -5,
    syscall: 'rename',
    path: '/archive/a',
    message: "EIO: i/o error, rename '/archive/a' -> '/archive/b'",
  })
  assert.deepEqual(disk.names('/archive'), ['a'])
})

test('a call can fail although it had its effect, as when NFS loses an answer', async () => {
  const disk = newDisk()
  disk.place('/archive/a', 'hello')
  const files = disk.mount({ fate: () => ({ kind: 'fails', code: 'EIO', took: true }) })
  await assert.rejects(files.link('/archive/a', '/archive/b'), { code: 'EIO' })
  assert.deepEqual(disk.names('/archive'), ['a', 'b'])
})

test('a watch hears of what others do, later, and of nothing once it is closed or its process is dead', async () => {
  const disk = newDisk()
  const files = disk.mount()
  const heard: string[] = []
  const watch = files.watch('/archive', name => heard.push(name ?? ''))
  disk.place('/archive/a', '')
  assert.equal(heard.length, 0)
  await new Promise(setImmediate)
  assert.deepEqual(heard, ['a'])
  watch.close()
  disk.place('/archive/b', '')
  files.watch('/archive', name => heard.push(name ?? ''))
  files.kill()
  disk.place('/archive/c', '')
  await new Promise(setImmediate)
  assert.deepEqual(heard, ['a'])
})

test('notifications of a watch can be lost', async () => {
  const disk = newDisk()
  const heard: (string | undefined)[] = []
  disk.mount({ losesNotification: () => true }).watch('/archive', name => heard.push(name))
  disk.place('/archive/a', '')
  await new Promise(setImmediate)
  assert.deepEqual(heard, [])
})

test('the number of a removed file may be given to a new one', async () => {
  const reused = new Set<boolean>()
  for (const seed of seeds) {
    const files = newDisk(seed).mount()
    await create(files, '/archive/a', '')
    const { inode } = await files.stat('/archive/a')
    await files.unlink('/archive/a')
    await create(files, '/archive/b', '')
    reused.add((await files.stat('/archive/b')).inode === inode)
  }
  assert.equal(reused.size, 2)
})

test('permission bits bind every user but the superuser', async () => {
  const disk = newDisk()
  disk.setOwner('/archive', 26)
  disk.place('/archive/a', 'secret')
  const files = disk.mount({ uid: 26 })
  await assert.rejects(files.readText('/archive/a'), { code: 'EACCES' })
  assert.deepEqual(await files.list('/archive'), ['a'])
  await create(files, '/archive/b', 'own')
  assert.equal(await files.readText('/archive/b'), 'own')
  disk.setMode('/archive', 0o500)
  await assert.rejects(files.unlink('/archive/b'), { code: 'EACCES' })
  assert.equal(await disk.mount().readText('/archive/a'), 'secret')
})

test('the umask is taken from the mode of new files', async () => {
  const files = newDisk().mount({ umask: 0o077 })
  await (await files.open('/archive/a', 'create', 0o644)).close()
  assert.equal((await files.stat('/archive/a')).mode, 0o600)
})

test('after a power cut each name means what it meant at some moment since its directory was last synced', async () => {
  const names = ['a', 'b', 'c']
  for (const mode of cutModes) {
    for (const seed of seeds) {
      const random = new SeededRandom(seed)
      const disk = newDisk(seed)
      const files = disk.mount()
      let history = new Map<string, Set<string>>(names.map(name => [name, new Set(['-'])]))
      const record = () => {
        for (const name of names) history.get(name)?.add(text(disk, `/archive/${name}`) ?? '-')
      }
      for (let i = 0; i < 12; i++) {
        const [one, other] = [`/archive/${random.pick(names)}`, `/archive/${random.pick(names)}`]
        const action = random.pick(['create', 'link', 'rename', 'unlink', 'sync'] as const)
        if (action === 'create') await create(files, one, `${i}`, true).catch(() => {})
        if (action === 'link') await files.link(one, other).catch(() => {})
        if (action === 'rename') await files.rename(one, other).catch(() => {})
        if (action === 'unlink') await files.unlink(one).catch(() => {})
        if (action === 'sync') {
          await files.syncDirectory('/archive')
          history = new Map<string, Set<string>>(names.map(name => [name, new Set()]))
        }
        record()
      }
      disk.powerCut(mode)
      for (const name of names) {
        const left = text(disk, `/archive/${name}`) ?? '-'
        assert.ok(history.get(name)?.has(left), `seed ${seed}: ${name} is ${left}`)
      }
    }
  }
})

test('the same operations give the same results and errors as on the real file system', async t => {
  const root = await mkdtemp(join(tmpdir(), 'simulated-files-'))
  t.after(() => rm(root, { recursive: true }))
  for (let seed = 0; seed < 60; seed++) {
    const real = join(root, `${seed}`)
    await mkdir(join(real, 'directory', 'inner'), { recursive: true })
    const disk = new SimulatedDisk(new SeededRandom(seed))
    disk.makeDirectory('/directory')
    disk.makeDirectory('/directory/inner')
    const [expected, actual] = await Promise.all([
      sessionOn(realFiles, real, seed),
      sessionOn(disk.mount(), '', seed),
    ])
    assert.deepEqual(actual, expected, `seed ${seed}`)
  }
})

/** Forty random operations and what came of each. */
async function sessionOn(files: Files, root: string, seed: number): Promise<string[]> {
  const random = new SeededRandom(seed)
  const names = [
    'a',
    'b',
    'directory',
    'directory/c',
    'directory/inner',
    'a/under',
    'missing/d',
    'x'.repeat(256),
  ]
  const likely = ['a', 'b', 'directory/c']
  const path = () => `${root}/${random.chance(0.7) ? random.pick(likely) : random.pick(names)}`
  const results: string[] = []
  const attempt = async (what: string, action: () => Promise<unknown>) => {
    const outcome = await action().catch((thrown: NodeJS.ErrnoException) => thrown.code ?? thrown.message)
    results.push(`${what.replaceAll(root, '')}: ${JSON.stringify(outcome)}`)
  }
  for (let i = 0; i < 40; i++) {
    const [one, other] = [path(), path()]
    const content = `${i} `.repeat(random.integer(0, 3_000))
    switch (random.integer(0, 8)) {
      case 0:
      case 1:
        await attempt(`create ${one}`, () => create(files, one, content, random.chance(0.5)))
        break
      case 2:
        await attempt(`link ${one} ${other}`, () => files.link(one, other))
        break
      case 3:
        // Linux looks at the length of the new name only where the old one exists, and we do not.
        if (other.length > 255) break
        await attempt(`rename ${one} ${other}`, () => files.rename(one, other))
        break
      case 4:
        await attempt(`unlink ${one}`, () => files.unlink(one))
        break
      case 5:
        await attempt(`list ${one}`, async () => (await files.list(one)).toSorted())
        break
      case 6:
        await attempt(`stat ${one}`, async () => {
          const { kind, size, mode } = await files.stat(one)
          // Modes and sizes of directories are the machine's affair.
          return kind === 'file' ? { kind, size, mode } : kind
        })
        break
      case 7:
        await attempt(`read ${one}`, async () => {
          await using file = await files.open(one, 'read')
          const { size } = await file.stat()
          const buffer = new Uint8Array(5_000)
          const lengths = [
            await file.read(buffer),
            await file.read(buffer),
            await file.read(new Uint8Array(0)),
          ]
          await file.sync()
          await file.close()
          const refused = await file.read(buffer).catch((thrown: NodeJS.ErrnoException) => thrown.code)
          return { size: lengths[0] === undefined ? 0 : size, lengths, refused }
        })
        break
      default:
        await attempt(`read text ${one}, sync ${other}`, async () => {
          await files.syncDirectory(other.slice(0, other.lastIndexOf('/')) || '/')
          return files.readText(one)
        })
    }
  }
  return results
}

test('a file can be read and written only as it was opened, and lives on without a name', async () => {
  const root = await mkdtemp(join(tmpdir(), 'simulated-files-'))
  try {
    for (const [files, directory] of [[realFiles, root] as const, [newDisk().mount(), '/archive'] as const]) {
      await using written = await files.open(`${directory}/a`, 'create', 0o640)
      await written.write(new TextEncoder().encode('hello'))
      await assert.rejects(written.read(new Uint8Array(1)), { code: 'EBADF' })
      await using read = await files.open(`${directory}/a`, 'read')
      await assert.rejects(read.write(new Uint8Array(1)), { code: 'EBADF' })
      await files.unlink(`${directory}/a`)
      assert.equal(await read.read(new Uint8Array(10)), 5)
      assert.equal((await read.stat()).size, 5)
      await read.close()
      await read.close()
      assert.throws(() => files.watch(`${directory}/missing`, () => {}), { code: 'ENOENT' })
    }
  } finally {
    await rm(root, { recursive: true })
  }
})

test('closing waits for the operations under way, as it does in Node', async () => {
  const root = await mkdtemp(join(tmpdir(), 'simulated-files-'))
  try {
    const simulated = newDisk().mount({ delay: () => new Promise(setImmediate) })
    for (const [files, directory] of [[realFiles, root] as const, [simulated, '/archive'] as const]) {
      const file = await files.open(`${directory}/a`, 'create')
      const written = file.write(new TextEncoder().encode('hello'))
      const status = file.stat()
      await file.close()
      await written
      assert.equal((await status).kind, 'file')
      assert.equal(await files.readText(`${directory}/a`), 'hello')
    }
  } finally {
    await rm(root, { recursive: true })
  }
})

test('symbolic links are followed, but not when they are linked, renamed or removed', async () => {
  const disk = newDisk()
  disk.place('/archive/a', 'hello')
  disk.placeSymbolicLink('/wal', '/archive')
  disk.placeSymbolicLink('/archive/to-a', 'a')
  disk.placeSymbolicLink('/loop', 'loop')
  const files = disk.mount({ workingDirectory: '/archive' })
  assert.equal(await files.readText('/wal/to-a'), 'hello')
  assert.equal(await files.readText('to-a'), 'hello')
  assert.equal((await files.stat('/wal')).kind, 'directory')
  await assert.rejects(files.stat('/loop'), { code: 'ELOOP' })
  await files.unlink('/wal/to-a')
  assert.deepEqual(await files.list('/wal'), ['a'])
})

// Directories, owners, positions and real paths

/** The same on a real disk and on a simulated one; directories are `…/archive` on both. */
async function onBoth(deed: (files: Files, directory: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(await realFiles.realPath(tmpdir()), 'simulated-files-'))
  const umask = process.umask(0o022)
  try {
    await mkdir(join(root, 'archive'), { mode: 0o700 })
    for (const [files, directory] of [
      [realFiles, join(root, 'archive')] as const,
      [newDisk().mount({ umask: 0o022 }), '/archive'] as const,
    ]) {
      await deed(files, directory)
    }
  } finally {
    process.umask(umask)
    await rm(root, { recursive: true })
  }
}

test('a directory is made with its mode less the umask, and never a second time', async () => {
  await onBoth(async (files, directory) => {
    await files.makeDirectory(`${directory}/below`, 0o777)
    const { kind, mode } = await files.stat(`${directory}/below`)
    assert.deepEqual([kind, mode], ['directory', 0o755])
    await create(files, `${directory}/below/file`, 'hello')
    assert.deepEqual(await files.list(directory), ['below'])
    for (const taken of ['below', 'below/', 'below/file', '.']) {
      await assert.rejects(files.makeDirectory(`${directory}/${taken}`, 0o700), { code: 'EEXIST' }, taken)
    }
    await assert.rejects(files.makeDirectory(`${directory}/missing/below`, 0o700), { code: 'ENOENT' })
    await assert.rejects(files.makeDirectory(`${directory}/below/file/x`, 0o700), { code: 'ENOTDIR' })
  })
})

test('a directory survives a power cut only when the one above it was synced, and takes what is in it along', async () => {
  const made = async (files: Files) => {
    await files.makeDirectory('/archive/below', 0o700)
    await create(files, '/archive/below/file', 'hello', true)
    await files.syncDirectory('/archive/below')
  }
  assert.deepEqual(await afterPowerCut(made), ['', 'below=undefined'])
  assert.deepEqual(
    await afterPowerCut(async files => {
      await made(files)
      await files.syncDirectory('/archive')
    }, '/archive/below'),
    ['file=hello'],
  )
})

test('what is written at a position stands there, and leaves the other position as it is', async () => {
  await onBoth(async (files, directory) => {
    const bytes = (content: string) => new TextEncoder().encode(content)
    {
      await using file = await files.open(`${directory}/file`, 'create')
      await file.writeAt(bytes('world'), 6)
      await file.write(bytes('he'))
      await file.writeAt(bytes('--'), 8)
      await file.write(bytes('llo'))
      await file.writeAt(bytes(''), 100)
    }
    assert.equal(await files.readText(`${directory}/file`), 'hello\0wo--d')
    await using read = await files.open(`${directory}/file`, 'read')
    await assert.rejects(read.writeAt(bytes('x'), 0), { code: 'EBADF' })
  })
})

test('what was written at a position and not synced may be lost, torn or kept', async () => {
  const outcomes = await afterPowerCut(async files => {
    await using file = await files.open('/archive/file', 'create')
    await file.writeAt(new Uint8Array(pageBytes).fill(0x62), pageBytes)
    await file.writeAt(new Uint8Array(pageBytes).fill(0x61), 0)
    await files.syncDirectory('/archive')
  })
  const [a, b, zeroes] = ['a', 'b', '\0'].map(letter => letter.repeat(pageBytes))
  for (const expected of ['', `${a}${b}`, `${zeroes}${b}`, `${a}${zeroes}`]) {
    assert.ok(outcomes.includes(`file=${expected}`), JSON.stringify(expected.slice(0, 1)))
  }
})

test('a write at a position may take place in part', async () => {
  const disk = newDisk()
  const files = disk.mount({
    fate: ({ operation }): Fate | undefined =>
      operation === 'write' ? { kind: 'fails', code: 'ENOSPC', written: 2 } : undefined,
  })
  await using file = await files.open('/archive/file', 'create')
  await assert.rejects(file.writeAt(new TextEncoder().encode('hello'), 1), { code: 'ENOSPC' })
  assert.equal(text(disk, '/archive/file'), '\0he')
})

test('a real path has no links, no dots and no slash too many', async () => {
  const disk = newDisk()
  disk.makeDirectory('/archive/below')
  disk.place('/archive/below/file', '')
  disk.placeSymbolicLink('/link', 'archive/below')
  disk.placeSymbolicLink('/archive/dangling', 'nowhere')
  const files = disk.mount({ workingDirectory: '/archive' })
  for (const [path, real] of [
    ['/', '/'],
    ['/archive/', '/archive'],
    ['/link', '/archive/below'],
    ['/link/file', '/archive/below/file'],
    ['/link/../below//./file', '/archive/below/file'],
    ['below', '/archive/below'],
  ] as const) {
    assert.equal(await files.realPath(path), real, path)
  }
  for (const missing of ['/missing', '/archive/dangling']) {
    await assert.rejects(files.realPath(missing), { code: 'ENOENT' })
  }
})

test('a link at the end of a path is not followed when that is not wanted, and one before it is', async () => {
  const disk = newDisk()
  disk.place('/archive/file', 'hello')
  disk.placeSymbolicLink('/archive/link', 'file')
  disk.placeSymbolicLink('/archive/dangling', 'nowhere')
  disk.placeSymbolicLink('/elsewhere', 'archive')
  const files = disk.mount()
  for (const link of ['/archive/link', '/archive/dangling', '/elsewhere/link']) {
    await assert.rejects(files.open(link, 'readNoLink'), { code: 'ELOOP' }, link)
  }
  await using file = await files.open('/elsewhere/file', 'readNoLink')
  assert.equal(await file.read(new Uint8Array(10)), 5)
  await assert.rejects(files.open('/archive/missing', 'readNoLink'), { code: 'ENOENT' })
})

test('the owner of a path is changed where the path is, and not where a link leads', async () => {
  const disk = newDisk()
  disk.place('/archive/file', '')
  disk.makeDirectory('/archive/below')
  disk.placeSymbolicLink('/archive/link', 'file')
  const files = disk.mount()
  for (const path of ['/archive/below', '/archive/link']) await files.changeOwner(path, 5)
  assert.deepEqual(
    await Promise.all(['below', 'file'].map(async name => (await files.stat(`/archive/${name}`)).uid)),
    [5, 0],
  )
  await assert.rejects(files.changeOwner('/archive/missing', 5), { code: 'ENOENT' })
})

test('all that may stand at a path after a power cut is known', async () => {
  const disk = newDisk()
  const files = disk.mount()
  assert.equal(disk.survivors('/archive/file'), undefined)
  disk.place('/archive/file', 'old')
  await create(files, '/archive/new', 'new', true)
  await files.rename('/archive/new', '/archive/file')
  const told = () => disk.survivors('/archive/file')?.map(each => new TextDecoder().decode(each))
  assert.deepEqual([told(), disk.surviving('/archive/file')], [['old', 'new'], undefined])
  await files.syncDirectory('/archive')
  assert.deepEqual(told(), ['new'])
  await create(files, '/archive/other', 'unsynced')
  await files.rename('/archive/other', '/archive/file')
  assert.equal(told(), undefined)
})
