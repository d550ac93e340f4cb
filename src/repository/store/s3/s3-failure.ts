import type { RepositoryErrorCode } from '../../repository-error.ts'
import type { S3Location } from '../../s3-location.ts'
import { RequestError, type RequestRetry } from '../request-error.ts'
import type { RequestKind } from '../requests.ts'
import { CredentialsMissing, type S3Refusal } from './s3-refusal.ts'

export interface FailedRequest {
  kind: RequestKind
  key: string
  url: string
  location: S3Location
  /** What must not be repeated, whoever said it. */
  secrets: readonly string[]
  /** Is the next try made with other credentials, or in another region? */
  isMended: boolean
}

/** What is told of a failure, and what to do about it. */
interface Told {
  what: string
  retry: RequestRetry
  hint?: string
  code?: RepositoryErrorCode
  detail?: string
}

/** Why a request failed, in a line, with the remedy. What was no failure of the request stays as it is. */
export function s3Failure(refusal: S3Refusal, failed: FailedRequest): unknown {
  const told = toldOf(refusal, failed)
  if (told === undefined) return refusal.thrown
  const { what, hint, code = 'UNREACHABLE' } = told
  return new RequestError(code, `${couldNot(failed.kind, failed.key, failed.url)}: ${what}`, {
    retry: failed.isMended ? 'again' : told.retry,
    retryAfterMs: refusal.retryAfterMs,
    detail: told.detail ?? answerOf(refusal, failed.secrets),
    ...(hint !== undefined && { hint }),
  })
}

/** What a request was for. */
export function couldNot(kind: RequestKind, key: string, url: string): string {
  const place = `repository "${url}"`
  switch (kind) {
    case 'inspect':
      return `could not use ${place}`
    case 'get':
      return `could not read "${key}" in ${place}`
    case 'list':
      return key === '' ? `could not list ${place}` : `could not list "${key}" in ${place}`
    case 'listUploads':
      return `could not list unfinished uploads in ${place}`
    case 'abandonUpload':
      return `could not remove an unfinished upload of "${key}" in ${place}`
    case 'put':
    case 'confirm':
    case 'beginUpload':
    case 'putPart':
    case 'endUpload':
      return `could not store "${key}" in ${place}`
    default:
      return kind satisfies never
  }
}

function toldOf(refusal: S3Refusal, failed: FailedRequest): Told | undefined {
  const { thrown, errno, status, code } = refusal
  if (thrown instanceof CredentialsMissing) return missingCredentials(thrown, failed)
  if (status === undefined) return errno === undefined ? undefined : ofNetwork(errno, thrown, failed)
  return (
    ofRegion(refusal) ?? (code === undefined ? ofStranger(status, failed) : ofStore(code, status, failed))
  )
}

function missingCredentials({ cause, wereThere }: CredentialsMissing, { location }: FailedRequest): Told {
  const { profile } = location
  const said = cause instanceof Error ? (/^[^\n]{0,300}/.exec(cause.message)?.[0] ?? '') : ''
  return {
    what:
      profile === undefined ? 'there are no credentials' : `there are no credentials in profile "${profile}"`,
    detail: sentence(said),
    hint:
      profile === undefined
        ? 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE, in the environment that the server is started with, or give this machine a role.'
        : 'Let AWS_SHARED_CREDENTIALS_FILE, in the environment that the server is started with, name a file that has them and that the server may read.',
    // A service that gives them to this machine may be away for a moment.
    retry: wereThere ? 'again' : 'never',
  }
}

function ofRegion({ region, status, code }: S3Refusal): Told | undefined {
  if (region === undefined && status !== 301 && !wrongRegion.has(code ?? '')) return undefined
  return {
    what: region === undefined ? 'the bucket is in another region' : `the bucket is in region "${region}"`,
    code: 'SETTINGS',
    hint:
      region === undefined
        ? 'Name its region in the URL: "?region=name".'
        : `Write "region=${region}" into the URL in "pgarchivist.repository".`,
    retry: 'never',
  }
}

const wrongRegion: ReadonlySet<string> = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
])

const correctKey =
  'Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the server, or its credentials file.'

