import type { S3Location } from '../../s3-location.ts'
import {
  type HttpEndpoint,
  type HttpRequest,
  ofNetwork,
  ofStranger,
  ownFailure,
  plainWord,
  requestError,
  sentence,
  skewed,
  type Told,
  tooBusy,
} from '../http-failure.ts'
import { CredentialsMissing, type S3Refusal, wrongRegion } from './s3-refusal.ts'

export interface FailedRequest extends HttpRequest {
  location: S3Location
  /** Is the next try made with other credentials, or in another region? */
  isMended: boolean
}

/** Why a request failed, in a line, with the remedy. What was no failure of the request stays as it is. */
export function s3Failure(refusal: S3Refusal, failed: FailedRequest): unknown {
  const told = toldOf(refusal, failed)
  if (told === undefined) return refusal.thrown
  const { code, message } = refusal
  const answer = { ...refusal, said: message === code ? undefined : message }
  return requestError({ ...told, ...(failed.isMended && { retry: 'again' }) }, failed, answer)
}

function toldOf(refusal: S3Refusal, failed: FailedRequest): Told | undefined {
  const { thrown, errno, status, code } = refusal
  if (thrown instanceof CredentialsMissing) return missingCredentials(thrown, failed)
  const endpoint = endpointOf(failed)
  if (status === undefined) {
    return errno === undefined ? undefined : ofNetwork(errno, (thrown as Error).message, endpoint)
  }
  return (
    ofRegion(refusal) ?? (code === undefined ? ofStranger(status, endpoint) : ofStore(code, status, failed))
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
      return skewed
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
  if (passing.has(code) || status >= 500) return ownFailure
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

function endpointOf({ location }: FailedRequest): HttpEndpoint {
  const { endpoint } = location
  const name = endpoint === undefined ? "Amazon's store" : `"${endpoint}"`
  return {
    name,
    hasTls: endpoint?.startsWith('http:') !== true,
    stranger: 'does not speak S3',
    unknownHost: {
      what: `there is no host by the name in ${name}`,
      hint: 'Correct "endpoint" in "pgarchivist.repository", or the name service of this machine. Names of buckets are put before that of the host with "path_style=off".',
    },
  }
}
