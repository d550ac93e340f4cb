/** An archive module that waits for each file as for a store at some distance, and takes several at once. */
import type { ArchiveModuleInit } from 'pgarchivist'

const waitMs = 50

export const _PG_archive_module_init: ArchiveModuleInit = () => ({
  archive_ahead: true,
  archive_file_cb: () =>
    new Promise<boolean>(resolve => {
      setTimeout(() => resolve(true), waitMs)
    }),
})
