/**
 * What every archive module must do, as tests that any module can be put through:
 *
 * ```ts
 * import { test } from 'node:test'
 * import { archiveModuleConformance } from 'pgarchivist/conformance'
 * import { _PG_archive_module_init } from './my-module.ts'
 *
 * const facts = archiveModuleConformance({
 *   init: _PG_archive_module_init,
 *   newArchive: async () => {
 *     const directory = await mkdtemp('/tmp/archive-')
 *     return {
 *       settings: { 'my_module.directory': directory },
 *       archived: file => readFile(join(directory, file)).catch(() => undefined),
 *       close: () => rm(directory, { recursive: true }),
 *     }
 *   },
 * })
 * for (const { name, prove } of facts) test(name, prove)
 * ```
 *
 * Each fact is proved on an archive of its own. `prove` needs no test runner: it rejects when the fact is not so.
 * It changes the working directory, as the server does, so facts are to be proved one after the other.
 */
import assert from 'node:assert/strict'
import { openResources, ScratchDirectory } from '../system/scratch-directory.ts'
import type { ArchiveModuleCallbacks, ArchiveModuleInit, ArchiveModuleState } from './archive-module.ts'
import {
  type ConformanceServer,
  type ConformanceSettings,
  createConformanceServer,
} from './conformance-server.ts'
import { reportOf } from './error-report.ts'

export type { ConformanceSettings } from './conformance-server.ts'

export interface ConformanceOptions<S = unknown> {
  /** The module. */
  init: ArchiveModuleInit<S>
  /** Makes an empty archive, and says how the module is told to use it and how to look into it. */
  newArchive(): Promise<ConformanceArchive>
  /**
   * Is the module configured when nothing is set? Only asked of one with a `check_configured_cb`.
   * Default: `false`.
   */
  configuredByDefault?: boolean
}

/** An archive, empty at first, outside the data directory. */
export interface ConformanceArchive {
  /** What makes the module archive there. */
  settings: ConformanceSettings
  /**
   * The same with a path that is relative to the data directory, for a module that takes paths.
   * It is called with the data directory, and the fact about relative paths is left out without it.
   */
  relativeSettings?(dataDirectory: string): ConformanceSettings
  /** What the archive would give back under this name, decoded; `undefined` when it has nothing. */
  archived(file: string): Promise<Uint8Array | undefined>
  /** Called when the archive is no longer needed. */
  close?(): void | Promise<void>
}

export interface ConformanceFact {
  /** What is so. */
  name: string
  /** Rejects when it is not so. A fact that does not apply is skipped, by the given context if there is one. */
  prove: (context?: { skip(reason: string): void }) => Promise<void>
}

export interface ConformanceResult {
  name: string
  outcome: 'proved' | 'skipped' | 'failed'
  /** Why it was skipped or failed. */
  reason: string | undefined
}

/** The facts that make a conforming module. */
export function archiveModuleConformance<S>(options: ConformanceOptions<S>): ConformanceFact[] {
  return facts.map(([name, tryOut]) => ({
    name,
    prove: async context => {
      const reason = await tryOut(options)
      if (reason !== undefined) context?.skip(reason)
    },
  }))
}

/** Proves all facts, for use without a test runner. */
export async function checkArchiveModule<S>(options: ConformanceOptions<S>): Promise<ConformanceResult[]> {
  const results: ConformanceResult[] = []
  for (const { name, prove } of archiveModuleConformance(options)) {
    let reason: string | undefined
    let outcome: ConformanceResult['outcome'] = 'proved'
    const skip = (why: string) => {
      outcome = 'skipped'
      reason = why
    }
    try {
      await prove({ skip })
    } catch (error) {
      outcome = 'failed'
      reason = reportOf(error).errmsg
    }
    results.push({ name, outcome, reason })
  }
  return results
}

/** Resolves when the fact is so, with why it was not tried where it does not apply. */
type Trial = (options: ConformanceOptions) => Promise<string | undefined>

const smallSegmentSize = 1024 * 1024 // the smallest that initdb offers, so that most facts cost little
const fullSegmentSize = 16 * smallSegmentSize

/** One of each kind that a server archives. */
const fileNames = [
  '000000010000000000000001',
  '00000002.history',
  '000000010000000000000001.00000028.backup',
  '000000010000000000000002.partial',
] as const
const [segment] = fileNames

