import type { Files, OpenFile } from './files.ts'
import { couldNot, couldNotSync, errnoCode, isMissing } from './system-error.ts'

/** Where a file is written to. */
export interface WritePlace {
  directory: string
  /** The final name in `directory`. */
  name: string
  /** A name in `directory` that nobody else uses. What stands there is taken for a leftover of ours and removed. */
  temporaryName: string
  /** Was what has this name, a temporary one or that of a lock, left by somebody who certainly writes no more? */
  isLeft?: ((name: string) => Promise<boolean>) | undefined
}

export interface DurableWrite extends WritePlace {
  /** Permission bits of the file. */
  mode: number
  /** Whom the file shall belong to, where that is not who writes it; only root can do so. */
  owner?: { uid: number; gid: number } | undefined
  /** May a file of the final name be replaced? If not, one that is there stays, whoever wins the race. */
  replace: boolean
  /** Gives the file its content. */
  write(file: OpenFile): Promise<void>
}

/**
 * Writes a file so that, whatever happens and when, its name stands for all of its bytes or for nothing, and that
 * it survives a power cut once this has resolved: temporary file, fsync, link or rename to the final name, fsync of
 * the directory. Everything of ours that has to last is written here.
 *
 * Resolves with `'exists'`, and leaves what is there alone, when the name is taken and may not be replaced. Leaves
 * no temporary file behind, except after a crash; the next write with the same temporary name removes that one.
 */
export async function writeDurably(files: Files, target: DurableWrite): Promise<'written' | 'exists'> {
  const temporary = temporaryPath(target)
  const final = `${target.directory}/${target.name}`
  // Open until the end, because the number of an inode that nobody holds may be given to another file.
  await using file = await createAnew(files, temporary, target.mode)
  let own: Identity | undefined
  try {
    own = await file.stat().catch(couldNot(`stat file "${temporary}"`))
    await writeSynced(file, temporary, target)
    await requireOwn(files, temporary, own)
    if (target.replace) {
      await files.rename(temporary, final).catch(couldNot(`rename file "${temporary}" to "${final}"`))
    } else if (!(await linkUnlessTaken(files, target, own))) {
      return 'exists'
    }
    await requireOwn(files, final, own)
    await removeOwn(files, temporary, own)
    await files.syncDirectory(target.directory).catch(couldNotSync(target.directory))
    return 'written'
  } finally {
    // Also the way out of every failure. What the first failure was matters more than why tidying up failed.
    await removeOwn(files, temporary, own).catch(() => undefined)
  }
}

/** Where there are no hard links: somebody else is giving a file this name, or has died over it. */
export class LockedError extends Error {
  readonly lock: string

  constructor(file: string, lock: string) {
    super(`file "${file}" is locked by "${lock}"`)
    this.lock = lock
  }
}

/** Somebody else has put another file in the place, before or after it had its name: theirs is there. */
export class ReplacedError extends Error {}

type Identity = { device: bigint; inode: bigint }

async function writeSynced(file: OpenFile, path: string, target: DurableWrite): Promise<void> {
  if (target.owner !== undefined) {
    await file
      .changeOwner(target.owner.uid, target.owner.gid)
      .catch(couldNot(`change owner of file "${path}"`))
  }
  await target.write(file).catch(couldNot(`write to file "${path}"`))
  await file.sync().catch(couldNot(`fsync file "${path}"`))
}

/**
 * Link and rename go by name. Should somebody else use our temporary name after all, as two containers with one host
 * name and one path might, then what has got the final name is theirs, and perhaps half of it: nothing was written.
 */
async function requireOwn(files: Files, path: string, own: Identity): Promise<void> {
  const there = await files.stat(path).catch(couldNot(`stat file "${path}"`))
  if (isSameFile(there, own)) return
  throw new ReplacedError(`file "${path}" was replaced by somebody else while it was being written`)
}

/** Removes the temporary file, unless somebody else has put another one in its place. */
async function removeOwn(files: Files, path: string, own: Identity | undefined): Promise<void> {
  try {
    const there = await files.stat(path).catch(() => undefined)
    // Where it cannot be told, it is ours but for a strange coincidence, which the other one would survive.
    if (own === undefined || there === undefined || isSameFile(there, own)) await files.unlink(path)
  } catch (thrown) {
    if (!isMissing(thrown)) couldNot(`remove file "${path}"`)(thrown)
  }
}

