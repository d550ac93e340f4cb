import type { WalSource } from '../../src/repository/repository.ts'

/** A WAL file in memory. Nobody changes it. */
export function sourceOf(name: string, content: Uint8Array, modifiedNs = 1n): WalSource {
  return {
    name,
    open: async () => {
      let position = 0
      return {
        stat: async () => ({ size: content.length, modifiedNs, changedNs: 1n, inode: 1n, device: 1n }),
        read: async buffer => {
          const bytes = content.subarray(position, position + buffer.length)
          buffer.set(bytes)
          position += bytes.length
          return bytes.length
        },
        [Symbol.asyncDispose]: async () => {},
      }
    },
  }
}
