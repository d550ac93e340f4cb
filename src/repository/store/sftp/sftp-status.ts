/** What a server answers instead of doing what it was asked. Version 3 of the protocol has no more. */
export type SftpStatusName =
  | 'no such file'
  | 'permission denied'
  | 'failure'
  | 'bad message'
  | 'unsupported'
  | 'end of file'

const names: Readonly<Record<number, SftpStatusName>> = {
  1: 'end of file',
  2: 'no such file',
  3: 'permission denied',
  4: 'failure',
  5: 'bad message',
  8: 'unsupported',
}

/** A request that the server refused. Servers of OpenSSH answer `'no such file'` for ENOENT, ENOTDIR and ELOOP too. */
export class SftpStatus extends Error {
  override readonly name = 'SftpStatus'
  readonly status: SftpStatusName

  constructor(status: SftpStatusName) {
    super(status)
    this.status = status
  }
}

/** From the exception of ssh2; `undefined` where it is not about an answer. */
export function sftpStatus(thrown: { code?: unknown }): SftpStatus | undefined {
  const name = typeof thrown.code === 'number' ? names[thrown.code] : undefined
  return name && new SftpStatus(name)
}

/** Is it this answer? */
export function hasStatus(thrown: unknown, ...wanted: SftpStatusName[]): boolean {
  return thrown instanceof SftpStatus && wanted.includes(thrown.status)
}

/** For `catch`: nothing where the server has refused. What it did not answer stays unknown. */
export function ifAnswered(thrown: unknown): undefined {
  if (!(thrown instanceof SftpStatus)) throw thrown
  return undefined
}
