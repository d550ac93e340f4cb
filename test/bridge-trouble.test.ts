// Whatever happens to the module or its process, the server says once why a file is not archived, goes on, and
// archives it when the cause is gone.

import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import type { Client } from 'pg'
import { BridgedServer, type Places, removeTemplates, until } from './bridge/bridged-server.ts'
import { copying, copyingWith } from './bridge/modules.ts'

const majors = [15, 18]

interface Trouble {
  name: string
  module: (places: Places) => string
  /** What the log says while it lasts. */
  says: Array<string | RegExp>
  settings?: Record<string, string>
  /** While it lasts, no file reaches the module. */
  isGivenNothing?: true
  /** It comes over a module that runs: how long that may take to start is not how long it may take to answer. */
  comesLater?: true
}

const tookLonger = /^WARNING: {2}archiving write-ahead log file "[0-9A-F]{24}" took longer than 1000 ms$/
const seeFileTimeout = 'HINT:  See "pgarchivist.file_timeout".'
const unansweredCheck =
  'WARNING:  pgarchivist process (PID <pid>) was ended: it has not answered "check_configured_cb" within "pgarchivist.start_timeout"'
const endedWith = (status: number) => `LOG:  pgarchivist process (PID <pid>) exited with exit code ${status}`

const troubles: Trouble[] = [
  {
    name: 'says false',
    module: copying('return false'),
    says: [
      /^WARNING: {2}archiving write-ahead log file "[0-9A-F]{24}" failed too many times, will try again later$/,
    ],
  },
  {
    name: 'throws when it is given a file',
    module: copying(`throw new Error('the archive is full')`),
    says: ['ERROR:  the archive is full'],
  },
  {
    name: 'reports FATAL when it is given a file',
    module: copying(`server.ereport('FATAL', { errmsg: 'the archive has burnt down' })`),
    says: ['ERROR:  the archive has burnt down', endedWith(1)],
  },
  {
    name: 'reports PANIC when it is given a file',
    module: copying(`server.ereport('PANIC', { errmsg: 'the archive is haunted' })`),
    says: ['ERROR:  the archive is haunted', endedWith(1)],
  },
  {
    name: 'throws when nobody waits for it',
    module: copying(`setTimeout(() => { throw new Error('too late') }); await new Promise(() => {})`),
    says: ['ERROR:  too late', endedWith(1)],
  },
  {
    name: 'rejects what nobody waits for',
    module: copying(`void Promise.reject(new Error('forgotten')); await new Promise(() => {})`),
    says: ['ERROR:  forgotten', endedWith(1)],
  },
  {
    name: 'never answers',
    module: copying('await new Promise(() => {})'),
    says: [
      tookLonger,
      seeFileTimeout,
      /^WARNING: {2}archive module has not answered for "[0-9A-F]{24}" in 3 attempts and is started again$/,
    ],
  },
  {
    name: 'blocks its thread',
    module: copying('for (;;);'),
    says: [tookLonger, 'WARNING:  archive module blocks its thread and is started again', endedWith(1)],
  },
  {
    name: 'calls process.exit',
    module: copying('process.exit(3)'),
    says: ['WARNING:  archive module ended its thread with status 3', endedWith(1)],
  },
  {
    name: 'kills its own process',
    module: copying(`process.kill(process.pid, 'SIGKILL')`),
    says: ['LOG:  pgarchivist process (PID <pid>) was terminated by signal 9: Killed'],
  },
  {
    name: 'stops its own process',
    module: copying(`process.kill(process.pid, 'SIGSTOP')`),
    says: [tookLonger, 'WARNING:  pgarchivist process (PID <pid>) was ended: it does not answer'],
  },
  {
    name: 'eats memory',
    module: copying(`
        globalThis.eaten ??= []
        for (;;) {
          globalThis.eaten.push(Buffer.alloc(8 * 1024 * 1024, 1))
          await new Promise(resolve => setTimeout(resolve, 5))
        }`),
    settings: { 'pgarchivist.memory_limit': '200MB', 'pgarchivist.file_timeout': '10s' },
    says: [
      /^WARNING: {2}archive module uses \d+ MB of memory and is started again$/,
      'HINT:  "pgarchivist.memory_limit" is 200 MB.',
      endedWith(1),
    ],
  },
  {
    name: 'fills its heap',
    module: copying(`
        const eaten = []
        for (;;) eaten.push({ text: 'x' + eaten.length })`),
    settings: { 'pgarchivist.memory_limit': '300MB', 'pgarchivist.file_timeout': '20s' },
    says: [/^WARNING: {2}archive module uses \d+ MB of memory and is started again$/, endedWith(1)],
  },
  {
    name: 'prints more than anybody reads',
    module: copying(`for (let line = 0; line < 2000; line++) console.log('line ' + line); return false`),
    says: ['line 0', 'line 1999'],
  },
  {
    name: 'reports more than anybody reads',
    module: copying(`
        for (let line = 0; line < 20000; line++) server.ereport('LOG', { errmsg: 'line ' + line + 'x'.repeat(1000) })
        return false`),
    settings: { 'pgarchivist.file_timeout': '10s' },
    says: [
      /^LOG: {2}line 0x+$/,
      /^WARNING: {2}\d+ messages of the archive module came too fast and were dropped$/,
    ],
  },
  {
    name: 'throws when it is loaded',
    module: copyingWith({ atTop: `if (inTrouble()) throw new Error('not on Sundays')` }),
    says: ['ERROR:  not on Sundays', endedWith(1)],
  },
  {
    name: 'throws when it is initialized',
    module: copyingWith({ inInit: `if (inTrouble()) throw new Error('not on Mondays')` }),
    says: ['ERROR:  not on Mondays', endedWith(1)],
  },
  {
    name: 'throws in startup_cb',
    module: copyingWith({
      callback: `startup_cb() { if (inTrouble()) throw new Error('not on Tuesdays') },`,
    }),
    says: ['ERROR:  not on Tuesdays', endedWith(1)],
  },
  {
    name: 'never comes out of startup_cb',
    module: copyingWith({ callback: 'async startup_cb() { if (inTrouble()) await new Promise(() => {}) },' }),
    settings: { 'pgarchivist.start_timeout': '8s' },
    says: [
      'WARNING:  pgarchivist process (PID <pid>) was ended: it has not started within "pgarchivist.start_timeout"',
    ],
  },
  {
    name: 'blocks its thread in startup_cb',
    module: copyingWith({ callback: 'startup_cb() { blockInTrouble() },' }),
    settings: { 'pgarchivist.start_timeout': '8s' },
    says: [
      'WARNING:  pgarchivist process (PID <pid>) was ended: it has not started within "pgarchivist.start_timeout"',
    ],
  },
  {
    // A module that cannot say whether it is configured is not given a file.
    name: 'throws in check_configured_cb',
    isGivenNothing: true,
    module: copyingWith({
      callback: `check_configured_cb() { if (inTrouble()) throw new Error('not on Wednesdays'); return true },`,
    }),
    says: ['ERROR:  not on Wednesdays', endedWith(1)],
  },
  {
    name: 'never comes out of check_configured_cb',
    isGivenNothing: true,
    module: copyingWith({
      callback: 'async check_configured_cb() { if (inTrouble()) await new Promise(() => {}); return true },',
    }),
    settings: { 'pgarchivist.start_timeout': '8s' },
    comesLater: true,
    says: [unansweredCheck],
  },
  {
    name: 'blocks its thread in check_configured_cb',
    isGivenNothing: true,
    module: copyingWith({ callback: 'check_configured_cb() { blockInTrouble(); return true },' }),
    settings: { 'pgarchivist.start_timeout': '8s' },
    comesLater: true,
    says: [unansweredCheck],
  },
]

