import type { Files, OpenFile } from '../system/files.ts'
import { couldNot, errnoCode, isMissing, systemErrorText } from '../system/system-error.ts'

export interface WholeFile {
  path: string
  /** On the same file system as `path`, and used by nobody else. */
  temporaryPath: string
  mode: number
  /** Whom the file shall belong to, where that is not who writes it; only root can do so. */
  owner?: { uid: number; gid: number } | undefined
}

/** Says that a file could not be written where it is wanted: our own side, which must not pass for the repository's. */
export class WriteError extends Error {
  override readonly name = 'WriteError'
}

/**
 * Writes a file so that its name stands for all of its bytes or for nothing, and leaves nothing else behind. Not
 * durable: what is restored is still in the archive after a power cut. `write` resolves with `false` where there is no such
 * file at all, and this with what it does; `again` forgets what was appended.
 */
export async function writeWhole<Written>(
  files: Files,
  target: WholeFile,
  write: (
    append: (bytes: Uint8Array) => Promise<void>,
    again: () => Promise<void>,
  ) => Promise<Written | false>,
): Promise<Written | false> {
  const { path, temporaryPath } = target
  // Made when there is something to write: who asks for what is not there needs neither room nor permission.
  let file: OpenFile | undefined
  let failure: unknown
  const opened = async () => (file ??= await create(files, target))
  const close = async () => {
    const closing = file
    file = undefined
    // Some file systems say only now that there was no room.
    await closing?.close().catch(ownSide(`close file "${temporaryPath}"`))
  }
  const append = async (bytes: Uint8Array) => {
    try {
      await (await opened()).write(bytes).catch(ownSide(`write to file "${temporaryPath}"`))
    } catch (thrown) {
      failure ??= thrown
      throw thrown
    }
  }
  const again = async () => {
    if (file === undefined) return
    await close()
    await files.unlink(temporaryPath).catch(ownSide(`remove file "${temporaryPath}"`))
  }
  try {
    const written = await write(append, again).catch((thrown: unknown) => {
      // What comes of our failure, such as a decompressor that was stopped, is not what went wrong.
      throw failure ?? thrown
    })
    if (written === false) return false
    await opened()
    await close()
    await files.rename(temporaryPath, path).catch(ownSide(`rename file "${temporaryPath}" to "${path}"`))
    return written
  } finally {
    await close().catch(() => undefined)
    // There is nothing of this name any more, unless something went wrong.
    await files.unlink(temporaryPath).catch(() => undefined)
  }
}

/** Gives a file another place, in one step; `false` where that is on another file system. */
export async function moveWhole(files: Files, from: string, to: string): Promise<boolean> {
  try {
    await files.rename(from, to)
    return true
  } catch (thrown) {
    if (errnoCode(thrown) === 'EXDEV') return false
    return ownSide(`rename file "${from}" to "${to}"`)(thrown)
  }
}

async function create(files: Files, { temporaryPath, mode, owner }: WholeFile): Promise<OpenFile> {
  const open = () => files.open(temporaryPath, 'create', mode)
  const file = await open()
    .catch(async (thrown: unknown) => {
      if (errnoCode(thrown) !== 'EEXIST') throw thrown
      // Of one that was killed and had our number: in a container the numbers come again with each start.
      await files.unlink(temporaryPath)
      return await open()
    })
    .catch(ownSide(`create file "${temporaryPath}"`))
  try {
    if (owner !== undefined) await file.changeOwner(owner.uid, owner.gid)
    return file
  } catch (thrown) {
    await file.close()
    return ownSide(`change owner of file "${temporaryPath}"`)(thrown)
  }
}

function ownSide(deed: string): (thrown: unknown) => never {
  return cause => {
    throw new WriteError(`could not ${deed}: ${systemErrorText(cause)}`, { cause })
  }
}

export async function removeIfThere(files: Files, path: string): Promise<void> {
  try {
    await files.unlink(path)
  } catch (thrown) {
    if (!isMissing(thrown)) couldNot(`remove file "${path}"`)(thrown)
  }
}
