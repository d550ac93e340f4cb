// A repository in a directory, whatever else is in it: links, pipes, strangers, other owners.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, chown, mkdir, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { LocalStore } from '../src/repository/store/local-store.ts'
import { temporaryName } from '../src/repository/store/unfinished-write.ts'
import type { Files } from '../src/system/files.ts'
import { ownMark, type ProcessMark } from '../src/system/process-mark.ts'
import { realFiles } from '../src/system/real-files.ts'
import { markedProcess } from './support/marked-process.ts'
import { failure, keyOf, realStage } from './support/repository-stage.ts'
import { becomeUnprivileged, unprivileged } from './support/unprivileged.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const name = '000000010000000000000001'
const next = '000000010000000000000002'

/** A repository that holds one file already, and a second one that is to be archived. */
async function stageWithFile() {
  const stage = await realStage()
  await stage.putSegment(name)
  await stage.start().archive(name)
  await stage.putSegment(next)
  return stage
}

// Links

test('a root that is a symbolic link serves, and so does one with links above it', async () => {
  await using stage = await realStage()
  await rename(stage.root, join(stage.above, 'disk'))
  await symlink('disk', stage.root)
  const content = await stage.putSegment(name)
  const { archive, fetch } = stage.start()
  assert.equal(await archive(name), 'archived')
  assert.deepEqual(await fetch(name), content)
})

test('a directory that leads out of the repository is neither written to nor read from, at any level', async () => {
  for (let level = 1; level <= 4; level++) {
    await using stage = await stageWithFile()
    const parts = keyOf(name).split('/').slice(0, level)
    const inside = join(stage.root, ...parts)
    const outside = join(stage.above, 'outside')
    await rename(inside, outside)
    await symlink(outside, inside)
    const before = await readdir(outside, { recursive: true })
    // A process that knows the directory from before, and one that does not.
    for (const { archive, fetch } of [stage.start(), stage.start()]) {
      const directory = dirname(stage.objectPath(name))
      const real = join(outside, ...keyOf(name).split('/').slice(level, -1))
      for (const each of [name, next]) {
        const said = await failure(archive(each))
        assert.match(
          said,
          /^SETTINGS: ".*" leads out of the repository, to ".*"\nHINT: Remove the symbolic link\.$/,
        )
        assert.ok(said.includes(`to "${outside}`), said)
      }
      assert.equal(
        await failure(fetch(name)),
        `SETTINGS: "${directory}" leads out of the repository, to "${real}"\nHINT: Remove the symbolic link.`,
      )
    }
    assert.deepEqual(await readdir(outside, { recursive: true }), before)
  }
})

test('a directory that becomes a link under a running process is noticed', async () => {
  await using stage = await stageWithFile()
  const { archive } = stage.start()
  await archive(name)
  const directory = dirname(stage.objectPath(name))
  await rename(directory, join(stage.above, 'outside'))
  await symlink(join(stage.above, 'outside'), directory)
  assert.match(
    await failure(archive(next)),
    /^SETTINGS: ".*" leads out of the repository, to ".*\/outside"\n/,
  )
  assert.equal((await readdir(join(stage.above, 'outside'))).length, 1)
})

test('on a disk that is mounted below the root nothing is written, because it would be missed by nobody', async () => {
  for (let level = 1; level <= 4; level++) {
    await using stage = await stageWithFile()
    const mounted = join(stage.root, ...keyOf(name).split('/').slice(0, level))
    const isOnIt = (path: string) => path === mounted || path.startsWith(`${mounted}/`)
    // From one moment to the next, as a mount is.
    let isMounted = false
    const files: Files = {
      ...realFiles,
      stat: async path => {
        const status = await realFiles.stat(path)
        return isMounted && isOnIt(path) ? { ...status, device: status.device + 1n } : status
      },
    }
    const known = stage.start({ files })
    await known.archive(name)
    isMounted = true
    // A process that knows the directory from before, and one that does not.
    for (const { archive, fetch } of [known, stage.start({ files })]) {
      const said = await failure(archive(next))
      assert.match(
        said,
        /^SETTINGS: ".*" is on another file system than repository directory ".*"\nHINT: Mount the disk as/,
      )
      // What is there can be read, wherever it is.
      assert.ok(await fetch(name))
    }
    await assert.rejects(stat(stage.objectPath(next)), { code: 'ENOENT' })
    isMounted = false
    assert.equal(await stage.start({ files }).archive(next), 'archived')
  }
})

