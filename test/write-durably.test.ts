// The one way in which anything that has to last is written, on a disk whose power can be cut.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { type Fate, SimulatedDisk, type Step } from '../src/system/simulated-files.ts'
import { exists, removeLeftovers, writeDurably } from '../src/system/write-durably.ts'

const text = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes)

function stage({ fate, seed = 1 }: { fate?: (step: Step) => Fate | undefined; seed?: number } = {}) {
  const disk = new SimulatedDisk(new SeededRandom(seed))
  disk.makeDirectory('/archive')
  const steps: string[] = []
  const files = disk.mount({
    ...(fate && { fate }),
    stepped: ({ operation, path }, code) =>
      void steps.push(`${operation} ${path.slice('/archive/'.length)}${code ? ` ${code}` : ''}`.trimEnd()),
  })
  return {
    disk,
    files,
    steps,
    names: () => disk.names('/archive').toSorted(),
    write: (content = 'new', more: { replace?: boolean; as?: string } = {}) =>
      writeDurably(files, {
        directory: '/archive',
        name: 'file',
        temporaryName: more.as ?? 'temporary',
        mode: 0o640,
        replace: more.replace ?? false,
        write: file => file.write(Buffer.from(content)),
      }),
  }
}

/** The same call always fails with this code. */
function failing(operation: Step['operation'], code: string, path?: string) {
  return (step: Step): Fate | undefined =>
    step.operation === operation && (path === undefined || step.path === path)
      ? { kind: 'fails', code }
      : undefined
}

test('content first, then the name, then the directory: every step of it on disk before the next', async () => {
  const { write, steps } = stage()
  assert.equal(await write(), 'written')
  const order = steps.filter(step => /^(open|write|sync|link|syncDirectory)/.test(step))
  assert.deepEqual(order, [
    'open temporary',
    'write temporary',
    'sync temporary',
    'link temporary',
    'syncDirectory',
  ])
})

test('what was written survives every power cut, under its name only, with the mode asked for', async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const { disk, files, write } = stage({ seed })
    await write('precious')
    assert.equal((await files.stat('/archive/file')).mode, 0o640)
    disk.powerCut()
    assert.equal(text(disk.content('/archive/file')), 'precious')
    assert.deepEqual(disk.names('/archive'), ['file'])
  }
})

test('a stop at any step leaves the whole file or none, and the next attempt leaves nothing else', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    for (let last = 1; ; last++) {
      const { disk, write } = stage({
        seed,
        fate: ({ number }) => (number === last ? { kind: 'stops', took: seed % 2 === 0 } : undefined),
      })
      const outcome = await Promise.race([write('precious'), tick().then(() => 'stopped')])
      disk.powerCut()
      const left = text(disk.content('/archive/file'))
      assert.ok(left === undefined || left === 'precious', `step ${last}, seed ${seed}: ${left}`)
      if (outcome === 'written') break
      const again = await writeDurably(disk.mount(), {
        directory: '/archive',
        name: 'file',
        temporaryName: 'temporary',
        mode: 0o600,
        replace: false,
        write: file => file.write(Buffer.from('precious')),
      })
      assert.equal(again, left === undefined ? 'written' : 'exists')
      assert.deepEqual(disk.names('/archive'), ['file'])
    }
  }
})

/** Comes after everything that a simulated disk without delays can do. */
function tick(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}

test('a name that is taken stays as it is, and no temporary file is left', async () => {
  const { disk, write, names } = stage()
  disk.place('/archive/file', 'old')
  assert.equal(await write('new'), 'exists')
  assert.equal(text(disk.content('/archive/file')), 'old')
  assert.deepEqual(names(), ['file'])
})

test('a name that is taken at the last moment stays as it is', async () => {
  const { disk, write, names } = stage({
    fate: ({ operation }) => {
      if (operation === 'link') disk.place('/archive/file', 'of another server')
      return undefined
    },
  })
  assert.equal(await write('new'), 'exists')
  assert.equal(text(disk.content('/archive/file')), 'of another server')
  assert.deepEqual(names(), ['file'])
})

test('replacing puts the new content in place of the old, which is whole until then', async () => {
  for (let last = 1; last <= 12; last++) {
    const { disk, write } = stage({
      seed: last,
      fate: ({ number }) => (number === last ? { kind: 'stops', took: false } : undefined),
    })
    disk.place('/archive/file', 'old')
    await Promise.race([write('new', { replace: true }), tick()])
    disk.powerCut()
    assert.match(text(disk.content('/archive/file')) ?? '', /^(old|new)$/, `step ${last}`)
  }
  const { disk, write, names } = stage()
  disk.place('/archive/file', 'old')
  assert.equal(await write('new', { replace: true }), 'written')
  assert.equal(text(disk.surviving('/archive/file')), 'new')
  assert.deepEqual(names(), ['file'])
})

