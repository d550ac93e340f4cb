import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { ContainerClient } from '@azure/storage-blob'
import { type AzureLocation, azureUrl } from '../../azure-location.ts'
import { RepositoryError } from '../../repository-error.ts'
import { unexpectedAnswer } from '../http-failure.ts'
import { readPiece } from '../http-piece.ts'
import { RequestError } from '../request-error.ts'
import type {
  Answers,
  BegunUpload,
  RemoteDriver,
  RemoteFeatures,
  RequestKind,
  Requests,
} from '../requests.ts'
import type { ListedObject } from '../store.ts'
import { AzureConnection, type AzureConnectionOptions } from './azure-connection.ts'
import { azureFailure } from './azure-failure.ts'
import { type AzureRefusal, azureRefusal } from './azure-refusal.ts'
import { blockName, newUpload, parseBlockName, uploadBegunMs } from './block-name.ts'

export interface AzureDriverOptions extends AzureConnectionOptions {
  newId: () => string
}

/** Of blocks that belong to nobody any more. More of them than this are told of as unfinished. */
const abandonedRemembered = 10_000
/** Of pages whose end is the start of the next one. */
const pagesRemembered = 256
const pageNamesMax = 5_000

/** Requests to Azure Blob Storage. */
export class AzureDriver implements RemoteDriver {
  readonly url: string
  readonly features: RemoteFeatures = {
    putKeeps: true,
    endUploadKeeps: true,
    partBytesMin: 1,
    partsMax: 50_000,
  }
  readonly #options: AzureDriverOptions
  readonly #location: AzureLocation
  readonly #connection: AzureConnection
  /** The store gives marks of its own for where a page ends. */
  readonly #pages = new Map<string, string>()
  readonly #abandoned = new Set<string>()

  constructor(options: AzureDriverOptions) {
    this.#options = options
    this.#location = options.location
    this.url = azureUrl(options.location)
    this.#connection = new AzureConnection(options, this.url)
  }

