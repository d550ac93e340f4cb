import { FileError } from '../system/system-error.ts'
import { CodecError } from './codec/codec-error.ts'
import { metadataBlockBytes, type ObjectMetadata } from './metadata-block.ts'
import type { WalObject } from './object-key.ts'
import type { Repository } from './repository.ts'
import { RepositoryError, type RepositoryErrorCode } from './repository-error.ts'
import type { ListedObject } from './store/store.ts'
import type { FindingKind } from './verify-report.ts'

/** What became of looking at an object. The metadata are there as far as they could be read. */
export type CheckedObject =
  | { kind: 'sound'; metadata: ObjectMetadata }
  | { kind: 'removed' }
  | {
      kind: 'faulty'
      fault: FindingKind
      message: string
      code: string | undefined
      metadata: ObjectMetadata | undefined
    }

export interface CheckOptions {
  /** Decodes the object and compares the digest of its content as well. Private keys. */
  decode?: (() => Promise<readonly string[]>) | undefined
}

/** Reads the whole of an object. Throws only where nothing could be said of any other object either. */
export async function checkWalObject(
  repository: Repository,
  { key, length, systemIdentifier, name }: ListedObject & WalObject,
  { decode }: CheckOptions,
): Promise<CheckedObject> {
  let metadata: ObjectMetadata | undefined
  try {
    // Where it is decoded, it is opened once more for that.
    const opened = await repository.open(key, decode && { bytesWanted: metadataBlockBytes })
    if (opened === undefined) return { kind: 'removed' }
    await using _object = opened.object
    metadata = opened.metadata
    if (decode === undefined) {
      await repository.checkObject(key, opened)
      return { kind: 'sound', metadata }
    }
    const request = { systemIdentifier, name, identities: decode }
    const isThere = await repository.fetch(request, async () => undefined)
    return isThere ? { kind: 'sound', metadata } : { kind: 'removed' }
  } catch (thrown) {
    if (!(thrown instanceof RepositoryError)) throw thrown
    // The whole cluster went meanwhile, or the whole disk, which the marker tells in the end.
    if (thrown.code === 'UNKNOWN_CLUSTER') return { kind: 'removed' }
    const fault = faultOf(thrown, length)
    if (fault === undefined) throw thrown
    const code = thrown.cause instanceof FileError ? thrown.cause.code : undefined
    return { kind: 'faulty', fault, message: messageOf(thrown), code, metadata }
  }
}

// What is not listed says something of the repository as a whole.
const faults: Partial<Record<RepositoryErrorCode, FindingKind>> = {
  UNREACHABLE: 'unreadable',
  SETTINGS: 'unreadable',
  NEWER_FORMAT: 'newer_format',
  NO_KEY: 'no_key',
  WRONG_KEY: 'wrong_key',
}

function faultOf({ code, cause }: RepositoryError, length: number): FindingKind | undefined {
  if (code !== 'CORRUPT') return faults[code]
  if (!(cause instanceof CodecError)) return length < metadataBlockBytes ? 'truncated' : 'metadata'
  if (cause.kind === 'truncated') return 'truncated'
  return cause.kind === 'too long' ? 'too_long' : 'altered'
}

function messageOf({ message, detail }: RepositoryError): string {
  return detail === undefined ? message : `${message}. ${detail}`
}