function ofStore(code: string, status: number, failed: FailedRequest): Told {
  const { location } = failed
  switch (code) {
    case 'NoSuchBucket':
      return {
        what: `there is no bucket "${location.bucket}"`,
        hint: 'Make it, or correct "pgarchivist.repository": a bucket is never made for you.',
        retry: 'never',
      }
    case 'InvalidBucketName':
      return {
        what: `no bucket can be named "${location.bucket}"`,
        code: 'SETTINGS',
        hint: 'Correct "pgarchivist.repository".',
        retry: 'never',
      }
    case 'AccessDenied':
      return { what: 'access denied', hint: permissionHint(failed), retry: 'never' }
    case 'InvalidAccessKeyId':
    case 'InvalidClientTokenId':
      return {
        what: 'the store does not know the access key',
        hint: `${correctKey} Is the endpoint that of the store that gave it?`,
        retry: 'never',
      }
    case 'SignatureDoesNotMatch':
      return { what: 'the secret access key is wrong', hint: correctKey, retry: 'never' }
    case 'ExpiredToken':
    case 'TokenRefreshRequired':
      return {
        what: 'the credentials have expired',
        hint: 'Renew them where they come from. Those in a file are read again by themselves; those in the environment need a restart of the server.',
        retry: 'never',
      }
    case 'InvalidToken':
      return {
        what: 'the session token is wrong',
        hint: 'AWS_SESSION_TOKEN belongs to temporary credentials, and to no others.',
        retry: 'never',
      }
    case 'UserSuspended':
    case 'AccountProblem':
    case 'AllAccessDisabled':
      return {
        what: 'the user of the credentials is suspended',
        hint: 'Ask whoever runs the store.',
        retry: 'never',
      }
    case 'RequestTimeTooSkewed':
      return {
        what: 'the clocks of this machine and of the store differ too much',
        hint: 'Set the clock of this machine, best by NTP.',
        // The client has learned by how much.
        retry: 'again',
      }
    case 'QuotaExceeded':
    case 'XMinioStorageFull':
    case 'InsufficientStorage':
      return {
        what: 'there is no room left',
        hint: 'Raise the quota of the bucket or make room in the store; archiving goes on by itself then.',
        retry: 'never',
      }
    case 'InvalidObjectState':
      return {
        what: 'it was moved to a storage class that cannot be read at once',
        hint: 'Restore it in the store first, and exempt the bucket from rules that move objects to an archive class.',
        retry: 'never',
      }
    case 'InvalidStorageClass':
      return {
        what: `the store has no storage class "${location.storageClass ?? ''}"`,
        code: 'SETTINGS',
        hint: 'Correct "storage_class" in "pgarchivist.repository".',
        retry: 'never',
      }
    case 'NoSuchUpload':
      return {
        what: 'the store has lost its parts',
        hint: 'Is there a rule for the bucket that removes unfinished uploads within hours?',
        retry: 'never',
      }
    case 'NotImplemented':
      return ofMissingFeature(failed)
    default:
  }
  if (code.startsWith('KMS') || code.startsWith('Kms')) {
    return {
      what: 'the store could not encrypt or decrypt with the key of its key service',
      hint: 'Correct "kms_key_id", and allow these credentials to use the key.',
      retry: 'never',
    }
  }
  if (slowDown.has(code)) return tooBusy
  if (passing.has(code) || status >= 500)
    return { what: 'the store had a failure of its own', retry: 'again' }
  const isNewObject = failed.kind === 'put' || failed.kind === 'beginUpload'
  const options = isNewObject ? optionsOf(location) : []
  return {
    what: `the store refused it (${plainWord(code)})`,
    hint:
      options.length === 0
        ? 'Ask whoever runs the store; the detail is what it has said.'
        : `Can it do what ${options.map(name => `"${name}"`).join(', ')} in the URL asks for?`,
    retry: 'never',
  }
}

function optionsOf({ storageClass, encryption, kmsKeyId, tags }: S3Location): string[] {
  const all = { storage_class: storageClass, sse: encryption, kms_key_id: kmsKeyId, tags }
  return Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [name]))
}

const slowDown: ReadonlySet<string> = new Set([
  'SlowDown',
  'ServiceUnavailable',
  'RequestLimitExceeded',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
  'TooManyRequestsException',
  'BandwidthLimitExceeded',
])

const tooBusy: Told = {
  what: 'the store has too much to do',
  hint: 'It is tried again, more slowly.',
  retry: 'slow down',
}

/** Accidents: the same request may succeed. The digests do not match where bytes were changed on the way. */
const passing: ReadonlySet<string> = new Set([
  'InternalError',
  'RequestTimeout',
  'IncompleteBody',
  'BadDigest',
  'InvalidDigest',
  'XAmzContentSHA256Mismatch',
  'XAmzContentChecksumMismatch',
  'OperationAborted',
  'ConditionalRequestConflict',
  'ConcurrentModification',
])

function ofMissingFeature({ kind }: FailedRequest): Told {
  return {
    what:
      kind === 'put' || kind === 'endUpload'
        ? 'the store does not take conditional requests, or another option in the URL'
        : 'the store does not have what this needs',
    code: 'SETTINGS',
    hint: 'Without "If-None-Match: *" two servers could replace the files of each other: use a store that has it. Otherwise leave out "storage_class", "sse" and "tags".',
    retry: 'never',
  }
}

function permissionHint({ kind, location }: FailedRequest): string {
  const { bucket, prefix } = location
  const ofBucket = `on "arn:aws:s3:::${bucket}"`
  const ofObjects = `on "arn:aws:s3:::${bucket}/${prefix}*"`
  switch (kind) {
    case 'inspect':
    case 'list':
      return `Allow these credentials "s3:ListBucket" ${ofBucket}.`
    case 'get':
      return `Allow these credentials "s3:GetObject" ${ofObjects} and "s3:ListBucket" ${ofBucket}: without the latter, what is missing cannot be told from what is forbidden.`
    case 'listUploads':
      return `Allow these credentials "s3:ListBucketMultipartUploads" ${ofBucket}.`
    case 'abandonUpload':
      return `Allow these credentials "s3:AbortMultipartUpload" ${ofObjects}.`
    case 'put':
    case 'confirm':
    case 'beginUpload':
    case 'putPart':
    case 'endUpload':
      return `Allow these credentials "s3:PutObject" ${ofObjects}${location.tags === undefined ? '' : ', and "s3:PutObjectTagging"'}.`
    default:
      return kind satisfies never
  }
}

