import { createHash } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { createXXHash128 } from 'hash-wasm'
import type { ByteSource } from '../../src/repository/codec/byte-source.ts'
import { CodecError } from '../../src/repository/codec/codec-error.ts'
import { metadataBlockBytes, parseMetadataBlock } from '../../src/repository/metadata-block.ts'
import type { WalCodec } from '../../src/repository/wal-codec.ts'

const chunkBytes = 8 * 1024
const xxh128 = await createXXHash128()

const xxh128Of = (bytes: Uint8Array) => xxh128.init().update(bytes).digest('hex')
const sha256Of = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

async function readAll(source: ByteSource, signal?: AbortSignal): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for (;;) {
    signal?.throwIfAborted()
    const buffer = new Uint8Array(chunkBytes)
    const bytesRead = await source.read(buffer)
    pieces.push(buffer.subarray(0, bytesRead))
    if (bytesRead < chunkBytes) return Buffer.concat(pieces)
  }
}

/**
 * The codec without threads, so that what happens in a simulation depends on its seed only. What it stores is what the
 * real one stores where there are no recipients.
 */
export const synchronousCodec: WalCodec = {
  encode: async (source, { plaintextLength, level, signal }, sink) => {
    const plaintext = await readAll(source, signal)
    if (plaintext.length !== plaintextLength) throw new CodecError('source changed', 'another length')
    const stored = zstdCompressSync(plaintext, {
      pledgedSrcSize: plaintext.length,
      params: {
        [constants.ZSTD_c_compressionLevel]: level,
        [constants.ZSTD_c_contentSizeFlag]: 1,
        [constants.ZSTD_c_checksumFlag]: 1,
      },
    })
    for (let at = 0; at < stored.length; at += chunkBytes) await sink(stored.subarray(at, at + chunkBytes))
    return {
      plaintextDigest: xxh128Of(plaintext),
      plaintextLength,
      storedDigest: sha256Of(stored),
      storedLength: stored.length,
    }
  },
  decode: async (source, options, sink) => {
    const stored = await readAll(source, options.signal)
    requireStored(stored, options)
    const plaintext = zstdDecompressSync(stored)
    if (xxh128Of(plaintext) !== options.plaintextDigest) throw new CodecError('altered', 'another digest')
    await sink(plaintext)
  },
  checkStored: async (source, options) => requireStored(await readAll(source, options.signal), options),
  plaintextDigest: async source => {
    const plaintext = await readAll(source)
    return { digest: xxh128Of(plaintext), length: plaintext.length }
  },
}

function requireStored(
  stored: Uint8Array,
  { storedLength, storedDigest }: { storedLength: number; storedDigest: string },
): void {
  if (stored.length < storedLength) throw new CodecError('truncated', 'too short')
  if (stored.length > storedLength) throw new CodecError('too long', 'too long')
  if (sha256Of(stored) !== storedDigest) throw new CodecError('altered', 'another digest')
}

/** What an object would give back, looked at from outside; `undefined` unless all of it is right. */
export function contentOfObject(object: Uint8Array, name: string): Uint8Array | undefined {
  const parsed = parseMetadataBlock(object)
  if (parsed.kind !== 'metadata' || parsed.metadata.name !== name) return undefined
  const stored = object.subarray(metadataBlockBytes)
  const { stored_length, stored_sha256, plaintext_xxh128 } = parsed.metadata
  if (stored.length !== stored_length || sha256Of(stored) !== stored_sha256) return undefined
  const plaintext = zstdDecompressSync(stored)
  return xxh128Of(plaintext) === plaintext_xxh128 ? plaintext : undefined
}
