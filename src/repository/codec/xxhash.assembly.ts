// XXH3-128 and XXH64, both with seed 0, after the specification of xxHash. This is AssemblyScript: the syntax is
// TypeScript's, the types are those of WebAssembly. scripts/build-xxhash.ts makes xxhash-module.ts of it.
//
// The host puts bytes at `window` and has them absorbed. What went before them, as far as it is still needed, lies right in
// front of the window, so that whatever comes next continues in one piece, wherever the bytes were split. State and history
// are one stretch of memory: who takes a copy of it can put it back later, and so has any number of hashes at once.

const prime32_1: u64 = 0x9e3779b1
const prime32_2: u64 = 0x85ebca77
const prime32_3: u64 = 0xc2b2ae3d
const prime64_1: u64 = 0x9e3779b185ebca87
const prime64_2: u64 = 0xc2b2ae3d27d4eb4f
const prime64_3: u64 = 0x165667b19e3779f9
const prime64_4: u64 = 0x85ebca77c2b2ae63
const prime64_5: u64 = 0x27d4eb2f165667c5
const primeMix1: u64 = 0x165667919e3779f9
const primeMix2: u64 = 0x9fb21c651e98df25

/** XXH3's default. In memory each number has its lowest byte first. */
const secret = memory.data<u64>(
  [
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb,
    0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0, 0xcb00c391bb52283c, 0xa32e531b8b65d088,
    0x4ef90da297486471, 0xd8acdea946ef1938, 0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a,
    0x647378d9c97e9fc8, 0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
  ],
  16,
)
const secretBytes: usize = 192

const stripeBytes: u32 = 64
/** After so many the accumulators are scrambled. */
const stripesPerBlock: u32 = 16
/** Up to here XXH3 is another function, of all bytes at once. */
const mediumBytesMax: u64 = 240

/** For `begin` and `absorb`: which of the two, or their sum. */
export const xxh3: u32 = 1
export const xxh64: u32 = 2

/** Where the host puts bytes. From here to the end of memory is theirs. */
export const window: usize = 0x10000
/** So many bytes are at hand when the digest is made: all there were, up to mediumBytesMax, and else the last stripe. */
const historyBytes: usize = 256
/** Where that begins which the host copies; it ends at the window. */
export const state: usize = window - historyBytes - 128
const xxh3Accumulators: usize = state
const xxh64Accumulators: usize = state + 64
const xxh3Length: usize = state + 96
const xxh64Length: usize = state + 104
/** Where a digest is found after `finishXxh3` (16 bytes) or `finishXxh64` (8), most significant byte first. */
export const digest: usize = state + 112

export function begin(hashes: u32): void {
  if (hashes & xxh3) {
    store<u64>(xxh3Accumulators, prime32_3)
    store<u64>(xxh3Accumulators, prime64_1, 8)
    store<u64>(xxh3Accumulators, prime64_2, 16)
    store<u64>(xxh3Accumulators, prime64_3, 24)
    store<u64>(xxh3Accumulators, prime64_4, 32)
    store<u64>(xxh3Accumulators, prime32_2, 40)
    store<u64>(xxh3Accumulators, prime64_5, 48)
    store<u64>(xxh3Accumulators, prime32_1, 56)
    store<u64>(xxh3Length, 0)
  }
  if (hashes & xxh64) {
    store<u64>(xxh64Accumulators, prime64_1 + prime64_2)
    store<u64>(xxh64Accumulators, prime64_2, 8)
    store<u64>(xxh64Accumulators, 0, 16)
    store<u64>(xxh64Accumulators, 0 - prime64_1, 24)
    store<u64>(xxh64Length, 0)
  }
}

