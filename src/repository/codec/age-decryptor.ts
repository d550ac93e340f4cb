import { openAgeHeader } from './age-header.ts'
import { AgePayload, PieceCutter, payloadNonceBytes, pieceBytes, tagBytes } from './age-payload.ts'
import { CodecError } from './codec-error.ts'
import { checkIdentities } from './recipient.ts'

/** A recipient takes 98 of them. */
const headerBytesMax = 64 * 1024

/** Opens an age file, as its bytes come. What is wrong with it is a CodecError `altered`, or `wrong key`. */
export class AgeDecryptor {
  readonly #identities: readonly string[]
  readonly #cutter = new PieceCutter(pieceBytes + tagBytes)
  /** What is there of header and nonce, until they are complete. */
  #start: Buffer = Buffer.alloc(0)
  #payload: AgePayload | undefined

  constructor(identities: readonly string[]) {
    checkIdentities(identities)
    this.#identities = identities
  }

  /** The bytes of what was encrypted that can be given so far. */
  decrypt(bytes: Uint8Array): Uint8Array {
    if (this.#payload) return this.#opened(this.#payload, bytes)

    this.#start = Buffer.concat([this.#start, bytes])
    const headerBytes = lengthOfHeader(this.#start)
    if (headerBytes === undefined && this.#start.length <= headerBytesMax) return Buffer.alloc(0)
    if (headerBytes === undefined || headerBytes > headerBytesMax) {
      throw new CodecError('altered', 'it does not begin with the header of an age file')
    }
    const payloadAt = headerBytes + payloadNonceBytes
    if (this.#start.length < payloadAt) return Buffer.alloc(0)
    const fileKey = openAgeHeader(this.#start.subarray(0, headerBytes), this.#identities)
    this.#payload = new AgePayload(fileKey, this.#start.subarray(headerBytes, payloadAt))
    return this.#opened(this.#payload, this.#start.subarray(payloadAt))
  }

  /** The last bytes of what was encrypted. */
  end(): Uint8Array {
    if (!this.#payload) throw new CodecError('altered', 'the header of the age file is not complete')
    return open(this.#payload, this.#cutter.last(), true)
  }

  #opened(payload: AgePayload, bytes: Uint8Array): Uint8Array {
    const opened: Uint8Array[] = []
    this.#cutter.cut(bytes, piece => opened.push(open(payload, piece, false)))
    return Buffer.concat(opened)
  }
}

function open(payload: AgePayload, sealed: Uint8Array, isLast: boolean): Uint8Array {
  try {
    return payload.open(sealed, isLast)
  } catch (error) {
    throw new CodecError('altered', 'the payload of the age file is damaged', { cause: error })
  }
}

/** The header's last line begins with "---". */
function lengthOfHeader(bytes: Buffer): number | undefined {
  const lastLine = bytes.indexOf('\n--- ')
  const end = lastLine < 0 ? -1 : bytes.indexOf('\n', lastLine + 1)
  return end < 0 ? undefined : end + 1
}
