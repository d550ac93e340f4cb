import type { MemoryShare } from './memory-budget.ts'
import type { RemoteFeatures, Send } from './requests.ts'
import type { NewObject } from './store.ts'

/** How many parts of one object are on their way at once. */
const partsInFlightMax = 2

export interface RemoteWriteOptions {
  send: Send
  features: RemoteFeatures
  key: string
  share: MemoryShare
  /** What goes in one request, and how large the parts of larger objects are. */
  partBytes: number
  /** Nothing is sent before. */
  allowed: Promise<unknown> | undefined
  /** How large it may be and still go in one piece. Asked when it does not fit into one part. */
  wholeBytes: () => Promise<number>
  signal: AbortSignal
}

/** An object whose bytes are all known: in one piece, or in parts that were stored. */
export type Collected =
  | { kind: 'whole'; front: Uint8Array; body: Uint8Array[]; length: number }
  | {
      kind: 'parts'
      front: Uint8Array
      firstPart: Uint8Array[]
      upload: string
      parts: string[]
      length: number
    }

/**
 * Takes the bytes of one object. What fits into one request, or had better not come in parts, is kept until all of it is there.
 * Of larger ones each part is sent as soon as it is full, but for the first, of which the front is known last.
 */
export class RemoteWrite {
  readonly #options: RemoteWriteOptions
  /** What the first part holds behind the front. */
  readonly #first: Uint8Array[] = []
  #firstRoom = 0
  /** How long the first part is, where there are others. */
  #firstBytes: number
  /** The part that is being filled. */
  #filling: Uint8Array[] = []
  #fillingBytes = 0
  #length = 0
  #upload: Promise<string> | undefined
  readonly #parts: Promise<string>[] = []
  readonly #inFlight = new Set<Promise<unknown>>()
  readonly #failure = Promise.withResolvers<never>()

  constructor(options: RemoteWriteOptions) {
    this.#options = options
    this.#firstBytes = options.partBytes
    this.#failure.promise.catch(() => {}) // told by the next `append`, and at the end
  }

  /** Rejects as `object.write` does, or because a part could not be stored. Then nothing is there, but perhaps an upload. */
  async collect({ frontBytes, write }: NewObject): Promise<Collected> {
    this.#firstRoom = this.#options.partBytes - frontBytes
    this.#length = frontBytes
    const { share, signal } = this.#options
    await share.take(frontBytes, signal)
    const front = await write(bytes => this.#append(bytes))
    if (front.length !== frontBytes)
      throw new Error(`${front.length} bytes instead of ${frontBytes} for the front`)
    if (this.#upload === undefined) return { kind: 'whole', front, body: this.#first, length: this.#length }
    if (this.#fillingBytes > 0) this.#sendPart()
    const [upload, ...parts] = await Promise.race([
      Promise.all([this.#upload, ...this.#parts]),
      this.#failure.promise,
    ])
    return { kind: 'parts', front, firstPart: this.#first, upload, parts, length: this.#length }
  }

  /** The upload that was begun, when nothing is sent for it any more. */
  async begun(): Promise<string | undefined> {
    await Promise.allSettled(this.#parts)
    return await this.#upload?.catch(() => undefined)
  }

  async #append(bytes: Uint8Array): Promise<void> {
    const { share, signal } = this.#options
    signal.throwIfAborted()
    await Promise.race([share.take(bytes.length, signal), this.#failure.promise])
    this.#length += bytes.length
    if (bytes.length > this.#firstRoom && this.#upload === undefined) await this.#widenFirst()
    const ofFirst = bytes.subarray(0, this.#firstRoom)
    if (ofFirst.length > 0) this.#first.push(ofFirst)
    this.#firstRoom -= ofFirst.length
    for (let rest = bytes.subarray(ofFirst.length); rest.length > 0; ) {
      this.#upload ??= this.#begin()
      const ofPart = rest.subarray(0, this.#options.partBytes - this.#fillingBytes)
      this.#filling.push(ofPart)
      this.#fillingBytes += ofPart.length
      rest = rest.subarray(ofPart.length)
      if (this.#fillingBytes === this.#options.partBytes) this.#sendPart()
    }
    while (this.#inFlight.size >= partsInFlightMax) {
      await Promise.race([...this.#inFlight, this.#failure.promise])
    }
  }

  /** By as much as the object may have in one piece. */
  async #widenFirst(): Promise<void> {
    await this.#options.allowed
    const bytes = await this.#options.wholeBytes()
    this.#firstRoom += bytes - this.#firstBytes
    this.#firstBytes = bytes
  }

  #begin(): Promise<string> {
    const { send, key, signal } = this.#options
    const upload = send('beginUpload', { key }, signal)
    upload.catch(thrown => this.#failure.reject(thrown))
    return upload
  }

  #sendPart(): void {
    const { share } = this.#options
    const number = this.#parts.length + 2
    const body = this.#filling
    const bytes = this.#fillingBytes
    this.#filling = []
    this.#fillingBytes = 0
    const sent = this.#sendPartNumber(number, body).finally(() => {
      this.#inFlight.delete(sent)
      share.give(bytes)
    })
    sent.catch(thrown => this.#failure.reject(thrown))
    this.#inFlight.add(sent)
    this.#parts.push(sent)
  }

  async #sendPartNumber(part: number, body: Uint8Array[]): Promise<string> {
    const { send, key, features, signal } = this.#options
    if (part > features.partsMax) throw new Error(`"${key}" has more than ${features.partsMax} parts`)
    const upload = (await this.#upload) ?? ''
    const start = this.#firstBytes + (part - 2) * this.#options.partBytes
    return await send('putPart', { key, upload, part, start, body }, signal)
  }
}