/** Takes so many bytes from the window. */
export function absorb(hashes: u32, bytes: u32): void {
  let stripesAt: usize = window
  let stripes: u32 = 0
  let index: u32 = 0
  if (hashes & xxh3) {
    const before = load<u64>(xxh3Length)
    store<u64>(xxh3Length, before + bytes)
    if (before + bytes > mediumBytesMax) {
      // The last stripe is treated unlike the others, so from 1 to 64 bytes wait until it is clear that others follow.
      const waiting = before > mediumBytesMax ? (<u32>(before - 1) % stripeBytes) + 1 : <u32>before
      stripesAt -= waiting
      stripes = (waiting + bytes - 1) / stripeBytes
      index = <u32>((before - waiting) / stripeBytes) % stripesPerBlock
    }
  }
  let roundsAt: usize = window
  let rounds: u32 = 0
  if (hashes & xxh64) {
    const before = load<u64>(xxh64Length)
    store<u64>(xxh64Length, before + bytes)
    const waiting = <u32>before % 32
    roundsAt -= waiting
    rounds = (waiting + bytes) / 32
  }
  // XXH3 keeps the units for vectors busy and XXH64 that for multiplication, so the two at once take less than in turn.
  const together = ASC_FEATURE_SIMD ? min(stripes, rounds / 2) : 0
  if (together > 0) {
    accumulateBoth(stripesAt, together, index, roundsAt)
    stripesAt += together * stripeBytes
    stripes -= together
    index = (index + together) % stripesPerBlock
    roundsAt += together * stripeBytes
    rounds -= together * 2
  }
  if (stripes > 0) accumulate(stripesAt, stripes, index)
  if (rounds > 0) xxh64Rounds(roundsAt, rounds)
  memory.copy(window - historyBytes, window - historyBytes + bytes, historyBytes)
}

/** Stripes of XXH3, the first of which is number `index` of its block. */
function accumulate(at: usize, stripes: u32, index: u32): void {
  if (!ASC_FEATURE_SIMD) {
    for (let n: u32 = 0; n < stripes; n++) {
      accumulateStripe(at + n * stripeBytes, secret + index * 8)
      if (++index == stripesPerBlock) {
        scramble()
        index = 0
      }
    }
    return
  }
  let a = v128.load(xxh3Accumulators)
  let b = v128.load(xxh3Accumulators, 16)
  let c = v128.load(xxh3Accumulators, 32)
  let d = v128.load(xxh3Accumulators, 48)
  while (stripes > 0) {
    const run = min(stripes, stripesPerBlock - index)
    const end = at + run * stripeBytes
    for (let key = secret + index * 8; at < end; key += 8) {
      const keyedA = v128.xor(v128.load(at), v128.load(key))
      const keyedB = v128.xor(v128.load(at, 16), v128.load(key, 16))
      a = addLow(addSwapped(a, v128.load(at)), keyedA, keyedB)
      b = addHigh(addSwapped(b, v128.load(at, 16)), keyedA, keyedB)
      const keyedC = v128.xor(v128.load(at, 32), v128.load(key, 32))
      const keyedD = v128.xor(v128.load(at, 48), v128.load(key, 48))
      c = addLow(addSwapped(c, v128.load(at, 32)), keyedC, keyedD)
      d = addHigh(addSwapped(d, v128.load(at, 48)), keyedC, keyedD)
      at += stripeBytes
    }
    stripes -= run
    index += run
    if (index == stripesPerBlock) {
      a = scrambled(a, 0)
      b = scrambled(b, 16)
      c = scrambled(c, 32)
      d = scrambled(d, 48)
      index = 0
    }
  }
  v128.store(xxh3Accumulators, a)
  v128.store(xxh3Accumulators, b, 16)
  v128.store(xxh3Accumulators, c, 32)
  v128.store(xxh3Accumulators, d, 48)
}

