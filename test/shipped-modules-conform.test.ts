import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, test } from 'node:test'
import { _PG_archive_module_init as copyToDirectory } from '../examples/copy-to-directory.ts'
import type { ArchiveModuleInit } from '../src/contract/archive-module.ts'
import { archiveModuleConformance } from '../src/contract/conformance.ts'
import { basicArchive } from '../src/modules/basic-archive.ts'
import { realFiles } from '../src/system/real-files.ts'
import { becomeUnprivileged } from './support/unprivileged.ts'

becomeUnprivileged()

const modules: ReadonlyArray<{ name: string; setting: string; init: ArchiveModuleInit }> = [
  {
    name: 'basic_archive',
    setting: 'basic_archive.archive_directory',
    init: basicArchive({ files: realFiles, hostName: 'test' }),
  },
  {
    name: 'examples/copy-to-directory.ts',
    setting: 'copy_to_directory.archive_directory',
    init: copyToDirectory,
  },
]

for (const { name, setting, init } of modules) {
  describe(`${name} conforms`, () => {
    const facts = archiveModuleConformance({
      init,
      newArchive: async () => {
        const directory = await mkdtemp(path.join(tmpdir(), 'conformance-'))
        return {
          settings: { [setting]: directory },
          relativeSettings: dataDirectory => ({ [setting]: path.relative(dataDirectory, directory) }),
          archived: file => readFile(path.join(directory, file)).catch(() => undefined),
          close: () => rm(directory, { recursive: true }),
        }
      },
    })
    for (const fact of facts) {
      test(fact.name, context =>
        fact.prove({ skip: reason => context.diagnostic(`does not apply: ${reason}`) }),
      )
    }
  })
}
