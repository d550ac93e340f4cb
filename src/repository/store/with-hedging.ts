import type { Clock } from '../../system/clock.ts'
import { requestBytes } from './request-bytes.ts'
import type { Answers, RequestKind, Requests, Send } from './requests.ts'

/** So many times what its like take is long, */
const timesMedian = 4
/** but nothing before this, */
const waitMinMs = 1_000
/** and this where its like is not known yet. */
const waitUnknownMs = 4_000
const durationsRemembered = 64
const durationsKnown = 8
const atOnceMax = 4
/** Second requests that may be sent, as a share of all that were. */
const shareMax = 0.05
const savedMax = 4

/**
 * What may be under way twice. The same part, page or piece twice is the same; an object that the first request has
 * stored makes the second one say `'exists'`, and whoever is told so looks at what it is. An upload that is begun twice
 * would be left behind, and the end of one is waited for.
 */
const mayBeRaced: ReadonlySet<RequestKind> = new Set<RequestKind>([
  'get',
  'put',
  'putPart',
  'list',
  'listUploads',
  'confirm',
])

// Requests are compared with those of about the same size.
const sizes = [64 * 1024, 1024 ** 2, 4 * 1024 ** 2, Number.POSITIVE_INFINITY]

/** Made once, because making an error takes longer than all the rest. */
const isSettled = new Error('the request has ended')

export interface HedgingOptions {
  clock: Pick<Clock, 'monotonic' | 'sleep'>
  /** Told of each second request. */
  hedged?: ((kind: RequestKind) => void) | undefined
}

/** Has a request that takes much longer than its like raced by a second one. What succeeds first is the answer. */
export function withHedging(send: Send, { clock, hedged }: HedgingOptions): Send {
  const durations = new Map<string, number[]>()
  let saved = 1
  let atOnce = 0

  const longMs = (likes: readonly number[]) => {
    if (likes.length < durationsKnown) return waitUnknownMs
    const median = likes.toSorted((a, b) => a - b)[likes.length >> 1] ?? 0
    return Math.max(timesMedian * median, waitMinMs)
  }

  async function raced<K extends RequestKind>(
    kind: K,
    request: Requests[K],
    signal: AbortSignal | undefined,
    afterMs: number,
  ): Promise<Answers[K]> {
    const ended = new AbortController()
    const both = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal])
    const first = send(kind, request, both)
    const second = (async () => {
      const settled = new AbortController()
      first.finally(() => settled.abort(isSettled)).catch(() => {})
      await clock.sleep(afterMs, settled.signal)
      // Ended meanwhile, or too many already: then the first one is all there is.
      if (settled.signal.aborted || both.aborted || atOnce >= atOnceMax || saved < 1) return await first
      saved--
      atOnce++
      hedged?.(kind)
      return await send(kind, request, both).finally(() => atOnce--)
    })()
    second.catch(() => {})
    try {
      return await Promise.any([first, second])
    } catch {
      // What failed first says why.
      return await first
    } finally {
      ended.abort(isSettled)
    }
  }

  return async (kind, request, signal) => {
    if (!mayBeRaced.has(kind)) return await send(kind, request, signal)
    saved = Math.min(savedMax, saved + shareMax)
    const bytes = requestBytes(kind, request)
    const like = `${kind} ${sizes.findIndex(size => bytes < size)}`
    const likes = durations.get(like) ?? []
    durations.set(like, likes)
    const beganMs = clock.monotonic()
    const answer = await raced(kind, request, signal, longMs(likes))
    likes.push(clock.monotonic() - beganMs)
    if (likes.length > durationsRemembered) likes.shift()
    return answer
  }
}
