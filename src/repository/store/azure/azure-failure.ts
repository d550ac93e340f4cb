import type { AzureLocation } from '../../azure-location.ts'
import {
  type HttpEndpoint,
  type HttpRequest,
  ofNetwork,
  ofStranger,
  ownFailure,
  plainWord,
  requestError,
  skewed,
  type Told,
  tooBusy,
  unexpectedAnswer,
} from '../http-failure.ts'
import type { AzureAccount } from './azure-account.ts'
import { IdentityFailure } from './azure-identity.ts'
import type { AzureRefusal } from './azure-refusal.ts'

export interface FailedRequest extends HttpRequest {
  location: AzureLocation
  account: AzureAccount
  nowMs: number
}

/** Why a request failed, in a line, with the remedy. What was no failure of the request stays as it is. */
export function azureFailure(refusal: AzureRefusal, failed: FailedRequest): unknown {
  const told = toldOf(refusal, failed)
  if (told === undefined) {
    const { thrown, message = '' } = refusal
    return madeNoSense.test(message) ? unexpectedAnswer(failed, message) : thrown
  }
  // Only the first line of what it has said: others repeat the request.
  const said = refusal.status === 403 ? undefined : /^[^\n]+/.exec(refusal.message ?? '')?.[0]
  return requestError(told, failed, { ...refusal, said })
}

/** How the client begins to say that an answer was not as it has to be. */
const madeNoSense = /^(Data corruption failure|File download response|Unexpected structured)/

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
  const endpoint = endpointOf(failed)
  if (status === undefined) {
    return errno === undefined ? undefined : ofNetwork(errno, (thrown as Error).message, endpoint)
  }
  return code === undefined ? ofStranger(status, endpoint) : ofStore(code, status, refusal, failed)
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
  if (passing.has(code) || status >= 500) return ownFailure
  return {
    what: `the store refused it (${plainWord(code)})`,
    hint: 'Ask whoever runs the store; the detail is what it has said.',
    retry: 'never',
  }
}

const slowDown: ReadonlySet<string> = new Set(['ServerBusy', 'TooManyRequests', 'EgressIsOverAccountLimit'])

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

function endpointOf({ account }: FailedRequest): HttpEndpoint {
  const name = `"${account.endpoint}"`
  return {
    name,
    hasTls: !/^http:/i.test(account.endpoint),
    stranger: 'is no Azure Blob Storage',
    unknownHost: account.isPublic
      ? {
          what: `there is no storage account "${account.name}"`,
          hint: 'Correct "account" in "pgarchivist.repository", or the name service of this machine. Accounts outside of the public cloud need "endpoint".',
        }
      : {
          what: `there is no host by the name in ${name}`,
          hint: 'Correct "endpoint" in "pgarchivist.repository", or the name service of this machine.',
        },
  }
}
