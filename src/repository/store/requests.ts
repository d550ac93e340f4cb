import type { ListedObject } from './store.ts'

/**
 * What a store is asked across a network, one request at a time. `RemoteStore` makes a `Store` of it; deadlines, retries,
 * limits, faults and counts are functions around `Send`.
 *
 * Each request may be sent again whatever became of it the first time, also while that one is still on its way: nothing is replaced that is there, and whoever is
 * told `'exists'` looks at what it is.
 *
 * What cannot be told is thrown, as a `RequestError` where trying again may help. Only a provable absence is `undefined`.
 */
export interface Requests {
  /** Throws a `RepositoryError` with the remedy where the place can certainly not be used. Changes nothing. */
  inspect: undefined
  /** Stores a whole object that survives a power cut, unless there is one. */
  put: PutRequest
  /** A piece of an object. */
  get: GetRequest
  /** A page of names, in their order. */
  list: ListRequest
  /** Begins an object that comes in parts, which can be told by its answer. */
  beginUpload: { key: string }
  putPart: PutPartRequest
  /** Makes an object of the parts, which survives a power cut, unless there is one. */
  endUpload: EndUploadRequest
  abandonUpload: { key: string; upload: string }
  /** A page of uploads that were begun and neither ended nor abandoned. */
  listUploads: { after?: string | undefined }
  /** Makes sure that an object which is there would survive a power cut. */
  confirm: { key: string }
}

export interface Answers {
  inspect: void
  put: 'written' | 'exists'
  get: ObjectPiece | undefined
  list: { objects: ListedObject[]; isLast: boolean }
  beginUpload: string
  /** Stands for the part in `EndUploadRequest`. */
  putPart: string
  endUpload: 'written' | 'exists'
  abandonUpload: void
  listUploads: { uploads: BegunUpload[]; next: string | undefined }
  confirm: 'durable' | 'distrusted'
}

export type RequestKind = keyof Requests

export type Send = <K extends RequestKind>(
  kind: K,
  request: Requests[K],
  signal?: AbortSignal,
) => Promise<Answers[K]>

/** What a driver for a kind of store has to give: the plain requests, each sent once. */
export interface RemoteDriver extends AsyncDisposable {
  /** For messages; holds no secret. The same for the same place. */
  readonly url: string
  readonly features: RemoteFeatures
  readonly handlers: {
    [K in RequestKind]: (request: Requests[K], signal?: AbortSignal) => Promise<Answers[K]>
  }
}

/** Sends each request once, as the driver does. */
export function sendTo({ handlers }: Pick<RemoteDriver, 'handlers'>): Send {
  return (kind, request, signal) => handlers[kind](request, signal)
}

export interface RemoteFeatures {
  /** Does `put` keep what is there, also when two come at once? `'unproven'`: some servers of this kind ignore the condition. */
  putKeeps: true | 'unproven'
  /** The same for `endUpload`. */
  endUploadKeeps: true | 'unproven'
  /** All parts but the last have at least so many bytes. */
  partBytesMin: number
  partsMax: number
  /** As in `StoreFeatures`; where it is not given, nobody can unmount it. */
  canBeUnmounted?: boolean
}

export interface PutRequest {
  key: string
  /** The content, in pieces. */
  body: readonly Uint8Array[]
  /** The caller has compared: what is there has the same content, and may be replaced by it. */
  replace?: boolean
}

export interface GetRequest {
  key: string
  start: number
  /** At most; fewer come where the object ends. */
  bytes: number
}

export interface ObjectPiece {
  /** Nobody else's: whoever asked may do with them as he likes. */
  bytes: Uint8Array
  /** Of the whole object. */
  length: number
}

export interface ListRequest {
  /** Empty, or ends with a slash. */
  prefix: string
  /** Only keys behind this one. */
  after?: string | undefined
  /** How many at most; a store may give fewer. */
  limit: number
}

export interface PutPartRequest {
  key: string
  upload: string
  /** From 1; in any order. */
  part: number
  /** Where it begins in the object. */
  start: number
  body: readonly Uint8Array[]
}

export interface EndUploadRequest {
  key: string
  upload: string
  /** What `putPart` has answered, in the order of the parts. */
  parts: readonly string[]
  /** Of the object. */
  length: number
  /** As in `PutRequest`. */
  replace?: boolean
  /** It is to be found out whether the store refuses it: `'exists'` only where it does, and not because something is there. */
  isTrial?: boolean
}

export interface BegunUpload {
  key: string
  upload: string
  /** Milliseconds since the epoch. */
  begunMs: number
  /** What it takes, where that is known. */
  length: number
}
