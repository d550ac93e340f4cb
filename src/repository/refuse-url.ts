import { RepositoryError } from './repository-error.ts'

/** A URL as it may stand in a message: whatever is where credentials could be is not repeated. */
export function withoutSecrets(text: string): string {
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(text)?.[0] ?? ''
  const [place = '', ...rest] = text.slice(scheme.length).split(/[?#]/)
  // A password may hold anything, also what ends a path elsewhere.
  if (rest.some(part => part.includes('@'))) return `${scheme}…`
  const at = place.lastIndexOf('@')
  return `${scheme}${at < 0 ? place : `…${place.slice(at)}`}${rest.length > 0 ? '?…' : ''}`
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
