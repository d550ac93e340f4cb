/**
 * The other end of the bridge lies, in protocol, to the library in a real server. Whatever it says, the server goes on,
 * its archiver too, and when an honest end follows, files are archived as if nothing had happened.
 */
import assert from 'node:assert/strict'
import { copyFile, open, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from 'pg'
import { compile } from '../src/cli/install/compile.ts'
import { type PostgresServer, startPostgres } from './support/postgresql-server.ts'
import { serverHeaders } from './support/server-library.ts'
import { checkout, type TemporaryDirectory, temporaryDirectory } from './support/unprivileged.ts'

// 15 is where an archiver that ends badly takes all backends with it; 18 is the newest that is released.
const majors = [15, 18]

// Each start in vain makes the next one later, ten seconds in the end, and a busy machine has several of them.
const patienceMs = 60_000
const lookIntervalMs = 20

const brokenProtocol = /pgarchivist process \(PID \d+\) was ended: it does not keep to the protocol/
const notStarted = /was ended: it has not started within "pgarchivist\.start_timeout"/
const silent = /was ended: it does not answer/
const exited = /pgarchivist process \(PID \d+\) exited with exit code 1/

/** What the server's log has to say about a lie, or, where it need not say a thing, what the liar tells that it did. */
type Effect = RegExp | { deed: string; log?: RegExp }

const lies: Record<string, Effect> = {
  'speaks another version': brokenProtocol,
  'sends garbage': brokenProtocol,
  'sends zeros': brokenProtocol,
  'sends a length of 0': brokenProtocol,
  'sends a length of 1': brokenProtocol,
  'sends a length of 2': brokenProtocol,
  'sends a length of 3': brokenProtocol,
  'sends a length one beyond the limit': brokenProtocol,
  'sends a length of 2147483647': brokenProtocol,
  'sends a length of 4294967295': brokenProtocol,
  'sends an unknown type': brokenProtocol,
  'sends a byte too many': brokenProtocol,
  'sends a number that ends early': brokenProtocol,
  'sends a string without its end': brokenProtocol,
  'sends the longest frame of one string without its end': brokenProtocol,
  'sends half a frame and is silent': notStarted,
  'sends half a frame and ends': exited,
  'is silent': notStarted,
  'is ready twice': brokenProtocol,
  'answers before it is asked': brokenProtocol,
  'answers request 0 before it is asked': brokenProtocol,
  'archives before it is asked': brokenProtocol,
  'declares 10,000 settings': brokenProtocol,
  'declares nonsense': brokenProtocol,
  'declares an enum without options': brokenProtocol,
  'declares fewer options than it counts': brokenProtocol,
  'declares a negative number of options': brokenProtocol,
  'declares 2147483647 options': brokenProtocol,
  'declares options of a number': brokenProtocol,
  'reserves no prefix': brokenProtocol,
  'reserves prefixes of others': brokenProtocol,
  'logs with unknown level': brokenProtocol,
  'logs without its last field': brokenProtocol,
  'logs absurdities': {
    deed: 'logged',
    log: /ERROR: {2}lie at PANIC: %s%n%s%n\n.*DETAIL: {2}%s%n\n.*HINT: {2}%m%n/,
  },
  'logs 100,000 times': /lie number 9999\n/,
  'logs without end before it is ready': notStarted,
  'logs without end instead of an answer': /took longer than 1000 ms/,
  'sends pongs without end': notStarted,
  'answers a request that comes later': brokenProtocol,
  'answers a negative request': brokenProtocol,
  'answers request 0': brokenProtocol,
  'answers for another file': brokenProtocol,
  'answers for no file': brokenProtocol,
  'answers for a longer name': brokenProtocol,
  'answers for a shorter name': brokenProtocol,
  'answers with neither true nor false': brokenProtocol,
  'answers with the answer to a check': brokenProtocol,
  'answers twice': brokenProtocol,
  'answers and is ready again': brokenProtocol,
  'answers with half a frame and is silent': silent,
  'answers with half a frame and ends': exited,
  'does not answer': silent,
  'answers a check at length': { deed: 'answered' },
}

// What the server says when one of its processes has ended badly, or is about to.
const harm =
  /server process|terminating any other|reinitializ|\] LOG: {2}archiver process \(PID|\] (PANIC|FATAL): {2}(?!terminating connection)/

interface Stage {
  server: PostgresServer
  /** A backend from before the first lie. */
  client: Client
  postmasterPid: number | undefined
  archiverPid: number | undefined
  /** Chooses what the process that is started next says, and ends the one that runs. */
  play(scenario: string): Promise<void>
  /** What was written since `play`. */
  log(): Promise<string>
  deeds(): Promise<string[]>
  /** Ends a segment, for the archiver to archive. */
  switchWal(): Promise<void>
  /** How many files wait for the archiver. */
  readyFiles(): Promise<number>
  /** Plays an honest end until no file is left. */
  archiveHonestly(): Promise<void>
}

