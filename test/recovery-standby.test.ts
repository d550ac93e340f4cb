// A standby that is fed by nothing but the repository, what becomes of it when the primary is lost, and how the old
// primary comes back.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { ArchivedCluster, type ClusterOptions, timelineOf, until } from './recovery/archived-cluster.ts'
import { Bank, contentsOf, type Ledger } from './recovery/bank.ts'
import { CephPlaces } from './recovery/ceph-places.ts'
import { assertSound, installChecks } from './recovery/soundness.ts'
import { type PostgresServer, programDirectories } from './support/postgresql-server.ts'
import { unprivileged, unprivilegedEnvironment } from './support/unprivileged.ts'

const transactions = 100

// Small enough that a primary soon has no segment left of what it has archived.
const settings = { min_wal_size: '2MB', max_wal_size: '4MB' }

/** The sessions work, and everything until then is archived. */
async function work(cluster: ArchivedCluster, server: PostgresServer, bank: Bank): Promise<void> {
  await bank.resume()
  await bank.serves(transactions)
  await bank.halt()
  await cluster.archives(server)
}

/** Resolves when the standby has all that the primary has, which stands still. */
async function follows(standby: PostgresServer, primary: PostgresServer, ledger: Ledger): Promise<void> {
  await until(`the standby has ${ledger.transactions} transactions`, async () => {
    const [row] = await standby.query<{ count: number }>('SELECT count(*)::int FROM history')
    return (row?.count ?? 0) >= ledger.transactions
  })
  assert.deepEqual(await contentsOf(standby, ledger), await contentsOf(primary, ledger))
}

type Place = ClusterOptions['place']

async function startFollowing(major: number, place: Place) {
  const cluster = await ArchivedCluster.start({
    major,
    walSegmentMegabytes: 1,
    isEncrypted: false,
    settings,
    ...(place && { place }),
  })
  const { primary } = cluster
  await installChecks(primary)
  const bank = await Bank.found(primary, major)
  await bank.resume()
  await bank.serves(transactions)
  const backup = await cluster.backup()
  await bank.halt()
  await cluster.archives(primary)
  const standby = await cluster.recover(backup, { signalFile: 'standby', archives: true })
  return { cluster, primary, bank, backup, standby }
}

/** Polls in vain between the rounds, and is never told anything else than that there is nothing yet. */
async function followsForAWhile(story: Awaited<ReturnType<typeof startFollowing>>): Promise<void> {
  const { cluster, primary, bank, standby } = story
  for (let round = 0; round < 3; round++) {
    await work(cluster, primary, bank)
    await follows(standby, primary, bank.ledger)
  }
  assert.doesNotMatch(await standby.log(), /pgarchivist: |(ERROR|FATAL|PANIC): {2}/)
}

// The server's packages for the tests have no client programs, except for that of a major that may be missing.
async function majorWithRewind(): Promise<number | undefined> {
  for (const [major, programs] of await programDirectories()) {
    const isThere = await access(join(programs, 'pg_rewind')).then(
      () => true,
      () => false,
    )
    if (isThere) return major
  }
  return undefined
}

const run = promisify(execFile)
const rewinding = await majorWithRewind()

let places: CephPlaces

before(async () => {
  places = await CephPlaces.begin()
})
after(async () => await places?.[Symbol.asyncDispose]())

const repositories = [
  { where: 'a directory', following: 18, place: async (): Promise<Place> => undefined },
  { where: 'a bucket', following: 15, place: async () => await places.place() },
]

for (const { where, following, place } of repositories) {
  describe(`a standby that has nothing but a repository in ${where}`, { concurrency: 2 }, () => {
    test(`follows, is promoted, and archives on, in PostgreSQL ${following}`, async () => {
      const story = await startFollowing(following, await place())
      await using cluster = story.cluster
      await using bank = story.bank
      await followsForAWhile(story)
      await cluster.primary.stop('immediate')

      const { standby } = story
      await standby.promote()
      await using next = await Bank.reopen(standby, bank.ledger, 1)
      await work(cluster, standby, next)
      assert.equal(await timelineOf(standby), 2)

      // The next standby comes from the old backup, and finds the switch by itself.
      const second = await cluster.recover(story.backup, { signalFile: 'standby' })
      await follows(second, standby, next.ledger)
      await work(cluster, standby, next)
      await follows(second, standby, next.ledger)
      await assertSound(standby)
    })

    if (rewinding !== undefined) {
      test(`lets pg_rewind bring the old primary back, in PostgreSQL ${rewinding}`, async t => {
        const story = await startFollowing(rewinding, await place())
        await using cluster = story.cluster
        await using bank = story.bank
        const { primary, standby } = story
        const program = async (name: string, options: string[]) =>
          await run(join(primary.programDirectory, name), options, {
            ...unprivileged,
            env: { ...unprivilegedEnvironment, ...cluster.environment },
            cwd: '/',
          })
        await followsForAWhile(story)

        await standby.promote()
        await using next = await Bank.reopen(standby, bank.ledger, 1)
        await work(cluster, standby, next)
        await standby.query('CHECKPOINT')

        // Nobody has told the old primary. What it does from here on is lost, but archived.
        const wal = join(primary.dataDirectory, 'pg_wal')
        const lastCommon =
          (await readdir(wal)).filter(name => /^[0-9A-F]{24}$/.test(name)).toSorted()[0] ?? ''
        for (let segment = 0; segment < 8; segment++) {
          await bank.resume()
          await bank.serves(20)
          await bank.halt()
          await cluster.archives(primary)
          if (segment % 3 === 2) await primary.query('CHECKPOINT')
        }
        assert(!(await readdir(wal)).includes(lastCommon), 'the WAL that is to be fetched is still there')
        await primary.stop('fast')

        const rewind = [
          `--target-pgdata=${primary.dataDirectory}`,
          `--source-server=host=${standby.socketDirectory} port=${standby.port} user=postgres dbname=postgres`,
          '--no-sync',
        ]
        await assert.rejects(
          program('pg_rewind', [...rewind, '--dry-run']),
          /could not find previous WAL record|could not open file/,
        )
        const { stderr } = await program('pg_rewind', [...rewind, '--restore-target-wal'])
        assert.match(stderr, /pg_rewind: Done!/)
        t.diagnostic(stderr.trim().replaceAll('\n', ', '))

        const rewound = await cluster.startServer({
          dataDirectory: primary.dataDirectory,
          signalFile: 'standby',
          settings: await cluster.restoreSettings(),
        })
        await work(cluster, standby, next)
        await follows(rewound, standby, next.ledger)

        // And it takes over again.
        await next[Symbol.asyncDispose]()
        await standby.stop('fast')
        await rewound.promote()
        await using last = await Bank.reopen(rewound, next.ledger, 2)
        await work(cluster, rewound, last)
        assert.equal(await timelineOf(rewound), 3)
        await assertSound(rewound)
        await program('pg_amcheck', [
          '--host',
          rewound.socketDirectory,
          '--username',
          'postgres',
          '--all',
          '--parent-check',
        ])
        const contents = await contentsOf(rewound, last.ledger)
        await last[Symbol.asyncDispose]()
        await rewound.stop('fast')
        for (const { dataDirectory } of [rewound, standby]) {
          const { stdout } = await program('pg_checksums', ['--check', '--pgdata', dataDirectory])
          assert.match(stdout, /^Bad checksums: +0$/m)
        }

        const again = await cluster.recover(story.backup)
        assert.deepEqual(await contentsOf(again, last.ledger), contents)
        await cluster.verify()
      })
    }
  })
}
