// archive-push as the archive_command of a server: 0 means that the server may forget the file.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { identityOf } from '../src/host/file-identity.ts'
import { temporaryName } from '../src/repository/store/unfinished-write.ts'
import type { ProcessMark } from '../src/system/process-mark.ts'
import { realFiles } from '../src/system/real-files.ts'
import { RestoreStage, systemIdentifier } from './restore/restore-stage.ts'
import { markedProcess } from './support/marked-process.ts'
import { startPostgres } from './support/postgresql-server.ts'
import { checkout, privateDirectory, temporaryDirectory, unprivileged } from './support/unprivileged.ts'
import { walSegment } from './support/wal-segment.ts'

const segment = (number: number) =>
  `0000000100000000000000${number.toString(16).toUpperCase().padStart(2, '0')}`
const first = segment(1)
const version18 = 0xd118

interface Pushed {
  status: number | null
  stderr: string
}

/** A server's data directory with segments that are ready, and archive-push as the server runs it. */
async function pushStage(options: { ready?: number[] } = {}) {
  const stage = await RestoreStage.create()
  await privateDirectory(stage.path('pg_wal/archive_status'))
  const ready = async (number: number, seed = 1) => {
    await stage.put(
      `pg_wal/${segment(number)}`,
      walSegment({ name: segment(number), systemIdentifier, magic: version18, seed }),
    )
    await stage.put(`pg_wal/archive_status/${segment(number)}.ready`, '')
  }
  for (const number of options.ready ?? [1]) await ready(number)
  const push = async (args: string[], env: NodeJS.ProcessEnv = {}): Promise<Pushed> => {
    const launcher = join(await checkout(), 'bin/pgarchivist')
    const child = spawn(launcher, ['archive-push', ...args], {
      ...unprivileged,
      env,
      cwd: stage.data,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const [stderr, [status]] = await Promise.all([text(child.stderr), once(child, 'close')])
    return { status: status as number | null, stderr }
  }
  return {
    stage,
    ready,
    push,
    objects: async () =>
      (await readdir(stage.repository, { recursive: true })).filter(isObject).map(baseName),
    [Symbol.asyncDispose]: () => stage[Symbol.asyncDispose](),
  }
}

const isObject = (path: string) => path.endsWith('.pgarchivist')
const baseName = (path: string) => path.slice(path.lastIndexOf('/') + 1, -'.pgarchivist'.length)

test('a file is archived, and archived again without a word', async () => {
  await using at = await pushStage()
  const begun = await at.push([`pg_wal/${first}`])
  assert.equal(begun.status, 0)
  assert.match(
    begun.stderr,
    /^pgarchivist: began a new repository at "file:\/\/\S+", with id [0-9a-f-]{36}\n$/,
  )
  assert.deepEqual(await at.push([`pg_wal/${first}`]), { status: 0, stderr: '' })
  assert.deepEqual(await at.push([at.stage.path(`pg_wal/${first}`)]), { status: 0, stderr: '' })
  assert.deepEqual(await at.objects(), [first])
  assert.equal((await at.stage.get(first)).status, 0)
  assert.deepEqual(
    await readFile(at.stage.path('pg_wal/RECOVERYXLOG')),
    await readFile(at.stage.path(`pg_wal/${first}`)),
  )
})

test('where another process has noted that an fsync failed, what is there is written anew', async () => {
  await using at = await pushStage()
  await at.push([`pg_wal/${first}`])
  const inode = async () => (await stat(await at.stage.objectPath(first))).ino
  const before = await inode()
  assert.equal((await at.push([`pg_wal/${first}`])).status, 0)
  assert.equal(await inode(), before)
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  await at.stage.put(`pgarchivist/failed-fsync.${boot}`, '')
  // While the one that is there is open, its number is not given to another file.
  await using _ = await open(await at.stage.objectPath(first))
  assert.deepEqual(await at.push([`pg_wal/${first}`]), { status: 0, stderr: '' })
  assert.notEqual(await inode(), before)
})

test('what a killed one was writing is removed by the next one, and not what another one is writing', async () => {
  await using at = await pushStage()
  await at.push([`pg_wal/${first}`])
  const directory = dirname(await at.stage.objectPath(first))
  const { uid } = unprivileged
  await using dead = await markedProcess({ uid })
  await dead.end()
  await using living = await markedProcess({ uid })
  const left = ({ mark }: { mark: ProcessMark }) =>
    temporaryName(`${first}.pgarchivist`, '0123456789abcdef', mark)
  for (const each of [dead, living]) await writeFile(join(directory, left(each)), 'half')
  assert.deepEqual(await at.push([`pg_wal/${first}`]), { status: 0, stderr: '' })
  assert.deepEqual(await readdir(directory), [left(living), `${first}.pgarchivist`])
})

test('other content is refused with status 4, and what is there stays', async () => {
  await using at = await pushStage()
  await at.push([`pg_wal/${first}`])
  const object = await readFile(await at.stage.objectPath(first))
  await at.ready(1, 2)
  const { status, stderr } = await at.push([`pg_wal/${first}`])
  assert.equal(status, 4)
  assert.match(
    stderr,
    /^pgarchivist: could not archive "0{7}10{15}1": archive file "0{7}10{15}1" already exists with other content\. .*\n$/,
  )
  assert.deepEqual(await readFile(await at.stage.objectPath(first)), object)
})

test('a damaged object of its name is told apart with status 5', async () => {
  await using at = await pushStage()
  await at.push([`pg_wal/${first}`])
  const path = await at.stage.objectPath(first)
  const object = await readFile(path)
  object[5_000]! ^= 1
  await chmod(path, 0o600)
  await writeFile(path, object)
  const { status, stderr } = await at.push([`pg_wal/${first}`])
  assert.equal(status, 5)
  assert.match(stderr, /is damaged/)
})

test('a repository that is not there is status 2, and nothing is made in its place', async () => {
  await using at = await pushStage()
  await at.push([`pg_wal/${first}`])
  await rename(at.stage.repository, `${at.stage.repository}.away`)
  const gone = await at.push([`pg_wal/${first}`])
  assert.equal(gone.status, 2)
  await assert.rejects(stat(at.stage.repository), { code: 'ENOENT' })
  // An empty directory, as where a disk was mounted before.
  await privateDirectory(at.stage.repository)
  const { status, stderr } = await at.push([`pg_wal/${first}`])
  assert.equal(status, 2)
  assert.match(stderr, /repository "file:\S+" is gone: "pgarchivist-repository\.json" is missing\./)
  assert.deepEqual(await readdir(at.stage.repository), [])
  await rm(at.stage.repository, { recursive: true })
  await rename(`${at.stage.repository}.away`, at.stage.repository)
  assert.equal((await at.push([`pg_wal/${first}`])).status, 0)
})

test('what a repository lacks that the others suffice for is told with what brings it there', async () => {
  await using at = await pushStage()
  const urls = `file://${at.stage.repository},file://${at.stage.repository}.away`
  const args = ['--repository', urls, '--repository-quorum', '1', `pg_wal/${first}`]
  const { status, stderr } = await at.push(args)
  assert.equal(status, 0, stderr)
  assert.match(
    stderr,
    /^pgarchivist: could not archive "\w+" in repository "file:\S+\.away": could not open .* The others suffice\. This one lacks the file until "pgarchivist catch-up" runs, which archive-push does not do by itself\.$/m,
  )
})

test('a wrong setting or command line is status 3, with a line that names it', async () => {
  await using at = await pushStage()
  const url = await at.push(['--repository', 'srv/wal', `pg_wal/${first}`])
  assert.equal(url.status, 3)
  assert.match(
    url.stderr,
    /^pgarchivist: could not archive "\w+": .*repository "srv\/wal" is not a URL, in option "--repository"\. Write .*\n$/,
  )
  const level = await at.push(['--compression-level', '20', `pg_wal/${first}`])
  assert.equal(level.status, 3)
  assert.match(
    level.stderr,
    /20 is outside the valid range for parameter "pgarchivist\.compression_level" \(1 \.\. 19\)/,
  )
  const recipient = await at.push(['--encryption-recipients', 'age1nothing', `pg_wal/${first}`])
  assert.equal(recipient.status, 3)
  assert.equal((await at.push([])).status, 3)
  assert.equal((await at.push(['--nonsense', first])).status, 3)
  assert.deepEqual(await at.objects(), [])
})

// It was told that the system identifier could not be read, with the advice to name the data directory.
test('a data directory that was named and is none is told as that', async () => {
  await using at = await pushStage()
  const url = `file://${at.stage.repository}`
  const hint = 'Name the data directory of the server with -D.'
  for (const [named, what] of [
    ['missing', 'does not exist'],
    ['PG_VERSION', 'is not a directory'],
  ] as const) {
    const ended = await at.push(['-D', named, '--repository', url, `pg_wal/${first}`])
    assert.deepEqual(ended, {
      status: 3,
      stderr: `pgarchivist: could not archive "${first}": data directory "${at.stage.path(named)}" ${what}. ${hint}\n`,
    })
  }
  assert.deepEqual(await at.objects(), [])
})

test('a misspelt setting is told, because what it should have said would not be done', async () => {
  await using at = await pushStage()
  const conf = await readFile(at.stage.path('postgresql.conf'), 'utf8')
  await at.stage.put(
    'postgresql.conf',
    `${conf}pgarchivist.encryption_recipient = 'age1'\npgarchivist.module = 'x'\n`,
  )
  const { status, stderr } = await at.push([`pg_wal/${first}`])
  assert.equal(status, 3)
  assert.match(
    stderr,
    /unrecognized configuration parameter "pgarchivist\.encryption_recipient" in file ".*\/postgresql\.conf" line 2/,
  )
  assert.deepEqual(await at.objects(), [])
})

test('whatever breaks Node is a failure that the archiver survives, never success', async () => {
  await using at = await pushStage()
  const { status, stderr } = await at.push([`pg_wal/${first}`], { PGARCHIVIST_NODE: '/bin/true' })
  assert.equal(status, 7)
  assert.match(stderr, /"\/bin\/true" is not a Node of version/)
  const ended = await at.push([`pg_wal/${first}`], { NODE_OPTIONS: '--nonsense', NODE_V8_COVERAGE: '' })
  assert.equal(ended.status, 0, 'options for other programs are not for this one')
})

test('a file of another cluster is refused', async () => {
  await using at = await pushStage()
  await at.stage.put(`pg_wal/${first}`, walSegment({ name: first, systemIdentifier: '42', magic: version18 }))
  const { status, stderr } = await at.push([`pg_wal/${first}`])
  assert.equal(status, 4)
  assert.match(
    stderr,
    /file "0{7}10{15}1" belongs to another cluster\. Its system identifier is 42, that of this cluster is 7123456789012345678\./,
  )
})

test('a note of a process that does not live is not believed', async () => {
  await using at = await pushStage()
  const notes = 'pg_wal/pgsql_tmp.archive-push'
  await privateDirectory(at.stage.path(notes))
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(at.stage.path(`pg_wal/${first}`), { bigint: true })
  const seconds = (ns: bigint) =>
    `${ns / 1_000_000_000n}.${(ns % 1_000_000_000n).toString().padStart(9, '0')}`
  const identity = `${dev} ${ino} ${size} ${seconds(mtimeNs)} ${seconds(ctimeNs)}`
  await at.stage.put(`${notes}/${first}.archived`, `${identity}\n`)
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  const self = await readFile('/proc/self/stat', 'utf8')
  const start = self.slice(self.lastIndexOf(')') + 2).split(' ')[19]
  // Of a process that has this number now and started at another time, and of another start of the machine.
  for (const state of [
    `${boot} ${process.pid} 1`,
    `${boot.replace(/^./, 'x')} ${process.pid} ${start}`,
    '',
    'x',
  ]) {
    await at.stage.put(`${notes}/state`, `${state}\n`)
    await at.push([`pg_wal/${first}`])
    assert.deepEqual(await at.objects(), [first], state)
    await rm(await at.stage.objectPath(first), { force: true })
  }
  // Of one that lives, about this very file: nothing is archived a second time.
  await at.stage.put(`${notes}/state`, `${boot} ${process.pid} ${start}\n:::::\nend\n`)
  assert.deepEqual(await at.push([`pg_wal/${first}`]), { status: 0, stderr: '' })
  assert.deepEqual(await at.objects(), [])
  // What is noted of the files of settings has to be so, all of it.
  const conf = at.stage.path('postgresql.conf')
  const configuration = { path: conf, identity: identityOf(await realFiles.stat(conf)) }
  const note = (...lines: string[]) =>
    at.stage.put(`${notes}/state`, [`${boot} ${process.pid} ${start}`, ':::::', ...lines, ''].join('\n'))
  await note(configuration.identity, conf, 'end')
  assert.deepEqual(await at.push([`pg_wal/${first}`]), { status: 0, stderr: '' })
  assert.deepEqual(await at.objects(), [])
  for (const lines of [
    [configuration.identity, conf],
    [configuration.identity, `${conf}.else`, 'end'],
    [configuration.identity.replace(/.$/, 'x'), conf, 'end'],
    [configuration.identity, 'end'],
  ]) {
    await note(...lines)
    assert.equal((await at.push([`pg_wal/${first}`])).status, 0)
    assert.deepEqual(await at.objects(), [first], lines.join(', '))
    await rm(await at.stage.objectPath(first), { force: true })
  }
  await note(configuration.identity, conf, 'end')
  // About another file of this name.
  await at.ready(1, 3)
  assert.equal((await at.push([`pg_wal/${first}`])).status, 0)
  assert.deepEqual(await at.objects(), [first])
})

const patienceMs = 60_000
const directory = await temporaryDirectory()
after(() => directory[Symbol.asyncDispose]())

test('a server that has a backlog is helped by a process that archives ahead, which ends with the server', async () => {
  const repository = join(directory.path, 'repository')
  await privateDirectory(repository)
  const launcher = join(await checkout(), 'bin/pgarchivist')
  const dataDirectory = join(directory.path, 'data')
  await using server = await startPostgres({
    major: 18,
    dataDirectory,
    walSegmentMegabytes: 1,
    settings: { archive_mode: 'on', archive_library: '', archive_command: 'false', wal_keep_size: '128MB' },
  })
  for (let file = 0; file < 20; file++) {
    await server.query(`SELECT pg_logical_emit_message(false, 'push', repeat('x', 1024 * 1024 - 5000))`)
    await server.switchWal()
  }
  const status = () => readdir(join(dataDirectory, 'pg_wal/archive_status'))
  await server.query(`ALTER SYSTEM SET archive_command = '${launcher} archive-push "%p"'`)
  // The server does not know this setting, so it cannot be altered; it need not.
  await writeFile(
    join(dataDirectory, 'postgresql.conf'),
    `${await readFile(join(dataDirectory, 'postgresql.conf'), 'utf8')}\npgarchivist.repository = 'file://${repository}'\n`,
  )
  await server.query('SELECT pg_reload_conf()')
  const deadline = Date.now() + patienceMs
  while ((await status()).some(name => name.endsWith('.ready'))) {
    assert.ok(Date.now() < deadline, await server.log())
    await sleep(50)
  }
  const state = await readFile(join(dataDirectory, 'pg_wal/pgsql_tmp.archive-push/state'), 'utf8')
  const helper = Number(state.split(' ')[1])
  const named = state
    .split('\n')
    .slice(2)
    .filter((_, index) => index % 2 === 1)
  for (const name of ['postmaster.opts', 'postgresql.conf', 'postgresql.auto.conf']) {
    assert.ok(named.includes(join(dataDirectory, name)), name)
  }
  assert.ok(state.endsWith('\nend\n'))
  assert.match(await readFile(`/proc/${helper}/cmdline`, 'latin1'), /^pgarchivist: archive-push/)
  const done = (await status()).map(name => name.slice(0, -'.done'.length))
  const stored = (await readdir(repository, { recursive: true })).filter(isObject).map(baseName)
  assert.deepEqual(stored.toSorted(), done.toSorted())
  await server.stop('fast')
  while (
    await readFile(`/proc/${helper}/cmdline`).then(
      bytes => bytes.length > 0,
      () => false,
    )
  ) {
    assert.ok(Date.now() < deadline, 'the process that archives ahead outlives the server')
    await sleep(50)
  }
})
