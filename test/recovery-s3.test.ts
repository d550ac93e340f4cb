// What a server has archived to a real Ceph brings back every moment, as from a directory. The credentials are in a file
// that the environment of the postmaster names, and nowhere else.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ArchivedCluster, timelineOf } from './recovery/archived-cluster.ts'
import { Bank, contentsOf } from './recovery/bank.ts'
import { assertSound, installChecks } from './recovery/soundness.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const transactionsBetween = 100

let ceph: Ceph
let profiles: S3Profiles

before(async () => {
  ceph = await sharedCeph()
  profiles = await S3Profiles.begin()
  await profiles.set({ default: ownerOf(ceph) })
})
after(async () => {
  await profiles?.[Symbol.asyncDispose]()
  await ceph?.[Symbol.asyncDispose]()
})

describe('from a bucket', { concurrency: 2 }, () => {
  // With segments that fit into one request, and with such that come in parts.
  for (const { major, walSegmentMegabytes } of [
    { major: 15, walSegmentMegabytes: 1 },
    { major: 18, walSegmentMegabytes: 64 },
  ]) {
    test(`PostgreSQL ${major}, ${walSegmentMegabytes} MB segments`, async t => {
      const url = `s3://${await ceph.createBucket()}/clusters/a%20b?endpoint=${ceph.endpoint}`
      const place = { url, environment: profiles.environment }
      await using cluster = await ArchivedCluster.start({
        major,
        walSegmentMegabytes,
        isEncrypted: true,
        place,
      })
      const { primary } = cluster
      await installChecks(primary)
      await using bank = await Bank.found(primary, major)
      await bank.resume()
      await bank.serves(transactionsBetween)
      const backup = await cluster.backup()
      await bank.serves(transactionsBetween)
      await bank.halt()
      const named = { ledger: { ...bank.ledger }, contents: await contentsOf(primary, bank.ledger) }
      await primary.query(`SELECT pg_create_restore_point('before the fork')`)
      // Text that does not shrink, so that an object of 64 MB has several parts.
      await primary.query(
        `SELECT pg_logical_emit_message(false, 'filler', (SELECT string_agg(sha512(random()::text::bytea), '')
           FROM generate_series(1, 16 * 1024) WHERE part > 0)) FROM generate_series(1, $1::int) AS part`,
        [walSegmentMegabytes],
      )
      await primary.switchWal()
      await bank.resume()
      await bank.serves(transactionsBetween)
      await bank.halt()
      const newest = { ledger: { ...bank.ledger }, contents: await contentsOf(primary, bank.ledger) }
      await cluster.archives(primary)
      await primary.stop('fast')
      assert.doesNotMatch(await primary.log(), new RegExp(`${ceph.accessKey}|${ceph.secretKey}`))

      await t.test('comes back to the newest that was archived', async () => {
        const recovered = await cluster.recover(backup)
        assert.deepEqual(await contentsOf(recovered, newest.ledger), newest.contents)
        await assertSound(recovered)
        await recovered.stop('fast')
      })

      await t.test(
        'comes back to a named point, archives on from there, and comes back to that',
        async () => {
          const target = { recovery_target_name: 'before the fork', recovery_target_timeline: '1' }
          const recovered = await cluster.recover(backup, { target, archives: true })
          assert.deepEqual(await contentsOf(recovered, named.ledger), named.contents)
          await using branch = await Bank.reopen(recovered, named.ledger, major + 100)
          await branch.resume()
          await branch.serves(transactionsBetween)
          await branch.halt()
          const fork = { ledger: { ...branch.ledger }, contents: await contentsOf(recovered, branch.ledger) }
          await cluster.archives(recovered)
          await recovered.stop('fast')
          const again = await cluster.recover(backup)
          assert.ok((await timelineOf(again)) >= 2)
          assert.deepEqual(await contentsOf(again, fork.ledger), fork.contents)
          await again.stop('fast')
        },
      )

      await t.test('passes verify', async () => assert.match(await cluster.verify(), /\S/))
    })
  }
})
