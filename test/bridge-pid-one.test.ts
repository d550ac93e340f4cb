// A postmaster that is process number 1, as in a container, becomes the parent of everybody who loses theirs, and takes
// the death of such a child by a signal for the crash of a backend: it restarts the whole cluster. So nobody whom we
// start may come to it alive or killed.

import assert from 'node:assert/strict'
import { readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  BridgedServer,
  type BridgedServerOptions,
  descendantsOf,
  isStillAlive,
  type OwnProcess,
  type Places,
  removeTemplates,
  statOf,
  until,
} from './bridge/bridged-server.ts'
import { startContained } from './bridge/contained-server.ts'
import { copying } from './bridge/modules.ts'
import { availableMajors, startPostgres } from './support/postgresql-server.ts'

const majors = [15, 18]
const newest = (await availableMajors()).filter(major => major > Math.max(...majors))

// What is left alone is gone by then.
const goneWithinMs = 5_000

/** A module that does `inTrouble`, beside which run a worker that waits, one that blocks, and a program of its own. */
const crowded =
  (inTrouble = '') =>
  (places: Places) =>
    `
import { spawn } from 'node:child_process'
${copying(inTrouble)(places).replace(
  'return {',
  `for (const name of ['waits', 'blocks']) server.RegisterBackgroundWorker({ bgw_name: name, bgw_function_name: name })
  spawn('/bin/sh', ['-c', 'sleep 600; :'], { detached: true, stdio: 'ignore' }).unref()
  return {`,
)}
export async function waits() {
  appendFileSync('${places.journal}', 'waits\\n')
  await new Promise(resolve => setTimeout(resolve, 600_000))
}
export function blocks() {
  appendFileSync('${places.journal}', 'blocks\\n')
  // As an endless loop does, but leaves the processors to the servers.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}
`

async function commandOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')).replaceAll('\0', ' ').trim()
}

const titles = [
  'postgres: pgarchivist keeper',
  'pgarchivist: module',
  'pgarchivist: waits',
  'pgarchivist: blocks',
  'sleep 600',
]

interface Crowd {
  archiver: number
  keeper: number
  node: number
  /** Everybody whom the archiver started, and whom they did. */
  all: OwnProcess[]
}

/** Everybody in the container who is not a process of the server. */
async function ours({ postgres }: BridgedServer): Promise<(OwnProcess & { command: string })[]> {
  const found: (OwnProcess & { command: string })[] = []
  for (const pid of await descendantsOf(postgres.pid ?? 0)) {
    const command = await commandOf(pid)
    const stat = await statOf(pid)
    if (stat !== undefined && command !== '' && !/^postgres: (?!pgarchivist)/.test(command))
      found.push({ pid, startTime: stat.startTime, command })
  }
  return found
}

/** Resolves when all of the module run. */
async function crowdOf(bridged: BridgedServer): Promise<Crowd> {
  let all: Awaited<ReturnType<typeof ours>> = []
  const pidOf = (title: string) => all.find(each => each.command.startsWith(title))?.pid
  await until('module, workers and what the module started run', async () => {
    all = await ours(bridged)
    const journal = await bridged.journal()
    return (
      ['waits', 'blocks'].every(line => journal.includes(line)) &&
      titles.every(title => pidOf(title) !== undefined)
    )
  })
  let archiver: number | undefined
  for (const pid of await descendantsOf(bridged.postgres.pid ?? 0))
    if ((await commandOf(pid)).startsWith('postgres: archiver')) archiver = pid
  const keeper = pidOf('postgres: pgarchivist keeper')
  const node = pidOf('pgarchivist: module')
  assert(archiver !== undefined && keeper !== undefined && node !== undefined)
  return { archiver, keeper, node, all }
}

async function areGone(processes: OwnProcess[]): Promise<void> {
  let left: OwnProcess[] = []
  await until(
    '',
    async () => {
      const alive = await Promise.all(processes.map(isStillAlive))
      left = processes.filter((_, at) => alive[at])
      return left.length === 0
    },
    goneWithinMs,
  ).catch(() => assert.deepEqual(left, [], 'processes are left behind'))
}

const startCrowded = (major: number, options: Partial<BridgedServerOptions> = {}) =>
  BridgedServer.start({ major, module: crowded(), startServer: startContained, ...options })

