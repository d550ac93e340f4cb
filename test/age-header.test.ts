import assert from 'node:assert/strict'
import { createHmac, hkdfSync } from 'node:crypto'
import { test } from 'node:test'
import { Decrypter, Encrypter, Stanza } from 'age-encryption'
import { AgeDecryptor } from '../src/repository/codec/age-decryptor.ts'
import { AgeEncryptor } from '../src/repository/codec/age-encryptor.ts'
import { makeAgeHeader, openAgeHeader } from '../src/repository/codec/age-header.ts'
import { encodeBech32 } from '../src/repository/codec/bech32.ts'
import { ageKeys } from './support/age-keys.ts'
import { noise } from './support/coded-bytes.ts'

// `age-encryption`, by the author of the format, is the judge here; test/age.test.ts has the age command.

const [mine, colleague, stranger] = ageKeys
const damaged = { name: 'CodecError', kind: 'altered', message: 'the header of the age file is damaged' }
const isForOthers = { name: 'CodecError', kind: 'wrong key' }

test('the library of the author of age opens our headers, with the identity of each recipient', async () => {
  const lists: string[][] = [[mine.recipient], [mine.recipient, colleague.recipient, mine.recipient]]
  for (const recipients of lists) {
    for (let round = 0; round < 20; round++) {
      const { bytes, fileKey } = makeAgeHeader(recipients)
      for (const { identity, recipient } of ageKeys) {
        const decrypter = new Decrypter()
        decrypter.addIdentity(identity)
        if (recipients.includes(recipient)) {
          assert.deepEqual(Buffer.from(await decrypter.decryptHeader(bytes)), Buffer.from(fileKey))
          assert.deepEqual(openAgeHeader(bytes, [identity]), fileKey)
        } else {
          await assert.rejects(decrypter.decryptHeader(bytes))
          assert.throws(() => openAgeHeader(bytes, [identity]), isForOthers)
        }
      }
    }
  }
})

test('what we encrypt is for that library what it was, and the other way round', async () => {
  const plaintext = noise(200_001)
  const encryptor = new AgeEncryptor([colleague.recipient, mine.recipient])
  const file = Buffer.concat([encryptor.header, encryptor.encrypt(plaintext), encryptor.end()])
  const decrypter = new Decrypter()
  decrypter.addIdentity(mine.identity)
  assert.ok(Buffer.from(await decrypter.decrypt(file)).equals(plaintext))

  const encrypter = new Encrypter()
  encrypter.addRecipient(colleague.recipient)
  encrypter.addRecipient(mine.recipient)
  const theirs = await encrypter.encrypt(plaintext)
  const decryptor = new AgeDecryptor([stranger.identity, mine.identity])
  assert.ok(Buffer.concat([decryptor.decrypt(theirs), decryptor.end()]).equals(plaintext))
})

test('stanzas of other kinds are passed over, however long, in front and behind', async () => {
  const encrypter = new Encrypter()
  const strange = (bytes: number) => ({ wrapFileKey: () => [new Stanza(['odd', 'x', '!~'], noise(bytes))] })
  // 48 bytes are a line of 64 letters, which an empty one has to follow.
  for (const bytes of [0, 1, 47, 48, 49, 96, 1_000]) encrypter.addRecipient(strange(bytes))
  encrypter.addRecipient(mine.recipient)
  encrypter.addRecipient(strange(96))
  const file = await encrypter.encrypt(noise(10))
  const decryptor = new AgeDecryptor([mine.identity])
  assert.ok(Buffer.concat([decryptor.decrypt(file), decryptor.end()]).equals(noise(10)))
})

test('a header has one form: every other one is damaged, though its last line speaks for it', () => {
  const { bytes, fileKey } = makeAgeHeader([mine.recipient])
  const [version = '', stanza = '', body = ''] = Buffer.from(bytes).toString('latin1').split('\n')
  const share = stanza.slice('-> X25519 '.length)
  /** As one writes it who knows the key. */
  const header = (...lines: string[]) => {
    const text = `${[version, ...lines].join('\n')}\n---`
    const key = hkdfSync('sha256', fileKey, '', 'header', 32)
    const mac = createHmac('sha256', new Uint8Array(key)).update(text, 'latin1').digest('base64')
    return Buffer.from(`${text} ${mac.slice(0, 43)}\n`, 'latin1')
  }
  const open = (from: Uint8Array) => openAgeHeader(from, [mine.identity])
  assert.deepEqual(open(header(stanza, body)), fileKey)
  assert.deepEqual(open(header('-> other', '', stanza, body)), fileKey)

  // The last letter of 32 bytes has two bits that stand for nothing.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const another = (text: string) => text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1) ?? '') + 1]
  const wrong: Record<string, Uint8Array> = {
    'a share that is written in another way': header(`-> X25519 ${another(share)}`, body),
    'a body that is written in another way': header(stanza, another(body)),
    'a padded share': header(`-> X25519 ${share}=`, body),
    'a padded body': header(stanza, `${body}=`),
    'a share that is too short': header(`-> X25519 ${share.slice(0, -2)}`, body),
    'a body that is too long': header(stanza, `${body}AAAA`),
    'a body in two lines': header(stanza, body.slice(0, 20), body.slice(20)),
    'no share': header('-> X25519', body),
    'two shares': header(`${stanza} ${share}`, body),
    'no body': header(stanza, ''),
    'two spaces': header(`-> X25519  ${share}`, body),
    'a space at the end': header(`${stanza} `, body),
    'a letter that none is': header('-> other\u0001', '', stanza, body),
    'a line without a stanza': header('x', stanza, body),
    'a share that nothing can be shared with': header(`-> X25519 ${'A'.repeat(43)}`, body),
    'lines of Windows': header(`${stanza}\r`, `${body}\r`),
    'another version': Buffer.from(Buffer.from(bytes).toString('latin1').replace('/v1', '/v2'), 'latin1'),
    'something behind it': Buffer.concat([bytes, Buffer.from('\n')]),
  }
  for (const [what, from] of Object.entries(wrong)) assert.throws(() => open(from), damaged, what)
})

test('every bit of a header counts', () => {
  const { bytes } = makeAgeHeader([mine.recipient])
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    // A stanza that is of another kind or for another key is for somebody else; nothing else comes of it.
    assert.throws(
      () => openAgeHeader(flipped, [mine.identity]),
      (error: { kind?: string }) => error.kind === 'altered' || error.kind === 'wrong key',
    )
  }
})

test('nothing is encrypted for a point of low order, which everybody shares the secret of', () => {
  const weak = encodeBech32('age', new Uint8Array(32))
  assert.throws(() => makeAgeHeader([mine.recipient, weak]), {
    name: 'CodecError',
    kind: 'invalid recipient',
    message: 'one of the recipients cannot be encrypted for',
  })
})
