// A server that writes WAL as fast as it is archived, while the process beside its archiver is killed, stopped,
// blocked and replaced at random, and then in peace. What was chosen can be chosen again by its seed.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from 'pg'
import { Blows } from './blows.ts'
import { BridgedServer, until } from './bridged-server.ts'
import { ComparedArchive, segmentBytes } from './compared-archive.ts'
import { DropProbe } from './drop-probe.ts'
import { ProcessLooks } from './process-looks.ts'
import { type Random, randomFrom } from './random.ts'
import { stormModule } from './storm-module.ts'

export interface StormOptions {
  major: number
  seed: number
  /** How long it rages: so many seconds, or until so many files have been archived. */
  lasts: { seconds: number } | { files: number }
  /** Files that are archived in peace afterwards, by one process beside the archiver. */
  calmFiles?: number
  /** The module is given several files at once. */
  archivesAhead?: boolean
  /** Told of every blow. */
  onBlow?: (text: string) => void
  /** Told how far it is, now and then. */
  onProgress?: (text: string) => void
}

const pauseMinMs = 100
const pauseMaxMs = 1_500
/** After so many blows without a file in between it is left alone until there is one. */
const idleBlowsMax = 4
const recoverWithinMs = 60_000
const dropPauseMs = 500
const lookPauseMs = 1_000
/** More than these wait to be archived: nothing is written until it is fewer again. */
const backlogMax = 30
const drainWithinMs = 60_000
const progressEveryMs = 15_000

const filesAtOnce = 8
const calmFilesUsual = 80
/** Looks at the processes in peace, each when nothing waits to be archived. */
const calmLooks = 10

// What differs between early and late looks at a process that keeps nothing. Node collects garbage when it likes.
const archiverGrowthMaxKilobytes = 256
const calmArchiverGrowthMaxKilobytes = 64
const calmNodeGrowthMaxKilobytes = 16 * 1024

/**
 * Rejects when a file is lost, differs, or is archived out of order or twice at once, when the server was restarted or
 * waited for its archiver, or a process grows. Resolves with what there was to see.
 */
export async function runStorm(options: StormOptions): Promise<string> {
  const { major, seed, lasts, archivesAhead = false } = options
  const random = randomFrom(seed)
  await using bridged = await BridgedServer.start({
    major,
    module: stormModule({ archivesAhead }),
    settings: {
      'pgarchivist.archive_ahead': `${filesAtOnce}`,
      // Longer than DROP DATABASE may wait.
      'pgarchivist.file_timeout': '3s',
      // What is compared has to be there still.
      wal_keep_size: '256MB',
      max_wal_size: '64MB',
      checkpoint_timeout: '30s',
      log_checkpoints: 'off',
    },
  })
  const archive = new ComparedArchive(bridged)
  const drops = new DropProbe(bridged)
  const archiverLooks = new ProcessLooks('archiver')
  const nodeLooks = new ProcessLooks('the processes beside it in the storm')
  const blows = await Blows.prepare(bridged, random)
  const calm: string[] = []
  await bridged.staysUp(async session => {
    await bridged.archives(await bridged.postgres.switchWal())
    const archiver = await bridged.archiverPid()
    assert(archiver !== undefined)
    await bridged.nodePid()
    const descriptors = await bridged.descriptors(archiver)
    const storm = new Storm({ options, bridged, archive, session })

    await storm.during(() => drops.dropInPeace())
    const deadline = 'seconds' in lasts ? Date.now() + lasts.seconds * 1_000 : Number.POSITIVE_INFINITY
    const filesWanted = 'files' in lasts ? archive.files + lasts.files : Number.POSITIVE_INFINITY
    const isOver = () => Date.now() >= deadline || archive.files >= filesWanted
    await storm.during(async () => {
      const again = async (act: () => Promise<void>, pauseMs: () => number) => {
        while (!isOver() && !storm.hasFailed) {
          await sleep(pauseMs())
          await act()
        }
      }
      const look = async () => {
        await archiverLooks.look(archiver)
        const node = await bridged.findNode()
        if (node !== undefined) await nodeLooks.look(node)
      }
      await Promise.all([
        again(
          async () => {
            storm.tellBlow(await blows.deal())
            await storm.recovers()
          },
          () => between(pauseMinMs, pauseMaxMs, random),
        ),
        again(
          () => drops.dropInTrouble(),
          () => dropPauseMs,
        ),
        again(look, () => lookPauseMs),
      ])
    })

    await blows.end()
    await storm.drain()
    assert.equal(await bridged.archiverPid(), archiver, 'the archiver was started again')
    assert.deepEqual(await bridged.descriptors(archiver), descriptors)
    archiverLooks.isFlat(archiverGrowthMaxKilobytes)

    const node = await bridged.nodePid()
    const calmArchiverLooks = new ProcessLooks('archiver in peace')
    const calmNodeLooks = new ProcessLooks('the process beside it in peace')
    const filesPerLook = Math.ceil((options.calmFiles ?? calmFilesUsual) / calmLooks)
    const before = archive.files
    for (let look = 0; look < calmLooks; look++) {
      await storm.write(filesPerLook)
      await storm.drain()
      await calmArchiverLooks.look(archiver)
      await calmNodeLooks.look(node)
    }
    calmArchiverLooks.keepsDescriptors()
    calmNodeLooks.keepsDescriptors()
    calmArchiverLooks.isFlat(calmArchiverGrowthMaxKilobytes)
    calmNodeLooks.isFlat(calmNodeGrowthMaxKilobytes)
    assert.equal(await bridged.nodePid(), node, 'the process beside the archiver was started again')
    assert.deepEqual(await bridged.descriptors(archiver), descriptors)
    calm.push(`${archive.files - before} files in peace`, calmArchiverLooks.text, calmNodeLooks.text)
  })
  const { archived_count } = await bridged.statistics()
  const { files } = archive
  assert.equal(archived_count, files, 'the server has counted as many')
  await bridged.postgres.stop('fast')
  await bridged.leavesNobody()
  await archive.isComplete()
  const atOnce = await mostAtOnce(bridged)
  if (archivesAhead) assert(atOnce > 1, 'no file was archived ahead')
  else assert.equal(atOnce, 1)
  return [
    `PostgreSQL ${major}, seed ${seed}: ${files} files archived and compared, at most ${atOnce} at once`,
    await blows.text(),
    drops.text,
    archiverLooks.text,
    nodeLooks.text,
    ...calm,
  ].join('\n  ')
}