/** Stores have a word for each refusal. Proxies, load balancers and web sites do not. */
function ofStranger(status: number, failed: FailedRequest): Told {
  if (status === 503 || status === 429) return tooBusy
  if (status >= 500) return { what: `${endpointOf(failed)} answered ${status}`, retry: 'again' }
  return {
    what: `what answers at ${endpointOf(failed)} does not speak S3`,
    hint: 'Correct "endpoint" in "pgarchivist.repository", or the proxy on the way.',
    // The beginning of an answer was right, so that the rest may have been lost or changed on the way.
    retry: status < 300 ? 'again' : 'never',
  }
}

function ofNetwork(errno: string, thrown: unknown, failed: FailedRequest): Told {
  const endpoint = endpointOf(failed)
  const { message } = thrown as Error
  if (untrusted.has(errno)) {
    return {
      what: `the certificate of ${endpoint} is signed by nobody who is trusted here`,
      code: 'SETTINGS',
      // What follows is advice for programs.
      detail: sentence(message.replace(/;.*/s, '')),
      hint: 'Let "ca_file" in "pgarchivist.repository" name the file with the certificate of whoever signed it.',
      retry: 'never',
    }
  }
  switch (errno) {
    case 'ENOTFOUND':
      return {
        what: `there is no host by the name in ${endpoint}`,
        hint: 'Correct "endpoint" in "pgarchivist.repository", or the name service of this machine. Names of buckets are put before that of the host with "path_style=off".',
        retry: 'never',
      }
    case 'EAI_AGAIN':
      return {
        what: `the name in ${endpoint} could not be looked up`,
        hint: 'Check the network and the name service of this machine; it is tried again.',
        retry: 'again',
      }
    case 'ECONNREFUSED':
      return {
        what: `${endpoint} refused the connection`,
        hint: 'Is the store running, and are host and port in "endpoint" right? It is tried again.',
        retry: 'again',
      }
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return {
        what: `the certificate of ${endpoint} is for another host`,
        code: 'SETTINGS',
        detail: sentence(message),
        hint: 'Write the host in "endpoint" as the certificate names it.',
        retry: 'never',
      }
    case 'CERT_HAS_EXPIRED':
      return {
        what: `the certificate of ${endpoint} has expired`,
        hint: 'Renew it. If it has not expired, set the clock of this machine.',
        retry: 'never',
      }
    case 'CERT_NOT_YET_VALID':
      return {
        what: `the certificate of ${endpoint} is not valid yet`,
        hint: 'Set the clock of this machine.',
        retry: 'never',
      }
    case 'ERR_PROXY_TUNNEL':
      return {
        what: `the proxy did not let us through to ${endpoint}`,
        hint: 'Correct HTTPS_PROXY, or name the host in NO_PROXY.',
        retry: 'again',
      }
    default:
  }
  if (errno === 'EPROTO' && /wrong version number|packet length too long/.test(message)) {
    return {
      what: `${endpoint} does not speak TLS`,
      hint: 'Write "endpoint=http://…", or the port where it does.',
      retry: 'never',
    }
  }
  return {
    what: `the connection to ${endpoint} failed`,
    detail: `The reason is ${plainWord(errno)}.`,
    hint:
      failed.location.endpoint?.startsWith('http:') === true
        ? 'Check the network, and whether the store wants "endpoint=https://…" there; it is tried again.'
        : 'Check the network; it is tried again.',
    retry: 'again',
  }
}

const untrusted: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_UNTRUSTED',
  'CERT_SIGNATURE_FAILURE',
])

function endpointOf({ location }: FailedRequest): string {
  return location.endpoint === undefined ? "Amazon's store" : `"${location.endpoint}"`
}

/** What the store has said, for whoever asks those who run it. */
function answerOf(
  { status, code, message, requestId }: S3Refusal,
  secrets: readonly string[],
): string | undefined {
  if (status === undefined) return undefined
  const named = code === undefined ? '' : ` ${plainWord(code)}`
  const request = requestId === undefined ? '' : ` to request ${plainWord(requestId)}`
  const said = message === undefined || message === code ? '' : `: ${plainText(message, secrets)}`
  return sentence(`the store answered ${status}${named}${request}${said}`)
}

const messageLengthMax = 300

function plainText(text: string, secrets: readonly string[]): string {
  const hidden = secrets.reduce((shown, secret) => shown.replaceAll(secret, '…'), text)
  return hidden.replaceAll(/\s+/g, ' ').slice(0, messageLengthMax)
}

function plainWord(text: string): string {
  return text.replaceAll(/[^\w.:/+=-]/g, '').slice(0, 80)
}

function sentence(text: string): string {
  const trimmed = text.trim()
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`
}
