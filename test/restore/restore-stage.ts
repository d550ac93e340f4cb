// A repository and a data directory without a server, and archive-get as a server starts it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { openRepository } from '../../src/cli/open-repository.ts'
import { walSource } from '../../src/modules/repository.ts'
import { realFiles } from '../../src/system/real-files.ts'
import {
  checkout,
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
} from '../support/unprivileged.ts'

export const systemIdentifier = '7123456789012345678'

export interface Got {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface GetOptions {
  dest?: string
  args?: string[]
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** In front of the launcher, such as another shell. */
  shell?: string[]
}

export class RestoreStage implements AsyncDisposable {
  readonly directory: TemporaryDirectory
  readonly data: string
  readonly repository: string

  private constructor(directory: TemporaryDirectory) {
    this.directory = directory
    this.data = join(directory.path, 'data')
    this.repository = join(directory.path, 'repository')
  }

  static async create(): Promise<RestoreStage> {
    const stage = new RestoreStage(await temporaryDirectory())
    for (const path of [stage.repository, stage.data, stage.path('pg_wal'), stage.path('global')]) {
      await privateDirectory(path)
    }
    const control = Buffer.alloc(8)
    control.writeBigUInt64LE(BigInt(systemIdentifier))
    await stage.put('global/pg_control', control)
    await stage.put('PG_VERSION', '18\n')
    await stage.put('postgresql.conf', `pgarchivist.repository = 'file://${stage.repository}'\n`)
    return stage
  }

  /** A path in the data directory. */
  path(name: string): string {
    return join(this.data, name)
  }

  /** Writes a file of the server's user into the data directory. */
  async put(name: string, content: string | Uint8Array, mode = 0o600): Promise<string> {
    const path = this.path(name)
    await writeFile(path, content, { mode })
    await giveAway(path)
    return path
  }

  /** Archives a file, as the module does. Returns the path of its object. */
  async archive(name: string, content: Uint8Array, recipients: string[] = []): Promise<string> {
    const path = join(this.directory.path, 'to-archive')
    await writeFile(path, content)
    const url = { scheme: 'file', directory: this.repository } as const
    const repository = await openRepository(url, { dataDirectory: this.data })
    await repository.archive(walSource(realFiles, name, path), {
      cluster: { systemIdentifier, walSegmentBytes: undefined, pageMagic: undefined },
      headerCheck: false,
      compressionLevel: 1,
      recipients,
    })
    return await this.objectPath(name)
  }

  async objectPath(name: string): Promise<string> {
    const all = await readdir(this.repository, { recursive: true })
    return join(this.repository, all.find(each => each.endsWith(`${name}.pgarchivist`)) ?? '')
  }

  /** Runs archive-get to its end, in the data directory and with an empty environment unless something else is said. */
  async get(name: string, options: GetOptions = {}): Promise<Got> {
    const child = await this.start(name, options)
    const [stdout, stderr, [status, signal]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ])
    return { status, signal, stdout, stderr }
  }

  async start(name: string, options: GetOptions = {}) {
    const { dest = 'pg_wal/RECOVERYXLOG', args = [], env = {}, cwd = this.data, shell = [] } = options
    const launcher = join(await checkout(), 'bin/pgarchivist')
    const command = [...shell, launcher, 'archive-get', name, dest, ...args]
    return spawn(command[0] ?? '', command.slice(1), {
      ...unprivileged,
      env,
      cwd,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  /** Everything in pg_wal, and what is below it. */
  async wal(): Promise<string[]> {
    return (await readdir(this.path('pg_wal'), { recursive: true })).toSorted()
  }

  async directoryFor(name: string): Promise<string> {
    const path = join(this.directory.path, name)
    await mkdir(path, { recursive: true })
    await giveAway(path)
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.directory[Symbol.asyncDispose]()
  }
}
