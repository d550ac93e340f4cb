/**
 * Where objects are kept: a directory, an object store. Keys are made of the letters, digits, `.`, `_` and `-` of the
 * names that we give, in parts between slashes, none of which is empty, `.` or `..`.
 *
 * What cannot be told is an exception. Only what is provably not there is `undefined`.
 *
 * Where memory is bounded, `put` and `open` are in line for it from the moment when they are called.
 */
export interface Store extends AsyncDisposable {
  /** For messages; holds no secret. The same for the same place. */
  readonly url: string
  readonly features: StoreFeatures
  /**
   * Throws a `RepositoryError` that names the remedy where the place can certainly not be used, to store objects whose keys
   * begin with `prefix` if one is given. Changes nothing.
   */
  inspect(prefix?: string): Promise<void>
  /** Is there nothing at all in it? Unfinished writes of ours and what a file system makes itself do not count. */
  isEmpty(): Promise<boolean>
  /** May there be an object whose key begins with `prefix`, which ends with a slash? Cheap, and never wrong with `false`. */
  mayHave(prefix: string): Promise<boolean>
  /** Resolves with `'written'` when the object would survive a power cut. One that is there stays as it is. */
  put(key: string, object: NewObject, options?: PutOptions): Promise<'written' | 'exists'>
  /**
   * Does `put` keep what is there, also of two who write at once? Tries it with an object that is there, of which `bytes`
   * is the whole content. Where it does not, `put` looks before and after, which is the best that can be had.
   *
   * `lost` is called when an object is put that is so large that it is not kept, although others are.
   */
  keepsWhatIsThere(key: string, bytes: Uint8Array, lost?: () => void): Promise<boolean>
  /** `undefined` where there provably is no such object. */
  open(key: string, options?: OpenOptions): Promise<StoredObject | undefined>
  /**
   * Makes sure that an object which is there would survive a power cut. `'distrusted'` means that this can only be
   * had by writing it once more, with `replace`.
   */
  confirm(key: string): Promise<'durable' | 'distrusted'>
  /** All objects whose key begins with `prefix`, which is empty or ends with a slash, in the order of their keys. */
  list(prefix: string, options?: ListOptions): AsyncIterable<ListedObject>
  /** What writes have left that were cut off, of those to which nothing was added since, in milliseconds since the epoch. */
  unfinishedWrites(changedBeforeMs: number): AsyncIterable<UnfinishedWrite>
}

/** What callers have to know of a kind of store. None of them asks which kind it is. */
export interface StoreFeatures {
  /**
   * Can another place come up under the same name from one moment to the next, as where a disk is unmounted? Then the
   * marker is looked at before and after each file.
   */
  canBeUnmounted: boolean
  /** How many files at once make good use of it, where that is not what the processors make of it. */
  filesAtOnce?: number
}

export interface OpenOptions {
  /** How much is going to be read at least; for stores where each request takes its time. Default: all of it. */
  bytesWanted?: number
  signal?: AbortSignal | undefined
}

export interface ListOptions {
  /** Told of a part that cannot be looked at, which is left out then. Without it, that ends the list with an error. */
  unreadable?: (thrown: unknown) => void
}

export interface PutOptions {
  /** The caller has compared: what is there has the same content, and is not believed to be durable. */
  replace?: boolean
  /** Nothing is stored before this resolves, or if it rejects. A store that takes its time may get the object ready meanwhile. */
  allowed?: Promise<unknown> | undefined
  signal?: AbortSignal | undefined
}

/** An object whose first bytes are known last. */
export interface NewObject {
  /** How many bytes come in front of what is appended. */
  frontBytes: number
  /** Hands over everything else in order, and resolves with the bytes for the front. */
  write(append: (bytes: Uint8Array) => Promise<void>): Promise<Uint8Array>
}

/** An object that is being read, from its first byte on. */
export interface StoredObject extends AsyncDisposable {
  /** Bytes of the whole object. */
  readonly length: number
  /** Fills `buffer` and returns the bytes read; fewer than asked only at the end. */
  read(buffer: Uint8Array): Promise<number>
}

export interface ListedObject {
  key: string
  length: number
}

/** What a write has left that did not come to its end. */
export interface UnfinishedWrite {
  /** As the key of an object, though it is none. */
  key: string
  length: number
}
