// What is asked of every place that a server archives to: that it brings back every moment, on a base backup that was
// taken while sessions wrote.

import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { PostgresServer } from '../support/postgresql-server.ts'
import { type ArchivedCluster, timelineOf } from './archived-cluster.ts'
import { Bank, type Contents, contentsOf, type Ledger } from './bank.ts'
import { assertSound, installChecks } from './soundness.ts'

// Enough for each to be a good part of what happens between two moments.
const transactionsBetween = 150

/** What a server had, and how to come back to that. */
interface Moment {
  target: Record<string, string>
  ledger: Ledger
  contents: Contents
}

async function nameMoment(
  server: PostgresServer,
  bank: Bank,
  name: () => Promise<Record<string, string>>,
): Promise<Moment> {
  // Whatever the target is, it follows what was seen, and nothing is committed between.
  const ledger = { ...bank.ledger }
  const contents = await contentsOf(server, ledger)
  return { target: await name(), ledger, contents }
}

async function value(server: PostgresServer, expression: string): Promise<string> {
  const [row] = await server.query<{ value: string }>(`SELECT (${expression})::text AS value`)
  assert(row !== undefined)
  return row.value
}

/** WAL that is in no table, to fill segments of any size. It does not shrink, so that large ones are stored in parts. */
async function fill(server: PostgresServer, megabytes: number): Promise<void> {
  await server.query(
    `SELECT pg_logical_emit_message(false, 'filler', (SELECT string_agg(sha512(random()::text::bytea), '')
       FROM generate_series(1, 16 * 1024) WHERE part > 0)) FROM generate_series(1, $1::int) AS part`,
    [Math.ceil(megabytes)],
  )
}

/** Takes the cluster through its whole life, from its first table to a second timeline. Its primary is stopped then. */
export async function bringsBackEveryMoment(t: TestContext, cluster: ArchivedCluster): Promise<void> {
  const { primary, major, walSegmentMegabytes } = cluster
  await installChecks(primary)
  await using bank = await Bank.found(primary, major)
  await bank.resume()
  await bank.serves(transactionsBetween)
  const before = bank.ledger.transactions
  const backup = await cluster.backup()
  assert(bank.ledger.transactions > before, 'nothing happened while the backup was taken')

  const next = async (name: () => Promise<Record<string, string>>): Promise<Moment> => {
    await bank.serves(transactionsBetween)
    await bank.halt()
    const moment = await nameMoment(primary, bank, name)
    await bank.resume()
    return moment
  }
  const time = await next(async () => ({
    recovery_target_time: await value(primary, 'clock_timestamp()'),
  }))
  await fill(primary, walSegmentMegabytes * 1.5)
  const lsn = await next(async () => ({
    recovery_target_lsn: await value(primary, 'pg_current_wal_insert_lsn()'),
    // The record that begins there is not one of those that were seen.
    recovery_target_inclusive: 'off',
  }))
  await primary.switchWal()
  await bank.serves(transactionsBetween)
  await bank.halt()
  const transaction = await bank.transfer(123_456)
  const xid = await nameMoment(primary, bank, async () => ({ recovery_target_xid: transaction }))
  await bank.resume()
  const named = await next(async () => {
    await primary.query(`SELECT pg_create_restore_point('before the fork')`)
    return { recovery_target_name: 'before the fork' }
  })
  await fill(primary, walSegmentMegabytes)
  const late = await next(async () => ({
    recovery_target_time: await value(primary, 'clock_timestamp()'),
    recovery_target_timeline: '1',
  }))
  await bank.serves(transactionsBetween)
  await bank.halt()
  const newest = await nameMoment(primary, bank, async () => ({}))
  // A server that stops archives all that it has.
  await primary.stop('fast')

  const comesBack = (moment: Moment) => async () => {
    const recovered = await cluster.recover(backup, moment)
    assert.deepEqual(await contentsOf(recovered, moment.ledger), moment.contents)
    await assertSound(recovered)
    await recovered.stop('fast')
  }
  await Promise.all([
    t.test('comes back to a time', comesBack(time)),
    t.test('comes back to the place before a record', comesBack(lsn)),
    t.test('comes back to the end of a transaction', comesBack(xid)),
    t.test('comes back to the newest that was archived', comesBack(newest)),
  ])

  let fork: Moment | undefined
  await t.test('comes back to a named point, and archives on from there', async () => {
    const recovered = await cluster.recover(backup, { ...named, archives: true })
    assert.deepEqual(await contentsOf(recovered, named.ledger), named.contents)
    await using branch = await Bank.reopen(recovered, named.ledger, major + 100)
    await branch.resume()
    await branch.serves(transactionsBetween)
    await cluster.archives(recovered)
    await branch.serves(transactionsBetween)
    await branch.halt()
    fork = await nameMoment(recovered, branch, async () => ({}))
    assert.equal(await timelineOf(recovered), 2)
    await assertSound(recovered)
    await recovered.stop('fast')
  })
  assert(fork !== undefined)
  await Promise.all([
    t.test('comes back along the new timeline, from the backup of the old one', comesBack(fork)),
    t.test('comes back to a time of the old timeline after the new one began', comesBack(late)),
    t.test('is found whole by verify', async () => {
      assert.match(await cluster.verify(), /./)
    }),
  ])
}
