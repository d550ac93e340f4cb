import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { realFiles } from '../src/system/real-files.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { openS3Repository } from './support/s3-repository.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))

/** Packs the package and lays it out as npm would install it, its dependencies being those of this checkout. */
async function installedPackage(directory: string): Promise<string> {
  await run('npm', ['pack', '--pack-destination', directory, '--loglevel=error'], { cwd: root })
  const [archive = ''] = (await readdir(directory)).filter(name => name.endsWith('.tgz'))
  const modules = path.join(directory, 'node_modules')
  const installed = path.join(modules, 'pgarchivist')
  await mkdir(installed, { recursive: true })
  await run('tar', ['-xzf', path.join(directory, archive), '-C', installed, '--strip-components=1'])
  const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
    await readFile(path.join(root, 'package.json'), 'utf8'),
  )
  for (const name of await readdir(path.join(root, 'node_modules'))) {
    if (name in dependencies || name.startsWith('node-linux-')) {
      await symlink(path.join(root, 'node_modules', name), path.join(modules, name))
    }
  }
  return installed
}

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

test('the published package brings its S3 client along', async t => {
  const directory = await mkdtemp(path.join(tmpdir(), 'package-'))
  t.after(() => rm(directory, { recursive: true }))
  const [installed, ceph, profiles] = await Promise.all([
    installedPackage(directory),
    sharedCeph(),
    S3Profiles.begin(),
  ])
  await using _ = ceph
  await using __ = profiles
  await profiles.set({ default: ownerOf(ceph) })
  const url = `s3://${await ceph.createBucket()}/wal?endpoint=${ceph.endpoint}`
  const cluster = {
    systemIdentifier: '7300000000000000001',
    walSegmentBytes: undefined,
    pageMagic: undefined,
  }
  const [name, content] = ['00000002.history', randomBytes(3_000)]
  const [file, fetched] = [path.join(directory, name), path.join(directory, 'fetched')]
  await writeFile(file, content)
  await using repository = await openS3Repository(url)
  const options = { cluster, headerCheck: false, compressionLevel: 1, recipients: [] }
  await repository.archive({ name, open: () => realFiles.open(file, 'read') }, options)

  const get = ['archive-get', '--repository', url, '--system-identifier', cluster.systemIdentifier]
  await run(path.join(installed, 'bin/pgarchivist'), [...get, name, fetched], { timeout: 60_000 })
  assert.deepEqual(await readFile(fetched), content)
})