async function waitFor(
  what: string,
  isTrue: () => Promise<boolean>,
  nudge?: () => Promise<void>,
): Promise<void> {
  const deadline = Date.now() + patienceMs
  // After three attempts the archiver rests for a minute, unless there is a new file.
  let nudgeAt = Date.now() + 3_000
  while (!(await isTrue())) {
    assert.ok(Date.now() < deadline, `${what} within ${patienceMs} ms`)
    if (Date.now() > nudgeAt) {
      nudgeAt += 3_000
      await nudge?.()
    }
    await sleep(lookIntervalMs)
  }
}

async function nodeProgram(): Promise<string> {
  return join(await checkout(), `node_modules/node-linux-${process.arch}/bin/node`)
}

/** Makes the library of a major version with a launcher that starts the liar of the server that it runs in. */
async function buildLibrary(major: number, directory: TemporaryDirectory): Promise<string> {
  const launcher = join(directory.path, 'launcher')
  const liar = join(directory.path, 'liar.ts')
  await copyFile(join(import.meta.dirname, 'protocol/liar.ts'), liar)
  // It is started in the data directory, which is in a directory of the server's own.
  await writeFile(launcher, `#!/bin/sh\nexec "${await nodeProgram()}" "${liar}" "$PWD/.."\n`, { mode: 0o755 })
  const headers = (await serverHeaders()).get(major)
  assert.ok(headers, `the headers of PostgreSQL ${major} are missing`)
  const library = join(directory.path, `pgarchivist-${major}.so`)
  // Whatever is undefined in C ends the archiver at once, without a library of the sanitizer's in the server.
  const undefinedTraps = ['-fsanitize=undefined,float-cast-overflow', '-fsanitize-undefined-trap-on-error']
  await compile(
    { compiler: ['gcc', ...undefinedTraps], major, includeDirectories: [headers], launcher, output: library },
    'scripts/setup --servers brings them',
  )
  return library
}

async function setStage(major: number, library: string): Promise<Stage> {
  const server = await startPostgres({
    major,
    settings: {
      archive_mode: 'on',
      archive_library: library,
      'pgarchivist.start_timeout': '1500ms',
      'pgarchivist.file_timeout': '1s',
    },
  })
  const deedsPath = join(server.socketDirectory, 'deeds')
  const say = (scenario: string) => writeFile(join(server.socketDirectory, 'scenario'), scenario)
  const client = await server.connect()
  const archiver = async () => {
    const { rows } = await client.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'`,
    )
    return rows[0]?.pid
  }
  const logPath = join(server.socketDirectory, 'server.log')
  let logMark = 0
  let deedsMark = 0
  const deedLines = async () =>
    (await readFile(deedsPath, 'utf8').catch(() => '')).split('\n').filter(line => line !== '')
  const switchWal = async () => {
    await client.query(`SELECT pg_logical_emit_message(false, 'test', 'x')`)
    await client.query('SELECT pg_switch_wal()')
  }
  const play = async (scenario: string) => {
    logMark = (await readRest(logPath, 0)).length
    const lines = await deedLines()
    deedsMark = lines.length
    await say(scenario)
    const last = lines.findLast(line => line.endsWith(' starts'))
    const pid = Number(last?.split(' ').at(-2))
    // It may have ended by itself.
    if (pid > 0) await endLiar(pid, server.dataDirectory)
  }
  const status = join(server.dataDirectory, 'pg_wal/archive_status')
  const readyFiles = async () => (await readdir(status)).filter(name => name.endsWith('.ready')).length
  const stage: Stage = {
    server,
    client,
    postmasterPid: server.pid,
    archiverPid: undefined,
    play,
    log: async () => (await readRest(logPath, logMark)).toString('latin1'),
    deeds: async () => (await deedLines()).slice(deedsMark),
    switchWal,
    readyFiles,
    archiveHonestly: async () => {
      await play('honest')
      await switchWal()
      await waitFor('an honest end archives what is ready', async () => (await readyFiles()) === 0, switchWal)
    },
  }
  await stage.archiveHonestly()
  stage.archiverPid = await archiver()
  return stage
}

async function readRest(path: string, from: number): Promise<Buffer> {
  await using file = await open(path)
  const { size } = await file.stat()
  const bytes = Buffer.alloc(Math.max(0, size - from))
  await file.read(bytes, 0, bytes.length, from)
  return bytes
}

// Only if the number still belongs to a liar of this directory.
async function endLiar(pid: number, directory: string): Promise<void> {
  const command = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')
  if (command.includes(directory)) process.kill(pid, 'SIGKILL')
}

async function assertUnharmed(stage: Stage): Promise<void> {
  const { rows } = await stage.client.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'`,
  )
  assert.equal(stage.server.pid, stage.postmasterPid)
  assert.equal(rows[0]?.pid, stage.archiverPid, 'the archiver is the same process')
  assert.doesNotMatch(await stage.log(), harm)
}