interface Deed {
  name: string
  inTrouble?: string
  /** Resolves when it is done, and everybody is about to end. */
  does: (bridged: BridgedServer, crowd: Crowd) => Promise<void>
}

const otherLibrary = async ({ postgres, places }: BridgedServer) => {
  await postgres.configure({
    archive_library: 'basic_archive',
    'basic_archive.archive_directory': places.archive,
  })
}

const deeds: Deed[] = [
  {
    name: 'the process beside the archiver is killed',
    does: async (bridged, { node }) => {
      process.kill(node, 'SIGKILL')
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.says('LOG:  pgarchivist process (PID <pid>) was terminated by signal 9: Killed')
    },
  },
  {
    name: 'the process beside the archiver is stopped',
    does: async (bridged, { node }) => {
      process.kill(node, 'SIGSTOP')
      await bridged.postgres.switchWal()
      await bridged.says('WARNING:  pgarchivist process (PID <pid>) was ended: it does not answer')
    },
  },
  {
    name: 'the process beside the archiver is killed while the keeper is stopped',
    does: async (bridged, { keeper, node }) => {
      process.kill(keeper, 'SIGSTOP')
      process.kill(node, 'SIGKILL')
      await bridged.archives(await bridged.postgres.switchWal(), 20_000)
      await bridged.says('LOG:  pgarchivist process (PID <pid>) was terminated by signal 9: Killed')
    },
  },
  {
    name: 'the module blocks its thread',
    inTrouble: 'for (;;);',
    does: async bridged => {
      await bridged.makeTrouble()
      await bridged.postgres.switchWal()
      await bridged.says('LOG:  pgarchivist process (PID <pid>) exited with exit code 1')
      await bridged.endTrouble()
    },
  },
  {
    name: 'another library is named',
    does: async bridged => {
      await otherLibrary(bridged)
      await bridged.says('LOG:  restarting archiver process because value of "archive_library" was changed')
    },
  },
  {
    name: 'another library is named while the process beside the archiver is stopped',
    does: async (bridged, { node }) => {
      process.kill(node, 'SIGSTOP')
      await otherLibrary(bridged)
      await bridged.says('LOG:  restarting archiver process because value of "archive_library" was changed')
    },
  },
  {
    name: 'another library is named while the keeper is stopped',
    does: async (bridged, { keeper }) => {
      process.kill(keeper, 'SIGSTOP')
      await otherLibrary(bridged)
      await bridged.says('LOG:  restarting archiver process because value of "archive_library" was changed')
    },
  },
  {
    // Nobody but the archiver is then left to take in those who lose their parent.
    name: 'the keeper is killed',
    does: async (bridged, { keeper }) => {
      process.kill(keeper, 'SIGKILL')
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.says('LOG:  pgarchivist process (PID <pid>) was terminated by signal 9: Killed')
    },
  },
  {
    name: 'the archiver is told to end',
    does: async (_bridged, { archiver }) => {
      process.kill(archiver, 'SIGTERM')
      // It waits a minute for the end of the server.
      await until('the archiver has ended', async () => (await statOf(archiver)) === undefined, 75_000)
    },
  },
]

const restarts = 'LOG:  terminating any other active server processes'

