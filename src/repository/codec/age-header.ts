// The header of an age file (c2sp.org/age): for each recipient a stanza that holds the file's key, and a line that tells
// whether the header is as it was made. Only X25519 is ours; stanzas of other kinds are passed over.

import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  diffieHellman,
  hkdfSync,
  type KeyObject,
  timingSafeEqual,
} from 'node:crypto'
import { secretBytes } from '../../system/secret-bytes.ts'
import { tagBytes } from './age-payload.ts'
import { CodecError } from './codec-error.ts'
import { checkIdentities, checkRecipients, keyBytesOf } from './recipient.ts'
import { privateKey, publicBytesOf, publicKey } from './x25519.ts'

const fileKeyBytes = 16
const keyBytes = 32
const firstLine = 'age-encryption.org/v1\n'
const lastLineStart = '---'
const wrapCipher = 'chacha20-poly1305'
/** Each wrapping key seals one file key only. */
const wrapNonce = new Uint8Array(12)
/** Bodies are broken into lines of 64 letters; the first line that is shorter is the last of its body. */
const stanza = /-> ([!-~]+)((?: [!-~]+)*)\n((?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)/y
const lastLine = /--- ([A-Za-z0-9+/]{43})\n$/y

/** A header, and the key that its recipients find in it. */
export interface AgeHeader {
  bytes: Uint8Array
  fileKey: Uint8Array
}

export function makeAgeHeader(recipients: readonly string[]): AgeHeader {
  checkRecipients(recipients)
  const fileKey = secretBytes(fileKeyBytes)
  const stanzas = recipients.map(recipient => stanzaFor(keyBytesOf(recipient), fileKey))
  const text = `${firstLine}${stanzas.join('')}${lastLineStart}`
  return { bytes: Buffer.from(`${text} ${unpadded(macOf(text, fileKey))}\n`), fileKey }
}

/**
 * The file key of a whole header. Throws a CodecError: `wrong key` where the header is for none of the identities,
 * `altered` where it is not one that anybody made.
 */
export function openAgeHeader(header: Uint8Array, identities: readonly string[]): Uint8Array {
  checkIdentities(identities)
  const { stanzas, macText, mac } = parse(Buffer.from(header).toString('latin1'))
  const secrets = identities.map(identity => {
    const secret = privateKey(keyBytesOf(identity))
    return { secret, publicBytes: publicBytesOf(secret) }
  })
  for (const { share, sealed } of stanzas) {
    for (const { secret, publicBytes } of secrets) {
      const fileKey = unwrapped(sealed, wrappingKey(secret, share, share, publicBytes, damaged))
      if (fileKey === undefined) continue
      if (!timingSafeEqual(macOf(macText, fileKey), mac)) throw damaged()
      return fileKey
    }
  }
  throw new CodecError('wrong key', 'none of the identities is one of its recipients')
}

function stanzaFor(recipient: Uint8Array, fileKey: Uint8Array): string {
  const ephemeral = privateKey(secretBytes(keyBytes))
  const share = publicBytesOf(ephemeral)
  const key = wrappingKey(ephemeral, recipient, share, recipient, cause => {
    return new CodecError('invalid recipient', 'one of the recipients cannot be encrypted for', { cause })
  })
  const sealing = createCipheriv(wrapCipher, key, wrapNonce, { authTagLength: tagBytes })
  const sealed = Buffer.concat([sealing.update(fileKey), sealing.final(), sealing.getAuthTag()])
  return `-> X25519 ${unpadded(share)}\n${unpadded(sealed)}\n`
}

/** `weak` makes the error for a point of low order: everybody knows the secret that is shared with one. */
function wrappingKey(
  secret: KeyObject,
  other: Uint8Array,
  share: Uint8Array,
  recipient: Uint8Array,
  weak: (cause: unknown) => Error,
): Uint8Array {
  let shared: Uint8Array
  try {
    shared = diffieHellman({ privateKey: secret, publicKey: publicKey(other) })
  } catch (cause) {
    throw weak(cause)
  }
  const salt = Buffer.concat([share, recipient])
  return new Uint8Array(hkdfSync('sha256', shared, salt, 'age-encryption.org/v1/X25519', keyBytes))
}

/** `undefined` where it was sealed with another key. */
function unwrapped(sealed: Uint8Array, key: Uint8Array): Uint8Array | undefined {
  const opening = createDecipheriv(wrapCipher, key, wrapNonce, { authTagLength: tagBytes })
  opening.setAuthTag(sealed.subarray(fileKeyBytes))
  const fileKey = opening.update(sealed.subarray(0, fileKeyBytes))
  try {
    opening.final()
    return fileKey
  } catch {
    return undefined
  }
}

interface Parsed {
  /** Those of our kind. */
  stanzas: { share: Uint8Array; sealed: Uint8Array }[]
  /** What the last line speaks for. */
  macText: string
  mac: Uint8Array
}

function parse(text: string): Parsed {
  if (!text.startsWith(firstLine)) throw damaged()
  const stanzas: Parsed['stanzas'] = []
  let at = firstLine.length
  while (text.startsWith('->', at)) {
    stanza.lastIndex = at
    const [all, kind, args = '', body = ''] = stanza.exec(text) ?? []
    if (all === undefined) throw damaged()
    at += all.length
    if (kind !== 'X25519') continue
    stanzas.push({
      share: decoded(args.slice(1), keyBytes),
      sealed: decoded(body.replaceAll('\n', ''), fileKeyBytes + tagBytes),
    })
  }
  lastLine.lastIndex = at
  const [, mac] = lastLine.exec(text) ?? []
  if (mac === undefined) throw damaged()
  return { stanzas, macText: text.slice(0, at + lastLineStart.length), mac: decoded(mac, keyBytes) }
}

function macOf(text: string, fileKey: Uint8Array): Buffer {
  const key = hkdfSync('sha256', fileKey, '', 'header', keyBytes)
  return createHmac('sha256', new Uint8Array(key)).update(text, 'latin1').digest()
}

function unpadded(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replaceAll('=', '')
}

/** Only what was written as we would: otherwise one header could be written in several ways. */
function decoded(text: string, bytes: number): Uint8Array {
  const value = Buffer.from(text, 'base64')
  if (value.length !== bytes || unpadded(value) !== text) throw damaged()
  return value
}

function damaged(cause?: unknown): CodecError {
  return new CodecError(
    'altered',
    'the header of the age file is damaged',
    cause === undefined ? {} : { cause },
  )
}