const facts: readonly (readonly [name: string, tryOut: Trial])[] = [
  ...fileNames.map(
    file =>
      [
        `${file} is archived under its name, with its content, and the source is left alone`,
        trial(async cluster => {
          const content = contentOf(file)
          await cluster.writeSource(file, content)
          const traits = await cluster.data.traits(`pg_wal/${file}`)
          await cluster.mustArchive(file)
          await cluster.mustHold(file, content)
          assertSame(
            await cluster.data.read(`pg_wal/${file}`),
            content,
            `the source of "${file}" was changed`,
          )
          const same = (await cluster.data.traits(`pg_wal/${file}`)) === traits
          assert(same, `the source of "${file}" was touched`)
        }),
      ] as const,
  ),
  ...fileNames.map(
    file =>
      [
        `${file} is accepted again with the same content, as after a crash of the server`,
        trial(async cluster => {
          await cluster.writeSource(file, contentOf(file))
          await cluster.mustArchive(file)
          await cluster.mustArchive(file, 'it came again with the same content, and was refused')
          await cluster.restart()
          await cluster.mustArchive(file, 'it came again after a restart of the module, and was refused')
          await cluster.mustHold(file, contentOf(file))
        }),
      ] as const,
  ),
  ...fileNames.map(
    file =>
      [
        `${file} is refused with other content, and the first content stays`,
        trial(async cluster => {
          const content = contentOf(file)
          await cluster.writeSource(file, content)
          await cluster.mustArchive(file)
          const longer = new Uint8Array(content.length + 1)
          longer.set(content)
          const others = [contentOf(file, 'other'), content.subarray(0, -1), longer, new Uint8Array()]
          for (const other of others) {
            await cluster.writeSource(file, other)
            await cluster.mustNotArchive(file, 'it came with other content, and was said to be archived')
            await cluster.mustHold(file, content)
          }
          await cluster.restart()
          await cluster.mustNotArchive(
            file,
            'it came with other content after a restart, and was said to be archived',
          )
          await cluster.mustHold(file, content)
        }),
      ] as const,
  ),
  [
    'a source that has vanished is a failure, and can be archived when it is there',
    trial(async cluster => {
      await cluster.writeSource(segment, contentOf(segment))
      await cluster.data.remove(`pg_wal/${segment}`)
      await cluster.mustNotArchive(segment, 'its source does not exist, and it was said to be archived')
      await cluster.mustLack(segment)
      await cluster.writeSource(segment, contentOf(segment))
      await cluster.mustArchive(segment, 'it was refused after an attempt without a source')
      await cluster.mustHold(segment, contentOf(segment))
    }),
  ],
  [
    'a source that has vanished is a failure, also when the file has been archived before',
    trial(async cluster => {
      await cluster.writeSource(segment, contentOf(segment))
      await cluster.mustArchive(segment)
      await cluster.data.remove(`pg_wal/${segment}`)
      await cluster.mustNotArchive(segment, 'its source does not exist, and it was said to be archived')
      await cluster.mustHold(segment, contentOf(segment))
    }),
  ],
  [
    'a source that is a directory is a failure',
    trial(async cluster => {
      await cluster.data.makeDirectory(`pg_wal/${segment}`)
      await cluster.mustNotArchive(segment, 'its source is a directory, and it was said to be archived')
      await cluster.mustLack(segment)
    }),
  ],
  [
    'a source that may not be read is a failure',
    trial(async cluster => {
      await cluster.writeSource(segment, contentOf(segment))
      if (!(await cluster.data.forbid(`pg_wal/${segment}`))) return 'this user may read everything'
      await cluster.mustNotArchive(segment, 'its source cannot be read, and it was said to be archived')
      await cluster.mustLack(segment)
      return undefined
    }),
  ],
  [
    'an empty file is archived as one or refused',
    trial(async cluster => {
      for (const file of fileNames) {
        await cluster.writeSource(file, new Uint8Array())
        if (await cluster.archive(file)) await cluster.mustHold(file, new Uint8Array())
        else await cluster.mustLack(file)
      }
    }),
  ],
  [
    'a segment of 16 MB is archived whole',
    trial(async cluster => {
      const content = contentOf(segment, 'first', fullSegmentSize)
      await cluster.writeSource(segment, content)
      await cluster.mustArchive(segment)
      await cluster.mustHold(segment, content)
    }, fullSegmentSize),
  ],
  [
    'a path in the settings may be relative to the data directory',
    async options => {
      await using archive = await openArchive(options)
      await using cluster = await Cluster.create(options, archive)
      const settings = archive.relativeSettings?.(cluster.data.path)
      if (settings === undefined) return 'no relative settings were given'
      await cluster.start(settings)
      await cluster.writeSource(segment, contentOf(segment))
      await cluster.mustArchive(segment)
      await cluster.mustHold(segment, contentOf(segment))
      return undefined
    },
  ],
  [
    'check_configured_cb is true with the settings, and false without them',
    async options => {
      await using archive = await openArchive(options)
      await using cluster = await Cluster.create(options, archive)
      await cluster.start(archive.settings)
      if (cluster.hasNoCheck()) return 'the module has no check_configured_cb'
      assert.equal(
        await cluster.isConfigured(),
        true,
        cluster.story('check_configured_cb, with the settings'),
      )
      if (options.configuredByDefault === true) return undefined
      await cluster.stop()
      await cluster.start({})
      assert.equal(
        await cluster.isConfigured(),
        false,
        cluster.story('check_configured_cb, without settings'),
      )
      return undefined
    },
  ],
  [
    'a module that is started and shut down again and again holds nothing open',
    async options => {
      await using archive = await openArchive(options)
      await using cluster = await Cluster.create(options, archive)
      await cluster.writeSource(segment, contentOf(segment))
      const round = async () => {
        await cluster.start(archive.settings)
        await cluster.mustArchive(segment)
        await cluster.stop()
      }
      await round() // what the first use brings in once and for all is no leak
      await round()
      const before = await openResources()
      for (let rounds = 0; rounds < leakRounds; rounds++) await round()
      const leaked = (await openResources(before)) - before
      assert(leaked < leakRounds, cluster.story(`${leaked} handles stayed open after ${leakRounds} rounds`))
      return undefined
    },
  ],
  [
    'two servers that archive the same file at the same time both succeed',
    async options => {
      await using archive = await openArchive(options)
      await using one = await Cluster.create(options, archive)
      await using other = await Cluster.create(options, archive)
      for (const cluster of [one, other]) {
        await cluster.start(archive.settings)
        for (const file of fileNames) await cluster.writeSource(file, contentOf(file))
      }
      for (const file of fileNames) {
        await Promise.all(
          [one, other].map(cluster => cluster.mustArchive(file, 'it was refused to one of two')),
        )
        await one.mustHold(file, contentOf(file))
      }
      return undefined
    },
  ],
  [
    'of two servers that archive different files under one name at the same time, at most one succeeds',
    async options => {
      await using archive = await openArchive(options)
      await using one = await Cluster.create(options, archive)
      await using other = await Cluster.create(options, archive)
      await one.start(archive.settings)
      await other.start(archive.settings)
      for (const file of fileNames) {
        await one.writeSource(file, contentOf(file))
        await other.writeSource(file, contentOf(file, 'other'))
        const [first, second] = await Promise.all([one.archive(file), other.archive(file)])
        assert(!(first && second), one.story(`"${file}" was archived twice, with different contents`))
        if (first) await one.mustHold(file, contentOf(file))
        if (second) await other.mustHold(file, contentOf(file, 'other'))
      }
      return undefined
    },
  ],
  [
    'a call that is aborted, before it begins or while it runs, tells the truth, and the next one succeeds',
    trial(async cluster => {
      for (const [index, file] of fileNames.entries()) {
        await cluster.writeSource(file, contentOf(file))
        const abort = new AbortController()
        if (index % 2 === 0) abort.abort()
        const attempt = cluster.archive(file, abort.signal)
        abort.abort()
        if (await attempt) await cluster.mustHold(file, contentOf(file))
        await cluster.mustArchive(file, 'it was refused after a call that was aborted')
        await cluster.mustHold(file, contentOf(file))
      }
    }),
  ],
  [
    'a module with archive_ahead takes several files at once',
    trial(async cluster => {
      if (!cluster.archivesAhead()) return 'the module takes one file at a time'
      const files = ['0A', '0B', '0C', '0D', '0E', '0F', '10', '11'].map(
        digits => segment.slice(0, -2) + digits,
      )
      for (const file of files) await cluster.writeSource(file, contentOf(file))
      await Promise.all(files.map(file => cluster.mustArchive(file, 'it was refused among others')))
      for (const file of files) await cluster.mustHold(file, contentOf(file))
      return undefined
    }),
  ],
]

