import assert from 'node:assert/strict'
import { secretBytes } from '../../system/secret-bytes.ts'
import { makeAgeHeader } from './age-header.ts'
import { AgePayload, PieceCutter, payloadNonceBytes, pieceBytes } from './age-payload.ts'

/** Makes an age file, as bytes come, that each of its recipients can open alone. */
export class AgeEncryptor {
  /** The file's first bytes. */
  readonly header: Uint8Array
  readonly #payload: AgePayload
  readonly #cutter = new PieceCutter(pieceBytes)

  constructor(recipients: readonly string[]) {
    assert(recipients.length > 0)
    const { bytes, fileKey } = makeAgeHeader(recipients)
    const nonce = secretBytes(payloadNonceBytes)
    this.header = Buffer.concat([bytes, nonce])
    this.#payload = new AgePayload(fileKey, nonce)
  }

  /** The bytes of the file that can be given so far. */
  encrypt(bytes: Uint8Array): Uint8Array {
    const sealed: Uint8Array[] = []
    this.#cutter.cut(bytes, piece => sealed.push(...this.#payload.seal(piece, false)))
    return Buffer.concat(sealed)
  }

  /** The last bytes of the file. */
  end(): Uint8Array {
    return Buffer.concat(this.#payload.seal(this.#cutter.last(), true))
  }
}
