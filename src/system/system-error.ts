import { getSystemErrorMessage } from 'node:util'

// The texts of glibc's strerror for what file systems and processes report: PostgreSQL's messages end in them (%m).
const strerror: Readonly<Record<string, string>> = {
  E2BIG: 'Argument list too long',
  EACCES: 'Permission denied',
  EAGAIN: 'Resource temporarily unavailable',
  EBADF: 'Bad file descriptor',
  EBUSY: 'Device or resource busy',
  EDQUOT: 'Disk quota exceeded',
  EEXIST: 'File exists',
  EFBIG: 'File too large',
  EINVAL: 'Invalid argument',
  EIO: 'Input/output error',
  EISDIR: 'Is a directory',
  ELOOP: 'Too many levels of symbolic links',
  EMFILE: 'Too many open files',
  EMLINK: 'Too many links',
  ENAMETOOLONG: 'File name too long',
  ENFILE: 'Too many open files in system',
  ENODEV: 'No such device',
  ENOENT: 'No such file or directory',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  ENOTDIR: 'Not a directory',
  ENOTEMPTY: 'Directory not empty',
  ENOTSUP: 'Operation not supported',
  EOPNOTSUPP: 'Operation not supported',
  EPERM: 'Operation not permitted',
  EPIPE: 'Broken pipe',
  EROFS: 'Read-only file system',
  ESTALE: 'Stale file handle',
  ETXTBSY: 'Text file busy',
  EXDEV: 'Invalid cross-device link',
}

/** The code of a failed system call ("ENOENT"), or `undefined` for any other exception. */
export function errnoCode(thrown: unknown): string | undefined {
  const code = thrown instanceof Error ? (thrown as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' ? code : undefined
}

/** Did a system call fail because the file or a directory above it does not exist? */
export function isMissing(thrown: unknown): boolean {
  return errnoCode(thrown) === 'ENOENT'
}

/** What `%m` would print after a failed system call; the exception's own message for anything else. */
export function systemErrorText(thrown: unknown): string {
  const known = strerror[errnoCode(thrown) ?? '']
  if (known !== undefined) return known
  const errno = thrown instanceof Error ? (thrown as NodeJS.ErrnoException).errno : undefined
  if (typeof errno === 'number') return getSystemErrorMessage(errno) ?? `Unknown error ${-errno}`
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/** A system call that failed, in PostgreSQL's words: `could not open file "x": No such file or directory`. */
export class FileError extends Error {
  override readonly name = 'FileError'
  /** Of the failed call ("ENOENT"). */
  readonly code: string | undefined

  constructor(deed: string, thrown: unknown) {
    super(`could not ${deed}: ${systemErrorText(thrown)}`)
    this.code = errnoCode(thrown)
  }
}

/** An fsync that failed. The next one may succeed without having written what this one could not write. */
export class SyncError extends FileError {}

/** For `catch`: says that a file or directory could not be synced. */
export function couldNotSync(path: string): (thrown: unknown) => never {
  return thrown => {
    throw new SyncError(`fsync file "${path}"`, thrown)
  }
}

/** For `catch`: says what could not be done, in front of why. What has been said already stays as it is. */
export function couldNot(deed: string): (thrown: unknown) => never {
  return thrown => {
    throw thrown instanceof FileError ? thrown : new FileError(deed, thrown)
  }
}
