import { RepositoryError } from '../../repository-error.ts'
import { RequestError } from '../request-error.ts'
import type { SftpSession, SftpSpace } from './sftp-session.ts'
import { SftpStatus, type SftpStatusName } from './sftp-status.ts'
import type { SshPlace } from './ssh-failure.ts'

// Where less is left, it is the reason: what failed may be larger than that.
const roomBytesMin = 1024 * 1024

export interface SftpDeed {
  /** What could not be done: `open file "…"`. */
  deed: string
  place: SshPlace
  session: SftpSession
  /** The root of the repository, whose file system is asked why. */
  root: string
  /** What it needed. */
  bytes?: number
}

/** What the server has refused, as the repository tells it. What has been told so already stays as it is. */
export async function sftpFailure(thrown: unknown, deed: SftpDeed): Promise<unknown> {
  if (!(thrown instanceof SftpStatus)) return thrown
  const { text, hint } = await explain(thrown.status, deed)
  const message = `could not ${deed.deed} on server "${deed.place.host}": ${text}`
  return text === texts.failure
    ? new RequestError('UNREACHABLE', message, { cause: thrown, retry: 'again', hint })
    : new RepositoryError('UNREACHABLE', message, { cause: thrown, hint })
}

interface Explanation {
  text: string
  hint: string
}

const texts: Readonly<Record<SftpStatusName, string>> = {
  'no such file': 'No such file or directory',
  'permission denied': 'Permission denied',
  failure: 'Failure',
  'bad message': 'Invalid argument',
  unsupported: 'Operation not supported',
  'end of file': 'End of file',
}

async function explain(status: SftpStatusName, deed: SftpDeed): Promise<Explanation> {
  const { user } = deed.place
  // A file beside it could be made.
  if (deed.deed.startsWith('link ') && (status === 'permission denied' || status === 'unsupported')) {
    return { text: texts[status], hint: noLinks }
  }
  switch (status) {
    case 'no such file':
      return { text: texts[status], hint: 'Is the disk of the repository mounted on the server?' }
    case 'permission denied':
      return {
        text: texts[status],
        hint: `Let user "${user}" of the server own the directory of the repository. An SFTP server with the option -R writes nothing.`,
      }
    case 'failure':
      return (await explainByFileSystem(deed)) ?? { text: texts[status], hint: seeLog }
    case 'bad message':
    case 'unsupported':
    case 'end of file':
      return { text: texts[status], hint: seeLog }
    default:
      return status satisfies never
  }
}

const noLinks =
  'Does the file system of the repository have hard links? FAT has none, nor have some that reach across a network.'

const seeLog =
  'The server does not say why; it may be a quota. Its log says more when its sshd_config has "Subsystem sftp internal-sftp -l VERBOSE"; the log of the kernel tells of failing disks.'

/** The protocol has one word for a full disk, a disk that is read-only, and all else. */
async function explainByFileSystem({ session, root, bytes = 0 }: SftpDeed): Promise<Explanation | undefined> {
  if (!session.hasExtension('statvfs@openssh.com')) return undefined
  const space: SftpSpace | undefined = await session.space(root).catch(() => undefined)
  if (space === undefined) return undefined
  if (space.isReadOnly) {
    return {
      text: 'Read-only file system',
      hint: 'Mount the file system of the repository on the server so that it can be written.',
    }
  }
  const makeRoom = 'Make room in the repository; archiving goes on by itself then.'
  if (!space.hasFilesLeft) return { text: 'No space left on device for more files', hint: makeRoom }
  if (space.availableBytes < Math.max(roomBytesMin, bytes))
    return { text: 'No space left on device', hint: makeRoom }
  return undefined
}
