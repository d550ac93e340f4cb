import type { Files } from '../../system/files.ts'
import { FileError, isMissing } from '../../system/system-error.ts'
import type { UnfinishedWrite } from './store.ts'
import { storeFailure } from './store-failure.ts'
import { isUnfinishedWrite } from './unfinished-write.ts'

// CLUSTER/wal/TIMELINE/LOG. A link that leads back up must not be followed for ever.
const depthMax = 4

/** Walks through a directory for writes that nothing has been added to since `changedBeforeMs`. */
export async function* unfinishedWrites(
  files: Files,
  root: string,
  changedBeforeMs: number,
): AsyncGenerator<UnfinishedWrite> {
  yield* inDirectory(files, root, '', BigInt(changedBeforeMs) * 1_000_000n, 0)
}

async function* inDirectory(
  files: Files,
  root: string,
  prefix: string,
  changedBeforeNs: bigint,
  depth: number,
): AsyncGenerator<UnfinishedWrite> {
  const directory = prefix === '' ? root : `${root}/${prefix.slice(0, -1)}`
  const found: string[] = []
  const below: string[] = []
  const sort = (name: string) => {
    if (isUnfinishedWrite(name)) found.push(name)
    else if (mayBeDirectory(name)) below.push(name)
  }
  try {
    await files.visit(directory, sort)
  } catch (thrown) {
    if (isMissing(thrown)) return
    throw storeFailure(new FileError(`read directory "${directory}"`, thrown))
  }
  for (const name of found) {
    const status = await files.stat(`${directory}/${name}`).catch(() => undefined)
    if (status?.kind !== 'file' || status.changedNs >= changedBeforeNs) continue
    yield { key: `${prefix}${name}`, length: status.size }
  }
  if (depth === depthMax) return
  for (const name of below.sort()) {
    const status = await files.stat(`${directory}/${name}`).catch(() => undefined)
    if (status?.kind !== 'directory') continue
    yield* inDirectory(files, root, `${prefix}${name}/`, changedBeforeNs, depth + 1)
  }
}

/** Directories of ours are named after clusters, timelines and parts of WAL: this keeps from looking at every object. */
function mayBeDirectory(name: string): boolean {
  return name === 'wal' || name === 'backup' || /^(\d{1,20}|[0-9A-F]{8})$/.test(name)
}
