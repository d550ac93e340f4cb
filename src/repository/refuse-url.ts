import { RepositoryError } from './repository-error.ts'

/**
 * A URL as it may stand in a message: whatever is where credentials could be is not repeated. What was pasted may be
 * something else altogether, such as a connection string of Azure.
 */
export function withoutSecrets(text: string): string {
  const scheme = /^(?:[a-z][a-z0-9+.-]*:\/\/|(?:file|s3|azure|sftp):)/i.exec(text)?.[0] ?? ''
  const [place = '', ...rest] = text.slice(scheme.length).split(/[?#]/)
  // A password may hold anything, also what ends a path elsewhere.
  if (rest.some(part => part.includes('@'))) return `${scheme}…`
  const at = place.lastIndexOf('@')
  const isPath = /^(file:.*)?$/i.test(scheme) && /^\/(?!\/)/.test(place)
  if (!isPath && !hasOnlyNames(place.slice(at + 1), !/^(file|s3|azure):/i.test(scheme))) return `${scheme}…`
  return `${scheme}${at < 0 ? place : `…${place.slice(at)}`}${rest.length > 0 ? '?…' : ''}`
}

/** Is this a host, with nothing behind a colon but its port, and a path? */
function hasOnlyNames(place: string, mayHavePort: boolean): boolean {
  const [host = ''] = /^(\[[^\]=]*\]|[^:/=]*)/.exec(place) ?? []
  const rest = place.slice(host.length)
  const isPathNext = rest === '' || rest.startsWith('/')
  return !place.includes(';') && (isPathNext || (mayHavePort && /^:\d{1,5}(\/|$)/.test(rest)))
}

/** A name for a message, after what it is; left out where it has what no such name has, and may be something else. */
export function named(what: string, name: string): string {
  return /^[\w.-]{1,100}$/.test(name) ? `${what} "${name}"` : what
}

/** Says what is wrong with a URL, and what to write instead. */
export function refuseUrl(text: string, what: string, hint: string): never {
  throw new RepositoryError('SETTINGS', `repository "${withoutSecrets(text)}" ${what}`, { hint })
}

/** Resolves percent-encoding in a part of a URL. */
export function decodeUrlPart(text: string, part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return refuseUrl(text, 'has a broken percent-encoding', 'Write a percent sign as %25.')
  }
}