/** The same, and the rounds of XXH64 of as many bytes in step with it. */
function accumulateBoth(at: usize, stripes: u32, index: u32, roundsAt: usize): void {
  let a = v128.load(xxh3Accumulators)
  let b = v128.load(xxh3Accumulators, 16)
  let c = v128.load(xxh3Accumulators, 32)
  let d = v128.load(xxh3Accumulators, 48)
  let p = load<u64>(xxh64Accumulators)
  let q = load<u64>(xxh64Accumulators, 8)
  let r = load<u64>(xxh64Accumulators, 16)
  let s = load<u64>(xxh64Accumulators, 24)
  while (stripes > 0) {
    const run = min(stripes, stripesPerBlock - index)
    const end = at + run * stripeBytes
    for (let key = secret + index * 8; at < end; key += 8) {
      const keyedA = v128.xor(v128.load(at), v128.load(key))
      const keyedB = v128.xor(v128.load(at, 16), v128.load(key, 16))
      a = addLow(addSwapped(a, v128.load(at)), keyedA, keyedB)
      b = addHigh(addSwapped(b, v128.load(at, 16)), keyedA, keyedB)
      p = round(p, load<u64>(roundsAt))
      q = round(q, load<u64>(roundsAt, 8))
      r = round(r, load<u64>(roundsAt, 16))
      s = round(s, load<u64>(roundsAt, 24))
      const keyedC = v128.xor(v128.load(at, 32), v128.load(key, 32))
      const keyedD = v128.xor(v128.load(at, 48), v128.load(key, 48))
      c = addLow(addSwapped(c, v128.load(at, 32)), keyedC, keyedD)
      d = addHigh(addSwapped(d, v128.load(at, 48)), keyedC, keyedD)
      p = round(p, load<u64>(roundsAt, 32))
      q = round(q, load<u64>(roundsAt, 40))
      r = round(r, load<u64>(roundsAt, 48))
      s = round(s, load<u64>(roundsAt, 56))
      at += stripeBytes
      roundsAt += stripeBytes
    }
    stripes -= run
    index += run
    if (index == stripesPerBlock) {
      a = scrambled(a, 0)
      b = scrambled(b, 16)
      c = scrambled(c, 32)
      d = scrambled(d, 48)
      index = 0
    }
  }
  v128.store(xxh3Accumulators, a)
  v128.store(xxh3Accumulators, b, 16)
  v128.store(xxh3Accumulators, c, 32)
  v128.store(xxh3Accumulators, d, 48)
  store<u64>(xxh64Accumulators, p)
  store<u64>(xxh64Accumulators, q, 8)
  store<u64>(xxh64Accumulators, r, 16)
  store<u64>(xxh64Accumulators, s, 24)
}

/** Each accumulator gets the word of its neighbour. */
function addSwapped(accumulators: v128, words: v128): v128 {
  return i64x2.add(accumulators, v128.shuffle<u64>(words, words, 1, 0))
}

/** Adds the product of the halves of each word of `left`. Both at once, because the halves of four are sorted in one go. */
function addLow(accumulators: v128, left: v128, right: v128): v128 {
  return i64x2.add(accumulators, i64x2.extmul_low_i32x4_u(lowerHalves(left, right), upperHalves(left, right)))
}

/** The same for `right`. */
function addHigh(accumulators: v128, left: v128, right: v128): v128 {
  return i64x2.add(
    accumulators,
    i64x2.extmul_high_i32x4_u(lowerHalves(left, right), upperHalves(left, right)),
  )
}

function lowerHalves(left: v128, right: v128): v128 {
  return v128.shuffle<u32>(left, right, 0, 2, 4, 6)
}

function upperHalves(left: v128, right: v128): v128 {
  return v128.shuffle<u32>(left, right, 1, 3, 5, 7)
}

function scrambled(accumulators: v128, at: usize): v128 {
  const mixed = v128.xor(accumulators, i64x2.shr_u(accumulators, 47))
  return i64x2.mul(
    v128.xor(mixed, v128.load(secret + secretBytes - stripeBytes + at)),
    i64x2.splat(prime32_1),
  )
}

/** One stripe without vectors. */
function accumulateStripe(at: usize, key: usize): void {
  for (let n: usize = 0; n < 64; n += 16) {
    const even = load<u64>(at + n)
    const odd = load<u64>(at + n, 8)
    const place = xxh3Accumulators + n
    store<u64>(place, load<u64>(place) + odd + productOfHalves(even ^ load<u64>(key + n)))
    store<u64>(place, load<u64>(place, 8) + even + productOfHalves(odd ^ load<u64>(key + n, 8)), 8)
  }
}

function productOfHalves(word: u64): u64 {
  return (word & 0xffffffff) * (word >> 32)
}

function scramble(): void {
  for (let n: usize = 0; n < 64; n += 8) {
    const accumulator = load<u64>(xxh3Accumulators + n)
    const key = load<u64>(secret + secretBytes - stripeBytes + n)
    store<u64>(xxh3Accumulators + n, (accumulator ^ (accumulator >> 47) ^ key) * prime32_1)
  }
}

