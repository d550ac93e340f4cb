import type { ByteSource } from '../repository/codec/byte-source.ts'
import { plaintextDigest } from '../repository/codec/plaintext-digest.ts'
import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import { exists } from '../system/write-durably.ts'
import type { Spool } from './spool.ts'
import { moveWhole, removeIfThere, type WholeFile, writeWhole } from './whole-file.ts'

// A file that is being fetched is as good as there. If it takes longer than this, something else is wrong, and then it
// is better to go and see.
const fetchPatienceMs = 10_000
const fetchPollMs = 5

export interface HandOverOptions {
  files: Files
  clock: Clock
  spool: Spool
  /** Where the file has to be from. */
  source: string
}

/**
 * Delivers a file that was fetched ahead, if it is there and has the digest that its fetcher saw; waits for one that is
 * being fetched. With `false` nothing was changed, but that a file that is not what it should be is gone.
 */
export async function handOver(options: HandOverOptions, name: string, target: WholeFile): Promise<boolean> {
  const { files, spool, source } = options
  if (!(await isFetched(options, name))) return false
  const verified = await spool.readVerified(name)
  if (verified === undefined || verified.source !== source) return false
  const path = spool.path(name)
  let isRight: boolean
  try {
    isRight = await withFile(
      files,
      path,
      async file => (await plaintextDigest(file)).digest === verified.digest,
    )
    if (isRight && (await moveWhole(files, path, target.path))) return true
    if (isRight) isRight = await isCopied(files, path, target, verified.digest)
  } catch {
    // Whatever is the matter with the spool, the repository has the file too.
    isRight = false
  }
  await removeIfThere(files, path).catch(() => undefined)
  if (!isRight) await removeIfThere(files, spool.verifiedPath(name)).catch(() => undefined)
  return isRight
}

async function isFetched({ files, clock, spool }: HandOverOptions, name: string): Promise<boolean> {
  const deadline = clock.monotonic() + fetchPatienceMs
  for (;;) {
    if (await exists(files, spool.verifiedPath(name)).catch(() => false)) return true
    const isUnderWay =
      (await exists(files, spool.partPath(name)).catch(() => false)) ||
      (await exists(files, spool.path(name)).catch(() => false))
    if (!isUnderWay || clock.monotonic() > deadline || !(await spool.hasFetcher())) return false
    await clock.sleep(fetchPollMs)
  }
}

/** From another file system. What is copied is looked at once more, because it was read once more. */
async function isCopied(files: Files, path: string, target: WholeFile, digest: string): Promise<boolean> {
  return await withFile(files, path, source =>
    writeWhole(files, target, async append => {
      const copying: ByteSource = {
        read: async buffer => {
          const count = await source.read(buffer)
          await append(buffer.subarray(0, count))
          return count
        },
      }
      return (await plaintextDigest(copying)).digest === digest
    }),
  )
}

async function withFile<T>(files: Files, path: string, use: (file: ByteSource) => Promise<T>): Promise<T> {
  await using file = await files.open(path, 'readNoLink')
  return await use(file)
}
