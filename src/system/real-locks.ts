import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { Lock, Locks } from './locks.ts'
import { isMissing } from './system-error.ts'

/**
 * Locks by flock(2). Node has no call for it, but such a lock belongs to the open file, not to the process that asked
 * for it: the program `flock`, given our descriptor, takes it and ends, and we hold it for as long as we keep the file
 * open. A lock by the existence of a file would have to guess whether its owner still lives.
 */
export const realLocks: Locks = {
  acquire: async (path, owner) => {
    const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    try {
      if (!(await flock(file, '--exclusive'))) {
        await file.close()
        return undefined
      }
      // For people to read. A full disk prevents it, which is when an archiver is needed most.
      await writeOwner(file, owner).catch(() => undefined)
      return new FlockedFile(file)
    } catch (thrown) {
      await file.close()
      throw thrown
    }
  },
  isHeld: async path => {
    let file: FileHandle
    try {
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    } catch (thrown) {
      if (isMissing(thrown)) return false
      throw thrown
    }
    try {
      return !(await flock(file, '--shared'))
    } finally {
      await file.close()
    }
  },
}

async function writeOwner(file: FileHandle, owner: string): Promise<void> {
  await file.truncate()
  await file.write(owner, 0)
}

class FlockedFile implements Lock {
  readonly #file: FileHandle

  constructor(file: FileHandle) {
    this.#file = file
  }

  async release(): Promise<void> {
    await this.#file.truncate()
    await this.#file.close()
  }
}

const flockHeld = 1 // status of flock(1) when it would have had to wait for longer

// Who only looks whether a lock is held takes it for a moment; who wants to hold it waits that moment out.
const momentSeconds = 2

async function flock(file: FileHandle, mode: '--exclusive' | '--shared'): Promise<boolean> {
  const waitSeconds = mode === '--exclusive' ? momentSeconds : 0
  const child = spawn('flock', [mode, '--timeout', String(waitSeconds), '3'], {
    stdio: ['ignore', 'ignore', 'ignore', file.fd],
  })
  const [status] = (await once(child, 'exit').catch((thrown: unknown) => {
    throw new Error('could not run the program "flock", which belongs to util-linux', { cause: thrown })
  })) as [number | null]
  if (status === 0) return true
  if (status === flockHeld) return false
  throw new Error(`the program "flock" failed with status ${status}`)
}
