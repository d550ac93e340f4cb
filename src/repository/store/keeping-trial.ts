import type { RemoteFeatures, Send } from './requests.ts'

/**
 * Finds out whether a store keeps what is there, where servers of its kind may ignore the condition: an object that is
 * there is stored once more with the same bytes, which a store that keeps it refuses, and which harms nothing elsewhere.
 */
export class KeepingTrial {
  readonly #send: Send
  #object: { key: string; bytes: Uint8Array } | undefined
  #ofPut: Promise<boolean> | undefined
  #ofUpload: Promise<boolean> | undefined

  constructor(send: Send, features: RemoteFeatures) {
    this.#send = send
    if (features.putKeeps === true) this.#ofPut = Promise.resolve(true)
    if (features.endUploadKeeps === true) this.#ofUpload = Promise.resolve(true)
  }

  /** Tries it with an object that is there. */
  async try(key: string, bytes: Uint8Array): Promise<boolean> {
    this.#object = { key, bytes }
    this.#ofPut ??= this.#tryPut(key, bytes).catch(thrown => {
      this.#ofPut = undefined
      throw thrown
    })
    return await this.#ofPut
  }

  /** As far as it is known: what was not tried is not believed. */
  get putKeeps(): Promise<boolean> {
    return this.#ofPut?.catch(() => false) ?? Promise.resolve(false)
  }

  /** The same for objects in parts, which is tried now. */
  async uploadKeeps(): Promise<boolean> {
    if (this.#ofUpload === undefined && this.#object === undefined) return false
    this.#ofUpload ??= this.#tryUpload(this.#object ?? { key: '', bytes: new Uint8Array() }).catch(thrown => {
      this.#ofUpload = undefined
      throw thrown
    })
    return await this.#ofUpload
  }

  async #tryPut(key: string, bytes: Uint8Array): Promise<boolean> {
    return (await this.#send('put', { key, body: [bytes] })) === 'exists'
  }

  async #tryUpload({ key, bytes }: { key: string; bytes: Uint8Array }): Promise<boolean> {
    const upload = await this.#send('beginUpload', { key })
    let isEnded = false
    try {
      const part = await this.#send('putPart', { key, upload, part: 1, start: 0, body: [bytes] })
      const request = { key, upload, parts: [part], length: bytes.length, isTrial: true }
      const outcome = await this.#send('endUpload', request)
      isEnded = outcome === 'written'
      return !isEnded
    } finally {
      if (!isEnded) await this.#send('abandonUpload', { key, upload }).catch(() => undefined)
    }
  }
}
