import { join } from 'node:path'
import { startPostgres } from '../support/postgresql-server.ts'
import { buildServerLibrary } from '../support/server-library.ts'
import { privateDirectory } from '../support/unprivileged.ts'
import type { ArchiveSettings } from './contestant.ts'
import { type ContestantOptions, ServerContestant, serverSettings } from './server-contestant.ts'

/** The server's archiver with our library, and in it our basic_archive. */
export class BridgeContestant extends ServerContestant {
  #library = ''

  static override async create(options: ContestantOptions): Promise<BridgeContestant> {
    const { major, dataDirectory, directory } = options
    const library = await buildServerLibrary(major)
    const archive = join(directory.path, 'archive')
    await privateDirectory(archive)
    const settings = {
      ...serverSettings,
      log_min_messages: 'debug3',
      archive_library: library,
      'pgarchivist.module': 'basic_archive',
      'basic_archive.archive_directory': archive,
    }
    const server = await startPostgres({ major, dataDirectory, settings })
    const contestant = new BridgeContestant(`pgarchivist in PostgreSQL ${major}`, server, archive)
    contestant.#library = library
    return contestant
  }

  /** What the script calls basic_archive is ours. */
  override async configure(settings: ArchiveSettings): Promise<void> {
    if (settings.archive_library !== 'basic_archive') return await super.configure(settings)
    await super.configure({ ...settings, archive_library: this.#library })
  }
}
