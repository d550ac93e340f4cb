import { errnoCode } from '../../../system/system-error.ts'

/** Why a request failed, as far as the store or the way to it has said. */
export interface AzureRefusal {
  /** The HTTP status, where there was an answer. */
  status: number | undefined
  /** The store's word for it ("ContainerNotFound"). What has none was not answered by a store. */
  code: string | undefined
  /** What the store said besides. */
  message: string | undefined
  requestId: string | undefined
  retryAfterMs: number | undefined
  /** Of the network ("ECONNREFUSED"). */
  errno: string | undefined
  thrown: unknown
}

interface ClientError {
  name?: unknown
  code?: unknown
  statusCode?: unknown
  message?: unknown
  details?: { message?: unknown; authenticationErrorDetail?: unknown; AuthenticationErrorDetail?: unknown }
  response?: { headers?: { get(name: string): string | undefined } }
}

/** Nothing of the client's exceptions is passed on: they hold the request, its credentials among it. */
export function azureRefusal(thrown: unknown): AzureRefusal {
  const error = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as ClientError
  const status = typeof error.statusCode === 'number' ? error.statusCode : undefined
  const header = (name: string) => error.response?.headers?.get(name)
  const said = textOf(error.details?.message) ?? (status === undefined ? textOf(error.message) : undefined)
  const detail =
    textOf(error.details?.authenticationErrorDetail) ?? textOf(error.details?.AuthenticationErrorDetail)
  // That an answer could not be read is the client's word, and not the store's.
  const network = error.code === 'PARSE_ERROR' ? undefined : textOf(error.code)
  return {
    status,
    code: status === undefined ? undefined : (header('x-ms-error-code') ?? network),
    message: [said, detail].filter(text => text !== undefined).join(' ') || undefined,
    requestId: header('x-ms-request-id'),
    retryAfterMs: retryAfterMs(header('retry-after')),
    errno:
      status === undefined
        ? (network ?? errnoCode(thrown) ?? (isCutOff(error) ? 'ECONNRESET' : undefined))
        : undefined,
    thrown,
  }
}

/** The client has no such word for a body that ends before its end. Who has aborted it himself is not told of it. */
function isCutOff({ name, message }: ClientError): boolean {
  return name === 'AbortError' || /^Data corruption failure: received less/.test(textOf(message) ?? '')
}

function retryAfterMs(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,4}$/.test(text) ? Number(text) * 1000 : undefined
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
