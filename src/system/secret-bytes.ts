import { randomBytes } from 'node:crypto'

/** Bytes that nobody can guess, for keys. Not a parameter, because there must be no way to be given others. */
export function secretBytes(count: number): Uint8Array {
  return randomBytes(count)
}
