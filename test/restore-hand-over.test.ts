// How a file that was fetched ahead gets to the server: by the launcher alone, if nothing speaks against it. Here the
// test plays the fetcher. Whatever the launcher does not answer is answered with 205, because there is no Node.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, readlink, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { plaintextDigest } from '../src/repository/codec/plaintext-digest.ts'
import { parseRepositoryUrl } from '../src/repository/repository-url.ts'
import { fileUrl } from '../src/repository/store/local-store.ts'
import { handOver } from '../src/restore/hand-over.ts'
import { type Answer, type Question, Spool, sourceMark } from '../src/restore/spool.ts'
import { realClock } from '../src/system/clock.ts'
import type { Files } from '../src/system/files.ts'
import { identityOf, type ProcessIdentity, printIdentity } from '../src/system/process-identity.ts'
import { realFiles } from '../src/system/real-files.ts'
import { fetcherPid, isFetcher, spoolOf, until } from './restore/archived-server.ts'
import { type GetOptions, type Got, RestoreStage, systemIdentifier } from './restore/restore-stage.ts'
import { giveAway, privateDirectory } from './support/unprivileged.ts'

const name = '00000001000000A900000065'
const content = randomBytes(1024 * 1024)
const self = await identityOf(realFiles, process.pid)
assert.ok(self)
const boot = self.boot

const withoutNode = { PGARCHIVIST_NODE: '/bin/false' }

class FetchedStage implements AsyncDisposable {
  readonly stage: RestoreStage
  readonly spool: Spool

  private constructor(stage: RestoreStage) {
    this.stage = stage
    this.spool = new Spool(realFiles, spoolOf(stage.data), 0o600)
  }

  static async create(): Promise<FetchedStage> {
    const fetched = new FetchedStage(await RestoreStage.create())
    await privateDirectory(fetched.spool.directory)
    await fetched.writeState()
    await fetched.putFile()
    return fetched
  }

  get source(): string {
    return sourceMark([parseRepositoryUrl(fileUrl(this.stage.repository))], systemIdentifier)
  }

  async writeState(how: { fetcher?: ProcessIdentity; handOver?: 'rename' | 'copy'; options?: string } = {}) {
    const { fetcher = self, handOver = 'rename', options = ':' } = how
    assert.ok(fetcher)
    await this.spool.writeState(fetcher, { handOver, options, source: this.source })
    await giveAway(this.spool.path('state'))
  }

  async putFile(bytes: Uint8Array = content, { of = boot, source = this.source } = {}): Promise<void> {
    const path = this.spool.path(name)
    await writeFile(path, bytes, { mode: 0o600 })
    await giveAway(path)
    const identity = await this.spool.fileIdentity(of, name)
    await using file = await realFiles.open(path, 'read')
    const { digest } = await plaintextDigest(file)
    await this.spool.writeVerified(name, { identity, digest, source }, process.pid)
    await giveAway(this.spool.verifiedPath(name))
  }

  get(options: GetOptions = {}): Promise<Got> {
    return this.stage.get(name, { env: withoutNode, ...options })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stage[Symbol.asyncDispose]()
  }
}

for (const shell of [[], ['/bin/bash', '--posix']]) {
  test(`the launcher hands over a file without Node${shell.length ? ', with bash as shell' : ''}`, async () => {
    for (const options of [
      {},
      { dest: './pg_wal/RECOVERYXLOG' },
      { env: { ...withoutNode, PATH: '' } },
      { env: { ...withoutNode, PATH: '/nowhere', IFS: '0123456789', LC_ALL: 'C.UTF-8' } },
    ] satisfies GetOptions[]) {
      await using fetched = await FetchedStage.create()
      const got = await fetched.get({ ...options, shell })
      assert.deepEqual(got, { status: 0, signal: null, stdout: '', stderr: '' })
      assert.ok(content.equals(await readFile(fetched.stage.path('pg_wal/RECOVERYXLOG'))))
      assert.ok(!(await fetched.stage.wal()).includes(`pgsql_tmp.pgarchivist/${name}`))
    }
  })
}

