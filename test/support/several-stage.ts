// A cluster and several repositories on one simulated disk, each of which can be away or slow.

import { walSource } from '../../src/modules/repository.ts'
import { KnownRepositoryFiles } from '../../src/repository/known-repositories.ts'
import { Repository } from '../../src/repository/repository.ts'
import { RepositorySet, type SetWarning } from '../../src/repository/repository-set.ts'
import { LocalStore } from '../../src/repository/store/local-store.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { SimulatedClock } from '../../src/system/simulated-clock.ts'
import { type MountOptions, SimulatedDisk, type SimulatedFiles } from '../../src/system/simulated-files.ts'
import { synchronousCodec } from '../simulation/repository-codec.ts'
import { archiveOptions, keyOf } from './repository-stage.ts'
import { anySystemIdentifier } from './wal-segment.ts'

export const wal = '/data/pg_wal'

export interface SeveralOptions {
  quorum?: number
  count?: number
  seed?: number
}

export class SeveralStage {
  readonly clock = new SimulatedClock()
  readonly random: SeededRandom
  readonly disk: SimulatedDisk
  readonly roots: readonly string[]
  readonly warnings: string[] = []
  readonly fellBehind: string[] = []
  readonly answersAgain: string[] = []
  /** By root: what its disk says instead of doing what it is told. */
  readonly away = new Map<string, string>()
  /** By root: until when each step waits. */
  readonly held = new Map<string, Promise<void>>()
  /** How long each step on the disk of a repository takes. */
  delayMs: (root: string) => number = () => 0
  /** How often a file was opened for reading in pg_wal. */
  opened = 0
  #ids = 0
  #known: KnownRepositoryFiles
  readonly #mounted: SimulatedFiles[] = []
  readonly #options: SeveralOptions

  constructor(options: SeveralOptions = {}) {
    const { count = 2, seed = 1 } = options
    this.#options = options
    this.random = new SeededRandom(seed)
    this.disk = new SimulatedDisk(this.random.fork(), () => this.clock.now())
    for (const path of ['/data', wal]) this.disk.makeDirectory(path)
    this.#known = this.#rememberIn(this.mount())
    this.roots = ['/a', '/b', '/c'].slice(0, count)
    for (const root of this.roots) this.disk.makeDirectory(root)
  }

  mount(options: MountOptions = {}): SimulatedFiles {
    const mounted = this.disk.mount(options)
    this.#mounted.push(mounted)
    return mounted
  }

  /** Ends every process that has mounted something. */
  kill(): void {
    for (const mounted of this.#mounted.splice(0)) mounted.kill()
    this.#known = this.#rememberIn(this.mount())
  }

  #rememberIn(files: SimulatedFiles): KnownRepositoryFiles {
    return new KnownRepositoryFiles({
      files,
      dataDirectory: '/data',
      isGroupReadable: false,
      writer: 'module',
    })
  }

  repository(root: string, writer = 'module', { forgets = false } = {}): Repository {
    const files = this.mount({
      fate: ({ path }) => {
        const code = path.startsWith(root) ? this.away.get(root) : undefined
        return code === undefined ? undefined : { kind: 'fails', code }
      },
      delay: async () => {
        await this.held.get(root)
        const delayMs = this.delayMs(root)
        if (delayMs > 0) await this.clock.sleep(delayMs)
      },
    })
    const now = () => this.clock.now()
    return new Repository({
      store: new LocalStore({ files, clock: { now }, directory: root, writer, isGroupReadable: false }),
      clock: { now, monotonic: now },
      newId: () => `00000000-0000-4000-8000-00000000000${++this.#ids}`,
      writer: 'pgarchivist test',
      known: forgets ? undefined : this.#known,
      codec: synchronousCodec,
    })
  }

  repositories(writer?: string): Repository[] {
    return this.roots.map(root => this.repository(root, writer))
  }

  set(quorum = this.#options.quorum ?? 0): RepositorySet {
    return new RepositorySet({
      repositories: this.repositories(),
      quorum,
      clock: this.clock,
      warn: (warning: SetWarning) => void this.warnings.push(warning.message),
      fellBehind: ({ url }) => void this.fellBehind.push(url),
      answersAgain: ({ url }) => void this.answersAgain.push(url),
    })
  }

  /** Finishes a WAL file. */
  put(name: string, content: string = `content of ${name}\n`): void {
    this.disk.place(`${wal}/${name}`, Buffer.from(content))
  }

  archive(set: RepositorySet, name: string, signal?: AbortSignal) {
    const files = this.mount({
      stepped: ({ operation }) => void (operation === 'read' && this.opened++),
    })
    return set.archive(walSource(files, name, `${wal}/${name}`), {
      ...archiveOptions,
      headerCheck: false,
      ...(signal && { signal }),
    })
  }

  /** The content, or `undefined` where it is provably nowhere. */
  async fetch(set: RepositorySet, name: string): Promise<string | undefined> {
    let pieces: Uint8Array[] = []
    const isThere = await set.fetch(
      {
        systemIdentifier: anySystemIdentifier,
        name,
        identities: async () => [],
        again: async () => void (pieces = []),
      },
      async bytes => void pieces.push(bytes),
    )
    return isThere ? Buffer.concat(pieces).toString() : undefined
  }

  object(root: string, name: string): Uint8Array | undefined {
    try {
      return this.disk.content(`${root}/${keyOf(name)}`)
    } catch {
      return undefined // nor is its directory there
    }
  }

  has(name: string): string {
    return this.roots.filter(root => this.object(root, name) !== undefined).join(' ')
  }
}
