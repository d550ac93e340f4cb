// PostgreSQL refuses to run as root, and pgarchivist normally runs as the server's user. So when root runs the
// tests, what they start runs as somebody else, and that somebody must be able to read and enter its files.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  access,
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  symlink,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export type Identity = { uid: number; gid: number } | Record<string, never>

/** Options for child_process: nothing unless this is root. */
export const unprivileged: Identity = process.getuid?.() === 0 ? await nobody() : {}

/** The environment for what runs as that user, without what speaks of root's files. */
export const unprivilegedEnvironment: NodeJS.ProcessEnv =
  unprivileged.uid === undefined ? process.env : withoutHome()

// Every Unix has nobody. The user "postgres" exists only where a server is installed, and then owns clusters
// that a test must be unable to touch.
async function nobody(): Promise<Identity> {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n')
  const fields = lines.map(line => line.split(':')).find(([name]) => name === 'nobody')
  return { uid: Number(fields?.[2] ?? 65534), gid: Number(fields?.[3] ?? 65534) }
}

function withoutHome(): NodeJS.ProcessEnv {
  const { HOME: _home, USER: _user, LOGNAME: _logname, XDG_CACHE_HOME: _cache, ...rest } = process.env
  return rest
}

/** Gives a file or directory to the unprivileged user. */
export async function giveAway(path: string): Promise<void> {
  if (unprivileged.uid !== undefined) await chown(path, unprivileged.uid, unprivileged.gid)
}

export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string
}

/** A new directory of the unprivileged user, removed with all its contents when disposed of. */
export async function temporaryDirectory(): Promise<TemporaryDirectory> {
  return await newDirectory(await temporaryParent())
}

/**
 * The same, in memory where there is plenty: for clusters in tests that are not about a disk. Each is a thousand files, and
 * some file systems look long for the inode of a new one where many were removed a moment ago.
 */
export async function memoryDirectory(): Promise<TemporaryDirectory> {
  return await newDirectory((await hasPlentyOfMemory()) ? memoryParent : await temporaryParent())
}

const memoryParent = '/dev/shm'
const plentyBytes = 8 * 1024 ** 3

async function hasPlentyOfMemory(): Promise<boolean> {
  if (process.availableMemory() < plentyBytes) return false
  // In a container it often has a few megabytes.
  const room = await statfs(memoryParent).catch(() => undefined)
  if (room === undefined || room.bavail * room.bsize < plentyBytes) return false
  // Tests put programs beside their clusters.
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map(line => line.split(' '))
  const options = mounts.findLast(([, place]) => place === memoryParent)?.[3]?.split(',') ?? ['noexec']
  if (options.includes('noexec')) return false
  return await mayReach(memoryParent, [memoryParent])
}

async function newDirectory(above: string): Promise<TemporaryDirectory> {
  await removeForgotten(above)
  const path = await mkdtemp(join(above, `${prefix}${process.pid}-`))
  await giveAway(path)
  return {
    path,
    // A server that was told to stop at once may still be removing its own files.
    [Symbol.asyncDispose]: async () =>
      await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }),
  }
}

const prefix = 'pga-'

// The path of a Unix socket holds 107 bytes, and tests put their own directories above it.
const temporaryParentBytesMax = 40

let parent: Promise<string> | undefined

function temporaryParent(): Promise<string> {
  parent ??= (async () => {
    const usual = tmpdir()
    const usable = usual.length <= temporaryParentBytesMax && (await mayReach(usual, [usual]))
    return usable ? usual : '/tmp'
  })()
  return parent
}

const swept = new Set<string>()

// A test process that was killed leaves its directories behind. Those of yesterday, of processes that are no
// more, go; the day is for other containers that share the directory but not the process numbers.
async function removeForgotten(above: string): Promise<void> {
  if (swept.has(above)) return
  swept.add(above)
  const yesterday = Date.now() - 24 * 60 * 60 * 1000
  for (const name of await readdir(above)) {
    const pid = /^pga-(\d+)-/.exec(name)?.[1]
    if (pid === undefined || (await exists(`/proc/${pid}`))) continue
    const path = join(above, name)
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
    // It may belong to somebody else, whose business it then is.
    if (mtimeMs < yesterday) await rm(path, { recursive: true, force: true }).catch(() => {})
  }
}

