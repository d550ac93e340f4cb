import { createHash } from 'node:crypto'
import { walFileKind } from '../wal/wal-file-name.ts'

/** The first bytes of every object, before what is stored. FORMAT.md describes them. */
export const metadataBlockBytes = 4_096

/** More would not fit into the block. */
export const recipientsMax = 32

const title = 'pgarchivist object, format 1\n'
const checksumBytes = 65 // SHA-256 in hexadecimal digits, and a line feed
const textBytes = metadataBlockBytes - checksumBytes

/** What an object says of itself. */
export interface ObjectMetadata {
  /** Of the WAL file. */
  name: string
  system_identifier: string
  /** XXH3-128 of the file, as `xxh128sum` prints it. */
  plaintext_xxh128: string
  plaintext_length: number
  /** SHA-256 of all bytes after the block. */
  stored_sha256: string
  stored_length: number
  compression: 'zstd'
  encryption: 'none' | 'age'
  /** Public keys, one of whose private keys opens the object; none where it is not encrypted. */
  recipients: string[]
  /** Bytes of a WAL segment of the cluster; null where it was not known. */
  wal_segment_size: number | null
  /** Of the first page, four hexadecimal digits; null for files that have none. */
  wal_page_magic: string | null
  /** When it was stored, in ISO 8601. */
  archived_at: string
  /** When the file was last written, in ISO 8601. */
  modified_at: string
  /** What stored it. */
  writer: string
}

export type ParsedBlock =
  | { kind: 'metadata'; metadata: ObjectMetadata }
  | { kind: 'damaged'; why: string }
  | { kind: 'newer'; format: string }

export function encodeMetadataBlock(metadata: ObjectMetadata): Uint8Array {
  const text = Buffer.alloc(textBytes, ' ')
  const json = `${title}${JSON.stringify(metadata, null, 1)}\n`
  if (Buffer.byteLength(json) >= textBytes) throw new Error('the metadata do not fit into their block')
  text.write(json)
  text[textBytes - 1] = 0x0a
  return Buffer.concat([text, Buffer.from(`${sha256(text)}\n`)])
}

/** Unknown members are ignored, so that later writers can add some. */
export function parseMetadataBlock(block: Uint8Array): ParsedBlock {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength)
  if (bytes.length < metadataBlockBytes)
    return { kind: 'damaged', why: 'it is shorter than its metadata block' }
  const text = bytes.subarray(0, textBytes)
  const checksum = bytes.subarray(textBytes, metadataBlockBytes).toString('latin1')
  if (checksum !== `${sha256(text)}\n`) return { kind: 'damaged', why: 'its metadata block is damaged' }
  const content = text.toString('utf8')
  const format = /^pgarchivist object, format (\d+)\n/.exec(content)?.[1]
  if (format === undefined) return { kind: 'damaged', why: 'it does not begin with a metadata block' }
  if (!content.startsWith(title)) return { kind: 'newer', format }
  const metadata = parseMetadata(content.slice(title.length))
  return metadata === undefined
    ? { kind: 'damaged', why: 'its metadata are not what they should be' }
    : { kind: 'metadata', metadata }
}

function parseMetadata(json: string): ObjectMetadata | undefined {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const metadata = value as ObjectMetadata
  return Object.entries(shape).every(([key, isRight]) => isRight(metadata[key as keyof ObjectMetadata]))
    ? metadata
    : undefined
}

// It gets into messages, and there into terminals.
const isText = (value: unknown) => typeof value === 'string' && !/\p{Cc}/u.test(value)
const isLength = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
const matches = (pattern: RegExp) => (value: unknown) => typeof value === 'string' && pattern.test(value)

const shape: Record<keyof ObjectMetadata, (value: unknown) => boolean> = {
  name: value => typeof value === 'string' && walFileKind(value) !== undefined,
  system_identifier: matches(/^\d{1,20}$/),
  plaintext_xxh128: matches(/^[0-9a-f]{32}$/),
  plaintext_length: isLength,
  stored_sha256: matches(/^[0-9a-f]{64}$/),
  stored_length: isLength,
  compression: value => value === 'zstd',
  encryption: value => value === 'none' || value === 'age',
  recipients: value => Array.isArray(value) && value.every(isText),
  wal_segment_size: value => value === null || isLength(value),
  wal_page_magic: value => value === null || matches(/^[0-9A-F]{4}$/)(value),
  archived_at: isText,
  modified_at: isText,
  writer: isText,
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
