import { execFile } from 'node:child_process'
import { copyFile, cp, mkdir, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { checkout } from '../test/support/unprivileged.ts'

/** Puts into a new directory what "npm pack" would, with the packages that it depends on beside it. */
export async function publishPackage(place: string): Promise<string> {
  const root = dirname(import.meta.dirname)
  await mkdir(place)
  await cp(join(root, 'bin'), join(place, 'bin'), { recursive: true })
  await copyFile(join(root, 'package.json'), join(place, 'package.json'))
  await symlink(join(await checkout(), 'node_modules'), join(place, 'node_modules'))
  const build = [join(root, 'scripts/build.ts'), join(place, 'dist')]
  await promisify(execFile)(process.execPath, build, { timeout: 120_000 })
  return place
}
