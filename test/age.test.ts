import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { AgeDecryptor } from '../src/repository/codec/age-decryptor.ts'
import { AgeEncryptor } from '../src/repository/codec/age-encryptor.ts'
import { AgePayload, pieceBytes, tagBytes } from '../src/repository/codec/age-payload.ts'
import { encodeBech32 } from '../src/repository/codec/bech32.ts'
import { decode } from '../src/repository/codec/decode.ts'
import { ageKeys } from './support/age-keys.ts'
import { runCommand } from './support/archive-commands.ts'
import { BytesSink, BytesSource, likeWal, noise, restated, restored, stored } from './support/coded-bytes.ts'

const [mine, colleague, stranger] = ageKeys

async function encrypted(
  plaintext: Uint8Array,
  recipients: readonly string[],
  step: number,
): Promise<Buffer> {
  const age = new AgeEncryptor(recipients)
  const pieces = [age.header]
  for (let at = 0; at < plaintext.length; at += step)
    pieces.push(age.encrypt(plaintext.subarray(at, at + step)))
  pieces.push(age.end())
  return Buffer.concat(pieces)
}

async function decrypted(file: Uint8Array, identities: readonly string[], step: number): Promise<Buffer> {
  const age = new AgeDecryptor(identities)
  const pieces: Uint8Array[] = []
  for (let at = 0; at < file.length; at += step) pieces.push(age.decrypt(file.subarray(at, at + step)))
  pieces.push(age.end())
  return Buffer.concat(pieces)
}

