// Bech32 as in BIP 173, which age writes its keys in, without a limit of length.

const alphabet = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
const checksumLength = 6
const generators = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3] as const

/** Prefix and bytes, or `undefined` if the text is not valid. The prefix keeps its case. */
export function decodeBech32(text: string): { prefix: string; bytes: Uint8Array } | undefined {
  if (text !== text.toLowerCase() && text !== text.toUpperCase()) return undefined
  const separator = text.lastIndexOf('1')
  if (separator < 1) return undefined
  const prefix = text.slice(0, separator)
  const words = Array.from(text.slice(separator + 1).toLowerCase(), letter => alphabet.indexOf(letter))
  if (words.length < checksumLength || words.includes(-1)) return undefined
  if (polymod([...expanded(prefix.toLowerCase()), ...words]) !== 1) return undefined
  const bytes = regrouped(words.slice(0, -checksumLength), 5, 8)
  return bytes && { prefix, bytes: Uint8Array.from(bytes) }
}

/** In lower case. */
export function encodeBech32(prefix: string, bytes: Uint8Array): string {
  const words = regrouped([...bytes], 8, 5) ?? []
  const checksum =
    polymod([...expanded(prefix), ...words, ...Array.from({ length: checksumLength }, () => 0)]) ^ 1
  const checksumWords = Array.from(
    { length: checksumLength },
    (_, index) => (checksum >> (5 * (5 - index))) & 31,
  )
  return `${prefix}1${[...words, ...checksumWords].map(word => alphabet[word]).join('')}`
}

function expanded(prefix: string): number[] {
  const codes = Array.from(prefix, letter => letter.codePointAt(0) ?? 0)
  return [...codes.map(code => code >> 5), 0, ...codes.map(code => code & 31)]
}

function polymod(words: readonly number[]): number {
  let sum = 1
  for (const word of words) {
    const top = sum >> 25
    sum = ((sum & 0x1ffffff) << 5) ^ word
    for (const [bit, generator] of generators.entries()) if ((top >> bit) & 1) sum ^= generator
  }
  return sum
}

/** Groups of bits into groups of another size. What is left of bytes is filled up; of words it has to be zero. */
function regrouped(groups: readonly number[], from: 5 | 8, to: 5 | 8): number[] | undefined {
  const result: number[] = []
  let bits = 0
  let value = 0
  for (const group of groups) {
    value = ((value << from) | group) & 0xfff
    for (bits += from; bits >= to; ) {
      bits -= to
      result.push((value >> bits) & ((1 << to) - 1))
    }
  }
  const rest = value & ((1 << bits) - 1)
  if (to === 5 && bits > 0) result.push(rest << (5 - bits))
  if (to === 8 && (bits >= 5 || rest !== 0)) return undefined
  return result
}
