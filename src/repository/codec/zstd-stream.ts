import type { Transform } from 'node:stream'
import { constants, createZstdDecompress } from 'node:zlib'
import { type ByteSink, chunkBytes } from './byte-source.ts'
import { CodecError, type CodecErrorKind } from './codec-error.ts'

/** 128 MiB is what the `zstd` command decompresses without being asked to; none of our levels needs more. */
const windowLogMax = 27

/** Its writes must not hold bytes of two frames: node:zlib loses its way there. */
export function zstdDecompressor(): Transform {
  return createZstdDecompress({
    chunkSize: chunkBytes,
    params: { [constants.ZSTD_d_windowLogMax]: windowLogMax },
  })
}

/**
 * Runs bytes through a stream: `feed` writes them, and `take` gets what comes out. A write is done when its bytes were
 * processed, so that their buffer may be used again. Resolves when all that came out was taken. When it rejects, both
 * have ended: with their own error, or with one of `kind` if it was the stream that failed.
 */
export async function runThrough(
  stream: Transform,
  feed: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
  take: ByteSink,
  kind: CodecErrorKind,
): Promise<void> {
  const broken = () => {
    const cause = stream.errored
    return new CodecError(kind, `zstd: ${cause?.message ?? 'the stream was closed'}`, cause ? { cause } : {})
  }
  // The error is looked for where it matters; without a listener it would end the process.
  stream.on('error', () => undefined)
  // A stream that is destroyed while it waits for room never calls back for the write in progress.
  const closed = new Promise<boolean>(resolve => {
    stream.once('close', () => resolve(false))
  })
  const write = async (bytes: Uint8Array): Promise<void> => {
    const written = new Promise<boolean>(resolve => {
      stream.write(bytes, error => resolve(!error))
    })
    if (!(await Promise.race([written, closed]))) throw broken()
  }

  // The first error counts. The others come of it, such as the one that a loop over a stream leaves behind in it.
  let failure: { error: unknown } | undefined
  const stop = (error: unknown) => {
    failure ??= { error }
    stream.destroy()
  }
  const feeding = async () => {
    await feed(write)
    stream.end()
  }
  const taking = async () => {
    for await (const bytes of stream) {
      await take(bytes).catch((error: unknown) => {
        stop(error)
        throw error
      })
    }
  }
  await Promise.all([feeding().catch(stop), taking().catch(() => stop(broken()))])
  if (failure) throw failure.error
}
