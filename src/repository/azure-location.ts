import { named, refuseUrl } from './refuse-url.ts'
import { splitRemoteUrl } from './remote-url.ts'

/** A place in a container of Azure Blob Storage. */
export interface AzureLocation {
  scheme: 'azure'
  container: string
  /** In front of all keys; empty, or ends with a slash. */
  prefix: string
  /** The storage account, where the environment does not name it. */
  account: string | undefined
  /** Of the account's blobs, where it is not in Azure's public cloud. */
  endpoint: string | undefined
  /** A file with the certificates of whoever signed that of the store. */
  caFile: string | undefined
  tier: AzureTier | undefined
}

export type AzureTier = 'Hot' | 'Cool' | 'Cold'

const tiers: ReadonlyMap<string, AzureTier> = new Map([
  ['hot', 'Hot'],
  ['cool', 'Cool'],
  ['cold', 'Cold'],
])

const rules = {
  example: 'azure://container/prefix?account=name',
  hostIs: 'container',
  parameters: ['account', 'endpoint', 'ca_file', 'access_tier'],
  credentialsHint:
    'Every role may see this setting: put credentials into the environment of the server, as AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.',
}

/** `azure://container/prefix?account=…&endpoint=…`. */
export function parseAzureLocation(text: string): AzureLocation {
  const { host: container, path, parameters } = splitRemoteUrl(text, rules)
  if (!/^(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/.test(container)) {
    return refuseUrl(
      text,
      `names ${named('a container', container)} that cannot be`,
      'Names of containers have 3 to 63 lower-case letters, digits and single "-".',
    )
  }
  const account = parameters.get('account')
  if (account !== undefined && !/^[a-z0-9]{3,24}$/.test(account)) {
    return refuseUrl(
      text,
      `names ${named('an account', account)} that cannot be`,
      'Names of storage accounts have 3 to 24 lower-case letters and digits.',
    )
  }
  const endpoint = parameters.get('endpoint')
  if (
    endpoint !== undefined &&
    !/^https?:\/\/(\[[^\]/]+\]|[^/?#@:]+)(:\d{1,5})?(\/[^?#@]*)?$/i.test(endpoint)
  ) {
    return refuseUrl(
      text,
      'has an endpoint that is no URL',
      'Write "endpoint=https://host", as the account names it for its blobs.',
    )
  }
  const caFile = parameters.get('ca_file')
  if (caFile !== undefined && !caFile.startsWith('/')) {
    return refuseUrl(text, 'has a "ca_file" that is not an absolute path', 'Write "ca_file=/path/to/file".')
  }
  const accessTier = parameters.get('access_tier')
  const tier = accessTier === undefined ? undefined : tiers.get(accessTier.toLowerCase())
  if (accessTier !== undefined && tier === undefined) {
    return refuseUrl(
      text,
      'has an "access_tier" that cannot be used',
      'Write "hot", "cool" or "cold": what is in the archive tier cannot be read at once.',
    )
  }
  return {
    scheme: 'azure',
    container,
    prefix: path === '' ? '' : `${path}/`,
    account,
    endpoint: endpoint?.replace(/\/+$/, ''),
    caFile,
    tier,
  }
}

/** For messages, and the same for the same place: what else is known of it is left out. */
export function azureUrl({ container, prefix, account, endpoint }: AzureLocation): string {
  const path = [container, ...prefix.split('/').filter(part => part !== '')].map(encodeURIComponent).join('/')
  const query = [
    ...(account === undefined ? [] : [`account=${account}`]),
    ...(endpoint === undefined ? [] : [`endpoint=${endpoint}`]),
  ]
  return `azure://${path}${query.length === 0 ? '' : `?${query.join('&')}`}`
}
