/** The part of a file system that we use, as a parameter. Its simulated twin forgets on crash what was not synced. */
export interface Files {
  /** Follows symbolic links. */
  stat(path: string): Promise<FileStatus>
  /** Names in a directory, in no order, without `.` and `..`. */
  list(path: string): Promise<string[]>
  /** Calls back with each name in a directory, in no order: for one that may hold more names than should be kept. */
  visit(path: string, each: (name: string) => void): Promise<void>
  /**
   * `read` needs the file to exist, `create` that it does not, and makes it with `mode` less the umask. `readNoLink`
   * fails with ELOOP where `read` would follow a symbolic link at the end of the path, and never waits for the other
   * end of a pipe.
   */
  open(path: string, access: 'read' | 'readNoLink' | 'create', mode?: number): Promise<OpenFile>
  readText(path: string): Promise<string>
  /** Fails with EEXIST where there is something of this name. Made with `mode` less the umask. */
  makeDirectory(path: string, mode: number): Promise<void>
  /** Gives what is at `path`, not what a symbolic link there leads to, to somebody else, which only root may do. */
  changeOwner(path: string, uid: number, gid: number): Promise<void>
  /** The absolute path without symbolic links, `.` and `..`. */
  realPath(path: string): Promise<string>
  /** Fails where names may not be made in a directory, because of permissions or of a file system that is read-only. */
  requireWritable(path: string): Promise<void>
  /** A second name for the same file; fails with EEXIST rather than replace. */
  link(existing: string, name: string): Promise<void>
  /** Replaces what is at `to`. */
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** Makes the names in a directory durable: what was linked, renamed and unlinked. */
  syncDirectory(path: string): Promise<void>
  /**
   * Calls back with the name of what changed in a directory, or `undefined` where the system does not say or the
   * watch has ended. Notification is a hint: it may come late, twice or never.
   */
  watch(path: string, changed: (name: string | undefined) => void): Watch
}

export interface Watch {
  close(): void
}

/** Identity and shape of a file. */
export interface FileStatus {
  kind: 'file' | 'directory' | 'other'
  size: number
  /** Permission bits. */
  mode: number
  uid: number
  gid: number
  device: bigint
  inode: bigint
  /** When the content was last changed, in nanoseconds since the epoch. */
  modifiedNs: bigint
  /** When content, names or owner were last changed, in nanoseconds since the epoch. Cannot be set by hand. */
  changedNs: bigint
}

/** One open file. Closing is the caller's, best with `await using`. */
export interface OpenFile extends AsyncDisposable {
  stat(): Promise<FileStatus>
  /** Fills `buffer` from the current position and returns the bytes read; fewer than asked only at the end. */
  read(buffer: Uint8Array): Promise<number>
  /** Writes all of `bytes` at the current position, or throws. */
  write(bytes: Uint8Array): Promise<void>
  /** Writes all of `bytes` at `position`, or throws, and leaves the current position as it is. */
  writeAt(bytes: Uint8Array, position: number): Promise<void>
  /** Gives the file to somebody else, which only root may do. */
  changeOwner(uid: number, gid: number): Promise<void>
  /** Makes the content durable. After a failure nothing of the file may be trusted. */
  sync(): Promise<void>
  close(): Promise<void>
}