test('a mount below the root is recognized as the kernel tells it', async () => {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can mount disks')
  await using stage = await stageWithFile()
  const [cluster = ''] = keyOf(name).split('/')
  const at = join(stage.root, cluster, 'wal')
  const program = `
    import { openRepository } from '${join(import.meta.dirname, '../src/cli/open-repository.ts')}'
    import { walSource } from '${join(import.meta.dirname, '../src/modules/repository.ts')}'
    import { realFiles } from '${join(import.meta.dirname, '../src/system/real-files.ts')}'
    const repository = await openRepository({ scheme: 'file', directory: '${stage.root}' }, {})
    const cluster = { systemIdentifier: '${cluster}', walSegmentBytes: undefined, pageMagic: undefined }
    const options = { cluster, headerCheck: false, compressionLevel: 1, recipients: [] }
    const source = walSource(realFiles, '${next}', '${join(stage.data, 'pg_wal', next)}')
    console.log(await repository.archive(source, options).catch(error => error.message))`
  await writeFile(join(stage.above, 'program.ts'), program)
  const mount = `mount -t tmpfs -o mode=777 tmpfs '${at}' && exec "$@"`
  const archive = [process.execPath, '--disable-warning=ExperimentalWarning', join(stage.above, 'program.ts')]
  const said = execFileSync('unshare', ['-m', 'sh', '-c', mount, 'sh', ...archive]).toString()
  assert.equal(said, `"${at}" is on another file system than repository directory "${stage.root}"\n`)
  assert.equal(execFileSync(archive[0] ?? '', archive.slice(1)).toString(), 'archived\n')
})

test('a link within the repository is followed', async () => {
  await using stage = await stageWithFile()
  const timeline = dirname(dirname(stage.objectPath(name)))
  await rename(timeline, join(stage.root, 'elsewhere'))
  await symlink('../../elsewhere', timeline)
  const { archive, fetch } = stage.start()
  assert.equal(await archive(next), 'archived')
  assert.deepEqual(await fetch(name), walSegment({ name }))
})

test('a link in place of an object is not followed, wherever it leads', async () => {
  for (const target of ['/etc/passwd', '/nowhere/at/all', `${name}.pgarchivist`]) {
    await using stage = await stageWithFile()
    await symlink(target, stage.objectPath(next))
    const { archive, fetch } = stage.start()
    const path = stage.objectPath(next)
    assert.equal(
      await failure(fetch(next)),
      `UNREACHABLE: could not open file "${path}": Too many levels of symbolic links\nHINT: Symbolic links are not followed in a repository: put in its place what it leads to.`,
    )
    await assert.rejects(archive(next), { code: 'UNREACHABLE' })
    assert.deepEqual((await readdir(dirname(path))).toSorted(), [
      `${name}.pgarchivist`,
      `${next}.pgarchivist`,
    ])
  }
})

test('a link in place of the marker is not followed', async () => {
  await using stage = await realStage()
  await symlink('/etc/passwd', join(stage.root, 'pgarchivist-repository.json'))
  await stage.putSegment(name)
  assert.equal(
    await failure(stage.start().archive(name)),
    `UNREACHABLE: could not open file "${stage.root}/pgarchivist-repository.json": Too many levels of symbolic links\nHINT: Symbolic links are not followed in a repository: put in its place what it leads to.`,
  )
})

// Things that are no files

test('a pipe or a directory in place of an object is damage, and nobody waits for it', async () => {
  for (const make of [
    (path: string) => mkdir(path),
    async (path: string) => void execFileSync('mkfifo', [path]),
  ]) {
    await using stage = await stageWithFile()
    await make(stage.objectPath(next))
    const { archive, fetch } = stage.start()
    const said = `CORRUPT: "${stage.objectPath(next)}" is not a file\nHINT: `
    assert.ok((await failure(fetch(next))).startsWith(said))
    assert.ok((await failure(archive(next))).startsWith(said))
  }
})

