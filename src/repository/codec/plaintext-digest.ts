import { type ByteSource, chunkBytes } from './byte-source.ts'
import { chunkBuffers } from './chunk-buffers.ts'
import { xxh3 } from './xxhash.ts'

/** Reads a file to its end: its XXH3-128 in canonical order, as `xxh128sum` prints it, and its length. */
export async function plaintextDigest(source: ByteSource): Promise<{ digest: string; length: number }> {
  using hash = await xxh3()
  using buffers = chunkBuffers(chunkBytes)
  const [buffer] = buffers.pair
  let length = 0
  for (;;) {
    const bytesRead = await source.read(buffer)
    hash.update(buffer.subarray(0, bytesRead))
    length += bytesRead
    if (bytesRead < buffer.length) return { digest: hash.digest(), length }
  }
}
