import { RepositoryError } from '../../src/repository/repository-error.ts'
import type { RequestKind, Requests, Send } from '../../src/repository/store/requests.ts'

/**
 * Faults that a driver or a store could have. Each has to make the simulation fail: a simulation that cannot fail proves
 * nothing.
 */
export const remoteLies: Record<string, (send: Send) => Send> = {
  'what is there is replaced': send => changing(send, request => ({ ...request, replace: true })),
  'what is refused is said to be written': send => answering(send, 'put', 'exists', 'written'),
  'an upload that is refused is said to be written': send =>
    answering(send, 'endUpload', 'exists', 'written'),
  'what fails is said to be written': send => failing(send, 'put', 'written'),
  'what cannot be read is missing': send => failing(send, 'get', undefined),
  'what cannot be listed is empty': send => failing(send, 'list', { objects: [], isLast: true }),
  'the first page is all there is': send => listing(send),
  'uploads stay': send => failing(skipping(send, 'abandonUpload'), 'abandonUpload', undefined),
  'the first part is that of another file': send => {
    let last: unknown
    return changing(send, request => {
      if (!('part' in request && 'body' in request) || request.part !== 1) return request
      const body = last ?? request.body
      last = request.body
      return { ...request, body }
    })
  },
}

type AnySend = (kind: RequestKind, request: unknown, signal?: AbortSignal) => Promise<unknown>

/** A lie is about some kind of request, whatever its type. */
const lying = (send: AnySend) => send as Send
const honest = (send: Send) => send as AnySend

function changing(send: Send, change: (request: object) => object): Send {
  return lying((kind, request, signal) => {
    const isChanged = kind === 'put' || kind === 'endUpload' || kind === 'putPart'
    return honest(send)(kind, isChanged ? change(request as Requests['put']) : request, signal)
  })
}

function answering(send: Send, kind: RequestKind, truth: unknown, lie: unknown): Send {
  return lying(async (asked, request, signal) => {
    const answer = await honest(send)(asked, request, signal)
    return asked === kind && answer === truth ? lie : answer
  })
}

function failing(send: Send, kind: RequestKind, lie: unknown): Send {
  return lying(async (asked, request, signal) => {
    try {
      return await honest(send)(asked, request, signal)
    } catch (thrown) {
      if (asked !== kind || !(thrown instanceof RepositoryError)) throw thrown
      return lie
    }
  })
}

function skipping(send: Send, kind: RequestKind): Send {
  return lying(async (asked, request, signal) =>
    asked === kind ? undefined : await honest(send)(asked, request, signal),
  )
}

function listing(send: Send): Send {
  return lying(async (asked, request, signal) => {
    const answer = await honest(send)(asked, request, signal)
    return asked === 'list' ? { ...(answer as object), isLast: true } : answer
  })
}
