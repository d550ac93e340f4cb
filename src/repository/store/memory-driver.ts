import { RequestError } from './request-error.ts'
import type { ObjectPiece, RemoteDriver, RemoteFeatures, Requests } from './requests.ts'

export interface MemoryDriverOptions {
  url?: string
  clock: { now(): number }
  features?: Partial<RemoteFeatures>
  /** What replaces an object that is there, as where a store does not know conditions. */
  replaces?: { put?: boolean; endUpload?: boolean }
  /** How many names a page has at most, whatever is asked for. */
  pageMax?: number
}

interface Upload {
  key: string
  begunMs: number
  parts: Map<number, Uint8Array>
}

/** A remote store in memory: what tests are made with, and what the requests mean. */
export class MemoryDriver implements RemoteDriver {
  readonly url: string
  readonly features: RemoteFeatures
  readonly objects = new Map<string, Uint8Array>()
  readonly uploads = new Map<string, Upload>()
  readonly #options: MemoryDriverOptions
  #uploadsBegun = 0

  constructor(options: MemoryDriverOptions) {
    this.#options = options
    this.url = options.url ?? 'memory:'
    this.features = {
      putKeeps: true,
      endUploadKeeps: true,
      partBytesMin: 5 * 1024 ** 2,
      partsMax: 10_000,
      ...options.features,
    }
  }

  readonly handlers: RemoteDriver['handlers'] = {
    inspect: async () => {},
    put: async ({ key, body, replace }) =>
      this.#store(key, Buffer.concat(body), replace === true || this.#options.replaces?.put === true),
    get: async request => this.#get(request),
    list: async ({ prefix, after, limit }) => {
      const keys = [...this.objects.keys()]
        .filter(key => key.startsWith(prefix) && (after === undefined || key > after))
        .sort()
      const page = keys.slice(0, Math.min(limit, this.#options.pageMax ?? limit))
      const objects = page.map(key => ({ key, length: this.objects.get(key)?.length ?? 0 }))
      return { objects, isLast: page.length === keys.length }
    },
    beginUpload: async ({ key }) => {
      const upload = `upload ${++this.#uploadsBegun}`
      this.uploads.set(upload, { key, begunMs: this.#options.clock.now(), parts: new Map() })
      return upload
    },
    putPart: async ({ key, upload, part, body }) => {
      this.#upload(key, upload).parts.set(part, Buffer.concat(body))
      return `part ${part}`
    },
    endUpload: async request => this.#endUpload(request),
    abandonUpload: async ({ upload }) => void this.uploads.delete(upload),
    listUploads: async () => {
      const uploads = [...this.uploads].map(([upload, { key, begunMs, parts }]) => {
        const length = [...parts.values()].reduce((sum, part) => sum + part.length, 0)
        return { key, upload, begunMs, length }
      })
      return { uploads, next: undefined }
    },
    confirm: async ({ key }) => {
      if (this.objects.has(key)) return 'durable'
      throw this.#refusal(`"${key}" is not in "${this.url}"`)
    },
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #store(key: string, bytes: Uint8Array, replace: boolean): 'written' | 'exists' {
    if (this.objects.has(key) && !replace) return 'exists'
    this.objects.set(key, bytes)
    return 'written'
  }

  #get({ key, start, bytes }: Requests['get']): ObjectPiece | undefined {
    const object = this.objects.get(key)
    // A copy: what is stored cannot be changed by whoever has got it.
    return object && { bytes: Uint8Array.from(object.subarray(start, start + bytes)), length: object.length }
  }

  #endUpload({ key, upload, parts, length, replace, isTrial }: Requests['endUpload']): 'written' | 'exists' {
    // Asked once more, because the first answer was lost.
    if (isTrial !== true && !this.uploads.has(upload) && this.objects.has(key)) return 'exists'
    const { parts: stored } = this.#upload(key, upload)
    const bodies = parts.map((part, index) => {
      const body = stored.get(index + 1)
      const isLast = index === parts.length - 1
      if (body === undefined || part !== `part ${index + 1}`)
        throw this.#refusal(`part ${index + 1} of "${key}" is missing`)
      if (!isLast && body.length < this.features.partBytesMin)
        throw this.#refusal(`part ${index + 1} of "${key}" is too small`)
      return body
    })
    const bytes = Buffer.concat(bodies)
    if (bytes.length !== length) throw this.#refusal(`"${key}" has ${bytes.length} bytes, not ${length}`)
    const outcome = this.#store(key, bytes, replace === true || this.#options.replaces?.endUpload === true)
    if (outcome === 'written') this.uploads.delete(upload)
    return outcome
  }

  #upload(key: string, upload: string): Upload {
    const found = this.uploads.get(upload)
    if (found?.key === key) return found
    throw this.#refusal(`there is no upload "${upload}" of "${key}"`)
  }

  #refusal(message: string): RequestError {
    return new RequestError('UNREACHABLE', message, { retry: 'never' })
  }
}
