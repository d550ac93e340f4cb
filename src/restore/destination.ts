import path from 'node:path'

/** Where a server in recovery wants segments to be put. Nobody else uses this name: pg_rewind has others. */
const recoveryName = 'RECOVERYXLOG'

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
  /** Is it the server's recovery that asks? It goes on to the next segment, and there is somebody to work ahead for. */
  isRecovery: boolean
}

export function destinationOf(absolutePath: string, pid: number): Destination {
  const directory = path.dirname(absolutePath)
  const name = path.basename(absolutePath)
  return {
    path: absolutePath,
    directory,
    temporaryPath: path.join(directory, `${temporaryPrefix}.${pid}.${name}`),
    isRecovery: name === recoveryName,
  }
}