test('it replaces what stands in the place, and finds it by absolute paths with spaces too', async () => {
  await using fetched = await FetchedStage.create()
  await fetched.stage.put('pg_wal/RECOVERYXLOG', 'before')
  const data = join(fetched.stage.directory.path, 'the data')
  await rename(fetched.stage.data, data)
  const got = await fetched.get({ cwd: '/', dest: join(data, 'pg_wal/RECOVERYXLOG') })
  assert.deepEqual(got, { status: 0, signal: null, stdout: '', stderr: '' })
  assert.ok(content.equals(await readFile(join(data, 'pg_wal/RECOVERYXLOG'))))
})

test('options that the fetcher was started with are no obstacle', async () => {
  await using fetched = await FetchedStage.create()
  const args = ['--repository', 'file:///x y', '-D', '.']
  await fetched.writeState({ options: 'r:1 --repository file:///x y -D .' })
  const env = { ...withoutNode, PGARCHIVIST_REPOSITORY: 'r', PGARCHIVIST_SYSTEM_IDENTIFIER: '1' }
  assert.equal((await fetched.get({ args, env })).status, 0)
})

/** What makes the launcher leave it to Node. */
const doubts: Array<[string, (fetched: FetchedStage) => Promise<GetOptions | void>]> = [
  ['the file was written to', async ({ spool }) => writeFile(spool.path(name), 'x', { flag: 'r+' })],
  [
    'the file was written to and got its old time back',
    async ({ spool }) => {
      const { atime, mtime } = await stat(spool.path(name))
      await writeFile(spool.path(name), 'x', { flag: 'r+' })
      await utimes(spool.path(name), atime, mtime)
    },
  ],
  [
    'another file of the same size is in its place',
    async ({ spool }) => {
      await writeFile(spool.path('other'), randomBytes(content.length), { mode: 0o600 })
      await giveAway(spool.path('other'))
      await rename(spool.path('other'), spool.path(name))
    },
  ],
  ['the file is gone', async ({ spool }) => rm(spool.path(name))],
  ['it was not verified', async ({ spool }) => rm(spool.verifiedPath(name))],
  ['it is from before the machine was started', async fetched => fetched.putFile(content, { of: 'another' })],
  [
    'the fetcher is from before the machine was started',
    async fetched => fetched.writeState({ fetcher: { ...self, boot: 'another' } }),
  ],
  [
    'the fetcher has ended, and another process has its number',
    async fetched => fetched.writeState({ fetcher: { ...self, start: String(Number(self.start) - 1) } }),
  ],
  [
    'the fetcher has ended',
    async fetched => fetched.writeState({ fetcher: { ...self, pid: spawnSync('/bin/true').pid } }),
  ],
  ['the fetcher says that it cannot be renamed', async fetched => fetched.writeState({ handOver: 'copy' })],
  ['there is no fetcher', async ({ spool }) => rm(spool.path('state'))],
  [
    'the fetcher has just begun to say who it is',
    async ({ spool }) => writeFile(spool.path('state'), `${boot} 1`),
  ],
  [
    'the state is nonsense',
    async ({ spool }) => writeFile(spool.path('state'), `${boot} ../self 0 rename\n:\n`),
  ],
  ['another repository is named', async () => ({ args: ['--repository', 'file:///elsewhere'] })],
  [
    'another repository is in the environment',
    async () => ({ env: { ...withoutNode, PGARCHIVIST_REPOSITORY: 'x' } }),
  ],
  ['somebody else than the recovery asks', async () => ({ dest: 'pg_wal/elsewhere' })],
  [
    'a directory is in the place of DEST',
    async ({ stage }) => mkdir(stage.path('pg_wal/RECOVERYXLOG')).then(() => undefined),
  ],
  [
    'stat is another program than that of GNU',
    async ({ stage }) => {
      const directory = await stage.directoryFor('bin')
      await writeFile(join(directory, 'stat'), '#!/bin/sh\necho "1 2 3 %.9Y %.9Z"\n')
      await chmod(join(directory, 'stat'), 0o755)
      return { env: { ...withoutNode, PATH: directory } }
    },
  ],
  ['the spool may not be changed', async ({ spool }) => chmod(spool.directory, 0o500)],
]

