import { createHash } from 'node:crypto'
import { encodeMarker } from '../../src/repository/marker.ts'
import { encodeMetadataBlock, metadataBlockBytes } from '../../src/repository/metadata-block.ts'
import { markerKey, parseWalObjectKey } from '../../src/repository/object-key.ts'
import type { ListedObject, Store, StoredObject } from '../../src/repository/store/store.ts'
import { walFileKind } from '../../src/wal/wal-file-name.ts'

const nothing = createHash('sha256').digest('hex')

export interface ObjectLook {
  segmentBytes?: number | null
  plaintextLength?: number
  writtenAt?: string
}

/**
 * An object without stored bytes, of which the metadata say that it is a whole segment: right in itself as long as
 * nobody decodes it, and made in no time.
 */
export function hollowObject(key: string, look: ObjectLook = {}): Uint8Array {
  const object = parseWalObjectKey(key)
  if (object === undefined) throw new Error(`"${key}" is no key of an object`)
  const { segmentBytes = 1024 * 1024, writtenAt = '2026-11-21T04:00:00.000Z' } = look
  const isSegment = walFileKind(object.name) === 'segment'
  return encodeMetadataBlock({
    name: object.name,
    system_identifier: object.systemIdentifier,
    plaintext_xxh128: '0'.repeat(32),
    plaintext_length: look.plaintextLength ?? (isSegment ? (segmentBytes ?? 0) : 0),
    stored_sha256: nothing,
    stored_length: 0,
    compression: 'zstd',
    encryption: 'none',
    recipients: [],
    wal_segment_size: segmentBytes,
    wal_page_magic: null,
    archived_at: writtenAt,
    modified_at: writtenAt,
    writer: 'a test',
  })
}

/** A store that holds what a function says, however much that is. */
export class GeneratedStore implements Store {
  readonly url = 'memory:'
  readonly features = { canBeUnmounted: false }
  /** How many objects are open, and how many were at most. */
  opened = 0
  openedMax = 0
  readonly #keys: () => Iterable<string>
  readonly #content: (key: string) => Uint8Array | undefined
  readonly #lengthOf: (key: string) => number

  constructor(
    keys: () => Iterable<string>,
    content: (key: string) => Uint8Array | undefined,
    lengthOf: (key: string) => number = () => metadataBlockBytes,
  ) {
    this.#keys = keys
    this.#content = content
    this.#lengthOf = lengthOf
  }

  async inspect(): Promise<void> {}
  async isEmpty(): Promise<boolean> {
    return false
  }
  async mayHave(): Promise<boolean> {
    return true
  }
  async put(): Promise<never> {
    throw new Error('nothing may be changed')
  }
  async confirm(): Promise<never> {
    throw new Error('nothing may be changed')
  }
  async keepsWhatIsThere(): Promise<never> {
    throw new Error('nothing may be changed')
  }
  async *unfinishedWrites(): AsyncIterable<never> {}
  async [Symbol.asyncDispose](): Promise<void> {}

  async open(key: string): Promise<StoredObject | undefined> {
    const content =
      key === markerKey ? encodeMarker('00000000-0000-4000-8000-000000000000', '', '') : this.#content(key)
    if (content === undefined) return undefined
    let position = 0
    this.openedMax = Math.max(this.openedMax, ++this.opened)
    return {
      length: content.length,
      read: async buffer => {
        const bytes = content.subarray(position, position + buffer.length)
        buffer.set(bytes)
        position += bytes.length
        return bytes.length
      },
      [Symbol.asyncDispose]: async () => {
        this.opened--
      },
    }
  }

  async *list(prefix: string): AsyncIterable<ListedObject> {
    for (const key of this.#keys()) {
      if (key.startsWith(prefix)) yield { key, length: this.#lengthOf(key) }
    }
  }
}
