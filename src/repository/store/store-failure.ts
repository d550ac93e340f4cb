import { errnoCode, FileError, systemErrorText } from '../../system/system-error.ts'
import { LockedError } from '../../system/write-durably.ts'
import { RepositoryError } from '../repository-error.ts'
import { writerOf } from './unfinished-write.ts'

/** What a file system has refused, as the repository tells it. What has been told so already stays as it is. */
export function storeFailure(thrown: unknown): unknown {
  const first = firstFailure(thrown)
  if (first instanceof RepositoryError || !(first instanceof Error)) return first
  const code = first instanceof FileError ? first.code : errnoCode(first)
  if (first instanceof LockedError) return lockedFailure(first)
  // Whatever is neither is a fault of the program, and no less so for having been noticed here.
  if (code === undefined && first.name !== 'Error' && !(first instanceof FileError)) return first
  const message = first instanceof FileError ? first.message : systemErrorText(first)
  const hint = hints.get(code ?? '')
  return new RepositoryError('UNREACHABLE', message, { cause: first, ...(hint && { hint }) })
}

function lockedFailure(thrown: LockedError): RepositoryError {
  const holder = writerOf(thrown.lock.slice(thrown.lock.lastIndexOf('/') + 1))?.process
  const made = holder === undefined ? '' : ` of process ${holder.pid} on host "${holder.host}"`
  return new RepositoryError('UNREACHABLE', `${thrown.message}${made}`, {
    cause: thrown,
    hint: 'Remove the lock if nobody is writing there. That of a process which has ended on this machine is removed by the next one.',
  })
}

/** When closing a file fails too, what failed first matters more. */
export function firstFailure(thrown: unknown): unknown {
  return thrown instanceof SuppressedError ? thrown.suppressed : thrown
}

/** For `catch`. */
export function throwStoreFailure(thrown: unknown): never {
  throw storeFailure(thrown)
}

const makeRoom = 'Make room in the repository; archiving goes on by itself then.'
const giveToServer = 'Let the user that PostgreSQL runs as own the directory of the repository.'
const isMounted = 'Is the disk of the repository mounted?'

const hints: ReadonlyMap<string, string> = new Map([
  ['ENOSPC', makeRoom],
  ['EDQUOT', makeRoom],
  ['EACCES', giveToServer],
  ['EPERM', giveToServer],
  ['EROFS', 'Mount the file system of the repository so that it can be written.'],
  ['EIO', 'The disk of the repository has failed: the log of the kernel says more.'],
  ['ENOENT', isMounted],
  ['ENOTDIR', 'There is a file where a directory of the repository belongs: move it away.'],
  ['ESTALE', isMounted],
  ['ELOOP', 'Symbolic links are not followed in a repository: put in its place what it leads to.'],
])
