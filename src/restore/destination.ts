import path from 'node:path'

/** Where a server in recovery wants segments and histories to be put. Nobody else uses these names: pg_rewind has others. */
const recoveryNames: ReadonlySet<string> = new Set(['RECOVERYXLOG', 'RECOVERYHISTORY'])

/**
 * Files of this prefix are left out by pg_basebackup, and by pg_rewind where it copies from; so whatever is left of
 * ours beside the WAL goes nowhere.
 */
export const temporaryPrefix = 'pgsql_tmp.pgarchivist'

/** Where a file is to be put, as the server says it with `%p`. */
export interface Destination {
  /** Absolute. */
  path: string
  /** Absolute. */
  directory: string
  /** Where it is written before it has its name; another one for every process. */
  temporaryPath: string
  /** Is it the server's recovery that asks? It goes on to the next file, and there is somebody to work ahead for. */
  isRecovery: boolean
}

export function destinationOf(absolutePath: string, pid: number): Destination {
  const directory = path.dirname(absolutePath)
  const name = path.basename(absolutePath)
  return {
    path: absolutePath,
    directory,
    temporaryPath: path.join(directory, `${temporaryPrefix}.${pid}.${name}`),
    isRecovery: recoveryNames.has(name),
  }
}
