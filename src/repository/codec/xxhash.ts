import type { IHasher } from 'hash-wasm'

/** A digest of bytes that come one after the other. It may be used until it is disposed of. */
export interface Hasher extends Disposable {
  update(bytes: Uint8Array): unknown
  /** In canonical order: most significant byte first, in hexadecimal. To be called once, at the end. */
  digest(): string
  /** Forgets what it was given. */
  reset(): void
}

/** XXH3-128, our digest of plaintext. */
export const xxh3 = hashers(async () => (await import('hash-wasm')).createXXHash128())

/** XXH64, of which a zstd frame holds the lower half as checksum of its content. */
export const xxh64 = hashers(async () => (await import('hash-wasm')).createXXHash64())

export function lowerHalf(xxh64Digest: string): number {
  return Number.parseInt(xxh64Digest.slice(-8), 16)
}

/**
 * Hashers are used again, because each is a WebAssembly instance, which takes gigabytes of address space, if next to
 * no memory, until the garbage collector finds it. There are as many as were ever used at once. The package is
 * imported with the first one: a command that reads no file need not spend the milliseconds.
 */
function hashers(create: () => Promise<IHasher>): () => Promise<Hasher> {
  const idle: IHasher[] = []
  return async () => {
    const hasher = idle.pop() ?? (await create())
    hasher.init()
    return {
      update: bytes => hasher.update(bytes),
      digest: () => hasher.digest('hex'),
      reset: () => void hasher.init(),
      [Symbol.dispose]: () => {
        idle.push(hasher)
      },
    }
  }
}
