import { named, refuseUrl } from './refuse-url.ts'
import { splitRemoteUrl } from './remote-url.ts'

/** A place in a bucket of a store that speaks S3. */
export interface S3Location {
  scheme: 's3'
  bucket: string
  /** In front of all keys; empty, or ends with a slash. */
  prefix: string
  /** Where the store is, where it is not Amazon's. */
  endpoint: string | undefined
  region: string | undefined
  /** Is the bucket named in the path, not in the host? */
  isPathStyle: boolean | undefined
  /** A file with the certificates of whoever signed that of the store. */
  caFile: string | undefined
  /** Of the credential files. */
  profile: string | undefined
  storageClass: string | undefined
  encryption: 'AES256' | 'aws:kms' | undefined
  kmsKeyId: string | undefined
  /** As in a query: `name=value&name=value`. */
  tags: string | undefined
}

const rules = {
  example: 's3://bucket/prefix?endpoint=https://host&region=name',
  hostIs: 'bucket',
  parameters: [
    'endpoint',
    'region',
    'path_style',
    'ca_file',
    'profile',
    'storage_class',
    'sse',
    'kms_key_id',
    'tags',
  ],
  credentialsHint:
    'Every role may see this setting: put credentials into the environment of the server, or into a file that "profile" names a part of.',
}

/** `s3://bucket/prefix?endpoint=…&region=…`. */
export function parseS3Location(text: string): S3Location {
  const { host: bucket, path, parameters } = splitRemoteUrl(text, rules)
  if (!/^[a-z0-9][a-z0-9._-]{1,253}[a-z0-9]$/i.test(bucket)) {
    return refuseUrl(
      text,
      `names ${named('a bucket', bucket)} that cannot be`,
      `Write it as "${rules.example}".`,
    )
  }
  const endpoint = parameters.get('endpoint')
  if (endpoint !== undefined && !/^https?:\/\/(\[[^\]/]+\]|[^/?#@:]+)(:\d{1,5})?\/?$/i.test(endpoint)) {
    return refuseUrl(
      text,
      'has an endpoint that is no URL',
      'Write "endpoint=https://host" or "endpoint=https://host:port".',
    )
  }
  const sse = parameters.get('sse')
  if (sse !== undefined && sse !== 'AES256' && sse !== 'aws:kms') {
    return refuseUrl(text, 'has an unknown "sse"', 'Write "sse=AES256" or "sse=aws:kms".')
  }
  const caFile = parameters.get('ca_file')
  if (caFile !== undefined && !caFile.startsWith('/')) {
    return refuseUrl(text, 'has a "ca_file" that is not an absolute path', 'Write "ca_file=/path/to/file".')
  }
  const kmsKeyId = parameters.get('kms_key_id')
  if (kmsKeyId !== undefined && sse !== 'aws:kms') {
    return refuseUrl(text, 'has "kms_key_id" without "sse=aws:kms"', 'Add "sse=aws:kms".')
  }
  return {
    scheme: 's3',
    bucket,
    prefix: path === '' ? '' : `${path}/`,
    endpoint: endpoint?.replace(/\/$/, ''),
    region: parameters.get('region'),
    isPathStyle: booleanOf(text, 'path_style', parameters.get('path_style')),
    caFile,
    profile: parameters.get('profile'),
    storageClass: parameters.get('storage_class'),
    encryption: sse,
    kmsKeyId,
    tags: parameters.get('tags'),
  }
}

/** For messages, and the same for the same place: what else is known of it is left out. */
export function s3Url({ bucket, prefix, endpoint }: S3Location): string {
  const path = [bucket, ...prefix.split('/').filter(part => part !== '')].map(encodeURIComponent).join('/')
  return `s3://${path}${endpoint === undefined ? '' : `?endpoint=${endpoint}`}`
}

function booleanOf(text: string, name: string, value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined
  if (/^(on|true|yes|1)$/i.test(value)) return true
  if (/^(off|false|no|0)$/i.test(value)) return false
  return refuseUrl(text, `has "${name}" that is neither on nor off`, `Write "${name}=on" or "${name}=off".`)
}
