import { createHash } from 'node:crypto'
import { AgeDecryptor } from './age-decryptor.ts'
import type { ByteSink, ByteSource } from './byte-source.ts'
import { ChunkReader } from './chunk-reader.ts'
import { CodecError } from './codec-error.ts'
import type { Encoded } from './encode.ts'
import { xxh3 } from './xxhash.ts'
import { ZstdFrameWalk } from './zstd-frame.ts'
import { runThrough, zstdDecompressor } from './zstd-stream.ts'

export interface DecodeOptions extends Encoded {
  isEncrypted: boolean
  /** Secret age keys (`AGE-SECRET-KEY-1…`); one that fits is enough. */
  identities: readonly string[]
  signal?: AbortSignal
}

/**
 * Hands the file that was encoded to `sink`, piece by piece. Resolves only when everything was right: length and
 * digest of the stored bytes, encryption, frame, length and digest of the file. What the sink got before a rejection
 * is not to be used. When it rejects, neither source nor sink is called any more.
 */
export async function decode(stored: ByteSource, options: DecodeOptions, sink: ByteSink): Promise<void> {
  if (options.isEncrypted && options.identities.length === 0) {
    throw new CodecError('no key', 'the file is encrypted, and there is no identity to decrypt it with')
  }
  using bytes = new StoredReader(stored, options)
  let failure: CodecError | undefined
  try {
    await decodeBytes(bytes, options, sink)
  } catch (error) {
    if (!(error instanceof CodecError)) throw error
    failure = error
  }
  // If the bytes are not those that were stored, then whatever went wrong came of that.
  await bytes.checkAll()
  if (failure) throw failure
}

/** Compares length and digest, for which no key is needed. */
export async function checkStored(
  stored: ByteSource,
  options: Pick<Encoded, 'storedDigest' | 'storedLength'> & { signal?: AbortSignal },
): Promise<void> {
  using bytes = new StoredReader(stored, options)
  await bytes.checkAll()
}

async function decodeBytes(bytes: StoredReader, options: DecodeOptions, sink: ByteSink): Promise<void> {
  const { plaintextLength, plaintextDigest, signal } = options
  const age = options.isEncrypted ? new AgeDecryptor(options.identities) : undefined
  using plaintextHash = await xxh3()
  let frame = new ZstdFrameWalk('altered')
  /** What the frames before it hold. */
  let contentBefore = 0
  let length = 0
  const otherLength = () =>
    new CodecError('altered', `the zstd frames do not hold the ${plaintextLength} bytes of the file`)

  await runThrough(
    zstdDecompressor(),
    async write => {
      const decompress = async (compressed: Uint8Array) => {
        for (let rest = compressed; rest.length > 0; ) {
          if (frame.hasEnded) {
            if (plaintextLength === 0) throw otherLength()
            contentBefore += frame.end().contentSize
            frame = new ZstdFrameWalk('altered')
          }
          signal?.throwIfAborted()
          const ofFrame = rest.subarray(0, frame.push(rest))
          // Before anything is decompressed: what a small frame may grow to is not for the frame to say.
          const { contentSize } = frame
          if (contentSize === 0 && plaintextLength > 0) throw otherLength()
          if (contentBefore + (contentSize ?? 0) > plaintextLength) throw otherLength()
          await write(ofFrame)
          rest = rest.subarray(ofFrame.length)
        }
      }
      await bytes.chunks.forEach(async chunk => decompress(age ? age.decrypt(chunk) : chunk))
      if (age) await decompress(age.end())
      frame.end()
    },
    async piece => {
      signal?.throwIfAborted()
      length += piece.length
      if (length > plaintextLength) throw otherLength()
      plaintextHash.update(piece)
      await sink(piece)
    },
    'altered',
  )
  if (length !== plaintextLength) throw otherLength()
  if (plaintextHash.digest() !== plaintextDigest) {
    throw new CodecError('altered', 'the bytes that came out do not match the digest of the file')
  }
}

/** The stored bytes, and whether they are the right ones. */
class StoredReader implements Disposable {
  readonly chunks: ChunkReader
  readonly #storedHash = createHash('sha256')
  readonly #expected: Pick<Encoded, 'storedDigest' | 'storedLength'>

  constructor(stored: ByteSource, options: Pick<DecodeOptions, 'storedDigest' | 'storedLength' | 'signal'>) {
    this.#expected = options
    this.chunks = new ChunkReader(stored, options.storedLength, this.#storedHash, options.signal)
  }

  /** Reads what is left, and throws unless all of it is what was stored. To be called once. */
  async checkAll(): Promise<void> {
    await this.chunks.forEach(async () => undefined)
    const { length } = this.chunks
    const { storedLength, storedDigest } = this.#expected
    if (length < storedLength) {
      throw new CodecError('truncated', `the stored bytes end after ${length} of ${storedLength}`)
    }
    if (length > storedLength) {
      throw new CodecError('too long', `there are more than the ${storedLength} bytes that were stored`)
    }
    if (this.#storedHash.digest('hex') !== storedDigest) {
      throw new CodecError('altered', 'the stored bytes do not match their digest')
    }
  }

  [Symbol.dispose](): void {
    this.chunks[Symbol.dispose]()
  }
}
