import type { Clock } from '../../system/clock.ts'
import { RequestError, type RequestRetry } from './request-error.ts'
import type { RequestKind, Send } from './requests.ts'

/**
 * What becomes of a request:
 *
 * - `fails`: nothing is done
 * - `loses its answer`: it is done, and nobody is told
 * - `stalls`: nothing more is heard of it until it is given up; it may be done, also long after that
 */
export type Fault =
  | { kind: 'fails' | 'loses its answer'; retry: RequestRetry }
  | { kind: 'stalls'; doneAfterMs: number | undefined }

export interface FaultOptions {
  clock: Pick<Clock, 'sleep'>
  /** What becomes of the next request; `undefined` for what it was asked to do. */
  faultOf: (kind: RequestKind) => Fault | undefined
  /** How long the request takes to the store, and the answer back. */
  delayMs?: (kind: RequestKind) => number
}

/** What a network does to requests, for tests and simulations. */
export function withFaults(send: Send, { clock, faultOf, delayMs = () => 0 }: FaultOptions): Send {
  const doLate = async (ms: number, work: () => Promise<unknown>) => {
    await clock.sleep(ms)
    await work().catch(() => undefined)
  }
  return async (kind, request, signal) => {
    await clock.sleep(delayMs(kind), signal)
    signal?.throwIfAborted()
    const fault = faultOf(kind)
    if (fault?.kind === 'fails') throw failure(kind, fault.retry)
    if (fault?.kind === 'stalls') {
      if (fault.doneAfterMs !== undefined) void doLate(fault.doneAfterMs, () => send(kind, request))
      return await stalled(signal)
    }
    // What has arrived there is done, whoever gives up here.
    const answer = await send(kind, request)
    await clock.sleep(delayMs(kind), signal)
    signal?.throwIfAborted()
    if (fault !== undefined) throw failure(kind, fault.retry)
    return answer
  }
}

function failure(kind: RequestKind, retry: RequestRetry): RequestError {
  return new RequestError('UNREACHABLE', `"${kind}" has failed, as it was told to`, { retry })
}

function stalled(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}
