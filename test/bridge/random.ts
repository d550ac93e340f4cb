// Chance that a seed decides, so that what was chosen can be chosen again.

export type Random = () => number

/** mulberry32: small, and the same everywhere. From 0 to below 1. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

export function oneOf<T>(choices: readonly [T, ...T[]], random: Random): T {
  return choices[Math.floor(random() * choices.length)] ?? choices[0]
}

export function shuffled<T>(choices: readonly T[], random: Random): T[] {
  return choices
    .map(choice => ({ choice, place: random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ choice }) => choice)
}
