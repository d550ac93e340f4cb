import { hostname } from 'node:os'
import type { BuiltInModules } from '../host/loader.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'

/** The modules that we ship, by the name that `archive_library` gives them. */
export const builtInModules: BuiltInModules = new Map([
  [
    'basic_archive',
    async () => {
      const { basicArchive } = await import('../modules/basic-archive.ts')
      return {
        _PG_archive_module_init: basicArchive({
          files: realFiles,
          hostName: hostname(),
          isRoot: process.geteuid?.() === 0,
        }),
      }
    },
  ],
  [
    'repository',
    async () => {
      const [{ repositoryModule }, { openRepository }] = await Promise.all([
        import('../modules/repository.ts'),
        import('./open-repository.ts'),
      ])
      return {
        _PG_archive_module_init: repositoryModule({
          files: realFiles,
          clock: realClock,
          openRepository,
        }),
      }
    },
  ],
])