  readonly handlers: RemoteDriver['handlers'] = {
    inspect: (_, signal) => this.#inspect(signal),
    put: (request, signal) => this.#put(request, signal),
    get: (request, signal) => this.#get(request, signal),
    list: (request, signal) => this.#list(request, signal),
    // The store knows of no uploads, only of blocks.
    beginUpload: async () => newUpload(this.#options.newId(), this.#options.clock.now()),
    putPart: (request, signal) => this.#putPart(request, signal),
    endUpload: (request, signal) => this.#endUpload(request, signal),
    // Blocks go by themselves: within a week, or when the blob is written. Nothing removes them but that.
    abandonUpload: async ({ upload }) => {
      remember(this.#abandoned, upload)
    },
    listUploads: (request, signal) => this.#listUploads(request, signal),
    confirm: (request, signal) => this.#confirm(request, signal),
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection.close()
  }

  async #inspect(signal: AbortSignal | undefined): Promise<void> {
    const kind = 'inspect'
    const isTree = this.#ask<boolean>(
      kind,
      '',
      signal,
      async (container, options) => {
        const { isHierarchicalNamespaceEnabled } = await container.getAccountInfo(options)
        return isHierarchicalNamespaceEnabled === true
      },
      // Not everybody may ask that, and listing says more of what is wrong.
      () => ({ answer: false }),
    ).catch(() => false)
    await this.#ask(kind, '', signal, (container, options) =>
      pageOf(container, { ...options, prefix: this.#location.prefix, maxPageSize: 1 }),
    )
    if (await isTree) throw this.#hierarchical()
  }

  async #put(request: Requests['put'], signal: AbortSignal | undefined): Promise<Answers['put']> {
    const { key, replace } = request
    const { body, length, digest } = bodyOf(request.body)
    return await this.#ask<Answers['put']>(
      'put',
      key,
      signal,
      async (container, options) => {
        await this.#blob(container, key).upload(body, length, {
          ...options,
          ...this.#newBlob(replace),
          transactionalContentMD5: digest,
        })
        return 'written'
      },
      refusal => (replace !== true && isThere(refusal) ? { answer: 'exists' } : undefined),
    )
  }

  async #get(request: Requests['get'], signal: AbortSignal | undefined): Promise<Answers['get']> {
    const { key, start, bytes } = request
    const answer = await this.#ask<Answers['get'] | 'no such piece'>(
      'get',
      key,
      signal,
      async (container, options) => {
        // A piece that was cut off is asked for again as a whole, by whoever counts the tries.
        const downloaded = await this.#blob(container, key).download(start, bytes, {
          ...options,
          maxRetryRequests: 0,
        })
        const { readableStreamBody, contentRange, contentLength } = downloaded
        const piece = { stream: readableStreamBody as Readable | undefined, contentRange, contentLength }
        return await readPiece(request, piece, what => this.#unexpected('get', key, what))
      },
      ({ status, code }) => {
        if (status === 404 && code === 'BlobNotFound') return { answer: undefined }
        return status === 416 ? { answer: 'no such piece' } : undefined
      },
    )
    if (answer !== 'no such piece') return answer
    const length = start === 0 ? 0 : (await this.#get({ key, start: 0, bytes: 1 }, signal))?.length
    return length === undefined ? undefined : { bytes: new Uint8Array(0), length }
  }

  /** Pages may be empty, and others follow. */
  async #list(request: Requests['list'], signal: AbortSignal | undefined): Promise<Answers['list']> {
    const { prefix, after, limit } = request
    const pageName = (end: string) => JSON.stringify([prefix, end])
    let mark = after === undefined ? undefined : this.#pages.get(pageName(after))
    for (;;) {
      const { blobs, next } = await this.#page('list', prefix, limit, mark, false, signal)
      const objects = after === undefined ? blobs : blobs.filter(({ key }) => key > after)
      const end = objects.at(-1)
      if (end !== undefined && next !== undefined) remember(this.#pages, pageName(end.key), next)
      if (end !== undefined || next === undefined) return { objects, isLast: next === undefined }
      mark = next
    }
  }

  async #page(
    kind: 'list' | 'listUploads',
    below: string,
    limit: number,
    mark: string | undefined,
    includeUncommitedBlobs: boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ blobs: ListedObject[]; next: string | undefined }> {
    const { prefix } = this.#location
    const page = await this.#ask(kind, below, signal, (container, options) =>
      pageOf(container, {
        ...options,
        prefix: `${prefix}${below}`,
        maxPageSize: Math.min(limit, pageNamesMax),
        continuationToken: mark,
        includeUncommitedBlobs,
      }),
    )
    const blobs: ListedObject[] = []
    for (const { name, properties, metadata } of page.segment.blobItems) {
      const isDirectory = (properties as { ResourceType?: unknown }).ResourceType === 'directory'
      if (isDirectory || metadata?.['hdi_isfolder'] === 'true') throw this.#hierarchical()
      const { contentLength } = properties
      if (!name.startsWith(prefix) || contentLength === undefined) {
        return this.#unexpected(kind, below, 'it has a blob that was not asked for, or one without a length')
      }
      const key = name.slice(prefix.length)
      // Consoles make a blob of the name of the prefix, to show a directory where there is nothing.
      if (key === '') continue
      const last = blobs.at(-1)
      if (last !== undefined && last.key >= key)
        return this.#unexpected(kind, below, 'its names are out of order')
      blobs.push({ key, length: contentLength })
    }
    const next = page.continuationToken
    return { blobs, next: next === undefined || next === '' ? undefined : next }
  }

  async #putPart(request: Requests['putPart'], signal: AbortSignal | undefined): Promise<string> {
    const { key, upload, part } = request
    const { body, length, digest } = bodyOf(request.body)
    const name = blockName({ upload, part })
    return await this.#ask(
      'putPart',
      key,
      signal,
      async (container, options) => {
        await this.#blob(container, key).stageBlock(name, body, length, {
          ...options,
          transactionalContentMD5: digest,
        })
        return name
      },
      // The object is there and cannot be written, which is for the end of the upload to tell.
      refusal => (isProtected(refusal) ? { answer: name } : undefined),
    )
  }

  /**
   * Whoever commits blocks of a blob discards all others that wait there: those of another writer, who then finds
   * either the condition refused or blocks missing. In both cases an object is there.
   */
  async #endUpload(
    request: Requests['endUpload'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['endUpload']> {
    const { key, upload, parts, replace } = request
    const outcome = await this.#ask<Answers['endUpload'] | AzureRefusal>(
      'endUpload',
      key,
      signal,
      async (container, options) => {
        await this.#blob(container, key).commitBlockList([...parts], {
          ...options,
          ...this.#newBlob(replace),
        })
        return 'written'
      },
      refusal => {
        if (replace !== true && isThere(refusal)) return { answer: 'exists' }
        return refusal.code === 'InvalidBlockList' ? { answer: refusal } : undefined
      },
    )
    if (typeof outcome !== 'string') {
      const found = await this.#get({ key, start: 0, bytes: 1 }, signal)
      if (found === undefined) throw this.#failure(outcome, 'endUpload', key)
    }
    remember(this.#abandoned, upload)
    return typeof outcome === 'string' ? outcome : 'exists'
  }

  /** Blobs that consist of nothing but blocks which wait, and whose these are. */
  async #listUploads(
    { after }: Requests['listUploads'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['listUploads']> {
    const { blobs, next } = await this.#page('listUploads', '', pageNamesMax, after, true, signal)
    const uploads: BegunUpload[] = []
    for (const { key, length } of blobs) {
      // No object of a repository is empty.
      if (length === 0) uploads.push(...(await this.#uploadsOf(key, signal)))
    }
    return { uploads, next }
  }

  async #uploadsOf(key: string, signal: AbortSignal | undefined): Promise<BegunUpload[]> {
    const blocks = await this.#ask<readonly { name: string; size: number }[]>(
      'listUploads',
      '',
      signal,
      async (container, options) => {
        const list = await this.#blob(container, key).getBlockList('uncommitted', options)
        return list.uncommittedBlocks ?? []
      },
      ({ code }) => (code === 'BlobNotFound' || code === 'InvalidBlobType' ? { answer: [] } : undefined),
    )
    const lengths = new Map<string, number>()
    for (const { name, size } of blocks) {
      const upload = parseBlockName(name)?.upload
      if (upload === undefined || this.#abandoned.has(upload)) continue
      lengths.set(upload, (lengths.get(upload) ?? 0) + size)
    }
    return [...lengths].map(([upload, length]) => ({ key, upload, begunMs: uploadBegunMs(upload), length }))
  }

  /** A store of this kind answers when an object is safe. */
  async #confirm({ key }: Requests['confirm'], signal: AbortSignal | undefined): Promise<'durable'> {
    if ((await this.#get({ key, start: 0, bytes: 1 }, signal)) !== undefined) return 'durable'
    throw new RequestError('UNREACHABLE', `"${key}" was in repository "${this.url}", and is gone`, {
      retry: 'never',
    })
  }

  #blob(container: ContainerClient, key: string) {
    return container.getBlockBlobClient(`${this.#location.prefix}${key}`)
  }

  #newBlob(replace: boolean | undefined) {
    const { tier } = this.#location
    return {
      blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
      ...(replace !== true && { conditions: { ifNoneMatch: '*' } }),
      ...(tier !== undefined && { tier }),
    }
  }

  /** `expected` says which refusals are answers. */
  async #ask<T>(
    kind: RequestKind,
    key: string,
    signal: AbortSignal | undefined,
    ask: (container: ContainerClient, options: { abortSignal?: AbortSignal }) => Promise<T>,
    expected: (refusal: AzureRefusal) => { answer: T } | undefined = () => undefined,
  ): Promise<T> {
    try {
      return await this.#connection.request(ask, signal)
    } catch (thrown) {
      if (signal?.aborted === true) throw signal.reason
      if (thrown instanceof RepositoryError) throw thrown
      const refusal = azureRefusal(thrown)
      const known = expected(refusal)
      if (known !== undefined) return known.answer
      throw this.#failure(refusal, kind, key)
    }
  }

  #failure(refusal: AzureRefusal, kind: RequestKind, key: string): unknown {
    return azureFailure(refusal, {
      kind,
      key,
      url: this.url,
      location: this.#location,
      account: this.#connection.account,
      secrets: this.#connection.secrets(),
      nowMs: this.#options.clock.now(),
    })
  }

  /** Such an account lists directories as well, and in another order. */
  #hierarchical(): RepositoryError {
    return new RepositoryError(
      'SETTINGS',
      `could not use repository "${this.url}": the storage account has a hierarchical namespace`,
      { hint: 'Use an account without one: it lists names in an order of its own.' },
    )
  }

  #unexpected(kind: RequestKind, key: string, what: string): never {
    throw unexpectedAnswer({ kind, key, url: this.url }, what)
  }
}

