import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { type KnownRepositoriesOptions, KnownRepositoryFiles } from '../repository/known-repositories.ts'
import { Repository } from '../repository/repository.ts'
import type { RepositoryWarning } from '../repository/repository-identity.ts'
import { RepositorySet, type SetWarning } from '../repository/repository-set.ts'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import { FailedSyncs } from '../repository/store/failed-syncs.ts'
import type { Store } from '../repository/store/store.ts'
import { realClock } from '../system/clock.ts'
import { letHeapGrow } from '../system/heap-growth.ts'
import { realFiles } from '../system/real-files.ts'
import { couldNot } from '../system/system-error.ts'
import type { FailedRepositories } from './failed-repositories.ts'
import { openStore } from './open-store.ts'
import { packageVersion } from './own-package.ts'

export interface OpenRepositoryOptions {
  /** The cluster's, which says who may read what is stored, and remembers where that is. */
  dataDirectory?: string | undefined
  /**
   * Which of those that archive for this cluster at the same time this is. Each writes under temporary names of its
   * own, which are the same each time, so that its next attempt removes what the last one left.
   */
  role?: 'module' | 'archive-push' | 'ahead of archive-push' | 'catch-up' | 'catch-up by hand' | 'reader'
  /** Told when a new repository was begun. */
  created?: (url: string, id: string) => void
  /** Told once of a store that replaces what is there, for the log. */
  unguarded?: (warning: RepositoryWarning) => void
}

/** A file that is archived may wait: the server has it for as long as it takes. */
const writerRetryMs = 60_000
/** A server in recovery stands still for as long as it waits. */
const readerRetryMs = 20_000

/** The repository at a URL, over the real disk. Nothing is read or written before it is used. */
export async function openRepository(
  url: RepositoryUrl,
  options: OpenRepositoryOptions,
): Promise<Repository> {
  letHeapGrow()
  const { dataDirectory, created, unguarded } = options
  const cluster =
    dataDirectory === undefined
      ? undefined
      : await realFiles.stat(dataDirectory).catch(couldNot(`stat file "${dataDirectory}"`))
  const isGroupReadable = cluster !== undefined && (cluster.mode & 0o050) === 0o050
  // What root stores belongs to the owner of the cluster, who is to restore it.
  const owner = process.geteuid?.() === 0 ? cluster : undefined
  // A command outlives an archiver that is killed, and then works beside that of the next one.
  const { role: named = 'reader' } = options
  const isCommand = named === 'archive-push' || named === 'catch-up by hand'
  const role = isCommand ? `${named} ${process.pid}` : named
  const writer = [role, hostname(), dataDirectory, cluster?.device, cluster?.inode].join('\0')
  const store: Store = await openStore(url, {
    writer,
    isGroupReadable,
    owner,
    failedSyncs:
      dataDirectory === undefined
        ? undefined
        : new FailedSyncs({ files: realFiles, dataDirectory, isGroupReadable, owner }),
    retryMs: options.role === undefined || options.role === 'reader' ? readerRetryMs : writerRetryMs,
  })
  return new Repository({
    store,
    clock: realClock,
    newId: randomUUID,
    writer: `pgarchivist ${packageVersion()}`,
    known:
      dataDirectory === undefined
        ? undefined
        : knownRepositories({ files: realFiles, dataDirectory, isGroupReadable, owner, writer }),
    ...(created && { created }),
    ...(unguarded && { unguarded }),
  })
}

export interface OpenRepositoriesOptions extends OpenRepositoryOptions {
  /** In how many of them a file has to be before it counts as archived; 0 for all. */
  quorum?: number
  warn?: (warning: SetWarning) => void
  failed?: FailedRepositories | undefined
}

/** Several as one. Nothing is read or written in them before they are used. */
export async function openRepositories(
  urls: readonly RepositoryUrl[],
  { quorum = 0, warn, failed, ...options }: OpenRepositoriesOptions,
): Promise<RepositorySet> {
  return new RepositorySet({
    repositories: await Promise.all(urls.map(url => openRepository(url, options))),
    quorum,
    // What one command notes is of use to the next one, if they have one clock.
    clock: { monotonic: () => realClock.now() },
    warn,
    failedAt: failed?.read(),
    answered: (url, isAnswer) => failed?.note(url, isAnswer),
  })
}

/** One for each data directory, because those that write to one file at the same time take turns in it. */
const known = new Map<string, KnownRepositoryFiles>()

function knownRepositories(options: KnownRepositoriesOptions): KnownRepositoryFiles {
  const opened = known.get(options.dataDirectory) ?? new KnownRepositoryFiles(options)
  known.set(options.dataDirectory, opened)
  return opened
}
