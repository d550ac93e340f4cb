// Servers archive to a real Ceph through a proxy that does to their requests whatever networks and stores do, and then
// everything is fetched through it, too. Somebody who sees Ceph without the proxy judges.

import { createHash } from 'node:crypto'
import type { Repository } from '../../src/repository/repository.ts'
import { RepositoryError } from '../../src/repository/repository-error.ts'
import { realClock } from '../../src/system/clock.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { randomFaults } from '../support/fault-plan.ts'
import { type FaultCounts, FaultProxy } from '../support/fault-proxy.ts'
import { openRepositoryAt } from '../support/repository-at.ts'
import type { Ceph, CephUser } from '../support/running-ceph.ts'
import type { S3Profiles } from '../support/s3-profiles.ts'
import { sourceOf } from '../support/source-of.ts'
import { archivingActions } from './archiving-actions.ts'
import { stormOdds } from './storm-odds.ts'

const systemIdentifier = '7300000000000000002'
const filesAtOnce = 16
// Less than the store is away, so that attempts fail, too, and not requests alone.
const retryMs = 1_500
// A server asks again every second, or every minute; here it is a matter of how long anybody wants to watch.
const pauseMs = 50
const attemptsMax = 400
const outageMs = 4_000
const narrowBytesPerSecond = 2 * 1024 ** 2
const silenceMs = 1_000
const skewMs = 20 * 60_000
const roundTripMs = 4
// One in so many is larger than one request takes, so that it goes in parts.
const largeEvery = 250
const largeBytes = 9 * 1024 ** 2

export interface StoreStormOptions {
  ceph: Ceph
  /** Where the credentials of both servers are, which the storm takes away for a while. */
  profiles: S3Profiles
  files: number
  seed: number
  /** For how long the store is away. */
  awayMs?: number
  onProgress?: (line: string) => void
}

export interface StoreStormReport {
  seed: number
  archived: number
  /** What failed attempts said, by code. */
  codes: Record<string, number>
  /** Files of which two servers had different content, so that one of them was refused. */
  refused: number
  failedAttempts: number
  fetched: number
  failedFetches: number
  faults: FaultCounts['faults']
  /** What must never be; empty when all is well. */
  brokenPromises: string[]
}

export async function runStoreStorm(options: StoreStormOptions): Promise<StoreStormReport> {
  return await new StoreStorm(options).run()
}

class StoreStorm {
  readonly #options: StoreStormOptions
  readonly #random: SeededRandom
  readonly #broken: string[] = []
  /** Digests of what was acknowledged. */
  readonly #acknowledged = new Map<string, string>()
  #refused = 0
  #failedAttempts = 0
  readonly #codes: Record<string, number> = {}
  #failedFetches = 0
  #done = 0

  constructor(options: StoreStormOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
  }

