import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { type S3Location, s3Url } from '../../s3-location.ts'
import { unexpectedAnswer } from '../http-failure.ts'
import { readPiece } from '../http-piece.ts'
import { RequestError } from '../request-error.ts'
import type { Answers, RemoteDriver, RemoteFeatures, RequestKind, Requests } from '../requests.ts'
import { S3Connection, type S3ConnectionOptions } from './s3-connection.ts'
import { s3Failure } from './s3-failure.ts'
import { type S3Refusal, s3Refusal } from './s3-refusal.ts'

const uploadsPerPage = 1000

/** Requests to a store that speaks S3. */
export class S3Driver implements RemoteDriver {
  readonly url: string
  readonly features: RemoteFeatures = {
    // There are servers that ignore a condition which they do not know.
    putKeeps: 'unproven',
    endUploadKeeps: 'unproven',
    partBytesMin: 5 * 1024 ** 2,
    partsMax: 10_000,
  }
  readonly #location: S3Location
  readonly #connection: S3Connection

  constructor(options: S3ConnectionOptions) {
    this.#location = options.location
    this.#connection = new S3Connection(options)
    this.url = s3Url(options.location)
  }

  readonly handlers: RemoteDriver['handlers'] = {
    inspect: async (_, signal) => {
      await this.#ask('inspect', '', signal, (client, options) =>
        client.send(
          new ListObjectsV2Command({ ...this.#bucket, Prefix: this.#location.prefix, MaxKeys: 1 }),
          options,
        ),
      )
    },
    put: (request, signal) => this.#put(request, signal),
    get: (request, signal) => this.#get(request, signal),
    list: (request, signal) => this.#list(request, signal),
    beginUpload: async ({ key }, signal) => {
      const { UploadId } = await this.#ask('beginUpload', key, signal, (client, options) =>
        client.send(
          new CreateMultipartUploadCommand({ ...this.#newObject(key), ChecksumAlgorithm: 'SHA256' }),
          options,
        ),
      )
      return UploadId ?? this.#unexpected('beginUpload', key, 'it names no upload')
    },
    putPart: (request, signal) => this.#putPart(request, signal),
    endUpload: (request, signal) => this.#endUpload(request, signal),
    abandonUpload: async ({ key, upload }, signal) => {
      await this.#ask(
        'abandonUpload',
        key,
        signal,
        (client, options) =>
          client.send(new AbortMultipartUploadCommand({ ...this.#object(key), UploadId: upload }), options),
        ({ code }) => (code === 'NoSuchUpload' ? { answer: undefined } : undefined),
      )
    },
    listUploads: (request, signal) => this.#listUploads(request, signal),
    confirm: (request, signal) => this.#confirm(request, signal),
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection.close()
  }

  get #bucket() {
    return { Bucket: this.#location.bucket }
  }

  #object(key: string) {
    return { ...this.#bucket, Key: `${this.#location.prefix}${key}` }
  }

  #newObject(key: string) {
    const { storageClass, encryption, kmsKeyId, tags } = this.#location
    return {
      ...this.#object(key),
      ContentType: 'application/octet-stream',
      ...(storageClass !== undefined && { StorageClass: storageClass as 'STANDARD' }),
      ...(encryption !== undefined && { ServerSideEncryption: encryption }),
      ...(kmsKeyId !== undefined && { SSEKMSKeyId: kmsKeyId }),
      ...(tags !== undefined && { Tagging: tags }),
    }
  }

  async #put(request: Requests['put'], signal: AbortSignal | undefined): Promise<Answers['put']> {
    const { key, body, replace } = request
    return await this.#ask<Answers['put']>(
      'put',
      key,
      signal,
      async (client, options) => {
        await client.send(
          new PutObjectCommand({
            ...this.#newObject(key),
            ...bodyOf(body),
            ...(replace !== true && { IfNoneMatch: '*' }),
          }),
          options,
        )
        return 'written'
      },
      refusal => (refusal.status === 412 ? { answer: 'exists' } : undefined),
    )
  }

  /** Never by HEAD, whose answer has no body, and so no word for what is missing: the object, or its bucket. */
  async #get(request: Requests['get'], signal: AbortSignal | undefined): Promise<Answers['get']> {
    const { key, start, bytes } = request
    const answer = await this.#ask<Answers['get'] | 'no such piece'>(
      'get',
      key,
      signal,
      async (client, options) => {
        const range = `bytes=${start}-${start + bytes - 1}`
        const answer = await client.send(
          new GetObjectCommand({ ...this.#object(key), Range: range }),
          options,
        )
        const { Body, ContentRange: contentRange, ContentLength: contentLength } = answer
        const piece = { stream: Body as Readable | undefined, contentRange, contentLength }
        return await readPiece(request, piece, what => this.#unexpected('get', key, what))
      },
      ({ code }) => {
        if (code === 'NoSuchKey') return { answer: undefined }
        return code === 'InvalidRange' ? { answer: 'no such piece' } : undefined
      },
    )
    if (answer !== 'no such piece') return answer
    const length = start === 0 ? 0 : (await this.#get({ key, start: 0, bytes: 1 }, signal))?.length
    return length === undefined ? undefined : { bytes: new Uint8Array(0), length }
  }

  async #list(request: Requests['list'], signal: AbortSignal | undefined): Promise<Answers['list']> {
    const { prefix } = this.#location
    const startAfter = `${prefix}${request.after ?? ''}`
    const answer = await this.#ask('list', request.prefix, signal, (client, options) =>
      client.send(
        new ListObjectsV2Command({
          ...this.#bucket,
          // Strangers' objects may have names that XML cannot hold.
          EncodingType: 'url',
          Prefix: `${prefix}${request.prefix}`,
          MaxKeys: request.limit,
          // Behind the prefix itself: consoles make an object of that name, to show a directory where there is nothing.
          ...(startAfter !== '' && { StartAfter: startAfter }),
        }),
        options,
      ),
    )
    const objects = (answer.Contents ?? []).map(({ Key, Size }) => {
      if (Key === undefined || Size === undefined) {
        return this.#unexpected('list', request.prefix, 'an object has no name or no length')
      }
      const name = answer.EncodingType === 'url' ? decodeURIComponent(Key.replaceAll('+', '%20')) : Key
      return { key: this.#keyOf('list', request.prefix, name), length: Size }
    })
    return { objects, isLast: answer.IsTruncated !== true }
  }

  #keyOf(kind: RequestKind, asked: string, name: string): string {
    const { prefix } = this.#location
    if (name.startsWith(prefix)) return name.slice(prefix.length)
    return this.#unexpected(kind, asked, `it has "${name}", which does not begin with "${prefix}"`)
  }

  async #putPart(request: Requests['putPart'], signal: AbortSignal | undefined): Promise<string> {
    const { key, upload, part } = request
    const body = bodyOf(request.body)
    const { ETag } = await this.#ask('putPart', key, signal, (client, options) =>
      client.send(
        new UploadPartCommand({ ...this.#object(key), ...body, UploadId: upload, PartNumber: part }),
        options,
      ),
    )
    if (ETag === undefined) return this.#unexpected('putPart', key, 'it does not name the part')
    return `${body.ChecksumSHA256} ${ETag}`
  }

  async #endUpload(
    request: Requests['endUpload'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['endUpload']> {
    const { key, upload, parts, replace, isTrial } = request
    const Parts = parts.map((part, index) => {
      const [ChecksumSHA256, ETag] = part.split(' ', 2)
      return { PartNumber: index + 1, ETag, ChecksumSHA256 }
    })
    try {
      return await this.#ask<Answers['endUpload']>(
        'endUpload',
        key,
        signal,
        async (client, options) => {
          const answer = await client.send(
            new CompleteMultipartUploadCommand({
              ...this.#object(key),
              UploadId: upload,
              MultipartUpload: { Parts },
              ...(replace !== true && { IfNoneMatch: '*' }),
            }),
            options,
          )
          if (answer.ETag !== undefined) return 'written'
          return this.#unexpected('endUpload', key, 'it does not name the object')
        },
        ({ status }) => (status === 412 ? { answer: 'exists' } : undefined),
      )
    } catch (thrown) {
      signal?.throwIfAborted()
      if (isTrial === true) throw thrown
      // Perhaps it was ended before, and only the answer was lost: stores that do not know the upload any more have
      // different words for that. Whoever is told that an object exists looks at what it is.
      const found = await this.#get({ key, start: 0, bytes: 1 }, signal).catch(() => undefined)
      if (found !== undefined) return 'exists'
      throw thrown
    }
  }

  /** A store of this kind answers when an object is safe. */
  async #confirm({ key }: Requests['confirm'], signal: AbortSignal | undefined): Promise<'durable'> {
    if ((await this.#get({ key, start: 0, bytes: 1 }, signal)) !== undefined) return 'durable'
    throw new RequestError('UNREACHABLE', `"${key}" was in repository "${this.url}", and is gone`, {
      retry: 'never',
    })
  }

  async #listUploads(
    { after }: Requests['listUploads'],
    signal: AbortSignal | undefined,
  ): Promise<Answers['listUploads']> {
    const { prefix } = this.#location
    const [KeyMarker, UploadIdMarker] = after === undefined ? [] : (JSON.parse(after) as string[])
    const answer = await this.#ask('listUploads', '', signal, (client, options) =>
      client.send(
        new ListMultipartUploadsCommand({
          ...this.#bucket,
          Prefix: prefix,
          // Names as they are: Ceph encodes them when it is asked to, without saying so as it does in lists of objects.
          MaxUploads: uploadsPerPage,
          ...(KeyMarker !== undefined && { KeyMarker }),
          ...(UploadIdMarker !== undefined && { UploadIdMarker }),
        }),
        options,
      ),
    )
    const uploads = (answer.Uploads ?? []).map(({ Key, UploadId, Initiated }) => {
      if (Key === undefined || UploadId === undefined || Initiated === undefined) {
        return this.#unexpected('listUploads', '', 'an upload has no name or no time')
      }
      const key = this.#keyOf('listUploads', '', Key)
      return { key, upload: UploadId, begunMs: Initiated.getTime(), length: 0 }
    })
    const { IsTruncated, NextKeyMarker, NextUploadIdMarker } = answer
    const next =
      IsTruncated === true && NextKeyMarker !== undefined
        ? JSON.stringify([NextKeyMarker, ...(NextUploadIdMarker === undefined ? [] : [NextUploadIdMarker])])
        : undefined
    return { uploads, next }
  }

