/** Time, as a parameter, so that tests and the simulation can own it. */
export interface Clock {
  /** Wall-clock time, milliseconds since the epoch. May jump. */
  now(): number
  /** Milliseconds since some moment; never goes back. */
  monotonic(): number
  /** Resolves after `ms`, or as soon as `signal` is aborted, whichever comes first. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise(resolve => {
      if (signal?.aborted) return resolve()
      const end = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      signal?.addEventListener('abort', end, { once: true })
    }),
}

/** Has the promise resolved within `ms`? It has the last word where both happen at once. Rejects as the promise does. */
export async function resolvesWithin(ms: number, promise: Promise<unknown>, clock: Clock): Promise<boolean> {
  let hasResolved = false
  const giveUp = new AbortController()
  const resolved = promise.then(() => {
    hasResolved = true
  })
  try {
    await Promise.race([resolved, clock.sleep(ms, giveUp.signal)])
  } finally {
    giveUp.abort()
  }
  return hasResolved
}
