import { type AzureLocation, parseAzureLocation } from './azure-location.ts'
import { decodeUrlPart, refuseUrl, withoutSecrets } from './refuse-url.ts'
import { RepositoryError } from './repository-error.ts'
import { parseS3Location, type S3Location } from './s3-location.ts'
import { parseSftpLocation, type SftpLocation } from './sftp-location.ts'

/** A place where a repository can be. */
export type RepositoryUrl = { scheme: 'file'; directory: string } | S3Location | AzureLocation | SftpLocation

/** The setting `pgarchivist.repository`: URLs between commas; commas inside are percent-encoded. */
export function parseRepositoryUrls(text: string): RepositoryUrl[] {
  const urls = text
    .split(',')
    .map(each => each.trim())
    .filter(each => each !== '')
    .map(parseRepositoryUrl)
  const places = new Set<string>()
  for (const url of urls) {
    const place = placeOf(url)
    if (places.has(place)) {
      throw new RepositoryError('SETTINGS', `"pgarchivist.repository" names ${place} twice`, {
        hint: 'Name each repository once: a file that is twice in one place is there once.',
      })
    }
    places.add(place)
  }
  return urls
}

/** What tells one place from another, whatever else is said about how to get there. */
function placeOf(url: RepositoryUrl): string {
  switch (url.scheme) {
    case 'file':
      return `directory "${url.directory}"`
    case 's3': {
      const at = url.endpoint === undefined ? '' : ` at "${url.endpoint}"`
      return `"${url.bucket}/${url.prefix}"${at}`
    }
    case 'azure': {
      const at = url.endpoint ?? url.account
      return `"${url.container}/${url.prefix}"${at === undefined ? '' : ` at "${at}"`}`
    }
    case 'sftp':
      return `"${url.directory}" at "${url.host}:${url.port}"`
    default:
      return url satisfies never
  }
}

const known =
  'This version knows "file:///directory", "s3://bucket/prefix", "azure://container/prefix" and "sftp://user@host/directory".'

/** `file:///absolute/path`, or a place across the network. */
export function parseRepositoryUrl(text: string): RepositoryUrl {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1]?.toLowerCase()
  if (scheme === undefined) {
    const hint = text.startsWith('/')
      ? `Write "file://${withoutSecrets(text)}".`
      : 'Write "file://" and an absolute path, as "file:///srv/wal".'
    return refuseUrl(text, 'is not a URL', hint)
  }
  switch (scheme) {
    case 'file':
      return parseDirectory(text)
    case 's3':
      return parseS3Location(text)
    case 'azure':
      return parseAzureLocation(text)
    case 'sftp':
      return parseSftpLocation(text)
    default:
      return refuseUrl(text, `has an unknown scheme "${scheme}"`, known)
  }
}

function parseDirectory(text: string): RepositoryUrl {
  const match = /^file:\/\/([^/?#]*)(\/[^?#]*)([?#].*)?$/i.exec(text)
  if (match === null) {
    return refuseUrl(text, 'is not an absolute path', 'Write three slashes, as in "file:///srv/wal".')
  }
  const [, host = '', path = '', rest] = match
  // A password may hold a slash.
  if (/[:=;]/.test(host) || (host !== '' && text.includes('@')))
    return refuseUrl(text, 'holds credentials', 'A directory needs none.')
  if (host !== '' && host !== 'localhost') {
    return refuseUrl(
      text,
      `names the host "${host}"`,
      `A directory is on this machine: write "file:///${host}${path}" if that is the path.`,
    )
  }
  if (rest !== undefined)
    return refuseUrl(
      text,
      'has a part that a directory does not take',
      'Percent-encode "?" as %3F and "#" as %23.',
    )
  return { scheme: 'file', directory: withoutTrailingSlash(decodePath(text, path)) }
}

function decodePath(text: string, path: string): string {
  const decoded = decodeUrlPart(text, path)
  if (decoded.includes('\0')) return refuseUrl(text, 'holds a zero byte', 'No path can.')
  if (decoded.split('/').some(part => part === '..' || part === '.')) {
    return refuseUrl(text, 'holds "." or ".."', 'Write the path without them.')
  }
  return decoded
}

function withoutTrailingSlash(path: string): string {
  const trimmed = path.replaceAll(/\/{2,}/g, '/').replace(/\/$/, '')
  return trimmed === '' ? '/' : trimmed
}
