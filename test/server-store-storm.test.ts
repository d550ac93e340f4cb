// A short storm; `npm run soak -- --store --server` has the long ones.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { removeTemplates } from './bridge/bridged-server.ts'
import { runServerStorm } from './store-storm/server-storm.ts'
import { S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const major = 18

test(`whatever becomes of requests to a store, PostgreSQL ${major} loses no file and notices no more than a delay`, async t => {
  await using ceph = await sharedCeph()
  await using profiles = await S3Profiles.begin()
  const seed = Date.now() % 1_000_000
  const report = await runServerStorm({ ceph, profiles, major, files: 100, seed, awayMs: 2_000 })
  t.diagnostic(report)
  const failed = Number(/(\d+) failed attempts/.exec(report)?.[1])
  // A storm that nobody notices proves nothing.
  assert.ok(failed > 0, report)
})

after(removeTemplates)
