/**
 * Chance that can be repeated: the same seed gives the same numbers on every machine, so that a failure which was
 * found at random is a number that anyone can replay. The generator is xoshiro128**; not for secrets.
 */
export class SeededRandom {
  #a: number
  #b: number
  #c: number
  #d: number

  constructor(seed: number) {
    // Neighbouring seeds differ in few bits; mixing them first makes their sequences unlike from the first number on.
    let mixed = Math.trunc(seed) | 0
    const word = () => {
      mixed = (mixed + 0x9e3779b9) | 0
      let w = mixed
      w = Math.imul(w ^ (w >>> 16), 0x85ebca6b)
      w = Math.imul(w ^ (w >>> 13), 0xc2b2ae35)
      return w ^ (w >>> 16)
    }
    this.#a = word()
    this.#b = word()
    this.#c = word()
    this.#d = word() | 1 // never all zero, from which the generator would not move
  }

  /** 32 random bits, as an integer from 0. */
  bits(): number {
    const result = Math.imul(rotate(Math.imul(this.#b, 5), 7), 9) >>> 0
    const shifted = this.#b << 9
    this.#c ^= this.#a
    this.#d ^= this.#b
    this.#b ^= this.#c
    this.#a ^= this.#d
    this.#c ^= shifted
    this.#d = rotate(this.#d, 11)
    return result
  }

  /** From 0 up to, not including, 1. */
  fraction(): number {
    return this.bits() / 2 ** 32
  }

  /** A whole number from `least` to `most`, both included. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.fraction() * (most - least + 1))
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  pick<T extends {}>(choices: readonly T[]): T {
    const picked = choices[this.integer(0, choices.length - 1)]
    if (picked === undefined) throw new Error('nothing to pick from')
    return picked
  }

  bytes(length: number): Uint8Array {
    const words = new Uint32Array(Math.ceil(length / 4))
    for (let i = 0; i < words.length; i++) words[i] = this.bits()
    return new Uint8Array(words.buffer, 0, length)
  }

  /** A source of its own, so that one party drawing more numbers does not change those of another. */
  fork(): SeededRandom {
    return new SeededRandom(this.bits())
  }
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits))
}
