// What we use of ssh2. Its published types bring those of an older Node with them.
declare module 'ssh2' {
  import type { EventEmitter } from 'node:events'
  import type { Duplex } from 'node:stream'

  export interface Ssh2Error extends Error {
    level?: string
    code?: unknown
    reason?: unknown
  }

  export type Ssh2Done<T> = (error: Ssh2Error | null | undefined, answer: T) => void

  export interface Ssh2Attributes {
    mode: number
    size: number
    /** Seconds since the epoch. */
    mtime: number
  }

  export interface Ssh2Entry {
    filename: string
    attrs: Ssh2Attributes
  }

  export interface Ssh2FileSystem {
    f_frsize: bigint | number
    f_bavail: bigint | number
    f_files: bigint | number
    f_favail: bigint | number
    f_flag: bigint | number
  }

  export interface Ssh2Sftp extends EventEmitter {
    /** Not documented; which version is used is pinned, and a test sees whether it is still there. */
    readonly _extensions: Readonly<Record<string, string>>
    open(path: string, flags: string, attributes: { mode?: number }, done: Ssh2Done<Buffer>): void
    close(handle: Buffer, done: Ssh2Done<void>): void
    read(
      handle: Buffer,
      buffer: Buffer,
      offset: number,
      length: number,
      position: number,
      done: Ssh2Done<number>,
    ): void
    write(
      handle: Buffer,
      buffer: Buffer,
      offset: number,
      length: number,
      position: number,
      done: Ssh2Done<void>,
    ): void
    fstat(handle: Buffer, done: Ssh2Done<Ssh2Attributes>): void
    stat(path: string, done: Ssh2Done<Ssh2Attributes>): void
    lstat(path: string, done: Ssh2Done<Ssh2Attributes>): void
    realpath(path: string, done: Ssh2Done<string>): void
    mkdir(path: string, attributes: { mode: number }, done: Ssh2Done<void>): void
    unlink(path: string, done: Ssh2Done<void>): void
    opendir(path: string, done: Ssh2Done<Buffer>): void
    readdir(handle: Buffer, done: Ssh2Done<Ssh2Entry[]>): void
    ext_openssh_fsync(handle: Buffer, done: Ssh2Done<void>): void
    ext_openssh_hardlink(existing: string, name: string, done: Ssh2Done<void>): void
    ext_openssh_rename(from: string, to: string, done: Ssh2Done<void>): void
    ext_openssh_statvfs(path: string, done: Ssh2Done<Ssh2FileSystem>): void
  }

  export type Ssh2Authentication =
    | { type: 'none'; username: string }
    | { type: 'publickey'; username: string; key: Buffer | string; passphrase?: string }
    | { type: 'agent'; username: string; agent: string }

  export interface Ssh2ConnectOptions {
    sock: Duplex
    username: string
    readyTimeout: number
    algorithms: { serverHostKey: string[] }
    hostVerifier(key: Buffer): boolean
    authHandler(methodsLeft: readonly string[] | null): Ssh2Authentication | false
  }

  export class Client extends EventEmitter {
    connect(options: Ssh2ConnectOptions): void
    sftp(done: Ssh2Done<Ssh2Sftp>): void
    unforwardIn(address: string, port: number, done: (error?: Error) => void): void
    end(): void
  }

  const ssh2: {
    Client: typeof Client
    utils: {
      parseKey(text: string, passphrase?: string): Error | { type: string } | Array<{ type: string }>
    }
  }
  export default ssh2
}
