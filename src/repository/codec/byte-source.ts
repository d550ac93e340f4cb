/** What is archived or stored, from its first byte on, as `OpenFile.read`: fewer bytes than asked only at the end. */
export interface ByteSource {
  read(buffer: Uint8Array): Promise<number>
}

/** Takes bytes in order. They are its own from then on. */
export type ByteSink = (bytes: Uint8Array) => Promise<void>

/**
 * How much is read, compressed and handed on at a time: as fast as a whole file at once, and several files of any
 * size fit into memory together.
 */
export const chunkBytes = 512 * 1024