// An attempt has a second, so has a stopping server, and the archiver makes six with pauses of a second.
const stopWithinMs = 15_000

/** DROP DATABASE waits for all processes of the server, also for an archiver that is in a callback. */
async function dropsDatabaseSoon(session: Client): Promise<void> {
  const start = Date.now()
  await session.query('DROP DATABASE victim')
  const ms = Date.now() - start
  assert(ms < 2_000, `DROP DATABASE took ${ms} ms`)
}

async function stopsSoon(bridged: BridgedServer): Promise<void> {
  const start = Date.now()
  await bridged.postgres.stop('fast')
  const ms = Date.now() - start
  assert(ms < stopWithinMs, `the shutdown took ${ms} ms`)
  await bridged.leavesNobody()
}

describe('a module that', { concurrency: 6 }, () => {
  for (const major of majors) {
    for (const { name, module, says, settings = {}, isGivenNothing, comesLater = false } of troubles) {
      test(`${name}, in PostgreSQL ${major}`, async () => {
        await using bridged = await BridgedServer.start({ major, module, settings, isInTrouble: !comesLater })
        const { postgres } = bridged
        await bridged.staysUp(async session => {
          const before: string[] = []
          if (comesLater) {
            before.push(await postgres.switchWal())
            for (const each of before) await bridged.archives(each)
            await bridged.makeTrouble()
          }
          const first = await postgres.switchWal()
          for (const line of says) await bridged.says(line)
          await dropsDatabaseSoon(session)
          await until('a failure is counted', async () => (await bridged.statistics()).failed_count > 0)
          assert.equal(await bridged.isDone(first), false)
          if (isGivenNothing) {
            assert.deepEqual(
              await bridged.journal(),
              before.map(each => `attempt ${each}`),
            )
          }

          await bridged.endTrouble()
          const second = await postgres.switchWal()
          await bridged.archives(first)
          await bridged.archives(second)
          await bridged.counts({
            archived_count: before.length + 2,
            last_archived_wal: second,
            last_failed_wal: first,
          })
        })

        await bridged.makeTrouble()
        await postgres.switchWal()
        await stopsSoon(bridged)
      })
    }
  }
})

after(removeTemplates)
