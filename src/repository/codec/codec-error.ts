/**
 * - `truncated`: fewer stored bytes than there should be
 * - `too long`: more of them
 * - `altered`: as many, but others
 * - `no key`: encrypted, and no identity was given
 * - `wrong key`: encrypted, and none of the identities given opens it
 * - `source changed`: what is archived is not as long as it was
 * - `invalid recipient`, `invalid identity`: not a key that we can use
 * - `unsound output`: what the compressor made would not give the file back
 */
export type CodecErrorKind =
  | 'truncated'
  | 'altered'
  | 'too long'
  | 'no key'
  | 'wrong key'
  | 'source changed'
  | 'invalid recipient'
  | 'invalid identity'
  | 'unsound output'

/** Whatever is wrong with the bytes or the keys. Errors of a source or a sink are passed on as they are. */
export class CodecError extends Error {
  readonly kind: CodecErrorKind

  constructor(kind: CodecErrorKind, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'CodecError'
    this.kind = kind
  }
}
