import assert from 'node:assert/strict'
import { AgePayload, PieceCutter, payloadNonceBytes, pieceBytes, tagBytes } from './age-payload.ts'
import { CodecError } from './codec-error.ts'
import { checkRecipients } from './recipient.ts'

/** Makes an age file, as bytes come, that each of its recipients can open alone. */
export class AgeEncryptor {
  /** The file's first bytes. */
  readonly header: Uint8Array
  readonly #payload: AgePayload
  readonly #cutter = new PieceCutter(pieceBytes)

  private constructor(header: Uint8Array, payload: AgePayload) {
    this.header = header
    this.#payload = payload
  }

  static async create(recipients: readonly string[]): Promise<AgeEncryptor> {
    assert(recipients.length > 0)
    checkRecipients(recipients)
    // Imported late, because it takes tens of milliseconds, which only encryption should cost.
    const { Encrypter } = await import('age-encryption')
    const encrypter = new Encrypter()
    for (const recipient of recipients) encrypter.addRecipient(recipient)
    // The library makes the header of an empty file, and one recipient more, for whom there is nothing in it, is shown
    // the file's key.
    let fileKey: Uint8Array | undefined
    encrypter.addRecipient({
      wrapFileKey: key => {
        fileKey = key
        return []
      },
    })
    const emptyFile = await encrypter.encrypt(new Uint8Array()).catch(error => {
      throw new CodecError('invalid recipient', 'one of the recipients cannot be encrypted for', {
        cause: error,
      })
    })
    assert(fileKey)
    // The tag that stands for the empty payload goes nowhere, so that the payload can take over its nonce.
    const header = emptyFile.subarray(0, -tagBytes)
    return new AgeEncryptor(header, new AgePayload(fileKey, header.subarray(-payloadNonceBytes)))
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
