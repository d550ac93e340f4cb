// A server that archives through our library, and what the tests of the bridge look at.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { access, mkdir, readdir, readFile, readlink, realpath, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Client } from 'pg'
import { type PostgresOptions, type PostgresServer, startPostgres } from '../support/postgresql-server.ts'
import { buildServerLibrary } from '../support/server-library.ts'
import {
  giveAway,
  memoryDirectory,
  privateDirectory,
  type TemporaryDirectory,
} from '../support/unprivileged.ts'

const run = promisify(execFile)

/** Where the text of a module says so, the directories of its test are put in. */
export interface Places {
  root: string
  archive: string
  /** A file whose presence makes the module misbehave. */
  trouble: string
  /** A file to which the module may append what happens to it. */
  journal: string
}

export interface BridgedServerOptions {
  major: number
  /** The text of the module, or the name of one that exists. */
  module: ((places: Places) => string) | string
  settings?: Record<string, string>
  /** What the postmaster, and all that it starts, has in its environment besides. */
  environment?: Record<string, string>
  /** The trouble is there from the start. */
  isInTrouble?: boolean
  /** Instead of the library that is built for the tests. */
  library?: string
  /** Last part of the path of the data directory. */
  dataName?: string
  /** Of the server's end: short ones unless it says otherwise, so that a test need not wait. */
  timeouts?: 'short' | 'default'
  /** How to start the server, if not in the usual way. */
  startServer?: (options: PostgresOptions) => Promise<PostgresServer>
}

// Nothing but the test ends a segment.
const quietSettings = {
  archive_mode: 'on',
  autovacuum: 'off',
  checkpoint_timeout: '1h',
  log_line_prefix: '%b [%p] ',
}

// That for the start stays as it is: on a busy machine Node was seen to need more than five seconds of it.
const shortTimeouts = {
  'pgarchivist.file_timeout': '1s',
  'pgarchivist.stop_timeout': '1s',
}

// What has not come by then on a machine with much to do will not come.
const patienceMs = 45_000

