import { createHash } from 'node:crypto'
import { metadataBlockBytes, parseMetadataBlock } from './metadata-block.ts'
import { parseWalObjectKey } from './object-key.ts'
import type { Repository } from './repository.ts'
import { RepositoryError } from './repository-error.ts'
import type { NewObject, StoredObject } from './store/store.ts'

const copyBytes = 256 * 1024

/** Says that the object could not be read where it is, which says nothing of where it was to be stored. */
export class CopySourceError extends Error {
  override readonly name = 'CopySourceError'
  /** Expiry may run at any time. */
  readonly isGone: boolean

  constructor(cause: unknown, isGone: boolean) {
    super(cause instanceof Error ? cause.message : String(cause), { cause })
    this.isGone = isGone
  }
}

/**
 * Stores in one repository the very bytes that another one has under a key, for which no key of encryption is needed.
 * Rejects with what is wrong with them, and has then stored nothing. Resolves with how many bytes the object has;
 * `undefined` when an object of this key has come meanwhile.
 */
export async function copyObject(
  key: string,
  from: Repository,
  to: Repository,
  signal?: AbortSignal,
): Promise<number | undefined> {
  let bytes = 0
  let ofSource: CopySourceError | undefined
  const ended = new AbortController()
  const ofEither = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal])
  const open = () => from.store.open(key, { signal: ofEither })
  /** The source, until it is read. */
  const ahead: Promise<StoredObject | undefined>[] = []
  const write: NewObject['write'] = async append => {
    ofSource = undefined
    let isGone = false
    let hasTargetFailed = false
    try {
      // Anew, where a store has it written again.
      await using source = await (ahead.pop() ?? open())
      if (source === undefined) {
        isGone = true
        throw new Error(`"${key}" is gone from repository "${from.url}"`)
      }
      bytes = source.length
      const appending = (chunk: Uint8Array) =>
        append(chunk).catch((thrown: unknown) => {
          hasTargetFailed = true
          throw thrown
        })
      return await copyChecked(key, from, source, appending, signal)
    } catch (thrown) {
      if (!hasTargetFailed) ofSource = new CopySourceError(thrown, isGone)
      throw thrown
    }
  }
  // A copy holds memory of both stores, each of which grants whatever the one asks for that came first, and lets others
  // wait. As each copy comes to both in one step, whichever way it goes, the first of all copies is the first everywhere:
  // it waits for no other one and comes to its end, and then the next one is. So none waits for ever, however many there are.
  const begin = (): NewObject => {
    const opened = open()
    opened.catch(() => {}) // told when it is read
    ahead.push(opened)
    return { frontBytes: metadataBlockBytes, write }
  }
  try {
    return (await to.storeCopy(key, begin, signal)) === 'written' ? bytes : undefined
  } catch (thrown) {
    throw ofSource ?? thrown
  } finally {
    ended.abort(new Error('the copy has ended'))
    await ahead.pop()?.then(
      source => source?.[Symbol.asyncDispose](),
      () => undefined,
    )
  }
}

async function copyChecked(
  key: string,
  { url }: Repository,
  source: StoredObject,
  append: (chunk: Uint8Array) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const damaged = (why: string) =>
    new RepositoryError('CORRUPT', `"${key}" in repository "${url}" is damaged: ${why}`)
  const block = new Uint8Array(metadataBlockBytes)
  const parsed = parseMetadataBlock(block.subarray(0, await source.read(block)))
  if (parsed.kind === 'damaged') throw damaged(parsed.why)
  if (parsed.kind === 'newer') {
    throw new RepositoryError(
      'NEWER_FORMAT',
      `"${key}" in repository "${url}" has format ${parsed.format}, which this version cannot read`,
    )
  }
  const { name, system_identifier, stored_length, stored_sha256 } = parsed.metadata
  const place = parseWalObjectKey(key)
  if (place?.name !== name || place.systemIdentifier !== system_identifier) {
    throw damaged(`it is "${name}" of cluster ${system_identifier}`)
  }
  const hash = createHash('sha256')
  let length = 0
  for (;;) {
    signal?.throwIfAborted()
    // A buffer of its own each time: a store may still be sending the one before.
    const buffer = new Uint8Array(copyBytes)
    const chunk = buffer.subarray(0, await source.read(buffer))
    if (chunk.length === 0) break
    length += chunk.length
    if (length > stored_length)
      throw damaged(`there are more than the ${stored_length} bytes that were stored`)
    hash.update(chunk)
    await append(chunk)
  }
  if (length < stored_length) throw damaged(`the stored bytes end after ${length} of ${stored_length}`)
  if (hash.digest('hex') !== stored_sha256) throw damaged('the stored bytes do not match their digest')
  return block
}
