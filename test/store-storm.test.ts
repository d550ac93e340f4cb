// A short storm around a store; `npm run soak -- --store` has the long ones.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runStoreStorm } from './store-storm/store-storm.ts'
import { S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const files = 300

test('whatever becomes of requests to a store, nothing acknowledged is missing, differs or was replaced', async t => {
  await using ceph = await sharedCeph()
  await using profiles = await S3Profiles.begin()
  const seed = Date.now() % 1_000_000
  t.diagnostic(`seed ${seed}`)
  const report = await runStoreStorm({ ceph, profiles, files, seed })
  t.diagnostic(JSON.stringify(report))
  assert.deepEqual(report.brokenPromises, [])
  assert.deepEqual([report.archived, report.fetched], [files, files])
  // A storm in which nothing happens proves nothing.
  assert.ok(Object.keys(report.faults).length >= 4, JSON.stringify(report.faults))
  assert.ok(report.failedAttempts > 0 && report.failedFetches > 0)
})
