import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import { isMissing } from '../system/system-error.ts'
import { identityOf } from './file-identity.ts'

/** A file or directory that settings were read from, and what it was then, in the form of `identityOf`. */
export interface SourceMark {
  path: string
  identity: string
}

// Times of files have a granularity: of two changes within it, the second one does not show. No system has one like this.
const granularityMs = 50
const nanosecondsPerMs = 1_000_000n

/**
 * Marks of all sources, which are others as soon as one of them is changed, replaced, removed or made. Of one that is not
 * there, the directory in which it would be is marked. `undefined` where that cannot be told, or where one was changed so
 * recently that the next change might not show.
 */
export async function sourceMarks(
  files: Files,
  clock: Pick<Clock, 'now'>,
  sources: readonly string[],
): Promise<SourceMark[] | undefined> {
  const marks = new Map<string, string>()
  for (const source of sources) {
    const found = await statusOf(files, source)
    if (found === undefined || source.includes('\n')) return undefined
    const { path, status } = found
    if (Number(status.changedNs / nanosecondsPerMs) > clock.now() - granularityMs) return undefined
    marks.set(path, identityOf(status))
  }
  return [...marks].map(([path, identity]) => ({ path, identity }))
}

async function statusOf(files: Files, path: string) {
  const parent = path.slice(0, path.lastIndexOf('/')) || '/'
  for (const each of [path, parent]) {
    try {
      return { path: each, status: await files.stat(each) }
    } catch (thrown) {
      if (!isMissing(thrown)) return undefined
    }
  }
  return undefined
}

export function isSameMarks(
  a: readonly SourceMark[] | undefined,
  b: readonly SourceMark[] | undefined,
): boolean {
  return a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b)
}