async function bears(stage: Stage, lie: string, expected: Effect): Promise<void> {
  await stage.play(lie)
  await stage.switchWal()
  const hasEffect = async () => {
    if (expected instanceof RegExp) return expected.test(await stage.log())
    const isDone = (await stage.deeds()).some(line => line.endsWith(` ${expected.deed}`))
    return isDone && (expected.log === undefined || expected.log.test(await stage.log()))
  }
  await waitFor('the lie has its effect', hasEffect, stage.switchWal)
  await assertUnharmed(stage)
  await stage.archiveHonestly()
  await assertUnharmed(stage)
}

// Nearly all of the time is the archiver's own pauses, so several servers are lied to at once.
const serversPerMajor = 3

const libraries = new Map<number, string>()

async function withStage(major: number, act: (stage: Stage) => Promise<void>): Promise<void> {
  const stage = await setStage(major, libraries.get(major) ?? '')
  await using _server = stage.server
  try {
    await act(stage)
  } finally {
    await stage.client.end()
  }
}

suite('the library in a server', { concurrency: true }, () => {
  let directory: TemporaryDirectory
  before(async () => {
    directory = await temporaryDirectory()
    for (const major of majors) libraries.set(major, await buildLibrary(major, directory))
  })
  after(async () => await directory[Symbol.asyncDispose]())

  for (const major of majors) {
    for (let turn = 0; turn < serversPerMajor; turn++) {
      test(`${major} bears every lie, part ${turn + 1} of ${serversPerMajor}`, async context => {
        await withStage(major, async stage => {
          const turns = Object.entries(lies).filter((_, i) => i % serversPerMajor === turn)
          for (const [lie, expected] of turns) {
            await context.test(`an end that ${lie}`, () => bears(stage, lie, expected))
          }
        })
      })
    }

    test(`${major} bears those that want to be looked at more closely`, async context => {
      await withStage(major, async stage => {
        const { server, play, switchWal, log, deeds, readyFiles, archiveHonestly } = stage
        const starts = async () => (await deeds()).filter(line => line.endsWith(' starts')).length
        const isArchived = async () => (await readyFiles()) === 0

        await context.test(
          'an end that answers while it is asked whether it is still there, and is kept',
          async () => {
            await play('answers a little late')
            await switchWal()
            const isLate = async () => (await deeds()).some(line => line.endsWith(' answered late'))
            await waitFor('it answers late', isLate, switchWal)
            await waitFor('the file is archived', isArchived, switchWal)
            assert.doesNotMatch(await log(), /was ended/)
            assert.equal(await starts(), 1)
            await assertUnharmed(stage)
          },
        )

        await context.test('an end that does not read', async () => {
          // More than a socket holds, in a frame of its own.
          await server.configure({ 'lie.long': 'x'.repeat(100_000), 'lie.longer': 'x'.repeat(150_000) })
          await bears(stage, 'does not read', /was ended: it (does not read|has not started within)/)
          await server.configure({ 'lie.long': '', 'lie.longer': '' })
        })

        await context.test(
          'an end that breaks the protocol as soon as it is ready, and is not started at once',
          async () => {
            await archiveHonestly()
            await server.configure({ 'pgarchivist.file_timeout': '60s' })
            await play('is ready twice')
            await switchWal()
            await waitFor('the lie is told', async () => brokenProtocol.test(await log()), switchWal)
            const before = await starts()
            // What is counted is what happens in this time.
            await sleep(2_000)
            const started = (await starts()) - before
            assert.ok(started <= 3, `started ${started} times in two seconds`)
            await archiveHonestly()
            await assertUnharmed(stage)
            await server.configure({ 'pgarchivist.file_timeout': '1s' })
          },
        )

        await context.test(
          'an end that reserves 200,000 prefixes, none of which the server would forget',
          async () => {
            await bears(stage, 'reserves 200,000 prefixes', brokenProtocol)
          },
        )

        await context.test(
          'an end that declares a setting in two ways: only the archiver is started anew',
          async () => {
            await play('declares one setting in two ways')
            await switchWal()
            const announced = /restarting archiver process because declaration of "lie\.CHANGING" was changed/
            await waitFor('it is seen', async () => announced.test(await log()), switchWal)
            await archiveHonestly()
            assert.equal(server.pid, stage.postmasterPid)
            assert.doesNotMatch(await log(), harm)
          },
        )

        await context.test('an end that logs PANIC while it is asked to quit', async () => {
          await play('logs PANIC while it is asked to quit')
          await switchWal()
          await waitFor('the file is archived', isArchived, switchWal)
          await server.stop('fast')
          assert.match(await log(), /: {2}lie at quit\n/)
          assert.doesNotMatch(await log(), harm)
          assert.match(await log(), /database system is shut down/)
        })
      })
    })
  }
})