const leakRounds = 5

/** A fact about one started module with an archive of its own. */
function trial(
  prove: (cluster: Cluster) => Promise<string | undefined | void>,
  segmentSize = smallSegmentSize,
): Trial {
  return async options => {
    await using archive = await openArchive(options)
    await using cluster = await Cluster.create(options, archive, segmentSize)
    await cluster.start(archive.settings)
    return (await prove(cluster)) ?? undefined
  }
}

async function openArchive(options: ConformanceOptions): Promise<ConformanceArchive & AsyncDisposable> {
  const archive = await options.newArchive()
  return {
    settings: archive.settings,
    ...(archive.relativeSettings === undefined
      ? {}
      : { relativeSettings: d => archive.relativeSettings?.(d) ?? {} }),
    archived: file => archive.archived(file),
    [Symbol.asyncDispose]: async () => archive.close?.(),
  }
}

/** A data directory with a module that archives for it. */
class Cluster implements AsyncDisposable {
  readonly data: ScratchDirectory
  readonly #options: ConformanceOptions
  readonly #archive: ConformanceArchive
  readonly #segmentSize: number
  #settings: ConformanceSettings = {}
  #server: ConformanceServer | undefined
  #callbacks: ArchiveModuleCallbacks | undefined
  #state: ArchiveModuleState = { private_data: undefined }
  #leave: Disposable | undefined
  /** What the module threw, for the story of a failure. */
  #thrown: string[] = []