function isSameFile(a: Identity, b: Identity): boolean {
  return a.device === b.device && a.inode === b.inode
}

async function createAnew(files: Files, path: string, mode: number): Promise<OpenFile> {
  try {
    return await files.open(path, 'create', mode)
  } catch (thrown) {
    if (errnoCode(thrown) !== 'EEXIST') return couldNot(`create file "${path}"`)(thrown)
    await removeLeftover(files, path)
    return await files.open(path, 'create', mode).catch(couldNot(`create file "${path}"`))
  }
}

/** Gives the file its final name without ever replacing another one. */
async function linkUnlessTaken(files: Files, target: DurableWrite, own: Identity): Promise<boolean> {
  const [from, to] = [temporaryPath(target), `${target.directory}/${target.name}`]
  try {
    await files.link(from, to)
    return true
  } catch (thrown) {
    const code = errnoCode(thrown) ?? ''
    if (withoutLinks.has(code)) return await renameUnlessTaken(files, target)
    if (code !== 'EEXIST') return couldNot(`link file "${from}" to "${to}"`)(thrown)
    // NFS may repeat a request whose answer was lost, and then refuse its own success.
    const there = await files.stat(to).catch(couldNot(`stat file "${to}"`))
    return isSameFile(there, own)
  }
}

// What link() answers on file systems that have no hard links (FAT, some network and user-space ones).
const withoutLinks: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

/**
 * The second best: between the look and the rename, lock files keep out everybody who writes as we do. Each writer has
 * its own, named after its temporary file, and goes on only when there is no other: of two that come at once, at least
 * one sees the other and gives up. A lock that a crash left is removed by its own writer's next attempt, and by whoever
 * can tell that its writer lives no more. No two processes share a name that tells so, and so it is that lock which is
 * removed. Any other has to be removed by hand.
 */
async function renameUnlessTaken(files: Files, target: DurableWrite): Promise<boolean> {
  const { directory, name } = target
  const [temporary, final] = [temporaryPath(target), `${directory}/${name}`]
  await lock(files, lockPath(target))
  try {
    const locks = await files.list(directory).catch(couldNot(`read directory "${directory}"`))
    const foreign = locks.filter(
      each => each.startsWith(`${name}.lock.`) && `${directory}/${each}` !== lockPath(target),
    )
    for (const each of foreign) {
      const path = `${directory}/${each}`
      if ((await target.isLeft?.(each)) !== true) throw new LockedError(final, path)
      await removeLeftover(files, path)
    }
    if (await exists(files, final)) return false
    await files.rename(temporary, final).catch(couldNot(`rename file "${temporary}" to "${final}"`))
    return true
  } finally {
    await removeLeftover(files, lockPath(target))
  }
}

async function lock(files: Files, path: string): Promise<void> {
  try {
    await (await files.open(path, 'create', 0o600)).close()
  } catch (thrown) {
    // Nobody else uses this name, so this one is left from before a crash.
    if (errnoCode(thrown) !== 'EEXIST') couldNot(`create file "${path}"`)(thrown)
  }
}

/** Where the file is written before it has its final name. */
function temporaryPath({ directory, temporaryName }: WritePlace): string {
  return `${directory}/${temporaryName}`
}

function lockPath({ directory, name, temporaryName }: WritePlace): string {
  return `${directory}/${name}.lock.${temporaryName}`
}

// A directory that may not be changed. What was left in it is left to whoever may.
const unchangeable: ReadonlySet<string> = new Set(['EROFS', 'EACCES', 'EPERM'])

/** Removes what a write to this place left when it was cut off, if it may be removed at all. */
export async function removeLeftovers(files: Files, place: WritePlace): Promise<void> {
  try {
    await removeLeftover(files, temporaryPath(place))
    await removeLeftover(files, lockPath(place))
  } catch (thrown) {
    if (!unchangeable.has(errnoCode(thrown) ?? '')) throw thrown
  }
}

/** Is there something of this name? Throws when that cannot be told. */
export async function exists(files: Files, path: string): Promise<boolean> {
  try {
    await files.stat(path)
    return true
  } catch (thrown) {
    return isMissing(thrown) ? false : couldNot(`stat file "${path}"`)(thrown)
  }
}

/** Removes a file that may not be there. */
async function removeLeftover(files: Files, path: string): Promise<void> {
  try {
    await files.unlink(path)
  } catch (thrown) {
    if (!isMissing(thrown)) couldNot(`remove file "${path}"`)(thrown)
  }
}
