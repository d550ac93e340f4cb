import { createHash } from 'node:crypto'
import { AgeEncryptor } from './age-encryptor.ts'
import type { ByteSink, ByteSource } from './byte-source.ts'
import { ChunkReader } from './chunk-reader.ts'
import { CodecError } from './codec-error.ts'
import { fileDigests } from './xxhash.ts'
import { type Compressor, frameBytes, zstdCompressor } from './zstd-compressor.ts'
import { ZstdFrameWalk } from './zstd-frame.ts'

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
 * source ended after exactly `plaintextLength` bytes, and unless each frame that went out is whole and says of its
 * content what is true of the bytes that were read. When it rejects, neither source nor sink is called any more.
 */
export async function encode(
  source: ByteSource,
  options: EncodeOptions,
  sink: ByteSink,
  compressorFor: (level: number) => Compressor = zstdCompressor,
): Promise<Encoded> {
  const { plaintextLength, level, recipients, signal } = options
  using digests = await fileDigests()
  const storedHash = createHash('sha256')
  let storedLength = 0

  /** Of what was read and is in no frame yet. */
  const checksums: number[] = []
  const onlooker = {
    update: (bytes: Uint8Array) => checksums.push(digests.update(bytes)),
  }
  using plaintext = new ChunkReader(source, plaintextLength, onlooker, signal, frameBytes(level))
  const store: ByteSink = async bytes => {
    if (bytes.length === 0) return
    signal?.throwIfAborted()
    storedHash.update(bytes)
    storedLength += bytes.length
    await sink(bytes)
  }

  const age = recipients.length > 0 ? new AgeEncryptor(recipients) : undefined
  if (age) await store(age.header)
  using compressor = compressorFor(level)
  const storeFrame = async (bytes: Uint8Array) => {
    const pieces = await compressor.compress(bytes)
    checkFrame(pieces, bytes.length, checksums.shift())
    for (const piece of pieces) await store(age ? age.encrypt(piece) : piece)
  }
  await plaintext.forEach(storeFrame)
  checkLength(plaintext.length, plaintextLength)
  if (plaintextLength === 0) {
    const nothing = new Uint8Array(0)
    onlooker.update(nothing)
    await storeFrame(nothing)
  }
  if (age) await store(age.end())
  signal?.throwIfAborted()
  return {
    plaintextDigest: digests.digest(),
    plaintextLength,
    storedDigest: storedHash.digest('hex'),
    storedLength,
  }
}

/** node:zlib has lost the end of its output and reported success. */
function checkFrame(pieces: readonly Uint8Array[], length: number, expected: number | undefined): void {
  const frame = new ZstdFrameWalk('unsound output')
  for (const piece of pieces) {
    if (frame.push(piece) < piece.length) {
      throw new CodecError('unsound output', 'there are bytes after the zstd frame')
    }
  }
  const { contentSize, checksum } = frame.end()
  if (contentSize !== length || checksum !== expected) {
    throw new CodecError('unsound output', 'the zstd frame is not one of the bytes that were read')
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