  private constructor(
    options: ConformanceOptions,
    archive: ConformanceArchive,
    data: ScratchDirectory,
    segmentSize: number,
  ) {
    this.#options = options
    this.#archive = archive
    this.data = data
    this.#segmentSize = segmentSize
  }

  static async create(
    options: ConformanceOptions,
    archive: ConformanceArchive,
    segmentSize = smallSegmentSize,
  ): Promise<Cluster> {
    const data = await ScratchDirectory.create('pgarchivist-conformance-')
    await data.makeDirectory('pg_wal')
    return new Cluster(options, archive, data, segmentSize)
  }

  async start(settings: ConformanceSettings): Promise<void> {
    this.#leave ??= this.data.enter()
    this.#settings = settings
    this.#server = createConformanceServer(settings, {
      dataDirectory: this.data.path,
      systemIdentifier,
      segmentSize: this.#segmentSize,
    })
    const callbacks = await this.#options.init(this.#server.server)
    const undeclared = this.#server.undeclared()
    assert.deepEqual(undeclared, [], `the module does not declare the settings ${undeclared.join(', ')}`)
    this.#state = { private_data: undefined }
    await callbacks.startup_cb?.(this.#state)
    this.#callbacks = callbacks
  }

  async stop(): Promise<void> {
    const callbacks = this.#callbacks
    this.#callbacks = undefined
    await callbacks?.shutdown_cb?.(this.#state)
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start(this.#settings)
  }

  async writeSource(file: string, content: Uint8Array): Promise<void> {
    await this.data.write(`pg_wal/${file}`, content)
  }

  /** One attempt, as the server makes it. An exception is a failure; an answer that is no boolean is a mistake. */
  async archive(file: string, signal = new AbortController().signal): Promise<boolean> {
    assert(this.#callbacks !== undefined)
    const path = `${this.data.path}/pg_wal/${file}`
    let answer: unknown
    try {
      answer = await this.#callbacks.archive_file_cb(this.#state, file, path, { signal })
    } catch (error) {
      this.#thrown.push(`ERROR: ${reportOf(error).errmsg}`)
      return false
    }
    const type = typeof answer
    assert(
      type === 'boolean',
      this.story(`archive_file_cb answered with a value of type ${type}, not true or false`),
    )
    return answer === true
  }

  async mustArchive(file: string, otherwise = 'it was not archived'): Promise<void> {
    assert(await this.archive(file), this.story(`"${file}": ${otherwise}`))
  }

  async mustNotArchive(file: string, otherwise: string): Promise<void> {
    assert(!(await this.archive(file)), this.story(`"${file}": ${otherwise}`))
  }

  async mustHold(file: string, content: Uint8Array): Promise<void> {
    const held = await this.#archive.archived(file)
    assert(held !== undefined, this.story(`"${file}": the archive has nothing under this name`))
    assertSame(held, content, this.story(`"${file}": the archive has other content under this name`))
  }

  async mustLack(file: string): Promise<void> {
    const held = await this.#archive.archived(file)
    assert(held === undefined, this.story(`"${file}": the archive has it, yet the attempt failed`))
  }

  hasNoCheck(): boolean {
    return this.#callbacks?.check_configured_cb === undefined
  }

  async isConfigured(): Promise<boolean | undefined> {
    return await this.#callbacks?.check_configured_cb?.(this.#state)
  }

  archivesAhead(): boolean {
    return this.#callbacks?.archive_ahead === true
  }

  /** A complaint with what the module said, which is usually why. */
  story(complaint: string): string {
    const logged = this.#server?.messages.map(({ level, errmsg, errdetail }) =>
      [`${level}: ${errmsg}`, errdetail].filter(text => text !== undefined).join(' — '),
    )
    const said = [...(logged ?? []), ...this.#thrown]
    return said.length === 0 ? complaint : `${complaint}. The module said:\n  ${said.join('\n  ')}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop()
    } finally {
      this.#leave?.[Symbol.dispose]()
      await this.data[Symbol.asyncDispose]()
    }
  }
}

/** Not with deepEqual, which would print megabytes. */
function assertSame(actual: Uint8Array, expected: Uint8Array, complaint: string): void {
  const lengths =
    actual.length === expected.length ? '' : ` (${actual.length} bytes instead of ${expected.length})`
  assert(Buffer.compare(actual, expected) === 0, complaint + lengths)
}

const systemIdentifier = 7_300_000_000_000_000_001n
const pageSize = 8_192
const pageMagic = 0xd116 // of PostgreSQL 17
const longHeaderFlag = 0x0002

/**
 * What a file of this name might hold, so that a module that looks into files finds nothing wrong. The variants are
 * of one length and differ in one byte near the end, where a hasty comparison does not look.
 */
function contentOf(
  file: string,
  variant: 'first' | 'other' = 'first',
  segmentSize = smallSegmentSize,
): Uint8Array {
  if (file.endsWith('.history')) {
    return Buffer.from(`1\t0/30000${variant === 'first' ? '00' : '28'}\tno recovery target specified\n`)
  }
  if (file.endsWith('.backup')) {
    const label = variant === 'first' ? 'nightly' : 'monthly'
    return Buffer.from(`START WAL LOCATION: 0/1000028 (file ${file.slice(0, 24)})\nLABEL: ${label}\n`)
  }
  const content = new Uint8Array(segmentSize)
  const view = new DataView(content.buffer)
  const [timeline, log, number] = [0, 8, 16].map(start => Number(`0x${file.slice(start, start + 8)}`))
  assert(timeline !== undefined && log !== undefined && number !== undefined)
  const address = (BigInt(log) << 32n) + BigInt(number * segmentSize)
  for (let page = 0; page < segmentSize; page += pageSize) {
    view.setUint16(page, pageMagic, true)
    view.setUint16(page + 2, page === 0 ? longHeaderFlag : 0, true)
    view.setUint32(page + 4, timeline, true)
    view.setBigUint64(page + 8, address + BigInt(page), true)
    // Not all alike, and not all compressible: a multiplicative sequence is enough of both.
    for (let offset = page + 40; offset < page + pageSize / 2; offset += 4) {
      view.setUint32(offset, Math.imul(offset, 2_654_435_761), true)
    }
  }
  view.setBigUint64(24, systemIdentifier, true)
  view.setUint32(32, segmentSize, true)
  view.setUint32(36, pageSize, true)
  content[segmentSize - 2] = variant === 'first' ? 1 : 2
  return content
}
