import { errnoCode } from '../../../system/system-error.ts'

/** There are no credentials, so that nothing was asked. */
export class CredentialsMissing extends Error {
  /** Were there any before? */
  readonly wereThere: boolean

  constructor(cause: unknown, wereThere: boolean) {
    super('there are no credentials', { cause })
    this.wereThere = wereThere
  }
}

/** Why a request failed, as far as the store or the way to it has said. */
export interface S3Refusal {
  /** The HTTP status, where there was an answer. */
  status: number | undefined
  /** The store's word for it ("NoSuchBucket"). What has none was not answered by a store. */
  code: string | undefined
  /** What the store said besides. */
  message: string | undefined
  requestId: string | undefined
  /** Where the bucket is. */
  region: string | undefined
  retryAfterMs: number | undefined
  /** Of the network ("ECONNREFUSED"). */
  errno: string | undefined
  thrown: unknown
}

/** The client's exceptions hold the whole answer under names of their own. */
interface ClientError {
  name?: unknown
  Code?: unknown
  message?: unknown
  Region?: unknown
  $metadata?: { httpStatusCode?: unknown; requestId?: unknown }
  $response?: { statusCode?: unknown; headers?: Record<string, string> }
}

export function s3Refusal(thrown: unknown): S3Refusal {
  const error = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as ClientError
  const headers = error.$response?.headers ?? {}
  const status = numberOf(error.$metadata?.httpStatusCode) ?? numberOf(error.$response?.statusCode)
  // The client has names for some of what had none.
  const isNamed = textOf(error.Code) !== undefined || error.name === 'InternalError'
  const code = isNamed ? (textOf(error.Code) ?? textOf(error.name)) : undefined
  return {
    status,
    code,
    message: isNamed ? textOf(error.message) : undefined,
    requestId: textOf(error.$metadata?.requestId),
    region: regionOf(headers['x-amz-bucket-region'] ?? textOf(error.Region), status, code),
    retryAfterMs: retryAfterMs(headers['retry-after']),
    // The client has no such word for a connection that was not made in time.
    errno:
      errnoCode(thrown) ?? (error.name === 'TimeoutError' && status === undefined ? 'ETIMEDOUT' : undefined),
    thrown,
  }
}

/** The store's words for a bucket that is in another region. */
export const wrongRegion: ReadonlySet<string> = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
])

/** Only an answer that sends us elsewhere counts: others name the region, too. */
function regionOf(
  text: string | undefined,
  status: number | undefined,
  code: string | undefined,
): string | undefined {
  const isElsewhere = status === 301 || status === 307 || (status === 400 && wrongRegion.has(code ?? ''))
  if (!isElsewhere) return undefined
  return text !== undefined && /^[a-z0-9-]{1,63}$/.test(text) ? text : undefined
}

function retryAfterMs(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,4}$/.test(text) ? Number(text) * 1000 : undefined
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value !== 'UnknownError' ? value : undefined
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined
}
