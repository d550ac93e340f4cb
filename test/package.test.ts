import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { installedPackage } from './support/installed-package.ts'

const run = promisify(execFile)

test('the published package runs without the sources and offers its types and the conformance suite', async t => {
  const directory = await mkdtemp(path.join(tmpdir(), 'package-'))
  t.after(() => rm(directory, { recursive: true }))
  const installed = await installedPackage(directory)
  assert.deepEqual((await readdir(installed)).sort(), [
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'bin',
    'dist',
    'docs',
    'package.json',
    'src',
  ])

  const command = path.join(installed, 'bin/pgarchivist')
  assert.match((await run(command, ['--version'])).stdout, /^\d+\.\d+\.\d+\n$/)

  const dataDirectory = path.join(directory, 'data')
  await mkdir(path.join(dataDirectory, 'pg_wal/archive_status'), { recursive: true })
  await writeFile(path.join(dataDirectory, 'pg_wal/000000010000000000000001'), 'WAL')
  await writeFile(path.join(dataDirectory, 'pg_wal/archive_status/000000010000000000000001.ready'), '')
  const module = path.join(directory, 'module.ts')
  await writeFile(
    module,
    `import type { ArchiveServer } from 'pgarchivist'
    import { archiveModuleConformance } from 'pgarchivist/conformance'
    export function _PG_archive_module_init(server: ArchiveServer) {
      const archive_file_cb = async (): Promise<boolean> => {
        server.ereport('LOG', { errmsg: \`the suite is a \${typeof archiveModuleConformance}\` })
        setTimeout(() => process.kill(process.ppid, 'SIGTERM'), 1)
        return true
      }
      return { archive_file_cb }
    }`,
  )
  const { stderr } = await run(
    command,
    ['archiver', '-D', dataDirectory, '-c', `archive_library=${module}`],
    {
      timeout: 30_000,
    },
  )
  assert.match(stderr, / LOG: {2}the suite is a function\n/)
  assert.deepEqual(await readdir(path.join(dataDirectory, 'pg_wal/archive_status')), [
    '000000010000000000000001.done',
  ])
})