function xxh64Rounds(at: usize, rounds: u32): void {
  let p = load<u64>(xxh64Accumulators)
  let q = load<u64>(xxh64Accumulators, 8)
  let r = load<u64>(xxh64Accumulators, 16)
  let s = load<u64>(xxh64Accumulators, 24)
  for (const end = at + rounds * 32; at < end; at += 32) {
    p = round(p, load<u64>(at))
    q = round(q, load<u64>(at, 8))
    r = round(r, load<u64>(at, 16))
    s = round(s, load<u64>(at, 24))
  }
  store<u64>(xxh64Accumulators, p)
  store<u64>(xxh64Accumulators, q, 8)
  store<u64>(xxh64Accumulators, r, 16)
  store<u64>(xxh64Accumulators, s, 24)
}

function round(accumulator: u64, word: u64): u64 {
  return rotl(accumulator + word * prime64_2, 31) * prime64_1
}

/** Puts the digest into its place. Nothing may be absorbed after it. */
export function finishXxh3(): void {
  const length = load<u64>(xxh3Length)
  const at = window - <usize>length
  if (length > mediumBytesMax) finishLarge(length)
  else if (length > 128) finishUpTo240(at, <u32>length)
  else if (length > 16) finishUpTo128(at, <u32>length)
  else if (length > 8) finishUpTo16(at, length)
  else if (length > 3) finishUpTo8(at, length)
  else if (length > 0) finishUpTo3(at, <u32>length)
  else {
    storeXxh3(
      avalanche64(load<u64>(secret, 64) ^ load<u64>(secret, 72)),
      avalanche64(load<u64>(secret, 80) ^ load<u64>(secret, 88)),
    )
  }
}

function storeXxh3(low: u64, high: u64): void {
  store<u64>(digest, bswap(high))
  store<u64>(digest, bswap(low), 8)
}

function finishUpTo3(at: usize, length: u32): void {
  const first = <u32>load<u8>(at)
  const middle = <u32>load<u8>(at + length / 2)
  const last = <u32>load<u8>(at + length - 1)
  const combined: u32 = last | (length << 8) | (first << 16) | (middle << 24)
  storeXxh3(
    avalanche64(<u64>(load<u32>(secret) ^ load<u32>(secret, 4) ^ combined)),
    avalanche64(<u64>(load<u32>(secret, 8) ^ load<u32>(secret, 12) ^ rotl<u32>(bswap<u32>(combined), 13))),
  )
}

function finishUpTo8(at: usize, length: u64): void {
  const combined = <u64>load<u32>(at) | ((<u64>load<u32>(at + <usize>length - 4)) << 32)
  const keyed = combined ^ load<u64>(secret, 16) ^ load<u64>(secret, 24)
  const factor = prime64_1 + length * 4
  let low = keyed * factor
  const high = productHigh(keyed, factor) + (low << 1)
  low ^= high >> 3
  low = (low ^ (low >> 35)) * primeMix2
  storeXxh3(low ^ (low >> 28), avalanche(high))
}

function finishUpTo16(at: usize, length: u64): void {
  const first = load<u64>(at)
  const last = load<u64>(at + <usize>length - 8)
  const keyed = first ^ last ^ load<u64>(secret, 32) ^ load<u64>(secret, 40)
  const keyedLast = last ^ load<u64>(secret, 48) ^ load<u64>(secret, 56)
  const upper = productHigh(keyed, prime64_1) + keyedLast + (keyedLast & 0xffffffff) * (prime32_2 - 1)
  const lower = (keyed * prime64_1 + ((length - 1) << 54)) ^ bswap(upper)
  storeXxh3(avalanche(lower * prime64_2), avalanche(productHigh(lower, prime64_2) + upper * prime64_2))
}

// The two accumulators of lengths from 17 to 240.
let even: u64 = 0
let odd: u64 = 0

function finishUpTo128(at: usize, length: u32): void {
  even = length * prime64_1
  odd = 0
  // Pairs from both ends towards the middle, and the innermost comes first.
  for (let n: i32 = (length - 1) / 32; n >= 0; n--) {
    mixPair(at + n * 16, at + length - n * 16 - 16, secret + n * 32)
  }
  finishMedium(length)
}