describe('in a container of its own', { concurrency: 4 }, () => {
  for (const major of [...majors, ...newest]) {
    // Of one that is not finished yet, only whether it can be done at all.
    for (const { name, inTrouble, does } of majors.includes(major) ? deeds : deeds.slice(0, 1)) {
      test(`PostgreSQL ${major} goes on and nobody is left when ${name}`, async () => {
        await using bridged = await startCrowded(major, { module: crowded(inTrouble) })
        await bridged.staysUp(async () => {
          await bridged.archives(await bridged.postgres.switchWal())
          const crowd = await crowdOf(bridged)
          await does(bridged, crowd)
          await areGone(crowd.all)
          await bridged.archives(await bridged.postgres.switchWal())
        })
        await bridged.postgres.stop('fast')
      })
    }
  }

  for (const major of majors) {
    // That is the server's own rule. What the archiver leaves must not do it again.
    test(`PostgreSQL ${major} is restarted once when its archiver is killed, and nobody is left`, async () => {
      await using bridged = await startCrowded(major)
      await bridged.archives(await bridged.postgres.switchWal())
      const crowd = await crowdOf(bridged)
      process.kill(crowd.keeper, 'SIGSTOP')
      process.kill(crowd.node, 'SIGSTOP')
      // The server, too, kills the whole process group of an archiver that does not end.
      process.kill(-crowd.archiver, 'SIGKILL')
      await areGone(crowd.all)
      await bridged.says(/^LOG: {2}archiver process \(PID <pid>\) was terminated by signal 9: Killed$/)
      await bridged.says('LOG:  database system is ready to accept connections', { times: 2 })
      await bridged.archives(await bridged.postgres.switchWal())
      const next = await crowdOf(bridged)
      assert.notEqual(next.keeper, crowd.keeper)
      await bridged.postgres.stop('fast')
      await areGone(next.all)
      assert.equal(await bridged.saidTimes(restarts), 1)
      assert.equal(await bridged.saidTimes(/^LOG: {2}.* was terminated by signal/), 1)
    })

    for (const mode of ['fast', 'immediate'] as const) {
      test(`PostgreSQL ${major} is stopped (${mode}) while all are stopped or blocked, and nobody is left`, async () => {
        await using bridged = await startCrowded(major)
        await bridged.archives(await bridged.postgres.switchWal())
        const crowd = await crowdOf(bridged)
        process.kill(crowd.keeper, 'SIGSTOP')
        process.kill(crowd.node, 'SIGSTOP')
        await bridged.postgres.stop(mode)
        await areGone(crowd.all)
        assert.equal(await bridged.saidTimes(restarts), 0)
        assert.equal(await bridged.saidTimes(/^LOG: {2}.* was terminated by signal/), 0)
      })
    }
  }
})

describe('on a machine with others', { concurrency: 4 }, () => {
  for (const major of majors) {
    for (const stopped of ['nobody', 'keeper', 'node', 'archiver'] as const) {
      test(`nobody is left when PostgreSQL ${major} is killed while ${stopped} is stopped, and it can be started again at once`, async () => {
        await using bridged = await startCrowded(major, { startServer: startPostgres })
        await bridged.archives(await bridged.postgres.switchWal())
        const crowd = await crowdOf(bridged)
        if (stopped !== 'nobody') process.kill(crowd[stopped], 'SIGSTOP')
        bridged.postgres.kill('SIGKILL')
        await bridged.postgres.ended()
        // A stopped archiver stays, with the memory of its server, until somebody kills it.
        if (stopped === 'archiver') process.kill(crowd.archiver, 'SIGKILL')
        await areGone(crowd.all)
        await until('the archiver has ended', async () => (await statOf(crowd.archiver)) === undefined)
        await bridged.postgres.start()
        await bridged.archives(await bridged.postgres.switchWal())
      })
    }

    test(`the keeper of PostgreSQL ${major} has nothing of the server's, and heeds no signal to everybody`, async () => {
      await using bridged = await startCrowded(major, { startServer: startPostgres })
      await bridged.archives(await bridged.postgres.switchWal())
      const { archiver, keeper, node, all } = await crowdOf(bridged)
      assert.equal((await statOf(node))?.parent, keeper)
      assert.equal((await statOf(keeper))?.parent, archiver)

      const sharedWith = async (pid: number) =>
        (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n').filter(line => /^\S+ .w.s /.test(line))
          .length
      assert.notEqual(await sharedWith(archiver), 0)
      assert.equal(await sharedWith(keeper), 0)
      assert.deepEqual(
        await bridged.descriptors(keeper),
        [
          '/dev/null',
          ...Array<string>(2).fill(join(await realpath(bridged.postgres.socketDirectory), 'server.log')),
          'socket:[<number>]',
        ]
          .map(each => each.replace(/\d+/g, '<number>'))
          .toSorted(),
      )

      for (const signal of [
        'SIGHUP',
        'SIGINT',
        'SIGQUIT',
        'SIGTERM',
        'SIGUSR1',
        'SIGUSR2',
        'SIGALRM',
        'SIGPIPE',
      ] as const)
        process.kill(keeper, signal)
      await bridged.archives(await bridged.postgres.switchWal())
      assert.deepEqual(
        await Promise.all(all.map(isStillAlive)),
        all.map(() => true),
      )
    })
  }
})

after(removeTemplates)
