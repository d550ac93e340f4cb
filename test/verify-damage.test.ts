// Every kind of damage has its name, and none goes unnoticed: by verify, and by whoever fetches the file.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recipientOf } from '../src/repository/codec/recipient.ts'
import { encodeMetadataBlock, metadataBlockBytes } from '../src/repository/metadata-block.ts'
import { walObjectKey } from '../src/repository/object-key.ts'
import { Repository } from '../src/repository/repository.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import { verify } from '../src/repository/verify.ts'
import type { FindingKind } from '../src/repository/verify-report.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedRepository, segments } from './support/filled-repository.ts'
import { GeneratedStore } from './support/memory-store.ts'
import { anySystemIdentifier as cluster, walSegment } from './support/wal-segment.ts'

const identity = 'AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX'
const seed = 20261121
const samples = 160

const name = '000000010000000000000001'
const key = walObjectKey(cluster, name)

function repositoryOf(content: Uint8Array): Repository {
  return new Repository({
    store: new GeneratedStore(
      () => [key],
      each => (each === key ? content : undefined),
      () => content.length,
    ),
    clock: { now: () => 0, monotonic: () => 0 },
    newId: () => '',
    writer: 'a test',
  })
}

/** What verify calls the object; `undefined` where it finds nothing. */
async function verdict(content: Uint8Array, decode = false): Promise<FindingKind | undefined> {
  const report = await verify({
    repository: repositoryOf(content),
    clock: { sleep: async () => undefined },
    jobs: 1,
    identities: async () => [identity],
    decode,
  })
  assert.equal(report.error, null)
  assert.ok(report.findings.length <= 1)
  return report.findings[0]?.kind
}

async function assertNotFetched(content: Uint8Array, what: string): Promise<void> {
  const request = { systemIdentifier: cluster, name, identities: async () => [identity] }
  await assert.rejects(
    repositoryOf(content).fetch(request, async () => undefined),
    (thrown: unknown) => thrown instanceof RepositoryError && thrown.code === 'CORRUPT',
    what,
  )
}

async function storedSegment(recipients: readonly string[] = []): Promise<Uint8Array> {
  const filled = new SimulatedRepository()
  await filled.archive([name], { recipients })
  return filled.bytesOf(name)
}

for (const kind of ['compressed', 'encrypted'] as const) {
  const recipients = kind === 'encrypted' ? [recipientOf(identity)] : []

  test(`a flipped bit anywhere in an object is found, ${kind}`, async () => {
    const sound = await storedSegment(recipients)
    assert.equal(await verdict(sound), undefined)
    const random = new SeededRandom(seed)
    for (let sample = 0; sample < samples; sample++) {
      // Half of them in the block in front, which is small beside the rest; and its very edges.
      const edges = [0, metadataBlockBytes - 1, metadataBlockBytes, sound.length - 1]
      const at =
        edges[sample] ??
        (sample % 2 === 0
          ? random.integer(0, metadataBlockBytes - 1)
          : random.integer(metadataBlockBytes, sound.length - 1))
      const bit = random.integer(0, 7)
      const damaged = Uint8Array.from(sound)
      damaged[at] = (damaged[at] ?? 0) ^ (1 << bit)
      const what = `bit ${bit} of byte ${at}`
      assert.equal(await verdict(damaged), at < metadataBlockBytes ? 'metadata' : 'altered', what)
      await assertNotFetched(damaged, what)
    }
  })

  test(`an object that ends too early or too late is found, ${kind}`, async () => {
    const sound = await storedSegment(recipients)
    const random = new SeededRandom(seed)
    const edges = [0, 1, metadataBlockBytes - 1, metadataBlockBytes, metadataBlockBytes + 1, sound.length - 1]
    for (let sample = 0; sample < samples; sample++) {
      const length = edges[sample] ?? random.integer(0, sound.length - 1)
      assert.equal(await verdict(sound.subarray(0, length)), 'truncated', `${length} bytes`)
      await assertNotFetched(sound.subarray(0, length), `${length} bytes`)
    }
    for (const extra of [1, 100, 3 * 1024 * 1024]) {
      const longer = Buffer.concat([sound, new Uint8Array(extra)])
      assert.equal(await verdict(longer), 'too_long', `${extra} bytes too many`)
      await assertNotFetched(longer, `${extra} bytes too many`)
    }
    // What a power cut leaves on a file system that has lost the content: the right size, and zeroes.
    assert.equal(await verdict(new Uint8Array(sound.length)), 'metadata')
    assert.equal(await verdict(Uint8Array.from(sound).fill(0, sound.length - 4_096)), 'altered')
  })
}

test('damage is told with the object, its cluster and its timeline, and breaks the chain of restores', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 5))
  filled.change('000000010000000000000002', bytes => bytes.subarray(0, 4_200))
  filled.change('000000010000000000000003', bytes => bytes.fill(0, 100, 101))
  const report = await filled.verify()
  const path = `${cluster}/wal/00000001/00000000`
  const { stored_length } = filled.metadataOf('000000010000000000000001')
  const about = { system_identifier: cluster, timeline: 1 }
  assert.ok(stored_length > 4_200)
  assert.deepEqual(
    report.findings.map(({ kind, count, shown }) => ({ kind, count, shown })),
    [
      {
        kind: 'truncated',
        count: 1,
        shown: [
          {
            message: `"${path}/000000010000000000000002.pgarchivist" in repository "file:///repository" is damaged: the stored bytes end after 104 of ${filled.metadataOf('000000010000000000000002').stored_length}`,
            key: `${path}/000000010000000000000002.pgarchivist`,
            ...about,
          },
        ],
      },
      {
        kind: 'metadata',
        count: 1,
        shown: [
          {
            message: `"${path}/000000010000000000000003.pgarchivist" in repository "file:///repository" is damaged: its metadata block is damaged`,
            key: `${path}/000000010000000000000003.pgarchivist`,
            ...about,
          },
        ],
      },
    ],
  )
  const [timeline] = report.clusters[0]?.timelines ?? []
  assert.equal(timeline?.segments, 5)
  assert.equal(timeline?.missing_segments, 0)
  assert.equal(timeline?.restore?.from.lsn, '0/400000')
})

