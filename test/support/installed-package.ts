import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, symlink } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = path.resolve(import.meta.dirname, '../..')

/** Packs the package and lays it out as npm would install it, its dependencies being those of this checkout. */
export async function installedPackage(directory: string): Promise<string> {
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