for (const [doubt, cause] of doubts) {
  test(`Node is asked, and nothing changed, when ${doubt}`, async () => {
    await using fetched = await FetchedStage.create()
    const options = (await cause(fetched)) ?? {}
    const before = await fetched.stage.wal()
    const { status, stderr } = await fetched.get(options)
    assert.equal(stderr.replace(/^pgarchivist: "\/bin\/false" is not a Node.*\n$/, ''), '')
    assert.equal(status, 205)
    await chmod(fetched.spool.directory, 0o700)
    assert.deepEqual(await fetched.stage.wal(), before)
  })
}

/** Answers one question as a fetcher would that has found out `answer`, and returns what was asked. */
async function answerOnce(fetched: FetchedStage, answer: Answer): Promise<string> {
  const { spool } = fetched
  let asked: Question | undefined
  await until('somebody asks', async () => ([asked] = await spool.questions())[0] !== undefined)
  assert.ok(asked)
  await spool.takeQuestion(asked)
  // It has to belong to the server's user when it appears.
  await spool.answer({ ...asked, id: 'to-come' }, answer, process.pid)
  await giveAway(spool.path('answer.to-come'))
  await rename(spool.path('answer.to-come'), spool.path(`answer.${asked.id}`))
  return asked.name
}

for (const shell of [[], ['/bin/bash', '--posix']]) {
  test(`the launcher asks the fetcher for what it does not find${shell.length ? ', with bash as shell' : ''}`, async () => {
    await using fetched = await FetchedStage.create()
    const { stage } = fetched
    const other = '00000001000000A900000066'
    const ask = async (wanted: string, dest: string, answer: Answer) => {
      const [got, asked] = await Promise.all([
        stage.get(wanted, { env: withoutNode, dest, shell }),
        answerOnce(fetched, answer),
      ])
      assert.equal(asked, wanted)
      return got
    }
    const silent = { signal: null, stdout: '', stderr: '' }
    assert.deepEqual(await ask(other, 'pg_wal/RECOVERYXLOG', 'not-there'), { status: 1, ...silent })
    assert.deepEqual(await ask('00000002.history', 'pg_wal/RECOVERYHISTORY', 'not-there'), {
      status: 1,
      ...silent,
    })
    const { status, stderr } = await ask(other, 'pg_wal/RECOVERYXLOG', 'unknown')
    assert.equal(status, 205)
    assert.match(stderr, /^pgarchivist: "\/bin\/false" is not a Node/)
    // It says so, but it is not there: the launcher looks for itself.
    assert.equal((await ask(other, 'pg_wal/RECOVERYXLOG', 'fetched')).status, 205)

    await rename(fetched.spool.path(name), fetched.spool.path('00000002.history'))
    const identity = await fetched.spool.fileIdentity(boot, '00000002.history')
    const verified = { identity, digest: 'x', source: fetched.source }
    const [got] = await Promise.all([
      stage.get('00000002.history', { env: withoutNode, dest: 'pg_wal/RECOVERYHISTORY', shell }),
      until('it asks', async () => (await fetched.spool.questions()).length > 0).then(async () => {
        await fetched.spool.writeVerified('00000002.history', verified, process.pid)
        await giveAway(fetched.spool.verifiedPath('00000002.history'))
        await answerOnce(fetched, 'fetched')
      }),
    ])
    assert.deepEqual(got, { status: 0, ...silent })
    assert.ok(content.equals(await readFile(stage.path('pg_wal/RECOVERYHISTORY'))))
  })
}

test('a standby is told, too, that a file is not there', async () => {
  await using fetched = await FetchedStage.create()
  await fetched.stage.put('standby.signal', '')
  const other = '00000001000000A900000066'
  const [got] = await Promise.all([
    fetched.stage.get(other, { env: withoutNode }),
    answerOnce(fetched, 'not-there'),
  ])
  assert.equal(got.status, 1)
})

test('a question that nobody takes is taken back, and Node asked', async () => {
  await using fetched = await FetchedStage.create()
  const { status } = await fetched.stage.get('00000001000000A900000066', { env: withoutNode })
  assert.equal(status, 205)
  assert.deepEqual(await fetched.spool.questions(), [])
})