test('a file in place of a directory is told', async () => {
  await using stage = await realStage()
  await stage.putSegment(name)
  await stage.start().archive(name)
  await rm(join(stage.root, anySystemIdentifier), { recursive: true })
  await writeFile(join(stage.root, anySystemIdentifier), '')
  const { archive, fetch } = stage.start()
  assert.match(
    await failure(fetch(name)),
    /^UNREACHABLE: could not open file ".*\.pgarchivist": Not a directory\nHINT: There is a file where a directory of the repository belongs: move it away\.$/,
  )
  await assert.rejects(archive(name), { code: 'UNREACHABLE' })
})

// Owners

test('a repository that may not be written or read by the server is told, with the remedy', async () => {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can become somebody else')
  await using stage = await stageWithFile()
  const uid = unprivileged.uid ?? 0
  const own = async (...paths: string[]) => {
    for (const path of paths) await chown(path, uid, uid)
  }
  await own(
    stage.data,
    join(stage.data, 'pg_wal'),
    join(stage.data, 'pg_wal', name),
    join(stage.data, 'pg_wal', next),
  )
  await rm(join(stage.data, 'pgarchivist'), { recursive: true })
  await chmod(stage.above, 0o755)
  const hint = 'HINT: Let the user that PostgreSQL runs as own the directory of the repository.'
  const marker = `${stage.root}/pgarchivist-repository.json`
  const becomeRoot = becomeUnprivileged()
  const { archive, fetch } = stage.start()
  const closed = await failure(archive(next))
  const unread = await failure(fetch(name))
  becomeRoot()
  assert.equal(closed, `UNREACHABLE: could not open file "${marker}": Permission denied\n${hint}`)
  assert.equal(unread, closed)

  // It may look, but not write.
  execFileSync('chmod', ['-R', 'a+rX', stage.root])
  const becomeRootAgain = becomeUnprivileged()
  const refused = await failure(stage.start().archive(next))
  const read = await stage.start().fetch(name)
  becomeRootAgain()
  assert.match(
    refused,
    /^UNREACHABLE: could not create file ".*\/\.000000010000000000000002\.pgarchivist\.[0-9a-f]{16}\.tmp": Permission denied\nHINT: Let the user that PostgreSQL runs as own the directory of the repository\.$/,
  )
  assert.deepEqual(read, walSegment({ name }))
})

test('what root stores belongs to the owner of the cluster', async () => {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can give files away')
  const owner = { uid: 1234, gid: 2345 }
  await using stage = await realStage()
  await stage.putSegment(name)
  // Root was cut off before it could give these away.
  await mkdir(join(stage.root, anySystemIdentifier, 'wal'), { recursive: true, mode: 0o700 })
  await writeFile(
    join(stage.root, 'pgarchivist-repository.json'),
    JSON.stringify({ format: 1, id: '00000000-0000-4000-8000-000000000001' }),
  )
  await mkdir(join(stage.data, 'pgarchivist'))
  // This one is somebody else's, and stays so.
  await mkdir(join(stage.root, anySystemIdentifier, 'wal/00000001'))
  await chown(join(stage.root, anySystemIdentifier, 'wal/00000001'), 77, 77)
  await stage.start({ owner }).archive(name)
  const parts = keyOf(name).split('/')
  for (let length = 1; length <= parts.length; length++) {
    const { uid, gid } = await stat(join(stage.root, ...parts.slice(0, length)))
    assert.deepEqual([uid, gid], length === 3 ? [77, 77] : [1234, 2345], parts.slice(0, length).join('/'))
  }
  for (const path of [dirname(stage.knownPath), stage.knownPath]) {
    const { uid, gid } = await stat(path)
    assert.deepEqual({ uid, gid }, owner, path)
  }
})

test('a marker that root makes belongs to the owner of the cluster', async () => {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can give files away')
  await using stage = await realStage()
  await stage.putSegment(name)
  await stage.start({ owner: { uid: 1234, gid: 2345 } }).archive(name)
  const { uid, gid } = await stat(join(stage.root, 'pgarchivist-repository.json'))
  assert.deepEqual([uid, gid], [1234, 2345])
})

