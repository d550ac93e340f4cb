/**
 * Where objects are kept: a directory, an object store. Keys are made of the letters, digits, `.`, `_` and `-` of the
 * names that we give, in parts between slashes, none of which is empty, `.` or `..`.
 *
 * What cannot be told is an exception. Only what is provably not there is `undefined`.
 */
export interface Store {
  /** For messages; holds no secret. The same for the same place. */
  readonly url: string
  /**
   * Throws a `RepositoryError` that names the remedy where the place can certainly not be used. Changes nothing.
   */
  inspect(): Promise<void>
  /** Is there nothing at all in it? Unfinished writes of ours and what a file system makes itself do not count. */
  isEmpty(): Promise<boolean>
  /** May there be an object whose key begins with `prefix`, which ends with a slash? Cheap, and never wrong with `false`. */
  mayHave(prefix: string): Promise<boolean>
  /** Resolves with `'written'` when the object would survive a power cut. One that is there stays as it is. */
  put(key: string, object: NewObject, options?: PutOptions): Promise<'written' | 'exists'>
  /** `undefined` where there provably is no such object. */
  open(key: string): Promise<StoredObject | undefined>
  /**
   * Makes sure that an object which is there would survive a power cut. `'distrusted'` means that this can only be
   * had by writing it once more, with `replace`.
   */
  confirm(key: string): Promise<'durable' | 'distrusted'>
  /** All objects whose key begins with `prefix`, which is empty or ends with a slash, in the order of their keys. */
  list(prefix: string): AsyncIterable<ListedObject>
}

export interface PutOptions {
  /** The caller has compared: what is there has the same content, and is not believed to be durable. */
  replace?: boolean
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
