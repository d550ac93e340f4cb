import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import {
  encodeMetadataBlock,
  metadataBlockBytes,
  type ObjectMetadata,
  parseMetadataBlock,
  recipientsMax,
} from '../src/repository/metadata-block.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'

const metadata: ObjectMetadata = {
  name: '000000010000000000000001',
  system_identifier: '7300000000000000001',
  plaintext_xxh128: '5474cdefaea624bb668b7a834caa5335',
  plaintext_length: 16_777_216,
  stored_sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  stored_length: 1_153_879,
  compression: 'zstd',
  encryption: 'none',
  recipients: [],
  wal_segment_size: 16_777_216,
  wal_page_magic: 'D116',
  archived_at: '2026-01-01T00:00:00.000Z',
  modified_at: '2025-12-31T23:59:59.000Z',
  writer: 'pgarchivist 0.1.0',
}

const recipient = `age1${'q'.repeat(58)}`

/** A block of any text, with a right checksum. */
function blockOf(text: string): Buffer {
  const front = Buffer.alloc(metadataBlockBytes - 65, ' ')
  front.write(text)
  return Buffer.concat([front, Buffer.from(`${createHash('sha256').update(front).digest('hex')}\n`)])
}

const title = 'pgarchivist object, format 1\n'

test('what an object says of itself can be read by people, and by sha256sum', () => {
  const block = Buffer.from(encodeMetadataBlock(metadata))
  assert.equal(block.length, 4_096)
  const text = block.subarray(0, 4_031)
  assert.ok(text.toString().startsWith(`${title}{\n "name": "000000010000000000000001",\n`))
  assert.match(text.toString(), /\n\} *\n$|\n\}\n *\n$/)
  assert.equal(block.subarray(4_031).toString(), `${createHash('sha256').update(text).digest('hex')}\n`)
  assert.deepEqual(JSON.parse(text.toString().slice(title.length)), metadata)
})

test('what was written is read', () => {
  for (const written of [
    metadata,
    { ...metadata, wal_segment_size: null, wal_page_magic: null },
    { ...metadata, encryption: 'age', recipients: [recipient] },
    { ...metadata, plaintext_length: 0 },
  ] satisfies ObjectMetadata[]) {
    assert.deepEqual(parseMetadataBlock(encodeMetadataBlock(written)), {
      kind: 'metadata',
      metadata: written,
    })
  }
})

test('a block has room for as many recipients as may be set, beside the longest of everything else', () => {
  const longest: ObjectMetadata = {
    ...metadata,
    name: '000000010000000000000001.00000028.backup',
    system_identifier: '18446744073709551615',
    plaintext_length: Number.MAX_SAFE_INTEGER,
    stored_length: Number.MAX_SAFE_INTEGER,
    encryption: 'age',
    recipients: Array.from({ length: recipientsMax }, () => recipient),
    writer: `pgarchivist ${'9'.repeat(40)}`,
  }
  assert.deepEqual(parseMetadataBlock(encodeMetadataBlock(longest)), { kind: 'metadata', metadata: longest })
  const tooMany = { ...longest, recipients: Array.from({ length: 100 }, () => recipient) }
  assert.throws(() => encodeMetadataBlock(tooMany), { message: 'the metadata do not fit into their block' })
})

test('members that a later version has added are passed over', () => {
  const block = blockOf(`${title}${JSON.stringify({ ...metadata, color: 'blue' })}\n`)
  const parsed = parseMetadataBlock(block)
  assert.equal(parsed.kind === 'metadata' && parsed.metadata.name, metadata.name)
})

test('a later format is told apart from damage', () => {
  assert.deepEqual(parseMetadataBlock(blockOf('pgarchivist object, format 2\nwhatever')), {
    kind: 'newer',
    format: '2',
  })
})

test('every flipped bit is damage', () => {
  const block = encodeMetadataBlock(metadata)
  for (let bit = 0; bit < block.length * 8; bit += 7) {
    const damaged = block.slice()
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.deepEqual(
      parseMetadataBlock(damaged),
      { kind: 'damaged', why: 'its metadata block is damaged' },
      `bit ${bit}`,
    )
  }
})

test('every missing end is damage', () => {
  const block = encodeMetadataBlock(metadata)
  for (let length = 0; length < block.length; length += 97) {
    assert.deepEqual(parseMetadataBlock(block.subarray(0, length)), {
      kind: 'damaged',
      why: 'it is shorter than its metadata block',
    })
  }
})

test('a block that is right in itself and says nothing of use is damage', () => {
  assert.deepEqual(parseMetadataBlock(blockOf('something else')), {
    kind: 'damaged',
    why: 'it does not begin with a metadata block',
  })
  const wrong: object[] = [
    ...Object.keys(metadata).map(key => ({ [key]: undefined })),
    { name: '../../etc/passwd' },
    { name: 5 },
    { system_identifier: '../7' },
    { system_identifier: 7 },
    { plaintext_xxh128: 'x' },
    { plaintext_length: -1 },
    { plaintext_length: 1.5 },
    { plaintext_length: '1' },
    { stored_sha256: metadata.stored_sha256.slice(1) },
    { stored_length: null },
    { compression: 'lz4' },
    { encryption: 'rot13' },
    { recipients: 'age1' },
    { recipients: [1] },
    { wal_segment_size: 'x' },
    { wal_page_magic: 'd116' },
    { archived_at: 5 },
  ]
  for (const members of wrong) {
    const block = blockOf(`${title}${JSON.stringify({ ...metadata, ...members })}\n`)
    const why = 'its metadata are not what they should be'
    assert.deepEqual(parseMetadataBlock(block), { kind: 'damaged', why }, JSON.stringify(members))
  }
  for (const json of ['', 'null', '[]', '5', '{', '{"name":']) {
    assert.equal(parseMetadataBlock(blockOf(`${title}${json}\n`)).kind, 'damaged', json)
  }
})

test('no bytes at all make it throw', () => {
  const random = new SeededRandom(1)
  for (let run = 0; run < 300; run++) {
    const text = Buffer.from(random.bytes(random.integer(0, 4_031))).toString('latin1')
    const parsed = parseMetadataBlock(blockOf(random.chance(0.5) ? text : `${title}${text}`))
    assert.notEqual(parsed.kind, 'metadata')
  }
})
