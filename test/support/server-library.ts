// The library that PostgreSQL loads, built for the servers of the tests.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { access, chmod, lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Compilation, compile, compileCommand, sourceDirectory } from '../../src/cli/install/compile.ts'
import { checkout } from './unprivileged.ts'

// Debian has no headers of 16. Those of 17 do for what we use of them, with what server-library-16.c makes different.
const headersFrom = (major: number) => (major === 16 ? 17 : major)
const sourceOf16 = join(import.meta.dirname, 'server-library-16.c')

let headers: Promise<Map<number, string>> | undefined

/** The directories of the servers' headers by major version. What is missing and can be had is fetched first. */
export function serverHeaders(): Promise<Map<number, string>> {
  headers ??= (async () => {
    const install = join(import.meta.dirname, '../../scripts/postgresql/install')
    const child = spawn(install, ['--headers'], { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(child, 'close')
    const lines = (await child.stdout.setEncoding('utf8').toArray()).join('').split('\n')
    const [status] = await ended
    if (status !== 0) throw new Error('there are no server headers; scripts/postgresql/install says why')
    return new Map(
      lines
        .filter(line => line !== '')
        .map(line => [Number.parseInt(line), line.slice(line.indexOf(' ') + 1)]),
    )
  })()
  return headers
}

/** The majors that the library can be built for here, ascending. */
export async function buildableMajors(): Promise<number[]> {
  const majors = [...(await serverHeaders()).keys()]
  return (majors.includes(17) ? [16, ...majors] : majors).toSorted((a, b) => a - b)
}

const building = new Map<number, Promise<string>>()

/**
 * Builds the library for a major version, unless that has been done since its sources changed, and returns its path.
 * It starts the bin/pgarchivist of `checkout()`, and every user may read it.
 */
export function buildServerLibrary(major: number): Promise<string> {
  const started = building.get(major) ?? buildUnlessThere(major)
  building.set(major, started)
  return started
}

async function buildUnlessThere(major: number): Promise<string> {
  const directory = (await serverHeaders()).get(headersFrom(major))
  if (directory === undefined)
    throw new Error(`the headers of PostgreSQL ${major} are missing; scripts/postgresql/install says why`)
  const compilation: Omit<Compilation, 'output'> = {
    compiler: ['cc'],
    major,
    includeDirectories: [directory],
    launcher: join(await checkout(), 'bin/pgarchivist'),
    ...(major === 16 ? { mainSource: sourceOf16 } : {}),
  }

  // The headers are kept where other things outside of the checkout are.
  const cache = join(dirname(directory), 'libraries')
  const place = join(cache, `${major}-${await digest(compilation)}`)
  const library = join(place, 'pgarchivist.so')
  if (await exists(library)) return library

  await mkdir(cache, { recursive: true })
  // It gets its name complete, so that test files running at the same time do not meet a half-written one.
  const incomplete = `${place}.${process.pid}`
  await rm(incomplete, { recursive: true, force: true })
  await mkdir(incomplete)
  await compile(
    { ...compilation, output: join(incomplete, 'pgarchivist.so') },
    'scripts/setup --servers brings them',
  )
  for (const path of [cache, incomplete, join(incomplete, 'pgarchivist.so')]) await chmod(path, 0o755)
  try {
    await rename(incomplete, place)
  } catch (error) {
    // Another test file was faster with the same sources.
    await rm(incomplete, { recursive: true, force: true })
    if (!(await exists(library))) throw error
  }
  await removeOld(cache)
  return library
}

// What it is made of: the command, and the text of every source.
async function digest(compilation: Omit<Compilation, 'output'>): Promise<string> {
  const hash = createHash('sha256').update(compileCommand({ ...compilation, output: '' }).join('\0'))
  const names = (await readdir(sourceDirectory)).filter(name => /\.[ch]$/.test(name)).toSorted()
  const files = [...names.map(name => join(sourceDirectory, name)), sourceOf16]
  for (const file of files) hash.update(`\0${file}\0`).update(await readFile(file))
  return hash.digest('hex').slice(0, 12)
}

async function removeOld(cache: string): Promise<void> {
  const lastWeek = Date.now() - 7 * 24 * 60 * 60 * 1000
  for (const name of await readdir(cache)) {
    const { ctimeMs } = await lstat(join(cache, name)).catch(() => ({ ctimeMs: Number.POSITIVE_INFINITY }))
    if (ctimeMs < lastWeek) await rm(join(cache, name), { recursive: true, force: true })
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
