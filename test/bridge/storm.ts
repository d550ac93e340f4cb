// A server that writes WAL as fast as it is archived, while the process beside its archiver is killed, stopped and
// blocked at random. What was chosen can be chosen again by its seed.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BridgedServer, type Places, writeFor } from './bridged-server.ts'

export interface StormOptions {
  major: number
  seed: number
  seconds: number
  progress?: (text: string) => void
}

export interface StormReport {
  files: number
  blows: Map<Blow, number>
  text: string
}

type Blow = (typeof blows)[number]

const blows = [
  'killed',
  'stopped',
  'stopped for a moment',
  'blocked',
  'ended by the module',
  'silent',
  'failing',
] as const

/** Those that the module deals itself, when it is given the next file. */
const ownBlows: Partial<Record<Blow, string>> = {
  blocked: 'for (;;);',
  'ended by the module': 'process.exit(0)',
  silent: 'await new Promise(resolve => setTimeout(resolve, 1500))',
  failing: `throw new Error('a storm')`,
}

const pauseMinMs = 100
const pauseMaxMs = 1_500
/** More than these wait to be archived: nothing is written until it is fewer again. */
const backlogMax = 30
const segmentBytes = 1024 * 1024
const drainWithinMs = 60_000

// What differs between two looks at a process that keeps nothing.
const archiverGrowthMaxKilobytes = 4 * 1024
const nodeGrowthMaxKilobytes = 32 * 1024
/** Files that are archived in peace afterwards, before each of two looks at the process beside the archiver. */
const calmFiles = 40

/** Never replaces a file, accepts one that it has, and gives a copy its name when it is complete. */
const module = ({ archive, trouble }: Places) => `
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  return {
    async archive_file_cb(state, file, path) {
      let blow = ''
      try {
        blow = readFileSync('${trouble}', 'utf8')
        rmSync('${trouble}')
      } catch {}
      switch (blow) {
        ${Object.entries(ownBlows)
          .map(([blow, statements]) => `case '${blow}': ${statements}`)
          .join('\n        break\n        ')}
      }
      const archived = '${archive}/' + file
      if (existsSync(archived)) {
        if (readFileSync(archived).equals(readFileSync(path))) return true
        server.ereport('ERROR', { errmsg: 'archive file "' + file + '" already exists with other content' })
      }
      copyFileSync(path, archived + '.incomplete')
      renameSync(archived + '.incomplete', archived)
      return true
    },
  }
}
`

/** Rejects when a file is lost or differs, the server was restarted, or a process grows. */
export async function runStorm({ major, seed, seconds, progress }: StormOptions): Promise<StormReport> {
  const random = randomFrom(seed)
  const dealt = new Map<Blow, number>()
  const startTime = Date.now()
  await using bridged = await BridgedServer.start({
    major,
    module,
    // What is compared has to be there still.
    settings: { wal_keep_size: '256MB', max_wal_size: '64MB', checkpoint_timeout: '30s' },
  })
  const archive = new ComparedArchive(bridged)
  await bridged.staysUp(async session => {
    await bridged.archives(await bridged.postgres.switchWal())
    const archiver = await bridged.archiverPid()
    assert(archiver !== undefined)
    await bridged.nodePid()
    const descriptors = await bridged.descriptors(archiver)
    const kilobytes = await residentKilobytes(archiver)

    const over = Date.now() + seconds * 1_000
    const write = async () => {
      while (Date.now() < over) {
        await archive.compare()
        if ((await archive.waiting()).length > backlogMax) {
          // An archiver that has given up sleeps for a minute, unless something wakes it.
          await session.query('SELECT pg_reload_conf()')
          await sleep(500)
        } else
          await session.query(`SELECT pg_logical_emit_message(false, 'storm', repeat('x', ${segmentBytes}))`)
      }
    }
    const blow = async () => {
      while (Date.now() < over) {
        await sleep(pauseMinMs + random() * (pauseMaxMs - pauseMinMs))
        const kind = blows[Math.floor(random() * blows.length)] ?? 'killed'
        dealt.set(kind, (dealt.get(kind) ?? 0) + 1)
        progress?.(`${((Date.now() - startTime) / 1_000).toFixed(1)} s: ${kind}`)
        await deal(bridged, kind)
      }
    }
    await Promise.all([write(), blow()])

    await bridged.endTrouble()
    const last = await bridged.postgres.switchWal()
    await bridged.archives(last, drainWithinMs)
    await bridged.archivesAll(drainWithinMs)
    await archive.compare()
    assert.equal(await bridged.archiverPid(), archiver, 'the archiver was started again')
    assert.deepEqual(await bridged.descriptors(archiver), descriptors)
    const growth = (await residentKilobytes(archiver)) - kilobytes
    assert(growth < archiverGrowthMaxKilobytes, `the archiver has grown by ${growth} kB`)

    const node = await bridged.nodePid()
    const looks: number[] = []
    for (let look = 0; look < 2; look++) {
      for (let file = 0; file < calmFiles; file++)
        await session.query(`SELECT pg_logical_emit_message(false, 'calm', repeat('x', ${segmentBytes}))`)
      await bridged.archives(await bridged.postgres.switchWal(), drainWithinMs)
      await bridged.archivesAll(drainWithinMs)
      looks.push(await residentKilobytes(node))
    }
    const [early = 0, late = 0] = looks
    assert(
      late - early < nodeGrowthMaxKilobytes,
      `the process beside the archiver: ${early} kB, then ${late} kB`,
    )
    progress?.(`the archiver has grown by ${growth} kB, the process beside it from ${early} kB to ${late} kB`)
  })
  await bridged.postgres.stop('fast')
  await bridged.leavesNobody()
  const files = await archive.isComplete()
  const counts = Array.from(dealt, ([kind, count]) => `${count} × ${kind}`).join(', ')
  return { files, blows: dealt, text: `seed ${seed}: ${files} files archived; ${counts}` }
}