  /** `expected` says which refusals are answers. */
  async #ask<T>(
    kind: RequestKind,
    key: string,
    signal: AbortSignal | undefined,
    ask: (client: S3Client, options: { abortSignal?: AbortSignal }) => Promise<T>,
    expected: (refusal: S3Refusal) => { answer: T } | undefined = () => undefined,
  ): Promise<T> {
    try {
      return await this.#connection.request(ask, signal)
    } catch (thrown) {
      if (signal?.aborted === true) throw signal.reason
      if (thrown instanceof RequestError) throw thrown
      const refusal = s3Refusal(thrown)
      const known = expected(refusal)
      if (known !== undefined) return known.answer
      const secrets = await this.#connection.secrets(thrown).catch(() => [])
      const isMended = await this.#connection.mend(refusal).catch(() => false)
      throw s3Failure(refusal, { kind, key, url: this.url, location: this.#location, secrets, isMended })
    }
  }

  #unexpected(kind: RequestKind, key: string, what: string): never {
    throw unexpectedAnswer({ kind, key, url: this.url }, what)
  }
}

/** The digest is what the store compares the bytes with, before it answers. */
function bodyOf(pieces: readonly Uint8Array[]) {
  const digest = createHash('sha256')
  let length = 0
  for (const piece of pieces) {
    digest.update(piece)
    length += piece.length
  }
  return {
    Body: Readable.from(pieces, { objectMode: false }),
    ContentLength: length,
    ChecksumAlgorithm: 'SHA256',
    ChecksumSHA256: digest.digest('base64'),
  } as const
}
