// A real server archives to a real Ceph through a proxy that does to its requests whatever networks and stores do. The
// server must notice nothing of it but that its files wait longer.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from 'pg'
import { BridgedServer } from '../bridge/bridged-server.ts'
import { DropProbe } from '../bridge/drop-probe.ts'
import { type FaultPlan, randomFaults } from '../support/fault-plan.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { openRepositoryAt } from '../support/repository-at.ts'
import type { Ceph, CephUser } from '../support/running-ceph.ts'
import type { S3Profiles } from '../support/s3-profiles.ts'
import { archivingActions } from './archiving-actions.ts'
import { stormOdds } from './storm-odds.ts'

export interface ServerStormOptions {
  ceph: Ceph
  profiles: S3Profiles
  major: number
  /** Segments of 1 MB that are archived at least. */
  files: number
  seed: number
  /** How long the store is away, the bucket gone, and the credentials are not accepted. */
  awayMs: number
  onProgress?: (line: string) => void
}

const segmentBytes = 1024 ** 2
const roundTripMs = 4
const skewMs = 20 * 60_000
const silenceMs = 2_000
/** While more than these wait, little is written: somebody has to wake the archiver, as on any server. */
const backlogMax = 40
const littlePauseMs = 500
const dropPauseMs = 500
const drainWithinMs = 180_000
const bucketIsGone: FaultPlan = () => ({
  kind: 'answer',
  status: 404,
  code: 'NoSuchBucket',
  executed: false,
})

/** Rejects when a file is missing or differs, or the server noticed more than a delay. Resolves with what there was to see. */
export async function runServerStorm(options: ServerStormOptions): Promise<string> {
  const { ceph, profiles, major, seed } = options
  const bucket = await ceph.createBucket(`server-storm-${major}-${seed}`)
  const user = await ceph.createUser()
  await ceph.allow(bucket, user, archivingActions)
  await profiles.set({ default: user })
  await using proxy = await FaultProxy.start({ target: ceph.endpoint, speaks: 'http' })
  const at = (endpoint: string) => `s3://${bucket}/wal?endpoint=${endpoint}`
  await using bridged = await BridgedServer.start({
    major,
    module: 'repository',
    timeouts: 'default',
    environment: profiles.environment,
    settings: {
      'pgarchivist.repository': at(proxy.endpoint),
      // What is compared has to be there still.
      wal_keep_size: '256MB',
      max_wal_size: '64MB',
      checkpoint_timeout: '30s',
      log_checkpoints: 'off',
    },
  })
  const [cluster] = await bridged.postgres.query<{ id: string }>(
    'SELECT system_identifier::text AS id FROM pg_control_system()',
  )
  const storm = new ServerStorm(options, bridged, proxy, user)
  await bridged.staysUp(async session => {
    await bridged.archives(await bridged.postgres.switchWal())
    const processes = [await bridged.archiverPid(), await bridged.nodePid()]
    await storm.rage(session)
    await bridged.archives(await bridged.postgres.switchWal(), drainWithinMs)
    await bridged.archivesAll(drainWithinMs)
    await storm.remember()
    assert.deepEqual([await bridged.archiverPid(), await bridged.nodePid()], processes)
  })
  const { failed_count } = await bridged.statistics()
  const log = await bridged.postgres.log()
  for (const secret of [user.accessKey, user.secretKey])
    assert(!log.includes(secret), 'a secret is in the log')
  await bridged.postgres.stop('fast')
  await bridged.leavesNobody()
  await storm.judge(at(ceph.endpoint), cluster?.id ?? '')
  return `${storm.text}\n  ${failed_count} failed attempts of the server`
}

class ServerStorm {
  readonly #options: ServerStormOptions
  readonly #bridged: BridgedServer
  readonly #proxy: FaultProxy
  readonly #user: CephUser
  readonly #drops: DropProbe
  /** Digests of what the server takes for archived. */
  readonly #digests = new Map<string, string>()
  readonly #over = new AbortController()
  #slowestWriteMs = 0

  constructor(options: ServerStormOptions, bridged: BridgedServer, proxy: FaultProxy, user: CephUser) {
    this.#options = options
    this.#bridged = bridged
    this.#proxy = proxy
    this.#user = user
    this.#drops = new DropProbe(bridged)
  }

  get text(): string {
    const { major, seed } = this.#options
    return [
      `PostgreSQL ${major}, seed ${seed}: ${this.#digests.size} files archived and compared`,
      `faults: ${JSON.stringify(this.#proxy.counts.faults)}`,
      this.#drops.text,
      `slowest write of 1 MB: ${Math.round(this.#slowestWriteMs)} ms`,
    ].join('\n  ')
  }

