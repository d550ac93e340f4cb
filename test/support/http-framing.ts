// Where the messages of an HTTP/1.1 connection begin and end, without changing or keeping a byte of them.

/** The first lines of a message. */
export interface Head {
  /** `PUT /bucket/key HTTP/1.1`, or `HTTP/1.1 200 OK`. */
  line: string
  /** By lower-case name. */
  headers: Map<string, string>
  bytes: Buffer
}

export type Piece =
  | { kind: 'head'; head: Head }
  /** Bytes of the body as they were sent; what only says how long chunks are is no data. */
  | { kind: 'body'; bytes: Buffer; isData: boolean }
  | { kind: 'end' }

/** How the length of a body is told: in bytes, chunk by chunk, or by the end of the connection. */
export type BodyLength = number | 'chunked' | 'rest'

const headBytesMax = 256 * 1024
const lineFeed = 0x0a

export class HttpFraming {
  readonly #bodyLength: (head: Head) => BodyLength
  #state: 'head' | 'fixed' | 'size' | 'data' | 'after data' | 'trailer' | 'rest' = 'head'
  #unread: Buffer = Buffer.alloc(0)
  #remaining = 0
  #line = ''

  constructor(bodyLength: (head: Head) => BodyLength) {
    this.#bodyLength = bodyLength
  }

  /** The pieces that these bytes are, cut where messages and their parts meet. */
  *feed(bytes: Buffer): Generator<Piece> {
    let rest = bytes
    while (rest.length > 0) {
      switch (this.#state) {
        case 'head': {
          const all = this.#unread.length === 0 ? rest : Buffer.concat([this.#unread, rest])
          const end = all.indexOf('\r\n\r\n')
          if (end < 0) {
            if (all.length > headBytesMax) throw new Error('the head of an HTTP message does not end')
            this.#unread = all
            return
          }
          this.#unread = Buffer.alloc(0)
          rest = all.subarray(end + 4)
          const head = parseHead(all.subarray(0, end + 4))
          // Asked after the head was seen, because the answer may depend on what the caller made of it.
          yield { kind: 'head', head }
          if (this.#begin(this.#bodyLength(head))) yield { kind: 'end' }
          break
        }
        case 'rest':
          yield { kind: 'body', bytes: rest, isData: true }
          return
        case 'fixed':
        case 'data':
        case 'after data': {
          const part = rest.subarray(0, this.#remaining)
          rest = rest.subarray(part.length)
          this.#remaining -= part.length
          yield { kind: 'body', bytes: part, isData: this.#state !== 'after data' }
          if (this.#remaining === 0 && this.#next()) yield { kind: 'end' }
          break
        }
        case 'size':
        case 'trailer': {
          const end = rest.indexOf(lineFeed)
          const part = end < 0 ? rest : rest.subarray(0, end + 1)
          rest = rest.subarray(part.length)
          this.#line += part.toString('latin1')
          yield { kind: 'body', bytes: part, isData: false }
          if (end >= 0 && this.#endOfLine()) yield { kind: 'end' }
          break
        }
        default:
          this.#state satisfies never
      }
    }
  }

  // Each of these returns whether the message is complete.

  #begin(length: BodyLength): boolean {
    if (typeof length === 'number') {
      this.#state = length === 0 ? 'head' : 'fixed'
      this.#remaining = length
      return length === 0
    }
    this.#state = length === 'chunked' ? 'size' : 'rest'
    return false
  }

  #next(): boolean {
    if (this.#state === 'data') {
      this.#state = 'after data'
      this.#remaining = 2
      return false
    }
    const isChunk = this.#state === 'after data'
    this.#state = isChunk ? 'size' : 'head'
    return !isChunk
  }

  #endOfLine(): boolean {
    const line = this.#line.trimEnd()
    this.#line = ''
    if (this.#state === 'trailer') {
      if (line !== '') return false
      this.#state = 'head'
      return true
    }
    this.#remaining = Number.parseInt(line, 16)
    if (!(this.#remaining >= 0)) throw new Error(`"${line}" is not the size of a chunk`)
    this.#state = this.#remaining === 0 ? 'trailer' : 'data'
    return false
  }
}

function parseHead(bytes: Buffer): Head {
  const [line = '', ...lines] = bytes.toString('latin1').trimEnd().split('\r\n')
  const headers = new Map<string, string>()
  for (const each of lines) {
    const colon = each.indexOf(':')
    headers.set(each.slice(0, colon).toLowerCase(), each.slice(colon + 1).trim())
  }
  return { line, headers, bytes }
}

/** As the message itself tells it; undefined where it does not. */
export function toldLength(head: Head): number | 'chunked' | undefined {
  if (/\bchunked\b/i.test(head.headers.get('transfer-encoding') ?? '')) return 'chunked'
  const length = head.headers.get('content-length')
  return length === undefined ? undefined : Number(length)
}

/** The same head with another value of one header, which it has to have. */
export function withHeader(head: Head, name: string, value: string): Buffer {
  const text = head.bytes.toString('latin1')
  return Buffer.from(text.replace(new RegExp(`^(${name}:)[^\r]*`, 'im'), `$1 ${value}`), 'latin1')
}
