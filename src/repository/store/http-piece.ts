import type { Readable } from 'node:stream'
import type { Answers, Requests } from './requests.ts'

/** An answer to a request for a range. */
export interface HttpPiece {
  stream: Readable | undefined
  contentRange: string | undefined
  contentLength: number | undefined
}

/** Reads it to its end. `wrong` is called where it is not, or not all of, the piece of the object that was asked for. */
export async function readPiece(
  { start, bytes }: Pick<Requests['get'], 'start' | 'bytes'>,
  { stream, contentRange, contentLength }: HttpPiece,
  wrong: (what: string) => never,
): Promise<Answers['get']> {
  const range = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(contentRange ?? '')
  const [, first, last, length] = range === null ? [] : range.map(Number)
  // Some answer with the whole of what is not longer than what was asked for.
  const total = length ?? (start === 0 ? contentLength : undefined)
  const expected = total === undefined ? -1 : Math.min(bytes, total - start)
  const isRight =
    contentLength === expected && (range === null || (first === start && last === start + expected - 1))
  if (stream === undefined || total === undefined || !isRight) {
    stream?.destroy()
    return wrong('it is another piece of the object than was asked for')
  }
  const piece = Buffer.allocUnsafe(expected)
  let filled = 0
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    if (filled + chunk.length > expected) return wrong('it is longer than it says')
    piece.set(chunk, filled)
    filled += chunk.length
  }
  if (filled < expected) return wrong('it is shorter than it says')
  return { bytes: piece, length: total }
}
