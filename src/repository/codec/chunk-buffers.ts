/** Two buffers of one size, until they are disposed of. */
export interface ChunkBuffers extends Disposable {
  readonly pair: readonly [Uint8Array, Uint8Array]
}

const idle = new Map<number, (readonly [Uint8Array, Uint8Array])[]>()

/**
 * Buffers are used again, because the garbage collector is in no hurry about memory outside of its heap: with new ones
 * for every file, a process that archives has hundreds of megabytes. There are as many as were ever used at once.
 */
export function chunkBuffers(bytes: number): ChunkBuffers {
  const pairs = idle.get(bytes) ?? []
  idle.set(bytes, pairs)
  const pair = pairs.pop() ?? ([new Uint8Array(bytes), new Uint8Array(bytes)] as const)
  return {
    pair,
    [Symbol.dispose]: () => {
      pairs.push(pair)
    },
  }
}
