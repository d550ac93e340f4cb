import type { Clock } from '../../system/clock.ts'
import { requestBytes } from './request-bytes.ts'
import { RequestError } from './request-error.ts'
import type { RequestKind, Send } from './requests.ts'

/** How long any request may take: a store at the other end of the world answers within a second when it is well. */
const answerMs = 10_000
/** The slowest line that is good enough for one of several requests. */
const bytesPerSecondMin = 256 * 1024

/** Where the store has more to do than to answer: it puts a whole object together. */
const answersLate: Partial<Record<RequestKind, number>> = { endUpload: 60_000 }

/** Made once, because making an error takes longer than all the rest. */
const isSettled = new Error('the request has ended')

/**
 * Ends requests that take too long for what they carry, and those whose signal is aborted, whether or not the driver
 * notices. That is taken for a store with too much to do, so that a slow line gets fewer requests at once.
 */
export function withDeadline(send: Send, { url, clock }: { url: string; clock: Pick<Clock, 'sleep'> }): Send {
  return async (kind, request, signal) => {
    signal?.throwIfAborted()
    const ms =
      (answersLate[kind] ?? answerMs) + Math.ceil((requestBytes(kind, request) / bytesPerSecondMin) * 1_000)
    const ended = new AbortController()
    const both = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal])
    const late = clock.sleep(ms, both).then(() => {
      signal?.throwIfAborted()
      throw new RequestError('UNREACHABLE', `repository "${url}" gave no answer within ${ms / 1_000} s`, {
        retry: 'slow down',
      })
    })
    try {
      return await Promise.race([send(kind, request, both), late])
    } finally {
      late.catch(() => {}) // it is told already, or does not matter any more
      ended.abort(isSettled)
    }
  }
}