// mayReach tells whether the unprivileged user can enter a directory and read what is named, by trying as that
// user: modes, access lists and mounts have too many rules to be computed here.
async function mayReach(directory: string, paths: string[]): Promise<boolean> {
  const options = { ...unprivileged, env: unprivilegedEnvironment, cwd: '/' }
  const unreadable = ['(', '!', '-readable', '-o', '-type', 'd', '!', '-executable', ')']
  const depth = paths.includes(directory) ? ['-maxdepth', '0'] : []
  try {
    const { stdout } = await run(
      'find',
      ['-H', ...paths, ...depth, ...unreadable, '-print', '-quit'],
      options,
    )
    return stdout === ''
  } catch {
    return false
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

const original = dirname(dirname(import.meta.dirname))

// What pgarchivist needs to run from source, and what tests start with it.
const stagedNames = ['bin', 'src', 'examples', 'package.json']

let reachable: Promise<string> | undefined

/**
 * A directory with this checkout's bin/pgarchivist that the unprivileged user can run: the checkout itself, or,
 * where that user cannot enter it, a copy that is as new.
 */
export function checkout(): Promise<string> {
  reachable ??= findCheckout()
  return reachable
}

async function findCheckout(): Promise<string> {
  const names = [...stagedNames, ...(await runtimePackages()).map(name => join('node_modules', name))]
  const present: string[] = []
  for (const name of names) {
    const path = join(original, name)
    if (await exists(path)) present.push(path)
  }
  return (await mayReach(original, present)) ? original : await stagedCheckout()
}

// The names of the packages that are not only for development and fit this machine.
async function runtimePackages(): Promise<string[]> {
  const lock: { packages: Record<string, { dev?: boolean }> } = JSON.parse(
    await readFile(join(original, 'package-lock.json'), 'utf8'),
  )
  const names: string[] = []
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (!path.startsWith('node_modules/') || entry.dev) continue
    if (await exists(join(original, path))) names.push(path.slice('node_modules/'.length))
  }
  return names
}

// Copies get the digest of their contents into their names and appear under them complete, so that test files
// running at the same time, also of another version, do not meet a half-written one.
async function stagedCheckout(): Promise<string> {
  const cache = join(await cacheDirectory(), 'staged')
  await mkdir(cache, { recursive: true })
  const modules = join(cache, `packages-${await digest(['package-lock.json'])}`)
  await build(modules, async copy => {
    for (const name of await runtimePackages()) {
      // Under the name by which packages look for each other.
      await cp(join(original, 'node_modules', name), join(copy, 'node_modules', name), { recursive: true })
    }
  })
  const staged = join(cache, `program-${await digest(stagedNames)}`)
  await build(staged, async copy => {
    for (const name of stagedNames) {
      if (await exists(join(original, name)))
        await cp(join(original, name), join(copy, name), { recursive: true })
    }
    await symlink(join(modules, 'node_modules'), join(copy, 'node_modules'))
  })
  await removeOld(cache, [modules, staged])
  return staged
}

async function build(path: string, fill: (copy: string) => Promise<void>): Promise<void> {
  if (await exists(path)) return
  const copy = `${path}.${process.pid}`
  await rm(copy, { recursive: true, force: true })
  await mkdir(copy)
  await fill(copy)
  await run('chmod', ['-R', 'a+rX', copy])
  try {
    await rename(copy, path)
  } catch (error) {
    // Another test file was faster with the same contents.
    await rm(copy, { recursive: true, force: true })
    if (!(await exists(path))) throw error
  }
}

async function removeOld(cache: string, current: string[]): Promise<void> {
  const yesterday = Date.now() - 24 * 60 * 60 * 1000
  for (const name of await readdir(cache)) {
    const path = join(cache, name)
    if (current.includes(path)) continue
    const { ctimeMs } = await lstat(path).catch(() => ({ ctimeMs: Number.POSITIVE_INFINITY }))
    if (ctimeMs < yesterday) await rm(path, { recursive: true, force: true })
  }
}

async function digest(names: string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const name of names) {
    const path = join(original, name)
    if (!(await exists(path))) continue
    const directory = (await stat(path)).isDirectory()
    const inside = directory ? await readdir(path, { recursive: true, withFileTypes: true }) : []
    const files = directory
      ? inside.filter(each => each.isFile()).map(each => join(each.parentPath, each.name))
      : [path]
    for (const file of files.toSorted()) hash.update(`${file}\0`).update(await readFile(file))
  }
  return hash.digest('hex').slice(0, 12)
}

/** Where things outside of the checkout are kept; scripts/postgresql/install uses the same rule. */
async function cacheDirectory(): Promise<string> {
  const given = process.env['PGARCHIVIST_CACHE']
  if (given) return given
  const home = process.env['XDG_CACHE_HOME'] || (process.env['HOME'] && join(process.env['HOME'], '.cache'))
  if (process.getuid?.() === 0 || !home) return '/var/cache/pgarchivist'
  return join(home, 'pgarchivist')
}

/** Makes an empty directory, readable by its owner only as PostgreSQL demands it, for the unprivileged user. */
export async function privateDirectory(path: string): Promise<void> {
  await mkdir(path, { mode: 0o700 })
  await chmod(path, 0o700)
  await giveAway(path)
}

/**
 * Takes root's power over files from this process, until the returned function gives it back: root may read everything,
 * so a test of a file that may not be read would prove nothing.
 */
export function becomeUnprivileged(): () => void {
  if (!('uid' in unprivileged)) return () => {}
  const { uid, gid } = unprivileged
  process.chdir('/') // this one may be where that user cannot come back to
  process.setegid?.(gid)
  process.seteuid?.(uid)
  return () => {
    process.seteuid?.(0)
    process.setegid?.(0)
  }
}