  /** Ends in peace, with some files that wait. */
  async rage(session: Client): Promise<void> {
    const whole = async (work: () => Promise<void>) => {
      try {
        await work()
      } finally {
        this.#over.abort()
      }
    }
    const again = async (work: () => Promise<void>) => {
      while (!this.#over.signal.aborted) await work()
    }
    await this.#drops.dropInPeace()
    await Promise.all([
      whole(() => this.#trouble()),
      whole(() => again(() => this.#write(session))),
      whole(() =>
        again(async () => {
          await this.#drops.dropInTrouble()
          await sleep(dropPauseMs)
        }),
      ),
    ])
  }

  /** Takes the digests of all that the server takes for archived and has not removed. */
  async remember(): Promise<number> {
    const wal = join(this.#bridged.postgres.dataDirectory, 'pg_wal')
    let waiting = 0
    for (const status of await readdir(join(wal, 'archive_status'))) {
      if (status.endsWith('.ready')) waiting++
      const name = status.slice(0, -'.done'.length)
      if (!status.endsWith('.done') || this.#digests.has(name)) continue
      // One that was recycled meanwhile is missed at the end.
      const content = await readFile(join(wal, name)).catch(() => undefined)
      if (content?.length === segmentBytes) this.#digests.set(name, digestOf(content))
    }
    return waiting
  }

  /** Everything that was taken for archived is in the store, as somebody sees it who is not behind the proxy. */
  async judge(url: string, systemIdentifier: string): Promise<void> {
    await using repository = await openRepositoryAt(url)
    const numbers = [...this.#digests.keys()].map(segmentNumber).toSorted((a, b) => a - b)
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => (numbers[0] ?? 0) + index),
    )
    for (const [name, digest] of this.#digests) {
      const hash = createHash('sha256')
      const isThere = await repository.fetch(
        { systemIdentifier, name, identities: async () => [] },
        async bytes => void hash.update(bytes),
      )
      assert(isThere, `"${name}" was acknowledged, and is not there`)
      assert.equal(hash.digest('hex'), digest, `"${name}" is stored with other content`)
    }
  }

  /** Each once, in this order, with requests that fail by chance before, between and after. */
  async #trouble(): Promise<void> {
    const { ceph, awayMs, seed, onProgress } = this.#options
    const proxy = this.#proxy
    const chance = randomFaults(seed, stormOdds)
    const acts: [name: string, act: () => Promise<void>][] = [
      [
        'away',
        async () =>
          await this.#while(
            awayMs,
            () => proxy.beginOutage(),
            () => proxy.endOutage(),
          ),
      ],
      [
        'silent',
        async () =>
          await this.#while(
            silenceMs,
            () => this.#silence(true),
            () => this.#silence(false),
          ),
      ],
      [
        'in another time',
        async () =>
          await this.#while(
            awayMs,
            () => (proxy.skewMs = skewMs),
            () => (proxy.skewMs = 0),
          ),
      ],
      [
        'without its bucket',
        async () =>
          await this.#while(
            awayMs,
            () => (proxy.plan = bucketIsGone),
            () => (proxy.plan = chance),
          ),
      ],
      [
        'refusing the credentials',
        async () =>
          await this.#while(
            awayMs,
            () => ceph.suspendUser(this.#user),
            () => ceph.suspendUser(this.#user, false),
          ),
      ],
    ]
    proxy.plan = chance
    proxy.roundTripMs = roundTripMs
    for (const [index, [name, act]] of acts.entries()) {
      await this.#archived(((index + 0.5) / acts.length) * this.#options.files)
      onProgress?.(`${this.#digests.size} files; the store is ${name}`)
      await act()
    }
    await this.#archived(this.#options.files)
    proxy.plan = undefined
  }

  /** Resolves when so many files have been archived; the writer counts them. */
  async #archived(files: number): Promise<void> {
    const { signal } = this.#over
    while (this.#digests.size < files && !signal.aborted) await sleep(100)
  }

  async #while(ms: number, begin: () => unknown, end: () => unknown): Promise<void> {
    await begin()
    await sleep(ms)
    await end()
  }

  #silence(isSilent: boolean): void {
    this.#proxy.acceptsSilently = isSilent
    this.#proxy.cutConnections()
  }

  async #write(session: Client): Promise<void> {
    if ((await this.remember()) > backlogMax) await sleep(littlePauseMs)
    const start = performance.now()
    await session.query(
      `SELECT pg_logical_emit_message(false, 'storm', repeat(md5(random()::text), ${segmentBytes / 32}))`,
    )
    this.#slowestWriteMs = Math.max(this.#slowestWriteMs, performance.now() - start)
  }
}

function digestOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

/** Its place in the order of segments. */
function segmentNumber(name: string): number {
  const segmentsPerFile = 0x100000000 / segmentBytes
  return Number.parseInt(name.slice(8, 16), 16) * segmentsPerFile + Number.parseInt(name.slice(16), 16)
}
