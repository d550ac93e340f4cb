import { walFileKind } from '../wal/wal-file-name.ts'

/** The name of the marker, the one object that does not belong to a cluster. */
export const markerKey = 'pgarchivist-repository.json'

const suffix = '.pgarchivist'

/**
 * Where a WAL file is stored: `CLUSTER/wal/TIMELINE/LOG/NAME.pgarchivist`, and without LOG for a timeline history.
 * It depends on nothing but the cluster and the name, so that a name can be stored once only.
 */
export function walObjectKey(systemIdentifier: string, name: string): string {
  const timeline = name.slice(0, 8)
  const log = walFileKind(name) === 'timeline history' ? '' : `${name.slice(8, 16)}/`
  return `${walPrefix(systemIdentifier)}${timeline}/${log}${name}${suffix}`
}

/** All WAL of a cluster, or of one of its timelines. */
export function walPrefix(systemIdentifier: string, timeline?: string): string {
  return `${systemIdentifier}/wal/${timeline === undefined ? '' : `${timeline}/`}`
}

export interface WalObject {
  systemIdentifier: string
  /** Of the WAL file. */
  name: string
}

/** What an object's key says it is; `undefined` for what is no WAL file's key. */
export function parseWalObjectKey(key: string): WalObject | undefined {
  const parts = key.split('/')
  const [systemIdentifier = ''] = parts
  const last = parts.at(-1) ?? ''
  if (!isSystemIdentifier(systemIdentifier) || !last.endsWith(suffix)) return undefined
  const name = last.slice(0, -suffix.length)
  if (walFileKind(name) === undefined) return undefined
  return walObjectKey(systemIdentifier, name) === key ? { systemIdentifier, name } : undefined
}

export function isSystemIdentifier(text: string): boolean {
  return /^[1-9]\d{0,19}$/.test(text)
}
