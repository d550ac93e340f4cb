import type { FetchedFile, Repository } from '../repository/repository.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import type { Files } from '../system/files.ts'
import { freeMemory } from '../system/free-memory.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import type { InTurn } from './turns.ts'
import { type WholeFile, writeWhole } from './whole-file.ts'

/** Where files of a cluster come from. */
export interface FetchSource {
  repository: Pick<Repository, 'fetch'>
  systemIdentifier: string
  /** Private keys. */
  identities: () => Promise<readonly string[]>
}

/** Throws unless the name is that of a file that a server archives, because nothing else can be in a repository. */
export function requireWalFileName(name: string): void {
  if (walFileKind(name) !== undefined) return
  throw new RepositoryError('SETTINGS', `"${name}" is not the name of a WAL file`, {
    hint: `Write restore_command = 'pgarchivist archive-get "%f" "%p"'.`,
  })
}

/**
 * Writes a file from the repository, which has its name when all of it is there and verified, and not before. Resolves
 * with `false` when it is provably not in the repository.
 */
export async function fetchWhole(
  files: Files,
  target: WholeFile,
  { repository, systemIdentifier, identities }: FetchSource,
  name: string,
  { inTurn = work => work(), signal }: { inTurn?: InTurn; signal?: AbortSignal } = {},
): Promise<FetchedFile | false> {
  return await writeWhole(files, target, (append, again) => {
    const options = { systemIdentifier, name, identities, again, ...(signal && { signal }) }
    return repository.fetch(options, async bytes => {
      await inTurn(() => append(bytes))
      freeMemory(bytes)
    })
  })
}