test('an answer counts only for the question that it was given to', async () => {
  await using fetched = await FetchedStage.create()
  const { spool } = fetched
  await spool.answer({ id: 'of-before', name }, 'not-there', process.pid)
  const getting = fetched.stage.get('00000001000000A900000066', { env: withoutNode })
  await until('somebody asks', async () => (await spool.questions()).length > 0)
  await spool.answer({ id: 'another', name }, 'not-there', process.pid)
  assert.equal((await getting).status, 205)
})

/** Makes it look as if this process were a server that recovers there. */
async function pretendRecovery(stage: RestoreStage): Promise<void> {
  await stage.put('recovery.signal', '')
  await stage.put('postmaster.pid', `${process.pid}\n${stage.data}\n0\n5432\n\n\n\nready   \n`)
}

/** Ends the fetcher that a command has left behind. */
async function endFetcher(stage: RestoreStage): Promise<void> {
  const started = await new Spool(realFiles, spoolOf(stage.data), 0o600).readStarted()
  if (started === undefined) return
  await rm(stage.path('postmaster.pid'), { force: true })
  await until('the fetcher ends without a server', async () => !(await isFetcher(started.pid)))
}

test('Node hands over what has the right digest, and fetches anew what has not', async () => {
  await using fetched = await FetchedStage.create()
  const { stage, spool } = fetched
  const archived = randomBytes(1024 * 1024)
  await stage.archive(name, archived)
  await pretendRecovery(stage)
  await rm(spool.path('state'))
  try {
    // Its times are others, as after a copy of the whole data directory, but its content is right.
    await utimes(spool.path(name), 1, 1)
    assert.deepEqual(await stage.get(name), { status: 0, signal: null, stdout: '', stderr: '' })
    assert.ok(content.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
    await endFetcher(stage)

    await pretendRecovery(stage)
    await fetched.putFile(content)
    await writeFile(spool.path(name), 'x', { flag: 'r+' })
    assert.deepEqual(await stage.get(name), { status: 0, signal: null, stdout: '', stderr: '' })
    assert.ok(archived.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
    await endFetcher(stage)

    await pretendRecovery(stage)
    await fetched.putFile(content, { source: 'another' })
    assert.deepEqual(await stage.get(name), { status: 0, signal: null, stdout: '', stderr: '' })
    assert.ok(archived.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
  } finally {
    await endFetcher(stage)
  }
})

test('a command leaves a fetcher behind that is nobody’s child, holds nothing open, and ends when the server does', async () => {
  await using stage = await RestoreStage.create()
  const archived = randomBytes(1024 * 1024)
  const next = '00000001000000A900000066'
  await stage.archive(name, archived)
  await stage.archive(next, archived)
  await pretendRecovery(stage)
  // Closed by nobody else, these would keep files of the server on disk after it has removed them.
  const shell = ['/bin/sh', '-c', 'exec 3</etc/passwd 4</etc/passwd 9</etc/passwd; exec "$@"', 'sh']
  try {
    assert.deepEqual(await stage.get(name, { shell }), { status: 0, signal: null, stdout: '', stderr: '' })
    await until('the next one is there', async () =>
      (await stage.wal()).includes(`pgsql_tmp.pgarchivist/${next}.verified`),
    )
    const pid = await fetcherPid(stage.data)
    assert.ok(pid)
    const status = await readFile(`/proc/${pid}/stat`, 'utf8')
    const [, parent, group, session] = status.slice(status.lastIndexOf(')') + 2).split(' ')
    assert.notEqual(Number(parent), process.pid)
    assert.equal(Number(group), pid)
    assert.equal(Number(session), pid)
    for (const fd of [0, 1, 2]) assert.equal(await readlink(`/proc/${pid}/fd/${fd}`), '/dev/null')
    const open = await Promise.all(
      (await realFiles.list(`/proc/${pid}/fd`)).map(fd => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
    )
    assert.ok(!open.includes('/etc/passwd'), open.join(', '))
    assert.equal(await readlink(`/proc/${pid}/cwd`), '/')
    assert.equal((await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0')[0], 'pgarchivist: fetcher')

    // The second call needs no Node, and the fetcher goes on.
    assert.equal((await stage.get(next, { env: withoutNode })).status, 0)
    assert.ok(archived.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
    const before = await stage.wal()
    await rm(stage.path('postmaster.pid'))
    await until('the fetcher has ended', async () => !(await isFetcher(pid)), 5_000)
    assert.deepEqual(
      (await stage.wal()).filter(each => !each.endsWith('.verified')),
      before.filter(each => !each.endsWith('.verified')),
    )
  } finally {
    await endFetcher(stage)
  }
})

test('what is not there leaves a fetcher, which then answers without Node, each time anew', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await pretendRecovery(stage)
  const history = '00000002.history'
  const dest = 'pg_wal/RECOVERYHISTORY'
  try {
    const notThere = { status: 1, signal: null, stdout: '', stderr: '' }
    assert.deepEqual(await stage.get(history, { dest }), notThere)
    assert.deepEqual(await stage.get(history, { dest, env: withoutNode }), notThere)
    const pid = await fetcherPid(stage.data)
    const delivered = { ...notThere, status: 0 }
    assert.deepEqual(await stage.get(name, { env: withoutNode }), delivered)
    assert.ok(content.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))

    // Whatever was not there may be there a moment later.
    const next = '00000001000000A900000066'
    assert.deepEqual(await stage.get(next, { env: withoutNode }), notThere)
    await stage.archive(next, content)
    await stage.archive(history, Buffer.from('1\t0/3000000\tno recovery target\n'))
    assert.deepEqual(await stage.get(next, { env: withoutNode }), delivered)
    assert.deepEqual(await stage.get(history, { dest, env: withoutNode }), delivered)
    assert.equal(
      await readFile(stage.path('pg_wal/RECOVERYHISTORY'), 'utf8'),
      '1\t0/3000000\tno recovery target\n',
    )
    // The last one once more, as a server does at the end of recovery.
    assert.deepEqual(await stage.get(next, { env: withoutNode }), delivered)
    assert.equal(await fetcherPid(stage.data), pid)

    // What it cannot answer Node has to tell.
    await rename(stage.repository, `${stage.repository}.away`)
    assert.equal((await stage.get(next, { env: withoutNode })).status, 205)
    const { status, stderr } = await stage.get(next)
    assert.equal(status, 201)
    assert.match(stderr, /Mount the disk/)
    await rename(`${stage.repository}.away`, stage.repository)
  } finally {
    await endFetcher(stage)
  }
})

test('where the repository does not answer, the fetcher ends by itself, and the next command starts none before it has answered', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await pretendRecovery(stage)
  const spool = new Spool(realFiles, spoolOf(stage.data), 0o600)
  await rename(stage.repository, `${stage.repository}.away`)
  try {
    const failed = await stage.get(name)
    assert.equal(failed.status, 201)
    assert.match(failed.stderr, /Mount the disk/)
    const first = await spool.readStarted()
    assert.ok(first, 'it was started meanwhile')
    await until('it has ended', async () => !(await isFetcher(first.pid)))
    assert.equal(await spool.readState(), undefined)

    assert.deepEqual(await stage.get(name), failed)
    assert.deepEqual(await spool.readStarted(), first)
    await rename(`${stage.repository}.away`, stage.repository)
    assert.equal((await stage.get(name)).status, 0)
    assert.equal((await stage.get('00000001000000A900000066', { env: withoutNode })).status, 1)
    assert.notDeepEqual(await spool.readStarted(), first)
  } finally {
    await endFetcher(stage)
  }
})

test('under settings that have changed since, the fetcher does not answer any more', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await pretendRecovery(stage)
  const next = '00000001000000A900000066'
  try {
    assert.equal((await stage.get(next)).status, 1)
    assert.equal((await stage.get(next, { env: withoutNode })).status, 1)
    await stage.put('postgresql.conf', "pgarchivist.repository = 'file:///nowhere'\n")
    const { status, stderr } = await stage.get(next)
    assert.equal(status, 201)
    assert.match(stderr, /could not open repository directory "\/nowhere"/)
  } finally {
    await endFetcher(stage)
  }
})

test('no fetcher is left behind where no server recovers, or for another DEST than its own', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  assert.equal((await stage.get(name)).status, 0)
  assert.deepEqual(await stage.wal(), ['RECOVERYXLOG'])
  await pretendRecovery(stage)
  assert.equal((await stage.get(name, { dest: `pg_wal/${name}` })).status, 0)
  await rm(stage.path('recovery.signal'))
  assert.equal((await stage.get(name)).status, 0)
  await stage.put('recovery.signal', '')
  await stage.put('postmaster.pid', `${process.pid}\n${stage.data}\n0\n5432\n\n\n\nstopping\n`)
  assert.equal((await stage.get(name)).status, 0)
  assert.deepEqual(await stage.wal(), [name, 'RECOVERYXLOG'])
})

test('a spool in which others could put files is not used, which is said, and the file is delivered', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await pretendRecovery(stage)
  await privateDirectory(spoolOf(stage.data))
  await chmod(spoolOf(stage.data), 0o777)
  const { status, stderr } = await stage.get(name)
  assert.equal(
    stderr,
    `pgarchivist: nothing is fetched ahead: spool directory "${spoolOf(stage.data)}" is not one that belongs to this user alone\n`,
  )
  assert.equal(status, 0)
})

test('from another file system it is copied, verified as it is, and in one step there', async () => {
  await using fetched = await FetchedStage.create()
  const { stage, spool } = fetched
  const files: Files = {
    ...realFiles,
    rename: async (from, to) => {
      // Between the spool and pg_wal only; beside DEST it works.
      if (from.startsWith(spool.directory)) throw Object.assign(new Error('other disk'), { code: 'EXDEV' })
      await realFiles.rename(from, to)
    },
  }
  const target = {
    path: stage.path('pg_wal/RECOVERYXLOG'),
    temporaryPath: stage.path('pg_wal/tmp'),
    mode: 0o600,
  }
  const options = { files, clock: realClock, spool, source: fetched.source }
  assert.equal(await handOver(options, name, target), true)
  assert.ok(content.equals(await readFile(target.path)))
  assert.ok(!(await stage.wal()).includes('tmp'))
  assert.ok(!(await stage.wal()).includes(`pgsql_tmp.pgarchivist/${name}`))

  // A file that changes between the look and the copy is not delivered.
  await rm(target.path)
  await fetched.putFile()
  let opened = 0
  const changing: Files = {
    ...files,
    open: async (path, access, mode) => {
      if (access === 'readNoLink' && ++opened === 2) await writeFile(path, 'x', { flag: 'r+' })
      return await realFiles.open(path, access, mode)
    },
  }
  assert.equal(await handOver({ ...options, files: changing }, name, target), false)
  assert.equal(opened, 2)
  assert.ok(!(await stage.wal()).some(each => ['RECOVERYXLOG', 'tmp'].includes(each)))
})

test('a file that is being fetched is waited for, as long as there is a fetcher', async () => {
  await using fetched = await FetchedStage.create()
  const { stage, spool } = fetched
  const target = {
    path: stage.path('pg_wal/RECOVERYXLOG'),
    temporaryPath: stage.path('pg_wal/tmp'),
    mode: 0o600,
  }
  const options = { files: realFiles, clock: realClock, spool, source: fetched.source }
  const verified = await readFile(spool.verifiedPath(name))
  await rename(spool.path(name), spool.partPath(name))
  await rm(spool.verifiedPath(name))
  const handed = handOver(options, name, target)
  await rename(spool.partPath(name), spool.path(name))
  await writeFile(spool.verifiedPath(name), verified)
  assert.equal(await handed, true)

  await writeFile(spool.partPath(name), 'half')
  await rm(spool.verifiedPath(name), { force: true })
  await rm(spool.path('state'))
  assert.equal(await handOver(options, name, target), false)
})

test('the state that the launcher reads is what a process says of itself', async () => {
  assert.match(printIdentity(self), new RegExp(`^[0-9a-f-]{36} ${process.pid} \\d+$`))
})
