// A cluster's WAL directory and a repository beside it, on any file system, real or simulated.

import { mkdir, readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { walSource } from '../../src/modules/repository.ts'
import { KnownRepositoryFiles, knownRepositoryPath } from '../../src/repository/known-repositories.ts'
import { walObjectKey } from '../../src/repository/object-key.ts'
import { type ArchiveOptions, Repository } from '../../src/repository/repository.ts'
import { RepositoryError } from '../../src/repository/repository-error.ts'
import { FailedSyncs } from '../../src/repository/store/failed-syncs.ts'
import { fileUrl, LocalStore } from '../../src/repository/store/local-store.ts'
import type { WalCodec } from '../../src/repository/wal-codec.ts'
import type { Files } from '../../src/system/files.ts'
import type { ProcessMark } from '../../src/system/process-mark.ts'
import { realFiles } from '../../src/system/real-files.ts'
import type { SimulatedDisk } from '../../src/system/simulated-files.ts'
import { temporaryDirectory } from './unprivileged.ts'
import { anySystemIdentifier, type WalSegmentOptions, walSegment } from './wal-segment.ts'

export const segmentBytes = 1024 * 1024

/** As the module would have it of a server with segments from `walSegment`. */
export const archiveOptions: ArchiveOptions = {
  cluster: { systemIdentifier: anySystemIdentifier, walSegmentBytes: segmentBytes, pageMagic: 0xd116 },
  headerCheck: true,
  compressionLevel: 1,
  recipients: [],
}

export interface ServerOptions {
  files: Files
  /** Of the cluster. */
  data: string
  /** Of the repository. */
  root: string
  /** When it is; otherwise always the same moment. */
  now?: () => number
  /** What new repositories are called; different ones for different servers. */
  newId?: () => string
  codec?: WalCodec
  isGroupReadable?: boolean
  owner?: { uid: number; gid: number }
  /** Tells writers apart; otherwise the data directory does. */
  writer?: string
  /** Which process it is; otherwise others cannot tell when it has ended. */
  process?: ProcessMark | undefined
  /** Nothing is remembered in the data directory. */
  forgets?: boolean
}

export const anyTime = Date.UTC(2026, 0, 1)
export const anyId = '00000000-0000-4000-8000-000000000001'

/** What the kernel says of its start; another one after each power cut. */
export function startMachine(disk: SimulatedDisk, starts = 0): void {
  for (const path of ['/proc', '/proc/sys', '/proc/sys/kernel', '/proc/sys/kernel/random']) {
    if (starts === 0) disk.makeDirectory(path)
  }
  disk.place('/proc/sys/kernel/random/boot_id', `boot-${starts}\n`)
}

/** One process of a server that archives to a repository and fetches from it. */
export function archivingServer(options: ServerOptions) {
  const { files, data, root, now = () => anyTime, newId = () => anyId, codec, owner } = options
  const isGroupReadable = options.isGroupReadable ?? false
  const created: string[] = []
  const store = new LocalStore({
    files,
    clock: { now },
    directory: root,
    writer: options.writer ?? data,
    process: options.process,
    isGroupReadable,
    owner,
    failedSyncs: options.forgets
      ? undefined
      : new FailedSyncs({ files, dataDirectory: data, isGroupReadable, owner }),
  })
  const repository = new Repository({
    store,
    clock: { now, monotonic: now },
    newId,
    writer: 'pgarchivist test',
    known: options.forgets
      ? undefined
      : new KnownRepositoryFiles({ files, dataDirectory: data, isGroupReadable, owner, writer: data }),
    created: (url, id) => created.push(`${url} ${id}`),
    ...(codec && { codec }),
  })
  return {
    store,
    repository,
    /** The repositories that it has begun. */
    created,
    archive: (name: string, more: Partial<ArchiveOptions> = {}) =>
      repository.archive(walSource(files, name, `${data}/pg_wal/${name}`), { ...archiveOptions, ...more }),
    /** The content, or `undefined` where there is provably none. */
    fetch: async (name: string, identities: string[] = []): Promise<Buffer | undefined> => {
      const pieces: Uint8Array[] = []
      const request = {
        systemIdentifier: anySystemIdentifier,
        name,
        identities: async () => identities,
      }
      const isThere = await repository.fetch(request, async bytes => void pieces.push(bytes))
      return isThere ? Buffer.concat(pieces) : undefined
    },
  }
}

export const keyOf = (name: string) => walObjectKey(anySystemIdentifier, name)

/** A cluster and an empty repository in a real directory. */
export async function realStage({ dataMode = 0o700 } = {}) {
  const directory = await temporaryDirectory()
  const above = await realpath(directory.path)
  const [data, root] = [join(above, 'data'), join(above, 'repository')]
  await mkdir(join(data, 'pg_wal'), { recursive: true, mode: dataMode })
  await mkdir(root, { mode: 0o700 })
  const start = (more: Partial<ServerOptions> = {}) =>
    archivingServer({ files: realFiles, data, root, ...more })
  const put = async (name: string, content: Uint8Array | string) => {
    await writeFile(join(data, 'pg_wal', name), content)
    return Buffer.from(content)
  }
  return {
    above,
    data,
    root,
    start,
    put,
    /** Finishes a segment and returns its content. */
    putSegment: (name: string, more: Partial<WalSegmentOptions> = {}) =>
      put(name, walSegment({ name, segmentBytes, ...more })),
    objectPath: (name: string) => join(root, keyOf(name)),
    object: (name: string) => readFile(join(root, keyOf(name))),
    knownPath: knownRepositoryPath(data, fileUrl(root)),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

/** What is wrong, as an operator reads it: code, message, and what else there is, each on a line of its own. */
export async function failure(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (thrown) {
    if (!(thrown instanceof RepositoryError)) throw thrown
    const detail = thrown.detail === undefined ? '' : `\nDETAIL: ${thrown.detail}`
    return `${thrown.code}: ${thrown.message}${detail}\nHINT: ${thrown.hint}`
  }
  return 'it did not fail'
}
