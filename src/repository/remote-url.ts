import { decodeUrlPart, named, refuseUrl } from './refuse-url.ts'

/** The parts of `scheme://user@host:port/path?name=value&…`, percent-encoding resolved. */
export interface RemoteUrl {
  user: string | undefined
  /** A host, or what a scheme has in its place. */
  host: string
  port: number | undefined
  /** Between the first slash and the question mark, without slashes at either end; empty where there is nothing. */
  path: string
  parameters: ReadonlyMap<string, string>
}

export interface RemoteUrlRules {
  /** What a right one looks like, for hints. */
  example: string
  /** What stands where others have a host: `bucket`, `host`. */
  hostIs: string
  takesUser?: boolean
  takesPort?: boolean
  parameters: readonly string[]
  /** Where credentials come from instead. */
  credentialsHint: string
}

// Any role may see the setting, so a secret in it is out already: it is refused rather than used.
const secretParameter = /key|secret|token|password|passwd|signature|^sig$|credential/i

/** Takes the URL of a store across a network apart, and refuses what its scheme does not take. */
export function splitRemoteUrl(text: string, rules: RemoteUrlRules): RemoteUrl {
  const { example, hostIs, credentialsHint } = rules
  // A password may hold whatever ends a part elsewhere.
  if (rules.takesUser !== true && text.includes('@')) {
    return refuseUrl(text, 'holds credentials', credentialsHint)
  }
  const match = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?(#.*)?$/i.exec(text)
  if (match === null) return refuseUrl(text, 'is not a URL', `Write it as "${example}".`)
  const [, authority = '', path = '', query = '', fragment] = match
  if (fragment !== undefined) {
    return refuseUrl(text, 'holds "#"', 'Percent-encode "#" as %23.')
  }
  const at = authority.lastIndexOf('@')
  const user = at < 0 ? undefined : authority.slice(0, at)
  if (user?.includes(':') === true) {
    return refuseUrl(text, 'holds credentials', credentialsHint)
  }
  // Of a password with a slash, that ends the user's name before the "@".
  if (rules.takesUser === true && at < 0 && /:\d/.test(authority) && path.includes('@')) {
    return refuseUrl(text, 'holds credentials', `${credentialsHint} Percent-encode "@" in a path as %40.`)
  }
  const [, host = '', port] = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority.slice(at + 1)) ?? []
  if (host === '') return refuseUrl(text, `names no ${hostIs}`, `Write it as "${example}".`)
  if (port !== undefined && (rules.takesPort !== true || !(Number(port) >= 1 && Number(port) <= 65_535))) {
    return refuseUrl(text, `has a port that is none`, `Write it as "${example}".`)
  }
  return {
    user: user === undefined ? undefined : decodeUrlPart(text, user),
    host: decodeUrlPart(text, host),
    port: port === undefined ? undefined : Number(port),
    path: decodePath(text, path),
    parameters: parametersOf(text, query, rules),
  }
}

function decodePath(text: string, path: string): string {
  const parts = decodeUrlPart(text, path)
    .split('/')
    .filter(part => part !== '')
  if (parts.some(part => part === '.' || part === '..')) {
    return refuseUrl(text, 'holds "." or ".."', 'Write the path without them.')
  }
  const joined = parts.join('/')
  if (/\p{Cc}/u.test(joined))
    return refuseUrl(text, 'holds a control character', 'Write the path without it.')
  return joined
}

function parametersOf(text: string, query: string, rules: RemoteUrlRules): Map<string, string> {
  const parameters = new Map<string, string>()
  for (const each of query.split('&').filter(part => part !== '')) {
    const equals = each.indexOf('=')
    const name = decodeUrlPart(text, equals < 0 ? each : each.slice(0, equals))
    const value = equals < 0 ? '' : decodeUrlPart(text, each.slice(equals + 1))
    if (!rules.parameters.includes(name)) {
      if (secretParameter.test(name)) return refuseUrl(text, 'holds credentials', rules.credentialsHint)
      const list = rules.parameters.map(parameter => `"${parameter}"`).join(', ')
      return refuseUrl(text, `has ${named('an unknown parameter', name)}`, `Known are ${list}.`)
    }
    if (parameters.has(name)) return refuseUrl(text, `has "${name}" twice`, 'Name it once.')
    if (value === '') return refuseUrl(text, `has no value for "${name}"`, 'Give it one, or leave it out.')
    parameters.set(name, value)
  }
  return parameters
}
