/** The frames of PROTOCOL.md: one type byte, a length that counts itself, fields. Both directions. */

/** What a decoder puts where there is no UTF-8. */
export const replacementCharacter = '\ufffd'

export const protocolVersion = 1
export const frameBytesMax = 256 * 1024
const headerBytes = 5

/** What the other end sent is not what the protocol allows. There is no way back: the channel is closed. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Reads the fields of one frame, in order. */
export class FrameReader {
  readonly #payload: Buffer
  #at = 0

  constructor(payload: Buffer) {
    this.#payload = payload
  }

  int32(): number {
    if (this.#payload.length - this.#at < 4) throw new ProtocolError('a frame ends within a number')
    this.#at += 4
    return this.#payload.readInt32BE(this.#at - 4)
  }

  /** What is not UTF-8 in it is replaced. */
  string(): string {
    return this.#bytes().toString('utf8')
  }

  /** A path, whose bytes may be of any encoding; `undefined` where we could not name the same file by a string. */
  path(): string | undefined {
    const bytes = this.#bytes()
    return isUtf8(bytes) ? bytes.toString('utf8') : undefined
  }

  #bytes(): Buffer {
    const end = this.#payload.indexOf(0, this.#at)
    if (end < 0) throw new ProtocolError('a frame ends within a string')
    const bytes = this.#payload.subarray(this.#at, end)
    this.#at = end + 1
    return bytes
  }

  end(): void {
    if (this.#at !== this.#payload.length) throw new ProtocolError('a frame is longer than its fields')
  }
}

function isUtf8(bytes: Buffer): boolean {
  // Bytes that are replaced do not come back.
  return Buffer.from(bytes.toString('utf8')).equals(bytes)
}

export type Field = number | boolean | string

/** Numbers are written as int32, booleans as one byte, strings with a terminating zero. */
export function encodeFrame(type: string, fields: readonly Field[]): Buffer {
  const payload = Buffer.concat(fields.map(encodeField))
  const header = Buffer.alloc(headerBytes)
  header.write(type, 0, 'latin1')
  header.writeInt32BE(payload.length + headerBytes - 1, 1)
  if (headerBytes + payload.length > frameBytesMax) throw new ProtocolError(`frame "${type}" is too long`)
  return Buffer.concat([header, payload])
}

function encodeField(field: Field): Buffer {
  if (typeof field === 'boolean') return Buffer.from([field ? 1 : 0])
  if (typeof field === 'number') {
    const bytes = Buffer.alloc(4)
    bytes.writeInt32BE(field)
    return bytes
  }
  // A zero within would end the string early on the other end, and shift all that follows.
  return Buffer.from(`${field.replaceAll('\0', '')}\0`)
}

/** Cuts a stream of bytes into frames. */
export class FrameSplitter {
  #pending: Buffer = Buffer.alloc(0);

  /** The frames that are whole with these bytes, in order. */
  *push(bytes: Uint8Array): Generator<{ type: string; payload: Buffer }> {
    this.#pending = Buffer.concat([this.#pending, bytes])
    while (this.#pending.length >= headerBytes) {
      const length = this.#pending.readUInt32BE(1)
      if (length < headerBytes - 1 || length > frameBytesMax - 1) {
        throw new ProtocolError(`a frame of ${length} bytes is not allowed`)
      }
      if (this.#pending.length < length + 1) return
      const type = this.#pending.toString('latin1', 0, 1)
      const payload = this.#pending.subarray(headerBytes, length + 1)
      this.#pending = this.#pending.subarray(length + 1)
      yield { type, payload }
    }
  }
}