test('the leftover of an attempt that was killed is removed by the next one', async () => {
  const { disk, write, names } = stage()
  disk.place('/archive/temporary', 'half of')
  assert.equal(await write('whole'), 'written')
  assert.equal(text(disk.content('/archive/file')), 'whole')
  assert.deepEqual(names(), ['file'])
})

test('every failure says what could not be done to which file, and leaves nothing behind', async () => {
  const failures: Array<[Step['operation'], string, string, string[]]> = [
    ['open', 'EACCES', 'could not create file "/archive/temporary": Permission denied', []],
    ['write', 'ENOSPC', 'could not write to file "/archive/temporary": No space left on device', []],
    ['sync', 'EIO', 'could not fsync file "/archive/temporary": Input/output error', []],
    ['fstat', 'EIO', 'could not stat file "/archive/temporary": Input/output error', []],
    [
      'link',
      'EDQUOT',
      'could not link file "/archive/temporary" to "/archive/file": Disk quota exceeded',
      [],
    ],
    // Under its final name it is whole, and only whether that will last is not known.
    ['syncDirectory', 'EIO', 'could not fsync file "/archive": Input/output error', ['file']],
  ]
  for (const [operation, code, message, left] of failures) {
    const { write, names } = stage({ fate: failing(operation, code) })
    await assert.rejects(write(), { message, code })
    assert.deepEqual(names(), left, operation)
  }
  const { disk, write } = stage({ fate: failing('rename', 'EROFS') })
  disk.place('/archive/file', 'old')
  await assert.rejects(write('new', { replace: true }), {
    message: 'could not rename file "/archive/temporary" to "/archive/file": Read-only file system',
  })
  assert.deepEqual(disk.names('/archive'), ['file'])
})

test('a leftover that cannot be removed is the failure', async () => {
  const { disk, write } = stage({ fate: failing('unlink', 'EACCES') })
  disk.place('/archive/temporary', 'old')
  await assert.rejects(write(), {
    message: 'could not remove file "/archive/temporary": Permission denied',
  })
})

test('what goes wrong first is told, not what goes wrong while tidying up', async () => {
  const { write } = stage({
    fate: ({ operation, number }) => {
      if (operation === 'write') return { kind: 'fails', code: 'ENOSPC' }
      if (operation === 'unlink' && number > 1) return { kind: 'fails', code: 'EIO' }
      return undefined
    },
  })
  await assert.rejects(write(), {
    message: 'could not write to file "/archive/temporary": No space left on device',
  })
})

// NFS

test('a link whose answer was lost and that is refused when repeated was our own: written', async () => {
  const { disk, write, names } = stage({
    fate: ({ operation }) =>
      operation === 'link' ? { kind: 'fails', code: 'EEXIST', took: true } : undefined,
  })
  assert.equal(await write('ours'), 'written')
  assert.equal(text(disk.surviving('/archive/file')), 'ours')
  assert.deepEqual(names(), ['file'])
})

// File systems without hard links

const noLinks = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']

test('where there are no hard links, the file is renamed, under a lock that does not remain', async () => {
  for (const code of noLinks) {
    const { disk, write, names, steps } = stage({ fate: failing('link', code) })
    assert.equal(await write('new'), 'written', code)
    assert.equal(text(disk.surviving('/archive/file')), 'new')
    assert.deepEqual(names(), ['file'])
    assert.ok(steps.includes('open file.lock.temporary'))
  }
})

test('without hard links a name that is taken stays as it is', async () => {
  const { disk, write, names } = stage({ fate: failing('link', 'EPERM') })
  disk.place('/archive/file', 'old')
  assert.equal(await write('new'), 'exists')
  assert.equal(text(disk.content('/archive/file')), 'old')
  assert.deepEqual(names(), ['file'])
})

test('without hard links the lock of another writer is respected, whoever was first', async () => {
  for (const other of ['a-temporary', 'z-temporary']) {
    const { disk, write, names } = stage({ fate: failing('link', 'EPERM') })
    disk.place(`/archive/file.lock.${other}`, '')
    await assert.rejects(write('new'), {
      message: `file "/archive/file" is locked by "/archive/file.lock.${other}"`,
    })
    assert.deepEqual(names(), [`file.lock.${other}`])
  }
})

