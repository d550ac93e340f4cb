// Two servers that archive the same names to one bucket, over and over: one of them wins each time, and the other one is
// told the truth.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { openStore } from '../src/cli/open-store.ts'
import { Repository } from '../src/repository/repository.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import { parseS3Location } from '../src/repository/s3-location.ts'
import { realClock } from '../src/system/clock.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const systemIdentifier = '7300000000000000001'
const rounds = 1_000
const roundsAtOnce = 16

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

async function server(bucket: string): Promise<Repository> {
  const location = parseS3Location(`s3://${bucket}/wal?endpoint=${ceph.endpoint}`)
  const store = await openStore(location, {
    writer: '',
    isGroupReadable: false,
    owner: undefined,
    retryMs: 60_000,
  })
  return new Repository({ store, clock: realClock, newId: randomUUID, writer: 'test' })
}

/** A small file: what is raced for is its name. */
function source(name: string, content: Buffer) {
  return {
    name,
    open: async () => {
      let taken = 0
      return {
        stat: async () => ({ size: content.length, modifiedNs: 1n, changedNs: 1n, inode: 1n, device: 1n }),
        read: async (buffer: Uint8Array) => {
          const bytes = content.copy(buffer, 0, taken)
          taken += bytes
          return bytes
        },
        [Symbol.asyncDispose]: async () => {},
      }
    },
  }
}

async function archive(repository: Repository, name: string, content: Buffer): Promise<string> {
  const cluster = { systemIdentifier, walSegmentBytes: 1024 ** 2, pageMagic: undefined }
  return await repository
    .archive(source(name, content), { cluster, headerCheck: false, compressionLevel: 1, recipients: [] })
    .catch((thrown: unknown) => {
      if (thrown instanceof RepositoryError) return thrown.code
      throw thrown
    })
}

async function fetch(repository: Repository, name: string): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  const identities = async () => []
  const isThere = await repository.fetch({ systemIdentifier, name, identities }, async bytes => {
    pieces.push(Uint8Array.from(bytes))
  })
  assert.ok(isThere, `"${name}" is not there`)
  return Buffer.concat(pieces)
}

test('two servers race for a thousand names, one wins each time, and other content is refused', async () => {
  const bucket = await ceph.createBucket()
  await using first = await server(bucket)
  await using second = await server(bucket)
  // They also race for being the one who begins the repository.
  let round = 0
  const race = async () => {
    while (round < rounds) {
      const number = round++
      const name = `${(number + 2).toString(16).toUpperCase().padStart(8, '0')}.history`
      const isSame = number % 2 === 0
      const contents = [1, 2].map(who => Buffer.from(`round ${number}${isSame ? '' : ` of ${who}`}\n`))
      const [one = Buffer.of(), two = Buffer.of()] = contents
      const outcomes = await Promise.all([archive(first, name, one), archive(second, name, two)])
      const loser = isSame ? 'already archived' : 'DIFFERENT'
      assert.deepEqual(outcomes.toSorted(), ['archived', loser].toSorted(), `${name}: ${outcomes.join(', ')}`)
      const winner = outcomes[0] === 'archived' ? one : two
      assert.deepEqual(await fetch(second, name), winner, name)
    }
  }
  await Promise.all(Array.from({ length: roundsAtOnce }, race))
})

test('a bucket that vanishes while it is in use is an error for each file, and nothing is concluded from it', async () => {
  const bucket = await ceph.createBucket()
  await using repository = await server(bucket)
  const name = '00000002.history'
  assert.equal(await archive(repository, name, Buffer.from('1')), 'archived')
  await ceph.removeBucket(bucket)
  for (const each of [name, '00000003.history']) {
    assert.equal(await archive(repository, each, Buffer.from('1')), 'UNREACHABLE')
    await assert.rejects(async () => await fetch(repository, each), /there is no bucket/)
  }
})
