import { CodecError, type CodecErrorKind } from './codec-error.ts'

// The frame format is RFC 8878, section 3.1.1.

const magicBytes = [0x28, 0xb5, 0x2f, 0xfd] as const
const blockHeaderBytes = 3
const checksumBytes = 4
const blockBytesMax = 128 * 1024
/** By the two highest bits of the frame header descriptor. The first is 1 in a frame of a single segment. */
const contentSizeBytes = [0, 2, 4, 8] as const
/** By the two lowest bits. */
const dictionaryIdBytes = [0, 1, 2, 4] as const

/** What a frame says of its content. */
export interface ZstdFrame {
  contentSize: number
  /** The lower half of the content's XXH64. */
  checksum: number
}

type Field = 'magic' | 'descriptor' | 'rest of header' | 'block header' | 'block' | 'checksum' | 'end'

/**
 * Follows the bytes of one zstd frame, from block to block, without decompressing them. It takes a frame with content
 * size and checksum and without dictionary, which is what we write, and nothing before it. What is wrong with it is an
 * error of the kind that it was given.
 */
export class ZstdFrameWalk {
  readonly #kind: CodecErrorKind
  #field: Field = 'magic'
  /** What is there of the field; a block's bytes are only counted. */
  #value: number[] = []
  #missing: number = magicBytes.length
  #descriptor = 0
  #isLastBlock = false
  #contentSize: number | undefined
  #checksum = 0

  constructor(kind: CodecErrorKind) {
    this.#kind = kind
  }

  /** What the header says, as soon as that was seen. */
  get contentSize(): number | undefined {
    return this.#contentSize
  }

  /** Returns how many of the bytes are the frame's: fewer than all where it ends before. */
  push(bytes: Uint8Array): number {
    let at = 0
    while (at < bytes.length && !this.hasEnded) {
      const taken = Math.min(this.#missing, bytes.length - at)
      if (this.#field !== 'block') this.#value.push(...bytes.subarray(at, at + taken))
      at += taken
      this.#missing -= taken
      // A block may be empty, and then it is complete before its first byte.
      while (this.#missing === 0 && !this.hasEnded) this.#next()
    }
    return at
  }

  /** To be called after the last byte. */
  end(): ZstdFrame {
    if (!this.hasEnded || this.#contentSize === undefined) {
      throw this.#error('the zstd frame is not complete')
    }
    return { contentSize: this.#contentSize, checksum: this.#checksum }
  }

  #next(): void {
    const value = this.#value
    this.#value = []
    switch (this.#field) {
      case 'magic':
        if (!magicBytes.every((byte, index) => byte === value[index]))
          throw this.#error('it is not a zstd frame')
        return this.#expect('descriptor', 1)
      case 'descriptor':
        this.#descriptor = value[0] ?? 0
        return this.#expect('rest of header', this.#headerBytes())
      case 'rest of header':
        this.#contentSize = littleEndian(value.slice(this.#isSingleSegment ? 0 : 1))
        if (this.#contentSizeBytes === 2) this.#contentSize += 256
        return this.#expect('block header', blockHeaderBytes)
      case 'block header':
        return this.#expect('block', this.#blockBytes(littleEndian(value)))
      case 'block':
        return this.#isLastBlock
          ? this.#expect('checksum', checksumBytes)
          : this.#expect('block header', blockHeaderBytes)
      case 'checksum':
        this.#checksum = littleEndian(value)
        return this.#expect('end', 0)
      case 'end':
        return
      default:
        return this.#field satisfies never
    }
  }

  #expect(field: Field, bytes: number): void {
    this.#field = field
    this.#missing = bytes
  }

  get hasEnded(): boolean {
    return this.#field === 'end'
  }

  get #isSingleSegment(): boolean {
    return (this.#descriptor & 0x20) !== 0
  }

  get #contentSizeBytes(): number {
    const bytes = contentSizeBytes[(this.#descriptor >> 6) as 0 | 1 | 2 | 3]
    return bytes === 0 && this.#isSingleSegment ? 1 : bytes
  }

  #headerBytes(): number {
    if ((this.#descriptor & 0x08) !== 0) throw this.#error('the zstd frame is of a later format')
    if ((this.#descriptor & 0x04) === 0) throw this.#error('the zstd frame has no checksum')
    if (dictionaryIdBytes[(this.#descriptor & 0x03) as 0 | 1 | 2 | 3] > 0) {
      throw this.#error('the zstd frame needs a dictionary')
    }
    if (this.#contentSizeBytes === 0) throw this.#error('the zstd frame has no content size')
    return (this.#isSingleSegment ? 0 : 1) + this.#contentSizeBytes
  }

  #blockBytes(header: number): number {
    this.#isLastBlock = (header & 1) === 1
    const type = (header >> 1) & 3
    const size = header >> 3
    // The size of a block of one repeated byte is that of its content; it is stored as that byte.
    if (type === 1) return 1
    if (type === 3 || size > blockBytesMax) throw this.#error('a block of the zstd frame is not valid')
    return size
  }

  #error(message: string): CodecError {
    return new CodecError(this.#kind, message)
  }
}

function littleEndian(bytes: readonly number[]): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0)
}