test('the lock of another file is no lock of this one', async () => {
  const { disk, write, names } = stage({ fate: failing('link', 'EPERM') })
  disk.place('/archive/file.partial.lock.other', '')
  disk.place('/archive/fil.lock.other', '')
  assert.equal(await write('new'), 'written')
  assert.deepEqual(names(), ['fil.lock.other', 'file', 'file.partial.lock.other'])
})

test('without hard links our own lock, left by a crash, does not keep us out', async () => {
  const { disk, write, names } = stage({ fate: failing('link', 'EPERM') })
  disk.place('/archive/file.lock.temporary', '')
  assert.equal(await write('new'), 'written')
  assert.equal(text(disk.surviving('/archive/file')), 'new')
  assert.deepEqual(names(), ['file'])
})

test('where somebody else writes under the same temporary name, nothing is said to be written', async () => {
  // Two containers with one host name and one path: the other's half file must not get the name as ours.
  for (const moment of ['sync temporary', 'link temporary']) {
    let isDue = true
    const staged = stage({
      fate: ({ operation, path }) => {
        const name = `${operation} ${path.slice('/archive/'.length)}`
        if (isDue && name === moment) {
          isDue = false
          staged.disk.remove('/archive/temporary')
          staged.disk.place('/archive/temporary', 'half')
        }
        return undefined
      },
    })
    await assert.rejects(staged.write('whole'), {
      message:
        /^file "\/archive\/(temporary|file)" was replaced by somebody else while it was being written$/,
    })
    assert.equal(text(staged.disk.content('/archive/temporary')), 'half', moment)
  }
})

test('without hard links no failure leaves a lock to stumble over', async () => {
  const failures: Array<[Step['operation'], string, string]> = [
    ['rename', 'EIO', 'could not rename file "/archive/temporary" to "/archive/file": Input/output error'],
    ['list', 'EIO', 'could not read directory "/archive": Input/output error'],
    ['stat', 'ESTALE', 'could not stat file "/archive/temporary": Stale file handle'],
  ]
  for (const [operation, code, message] of failures) {
    let isBroken = true
    const { write, names } = stage({
      fate: step => failing('link', 'EPERM')(step) ?? (isBroken ? failing(operation, code)(step) : undefined),
    })
    await assert.rejects(write('new'), { message })
    assert.deepEqual(names(), [], operation)
    isBroken = false
    assert.equal(await write('new'), 'written')
  }
})

test('without hard links a disk that is too full for the lock says so, and recovers', async () => {
  let isFull = true
  const { write, names } = stage({
    fate: step => {
      if (step.operation === 'open' && step.path === '/archive/file.lock.temporary' && isFull)
        return { kind: 'fails', code: 'ENOSPC' }
      return failing('link', 'EPERM')(step)
    },
  })
  await assert.rejects(write('new'), {
    message: 'could not create file "/archive/file.lock.temporary": No space left on device',
  })
  assert.deepEqual(names(), [])
  isFull = false
  assert.equal(await write('new'), 'written')
  assert.deepEqual(names(), ['file'])
})

// The two small ones

test('whether a file exists is known, or the failure is told', async () => {
  const { disk, files } = stage({ fate: failing('stat', 'EIO', '/archive/odd') })
  disk.place('/archive/there', '')
  assert.equal(await exists(files, '/archive/there'), true)
  assert.equal(await exists(files, '/archive/not-there'), false)
  await assert.rejects(exists(files, '/archive/odd'), {
    message: 'could not stat file "/archive/odd": Input/output error',
  })
})

const place = { directory: '/archive', name: 'file', temporaryName: 'temporary' }

test('what a write left when it was cut off is removed, and nothing else', async () => {
  const { disk, files, names } = stage()
  for (const name of ['file', 'temporary', 'file.lock.temporary', 'other', 'file.lock.other']) {
    disk.place(`/archive/${name}`, '')
  }
  await removeLeftovers(files, place)
  assert.deepEqual(names(), ['file', 'file.lock.other', 'other'])
  await removeLeftovers(files, place) // where there is nothing, that is no failure
})

test('leftovers in a directory that may not be changed are left, any other failure is told', async () => {
  for (const code of ['EROFS', 'EACCES', 'EPERM']) {
    const { disk, files, names } = stage({ fate: failing('unlink', code) })
    disk.place('/archive/temporary', '')
    await removeLeftovers(files, place)
    assert.deepEqual(names(), ['temporary'])
  }
  const { disk, files } = stage({ fate: failing('unlink', 'EIO') })
  disk.place('/archive/temporary', '')
  await assert.rejects(removeLeftovers(files, place), {
    message: 'could not remove file "/archive/temporary": Input/output error',
  })
})