test('an object that stands under the name of another one is found', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 3))
  filled.change('000000010000000000000002', () => filled.bytesOf('000000010000000000000001'))
  const [finding] = (await filled.verify()).findings
  assert.equal(finding?.kind, 'metadata')
  assert.match(finding?.shown[0]?.message ?? '', /is damaged: it is "000000010000000000000001" of cluster 73/)
})

test('an object of a newer format is not damaged', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 1))
  const { createHash } = await import('node:crypto')
  filled.change('000000010000000000000001', bytes => {
    const text = Buffer.from(bytes.subarray(0, 4_031)).toString('latin1').replace('format 1', 'format 2')
    const digest = createHash('sha256').update(text, 'latin1').digest('hex')
    return Buffer.concat([Buffer.from(`${text}${digest}\n`, 'latin1'), bytes.subarray(4_096)])
  })
  assert.deepEqual(
    (await filled.verify()).findings.map(({ kind }) => kind),
    ['newer_format'],
  )
})

test('a damaged timeline history is one finding, and does not hide gaps within timelines', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(2, 4, 4), ...segments(2, 6, 6)])
  await filled.archive(['00000002.history'], { content: '1\t0/480000\tx\n' })
  filled.change('00000002.history', bytes => bytes.subarray(0, bytes.length - 1))
  const { findings } = await filled.verify()
  assert.deepEqual(
    findings.map(({ kind, shown }) => [kind, shown[0]?.first]),
    [
      ['missing', '000000020000000000000005'],
      ['truncated', undefined],
    ],
  )
})

test('content that is not what was archived is found by decoding only, and then called altered', async () => {
  // Stored as it was encoded, so everything that needs no decoding is right.
  const filled = new SimulatedRepository()
  await filled.archive([name])
  const other = walSegment({ name, seed: 2 })
  const { plaintextDigest } = await import('../src/repository/codec/plaintext-digest.ts')
  let position = 0
  const { digest } = await plaintextDigest({
    read: async buffer => {
      const bytes = other.subarray(position, position + buffer.length)
      buffer.set(bytes)
      position += bytes.length
      return bytes.length
    },
  })
  const metadata = { ...filled.metadataOf(name), plaintext_xxh128: digest }
  filled.change(name, bytes =>
    Buffer.concat([encodeMetadataBlock(metadata), bytes.subarray(metadataBlockBytes)]),
  )
  assert.equal((await filled.verify()).status, 'ok')
  const decoded = await filled.verify({ decode: true })
  assert.deepEqual(
    decoded.findings.map(({ kind }) => kind),
    ['altered'],
  )
  assert.ok(decoded.decoded)
})

test('encrypted objects need a key for decoding alone, and a wrong one is called so', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 3), { recipients: [recipientOf(identity)] })
  assert.equal((await filled.verify()).status, 'ok')
  const withKey = { decode: true, identities: async () => [identity] }
  assert.equal((await filled.verify(withKey)).status, 'ok')
  const without = await filled.verify({ decode: true })
  assert.deepEqual(
    without.findings.map(({ kind, count }) => [kind, count]),
    [['no_key', 3]],
  )
  const { generateX25519Identity } = await import('age-encryption')
  const otherIdentity = await generateX25519Identity()
  const other = await filled.verify({ decode: true, identities: async () => [otherIdentity] })
  assert.deepEqual(
    other.findings.map(({ kind, count }) => [kind, count]),
    [['wrong_key', 3]],
  )
  const text = JSON.stringify([without, other])
  assert.ok(!text.includes('AGE-SECRET-KEY'), 'no secret in the report')
  assert.ok(text.includes(recipientOf(identity)))
})

test('where timelines branched off stays open while their histories are encrypted', async () => {
  const filled = new SimulatedRepository()
  const recipients = [recipientOf(identity)]
  // Segment 3 of the parent is missing, which only the history tells.
  await filled.archive([...segments(1, 1, 2), ...segments(2, 4, 5)], { recipients })
  await filled.archive(['00000002.history'], { recipients, content: '1\t0/480000\tx\n' })
  const without = await filled.verify()
  assert.equal(without.status, 'ok')
  assert.deepEqual(
    without.notes.map(({ kind, shown }) => [kind, shown[0]?.message]),
    [
      [
        'unknown_lineage',
        `where timeline 2 of cluster ${cluster} branched off is not known, because "00000002.history" is encrypted`,
      ],
    ],
  )
  const withKey = await filled.verify({ identities: async () => [identity] })
  assert.deepEqual(
    withKey.findings.map(({ kind, shown }) => [kind, shown[0]?.first]),
    [['missing', '000000010000000000000003']],
  )
  assert.deepEqual(withKey.notes, [])
})

test('a fault of the program is not told as damage', async () => {
  const store = new GeneratedStore(
    () => [key],
    () => {
      throw new TypeError('a fault')
    },
  )
  const repository = new Repository({
    store,
    clock: { now: () => 0, monotonic: () => 0 },
    newId: () => '',
    writer: 'a test',
  })
  const options = { repository, clock: { sleep: async () => undefined }, jobs: 1, decode: false }
  await assert.rejects(verify({ ...options, identities: async () => [] }), TypeError)
})
