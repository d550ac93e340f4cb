import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeBech32, encodeBech32 } from '../src/repository/codec/bech32.ts'
import { parseIdentities, parseRecipients, recipientOf } from '../src/repository/codec/recipient.ts'
import { ageKeys } from './support/age-keys.ts'
import { runCommand } from './support/archive-commands.ts'

const [mine, colleague] = ageKeys

test('the public key of an identity is what age-keygen says it is', async () => {
  const made = (await runCommand('age-keygen', [], new Uint8Array())).toString()
  for (const text of [made, mine.identity, colleague.identity]) {
    const [identity = ''] = parseIdentities(text)
    const printed = (await runCommand('age-keygen', ['-y'], Buffer.from(text))).toString().trim()
    assert.equal(recipientOf(identity), printed)
    assert.deepEqual(parseRecipients(printed), [printed])
  }
  assert.equal(recipientOf(mine.identity), mine.recipient)
})

test('a setting names no, one or several recipients', () => {
  assert.deepEqual(parseRecipients(''), [])
  assert.deepEqual(parseRecipients(' '), [])
  assert.deepEqual(parseRecipients(mine.recipient), [mine.recipient])
  assert.deepEqual(parseRecipients(`${mine.recipient} ,${colleague.recipient}`), [
    mine.recipient,
    colleague.recipient,
  ])
})

test('an identity file has comments, blank lines and more than one identity', () => {
  const text = `# created: 2026-11-21\n# public key: ${mine.recipient}\n${mine.identity}\r\n\n  ${colleague.identity}`
  assert.deepEqual(parseIdentities(text), [mine.identity, colleague.identity])
  for (const empty of ['', '\n', '# only a comment\n']) {
    assert.throws(() => parseIdentities(empty), {
      name: 'CodecError',
      kind: 'invalid identity',
      message: 'there is no identity in it',
    })
  }
})

test('each recipient that cannot be used is named by its place, and why', () => {
  const why = {
    '': 'is empty',
    [mine.identity]: 'is a secret key; its public key is wanted, which "age-keygen -y" prints',
    [mine.identity.toLowerCase()]: 'is a secret key; its public key is wanted, which "age-keygen -y" prints',
    [mine.recipient.slice(0, -1)]: 'is not a valid public key of age: it is damaged or not complete',
    [mine.recipient.replace('64l', '64m')]: 'is not a valid public key of age: it is damaged or not complete',
    [encodeBech32('age', new Uint8Array(31))]:
      'is not a valid public key of age: it is damaged or not complete',
    [mine.recipient.toUpperCase()]: 'is not a public key of age: such a key begins with "age1"',
    age1pq1qqqq: 'is of a kind of age keys that is not supported: only X25519 is',
    age1tagpq1qqqq: 'is of a kind of age keys that is not supported: only X25519 is',
    age1yubikey1qqqq: 'needs a plugin of age, which is not supported: only X25519 is',
    'ssh-ed25519 AAAAC3': "is an SSH key, which is not supported: only age's own keys are",
    'somebody@example.com': 'is not a public key of age: such a key begins with "age1"',
  }
  for (const [text, problem] of Object.entries(why)) {
    assert.throws(() => parseRecipients(`${colleague.recipient}, ${text}`), {
      name: 'CodecError',
      kind: 'invalid recipient',
      message: `recipient 2 ${problem}`,
    })
  }
})

test('each line of an identity file that cannot be used is named by its number, and why, and never shown', () => {
  const why = {
    [mine.recipient]: 'is a public key; the secret key is wanted',
    [mine.identity.slice(0, -1)]: 'is not a valid secret key of age: it is damaged or not complete',
    [mine.identity.replace('4CN', '4CQ')]: 'is not a valid secret key of age: it is damaged or not complete',
    [mine.identity.toLowerCase()]: 'is not a valid secret key of age: it is damaged or not complete',
    'AGE-SECRET-KEY-PQ-1QQQQ': 'is of a kind of age keys that is not supported: only X25519 is',
    'AGE-PLUGIN-YUBIKEY-1QQQQ': 'needs a plugin of age, which is not supported: only X25519 is',
    '-----BEGIN AGE ENCRYPTED FILE-----': 'begins an encrypted identity, which is not supported',
    'age-encryption.org/v1': 'begins an encrypted identity, which is not supported',
    '-----BEGIN OPENSSH PRIVATE KEY-----':
      "begins an SSH key or the like, which is not supported: only age's own keys are",
    'correct horse': 'is not a secret key of age: such a key begins with "AGE-SECRET-KEY-1"',
  }
  for (const [text, problem] of Object.entries(why)) {
    assert.throws(() => parseIdentities(`# comment\n${mine.identity}\n${text}\n`), {
      name: 'CodecError',
      kind: 'invalid identity',
      message: `line 3 ${problem}`,
    })
  }
})

test('Bech32 is read and written as BIP 173 has it', () => {
  for (const valid of [
    'A12UEL5L',
    'a12uel5l',
    '?1ezyfcl',
    '11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j',
  ]) {
    const decoded = decodeBech32(valid)
    assert.ok(decoded, valid)
    assert.equal(encodeBech32(decoded.prefix.toLowerCase(), decoded.bytes), valid.toLowerCase())
  }
  const invalid = [
    'pzry9x0s0muk',
    '1pzry9x0s0muk',
    'x1b4n0q5v',
    'li1dgmt3',
    'A1G7SGD8',
    '10a06t8',
    '1qzzfhee',
    'A12uEL5L',
    'a12uel5m',
  ]
  for (const text of invalid) assert.equal(decodeBech32(text), undefined, text)
  // Bits that are left over: five, which is a letter too many, and two that are not zero.
  for (const text of ['age1qdd35qf', 'age1qpu0j2ex']) assert.equal(decodeBech32(text), undefined, text)
  assert.deepEqual(decodeBech32('age1qqpexly5'), { prefix: 'age', bytes: new Uint8Array(1) })
  for (let length = 0; length < 40; length++) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 37 + length) % 256)
    assert.deepEqual(decodeBech32(encodeBech32('age', bytes)), { prefix: 'age', bytes })
  }
})
