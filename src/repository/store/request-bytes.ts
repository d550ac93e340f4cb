import type { RequestKind, Requests } from './requests.ts'

/** How many bytes of objects a request carries, or asks for at most. */
export function requestBytes<K extends RequestKind>(kind: K, request: Requests[K]): number
export function requestBytes(kind: RequestKind, request: Requests[RequestKind]): number {
  if (request === undefined) return 0
  if ('body' in request) return request.body.reduce((sum, piece) => sum + piece.length, 0)
  return kind === 'get' && 'bytes' in request ? request.bytes : 0
}