async function deal(bridged: BridgedServer, kind: Blow): Promise<void> {
  if (kind in ownBlows) {
    await writeFor(bridged.places.trouble, kind)
    return
  }
  const pid = await bridged.findNode()
  if (pid === undefined) return
  try {
    process.kill(pid, kind === 'killed' ? 'SIGKILL' : 'SIGSTOP')
    if (kind === 'stopped for a moment') {
      await sleep(300)
      process.kill(pid, 'SIGCONT')
    }
  } catch {
    // It has ended by itself meanwhile.
  }
}

/** The archive, each of whose files is compared while its source is there. */
class ComparedArchive {
  readonly #bridged: BridgedServer
  readonly #compared = new Set<string>()

  constructor(bridged: BridgedServer) {
    this.#bridged = bridged
  }

  get #wal(): string {
    return join(this.#bridged.postgres.dataDirectory, 'pg_wal')
  }

  async waiting(): Promise<string[]> {
    return (await readdir(join(this.#wal, 'archive_status'))).filter(name => name.endsWith('.ready'))
  }

  /** All that the server takes for archived has to be there, byte for byte. */
  async compare(): Promise<void> {
    for (const status of await readdir(join(this.#wal, 'archive_status'))) {
      if (!status.endsWith('.done')) continue
      const name = status.slice(0, -'.done'.length)
      if (this.#compared.has(name)) continue
      // A segment that has been recycled between the two looks has gone; it is then missed by isComplete().
      const source = await readFile(join(this.#wal, name)).catch(() => undefined)
      if (source === undefined) continue
      const copy = await readFile(join(this.#bridged.places.archive, name))
      assert(copy.equals(source), `"${name}" differs from its source`)
      this.#compared.add(name)
    }
  }

  /** No segment is missing between the first and the last one, and all were compared. Returns how many there are. */
  async isComplete(): Promise<number> {
    await this.compare()
    const names = (await readdir(this.#bridged.places.archive)).filter(name => /^[0-9A-F]{24}$/.test(name))
    const numbers = names.map(segmentNumber).toSorted((a, b) => a - b)
    const [first = 0] = numbers
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => first + index),
    )
    assert.deepEqual(
      names.filter(name => !this.#compared.has(name)),
      [],
    )
    return names.length
  }
}

/** Its place in the order of segments, where each has 1 MB. */
function segmentNumber(name: string): number {
  const segmentsPerFile = 0x100000000 / segmentBytes
  return Number.parseInt(name.slice(8, 16), 16) * segmentsPerFile + Number.parseInt(name.slice(16), 16)
}

async function residentKilobytes(pid: number): Promise<number> {
  // Without the memory that all processes of the server share, which comes in as it is touched.
  const status = await readFile(`/proc/${pid}/status`, 'latin1')
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1])
}

/** mulberry32: small, and the same everywhere. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}
