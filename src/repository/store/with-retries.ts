import type { Clock } from '../../system/clock.ts'
import { RequestError } from './request-error.ts'
import type { RequestKind, Send } from './requests.ts'

/** The longest pause after the first failure; it doubles with each one. */
const firstPauseMs = 200
const pauseMaxMs = 10_000
/** Nobody waits for what others clean up if this one does not. */
const abandoningMs = 5_000

export interface RetryOptions {
  clock: Pick<Clock, 'monotonic' | 'sleep'>
  /** From 0 up to, not including, 1. */
  random: () => number
  /** After this long no request is sent again. */
  totalMs: number
  /** Told before each pause. */
  retried?: ((kind: RequestKind, error: RequestError) => void) | undefined
}

/** Sends again what may have failed by accident, after pauses that become longer and are never in step with others'. */
export function withRetries(send: Send, { clock, random, totalMs, retried }: RetryOptions): Send {
  return async (kind, request, signal) => {
    const lastMs = clock.monotonic() + (kind === 'abandonUpload' ? Math.min(totalMs, abandoningMs) : totalMs)
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, pauseMaxMs)) {
      try {
        return await send(kind, request, signal)
      } catch (thrown) {
        if (!(thrown instanceof RequestError) || thrown.retry === 'never') throw thrown
        signal?.throwIfAborted()
        const waitMs = Math.max(thrown.retryAfterMs ?? 0, random() * pauseMs)
        if (clock.monotonic() + waitMs > lastMs) throw thrown
        retried?.(kind, thrown)
        await clock.sleep(waitMs, signal)
        signal?.throwIfAborted()
      }
    }
  }
}
