import assert from 'node:assert/strict'
import { xxhashModules } from './xxhash-module.ts'

/** A digest of bytes that come one after the other. It may be used until it is disposed of. */
export interface Hasher extends Disposable {
  update(bytes: Uint8Array): unknown
  /** In canonical order: most significant byte first, in hexadecimal. To be called once, at the end. */
  digest(): string
  /** Forgets what it was given. */
  reset(): void
}

/** Both digests of a file that is compressed chunk by chunk, for the price of little more than one. */
export interface FileDigests extends Disposable {
  /** Takes the next chunk of the file. Returns the lower half of the XXH64 of this chunk alone. */
  update(chunk: Uint8Array): number
  /** XXH3-128 of all chunks, as that of a `Hasher`. To be called once, at the end. */
  digest(): string
}

/** What xxhash.assembly.ts exports. */
interface Exports {
  memory: { readonly buffer: ArrayBuffer }
  xxh3: { readonly value: number }
  xxh64: { readonly value: number }
  window: { readonly value: number }
  state: { readonly value: number }
  digest: { readonly value: number }
  begin(hashes: number): void
  absorb(hashes: number, bytes: number): void
  finishXxh3(): void
  finishXxh64(): number
}

/** As much of it as is used here. TypeScript has its types only together with those of browsers. */
declare const WebAssembly: {
  validate(bytes: Uint8Array): boolean
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { readonly exports: Exports }
}

/**
 * An instance takes gigabytes of address space, if next to no memory, so all hashes of a process share one. Its memory
 * has the state of the hash that was used last; that of any other is set aside in a buffer of its own, which is 384 bytes.
 */
class XxhashInstance {
  readonly exports: Exports
  readonly xxh3: number
  readonly xxh64: number
  readonly #state: Uint8Array
  readonly #window: Uint8Array
  readonly #digest: number
  /** Where the state that is in memory goes when it has to make room. */
  #current: Uint8Array | undefined

  constructor(exports: Exports) {
    this.exports = exports
    const { memory, xxh3, xxh64, window, state, digest } = exports
    this.xxh3 = xxh3.value
    this.xxh64 = xxh64.value
    this.#state = new Uint8Array(memory.buffer, state.value, window.value - state.value)
    this.#window = new Uint8Array(memory.buffer, window.value)
    this.#digest = digest.value
  }

  newState(): Uint8Array {
    return new Uint8Array(this.#state.length)
  }

  /** Has to come before anything that concerns the hash of this state. */
  enter(state: Uint8Array): void {
    if (this.#current === state) return
    this.#current?.set(this.#state)
    this.#state.set(state)
    this.#current = state
  }

  /** This state need not be set aside. */
  leave(state: Uint8Array): void {
    if (this.#current === state) this.#current = undefined
  }

  /** In pieces of the size of the window, which are still in the processor's cache when they are hashed. */
  absorb(hashes: number, bytes: Uint8Array): void {
    const pieceBytes = this.#window.length
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.length <= pieceBytes ? bytes : bytes.subarray(at, at + pieceBytes)
      this.#window.set(piece)
      this.exports.absorb(hashes, piece.length)
    }
  }

  digest(bytes: number): string {
    return Buffer.from(this.exports.memory.buffer, this.#digest, bytes).toString('hex')
  }
}

/** Hashes by the first of these modules, in base64, that this processor can run; it is compiled when a hash is wanted. */
export function xxhashes(...modules: readonly string[]) {
  let compiled: XxhashInstance | undefined
  const compiledOnce = () => {
    if (compiled) return compiled
    const module = modules.map(each => Buffer.from(each, 'base64')).find(each => WebAssembly.validate(each))
    assert(module, 'there is no module that this processor can run')
    compiled = new XxhashInstance(new WebAssembly.Instance(new WebAssembly.Module(module)).exports)
    return compiled
  }

  async function hasher(name: 'xxh3' | 'xxh64'): Promise<Hasher> {
    const instance = compiledOnce()
    const { exports, [name]: hash } = instance
    const state = instance.newState()
    const reset = () => {
      instance.enter(state)
      exports.begin(hash)
    }
    reset()
    return {
      update: bytes => {
        instance.enter(state)
        instance.absorb(hash, bytes)
      },
      digest: () => {
        instance.enter(state)
        if (name === 'xxh3') exports.finishXxh3()
        else exports.finishXxh64()
        return instance.digest(name === 'xxh3' ? 16 : 8)
      },
      reset,
      [Symbol.dispose]: () => instance.leave(state),
    }
  }

  async function fileDigests(): Promise<FileDigests> {
    const instance = compiledOnce()
    const { exports, xxh3, xxh64 } = instance
    const state = instance.newState()
    instance.enter(state)
    exports.begin(xxh3)
    return {
      update: chunk => {
        instance.enter(state)
        exports.begin(xxh64)
        instance.absorb(xxh3 + xxh64, chunk)
        return exports.finishXxh64() >>> 0
      },
      digest: () => {
        instance.enter(state)
        exports.finishXxh3()
        return instance.digest(16)
      },
      [Symbol.dispose]: () => instance.leave(state),
    }
  }

  return { xxh3: () => hasher('xxh3'), xxh64: () => hasher('xxh64'), fileDigests }
}

const hashes = xxhashes(xxhashModules.vectors, xxhashModules.plain)

/** XXH3-128, our digest of plaintext. */
export const xxh3 = hashes.xxh3

/** XXH3-128 of a file, and XXH64 of each of its chunks: a zstd frame holds the lower half as checksum of its content. */
export const fileDigests = hashes.fileDigests
