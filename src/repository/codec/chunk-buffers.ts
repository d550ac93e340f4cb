import { chunkBytes } from './byte-source.ts'

/** Two buffers of the size of a chunk, until they are disposed of. */
export interface ChunkBuffers extends Disposable {
  readonly pair: readonly [Uint8Array, Uint8Array]
}

const idle: (readonly [Uint8Array, Uint8Array])[] = []

/**
 * Buffers are used again, because the garbage collector is in no hurry about memory outside of its heap: with new ones
 * for every file, a process that archives has hundreds of megabytes. There are as many as were ever used at once.
 */
export function chunkBuffers(): ChunkBuffers {
  const pair = idle.pop() ?? ([new Uint8Array(chunkBytes), new Uint8Array(chunkBytes)] as const)
  return {
    pair,
    [Symbol.dispose]: () => {
      idle.push(pair)
    },
  }
}
