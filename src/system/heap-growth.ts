import { setFlagsFromString } from 'node:v8'

/**
 * Buffers lie outside of the heap, but count for when all of it is gone through. For whoever archives that was
 * after every eighth segment, and a tenth of all work: so it may grow to two and a half times of what is in use.
 *
 * To be called by a program that is running, because a Node that did not know the flag would not start with it.
 */
export function letHeapGrow(): void {
  setFlagsFromString('--heap-growing-percent=150')
}
