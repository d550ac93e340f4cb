// pgBackRest beside ours: unpacked from Debian's packages, with a configuration file for each repository.

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  giveAway,
  privateDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../test/support/unprivileged.ts'

const run = promisify(execFile)

const stanza = 'bench'

export interface PgBackRest {
  version: string
  program: string
}

/** Fetched first where it is missing; what prevents that, where something does. */
export async function findPgBackRest(): Promise<PgBackRest | { missing: string }> {
  try {
    const { stdout } = await run(join(import.meta.dirname, '../scripts/pgbackrest/install'))
    const [version = '', ...program] = stdout.trim().split(' ')
    return { version, program: program.join(' ') }
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string }
    return { missing: stderr.trim().split('\n').at(-1) ?? String(error) }
  }
}

export interface StanzaOptions {
  /** A new directory for all but the repository. */
  directory: string
  repository: string
  dataDirectory: string
  /** By pgBackRest's names. */
  settings: Record<string, string>
}

/** The beginning of its commands for this repository. What it writes beside it is kept away from the system's places. */
export async function configure(
  { program }: PgBackRest,
  { directory, repository, dataDirectory, settings }: StanzaOptions,
): Promise<string[]> {
  await privateDirectory(directory)
  const places = ['log', 'lock', 'spool'] as const
  for (const place of places) await privateDirectory(join(directory, place))
  const all = {
    ...Object.fromEntries(places.map(place => [`${place}-path`, join(directory, place)])),
    'repo1-path': repository,
    ...settings,
  }
  const lines = ['[global]', ...Object.entries(all).map(([name, value]) => `${name}=${value}`)]
  const path = join(directory, 'pgbackrest.conf')
  await writeFile(path, `${[...lines, `[${stanza}]`, `pg1-path=${dataDirectory}`].join('\n')}\n`)
  await giveAway(path)
  return [program, `--config=${path}`, `--stanza=${stanza}`]
}

/** Needed once before a repository is used; the server may be down. */
export async function createStanza(command: readonly string[]): Promise<void> {
  const [program = '', ...options] = command
  await run(program, [...options, '--no-online', 'stanza-create'], {
    ...unprivileged,
    env: unprivilegedEnvironment,
    cwd: '/',
  }).catch((error: Error & { stdout?: string }) => {
    // That is where it says why.
    throw new Error(`${error.message}\n${error.stdout ?? ''}`, { cause: error })
  })
}
