// Ways to archive WAL to a local directory, each as its own manual has it.

import { join } from 'node:path'
import { compile } from '../src/cli/install/compile.ts'
import { serverHeaders } from '../test/support/server-library.ts'
import type { ArchiverSettings } from './contestants.ts'
import { configure, createStanza, type PgBackRest } from './pgbackrest.ts'
import type { WalContestant } from './wal-arena.ts'

/** A published package, and the library that starts it from within the server. */
export interface Ours {
  launcher: string
  library: string
}

/** Compiles the library for a published package, as "pgarchivist install" would. */
export async function buildLibraryFor(place: string, major: number): Promise<Ours> {
  // Debian has no headers of 16; those of 17 do, with what this source makes different.
  const includeDirectory = (await serverHeaders()).get(major === 16 ? 17 : major)
  if (includeDirectory === undefined) {
    throw new Error(`the headers of PostgreSQL ${major} are missing; scripts/postgresql/install says why`)
  }
  const launcher = join(place, 'bin/pgarchivist')
  const library = join(place, `pgarchivist-${major}.so`)
  const sourceOf16 = join(import.meta.dirname, '../test/support/server-library-16.c')
  await compile(
    {
      compiler: ['cc'],
      major,
      includeDirectories: [includeDirectory],
      launcher,
      output: library,
      ...(major === 16 ? { mainSource: sourceOf16 } : {}),
    },
    'scripts/setup --servers brings them',
  )
  return { launcher, library }
}

/** The module, in the server. */
export function throughTheBridge(ours: Ours, name: string, settings: ArchiverSettings = {}): WalContestant {
  return {
    name,
    prepare: async ({ archive }) => ({
      archive_library: ours.library,
      'pgarchivist.module': 'repository',
      'pgarchivist.repository': `file://${archive}`,
      ...settings,
    }),
  }
}

/** The command. */
export function archivePush(ours: Ours, name: string): WalContestant {
  return {
    name,
    prepare: async ({ archive }) => ({
      archive_command: `${ours.launcher} archive-push "%p"`,
      'pgarchivist.repository': `file://${archive}`,
    }),
  }
}

export function pgBackRestPush(
  pgBackRest: PgBackRest,
  name: string,
  settings: Record<string, string> = {},
): WalContestant {
  return {
    name,
    prepare: async ({ archive, scratch, dataDirectory }) => {
      const options = { directory: scratch, repository: archive, dataDirectory, settings }
      const command = await configure(pgBackRest, options)
      await createStanza(command)
      return { archive_command: `${command.join(' ')} archive-push %p` }
    },
  }
}

export const basicArchive: WalContestant = {
  name: "contrib's basic_archive",
  prepare: async ({ archive }) => ({
    archive_library: 'basic_archive',
    'basic_archive.archive_directory': archive,
  }),
}

export const copyAndSync: WalContestant = {
  name: '`cp` and `sync`',
  prepare: async ({ archive }) => ({
    archive_command: `cp "%p" "${archive}/%f" && sync "${archive}/%f" "${archive}"`,
  }),
}

export const nothing: WalContestant = {
  name: "the server's loop, `true` as command",
  storesNothing: true,
  prepare: async () => ({ archive_command: 'true' }),
}
