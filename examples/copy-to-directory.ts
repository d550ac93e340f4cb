/**
 * An archive module in one file: copies each WAL file to a directory.
 *
 *     pgarchivist archiver -D DIR -c archive_library=/path/to/copy-to-directory.ts \
 *       -c copy_to_directory.archive_directory=/srv/archive
 *
 * It keeps the two promises that a module makes: `true` only when the file would survive a power cut, and never
 * another content for a name that is taken.
 */
import { randomUUID } from 'node:crypto'
import { constants, copyFile, link, open, readFile, unlink } from 'node:fs/promises'
import path from 'node:path'
import type { ArchiveModuleCallbacks, ArchiveServer } from 'pgarchivist'

export function _PG_archive_module_init(server: ArchiveServer): ArchiveModuleCallbacks {
  const directory = server.DefineCustomStringVariable({
    name: 'copy_to_directory.archive_directory',
    short_desc: 'Directory that WAL files are copied to.',
    boot_value: '',
  })
  server.MarkGUCPrefixReserved('copy_to_directory')

  return {
    check_configured_cb() {
      if (directory.value !== '') return true
      server.arch_module_check_errdetail('"copy_to_directory.archive_directory" is not set.')
      return false
    },

    async archive_file_cb(_state, file, source) {
      const destination = path.join(directory.value, file)
      // Its own name for each attempt, because another server may archive the same file at the same time. A kill
      // leaves it behind; see basic_archive for a name that the next attempt finds again.
      const temporary = `${destination}.${randomUUID()}.copying`
      await copyFile(source, temporary, constants.COPYFILE_EXCL)
      await sync(temporary)
      try {
        await link(temporary, destination) // unlike rename(), this never replaces
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error
        // The server submits a file again after a crash. The same content is success, any other is refused.
        if (!(await readFile(destination)).equals(await readFile(source))) {
          server.ereport('ERROR', { errmsg: `archive file "${destination}" already exists` })
        }
        await sync(destination)
      } finally {
        await unlink(temporary).catch(ignoreMissing)
      }
      await sync(directory.value) // the name has to survive a power cut too
      server.ereport('LOG', { errmsg: `copied "${file}" to "${directory.value}"` })
      return true
    },
  }
}

/** Makes the content of a file, or the names in a directory, durable. */
async function sync(name: string): Promise<void> {
  await using handle = await open(name)
  await handle.sync()
}

function ignoreMissing(error: unknown): void {
  if (codeOf(error) !== 'ENOENT') throw error
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}
