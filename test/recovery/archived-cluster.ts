// A cluster that a server with our library archives to a repository, and servers that come back from there.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { writeFor } from '../bridge/bridged-server.ts'
import {
  type PostgresOptions,
  type PostgresServer,
  programDirectories,
  startPostgres,
} from '../support/postgresql-server.ts'
import { buildServerLibrary } from '../support/server-library.ts'
import {
  checkout,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../support/unprivileged.ts'

const run = promisify(execFile)

// What has not come by then on a machine with much to do will not come.
const patienceMs = 90_000

export interface ClusterOptions {
  major: number
  walSegmentMegabytes: number
  isEncrypted: boolean
  settings?: Record<string, string>
  /** Where it archives to, and what servers and commands need in their environment for that. Default: a directory. */
  place?: { url: string; environment: Record<string, string> }
}

export interface RecoveryOptions {
  /** Where and how recovery ends; without any, at the end of the archive. */
  target?: Record<string, string>
  signalFile?: 'recovery' | 'standby'
  /** Whether it archives to the same repository once it has a timeline of its own. */
  archives?: boolean
}

export class ArchivedCluster implements AsyncDisposable {
  readonly major: number
  readonly walSegmentMegabytes: number
  /** Its URL. */
  readonly repository: string
  readonly primary: PostgresServer
  readonly #directory: TemporaryDirectory
  readonly #identityFile: string | undefined
  /** What programs need in their environment to reach the repository. */
  readonly environment: Record<string, string>
  readonly #servers = new AsyncDisposableStack()
  #copies = 0

  private constructor(
    options: ClusterOptions,
    primary: PostgresServer,
    directory: TemporaryDirectory,
    identityFile: string | undefined,
  ) {
    this.major = options.major
    this.walSegmentMegabytes = options.walSegmentMegabytes
    this.primary = this.#servers.use(primary)
    this.#directory = directory
    this.environment = options.place?.environment ?? {}
    this.repository = options.place?.url ?? `file://${join(directory.path, 'repository')}`
    this.#identityFile = identityFile
  }

  static async start(options: ClusterOptions): Promise<ArchivedCluster> {
    const { major, walSegmentMegabytes, isEncrypted, settings, place } = options
    const directory = await temporaryDirectory()
    try {
      const root = await realpath(directory.path)
      await privateDirectory(join(root, 'repository'))
      const identityFile = isEncrypted ? join(root, 'identity') : undefined
      const recipients: string[] = []
      if (identityFile !== undefined) {
        // Two may read it; the recovery has the second key.
        const identities = [await generateX25519Identity(), await generateX25519Identity()]
        for (const identity of identities) recipients.push(await identityToRecipient(identity))
        await writeFor(identityFile, `# of the operators\n${identities[1]}\n`)
      }
      const dataDirectory = join(root, 'data')
      await makeCluster(major, dataDirectory, walSegmentMegabytes)
      const primary = await startPostgres({
        major,
        dataDirectory,
        environment: place?.environment,
        settings: {
          archive_mode: 'on',
          archive_library: await buildServerLibrary(major),
          'pgarchivist.module': 'repository',
          'pgarchivist.repository': place?.url ?? `file://${join(root, 'repository')}`,
          'pgarchivist.encryption_recipients': recipients.join(', '),
          // A primary does not use it, until it is rewound.
          restore_command: await restoreCommand(),
          wal_retrieve_retry_interval: '500ms',
          ...settings,
        },
      })
      return new ArchivedCluster(options, primary, directory, identityFile)
    } catch (error) {
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Where something may be put that goes with the cluster. */
  path(name: string): string {
    return join(this.#directory.path, name)
  }

  /** A base backup that is worth nothing without the repository. */
  async backup(): Promise<string> {
    const path = this.path(`backup-${++this.#copies}`)
    await this.primary.baseBackup(path, { wal: false })
    return path
  }

  /** What a server has to know that restores from the repository. */
  async restoreSettings(): Promise<Record<string, string>> {
    const key = this.#identityFile === undefined ? {} : { 'pgarchivist.identity_file': this.#identityFile }
    return { restore_command: await restoreCommand(), ...key }
  }

  /** Starts a server on a copy of a backup. A recovery has ended, and the server is promoted, when this resolves. */
  async recover(backup: string, options: RecoveryOptions = {}): Promise<PostgresServer> {
    const { target = {}, signalFile = 'recovery', archives = false } = options
    const dataDirectory = this.path(`recovered-${++this.#copies}`)
    await run('cp', ['-a', backup, dataDirectory])
    const recovered = await this.startServer({
      dataDirectory,
      signalFile,
      settings: {
        ...(await this.restoreSettings()),
        archive_mode: archives ? 'on' : 'off',
        recovery_target_action: 'promote',
        ...target,
      },
    })
    if (signalFile === 'recovery') {
      await until('recovery has ended', async () => {
        if (recovered.pid === undefined) assert.fail(`the server ended:\n${await recovered.log()}`)
        const [row] = await recovered.query<{ recovers: boolean }>('SELECT pg_is_in_recovery() AS recovers')
        return row?.recovers === false
      })
    }
    return recovered
  }

  async startServer(options: Omit<PostgresOptions, 'major'>): Promise<PostgresServer> {
    return this.#servers.use(
      await startPostgres({ major: this.major, environment: this.environment, ...options }),
    )
  }

  /** Resolves when everything that the server has written so far is in the repository. */
  async archives(server: PostgresServer): Promise<void> {
    const last = await server.switchWal()
    const status = join(server.dataDirectory, 'pg_wal/archive_status')
    let names: string[] = []
    await until(`"${last}" and all before it are archived`, async () => {
      names = await readdir(status)
      return names.includes(`${last}.done`) && !names.some(name => name.endsWith('.ready'))
    }).catch(async (error: Error) =>
      assert.fail(`${error.message}\n${names.join(' ')}\n${(await server.log()).slice(-5_000)}`),
    )
  }

  /** Runs `pgarchivist verify` over all objects and what is in them; its status has to be 0. */
  async verify(): Promise<string> {
    const key = this.#identityFile === undefined ? [] : ['--identity-file', this.#identityFile]
    const command = ['verify', '--repository', this.repository, '--decode', ...key]
    const { stdout } = await run(join(await checkout(), 'bin/pgarchivist'), command, {
      ...unprivileged,
      env: { ...unprivilegedEnvironment, ...this.environment },
      cwd: '/',
    })
    return stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#servers[Symbol.asyncDispose]()
    await this.#directory[Symbol.asyncDispose]()
  }
}

/** The timeline on which a server writes. */
export async function timelineOf(server: PostgresServer): Promise<number> {
  const [row] = await server.query<{ name: string }>('SELECT pg_walfile_name(pg_current_wal_lsn()) AS name')
  return Number.parseInt(row?.name.slice(0, 8) ?? '', 16)
}

async function restoreCommand(): Promise<string> {
  return `${join(await checkout(), 'bin/pgarchivist')} archive-get "%f" "%p"`
}

/** Looks until it is so: servers that recover announce nothing. */
export async function until(what: string, look: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + patienceMs
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`not within ${patienceMs / 1_000} s: ${what}`)
    await sleep(100)
  }
}

/** With checksums in every page, which is how a page that came back wrong is found. */
async function makeCluster(major: number, dataDirectory: string, walSegmentMegabytes: number): Promise<void> {
  const programs = (await programDirectories()).get(major)
  assert(programs !== undefined, `PostgreSQL ${major} is not available here`)
  const how = ['-D', dataDirectory, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C']
  await run(
    join(programs, 'initdb'),
    [...how, '--data-checksums', '--no-sync', '--no-instructions', `--wal-segsize=${walSegmentMegabytes}`],
    { ...unprivileged, env: unprivilegedEnvironment, cwd: '/' },
  )
}
