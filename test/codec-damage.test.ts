import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CodecError } from '../src/repository/codec/codec-error.ts'
import { checkStored } from '../src/repository/codec/decode.ts'
import { frameBytes } from '../src/repository/codec/zstd-compressor.ts'
import { ageKeys } from './support/age-keys.ts'
import { BytesSource, likeWal, restated, restored, type Stored, stored } from './support/coded-bytes.ts'

const [mine, colleague, stranger] = ageKeys
// More than one frame, and more than two pieces of 64 KiB when it is compressed.
const plaintext = likeWal(frameBytes(1) + 100_000)

const objects = [
  { what: 'compressed', object: await stored(plaintext), identities: [], headerBytes: 20 },
  {
    what: 'encrypted',
    object: await stored(plaintext, { recipients: [colleague.recipient, mine.recipient] }),
    identities: [mine.identity],
    headerBytes: 320,
  },
]

/** All of the header and of the end, and some between. */
function positions({ object, headerBytes }: (typeof objects)[number]): number[] {
  const isChosen = (at: number) => at < headerBytes || at >= object.storedLength - 30 || at % 2_503 === 0
  return Array.from({ length: object.storedLength }, (_, at) => at).filter(isChosen)
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy.writeUInt8(copy.readUInt8(at) ^ (1 << (at % 8)), at)
  return copy
}

const check = ({ bytes, ...object }: Stored) => checkStored(new BytesSource(bytes), object)

for (const each of objects) {
  const { what, object, identities } = each
  test(`${what}: a bit that has changed anywhere is found, without a key too`, async () => {
    const altered = {
      name: 'CodecError',
      kind: 'altered',
      message: 'the stored bytes do not match their digest',
    }
    for (const at of positions(each)) {
      const damaged = { ...object, bytes: flipped(object.bytes, at) }
      await assert.rejects(check(damaged), altered)
      await assert.rejects(restored(damaged, identities), altered, `at ${at}`)
    }
  })

  test(`${what}: it is said that the end is missing, wherever it begins`, async () => {
    for (const length of positions(each)) {
      const damaged = { ...object, bytes: object.bytes.subarray(0, length) }
      const truncated = {
        name: 'CodecError',
        kind: 'truncated',
        message: `the stored bytes end after ${length} of ${object.storedLength}`,
      }
      await assert.rejects(check(damaged), truncated)
      await assert.rejects(restored(damaged, identities), truncated)
    }
  })

  test(`${what}: it is said that there is more than there should be`, async () => {
    const tooLong = {
      name: 'CodecError',
      kind: 'too long',
      message: `there are more than the ${object.storedLength} bytes that were stored`,
    }
    for (const more of [Buffer.alloc(1), Buffer.alloc(3_000_000), object.bytes]) {
      const damaged = { ...object, bytes: Buffer.concat([object.bytes, more]) }
      await assert.rejects(check(damaged), tooLong)
      await assert.rejects(restored(damaged, identities), tooLong)
    }
  })

  // The block before the stored bytes is not authenticated: who alters the one can alter the other.
  test(`${what}: a changed bit never gives another file, even if the digest was changed with it`, async () => {
    let refused = 0
    for (const at of positions(each)) {
      const damaged = restated(object, flipped(object.bytes, at))
      await check(damaged)
      try {
        assert.ok((await restored(damaged, identities)).equals(plaintext), `at ${at}`)
      } catch (error) {
        assert.ok(error instanceof CodecError, `at ${at}`)
        // In the header, what was for us may now seem to be for somebody else.
        assert.ok(
          error.kind === 'altered' || (error.kind === 'wrong key' && at < each.headerBytes),
          `at ${at}: ${error}`,
        )
        refused++
      }
    }
    // zstd has bits without a meaning; age has none.
    const tried = positions(each).length
    assert.ok(what === 'encrypted' ? refused === tried : refused > tried - 20, `${refused} of ${tried}`)
  })

  test(`${what}: bytes that are missing or added are found, even if the digest says otherwise`, async () => {
    for (const length of positions(each)) {
      const shortened = restated(object, object.bytes.subarray(0, length))
      await assert.rejects(
        restored(shortened, identities),
        { name: 'CodecError', kind: 'altered' },
        `${length}`,
      )
    }
    for (const more of [Buffer.alloc(1), Buffer.alloc(100_000), object.bytes]) {
      const longer = restated(object, Buffer.concat([object.bytes, more]))
      await assert.rejects(restored(longer, identities), { name: 'CodecError', kind: 'altered' })
    }
  })

  test(`${what}: a file of another length or digest is not the one that was archived`, async () => {
    for (const plaintextLength of [0, plaintext.length - 1, plaintext.length + 1]) {
      await assert.rejects(restored({ ...object, plaintextLength }, identities), {
        name: 'CodecError',
        kind: 'altered',
        message: `the zstd frames do not hold the ${plaintextLength} bytes of the file`,
      })
    }
    await assert.rejects(restored({ ...object, plaintextDigest: '0'.repeat(32) }, identities), {
      name: 'CodecError',
      kind: 'altered',
      message: 'the bytes that came out do not match the digest of the file',
    })
  })
}

test('what is encrypted cannot be read as if it were not, nor the other way round', async () => {
  const [compressed, encrypted] = objects
  assert.ok(compressed && encrypted)
  await assert.rejects(restored(encrypted.object), { kind: 'altered', message: 'it is not a zstd frame' })
  await assert.rejects(restored(compressed.object, [mine.identity]), {
    kind: 'altered',
    message: 'it does not begin with the header of an age file',
  })
})

test('a wrong key is told from damage, and damage is named even to those who have no right key', async () => {
  const object = await stored(plaintext, { recipients: [mine.recipient] })
  await assert.rejects(restored(object, [colleague.identity, stranger.identity]), {
    name: 'CodecError',
    kind: 'wrong key',
    message: 'none of the identities is one of its recipients',
  })
  const altered = { ...object, bytes: flipped(object.bytes, object.storedLength - 1) }
  await assert.rejects(restored(altered, [stranger.identity]), { kind: 'altered' })
  const truncated = { ...object, bytes: object.bytes.subarray(0, -1) }
  await assert.rejects(restored(truncated, [stranger.identity]), { kind: 'truncated' })
})
