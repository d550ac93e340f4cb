import { RepositoryError } from './repository-error.ts'

/** A place where a repository can be. */
export type RepositoryUrl = { scheme: 'file'; directory: string }

/** The setting `pgarchivist.repository`: URLs between commas; commas inside are percent-encoded. */
export function parseRepositoryUrls(text: string): RepositoryUrl[] {
  const urls = text
    .split(',')
    .map(each => each.trim())
    .filter(each => each !== '')
  if (urls.length > 1) {
    throw new RepositoryError('SETTINGS', '"pgarchivist.repository" names several repositories', {
      hint: 'This version archives to one repository: name only one URL.',
    })
  }
  return urls.map(parseRepositoryUrl)
}

/** `file:///absolute/path`. */
export function parseRepositoryUrl(text: string): RepositoryUrl {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1]?.toLowerCase()
  if (scheme === undefined) {
    const hint = text.startsWith('/')
      ? `Write "file://${withoutSecrets(text)}".`
      : 'Write "file://" and an absolute path, as "file:///srv/wal".'
    return refuse(text, 'is not a URL', hint)
  }
  if (scheme !== 'file')
    return refuse(text, `has an unknown scheme "${scheme}"`, 'This version knows "file:///directory".')
  const match = /^file:\/\/([^/?#]*)(\/[^?#]*)([?#].*)?$/i.exec(text)
  if (match === null) {
    return refuse(text, 'is not an absolute path', 'Write three slashes, as in "file:///srv/wal".')
  }
  const [, host = '', path = '', rest] = match
  // A password may hold a slash.
  if (host !== '' && text.includes('@')) return refuse(text, 'holds credentials', 'A directory needs none.')
  if (host !== '' && host !== 'localhost') {
    return refuse(
      text,
      `names the host "${host}"`,
      `A directory is on this machine: write "file:///${host}${path}" if that is the path.`,
    )
  }
  if (rest !== undefined)
    return refuse(
      text,
      'has a part that a directory does not take',
      'Percent-encode "?" as %3F and "#" as %23.',
    )
  return { scheme: 'file', directory: withoutTrailingSlash(decode(text, path)) }
}

function decode(text: string, path: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(path)
  } catch {
    return refuse(text, 'has a broken percent-encoding', 'Write a percent sign as %25.')
  }
  if (decoded.includes('\0')) return refuse(text, 'holds a zero byte', 'No path can.')
  if (decoded.split('/').some(part => part === '..' || part === '.')) {
    return refuse(text, 'holds "." or ".."', 'Write the path without them.')
  }
  return decoded
}

function withoutTrailingSlash(path: string): string {
  const trimmed = path.replaceAll(/\/{2,}/g, '/').replace(/\/$/, '')
  return trimmed === '' ? '/' : trimmed
}

/** Whatever is where credentials could be is not repeated in a message. */
function withoutSecrets(text: string): string {
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(text)?.[0] ?? ''
  const [place = '', ...rest] = text.slice(scheme.length).split(/[?#]/)
  // A password may hold anything, also what ends a path elsewhere.
  if (rest.some(part => part.includes('@'))) return `${scheme}…`
  const at = place.lastIndexOf('@')
  return `${scheme}${at < 0 ? place : `…${place.slice(at)}`}${rest.length > 0 ? '?…' : ''}`
}

function refuse(text: string, what: string, hint: string): never {
  throw new RepositoryError('SETTINGS', `repository "${withoutSecrets(text)}" ${what}`, { hint })
}
