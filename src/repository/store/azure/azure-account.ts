import type { AzureLocation } from '../../azure-location.ts'
import { RepositoryError } from '../../repository-error.ts'

/** Where an account is, and how it is proved to it who asks. */
export interface AzureAccount {
  name: string
  /** Without a slash at its end. */
  endpoint: string
  /** Is the endpoint the one that Azure's public cloud has for the name? */
  isPublic: boolean
  proof: { kind: 'key'; key: string } | { kind: 'sas'; token: string } | { kind: 'token' }
}

const variables = 'AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN'

/**
 * From the URL and the environment. A connection string goes before a key, a key before a SAS token, and without any of
 * them the identity of the machine is used.
 */
export function azureAccount(
  location: Pick<AzureLocation, 'account' | 'endpoint'>,
  url: string,
  environment: NodeJS.ProcessEnv,
): AzureAccount {
  const told = connectionStringOf(environment, url)
  const named = told.get('accountname')
  if (location.account !== undefined && named !== undefined && location.account !== named) {
    throw refused(
      url,
      `AZURE_STORAGE_CONNECTION_STRING is for account "${named}", not for "${location.account}"`,
      'Correct "account" in "pgarchivist.repository", or the environment of the server.',
    )
  }
  const endpoint = location.endpoint ?? endpointOf(told)
  const name =
    location.account ?? named ?? valueOf(environment, 'AZURE_STORAGE_ACCOUNT') ?? accountIn(endpoint)
  if (name === undefined) {
    throw refused(
      url,
      'it names no storage account',
      'Add "?account=name" to the URL, or set AZURE_STORAGE_ACCOUNT in the environment of the server.',
    )
  }
  const suffix = told.get('endpointsuffix') ?? publicSuffix
  return {
    name,
    endpoint: (endpoint ?? `https://${name}.blob.${suffix}`).replace(/\/+$/, ''),
    isPublic: endpoint === undefined && suffix === publicSuffix,
    proof: proofOf(told, environment, url),
  }
}

const publicSuffix = 'core.windows.net'

function proofOf(
  told: ReadonlyMap<string, string>,
  environment: NodeJS.ProcessEnv,
  url: string,
): AzureAccount['proof'] {
  const variable = told.size > 0 ? 'AZURE_STORAGE_CONNECTION_STRING' : 'AZURE_STORAGE_KEY'
  const key = told.size > 0 ? told.get('accountkey') : valueOf(environment, 'AZURE_STORAGE_KEY')
  if (key !== undefined) {
    // Keys have 64 bytes; what was cut off by a shell would be refused later without this reason.
    if (!/^[A-Za-z0-9+/]{4,}={0,2}$/.test(key) || key.length % 4 !== 0) {
      throw refused(
        url,
        `${variable} holds no account key`,
        'It is base64, ends with "==", and is found under "Access keys" of the storage account.',
      )
    }
    return { kind: 'key', key }
  }
  const token =
    told.size > 0 ? told.get('sharedaccesssignature') : valueOf(environment, 'AZURE_STORAGE_SAS_TOKEN')
  if (token !== undefined) {
    const withoutMark = token.replace(/^\?/, '')
    if (!/(^|&)sig=/.test(withoutMark) || /[\s#]/.test(withoutMark)) {
      throw refused(
        url,
        'AZURE_STORAGE_SAS_TOKEN is no SAS token',
        'It is the part of a SAS URL behind the question mark, and has "sig=" in it.',
      )
    }
    return { kind: 'sas', token: withoutMark }
  }
  if (told.size > 0) {
    throw refused(
      url,
      'AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature',
      `Copy it as a whole from "Access keys" of the storage account, or set another one of ${variables}.`,
    )
  }
  return { kind: 'token' }
}

/** Names in lower case; a value may hold "=". */
function connectionStringOf(environment: NodeJS.ProcessEnv, url: string): ReadonlyMap<string, string> {
  const text = valueOf(environment, 'AZURE_STORAGE_CONNECTION_STRING')
  const parts = (text ?? '').split(';').filter(part => part.trim() !== '')
  const told = new Map<string, string>()
  for (const part of parts) {
    const equals = part.indexOf('=')
    if (equals < 1) {
      throw refused(
        url,
        'AZURE_STORAGE_CONNECTION_STRING is no connection string',
        'It has the form "AccountName=…;AccountKey=…;EndpointSuffix=…".',
      )
    }
    told.set(part.slice(0, equals).trim().toLowerCase(), part.slice(equals + 1).trim())
  }
  return told
}

function endpointOf(told: ReadonlyMap<string, string>): string | undefined {
  const endpoint = told.get('blobendpoint')
  return endpoint === undefined || endpoint === '' ? undefined : endpoint
}

/** As in "https://name.blob.core.chinacloudapi.cn". */
function accountIn(endpoint: string | undefined): string | undefined {
  return /^https?:\/\/([a-z0-9]{3,24})\.blob\./i.exec(endpoint ?? '')?.[1]
}

function valueOf(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = environment[name]?.trim()
  return value === '' ? undefined : value
}

function refused(url: string, what: string, hint: string): RepositoryError {
  return new RepositoryError('SETTINGS', `could not use repository "${url}": ${what}`, { hint })
}