/** `directory` is gone when `use` has ended. */
async function withIdentityFile<T>(identity: string, use: (path: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'age-'))
  try {
    const path = join(directory, 'identity')
    await writeFile(path, `# for a test\n${identity}\n`)
    return await use(path)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const lengths = [0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 2 * pieceBytes, 5 * pieceBytes, 300_001]

test('the age command opens what we encrypt, with the identity of each recipient', async () => {
  for (const length of lengths) {
    const plaintext = noise(length)
    const file = await encrypted(plaintext, [mine.recipient, colleague.recipient], 100_000)
    for (const { identity } of [mine, colleague]) {
      const opened = await withIdentityFile(identity, path => runCommand('age', ['-d', '-i', path], file))
      assert.ok(opened.equals(plaintext), `${length} bytes`)
    }
  }
})

test('we open what the age command encrypts, with the identity of each recipient', async () => {
  for (const length of lengths) {
    const plaintext = noise(length)
    const file = await runCommand('age', ['-r', mine.recipient, '-r', colleague.recipient], plaintext)
    for (const { identity } of [mine, colleague]) {
      assert.ok(
        (await decrypted(file, [stranger.identity, identity], 100_000)).equals(plaintext),
        `${length} bytes`,
      )
    }
  }
})

test('it does not matter how the bytes come', async () => {
  for (const length of [0, 1, pieceBytes, pieceBytes + 1, 2 * pieceBytes + 100]) {
    const plaintext = noise(length)
    for (const step of [7, 997, pieceBytes - 1, pieceBytes, pieceBytes + tagBytes, 1_000_000]) {
      const file = await encrypted(plaintext, [mine.recipient], step)
      assert.ok(
        (await decrypted(file, [mine.identity], step)).equals(plaintext),
        `${length} bytes by ${step}`,
      )
    }
  }
})

test('tail, age and zstd give an archived file back, and we one that age and zstd have made', async () => {
  const plaintext = likeWal(3_000_000)
  const object = await stored(plaintext, { recipients: [mine.recipient] })
  const frame = await withIdentityFile(mine.identity, path =>
    runCommand('age', ['-d', '-i', path], object.bytes),
  )
  assert.ok((await runCommand('zstd', ['-d', '-c'], frame)).equals(plaintext))

  const foreignFrame = await runCommand('zstd', ['-q', '-c', `--stream-size=${plaintext.length}`], plaintext)
  const foreign = await runCommand('age', ['-r', mine.recipient, '-r', stranger.recipient], foreignFrame)
  for (const { identity } of [mine, stranger]) {
    assert.ok((await restored(restated(object, foreign), [identity])).equals(plaintext))
  }
})

test('what is encrypted twice is not the same twice', async () => {
  const plaintext = noise(1_000)
  const files = [
    await encrypted(plaintext, [mine.recipient], 100),
    await encrypted(plaintext, [mine.recipient], 100),
  ]
  const [first, second] = files.map(file => file.subarray(file.indexOf('\n--- ')))
  assert.ok(first && second && !first.equals(second))
})

test('pieces that are missing, exchanged, repeated or added are found, even if nothing else is wrong', async () => {
  const plaintext = noise(3 * pieceBytes + 1_000)
  const file = await encrypted(plaintext, [mine.recipient], 100_000)
  const sealedBytes = pieceBytes + tagBytes
  const payloadAt = file.length - 3 * sealedBytes - 1_000 - tagBytes
  const start = file.subarray(0, payloadAt)
  const [a, b, c, last] = [0, 1, 2, 3].map(index => {
    const at = payloadAt + index * sealedBytes
    return file.subarray(at, at + sealedBytes)
  })
  assert.ok(a && b && c && last)
  assert.ok(
    (await decrypted(Buffer.concat([start, a, b, c, last]), [mine.identity], 100_000)).equals(plaintext),
  )

  const damaged = {
    name: 'CodecError',
    kind: 'altered',
    message: 'the payload of the age file is damaged',
  }
  const other = (await encrypted(plaintext, [mine.recipient], 100_000)).subarray(payloadAt)
  const games = {
    'the last one missing': [a, b, c],
    'the first one missing': [b, c, last],
    'one missing': [a, c, last],
    'two exchanged': [b, a, c, last],
    'one repeated': [a, a, b, c, last],
    'the last one repeated': [a, b, c, last, last],
    'the last one cut short': [a, b, c, last.subarray(0, -1)],
    'less than a tag left of the last one': [a, b, c, last.subarray(0, 5)],
    'something behind the last one': [a, b, c, last, Buffer.alloc(1)],
    'one of another file': [other.subarray(0, sealedBytes), b, c, last],
    'nothing at all': [],
  }
  for (const [game, pieces] of Object.entries(games)) {
    await assert.rejects(
      decrypted(Buffer.concat([start, ...pieces]), [mine.identity], 100_000),
      damaged,
      game,
    )
  }
})

test('a full last piece is not followed by an empty one, nor may it be', async () => {
  const plaintext = noise(2 * pieceBytes)
  const file = await encrypted(plaintext, [mine.recipient], 100_000)
  const header = (await encrypted(Buffer.alloc(0), [mine.recipient], 1)).length - tagBytes
  assert.equal(file.length, header + 2 * (pieceBytes + tagBytes))

  const payload = () => new AgePayload(new Uint8Array(16), new Uint8Array(16))
  const sealing = payload()
  const full = Buffer.concat(sealing.seal(plaintext.subarray(pieceBytes), false))
  const empty = Buffer.concat(sealing.seal(new Uint8Array(), true))
  const opening = payload()
  assert.ok(plaintext.subarray(pieceBytes).equals(opening.open(full, false)))
  assert.throws(() => opening.open(empty, true), { message: 'the last piece is empty' })
})

test('a header that is damaged, too long or none at all is not one for somebody else', async () => {
  const file = await encrypted(noise(100), [mine.recipient], 100)
  const text = file.toString('latin1')
  const from = (changed: string) => decrypted(Buffer.from(changed, 'latin1'), [mine.identity], 1_000_000)
  const header = { name: 'CodecError', kind: 'altered', message: 'the header of the age file is damaged' }
  await assert.rejects(from(text.replace('.org/v1', '.org/v2')), header)
  await assert.rejects(from(text.replace('-> X25519 ', '-> X25519 a')), header)
  await assert.rejects(from(text.replace(/\n--- ..../, '\n--- AAAA')), header)
  await assert.rejects(from(text.slice(0, text.indexOf('---'))), {
    ...header,
    message: 'the header of the age file is not complete',
  })
  const none = { ...header, message: 'it does not begin with the header of an age file' }
  await assert.rejects(from('x'.repeat(100_000)), none)
  await assert.rejects(
    from(text.replace('-> X25519', `${'-> other kind\n\n'.repeat(10_000)}-> X25519`)),
    none,
  )
})

test('a file for a passphrase or for another kind of key is for none of our identities', async () => {
  const file = await encrypted(noise(100), [mine.recipient], 100)
  const other = Buffer.from(file.toString('latin1').replace('-> X25519 ', '-> piv-p256 '), 'latin1')
  await assert.rejects(decrypted(other, [mine.identity], 1_000), {
    name: 'CodecError',
    kind: 'wrong key',
    message: 'none of the identities is one of its recipients',
  })
})

test('no identity, one that is not valid, and a wrong one are told apart', async () => {
  const object = await stored(noise(1_000), { recipients: [mine.recipient] })
  const decodeWith = (identities: readonly string[]) =>
    decode(new BytesSource(object.bytes), { ...object, isEncrypted: true, identities }, new BytesSink().take)
  await assert.rejects(decodeWith([]), {
    name: 'CodecError',
    kind: 'no key',
    message: 'the file is encrypted, and there is no identity to decrypt it with',
  })
  await assert.rejects(decodeWith([mine.identity, mine.recipient]), {
    name: 'CodecError',
    kind: 'invalid identity',
    message: 'identity 2 is a public key; the secret key is wanted',
  })
  await assert.rejects(decodeWith([stranger.identity]), { name: 'CodecError', kind: 'wrong key' })
})

test('nothing is written for a recipient that is not valid', async () => {
  const bytes = zstdCompressSync(noise(10))
  await assert.rejects(stored(bytes, { recipients: [mine.recipient, 'age1x'] }), {
    name: 'CodecError',
    kind: 'invalid recipient',
    message: 'recipient 2 is not a valid public key of age: it is damaged or not complete',
  })
  // A point of low order: everybody knows the secret that would be shared with it.
  const weak = encodeBech32('age', new Uint8Array(32))
  await assert.rejects(stored(bytes, { recipients: [mine.recipient, weak] }), {
    name: 'CodecError',
    kind: 'invalid recipient',
    message: 'one of the recipients cannot be encrypted for',
  })
})
