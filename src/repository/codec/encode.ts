import { createHash } from 'node:crypto'
import { AgeEncryptor } from './age-encryptor.ts'
import type { ByteSink, ByteSource } from './byte-source.ts'
import { ChunkReader } from './chunk-reader.ts'
import { CodecError } from './codec-error.ts'
import { lowerHalf, xxh3, xxh64 } from './xxhash.ts'
import { ZstdFrameWalk } from './zstd-frame.ts'
import { type Compressor, runThrough, zstdCompressor } from './zstd-stream.ts'

export interface EncodeOptions {
  plaintextLength: number
  /** zstd's, from 1. */
  level: number
  /** Public age keys (`age1…`). Without any, the bytes are compressed only. */
  recipients: readonly string[]
  signal?: AbortSignal
}

/** What has to be known of stored bytes to check and decode them. */
export interface Encoded {
  /** XXH3-128 in canonical order, as `xxh128sum` prints it. */
  plaintextDigest: string
  plaintextLength: number
  /** SHA-256 of all stored bytes, in hexadecimal. */
  storedDigest: string
  storedLength: number
}

/**
 * Compresses a file, encrypts it if there are recipients, and hands the stored bytes to `sink`. Rejects unless the
 * source ended after exactly `plaintextLength` bytes, and unless the frame that went out is whole and says of its
 * content what is true of the bytes that were read. When it rejects, neither source nor sink is called any more.
 */
export async function encode(
  source: ByteSource,
  options: EncodeOptions,
  sink: ByteSink,
  compressor: Compressor = zstdCompressor,
): Promise<Encoded> {
  const { plaintextLength, level, recipients, signal } = options
  using plaintextHash = await xxh3()
  using contentHash = await xxh64()
  const storedHash = createHash('sha256')
  let storedLength = 0

  using plaintext = new ChunkReader(
    source,
    plaintextLength,
    {
      update: bytes => {
        plaintextHash.update(bytes)
        contentHash.update(bytes)
      },
    },
    signal,
  )
  const frame = new ZstdFrameWalk('unsound output')
  const store: ByteSink = async bytes => {
    if (bytes.length === 0) return
    signal?.throwIfAborted()
    storedHash.update(bytes)
    storedLength += bytes.length
    await sink(bytes)
  }

  const age = recipients.length > 0 ? new AgeEncryptor(recipients) : undefined
  if (age) await store(age.header)
  await runThrough(
    compressor(plaintextLength, level),
    async write => {
      await plaintext.forEach(write)
      checkLength(plaintext.length, plaintextLength)
    },
    async bytes => {
      frame.push(bytes)
      await store(age ? age.encrypt(bytes) : bytes)
    },
    'unsound output',
  )

  const { contentSize, checksum } = frame.end()
  if (contentSize !== plaintextLength || checksum !== lowerHalf(contentHash.digest())) {
    throw new CodecError('unsound output', 'the zstd frame is not one of the bytes that were read')
  }
  if (age) await store(age.end())
  signal?.throwIfAborted()
  return {
    plaintextDigest: plaintextHash.digest(),
    plaintextLength,
    storedDigest: storedHash.digest('hex'),
    storedLength,
  }
}

function checkLength(bytesRead: number, plaintextLength: number): void {
  if (bytesRead < plaintextLength) {
    throw new CodecError('source changed', `the file ended after ${bytesRead} of ${plaintextLength} bytes`)
  }
  if (bytesRead > plaintextLength) {
    throw new CodecError('source changed', `the file has more than the ${plaintextLength} bytes that it had`)
  }
}
