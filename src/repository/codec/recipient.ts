import assert from 'node:assert/strict'
import { decodeBech32, encodeBech32 } from './bech32.ts'
import { CodecError } from './codec-error.ts'
import { privateKey, publicBytesOf } from './x25519.ts'

// Whatever is wrong is named by its position alone: people mix up the two halves of a key, and what is given as one
// may be a secret.

const recipientPrefix = 'age'
const identityPrefix = 'AGE-SECRET-KEY-'
const keyBytes = 32

/** The public keys in a setting: separated by commas. */
export function parseRecipients(list: string): string[] {
  if (list.trim() === '') return []
  const recipients = list.split(',').map(recipient => recipient.trim())
  checkRecipients(recipients)
  return recipients
}

/** Throws unless each is a public key of age's own kind (`age1…`), X25519. */
export function checkRecipients(recipients: readonly string[]): void {
  for (const [index, recipient] of recipients.entries()) {
    const problem = problemOfRecipient(recipient)
    if (problem) throw new CodecError('invalid recipient', `recipient ${index + 1} ${problem}`)
  }
}

/** Throws unless each is a secret key of age's own kind (`AGE-SECRET-KEY-1…`), X25519. */
export function checkIdentities(identities: readonly string[]): void {
  for (const [index, identity] of identities.entries()) {
    const problem = problemOfIdentity(identity)
    if (problem) throw new CodecError('invalid identity', `identity ${index + 1} ${problem}`)
  }
}

/** The secret keys in the text of an identity file, as `age-keygen` writes it: one per line, and comments. */
export function parseIdentities(text: string): string[] {
  const identities: string[] = []
  for (const [index, each] of text.split('\n').entries()) {
    const line = each.trim()
    if (line === '' || line.startsWith('#')) continue
    const problem = problemOfIdentity(line)
    if (problem) throw new CodecError('invalid identity', `line ${index + 1} ${problem}`)
    identities.push(line)
  }
  if (identities.length === 0) throw new CodecError('invalid identity', 'there is no identity in it')
  return identities
}

/** The public key that belongs to a secret key. */
export function recipientOf(identity: string): string {
  checkIdentities([identity])
  return encodeBech32(recipientPrefix, publicBytesOf(privateKey(keyBytesOf(identity))))
}

/** The 32 bytes of a key of either kind that was checked. */
export function keyBytesOf(key: string): Uint8Array {
  const decoded = decodeBech32(key)
  assert(decoded)
  return decoded.bytes
}

function problemOfRecipient(text: string): string | undefined {
  if (isKey(text, recipientPrefix)) return undefined
  if (text === '') return 'is empty'
  if (/^AGE-SECRET-KEY-/i.test(text))
    return 'is a secret key; its public key is wanted, which "age-keygen -y" prints'
  if (/^age1(pq|tag|tagpq)1/.test(text))
    return 'is of a kind of age keys that is not supported: only X25519 is'
  if (/^age1[a-z0-9-]+1/.test(text)) return 'needs a plugin of age, which is not supported: only X25519 is'
  if (/^ssh-/.test(text)) return "is an SSH key, which is not supported: only age's own keys are"
  if (/^age1/.test(text)) return 'is not a valid public key of age: it is damaged or not complete'
  return 'is not a public key of age: such a key begins with "age1"'
}

function problemOfIdentity(text: string): string | undefined {
  if (isKey(text, identityPrefix)) return undefined
  if (/^AGE-SECRET-KEY-PQ-1/.test(text))
    return 'is of a kind of age keys that is not supported: only X25519 is'
  if (/^AGE-PLUGIN-/.test(text)) return 'needs a plugin of age, which is not supported: only X25519 is'
  if (/^-----BEGIN AGE|^age-encryption\.org\//.test(text))
    return 'begins an encrypted identity, which is not supported'
  if (/^-----BEGIN/.test(text))
    return "begins an SSH key or the like, which is not supported: only age's own keys are"
  if (/^age1/.test(text)) return 'is a public key; the secret key is wanted'
  if (/^AGE-SECRET-KEY-/i.test(text)) return 'is not a valid secret key of age: it is damaged or not complete'
  return 'is not a secret key of age: such a key begins with "AGE-SECRET-KEY-1"'
}

function isKey(text: string, prefix: string): boolean {
  const decoded = decodeBech32(text)
  return decoded?.prefix === prefix && decoded.bytes.length === keyBytes
}
