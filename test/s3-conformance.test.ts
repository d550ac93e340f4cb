// A store in a bucket of a real Ceph keeps to the same facts as all others; of the older one, and of one that ignores
// conditions, except for what it lacks.

import { after, before, suite, test } from 'node:test'
import { openStore } from '../src/cli/open-store.ts'
import { parseS3Location } from '../src/repository/s3-location.ts'
import { storeConformance } from '../src/repository/store/conformance.ts'
import type { Store } from '../src/repository/store/store.ts'
import type { Ceph, CephDialect } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'
import { UnconditionalS3 } from './support/unconditional-s3.ts'

const oddName = encodeURIComponent(`ä %41+b "c' <d>&e`)

function conformanceOn(dialect: CephDialect, { ignoresConditions = false } = {}): void {
  let ceph: Ceph
  let unconditional: UnconditionalS3 | undefined
  let profiles: S3Profiles
  const urls = new WeakMap<Store, string>()

  const storeAt = async (url: string) => {
    const store = await openStore(parseS3Location(url), {
      writer: '',
      isGroupReadable: false,
      owner: undefined,
      retryMs: 60_000,
    })
    urls.set(store, url)
    return store
  }
  before(async () => {
    ceph = await sharedCeph({ dialect })
    if (ignoresConditions) unconditional = await UnconditionalS3.start(ceph)
    profiles = await S3Profiles.begin()
    await profiles.set({ default: ownerOf(ceph) })
  })
  after(async () => {
    await unconditional?.[Symbol.asyncDispose]()
    await profiles?.[Symbol.asyncDispose]()
    await ceph?.[Symbol.asyncDispose]()
  })

  const facts = storeConformance({
    newStore: async ({ isOddlyNamed }) =>
      await storeAt(
        `s3://${await ceph.createBucket()}/${isOddlyNamed ? oddName : 'wal'}?endpoint=${(unconditional ?? ceph).endpoint}`,
      ),
    anotherWriter: async store => await storeAt(urls.get(store) ?? ''),
    keepsWhatIsThere: !ignoresConditions,
    // Lists are the same with and without conditions.
    ...(ignoresConditions && { manyNames: 40 }),
  })
  for (const { name, prove } of facts) test(name, prove)
}

suite('Ceph 20', () => conformanceOn('current'))
suite('Ceph 18', () => conformanceOn('older'))
suite('Ceph 20 without conditions', () => conformanceOn('current', { ignoresConditions: true }))
