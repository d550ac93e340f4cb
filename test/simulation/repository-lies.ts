import type { Files, OpenFile } from '../../src/system/files.ts'
import { errnoCode } from '../../src/system/system-error.ts'
import { mountPoint } from './repository-judge.ts'

/**
 * Faults that a repository could have, put between it and the disk. Each has to make the simulation fail: a
 * simulation that cannot fail proves nothing.
 */
export const repositoryLies: Record<string, (files: Files) => Files> = {
  'content is not synced': files => opening(files, file => ({ ...file, sync: async () => {} })),
  'the directory of an object is not synced': files => ({
    ...whole(files),
    syncDirectory: async path => (depthOf(path) === 4 ? undefined : files.syncDirectory(path)),
  }),
  'directories above that are not synced': files => ({
    ...whole(files),
    syncDirectory: async path =>
      depthOf(path) < 4 && depthOf(path) > 0 ? undefined : files.syncDirectory(path),
  }),
  'the name of the marker is not synced': files => ({
    ...whole(files),
    syncDirectory: async path => (path === mountPoint ? undefined : files.syncDirectory(path)),
  }),
  'the name of the root is not synced': files => ({
    ...whole(files),
    syncDirectory: async path => (path === '/mnt' ? undefined : files.syncDirectory(path)),
  }),
  'final names are given by a rename, which replaces': files => ({
    ...whole(files),
    link: (existing, name) => files.rename(existing, name),
  }),
  'objects are written under their final names': files => ({
    ...whole(files),
    open: (path, access, mode) => files.open(access === 'create' ? finalPath(path) : path, access, mode),
    stat: path => files.stat(finalPath(path)),
    link: async () => {},
    unlink: async path => (path === finalPath(path) ? files.unlink(path) : undefined),
  }),
  'unfinished writes stay': files => ({ ...whole(files), unlink: async () => {} }),
  'files stay open': files => opening(files, file => ({ ...file, [Symbol.asyncDispose]: async () => {} })),
  'where the disk was, a directory is as good': files => ({
    ...whole(files),
    readText: async path => {
      if (!/\/repository-[0-9a-f]+\.json$/.test(path)) return files.readText(path)
      throw Object.assign(new Error('it is missing'), { code: 'ENOENT' })
    },
  }),
}

/** The same for what is read. */
export const readingLies: Record<string, (files: Files) => Files> = {
  'what cannot be read is missing': files => {
    const missing = (thrown: unknown): never => {
      throw Object.assign(new Error('it is missing'), {
        code: errnoCode(thrown) === 'EIO' ? 'ENOENT' : errnoCode(thrown),
      })
    }
    return {
      ...whole(files),
      open: (path, access, mode) => files.open(path, access, mode).catch(missing),
      list: async path => (await files.list(path)).filter(name => !name.endsWith('.pgarchivist')),
    }
  },
}

/** The methods of a class instance do not come along with a spread. */
function whole(files: Files): Files {
  return {
    stat: path => files.stat(path),
    list: path => files.list(path),
    visit: (path, each) => files.visit(path, each),
    open: (path, access, mode) => files.open(path, access, mode),
    readText: path => files.readText(path),
    makeDirectory: (path, mode) => files.makeDirectory(path, mode),
    changeOwner: (path, uid, gid) => files.changeOwner(path, uid, gid),
    realPath: path => files.realPath(path),
    requireWritable: path => files.requireWritable(path),
    link: (existing, name) => files.link(existing, name),
    rename: (from, to) => files.rename(from, to),
    unlink: path => files.unlink(path),
    syncDirectory: path => files.syncDirectory(path),
    watch: (path, changed) => files.watch(path, changed),
  }
}

function opening(files: Files, change: (file: OpenFile) => OpenFile): Files {
  return { ...whole(files), open: async (...args) => change(wholeFile(await files.open(...args))) }
}

function wholeFile(file: OpenFile): OpenFile {
  return {
    stat: () => file.stat(),
    read: buffer => file.read(buffer),
    write: bytes => file.write(bytes),
    writeAt: (bytes, position) => file.writeAt(bytes, position),
    changeOwner: (uid, gid) => file.changeOwner(uid, gid),
    sync: () => file.sync(),
    close: () => file.close(),
    [Symbol.asyncDispose]: () => file.close(),
  }
}

/** Of a directory below the root; 0 is the root, and less is outside. */
function depthOf(path: string): number {
  if (path !== mountPoint && !path.startsWith(`${mountPoint}/`)) return -1
  return path.slice(mountPoint.length).split('/').length - 1
}

function finalPath(path: string): string {
  return path.replace(/\/\.([^/]+)\.[0-9a-f]{16}\.tmp$/, '/$1')
}
