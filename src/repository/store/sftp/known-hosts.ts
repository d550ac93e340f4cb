import { createHash, createHmac } from 'node:crypto'

/** A line of a known_hosts file that is about a host. */
export interface KnownHostKey {
  type: string
  key: Buffer
  isRevoked: boolean
}

/** What files in the format of known_hosts say of a host, in their order. Lines that cannot be read are left out, as ssh does. */
export function knownHostKeys(text: string, host: string, port: number): KnownHostKey[] {
  const lines = text
    .split('\n')
    .map(parseLine)
    .filter(line => line !== undefined)
  const name = host.toLowerCase()
  const ofName = (wanted: string) => lines.filter(({ hosts }) => isAmong(wanted, hosts))
  if (port === 22) return ofName(name)
  // As ssh does: one without a port serves where none with this port is there. A revoked key is so under each name.
  const withPort = ofName(`[${name}]:${port}`)
  const without = ofName(name)
  return withPort.some(({ isRevoked }) => !isRevoked)
    ? [...withPort, ...without.filter(({ isRevoked }) => isRevoked)]
    : [...withPort, ...without]
}

export type HostKeyVerdict = 'known' | 'revoked' | 'changed' | 'unknown'

/** May a host have this key? `'changed'`: others are known of it. */
export function judgeHostKey(known: readonly KnownHostKey[], key: Uint8Array): HostKeyVerdict {
  const same = known.filter(each => each.key.equals(key))
  if (same.some(({ isRevoked }) => isRevoked)) return 'revoked'
  if (same.length > 0) return 'known'
  return known.some(({ isRevoked }) => !isRevoked) ? 'changed' : 'unknown'
}

/** As ssh shows it. */
export function fingerprintOf(key: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replaceAll('=', '')}`
}

/** What kind of key it says it is: `ssh-ed25519`. */
export function keyType(key: Uint8Array): string {
  const bytes = Buffer.from(key)
  return bytes.length < 4 ? '' : bytes.toString('latin1', 4, 4 + bytes.readUInt32BE(0))
}

/** How people call it: `ED25519`. */
export function keyTypeName(type: string): string {
  return (/^(?:ssh|sk-ssh)-(\w+)/.exec(type)?.[1] ?? type.split('-')[0] ?? type).toUpperCase()
}

interface KnownHostLine extends KnownHostKey {
  hosts: string[]
}

function parseLine(line: string): KnownHostLine | undefined {
  const words = line.trim().split(/[ \t]+/)
  if (words[0] === '' || words[0]?.startsWith('#')) return undefined
  const marker = words[0]?.startsWith('@') ? words.shift() : undefined
  // The keys of authorities sign the keys of hosts, which our library does not look at.
  if (marker !== undefined && marker !== '@revoked') return undefined
  const [hosts = '', type = '', base64 = ''] = words
  const key = Buffer.from(base64, 'base64')
  if (keyType(key) !== type || type === '') return undefined
  return { hosts: hosts.split(','), type, key, isRevoked: marker !== undefined }
}

function isAmong(name: string, hosts: readonly string[]): boolean {
  let isFound = false
  for (const host of hosts) {
    if (host.startsWith('|')) {
      if (isHashOf(name, host)) isFound = true
    } else if (host.startsWith('!')) {
      if (fits(name, host.slice(1))) return false
    } else if (fits(name, host)) isFound = true
  }
  return isFound
}

/** `|1|SALT|HASH` */
function isHashOf(name: string, hashed: string): boolean {
  const [, version, salt = '', hash = ''] = hashed.split('|')
  if (version !== '1') return false
  return createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest('base64') === hash
}

function fits(name: string, pattern: string): boolean {
  const source = pattern
    .toLowerCase()
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll(/\*+/g, '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`).test(name)
}