function finishUpTo240(at: usize, length: u32): void {
  even = length * prime64_1
  odd = 0
  for (let n: u32 = 0; n < 128; n += 32) mixPair(at + n, at + n + 16, secret + n)
  even = avalanche(even)
  odd = avalanche(odd)
  for (let n: u32 = 128; n + 32 <= length; n += 32) mixPair(at + n, at + n + 16, secret + n - 128 + 3)
  mixPair(at + length - 16, at + length - 32, secret + 103)
  finishMedium(length)
}

function finishMedium(length: u64): void {
  storeXxh3(avalanche(even + odd), 0 - avalanche(even * prime64_1 + odd * prime64_4 + length * prime64_2))
}

/** Two pieces of 16 bytes with 32 bytes of the secret. */
function mixPair(left: usize, right: usize, key: usize): void {
  even = (even + mixed(left, key)) ^ (load<u64>(right) + load<u64>(right, 8))
  odd = (odd + mixed(right, key + 16)) ^ (load<u64>(left) + load<u64>(left, 8))
}

/** 16 bytes with 16 of a key, folded to 8. */
function mixed(at: usize, key: usize): u64 {
  return foldedProduct(load<u64>(at) ^ load<u64>(key), load<u64>(at, 8) ^ load<u64>(key, 8))
}

function finishLarge(length: u64): void {
  accumulateStripe(window - stripeBytes, secret + secretBytes - stripeBytes - 7)
  storeXxh3(
    merged(length * prime64_1, secret + 11),
    merged(~(length * prime64_2), secret + secretBytes - stripeBytes - 11),
  )
}

function merged(sum: u64, key: usize): u64 {
  for (let n: usize = 0; n < 64; n += 16) {
    sum += mixed(xxh3Accumulators + n, key + n)
  }
  return avalanche(sum)
}

/** Puts the digest into its place, and returns the lower half of it. */
export function finishXxh64(): u32 {
  const length = load<u64>(xxh64Length)
  let at = window - <usize>(length % 32)
  let hash = (length < 32 ? prime64_5 : convergedAccumulators()) + length
  for (; at + 8 <= window; at += 8) {
    hash = rotl(hash ^ round(0, load<u64>(at)), 27) * prime64_1 + prime64_4
  }
  if (at + 4 <= window) {
    hash = rotl(hash ^ (<u64>load<u32>(at) * prime64_1), 23) * prime64_2 + prime64_3
    at += 4
  }
  for (; at < window; at++) hash = rotl(hash ^ (<u64>load<u8>(at) * prime64_5), 11) * prime64_1
  hash = avalanche64(hash)
  store<u64>(digest, bswap(hash))
  return <u32>hash
}

function convergedAccumulators(): u64 {
  const p = load<u64>(xxh64Accumulators)
  const q = load<u64>(xxh64Accumulators, 8)
  const r = load<u64>(xxh64Accumulators, 16)
  const s = load<u64>(xxh64Accumulators, 24)
  let hash = rotl(p, 1) + rotl(q, 7) + rotl(r, 12) + rotl(s, 18)
  hash = converged(hash, p)
  hash = converged(hash, q)
  hash = converged(hash, r)
  return converged(hash, s)
}

function converged(hash: u64, accumulator: u64): u64 {
  return (hash ^ round(0, accumulator)) * prime64_1 + prime64_4
}

/** The upper half of a product of 128 bits. */
function productHigh(a: u64, b: u64): u64 {
  const lowA = a & 0xffffffff
  const highA = a >> 32
  const lowB = b & 0xffffffff
  const highB = b >> 32
  const cross = highA * lowB + ((lowA * lowB) >> 32)
  return highA * highB + (cross >> 32) + ((lowA * highB + (cross & 0xffffffff)) >> 32)
}

function foldedProduct(a: u64, b: u64): u64 {
  return (a * b) ^ productHigh(a, b)
}

function avalanche(word: u64): u64 {
  word = (word ^ (word >> 37)) * primeMix1
  return word ^ (word >> 32)
}

/** XXH64's, of which XXH3 makes use where there are few bytes. */
function avalanche64(word: u64): u64 {
  word = (word ^ (word >> 33)) * prime64_2
  word = (word ^ (word >> 29)) * prime64_3
  return word ^ (word >> 32)
}