/** Looks until it is so: files, logs and processes of others announce nothing. */
export async function until(
  what: string,
  look: () => Promise<boolean>,
  withinMs = patienceMs,
): Promise<void> {
  const deadline = Date.now() + withinMs
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs / 1_000} s: ${what}`)
    await sleep(25)
  }
}

const templates = new Map<number, Promise<TemporaryDirectory>>()

/** A cluster to be copied, which takes a fraction of the time of making one. */
function templateOf(major: number): Promise<TemporaryDirectory> {
  let template = templates.get(major)
  if (template === undefined) {
    template = (async () => {
      const directory = await memoryDirectory()
      const dataDirectory = join(directory.path, 'data')
      await using server = await startPostgres({ major, dataDirectory, walSegmentMegabytes: 1 })
      // To be dropped. Made later it would fill some segments.
      await server.query('CREATE DATABASE victim')
      await server.stop('fast')
      return directory
    })()
    templates.set(major, template)
  }
  return template
}

/** To be called when no more servers will be started. */
export async function removeTemplates(): Promise<void> {
  for (const template of templates.values()) await (await template)[Symbol.asyncDispose]()
  templates.clear()
}

export class BridgedServer implements AsyncDisposable {
  readonly postgres: PostgresServer
  readonly places: Places
  readonly #directory: TemporaryDirectory

  private constructor(postgres: PostgresServer, places: Places, directory: TemporaryDirectory) {
    this.postgres = postgres
    this.places = places
    this.#directory = directory
  }

  static async start(options: BridgedServerOptions): Promise<BridgedServer> {
    const { major, settings, environment, dataName = 'data', startServer = startPostgres } = options
    const library = options.library ?? (await buildServerLibrary(major))
    const directory = await memoryDirectory()
    try {
      const root = await realpath(directory.path)
      const at = (name: string) => join(root, name)
      const places = { root, archive: at('archive'), trouble: at('trouble'), journal: at('journal') }
      await privateDirectory(places.archive)
      await writeFor(places.journal, '')
      if (options.isInTrouble) await writeFor(places.trouble, '')
      const module =
        typeof options.module === 'string' ? options.module : await writeModule(places, options.module)
      const dataDirectory = join(root, dataName)
      await run('cp', ['-a', join((await templateOf(major)).path, 'data'), dataDirectory])
      const ours = { archive_library: library, 'pgarchivist.module': module }
      const postgres = await startServer({
        major,
        dataDirectory,
        environment,
        settings: {
          ...quietSettings,
          ...(options.timeouts === 'default' ? {} : shortTimeouts),
          ...ours,
          ...settings,
        },
      })
      return new BridgedServer(postgres, places, directory)
    } catch (error) {
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Another module, to be named in a setting. */
  async writeModule(text: (places: Places) => string, name?: string): Promise<string> {
    return await writeModule(this.places, text, name)
  }

  async makeTrouble(): Promise<void> {
    await writeFor(this.places.trouble, '')
  }

  async endTrouble(): Promise<void> {
    await rm(this.places.trouble, { force: true })
  }

  async journal(): Promise<string[]> {
    return (await readFile(this.places.journal, 'utf8')).split('\n').filter(line => line !== '')
  }

  /**
   * What the log says, without what is before the level, without process numbers, and with a short name for the
   * directory of the test.
   */
  async said(): Promise<string[]> {
    const text = (await this.postgres.log()).replaceAll(this.places.root, '<root>')
    return text
      .split('\n')
      .map(line => line.replace(/^(\w[\w ]* \[\d+\] |\S+ \S+ UTC \[\d+\] )(?=[A-Z]+: {2})/, ''))
      .map(line => line.replaceAll(/\(PID \d+\)/g, '(PID <pid>)'))
  }

  async saidTimes(line: string | RegExp): Promise<number> {
    const lines = await this.said()
    return lines.filter(each => (typeof line === 'string' ? each === line : line.test(each))).length
  }

  /** Resolves when the whole line is in the log so many times. */
  async says(line: string | RegExp, { times = 1, withinMs = patienceMs } = {}): Promise<void> {
    try {
      await until('', async () => (await this.saidTimes(line)) >= times, withinMs)
    } catch {
      const tail = (await this.said()).slice(-40).join('\n')
      assert.fail(`not in the log within ${withinMs / 1_000} s, ${times} times: ${line}\nIts end:\n${tail}`)
    }
  }

  /** The same, of an archiver that may have to be started first, for which something has to wake the postmaster. */
  async nudgeUntilSays(line: string | RegExp): Promise<void> {
    await until('', async () => {
      if ((await this.saidTimes(line)) > 0) return true
      await sleep(100)
      await this.postgres.query('SELECT')
      return false
    }).catch(() => {})
    await this.says(line, { withinMs: 0 })
  }

  isDone(name: string): Promise<boolean> {
    return exists(join(this.postgres.dataDirectory, 'pg_wal/archive_status', `${name}.done`))
  }

  /**
   * Resolves when the server knows that the file is archived. Wakes a postmaster that has an archiver to start again,
   * and an archiver that has given up for a minute.
   */
  async archives(name: string, withinMs = patienceMs): Promise<void> {
    let looks = 0
    try {
      await until(
        '',
        async () => {
          if (await this.isDone(name)) return true
          await sleep(100)
          const nudge = ++looks % 50 === 0 ? 'SELECT pg_reload_conf()' : 'SELECT'
          await this.postgres.query(nudge).catch(() => undefined)
          return false
        },
        withinMs,
      )
    } catch {
      const tail = (await this.said()).slice(-40).join('\n')
      assert.fail(`"${name}" is not archived within ${withinMs / 1_000} s. The log ends with:\n${tail}`)
    }
  }

  /** Resolves when nothing waits to be archived. Wakes an archiver that has given up for a minute. */
  async archivesAll(withinMs = patienceMs): Promise<void> {
    const status = join(this.postgres.dataDirectory, 'pg_wal/archive_status')
    let looks = 0
    await until(
      'all files are archived',
      async () => {
        if (++looks % 100 === 0) await this.postgres.query('SELECT pg_reload_conf()')
        return !(await readdir(status)).some(name => name.endsWith('.ready'))
      },
      withinMs,
    )
  }

  /** A WAL file made by hand, and its status file. It is found when a segment ends. */
  async makeReady(name: string, content: string | Uint8Array): Promise<void> {
    const wal = join(this.postgres.dataDirectory, 'pg_wal')
    await writeFor(join(wal, name), content)
    await writeFor(join(wal, 'archive_status', `${name}.ready`), '')
  }

  async statistics(): Promise<Statistics> {
    const [row] = await this.postgres.query<Statistics>(
      `SELECT archived_count::int, last_archived_wal, failed_count::int, last_failed_wal FROM pg_stat_archiver`,
    )
    assert(row !== undefined)
    return row
  }

  /** Resolves when the statistics are so; the archiver's come a moment after its deeds. */
  async counts(expected: Partial<Statistics>): Promise<void> {
    const names = Object.keys(expected) as Array<keyof Statistics>
    let statistics = await this.statistics()
    await until('', async () => {
      statistics = await this.statistics()
      return names.every(name => statistics[name] === expected[name])
    }).catch(() => {})
    assert.deepEqual(Object.fromEntries(names.map(name => [name, statistics[name]])), expected)
  }

  async archiverPid(): Promise<number | undefined> {
    const [row] = await this.postgres.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'`,
    )
    return row?.pid
  }

  /** The process beside the archiver, if there is one and it has become Node. */
  async findNode(): Promise<number | undefined> {
    const archiver = await this.archiverPid()
    if (archiver === undefined) return undefined
    for (const pid of await descendantsOf(archiver)) if (await isNode(pid)) return pid
    return undefined
  }

  /** The process between the archiver and Node, if there is one. */
  async findKeeper(node: number): Promise<number | undefined> {
    const parent = (await statOf(node))?.parent
    return parent === undefined || parent === (await this.archiverPid()) ? undefined : parent
  }

  /** Resolves with it when there is one. */
  async nodePid(): Promise<number> {
    let pid: number | undefined
    await until('there is a process beside the archiver', async () => {
      pid = await this.findNode()
      return pid !== undefined
    })
    assert(pid !== undefined)
    return pid
  }

  /** What a process has open. */
  async descriptors(pid: number): Promise<string[]> {
    const directory = `/proc/${pid}/fd`
    const targets = (await readdir(directory)).map(fd => readlink(join(directory, fd)).catch(() => ''))
    return (await Promise.all(targets)).map(target => target.replace(/\d+/g, '<number>')).toSorted()
  }

  /** All processes whose working directory is the data directory: the server's, and those of modules. */
  async processes(): Promise<string[]> {
    const found: string[] = []
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue
      const directory = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
      if (directory !== this.postgres.dataDirectory) continue
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      if (command !== '') found.push(`${pid} ${command.replaceAll('\0', ' ').trim()}`)
    }
    return found
  }

  /** Those among them that are not the server's own. */
  async ownProcesses(): Promise<OwnProcess[]> {
    const archiver = await this.archiverPid().catch(() => undefined)
    const pids = new Set(archiver === undefined ? [] : await descendantsOf(archiver))
    for (const line of await this.processes()) {
      const pid = Number.parseInt(line)
      const program = await readlink(`/proc/${pid}/exe`).catch(() => '')
      if (!program.startsWith(this.postgres.programDirectory)) pids.add(pid)
    }
    const found: OwnProcess[] = []
    for (const pid of pids) {
      const stat = await statOf(pid)
      if (stat !== undefined) found.push({ pid, startTime: stat.startTime })
    }
    return found
  }

  /** Nobody works in the data directory any more, five seconds after the server's end at the latest. */
  async leavesNobody(): Promise<void> {
    let left: string[] = []
    await until(
      '',
      async () => {
        left = await this.processes()
        return left.length === 0
      },
      5_000,
    ).catch(() => assert.deepEqual(left, [], 'processes are left behind'))
  }

  /** Calls it while a session watches whether the server goes on as if nothing were. */
  async staysUp(during: (session: Client) => Promise<void>): Promise<void> {
    const postmaster = this.postgres.pid
    const session = await this.postgres.connect()
    try {
      const backend = async () =>
        (await session.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid
      const before = await backend()
      await during(session)
      assert.equal(await backend(), before)
      assert.equal(this.postgres.pid, postmaster)
    } finally {
      await session.end()
    }
    assert.equal(await this.saidTimes('LOG:  terminating any other active server processes'), 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.postgres[Symbol.asyncDispose]()
    await this.#directory[Symbol.asyncDispose]()
  }
}

/** Its start time makes sure that a number is not another process's by now. */
export interface OwnProcess {
  pid: number
  startTime: string
}

export interface Statistics {
  archived_count: number
  last_archived_wal: string | null
  failed_count: number
  last_failed_wal: string | null
}

async function writeModule(
  places: Places,
  text: (places: Places) => string,
  name = 'module.ts',
): Promise<string> {
  const path = join(places.root, name)
  await writeFor(path, text(places))
  return path
}

export async function writeFor(path: string, content: string | Uint8Array): Promise<void> {
  await writeFile(path, content, { mode: 0o600 })
  await giveAway(path)
}

/** A directory that the server may enter. */
export async function directoryFor(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
  await giveAway(path)
}

export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

/** A process's children, whichever of its threads started them. */
export async function childrenOf(pid: number): Promise<number[]> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => [])
  const lists = threads.map(
    async thread => await readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch(() => ''),
  )
  const text = (await Promise.all(lists)).join(' ')
  return text
    .split(' ')
    .filter(each => each !== '')
    .map(Number)
}

/** Its children, and theirs, from the nearest to the farthest. */
export async function descendantsOf(pid: number): Promise<number[]> {
  const children = await childrenOf(pid)
  return [...children, ...(await Promise.all(children.map(descendantsOf))).flat()]
}

async function isNode(pid: number): Promise<boolean> {
  return (await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')).startsWith('pgarchivist: module')
}

/** Is there such a process, and has it not ended? */
export async function isAlive(pid: number): Promise<boolean> {
  return (await statOf(pid)) !== undefined
}

/** The same, and it is the one that it was. */
export async function isStillAlive({ pid, startTime }: OwnProcess): Promise<boolean> {
  return (await statOf(pid))?.startTime === startTime
}

/** What the kernel tells of a process that has not ended. */
export async function statOf(pid: number): Promise<{ parent: number; startTime: string } | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '')
  // Its name stands in parentheses, and may contain anything.
  const [state = '', parent, ...rest] = text.slice(text.lastIndexOf(')') + 2).split(' ')
  if (state === '' || state === 'Z' || state === 'X') return undefined
  return { parent: Number(parent), startTime: rest[17] ?? '' }
}
