// What a server has archived to a real Ceph brings back every moment, as from a directory.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ArchivedCluster } from './recovery/archived-cluster.ts'
import { CephPlaces } from './recovery/ceph-places.ts'
import { bringsBackEveryMoment } from './recovery/every-moment.ts'

let places: CephPlaces

before(async () => {
  places = await CephPlaces.begin()
})
after(async () => await places?.[Symbol.asyncDispose]())

describe('from a bucket', { concurrency: 2 }, () => {
  // With segments that fit into one request, and with such that come in parts.
  for (const { major, walSegmentMegabytes } of [
    { major: 15, walSegmentMegabytes: 1 },
    { major: 18, walSegmentMegabytes: 64 },
  ]) {
    test(`PostgreSQL ${major}, ${walSegmentMegabytes} MB segments`, { concurrency: 2 }, async t => {
      await using cluster = await ArchivedCluster.start({
        major,
        walSegmentMegabytes,
        isEncrypted: true,
        place: await places.place('clusters/a%20b'),
      })
      await bringsBackEveryMoment(t, cluster)
      const { ceph } = places
      assert.doesNotMatch(await cluster.primary.log(), new RegExp(`${ceph.accessKey}|${ceph.secretKey}`))
    })
  }
})