// Listing

async function listed(store: LocalStore, prefix = ''): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.list(prefix)) keys.push(key)
  return keys
}

test('all objects are listed in the order of their keys, and nothing that is not complete', async () => {
  await using stage = await realStage()
  const { store, archive } = stage.start()
  const names = [
    '000000010000000000000002',
    name,
    '00000002.history',
    '0000000100000001000000AA',
    `${name}.partial`,
  ]
  for (const each of names) {
    await stage.put(each, each.endsWith('.history') ? 'x' : walSegment({ name: each }))
    await archive(each)
  }
  const directory = dirname(stage.objectPath(name))
  const writer = '0123456789abcdef'
  for (const each of [
    `.${next}.pgarchivist.${writer}.tmp`,
    `${next}.pgarchivist.lock..${next}.pgarchivist.${writer}.tmp`,
  ]) {
    await writeFile(join(directory, each), '')
  }
  await writeFile(join(stage.root, 'notes'), '')
  await mkdir(join(stage.root, 'lost+found'))
  await writeFile(join(stage.root, 'lost+found/x'), '')
  const expected = [...names.map(keyOf), 'notes', 'pgarchivist-repository.json'].toSorted()
  assert.deepEqual(await listed(store), expected)
  const prefix = `${anySystemIdentifier}/wal/00000001/`
  assert.deepEqual(
    await listed(store, prefix),
    expected.filter(key => key.startsWith(prefix)),
  )
  assert.deepEqual(await listed(store, `${anySystemIdentifier}/wal/00000009/`), [])
  assert.deepEqual([await store.mayHave(prefix), await store.mayHave('42/wal/')], [true, false])
})

test('a link to a directory is listed and not followed, also one that leads back to itself', async () => {
  await using stage = await stageWithFile()
  await symlink('/etc', join(stage.root, 'etc'))
  await symlink('.', join(stage.root, anySystemIdentifier, 'self'))
  const { store } = stage.start()
  assert.deepEqual(await listed(store), [
    `${anySystemIdentifier}/self`,
    keyOf(name),
    'etc',
    'pgarchivist-repository.json',
  ])
})

test('a root that is gone has no list, which is not an empty one', async () => {
  await using stage = await stageWithFile()
  const { store } = stage.start()
  await rm(stage.root, { recursive: true })
  await assert.rejects(listed(store), {
    code: 'UNREACHABLE',
    message: `could not read directory "${stage.root}": No such file or directory`,
  })
})

test('the root of a file system can be a repository as far as paths go', async () => {
  const store = new LocalStore({
    files: realFiles,
    clock: { now: () => 0 },
    directory: '/',
    writer: '',
    isGroupReadable: false,
  })
  assert.equal(store.url, 'file:///')
  assert.equal(await store.isEmpty(), false)
  assert.equal(await store.open('pgarchivist-repository.json'), undefined)
  assert.equal(await store.mayHave('etc/'), true)
})

// What processes leave that were killed

/** As on FAT and on some network file systems. */
const withoutHardLinks: Files = {
  ...realFiles,
  link: async () => Promise.reject(Object.assign(new Error('no hard links'), { code: 'EPERM' })),
}

test('without hard links, the lock of a process keeps others out until it has ended, and not longer', async () => {
  await using stage = await stageWithFile()
  const directory = dirname(stage.objectPath(next))
  const own = await ownMark(realFiles)
  await using other = await markedProcess()
  const start = () => stage.start({ files: withoutHardLinks, writer: 'archive-push 2', process: own })
  const early = start()
  const left = temporaryName(`${next}.pgarchivist`, '0123456789abcdef', other.mark)
  const lock = join(directory, `${next}.pgarchivist.lock.${left}`)
  for (const path of [lock, join(directory, left)]) await writeFile(path, '')
  assert.equal(
    await failure(early.archive(next)),
    `UNREACHABLE: file "${stage.objectPath(next)}" is locked by "${lock}" of process ${other.mark.pid} on host "${other.mark.host}"\n` +
      'HINT: Remove the lock if nobody is writing there. That of a process which has ended on this machine is removed by the next one.',
  )
  assert.ok((await readdir(directory)).includes(left))
  await other.end()
  // Two may come at once and find each other's, but not this one.
  await Promise.allSettled([early.archive(next), start().archive(next)])
  assert.match(await start().archive(next), /archived/)
  assert.deepEqual((await readdir(directory)).toSorted(), [`${name}.pgarchivist`, `${next}.pgarchivist`])
})

