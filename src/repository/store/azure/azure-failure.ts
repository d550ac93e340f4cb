import type { AzureLocation } from '../../azure-location.ts'
import type { RepositoryErrorCode } from '../../repository-error.ts'
import { RequestError, type RequestRetry } from '../request-error.ts'
import type { RequestKind } from '../requests.ts'
import type { AzureAccount } from './azure-account.ts'
import { IdentityFailure } from './azure-identity.ts'
import type { AzureRefusal } from './azure-refusal.ts'

export interface FailedRequest {
  kind: RequestKind
  key: string
  url: string
  location: AzureLocation
  account: AzureAccount
  /** What must not be repeated, whoever said it. */
  secrets: readonly string[]
  nowMs: number
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
export function azureFailure(refusal: AzureRefusal, failed: FailedRequest): unknown {
  const told = toldOf(refusal, failed)
  if (told === undefined) return refusal.thrown
  const { what, hint, code = 'UNREACHABLE' } = told
  return new RequestError(code, `${couldNot(failed.kind, failed.key, failed.url)}: ${what}`, {
    retry: told.retry,
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
    case 'put':
    case 'confirm':
    case 'beginUpload':
    case 'putPart':
    case 'endUpload':
    case 'abandonUpload':
      return `could not store "${key}" in ${place}`
    default:
      return kind satisfies never
  }
}

function toldOf(refusal: AzureRefusal, failed: FailedRequest): Told | undefined {
  const { thrown, errno, status, code } = refusal
  if (thrown instanceof IdentityFailure) {
    return {
      what: thrown.message,
      hint: thrown.hint,
      retry: thrown.isPassing ? 'again' : 'never',
      detail: 'Neither a key nor a SAS token is set, so that a token of Entra ID was asked for.',
    }
  }
  if (status === undefined) return errno === undefined ? undefined : ofNetwork(errno, thrown, failed)
  return code === undefined ? ofStranger(status, failed) : ofStore(code, status, refusal, failed)
}

function ofStore(code: string, status: number, refusal: AzureRefusal, failed: FailedRequest): Told {
  const { location, account } = failed
  switch (code) {
    case 'ContainerNotFound':
      return {
        what: `there is no container "${location.container}" in account "${account.name}"`,
        hint: 'Make it, or correct "pgarchivist.repository": a container is never made for you.',
        retry: 'never',
      }
    case 'ContainerBeingDeleted':
    case 'ContainerDisabled':
      return {
        what: `container "${location.container}" is being deleted`,
        hint: 'Restore it, or make a new one when it is gone; archiving goes on by itself then.',
        retry: 'never',
      }
    case 'AccountIsDisabled':
      return {
        what: `account "${account.name}" is disabled`,
        hint: 'Ask whoever pays for it.',
        retry: 'never',
      }
    case 'AccountBeingCreated':
      return { what: `account "${account.name}" is still being made`, retry: 'again' }
    case 'AuthenticationFailed':
    case 'NoAuthenticationInformation':
    case 'InvalidAuthenticationInfo':
      return ofAuthentication(refusal, failed)
    case 'AuthorizationFailure':
      return ofAuthorization(refusal, failed)
    case 'AuthorizationPermissionMismatch':
    case 'AuthorizationResourceTypeMismatch':
    case 'AuthorizationServiceMismatch':
    case 'InsufficientAccountPermissions':
    case 'UnauthorizedBlobOverwrite':
      return { what: 'access denied', hint: permissionHint(failed), retry: 'never' }
    case 'AuthorizationSourceIPMismatch':
      return {
        what: 'the SAS token is for another address than that of this machine',
        hint: 'Make one that this machine may use.',
        retry: 'never',
      }
    case 'AuthorizationProtocolMismatch':
      return {
        what: 'the SAS token is for HTTPS only',
        hint: 'Write "endpoint=https://…" in "pgarchivist.repository".',
        retry: 'never',
      }
    case 'KeyBasedAuthenticationNotPermitted':
      return {
        what: `account "${account.name}" does not take keys`,
        hint: 'Use a managed identity, or allow "storage account key access" in its configuration.',
        retry: 'never',
      }
    case 'AccountRequiresHttps':
      return {
        what: `account "${account.name}" wants HTTPS`,
        hint: 'Write "endpoint=https://…" in "pgarchivist.repository".',
        retry: 'never',
      }
    case 'BlobArchived':
    case 'BlobBeingRehydrated':
      return {
        what: 'it is in the archive tier, which cannot be read at once',
        hint: 'Set its access tier to hot, cool or cold, which takes hours, and exempt the container from rules that move blobs to the archive tier.',
        retry: 'never',
      }
    case 'BlobImmutableDueToPolicy':
      return {
        what: 'an immutability policy or a legal hold protects it',
        hint: 'Leave the policy, and find out why this object had to be written again: "pgarchivist verify" tells whether it is whole.',
        retry: 'never',
      }
    case 'LeaseIdMissing':
    case 'LeaseAlreadyPresent':
      return {
        what: 'somebody holds a lease on it',
        hint: 'Break the lease, and find out whose it is: nobody but pgarchivist should work on its blobs.',
        retry: 'never',
      }
    case 'InvalidBlobType':
      return {
        what: 'there is a blob of another type',
        hint: 'Somebody else has made it: give pgarchivist a prefix of its own.',
        retry: 'never',
      }
    case 'InvalidBlobOrBlock':
    case 'InvalidBlockId':
      return {
        what: 'another program has left blocks there',
        hint: 'Give pgarchivist a prefix of its own; what waits there is gone in a week.',
        retry: 'never',
      }
    case 'InvalidBlockList':
      return {
        what: 'the store has lost its parts',
        hint: 'The file is archived again from its beginning.',
        retry: 'never',
      }
    case 'FeatureVersionMismatch':
    case 'UnsupportedHeader':
    case 'InvalidHeaderValue':
      return {
        what: `the store does not take it (${plainWord(code)})`,
        code: 'SETTINGS',
        hint:
          location.tier === undefined
            ? 'Is the store at "endpoint" one that knows the newest version of Azure Blob Storage?'
            : 'Can the account do what "access_tier" in the URL asks for?',
        retry: 'never',
      }
    default:
  }
  if (slowDown.has(code) || status === 429 || status === 503) return tooBusy
  if (passing.has(code) || status >= 500)
    return { what: 'the store had a failure of its own', retry: 'again' }
  return {
    what: `the store refused it (${plainWord(code)})`,
    hint: 'Ask whoever runs the store; the detail is what it has said.',
    retry: 'never',
  }
}

const slowDown: ReadonlySet<string> = new Set(['ServerBusy', 'TooManyRequests', 'EgressIsOverAccountLimit'])

const tooBusy: Told = {
  what: 'the store has too much to do',
  hint: 'It is tried again, more slowly.',
  retry: 'slow down',
}

/** Accidents: the same request may succeed. The digests do not match where bytes were changed on the way. */
const passing: ReadonlySet<string> = new Set([
  'InternalError',
  'OperationTimedOut',
  'RequestTimeout',
  'Md5Mismatch',
  'InvalidMd5',
  'Crc64Mismatch',
  'IncompleteBody',
])

function ofAuthentication({ message }: AzureRefusal, { account, nowMs }: FailedRequest): Told {
  const isOld = /date header too old|time frame|not valid in the specified time/i.test(message ?? '')
  switch (account.proof.kind) {
    case 'key':
      if (isOld) return skewed
      return {
        what: `the key of account "${account.name}" is wrong`,
        hint: 'Correct AZURE_STORAGE_KEY or AZURE_STORAGE_CONNECTION_STRING in the environment of the server, and start it again: was the key rotated?',
        retry: 'never',
      }
    case 'sas': {
      const { token } = account.proof
      const [starts, ends] = [timeIn(token, 'st'), timeIn(token, 'se')]
      const renew =
        'Make a new one, set AZURE_STORAGE_SAS_TOKEN in the environment of the server, and start it again.'
      if (ends !== undefined && ends.ms <= nowMs) {
        return { what: `the SAS token has expired at ${ends.text}`, hint: renew, retry: 'never' }
      }
      if (starts !== undefined && starts.ms > nowMs) {
        return {
          what: `the SAS token is not valid before ${starts.text}`,
          hint: 'Wait until then, or set the clock of this machine.',
          retry: 'again',
        }
      }
      if (isOld) return skewed
      return {
        what: `account "${account.name}" does not accept the SAS token`,
        hint: `Was it cut off, or the key that has signed it rotated? ${renew}`,
        retry: 'never',
      }
    }
    case 'token':
      return {
        what: `account "${account.name}" does not accept the token of this machine's identity`,
        hint: 'Is the account in another tenant than AZURE_TENANT_ID, or the clock of this machine wrong?',
        retry: 'again',
      }
    default:
      return account.proof satisfies never
  }
}

/** Said of a machine that the firewall keeps out, by some also of a key or a token that is wrong. */
function ofAuthorization(refusal: AzureRefusal, failed: FailedRequest): Told {
  const { proof, name } = failed.account
  if (proof.kind === 'sas') {
    const ends = timeIn(proof.token, 'se')
    if (ends !== undefined && ends.ms <= failed.nowMs) return ofAuthentication(refusal, failed)
  }
  const firewall = `Is this machine allowed in the firewall of account "${name}", under "Networking"?`
  return {
    what: 'access denied',
    hint:
      proof.kind === 'key'
        ? `${firewall} Are AZURE_STORAGE_KEY or AZURE_STORAGE_CONNECTION_STRING right?`
        : `${firewall} ${permissionHint(failed)}`,
    retry: 'never',
  }
}

const skewed: Told = {
  what: 'the clocks of this machine and of the store differ too much',
  hint: 'Set the clock of this machine, best by NTP.',
  retry: 'again',
}

function timeIn(token: string, name: string): { ms: number; text: string } | undefined {
  const text = new URLSearchParams(token).get(name) ?? ''
  const ms = Date.parse(text)
  return Number.isNaN(ms) || !/^[\d:.TZ+-]{1,40}$/.test(text) ? undefined : { ms, text }
}

function permissionHint({ kind, account, location }: FailedRequest): string {
  if (account.proof.kind === 'token') {
    return `Give this machine's identity the role "Storage Blob Data Contributor" on container "${location.container}".`
  }
  switch (kind) {
    case 'inspect':
    case 'list':
    case 'listUploads':
      return 'Make a SAS token for the container with the permission to list (l).'
    case 'get':
    case 'confirm':
      return 'Make a SAS token for the container with the permissions to read (r) and to list (l).'
    case 'put':
    case 'beginUpload':
    case 'putPart':
    case 'endUpload':
    case 'abandonUpload':
      return 'Make a SAS token for the container with the permissions to create (c) and to write (w).'
    default:
      return kind satisfies never
  }
}

/** Stores have a word for each refusal. Proxies, load balancers and web sites do not. */
function ofStranger(status: number, failed: FailedRequest): Told {
  if (status === 503 || status === 429) return tooBusy
  if (status >= 500) return { what: `${endpointOf(failed)} answered ${status}`, retry: 'again' }
  return {
    what: `what answers at ${endpointOf(failed)} is no Azure Blob Storage`,
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
        what: failed.account.isPublic
          ? `there is no storage account "${failed.account.name}"`
          : `there is no host by the name in ${endpoint}`,
        hint: failed.account.isPublic
          ? 'Correct "account" in "pgarchivist.repository", or the name service of this machine. Accounts outside of the public cloud need "endpoint".'
          : 'Correct "endpoint" in "pgarchivist.repository", or the name service of this machine.',
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
    hint: /^http:/i.test(failed.account.endpoint)
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

function endpointOf({ account }: FailedRequest): string {
  return `"${account.endpoint}"`
}

/** What the store has said, for whoever asks those who run it. Only its first line: others repeat the request. */
function answerOf(
  { status, code, message, requestId }: AzureRefusal,
  secrets: readonly string[],
): string | undefined {
  if (status === undefined) return undefined
  const named = code === undefined ? '' : ` ${plainWord(code)}`
  const request = requestId === undefined ? '' : ` to request ${plainWord(requestId)}`
  const said = /^[^\n]{1,300}/.exec(message ?? '')?.[0]
  return sentence(
    `the store answered ${status}${named}${request}${said === undefined || status === 403 ? '' : `: ${plainText(said, secrets)}`}`,
  )
}

function plainText(text: string, secrets: readonly string[]): string {
  return secrets.reduce((shown, secret) => shown.replaceAll(secret, '…'), text).replaceAll(/\s+/g, ' ')
}

function plainWord(text: string): string {
  return text.replaceAll(/[^\w.:/+=-]/g, '').slice(0, 80)
}

function sentence(text: string): string {
  const trimmed = text.trim()
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`
}
