import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'

// node:crypto takes keys in the wrappings that certificates have: these come before the 32 bytes of a key.
const pkcs8Prefix = Uint8Array.of(48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 110, 4, 34, 4, 32)
const spkiPrefix = Uint8Array.of(48, 42, 48, 5, 6, 3, 43, 101, 110, 3, 33, 0)

export function privateKey(bytes: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([pkcs8Prefix, bytes]), format: 'der', type: 'pkcs8' })
}

export function publicKey(bytes: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([spkiPrefix, bytes]), format: 'der', type: 'spki' })
}

/** The public key that belongs to a private one. */
export function publicBytesOf(secret: KeyObject): Uint8Array {
  return createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(spkiPrefix.length)
}