test('without hard links, a lock that was left while the directory was in use does not keep out for long either', async () => {
  await using stage = await stageWithFile()
  const { archive } = stage.start({ files: withoutHardLinks, process: await ownMark(realFiles) })
  await archive(name)
  await using other = await markedProcess()
  const left = temporaryName(`${next}.pgarchivist`, '0123456789abcdef', other.mark)
  await writeFile(`${stage.objectPath(next)}.lock.${left}`, '')
  await other.end()
  assert.equal(await archive(next), 'archived')
  assert.deepEqual((await readdir(dirname(stage.objectPath(next)))).toSorted(), [
    `${name}.pgarchivist`,
    `${next}.pgarchivist`,
  ])
})

test('without hard links, the lock of another machine stays, and of one that does not tell', async () => {
  await using stage = await stageWithFile()
  const own = await ownMark(realFiles)
  await using other = await markedProcess({ host: 'db2', machine: '1'.repeat(16), boot: '1'.repeat(16) })
  await other.end()
  for (const [mark, of] of [
    [other.mark, ` of process ${other.mark.pid} on host "db2"`],
    [undefined, ''],
  ] as const) {
    const left = temporaryName(`${next}.pgarchivist`, '0123456789abcdef', mark)
    const lock = `${stage.objectPath(next)}.lock.${left}`
    await writeFile(lock, '')
    const { archive } = stage.start({ files: withoutHardLinks, process: own })
    const said = await failure(archive(next))
    assert.ok(
      said.startsWith(`UNREACHABLE: file "${stage.objectPath(next)}" is locked by "${lock}"${of}\nHINT: `),
      said,
    )
    await rm(lock)
    assert.equal(await archive(next), 'archived')
    await rm(stage.objectPath(next))
  }
})

test('what a process was writing when it was killed is removed by the next one, whoever that is', async () => {
  await using stage = await stageWithFile()
  const directory = dirname(stage.objectPath(next))
  const own = await ownMark(realFiles)
  await using dead = await markedProcess()
  await dead.end()
  await using living = await markedProcess()
  await using elsewhere = await markedProcess({ host: 'db2', machine: '1'.repeat(16), boot: '1'.repeat(16) })
  const left = (mark: ProcessMark) => temporaryName(`${next}.pgarchivist`, '0123456789abcdef', mark)
  for (const { mark } of [dead, living, elsewhere]) await writeFile(join(directory, left(mark)), 'half')
  assert.equal(await stage.start({ writer: 'archive-push 2', process: own }).archive(next), 'archived')
  assert.deepEqual(
    (await readdir(directory)).toSorted(),
    [left(living.mark), left(elsewhere.mark), `${name}.pgarchivist`, `${next}.pgarchivist`].toSorted(),
  )
})

test('a writer removes what it has left in an earlier life, also of another container', async () => {
  await using stage = await stageWithFile()
  const own = await ownMark(realFiles)
  assert.ok(own)
  let during: string[] = []
  const directory = dirname(stage.objectPath(next))
  const files: Files = {
    ...realFiles,
    link: async (from, to) => {
      during = await readdir(directory)
      await realFiles.link(from, to)
    },
  }
  await stage.start({ files, process: { ...own, pidNamespace: '1' } }).archive(next)
  const [temporary = ''] = during.filter(each => each.endsWith('.tmp'))
  await writeFile(join(directory, temporary), 'half')
  assert.equal(await stage.start({ process: own }).archive(next), 'already archived')
  assert.deepEqual((await readdir(directory)).toSorted(), [`${name}.pgarchivist`, `${next}.pgarchivist`])
})
