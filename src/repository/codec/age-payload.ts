// What follows an age file's header: pieces of 64 KiB, each sealed with ChaCha20-Poly1305, of which only the last may
// be shorter and says that it is the last (c2sp.org/age, "Payload"). The library that makes and reads the headers
// does this as well, in JavaScript, at a tenth of the speed.

import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'

export const pieceBytes = 64 * 1024
export const tagBytes = 16
/** Comes between header and payload. */
export const payloadNonceBytes = 16

const cipher = 'chacha20-poly1305'
const keyBytes = 32

/** The key and the state that seal or open the pieces of one payload in turn. */
export class AgePayload {
  readonly #key: KeyObject
  /** A counter of eleven bytes, and one that marks the last piece. */
  readonly #nonce = Buffer.alloc(12)
  #pieces = 0

  constructor(fileKey: Uint8Array, payloadNonce: Uint8Array) {
    const key = hkdfSync('sha256', fileKey, payloadNonce, 'payload', keyBytes)
    // As bytes it would be made into such an object for each piece, which takes half as long as to seal the piece.
    this.#key = createSecretKey(new Uint8Array(key))
  }

  /** The sealed piece in two parts, one after the other. */
  seal(piece: Uint8Array, isLast: boolean): [Uint8Array, Uint8Array] {
    const sealing = createCipheriv(cipher, this.#key, this.#nextNonce(isLast), { authTagLength: tagBytes })
    const sealed = sealing.update(piece)
    sealing.final()
    return [sealed, sealing.getAuthTag()]
  }

  /** Throws if this is not the very piece that was sealed at this place. */
  open(sealed: Uint8Array, isLast: boolean): Uint8Array {
    const opening = createDecipheriv(cipher, this.#key, this.#nextNonce(isLast), { authTagLength: tagBytes })
    opening.setAuthTag(sealed.subarray(-tagBytes))
    const piece = opening.update(sealed.subarray(0, -tagBytes))
    opening.final()
    // The pieces would otherwise not be the only ones that give this payload.
    if (isLast && piece.length === 0 && this.#pieces > 1) throw new Error('the last piece is empty')
    return piece
  }

  #nextNonce(isLast: boolean): Uint8Array {
    // 2^32 pieces are 256 TiB.
    this.#nonce.writeUInt32BE(this.#pieces, 7)
    this.#nonce[11] = isLast ? 1 : 0
    this.#pieces++
    return this.#nonce
  }
}

/** Cuts bytes into pieces of one size, and keeps the last one back until it is known to be the last. */
export class PieceCutter {
  readonly #kept: Uint8Array
  #keptBytes = 0

  constructor(bytes: number) {
    this.#kept = new Uint8Array(bytes)
  }

  /** Calls back with each piece that more bytes follow; it holds only during the call. */
  cut(bytes: Uint8Array, take: (piece: Uint8Array) => void): void {
    const size = this.#kept.length
    for (let at = 0; at < bytes.length; ) {
      if (this.#keptBytes === size) {
        take(this.#kept)
        this.#keptBytes = 0
      }
      if (this.#keptBytes === 0 && bytes.length - at > size) {
        take(bytes.subarray(at, at + size))
        at += size
        continue
      }
      const part = bytes.subarray(at, at + size - this.#keptBytes)
      this.#kept.set(part, this.#keptBytes)
      this.#keptBytes += part.length
      at += part.length
    }
  }

  last(): Uint8Array {
    return this.#kept.subarray(0, this.#keptBytes)
  }
}
