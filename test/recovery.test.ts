// The evidence that an archive is worth something: what a server has archived with our library while sessions wrote
// to it brings back, on a base backup taken in the midst of that, every moment that is asked for.

import { describe, test } from 'node:test'
import { ArchivedCluster, type ClusterOptions } from './recovery/archived-cluster.ts'
import { bringsBackEveryMoment } from './recovery/every-moment.ts'

// The oldest, the middle and the newest; each has what the others have not, and the default size of segments comes back
// both ways. recovery-s3.test.ts has the largest.
const clusters: ClusterOptions[] = [
  { major: 15, walSegmentMegabytes: 16, isEncrypted: false },
  { major: 17, walSegmentMegabytes: 1, isEncrypted: true },
  {
    major: 18,
    walSegmentMegabytes: 16,
    isEncrypted: true,
    settings: { 'pgarchivist.compression_level': '3', wal_compression: 'pglz' },
  },
]

describe('from the repository', { concurrency: 3 }, () => {
  for (const options of clusters) {
    const { major, walSegmentMegabytes, isEncrypted } = options
    const what = `PostgreSQL ${major}, ${walSegmentMegabytes} MB segments, ${isEncrypted ? 'encrypted' : 'not encrypted'}`
    test(what, { concurrency: 2 }, async t => {
      await using cluster = await ArchivedCluster.start(options)
      await bringsBackEveryMoment(t, cluster)
    })
  }
})