  async run(): Promise<StoreStormReport> {
    const { ceph, profiles, files, seed } = this.#options
    // Of the seed, because the plan goes by what is asked. Only the names of uploads are the store's own.
    const bucket = await ceph.createBucket(`storm-${seed}`)
    const user = await ceph.createUser()
    await ceph.allow(bucket, user, archivingActions)
    await profiles.set({ default: user })
    await using proxy = await FaultProxy.start({ target: ceph.endpoint, speaks: 'http' })
    await using first = await repositoryAt(`${bucket}/wal?endpoint=${proxy.endpoint}`)
    await using second = await repositoryAt(`${bucket}/wal?endpoint=${proxy.endpoint}`)
    await using direct = await repositoryAt(`${bucket}/wal?endpoint=${ceph.endpoint}`)

    const names = Array.from({ length: files }, (_, index) => nameOf(index))
    proxy.plan = randomFaults(seed, stormOdds)
    proxy.roundTripMs = roundTripMs
    await this.#inTrouble(proxy, user, () =>
      this.#each(names, 'archived', name => this.#archive(name, first, second)),
    )
    await this.#judge(direct, names)
    this.#done = 0
    await this.#inTrouble(proxy, user, () => this.#each(names, 'fetched', name => this.#fetch(name, first)))
    await this.#judge(direct, names)
    return {
      seed,
      archived: this.#acknowledged.size,
      refused: this.#refused,
      failedAttempts: this.#failedAttempts,
      codes: this.#codes,
      fetched: this.#done,
      failedFetches: this.#failedFetches,
      faults: proxy.counts.faults,
      brokenPromises: this.#broken,
    }
  }

  async #each(names: readonly string[], what: string, work: (name: string) => Promise<void>): Promise<void> {
    const queue = names.values()
    const worker = async () => {
      for (const name of queue) {
        await work(name)
        if (++this.#done % 500 === 0) this.#options.onProgress?.(`${this.#done} files ${what}`)
      }
    }
    await Promise.all(Array.from({ length: filesAtOnce }, worker))
  }

  async #inTrouble(proxy: FaultProxy, user: CephUser, work: () => Promise<void>): Promise<void> {
    const ended = new AbortController()
    const trouble = this.#trouble(proxy, user, ended.signal)
    try {
      await work()
    } finally {
      ended.abort()
      await trouble
    }
  }

  /**
   * Each once, in this order, while files are under way: a store that is away, a narrow line, connections that nobody
   * answers, clocks that differ, credentials that are not accepted.
   */
  async #trouble(proxy: FaultProxy, user: CephUser, signal: AbortSignal): Promise<void> {
    const { ceph, files, awayMs = outageMs } = this.#options
    const reached = async (share: number) => {
      while (this.#done < files * share && !signal.aborted) await realClock.sleep(20, signal)
      return !signal.aborted
    }
    if (!(await reached(0.1))) return
    await proxy.beginOutage()
    await realClock.sleep(awayMs)
    proxy.bytesPerSecond = narrowBytesPerSecond
    await proxy.endOutage()
    const isNarrow = await reached(0.3)
    proxy.bytesPerSecond = Number.POSITIVE_INFINITY
    if (!isNarrow) return
    proxy.acceptsSilently = true
    proxy.cutConnections()
    await realClock.sleep(silenceMs)
    proxy.acceptsSilently = false
    proxy.cutConnections()
    if (!(await reached(0.5))) return
    proxy.skewMs = skewMs
    await realClock.sleep(silenceMs)
    proxy.skewMs = 0
    if (!(await reached(0.7))) return
    await ceph.suspendUser(user)
    await realClock.sleep(outageMs)
    await ceph.suspendUser(user, false)
  }

  /** Two servers have the file, most often with the same content. */
  async #archive(name: string, first: Repository, second: Repository): Promise<void> {
    const isRaced = this.#random.chance(0.2)
    const isDifferent = isRaced && this.#random.chance(0.3)
    const own = contentOf(name, 'own')
    const other = isDifferent ? contentOf(name, 'other') : own
    const outcomes = await Promise.all([
      this.#archiveOn(first, name, own),
      ...(isRaced ? [this.#archiveOn(second, name, other)] : []),
    ])
    if (outcomes.includes('refused')) this.#refused++
    if (!outcomes.includes('archived'))
      this.#broken.push(`"${name}" was archived by nobody: ${outcomes.join()}`)
    if (!isDifferent && outcomes.includes('refused'))
      this.#broken.push(`"${name}" was refused without reason`)
  }

  async #archiveOn(repository: Repository, name: string, content: Buffer): Promise<'archived' | 'refused'> {
    for (let attempt = 1; ; attempt++) {
      try {
        await repository.archive(sourceOf(name, content), {
          cluster: { systemIdentifier, walSegmentBytes: undefined, pageMagic: undefined },
          headerCheck: false,
          compressionLevel: 1,
          recipients: [],
        })
        const before = this.#acknowledged.get(name)
        const digest = digestOf(content)
        if (before !== undefined && before !== digest)
          this.#broken.push(`"${name}" was acknowledged with two contents`)
        this.#acknowledged.set(name, digest)
        return 'archived'
      } catch (thrown) {
        this.#require(thrown)
        if (thrown instanceof RepositoryError && thrown.code === 'DIFFERENT') return 'refused'
        this.#failedAttempts++
        if (attempt === attemptsMax) throw thrown
        await realClock.sleep(pauseMs)
      }
    }
  }

  async #fetch(name: string, repository: Repository): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const content = await fetched(repository, name)
        this.#compare(name, content, 'was fetched')
        return
      } catch (thrown) {
        this.#require(thrown)
        this.#failedFetches++
        if (attempt === attemptsMax) throw thrown
        await realClock.sleep(pauseMs)
      }
    }
  }

  /** What is in the store, seen without the proxy. */
  async #judge(direct: Repository, names: readonly string[]): Promise<void> {
    await Promise.all(
      Array.from({ length: filesAtOnce }, async (_, worker) => {
        for (let index = worker; index < names.length; index += filesAtOnce) {
          const name = names[index] ?? ''
          this.#compare(name, await fetched(direct, name), 'is stored')
        }
      }),
    )
  }

  #compare(name: string, content: Buffer | undefined, how: string): void {
    if (content === undefined) this.#broken.push(`"${name}" was acknowledged, and is said not to be there`)
    else if (digestOf(content) !== this.#acknowledged.get(name))
      this.#broken.push(`"${name}" ${how} with other content than was acknowledged`)
  }

  /** Whatever the store does, it is told in words of ours. */
  #require(thrown: unknown): void {
    if (thrown instanceof RepositoryError) {
      this.#codes[thrown.code] = (this.#codes[thrown.code] ?? 0) + 1
      return
    }
    const { stack } = thrown as Error
    this.#broken.push(`an error that was not foreseen: ${stack ?? String(thrown)}`)
  }
}

async function repositoryAt(place: string): Promise<Repository> {
  return await openRepositoryAt(`s3://${place}`, { retryMs })
}

async function fetched(repository: Repository, name: string): Promise<Buffer | undefined> {
  const pieces: Uint8Array[] = []
  const isThere = await repository.fetch(
    { systemIdentifier, name, identities: async () => [] },
    async bytes => {
      // It belongs to the reader.
      pieces.push(Uint8Array.from(bytes))
    },
  )
  return isThere ? Buffer.concat(pieces) : undefined
}

function nameOf(index: number): string {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `00000001${hex(index >> 8)}${hex(index & 0xff)}`
}

/** Without pattern, and the same each time. */
function contentOf(name: string, whose: string): Buffer {
  const seed = createHash('sha256').update(`${whose} ${name}`).digest()
  const isLarge = Number.parseInt(name.slice(8), 16) % largeEvery === 1
  const bytes = isLarge ? largeBytes : 200 + (seed.readUInt16LE(0) % 8_000)
  return createHash('shake256', { outputLength: bytes }).update(seed).digest()
}

function digestOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}