/** The writing and comparing that goes on all the time. */
class Storm {
  readonly #options: StormOptions
  readonly #bridged: BridgedServer
  readonly #archive: ComparedArchive
  readonly #session: Client
  readonly #start = Date.now()
  #lastProgress = Date.now()
  #filesAtLastBlow = 0
  #idleBlows = 0
  hasFailed = false

  constructor(given: {
    options: StormOptions
    bridged: BridgedServer
    archive: ComparedArchive
    session: Client
  }) {
    this.#options = given.options
    this.#bridged = given.bridged
    this.#archive = given.archive
    this.#session = given.session
  }

  /** Writes for as long as the other does something. */
  async during(act: () => Promise<void>): Promise<void> {
    const over = new AbortController()
    const writing = async () => {
      while (!over.signal.aborted && !this.hasFailed) await this.#writeOne()
    }
    const acting = async () => {
      try {
        await act()
      } finally {
        over.abort()
      }
    }
    const failing = (error: unknown) => {
      this.hasFailed = true
      throw error
    }
    await Promise.all([writing().catch(failing), acting().catch(failing)])
  }

  async write(files: number): Promise<void> {
    const wanted = this.#archive.files + files
    while (this.#archive.files < wanted) await this.#writeOne()
  }

  /** Resolves when all that was written has been archived and compared. */
  async drain(): Promise<void> {
    await this.#bridged.archives(await this.#bridged.postgres.switchWal(), drainWithinMs)
    await this.#bridged.archivesAll(drainWithinMs)
    await this.#archive.compare()
  }

  tellBlow(blow: string): void {
    this.#options.onBlow?.(`${this.#seconds} s: ${blow}`)
  }

  /** On a machine with much to do a process may not come to archive anything between two blows. */
  async recovers(): Promise<void> {
    if (this.#archive.files > this.#filesAtLastBlow) this.#idleBlows = 0
    else this.#idleBlows++
    if (this.#idleBlows >= idleBlowsMax) {
      const { files } = this.#archive
      await until(
        'a file is archived again',
        async () => this.#archive.files > files || this.hasFailed,
        recoverWithinMs,
      )
      this.#idleBlows = 0
    }
    this.#filesAtLastBlow = this.#archive.files
  }

  get #seconds(): string {
    return ((Date.now() - this.#start) / 1_000).toFixed(1)
  }

  async #writeOne(): Promise<void> {
    await this.#archive.compare()
    await this.#archive.isInOrder()
    if (Date.now() > this.#lastProgress + progressEveryMs) {
      this.#lastProgress = Date.now()
      this.#options.onProgress?.(`${this.#seconds} s: ${this.#archive.files} files`)
    }
    if ((await this.#archive.waiting()) > backlogMax) {
      // An archiver that has given up sleeps for a minute, unless something wakes it.
      await this.#session.query('SELECT pg_reload_conf()')
      await sleep(500)
      return
    }
    await this.#session.query(
      `SELECT pg_logical_emit_message(false, 'storm', repeat(md5(random()::text), ${segmentBytes / 32}))`,
    )
  }
}

/** What the module had to do at once. That a file was given to it twice at once fails. */
async function mostAtOnce(bridged: BridgedServer): Promise<number> {
  let most = 0
  for (const line of await bridged.journal()) {
    assert(!line.startsWith('twice'), line)
    most = Math.max(most, Number(/^at once: (\d+)$/.exec(line)?.[1] ?? 0))
  }
  return most
}

function between(min: number, max: number, random: Random): number {
  return min + random() * (max - min)
}
