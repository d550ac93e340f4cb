import type { Transform } from 'node:stream'
import { constants, createZstdCompress } from 'node:zlib'
import { CodecError } from './codec-error.ts'

/** Makes frames, one after the other, until it is disposed of. */
export interface Compressor extends Disposable {
  /**
   * The frame that holds `bytes`, in pieces. They have to stay as they are until it is there, and the next call has to
   * wait as long. After a rejection there are no more frames.
   */
  compress(bytes: Uint8Array): Promise<Uint8Array[]>
}

/**
 * How much of a file is in one frame. A frame that is made of bytes which lie together, all at once, costs up to a third
 * less than one whose bytes come bit by bit; and with tables that fit into a processor's cache, small ones cost least. Higher levels look for
 * what repeats farther away, for those who want few bytes at any cost.
 */
export function frameBytes(level: number): number {
  if (level < 3) return 512 * 1024
  return level < 6 ? 1024 * 1024 : 2 * 1024 * 1024
}

const outputBytes = 512 * 1024

let idleLevel = 0
const idle: FrameStream[] = []

/**
 * Each frame holds content size and checksum; `level` is zstd's. Compressors are used again, because each has megabytes of
 * tables, and whoever makes new ones for every file keeps the garbage collector busy. There are as many as were ever used at
 * once with the level that was used last.
 */
export function zstdCompressor(level: number): Compressor {
  if (level !== idleLevel) for (const frames of idle.splice(0)) frames.close()
  idleLevel = level
  const frames = idle.pop() ?? new FrameStream(newStream(level))
  return {
    compress: bytes => frames.compress(bytes),
    [Symbol.dispose]: () => {
      if (frames.isSound && level === idleLevel) idle.push(frames)
      else frames.close()
    },
  }
}

// zstd's own worker threads stay unused: with them, node:zlib has lost the end of its output and reported success.
function newStream(level: number): Transform {
  return createZstdCompress({
    chunkSize: outputBytes,
    // Every write is a frame.
    flush: constants.ZSTD_e_end,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_contentSizeFlag]: 1,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  })
}

/** What zstd makes of nothing. */
const emptyFrame = Buffer.of(0x28, 0xb5, 0x2f, 0xfd, 0x24, 0, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51)

/** Where a frame just fits into what node:zlib has for it, that asks whether there is more, and gets another one. */
function withoutSurplus(pieces: Uint8Array[]): Uint8Array[] {
  const last = pieces.at(-1)
  return pieces.length > 1 && last !== undefined && emptyFrame.equals(last) ? pieces.slice(0, -1) : pieces
}

/** Frames out of a stream that makes one of every write. */
export class FrameStream {
  readonly #stream: Transform
  #pieces: Uint8Array[] = []
  #fail: (error: CodecError) => void = () => {}
  isSound = true

  constructor(stream: Transform) {
    this.#stream = stream
    stream.on('data', piece => this.#pieces.push(piece))
    // The error is looked for when the stream closes; without a listener it would end the process.
    stream.on('error', () => undefined)
    // A stream that is destroyed does not always call back for the write in progress.
    stream.once('close', () => this.#break(stream.errored))
  }

  compress(bytes: Uint8Array): Promise<Uint8Array[]> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array[]>()
    this.#fail = reject
    this.#pieces = []
    this.#stream.write(bytes, error => {
      if (error) this.#break(error)
      else resolve(withoutSurplus(this.#pieces))
    })
    return promise
  }

  close(): void {
    this.#stream.destroy()
  }

  #break(cause: Error | null): void {
    this.isSound = false
    const message = `zstd: ${cause?.message ?? 'the stream was closed'}`
    this.#fail(new CodecError('unsound output', message, cause ? { cause } : {}))
  }
}
