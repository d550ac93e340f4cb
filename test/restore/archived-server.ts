// A server whose WAL is archived to a repository by the test itself, and servers that recover from there.

import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openRepository } from '../../src/cli/open-repository.ts'
import { walSource } from '../../src/modules/repository.ts'
import { realFiles } from '../../src/system/real-files.ts'
import { inArchiveOrder } from '../../src/wal/archive-order.ts'
import { type PostgresServer, startPostgres } from '../support/postgresql-server.ts'
import {
  checkout,
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
} from '../support/unprivileged.ts'

const patienceMs = 60_000

/** Waits until it is so; fails with what is awaited. */
export async function until(
  what: string,
  isSo: () => Promise<boolean> | boolean,
  ms = patienceMs,
): Promise<void> {
  const deadline = Date.now() + ms
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await sleep(20)
  }
}

export class ArchivedServer implements AsyncDisposable {
  readonly directory: TemporaryDirectory
  readonly repository: string
  readonly server: PostgresServer
  readonly major: number
  #copies = 0

  private constructor(directory: TemporaryDirectory, server: PostgresServer, major: number) {
    this.directory = directory
    this.repository = join(directory.path, 'repository')
    this.server = server
    this.major = major
  }

  static async start(major: number, walSegmentMegabytes = 1): Promise<ArchivedServer> {
    const directory = await temporaryDirectory()
    await privateDirectory(join(directory.path, 'repository'))
    await privateDirectory(join(directory.path, 'outbox'))
    const server = await startPostgres({
      major,
      walSegmentMegabytes,
      settings: outboxSettings(directory.path),
    })
    return new ArchivedServer(directory, server, major)
  }

  get #outbox(): string {
    return join(this.directory.path, 'outbox')
  }

  /** Writes this many segments. Returns the name of the last one. */
  async writeSegments(count: number, server = this.server): Promise<string> {
    let name = ''
    await server.query('CREATE TABLE IF NOT EXISTS kept (segment int, filler text)')
    for (let segment = 0; segment < count; segment++) {
      await server.query(
        `INSERT INTO kept SELECT ${segment}, repeat(md5(random()::text), 20) FROM generate_series(1, 100)`,
      )
      name = await server.switchWal()
    }
    return name
  }

  /** Archives everything up to this file, as the module does. Returns the names of what was archived. */
  async archive(last: string, dataDirectory = this.server.dataDirectory): Promise<string[]> {
    await until(`${last} is in the outbox`, async () => (await readdir(this.#outbox)).includes(last))
    const repository = await openRepository({ scheme: 'file', directory: this.repository }, { dataDirectory })
    const control = await readFile(join(dataDirectory, 'global/pg_control'))
    const names = inArchiveOrder((await readdir(this.#outbox)).filter(name => !name.endsWith('.new')))
    for (const name of names) {
      await repository.archive(walSource(realFiles, name, join(this.#outbox, name)), {
        cluster: {
          systemIdentifier: control.readBigUInt64LE().toString(),
          walSegmentBytes: undefined,
          pageMagic: undefined,
        },
        headerCheck: true,
        compressionLevel: 1,
        recipients: [],
      })
      await rm(join(this.#outbox, name))
    }
    return names
  }

  /** A base backup that needs the archive to start. */
  async backup(): Promise<string> {
    const path = join(this.directory.path, `copy-${++this.#copies}`)
    await this.server.baseBackup(path, { wal: false })
    return path
  }

  get outboxSettings(): Record<string, string> {
    return outboxSettings(this.directory.path)
  }

  async recoverySettings(): Promise<Record<string, string>> {
    return {
      archive_mode: 'off',
      restore_command: `${join(await checkout(), 'bin/pgarchivist')} archive-get "%f" "%p"`,
      'pgarchivist.repository': `file://${this.repository}`,
      wal_retrieve_retry_interval: '200ms',
    }
  }

  /** Starts a server on a base backup. */
  async recover(
    dataDirectory: string,
    signalFile: 'recovery' | 'standby',
    settings: Record<string, string> = {},
  ): Promise<PostgresServer> {
    return await startPostgres({
      major: this.major,
      dataDirectory,
      signalFile,
      settings: { ...(await this.recoverySettings()), ...settings },
    })
  }

  async objectPath(name: string): Promise<string> {
    const all = await readdir(this.repository, { recursive: true })
    return join(this.repository, all.find(each => each.endsWith(`${name}.pgarchivist`)) ?? '')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]()
    await this.directory[Symbol.asyncDispose]()
  }
}

function outboxSettings(directory: string): Record<string, string> {
  const outbox = join(directory, 'outbox')
  return {
    archive_mode: 'on',
    // The name is there when the content is.
    archive_command: `test ! -e ${outbox}/%f && cp %p ${outbox}/%f.new && mv ${outbox}/%f.new ${outbox}/%f`,
    max_wal_senders: '4',
  }
}

export function spoolOf(dataDirectory: string): string {
  return join(dataDirectory, 'pg_wal/pgsql_tmp.pgarchivist')
}

/** The fetcher of a data directory, if there is one that has begun its work. */
export async function fetcherPid(dataDirectory: string): Promise<number | undefined> {
  const text = await readFile(join(spoolOf(dataDirectory), 'state'), 'utf8').catch(() => '')
  const pid = Number(text.split(' ')[1])
  return pid > 0 && (await isFetcher(pid)) ? pid : undefined
}

export async function isFetcher(pid: number): Promise<boolean> {
  const title = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return title.includes('pgarchivist: fetcher')
}

export async function emptyDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
  await giveAway(path)
}
