import type { Clock } from '../../system/clock.ts'
import { RequestError } from './request-error.ts'
import type { Send } from './requests.ts'

const atOnceFirst = 16
const atOnceMax = 64
const decrease = 0.5

export interface LimitOptions {
  clock: Pick<Clock, 'monotonic'>
  /** Told how many requests may be under way from now on. */
  changed?: (atOnce: number) => void
}

/**
 * Bounds how many requests are under way at once: by one more with each round trip in which all were used, by half
 * when the store says that it has too much to do, once for all that were under way by then. Who waits is served in turn.
 */
export function withLimit(send: Send, { clock, changed }: LimitOptions): Send {
  let atOnce = atOnceFirst
  let underWay = 0
  let decreasedMs = Number.NEGATIVE_INFINITY
  const waiting = new Set<() => void>()

  const serve = () => {
    for (const go of waiting) {
      if (underWay >= Math.floor(atOnce)) return
      waiting.delete(go)
      underWay++
      go()
    }
  }

  const change = (to: number) => {
    const before = Math.floor(atOnce)
    atOnce = Math.min(atOnceMax, Math.max(1, to))
    if (Math.floor(atOnce) !== before) changed?.(Math.floor(atOnce))
  }

  const turn = async (signal: AbortSignal | undefined) => {
    signal?.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const giveUp = () => {
      if (waiting.delete(resolve)) reject(signal?.reason)
    }
    signal?.addEventListener('abort', giveUp, { once: true })
    waiting.add(resolve)
    serve()
    await promise.finally(() => signal?.removeEventListener('abort', giveUp))
  }

  return async (kind, request, signal) => {
    await turn(signal)
    const beganMs = clock.monotonic()
    try {
      const answer = await send(kind, request, signal)
      // An idle store proves nothing about a busy one.
      if (underWay >= Math.floor(atOnce)) change(atOnce + 1 / atOnce)
      return answer
    } catch (thrown) {
      const isTooMuch = thrown instanceof RequestError && thrown.retry === 'slow down'
      if (isTooMuch && beganMs > decreasedMs) {
        decreasedMs = clock.monotonic()
        change(atOnce * decrease)
      }
      throw thrown
    } finally {
      underWay--
      serve()
    }
  }
}
