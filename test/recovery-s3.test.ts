// What a server has archived to a real Ceph brings back every moment, as from a directory. The credentials are in a file
// that the environment of the postmaster names, and nowhere else.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ArchivedCluster } from './recovery/archived-cluster.ts'
import { bringsBackEveryMoment } from './recovery/every-moment.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

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
    test(`PostgreSQL ${major}, ${walSegmentMegabytes} MB segments`, { concurrency: 2 }, async t => {
      const url = `s3://${await ceph.createBucket()}/clusters/a%20b?endpoint=${ceph.endpoint}`
      await using cluster = await ArchivedCluster.start({
        major,
        walSegmentMegabytes,
        isEncrypted: true,
        place: { url, environment: profiles.environment },
      })
      await bringsBackEveryMoment(t, cluster)
      assert.doesNotMatch(await cluster.primary.log(), new RegExp(`${ceph.accessKey}|${ceph.secretKey}`))
    })
  }
})