/** Said of a condition that was not met. Only what is there can be leased or protected. */
function isThere(refusal: AzureRefusal): boolean {
  const { status, code } = refusal
  return (
    (status === 409 && code === 'BlobAlreadyExists') ||
    (status === 412 && code === 'ConditionNotMet') ||
    // Of a SAS token that may create, and not write.
    code === 'UnauthorizedBlobOverwrite' ||
    isProtected(refusal)
  )
}

function isProtected({ code }: AzureRefusal): boolean {
  return code === 'LeaseIdMissing' || code === 'BlobImmutableDueToPolicy'
}

async function pageOf(
  container: ContainerClient,
  options: {
    abortSignal?: AbortSignal
    prefix: string
    maxPageSize: number
    continuationToken?: string | undefined
    includeUncommitedBlobs?: boolean
  },
) {
  const { maxPageSize, continuationToken, prefix, ...rest } = options
  const pages = container
    .listBlobsFlat({ ...rest, ...(prefix !== '' && { prefix }), includeMetadata: true })
    .byPage({ maxPageSize, ...(continuationToken !== undefined && { continuationToken }) })
  const { value } = (await pages.next()) as { value: Awaited<ReturnType<typeof pages.next>>['value'] }
  return value
}

/** The store compares the bytes with the digest, before it answers. */
function bodyOf(pieces: readonly Uint8Array[]) {
  const digest = createHash('md5')
  let length = 0
  for (const piece of pieces) {
    digest.update(piece)
    length += piece.length
  }
  return {
    body: () => Readable.from(pieces, { objectMode: false }),
    length,
    digest: digest.digest(),
  }
}

function remember(set: Set<string>, name: string): void
function remember(map: Map<string, string>, name: string, value: string): void
function remember(memory: Set<string> | Map<string, string>, name: string, value = ''): void {
  const isSet = memory instanceof Set
  const max = isSet ? abandonedRemembered : pagesRemembered
  for (const oldest of memory.keys()) {
    if (memory.size < max) break
    memory.delete(oldest)
  }
  if (isSet) memory.add(name)
  else memory.set(name, value)
}
