import {
  metadataBlockBytes,
  type ObjectMetadata,
  parseMetadataBlock,
} from '../../src/repository/metadata-block.ts'
import { walObjectKey } from '../../src/repository/object-key.ts'
import { Repository } from '../../src/repository/repository.ts'
import { LocalStore } from '../../src/repository/store/local-store.ts'
import { unfinishedWrites } from '../../src/repository/store/unfinished-writes.ts'
import { type VerifyOptions, verify } from '../../src/repository/verify.ts'
import type { VerifyReport } from '../../src/repository/verify-report.ts'
import type { Files } from '../../src/system/files.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { type MountOptions, SimulatedDisk } from '../../src/system/simulated-files.ts'
import { walFileKind } from '../../src/wal/wal-file-name.ts'
import { sourceOf } from './source-of.ts'
import { anySystemIdentifier, walSegment } from './wal-segment.ts'

export const testTime = Date.UTC(2026, 10, 21, 4)
const repositoryDirectory = '/repository'

export interface ArchivedFile {
  systemIdentifier?: string
  segmentBytes?: number
  recipients?: readonly string[]
  /** Whatever it is, also where its name is that of a segment. */
  content?: string | Uint8Array
}

/** A repository with what a test archives into it. */
export class FilledRepository {
  readonly directory: string
  readonly repository: Repository
  readonly #files: Files

  constructor(files: Files, directory: string) {
    this.#files = files
    this.directory = directory
    this.repository = open(files, directory)
  }

  async archive(names: readonly string[], file: ArchivedFile = {}): Promise<void> {
    const { systemIdentifier = anySystemIdentifier, segmentBytes = 1024 * 1024, recipients = [] } = file
    for (const name of names) {
      const content = contentOf(name, file)
      const outcome = await this.repository.archive(sourceOf(name, content, BigInt(testTime) * 1_000_000n), {
        cluster: { systemIdentifier, walSegmentBytes: segmentBytes, pageMagic: undefined },
        headerCheck: file.content === undefined,
        compressionLevel: 1,
        recipients,
      })
      if (outcome !== 'archived') throw new Error(`"${name}" was there before`)
    }
  }

  pathOf(name: string, systemIdentifier: string = anySystemIdentifier): string {
    return `${this.directory}/${walObjectKey(systemIdentifier, name)}`
  }

  /** Everything that is not named in `options` is as it is on a machine where nothing else happens. */
  async verify(options: Partial<VerifyOptions> & { files?: Files } = {}): Promise<VerifyReport> {
    const { files = this.#files, ...rest } = options
    return await verify({
      repository: open(files, this.directory),
      clock: { sleep: async () => undefined },
      jobs: 3,
      identities: async () => [],
      decode: false,
      unfinishedWrites: () => unfinishedWrites(files, this.directory, testTime),
      ...rest,
    })
  }
}

/** One on a simulated disk, which can be spoilt. */
export class SimulatedRepository extends FilledRepository {
  readonly disk: SimulatedDisk

  constructor() {
    const disk = new SimulatedDisk(new SeededRandom(1), () => testTime)
    disk.makeDirectory(repositoryDirectory)
    super(disk.mount(), repositoryDirectory)
    this.disk = disk
  }

  /** As another process sees it, with faults. */
  seen(options: MountOptions): Files {
    return this.disk.mount(options)
  }

  bytesOf(name: string): Uint8Array {
    const bytes = this.disk.content(this.pathOf(name))
    if (bytes === undefined) throw new Error(`"${name}" was not archived`)
    return bytes
  }

  change(name: string, change: (bytes: Uint8Array) => Uint8Array): void {
    this.disk.place(this.pathOf(name), change(Uint8Array.from(this.bytesOf(name))))
  }

  remove(...names: string[]): void {
    for (const name of names) this.disk.remove(this.pathOf(name))
  }

  metadataOf(name: string): ObjectMetadata {
    const parsed = parseMetadataBlock(this.bytesOf(name).subarray(0, metadataBlockBytes))
    if (parsed.kind !== 'metadata') throw new Error(`"${name}" is damaged`)
    return parsed.metadata
  }
}

/** Names of segments of one timeline, from the first to the last number. */
export function segments(timeline: number, first: number, last: number): string[] {
  const hex = (number: number) => number.toString(16).toUpperCase().padStart(8, '0')
  return Array.from(
    { length: last - first + 1 },
    (_, index) => `${hex(timeline)}00000000${hex(first + index)}`,
  )
}

/** The content of a backup history, as servers write it. */
export function backupHistory(start: string, stop: string): string {
  return `START WAL LOCATION: ${start} (file 000000010000000000000002)
STOP WAL LOCATION: ${stop} (file 000000010000000000000003)
CHECKPOINT LOCATION: ${start}
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-21 03:00:00 UTC
LABEL: nightly
START TIMELINE: 1
STOP TIME: 2026-11-21 03:10:00 UTC
STOP TIMELINE: 1
`
}

function open(files: Files, directory: string): Repository {
  return new Repository({
    store: new LocalStore({
      files,
      clock: { now: () => testTime },
      directory,
      writer: 'a test',
      isGroupReadable: false,
    }),
    clock: { now: () => testTime, monotonic: () => testTime },
    newId: () => '01234567-89ab-4cde-8f01-23456789abcd',
    writer: 'pgarchivist test',
  })
}

function contentOf(name: string, file: ArchivedFile): Uint8Array {
  if (file.content !== undefined) return Buffer.from(file.content)
  const { segmentBytes, systemIdentifier } = file
  const isSegment = walFileKind(name) === 'segment' || walFileKind(name) === 'partial segment'
  if (!isSegment) throw new Error(`"${name}" needs content`)
  return walSegment({
    name,
    ...(segmentBytes !== undefined && { segmentBytes }),
    ...(systemIdentifier !== undefined && { systemIdentifier }),
  })
}
