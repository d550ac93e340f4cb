import type { ByteSink, ByteSource } from './codec/byte-source.ts'
import { checkStored, decode } from './codec/decode.ts'
import { type Encoded, type EncodeOptions, encode } from './codec/encode.ts'
import { plaintextDigest } from './codec/plaintext-digest.ts'

/** How a file becomes stored bytes and comes back; a parameter, because compression runs on threads of its own. */
export interface WalCodec {
  encode(source: ByteSource, options: EncodeOptions, sink: ByteSink): Promise<Encoded>
  decode: typeof decode
  checkStored: typeof checkStored
  plaintextDigest: typeof plaintextDigest
}

/** zstd, and age where there are keys. */
export const walCodec: WalCodec = { encode, decode, checkStored, plaintextDigest }
