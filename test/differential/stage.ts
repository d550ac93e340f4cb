import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import {
  chmod,
  type FileHandle,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { giveAway, privateDirectory, unprivileged, unprivilegedEnvironment } from '../support/unprivileged.ts'
import { type Contestant, noStatistics, type Statistics } from './contestant.ts'
import type { Scene } from './script.ts'
import { settle } from './settle.ts'

const run = promisify(execFile)

/** What can be seen of an archiver after a scene. */
export interface Observation {
  /** What the archiver said in this scene, in its order. */
  archiver: string[]
  /** What the postmaster or our supervisor said about the archiver and its settings. */
  postmaster: string[]
  /** The counts are those of this scene alone, and the times say whether they lie in it. */
  statistics: Record<keyof Statistics, string | number | null>
  /** All of `archive_status`. */
  status: string[]
  /** `DIRECTORY/NAME, SIZE bytes` of all that is archived. */
  archived: string[]
  /** What else the scene found worth a look. */
  notes: string[]
}

/** A WAL file that has no end yet, so that the archiver stays with it. */
export interface HeldFile {
  /** Resolves when the archiver reads it. */
  opened(): Promise<void>
  /** The archiver has begun to write its copy. */
  copying(): Promise<void>
  /** Puts a whole file in its place, for the next attempt; the one that is going on stays where it is. */
  replace(): Promise<void>
  /** Lets the attempt read to the end, and the file is as any other. */
  release(): Promise<void>
  /** When whoever read it is gone. */
  letGo(): Promise<void>
}

// Lines of the server about its own inner life, which come along with DEBUG3. Our archiver has no such lines.
const innerLife = /^DEBUG: {2}(proc_exit\(|shmem_exit\(|exit\(|find_in_\w+: )/

const aboutTheArchiver =
  /^\w+: {2}(received .* (request|files)$|parameter "(archive_|basic_archive\.)|archiver process )/

const attempt = /^DEBUG: {2}(archiving "[^"]+" via |executing archive command )/

/** One contestant while the script is played to it: what the script does to it, and what it waits for. */
export class Stage {
  readonly contestant: Contestant
  readonly walDirectory: string
  readonly secondArchive: string
  #linesBefore = 0
  #statisticsBefore = noStatistics
  #timeBefore = Date.now()
  /** Attempts that were made when the server could no longer be asked for statistics. */
  #attemptsWhileDown = 0
  readonly #notes: string[] = []
  readonly #compared = new Set<string>()
  #firstSegment: string | undefined
  #lastSegment = ''
  #backupOffset: RegExp | undefined
  #paused: number | undefined

  constructor(contestant: Contestant) {
    this.contestant = contestant
    this.walDirectory = join(contestant.server.dataDirectory, 'pg_wal')
    this.secondArchive = `${contestant.archiveDirectory}-2`
  }

  /** Ends the current segment, which wakes the archiver as in real life; its name. */
  async segment(): Promise<string> {
    this.#lastSegment = await this.contestant.server.switchWal()
    this.#firstSegment ??= this.#lastSegment
    return this.#lastSegment
  }

  get firstSegment(): string {
    return this.#firstSegment ?? ''
  }

  /** The name of the segment that will be ended next. Writes to it, so that it will be ended at a shutdown too. */
  async upcomingSegment(): Promise<string> {
    const client = await this.contestant.server.connect()
    try {
      await client.query(`SELECT pg_logical_emit_message(false, 'test', 'something to end a segment after')`)
      const { rows } = await client.query<{ name: string }>(
        'SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS name',
      )
      return rows[0]?.name ?? ''
    } finally {
      await client.end()
    }
  }

  /** A backup from its start to its stop, which waits until everything is archived. */
  async backup(): Promise<void> {
    const client = await this.contestant.server.connect({ statement_timeout: 30_000 })
    try {
      await client.query(`SELECT pg_backup_start('differential', true)`)
      await client.query('SELECT pg_backup_stop(true)')
    } finally {
      await client.end()
    }
    // Where in its segment a backup starts depends on what the server happens to log meanwhile.
    const name = (await readdir(this.walDirectory)).find(each => each.endsWith('.backup')) ?? ''
    this.#backupOffset = new RegExp(`(?<=${name.slice(0, 24)}\\.)${name.slice(25, 33)}(?=\\.backup)`, 'g')
  }

  /** Keeps the archiver still while files are made, so that it finds all of them at once. */
  async pause(): Promise<void> {
    const pid = await this.contestant.archiverPid()
    assert(pid !== undefined, 'there is no archiver that could be paused')
    process.kill(pid, 'SIGSTOP')
    this.#paused = pid
  }

  resume(): void {
    if (this.#paused !== undefined) process.kill(this.#paused, 'SIGCONT')
    this.#paused = undefined
  }

  /** Ends the archiver process as the kernel does when memory is short. */
  async kill(): Promise<void> {
    const pid = await this.contestant.archiverPid()
    assert(pid !== undefined, 'there is no archiver that could be killed')
    process.kill(pid, 'SIGKILL')
  }

  /** A WAL file made by hand, and its status file. */
  async ready(...names: string[]): Promise<void> {
    for (const name of names) {
      await this.#write(join(this.walDirectory, name), contentOf(name))
      await this.onlyStatus(name)
    }
  }

  /** The status file alone. */
  async onlyStatus(...names: string[]): Promise<void> {
    for (const name of names) await this.#write(this.statusPath(`${name}.ready`), '')
  }

  /** What a crash leaves: the file is archived, and its status file is as before. */
  async forgetDone(name: string): Promise<void> {
    await rename(this.statusPath(`${name}.done`), this.statusPath(`${name}.ready`))
  }

  /** A ready WAL file that the archiver can open and cannot read to its end. */
  async hold(name: string): Promise<HeldFile> {
    const path = join(this.walDirectory, name)
    await run('mkfifo', [path], { ...unprivileged, env: unprivilegedEnvironment })
    await this.onlyStatus(name)
    let end: FileHandle | undefined
    const opened = () =>
      this.#await(`"${name}" is being read`, async () => {
        // Fails as long as nobody has opened the other end.
        end = await open(path, constants.O_WRONLY | constants.O_NONBLOCK)
        return true
      })
    const copying = () =>
      this.#await(`"${name}" has a temporary file in the archive`, async () => {
        const names = await readdir(this.contestant.archiveDirectory)
        return names.some(each => each.startsWith(`archtemp.${name}.`))
      })
    const replace = async () => {
      await this.#write(`${path}.whole`, contentOf(name))
      await rename(`${path}.whole`, path)
    }
    const letGo = async () => {
      await end?.close()
    }
    const release = async () => {
      // Before the end, after which the archiver may read it once more.
      await replace()
      await end?.write(contentOf(name))
      await letGo()
    }
    return { opened, copying, replace, release, letGo }
  }

  /** A file that is in the archive already. */
  async archivedBefore(name: string, content = contentOf(name), mode = 0o600): Promise<string> {
    const path = join(this.contestant.archiveDirectory, name)
    await this.#write(path, content)
    await chmod(path, mode)
    return path
  }

  async moveArchiveAway(): Promise<void> {
    await rename(this.contestant.archiveDirectory, `${this.contestant.archiveDirectory}-away`)
  }

  async moveArchiveBack(): Promise<void> {
    await rename(`${this.contestant.archiveDirectory}-away`, this.contestant.archiveDirectory)
  }

  async makeSecondArchive(): Promise<void> {
    await privateDirectory(this.secondArchive)
  }

  async #write(path: string, content: string): Promise<void> {
    await writeFile(path, content, { mode: 0o600 })
    await giveAway(path)
  }

  statusPath(statusFile: string): string {
    return join(this.walDirectory, 'archive_status', statusFile)
  }

  note(text: string): void {
    this.#notes.push(text)
  }

  async isDone(name: string): Promise<boolean> {
    const there = await readdir(this.statusPath(''))
    return there.includes(`${name}.done`) && !there.includes(`${name}.ready`)
  }

  async done(name: string): Promise<void> {
    await this.#await(`"${name}" is archived`, () => this.isDone(name))
  }

  /** How many lines of the archiver in this scene have the text. */
  async saidTimes(text: string): Promise<number> {
    return (await this.#archiverLines()).filter(line => line.includes(text)).length
  }

  async said(text: string, times = 1): Promise<void> {
    await this.#await(`${times} × ${text}`, async () => (await this.saidTimes(text)) >= times)
  }

  async either(...conditions: Array<() => Promise<boolean>>): Promise<void> {
    await this.#await('one of several things', async () => {
      for (const condition of conditions) if (await condition()) return true
      return false
    })
  }

  /**
   * From here on all or nothing that is archived is counted. Before version 18 the server writes its statistics when it
   * has made its last checkpoint, while its archiver still works; without waiting for that, how much is counted would
   * depend on which of them is faster.
   */
  async lastCycleBegins(): Promise<void> {
    if (this.contestant.countsLastCycle) {
      await this.#await('the shutdown has begun', async () =>
        (await this.#lines()).some(({ text }) => text === 'LOG:  received fast shutdown request'),
      )
    } else {
      // There while the server is down, and gone when it has been read at the start.
      const written = join(this.contestant.server.dataDirectory, 'pg_stat/pgstat.stat')
      await this.#await('the statistics are written', async () => (await stat(written)).isFile())
    }
  }

  /** The server takes connections, also where it has crashed and starts again by itself. */
  async serverIsBack(): Promise<void> {
    await this.#await('the server takes connections', async () => {
      await this.contestant.server.query('SELECT')
      return true
    })
  }

  async #await(what: string, look: () => Promise<boolean>): Promise<void> {
    let looks = 0
    try {
      await settle(what, async () => {
        if (++looks % 20 === 0) await this.contestant.nudge()
        return await look()
      })
    } catch (cause) {
      const lines = (await this.#lines()).filter(
        ({ from, text }) => from === 'archiver' || !text.startsWith('DEBUG'),
      )
      const said = lines.slice(-40).map(({ from, text }) => `${from} ${text}`)
      const message = `${this.contestant.name}: ${(cause as Error).message}; it said:\n${said.join('\n')}`
      throw new Error(message, { cause })
    }
  }

  async #lines() {
    return (await this.contestant.log()).slice(this.#linesBefore)
  }

  async #archiverLines(): Promise<string[]> {
    return (await this.#lines()).filter(({ from }) => from === 'archiver').map(({ text }) => text)
  }

  /** What has happened since the observation before. Resolves when all of it has been counted. */
  async observe({ statistics: known }: Pick<Scene, 'statistics'>): Promise<Observation> {
    const statistics =
      known === 'unreachable' ? this.#statisticsBefore : await this.#settledStatistics(known === 'incomplete')
    const lines = await this.#lines()
    const postmaster = lines
      .filter(({ from, text }) => from === 'postmaster' || text.includes('  parameter "'))
      .filter(({ text }) => aboutTheArchiver.test(text))
    const archiver = lines
      .filter(({ from, text }) => from === 'archiver' && !text.includes('  parameter "'))
      .filter(({ text }) => !innerLife.test(text))
    const before = this.#statisticsBefore
    const whether = (time: Date | null) =>
      time === null ? null : time.getTime() >= this.#timeBefore ? 'in this scene' : 'earlier'
    const observation: Observation = {
      archiver: archiver.map(({ text }) => this.#normalised(text)),
      postmaster: postmaster.map(({ text }) => this.#normalised(text)),
      statistics: {
        ...statistics,
        archived_count: statistics.archived_count - before.archived_count,
        last_archived_time: whether(statistics.last_archived_time),
        failed_count: statistics.failed_count - before.failed_count,
        last_failed_time: whether(statistics.last_failed_time),
      },
      status: (await readdir(this.statusPath(''))).toSorted().map(name => this.#normalised(name)),
      archived: await this.#archivedFiles(),
      notes: this.#notes.splice(0),
    }
    this.#statisticsBefore = statistics
    this.#linesBefore += lines.length
    this.#timeBefore = Date.now()
    this.#attemptsWhileDown =
      known === 'unreachable' ? lines.filter(({ text }) => attempt.test(text)).length : 0
    return observation
  }

  /** Where counts have been lost, only the last name can be waited for. */
  async #settledStatistics(areIncomplete: boolean): Promise<Statistics> {
    let statistics = this.#statisticsBefore
    const before = statistics.archived_count + statistics.failed_count
    await this.#await('all attempts are counted', async () => {
      statistics = await this.contestant.statistics()
      if (areIncomplete) return statistics.last_archived_wal === this.#lastSegment
      const attempts = (await this.#archiverLines()).filter(line => attempt.test(line)).length
      const expected = attempts + (this.contestant.countsLastCycle ? this.#attemptsWhileDown : 0)
      const counted = statistics.archived_count + statistics.failed_count - before
      return counted === expected
    })
    return statistics
  }

  /** Each file is compared with its source, byte by byte, when it is seen for the first time. */
  async #archivedFiles(): Promise<string[]> {
    const files: string[] = []
    for (const directory of [this.contestant.archiveDirectory, this.secondArchive]) {
      const names = await readdir(directory).catch(() => [])
      for (const name of names.toSorted()) {
        const path = join(directory, name)
        const { size } = await stat(path)
        files.push(this.#normalised(`${path}, ${size} bytes`))
        if (name.startsWith('archtemp.') || this.#compared.has(path)) continue
        const [copy, source] = await Promise.all([readFile(path), readFile(join(this.walDirectory, name))])
        assert(copy.equals(source), `${this.contestant.name}: "${name}" differs from its source`)
        this.#compared.add(path)
      }
    }
    return files
  }

  #normalised(text: string): string {
    const { archiveDirectory, server } = this.contestant
    const named = text
      .replaceAll(this.secondArchive, '<second archive>')
      .replaceAll(archiveDirectory, '<archive>')
      .replaceAll(server.dataDirectory, '<data>')
      .replaceAll(/\(PID \d+\)/g, '(PID <pid>)')
      .replaceAll(/(long){100,}/g, '<long>')
      // Ours; what contrib's module makes of it is one of the differences.
      .replaceAll(/(\barchtemp\.[0-9A-F]{24}\.)[0-9a-f]{16}\b/g, '$1<owner>')
    return this.#backupOffset === undefined ? named : named.replaceAll(this.#backupOffset, '<offset>')
  }

  /** Removes what stands in the way. */
  async remove(path: string): Promise<void> {
    await rm(path)
  }
}

/** Such files are not segments to the server, so they need not be as long. */
function contentOf(name: string): string {
  return `the content of ${name}\n`.repeat(1_000)
}
