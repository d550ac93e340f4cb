// Two servers that archive the same names to one bucket, over and over: one of them wins each time, and the other one is
// told the truth.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { catchUp } from '../src/repository/catch-up.ts'
import { walObjectKey } from '../src/repository/object-key.ts'
import type { Repository } from '../src/repository/repository.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import type { RepositoryWarning } from '../src/repository/repository-identity.ts'
import { RepositorySet } from '../src/repository/repository-set.ts'
import { realClock } from '../src/system/clock.ts'
import { FaultProxy } from './support/fault-proxy.ts'
import { openRepositoryAt } from './support/repository-at.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'
import { sourceOf } from './support/source-of.ts'
import { UnconditionalS3 } from './support/unconditional-s3.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const systemIdentifier = '7300000000000000001'
const rounds = 1_000
const roundsAtOnce = 16
/** More than is stored by one request, however it is compressed. */
const inParts = randomBytes(9 * 1024 ** 2)

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

async function server(
  bucket: string,
  {
    endpoint = ceph.endpoint,
    unguarded,
  }: { endpoint?: string; unguarded?: (warning: RepositoryWarning) => void } = {},
): Promise<Repository> {
  return await openRepositoryAt(`s3://${bucket}/wal?endpoint=${endpoint}`, {
    retryMs: 60_000,
    ...(unguarded && { unguarded }),
  })
}

async function archive(
  repository: Pick<Repository, 'archive'>,
  name: string,
  content: Buffer,
): Promise<string> {
  const cluster = { systemIdentifier, walSegmentBytes: 1024 ** 2, pageMagic: undefined }
  return await repository
    .archive(sourceOf(name, content), { cluster, headerCheck: false, compressionLevel: 1, recipients: [] })
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
      const more = number % 100 < 2 ? inParts : Buffer.of()
      const contents = [1, 2].map(who =>
        Buffer.concat([Buffer.from(`round ${number}${isSame ? '' : ` of ${who}`}\n`), more]),
      )
      const [one = Buffer.of(), two = Buffer.of()] = contents
      const outcomes = await Promise.all([archive(first, name, one), archive(second, name, two)])
      const loser = isSame ? 'already archived' : 'DIFFERENT'
      assert.deepEqual(outcomes.toSorted(), ['archived', loser].toSorted(), `${name}: ${outcomes.join(', ')}`)
      const winner = outcomes[0] === 'archived' ? one : two
      assert.ok(winner.equals(await fetch(second, name)), name)
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

test('a store that ignores conditions is named, and what is there is kept all the same', async () => {
  await using store = await UnconditionalS3.start(ceph)
  const { endpoint } = store
  const bucket = await ceph.createBucket()
  const told: string[] = []
  const unguarded = ({ message }: RepositoryWarning) => void told.push(message)
  await using first = await server(bucket, { endpoint, unguarded })
  await using second = await server(bucket, { endpoint, unguarded })
  const small = Buffer.from('a small file\n')
  // Of which a part would be sent before the rest is known, if it could be.
  const large = randomBytes(10 * 1024 ** 2)
  for (const [name, content] of [
    ['00000002.history', small],
    ['00000003.history', large],
  ] as const) {
    assert.equal(await archive(first, name, content), 'archived')
    assert.equal(await archive(second, name, content), 'already archived')
    const other = Buffer.from(content)
    other[0] = (other[0] ?? 0) ^ 1
    assert.equal(await archive(second, name, other), 'DIFFERENT')
    assert.ok(content.equals(await fetch(second, name)), name)
  }
  assert.ok(store.conditionsIgnored > 0, 'no condition was asked for')
  const url = `s3://${bucket}/wal?endpoint=${endpoint}`
  // Once by each of the two servers, however many files there are.
  const warning = `repository "${url}" cannot keep two servers from archiving different files under one name`
  assert.deepEqual(told, [warning, warning])
})

test('two servers that archive the same files at the same moment to a store that ignores conditions both succeed', async () => {
  await using store = await UnconditionalS3.start(ceph)
  const { endpoint } = store
  const bucket = await ceph.createBucket()
  await using first = await server(bucket, { endpoint })
  await using second = await server(bucket, { endpoint })
  assert.equal(await archive(first, '00000002.history', Buffer.from('begun\n')), 'archived')
  const race = async (round: number) => {
    const name = `${(round + 3).toString(16).toUpperCase().padStart(8, '0')}.history`
    const content = Buffer.from(`round ${round}\n`)
    const outcomes = await Promise.all([archive(first, name, content), archive(second, name, content)])
    // Each may be told that it was the one: which of them it was cannot be known there.
    for (const outcome of outcomes) assert.match(outcome, /^(already )?archived$/, name)
    assert.deepEqual(await fetch(second, name), content, name)
  }
  await Promise.all(Array.from({ length: 100 }, (_, round) => race(round)))
})

test('a bucket that was away is brought up to date from a directory, byte for byte', async () => {
  await using line = await FaultProxy.start({ target: ceph.endpoint })
  await using directory = await temporaryDirectory()
  const bucket = await ceph.createBucket()
  const inDirectory = () => openRepositoryAt(`file://${directory.path}/wal`)
  await mkdir(join(directory.path, 'wal'))
  const files = new Map(
    ['00000002.history', '00000003.history', '00000004.history'].map((name, index) => [
      name,
      Buffer.concat([Buffer.from(name), index === 2 ? inParts : Buffer.of()]),
    ]),
  )
  const [begun = '', ...others] = files.keys()
  const contentOf = (name: string) => files.get(name) ?? Buffer.of()
  {
    await using set = new RepositorySet({
      repositories: [await server(bucket, { endpoint: line.endpoint }), await inDirectory()],
      quorum: 1,
      clock: realClock,
    })
    assert.equal(await archive(set, begun, contentOf(begun)), 'archived')
    await line.beginOutage()
    for (const name of others) assert.equal(await archive(set, name, contentOf(name)), 'archived')
  }
  await line.endOutage()

  await using remote = await server(bucket, { endpoint: line.endpoint })
  await using local = await inDirectory()
  const report = await catchUp({ repositories: [remote, local], systemIdentifier, filesAtOnce: 4 })
  assert.equal(report.status, 'ok', JSON.stringify(report))
  assert.ok((report.repositories[0]?.copied ?? 0) >= others.length, JSON.stringify(report))
  for (const [name, content] of files) {
    const key = walObjectKey(systemIdentifier, name)
    // Each has made its own of the first one.
    if (name !== begun) assert.ok((await storedIn(remote, key)).equals(await storedIn(local, key)), name)
    assert.ok(content.equals(await fetch(remote, name)), name)
  }
})

async function storedIn({ store }: Repository, key: string): Promise<Buffer> {
  await using object = await store.open(key)
  assert.ok(object)
  const bytes = Buffer.alloc(object.length)
  assert.equal(await object.read(bytes), bytes.length)
  return bytes
}
