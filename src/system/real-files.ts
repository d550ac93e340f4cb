import type { BigIntStats } from 'node:fs'
import { constants, watch } from 'node:fs'
import {
  access,
  type FileHandle,
  lchown,
  link,
  mkdir,
  open,
  opendir,
  readdir,
  readFile,
  realpath,
  rename,
  stat,
  unlink,
} from 'node:fs/promises'
import type { FileStatus, Files, OpenFile } from './files.ts'

const namesPerRead = 1_024

const openFlags = {
  read: constants.O_RDONLY,
  readNoLink: constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
  create: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
}

export const realFiles: Files = {
  stat: async path => fileStatus(await stat(path, { bigint: true })),
  list: path => readdir(path),
  visit: async (path, each) => {
    for await (const { name } of await opendir(path, { bufferSize: namesPerRead })) each(name)
  },
  open: async (path, access, mode = 0o600) => {
    return new RealFile(await open(path, openFlags[access], mode))
  },
  readText: path => readFile(path, 'utf8'),
  makeDirectory: async (path, mode) => {
    await mkdir(path, { mode })
  },
  changeOwner: (path, uid, gid) => lchown(path, uid, gid),
  realPath: path => realpath(path),
  requireWritable: path => access(path, constants.W_OK | constants.X_OK),
  link,
  rename,
  unlink,
  syncDirectory: async path => {
    const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  },
  watch: (path, changed) => {
    const watcher = watch(path, { persistent: false }, (_event, name) => changed(name ?? undefined))
    watcher.on('error', () => {
      watcher.close()
      changed(undefined)
    })
    return watcher
  },
}

class RealFile implements OpenFile {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async stat(): Promise<FileStatus> {
    return fileStatus(await this.#handle.stat({ bigint: true }))
  }

  async read(buffer: Uint8Array): Promise<number> {
    let filled = 0
    while (filled < buffer.length) {
      const { bytesRead } = await this.#handle.read(buffer, filled, buffer.length - filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let written = 0; written < bytes.length; ) {
      const { bytesWritten } = await this.#handle.write(bytes, written, bytes.length - written)
      written += bytesWritten
    }
  }

  async writeAt(bytes: Uint8Array, position: number): Promise<void> {
    for (let written = 0; written < bytes.length; ) {
      const left = bytes.length - written
      const { bytesWritten } = await this.#handle.write(bytes, written, left, position + written)
      written += bytesWritten
    }
  }

  changeOwner(uid: number, gid: number): Promise<void> {
    return this.#handle.chown(uid, gid)
  }

  sync(): Promise<void> {
    return this.#handle.sync()
  }

  close(): Promise<void> {
    return this.#handle.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function fileStatus(stats: BigIntStats): FileStatus {
  return {
    kind: stats.isFile() ? 'file' : stats.isDirectory() ? 'directory' : 'other',
    size: Number(stats.size),
    mode: Number(stats.mode) & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    device: stats.dev,
    inode: stats.ino,
    modifiedNs: stats.mtimeNs,
    changedNs: stats.ctimeNs,
  }
}
