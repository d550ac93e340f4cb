import { isTemporaryName, isUnfinishedWrite } from '../unfinished-write.ts'
import type { SftpEntry } from './sftp-session.ts'

/** What is in a directory below the root, named as a key: empty, or with a slash at its end. `[]` where it is missing. */
export type ListDirectory = (prefix: string) => Promise<readonly SftpEntry[]>

/** A file, or a directory that is going to be read, with a slash at the end of its key. */
export interface WalkedName {
  key: string
  isDirectory: boolean
  length: number
  /** Milliseconds since the epoch. */
  modifiedMs: number
}

// CLUSTER/wal/TIMELINE/LOG. The server is not asked for the rest of its disk.
const depthMax = 12

/** Objects whose keys begin with `prefix` and are behind `after`, and directories, in the order of their keys. */
export function walkObjects(
  list: ListDirectory,
  prefix: string,
  after: string | undefined,
): AsyncGenerator<WalkedName> {
  const isObject = (name: string) => !isUnfinishedWrite(name)
  return walk(list, prefix, after ?? '', isObject, () => true, 0)
}

/** Files of writes that did not come to their end, and directories, in the order of their names. */
export function walkTemporaryFiles(
  list: ListDirectory,
  after: string | undefined,
): AsyncGenerator<WalkedName> {
  return walk(list, '', after ?? '', isTemporaryName, isDirectoryOfOurs, 0)
}

async function* walk(
  list: ListDirectory,
  prefix: string,
  after: string,
  isWanted: (name: string) => boolean,
  mayHold: (name: string) => boolean,
  depth: number,
): AsyncGenerator<WalkedName> {
  if (depth > depthMax) return
  const found: WalkedName[] = []
  for (const { name, kind, size, modifiedMs } of await list(prefix)) {
    // A link to a directory is listed, and not followed: it may lead out of the root, or back to itself.
    const isDirectory = kind === 'directory'
    if (isDirectory ? !mayHold(name) : !isWanted(name)) continue
    if (prefix === '' && ofFileSystems.has(name)) continue
    found.push({ key: `${prefix}${name}${isDirectory ? '/' : ''}`, length: size, modifiedMs, isDirectory })
  }
  // A slash sorts where the keys below it do, so that all keys come in the order that an object store has.
  found.sort((a, b) => (a.key < b.key ? -1 : 1))
  for (const each of found) {
    const { key, isDirectory } = each
    if (key > after || (isDirectory && after.startsWith(key))) yield each
    else continue
    if (isDirectory) yield* walk(list, key, after, isWanted, mayHold, depth + 1)
  }
}

// What is in the root of a file system that nobody has used yet.
const ofFileSystems: ReadonlySet<string> = new Set(['lost+found', '.snapshot', '.snapshots', '.zfs'])

/** They are named after clusters, timelines and parts of WAL: this keeps from looking at what is not ours. */
function isDirectoryOfOurs(name: string): boolean {
  return name === 'wal' || name === 'backup' || /^(\d{1,20}|[0-9A-F]{8})$/.test(name)
}
