import type { Clock } from '../../system/clock.ts'
import { requestBytes } from './request-bytes.ts'
import { RequestError } from './request-error.ts'
import type { RequestKind, Send } from './requests.ts'

/** Upper bounds of how long requests took; the last one has none. */
export const durationBoundsMs = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000] as const

export interface RequestCount {
  /** All that were sent, those that were sent again and the second ones of a race too. */
  requests: number
  failures: number
  /** Of the failures, how often the store had too much to do. */
  throttles: number
  retries: number
  hedges: number
  /** Of objects, both ways. */
  bytes: number
  /** How many took at most as long as each of `durationBoundsMs`, and longer. */
  durations: number[]
}

/** What was asked of a store since the process began. */
export class RequestCounts {
  readonly #counts = new Map<RequestKind, RequestCount>()

  of(kind: RequestKind): RequestCount {
    let count = this.#counts.get(kind)
    if (count === undefined) {
      const durations = Array.from({ length: durationBoundsMs.length + 1 }, () => 0)
      count = { requests: 0, failures: 0, throttles: 0, retries: 0, hedges: 0, bytes: 0, durations }
      this.#counts.set(kind, count)
    }
    return count
  }

  entries(): Iterable<[RequestKind, RequestCount]> {
    return this.#counts.entries()
  }

  get requests(): number {
    return [...this.#counts.values()].reduce((sum, { requests }) => sum + requests, 0)
  }
}

/** Counts what is sent. */
export function withCounts(
  send: Send,
  { counts, clock }: { counts: RequestCounts; clock: Pick<Clock, 'monotonic'> },
): Send {
  return async (kind, request, signal) => {
    const count = counts.of(kind)
    count.requests++
    const beganMs = clock.monotonic()
    try {
      const answer = await send(kind, request, signal)
      // Of what is read only the answer tells how much it is.
      const isPiece = typeof answer === 'object' && 'bytes' in answer
      count.bytes += isPiece ? answer.bytes.length : kind === 'get' ? 0 : requestBytes(kind, request)
      return answer
    } catch (thrown) {
      count.failures++
      if (thrown instanceof RequestError && thrown.retry === 'slow down') count.throttles++
      throw thrown
    } finally {
      const ms = clock.monotonic() - beganMs
      const bound = durationBoundsMs.findIndex(each => ms <= each)
      const index = bound < 0 ? durationBoundsMs.length : bound
      count.durations[index] = (count.durations[index] ?? 0) + 1
    }
  }
}
