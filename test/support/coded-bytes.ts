import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { ByteSink, ByteSource } from '../../src/repository/codec/byte-source.ts'
import { decode } from '../../src/repository/codec/decode.ts'
import { type Encoded, encode } from '../../src/repository/codec/encode.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'

/** A source in memory that counts how much was read. */
export class BytesSource implements ByteSource {
  readonly #bytes: Uint8Array
  position = 0
  reads = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  async read(buffer: Uint8Array): Promise<number> {
    this.reads++
    const part = this.#bytes.subarray(this.position, this.position + buffer.length)
    buffer.set(part)
    this.position += part.length
    return part.length
  }
}

/** A sink in memory. */
export class BytesSink {
  readonly #pieces: Uint8Array[] = []
  length = 0
  calls = 0

  readonly take: ByteSink = async bytes => {
    this.calls++
    this.length += bytes.length
    this.#pieces.push(bytes)
    // What was handed over must not change behind the back of who has it.
    await nextTurn()
  }

  bytes(): Buffer {
    return Buffer.concat(this.#pieces)
  }
}

export interface Stored extends Encoded {
  bytes: Buffer
}

export async function stored(
  plaintext: Uint8Array,
  options: { level?: number; recipients?: readonly string[] } = {},
): Promise<Stored> {
  const sink = new BytesSink()
  const encoded = await encode(
    new BytesSource(plaintext),
    { plaintextLength: plaintext.length, level: options.level ?? 1, recipients: options.recipients ?? [] },
    sink.take,
  )
  return { ...encoded, bytes: sink.bytes() }
}

/** Decrypted if there are identities. */
export async function restored(object: Stored, identities: readonly string[] = []): Promise<Buffer> {
  const sink = new BytesSink()
  const isEncrypted = identities.length > 0
  await decode(new BytesSource(object.bytes), { ...object, isEncrypted, identities }, sink.take)
  return sink.bytes()
}

/** Bytes that no compressor can make smaller, the same for the same length. */
export function noise(length: number, seed = length): Buffer {
  const random = new SeededRandom(seed)
  const words = Uint32Array.from({ length: Math.ceil(length / 4) }, () => random.bits())
  return Buffer.from(words.buffer, 0, length)
}

/** Bytes as WAL has them: some that repeat and some that do not. */
export function likeWal(length: number): Buffer {
  const bytes = Buffer.alloc(length, 'a heap tuple that was there before')
  const fresh = noise(length)
  for (let at = 0; at < length; at += 300) fresh.copy(bytes, at, at, Math.min(length, at + 100))
  return bytes
}

/** Other stored bytes, of which length and digest say that they are right. */
export function restated(object: Stored, bytes: Buffer): Stored {
  const storedDigest = createHash('sha256').update(bytes).digest('hex')
  return { ...object, bytes, storedLength: bytes.length, storedDigest }
}
