import type { OpenWalSource, WalSource } from './repository.ts'
import { RepositoryError } from './repository-error.ts'

/** A file that is read several times, and stands for one and the same all that time. */
export interface SameFileSource extends WalSource {
  /** Of the very file: where it lies, and when it was changed. */
  readonly identity: string
  /** Is it what stands under its name now? */
  isSame(): Promise<boolean>
}

/**
 * Whoever opens the file later, when the server may have recycled it, gets an error instead of another file, also of
 * the same size: renaming changes the time of the last change, and what is made anew has another inode.
 */
export async function sameFileSource(source: WalSource): Promise<SameFileSource> {
  const identity = await currentIdentity(source)
  return {
    name: source.name,
    identity,
    isSame: async () => (await currentIdentity(source).catch(() => undefined)) === identity,
    open: async () => {
      const opened = await source.open()
      try {
        if (identityOf(await opened.stat()) === identity) return opened
        throw new RepositoryError('SOURCE', `file "${source.name}" was changed while it was being archived`)
      } catch (thrown) {
        await opened[Symbol.asyncDispose]()
        throw thrown
      }
    },
  }
}

async function currentIdentity(source: WalSource): Promise<string> {
  await using opened = await source.open()
  return identityOf(await opened.stat())
}

function identityOf(status: Awaited<ReturnType<OpenWalSource['stat']>>): string {
  const { device, inode, size, modifiedNs, changedNs } = status
  return [device, inode, size, modifiedNs, changedNs].join(' ')
}
