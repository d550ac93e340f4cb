// What can go wrong with one request, and how chance decides it.

import { crc32 } from 'node:zlib'
import { SeededRandom } from '../../src/system/seeded-random.ts'

export interface RequestFacts {
  method: string
  /** Path and query, as they were sent. */
  target: string
  headers: ReadonlyMap<string, string>
}

/** Where a body is meant, `at` is a fraction of it: 0 is before its first byte. */
export type Fault =
  /** The store is not asked, or it was and has done it; the client is told this either way. */
  | { kind: 'answer'; status: number; code: string; executed: boolean }
  /** The connection is reset while the request is sent; of a request without a body nothing is sent. */
  | { kind: 'reset request'; at: number }
  /** The store has done it, and the connection is reset while it answers: at 0 before it has said anything. */
  | { kind: 'reset answer'; at: number }
  /** Nothing ever comes back, and the connection stays open. */
  | { kind: 'silence'; executed: boolean }
  /**
   * The answer's body ends early: with a length that says so (`tells`), which only a digest can notice, or with the
   * length that it should have had, followed by the end of the connection.
   */
  | { kind: 'truncate'; at: number; tells: boolean }
  /** One bit of the answer's body is another. */
  | { kind: 'alter'; at: number }
  /** The answer comes so much later. */
  | { kind: 'stall'; ms: number }

/** Decides, for each request, which fault it meets. */
export type FaultPlan = (request: RequestFacts) => Fault | undefined

/** Probabilities, from 0 to 1, that a request meets a fault of this kind. Together they are at most 1. */
export interface FaultOdds {
  /** 503 SlowDown, without asking the store. */
  slowDown?: number
  /** 500 InternalError, half of them after the store has done it. */
  internalError?: number
  /** 403 AccessDenied, without asking the store. */
  accessDenied?: number
  /** 412 PreconditionFailed, half of them after the store has done it. */
  preconditionFailed?: number
  /** 503 SlowDown although the store has done it. */
  slowDownAfterwards?: number
  resetRequest?: number
  resetAnswer?: number
  /** The store has done it, and of its answer nothing arrives but the reset. */
  lostAnswer?: number
  silence?: number
  truncate?: number
  alter?: number
  stall?: number
}

const stallMs = 2_000

const makers: { readonly [Name in keyof FaultOdds]-?: (random: SeededRandom) => Fault } = {
  slowDown: () => ({ kind: 'answer', status: 503, code: 'SlowDown', executed: false }),
  internalError: random => ({
    kind: 'answer',
    status: 500,
    code: 'InternalError',
    executed: random.chance(0.5),
  }),
  accessDenied: () => ({ kind: 'answer', status: 403, code: 'AccessDenied', executed: false }),
  preconditionFailed: random => ({
    kind: 'answer',
    status: 412,
    code: 'PreconditionFailed',
    executed: random.chance(0.5),
  }),
  slowDownAfterwards: () => ({ kind: 'answer', status: 503, code: 'SlowDown', executed: true }),
  resetRequest: random => ({ kind: 'reset request', at: random.fraction() }),
  resetAnswer: random => ({ kind: 'reset answer', at: random.fraction() }),
  lostAnswer: () => ({ kind: 'reset answer', at: 0 }),
  silence: random => ({ kind: 'silence', executed: random.chance(0.5) }),
  truncate: random => ({ kind: 'truncate', at: random.fraction(), tells: random.chance(0.5) }),
  alter: random => ({ kind: 'alter', at: random.fraction() }),
  stall: () => ({ kind: 'stall', ms: stallMs }),
}

/**
 * Faults by chance. What happens depends on the seed, on what is asked, and on how often that was asked before, and not
 * on what other connections do at the same time: so a seed gives the same faults again however requests interleave.
 */
export function randomFaults(seed: number, odds: FaultOdds): FaultPlan {
  const asked = new Map<string, number>()
  return ({ method, target }) => {
    const name = `${method} ${target}`
    const before = asked.get(name) ?? 0
    asked.set(name, before + 1)
    const random = new SeededRandom(crc32(`${before} ${name}`, seed))
    let left = random.fraction()
    for (const [each, make] of Object.entries(makers)) {
      left -= odds[each as keyof FaultOdds] ?? 0
      if (left < 0) return make(random)
    }
    return undefined
  }
}
