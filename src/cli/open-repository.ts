import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { KnownRepositoriesFile } from '../repository/known-repositories.ts'
import { Repository } from '../repository/repository.ts'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import type { Store } from '../repository/store/store.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'
import { couldNot } from '../system/system-error.ts'
import { openStore } from './open-store.ts'

export interface OpenRepositoryOptions {
  /** The cluster's, which says who may read what is stored, and remembers where that is. */
  dataDirectory?: string | undefined
  /**
   * Which of those that archive for this cluster at the same time this is. Each writes under temporary names of its
   * own, which are the same each time, so that its next attempt removes what the last one left.
   */
  role?: 'module' | 'archive-push' | 'ahead of archive-push' | 'reader'
  /** Told when a new repository was begun. */
  created?: (url: string, id: string) => void
}

/** The repository at a URL, over the real disk. Nothing is read or written before it is used. */
export async function openRepository(
  url: RepositoryUrl,
  options: OpenRepositoryOptions,
): Promise<Repository> {
  const { dataDirectory, created } = options
  const cluster =
    dataDirectory === undefined
      ? undefined
      : await realFiles.stat(dataDirectory).catch(couldNot(`stat file "${dataDirectory}"`))
  const isGroupReadable = cluster !== undefined && (cluster.mode & 0o050) === 0o050
  // What root stores belongs to the owner of the cluster, who is to restore it.
  const owner = process.geteuid?.() === 0 ? cluster : undefined
  // A command outlives an archiver that is killed, and then works beside that of the next one.
  const role = options.role === 'archive-push' ? `archive-push ${process.pid}` : (options.role ?? 'reader')
  const writer = [role, hostname(), dataDirectory, cluster?.device, cluster?.inode].join('\0')
  const store: Store = await openStore(url, {
    writer,
    isGroupReadable,
    owner,
  })
  return new Repository({
    store,
    clock: realClock,
    newId: randomUUID,
    writer: `pgarchivist ${packageVersion()}`,
    known:
      dataDirectory === undefined
        ? undefined
        : new KnownRepositoriesFile({ files: realFiles, dataDirectory, isGroupReadable, owner, writer }),
    ...(created && { created }),
  })
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
