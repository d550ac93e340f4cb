import type { Files, OpenFile } from '../../src/system/files.ts'
import type { Lies } from './archiver-process.ts'
import { archiveDirectory, isTemporary, walDirectory } from './judge.ts'

/**
 * Faults that an archiver could have, put between it and the disk. Each has to make the simulation fail: a
 * simulation that cannot fail proves nothing.
 */
export const lies: Record<string, Lies> = {
  'content is not synced': {
    files: files => ({
      ...whole(files),
      open: async (...args) => altered(await files.open(...args), { sync: async () => {} }),
    }),
  },
  'the directory is not synced': { files: files => ({ ...whole(files), syncDirectory: async () => {} }) },
  'a copy of another hand is believed to be durable': {
    files: files => ({
      ...whole(files),
      open: async (path, access, mode) => {
        const file = await files.open(path, access, mode)
        return access === 'read' && path.startsWith(`${archiveDirectory}/`)
          ? altered(file, { sync: async () => {} })
          : file
      },
    }),
  },
  'the final name is given by a rename, which replaces': {
    files: files => ({ ...whole(files), link: (existing, name) => files.rename(existing, name) }),
  },
  'the copy is written under its final name': {
    files: files => ({
      ...whole(files),
      open: (path, access, mode) => files.open(access === 'create' ? finalPath(path) : path, access, mode),
      link: async () => {},
      unlink: path => (path === finalPath(path) ? files.unlink(path) : Promise.resolve()),
    }),
  },
  'the name is made durable before the content': {
    files: files => {
      const unsynced: OpenFile[] = []
      return {
        ...whole(files),
        open: async (...args) => {
          const file = await files.open(...args)
          return args[1] === 'create'
            ? altered(file, { sync: async () => void unsynced.push(file), close: async () => {} })
            : file
        },
        syncDirectory: async path => {
          await files.syncDirectory(path)
          for (const file of unsynced.splice(0)) await file.sync()
        },
      }
    },
  },
  'only the sizes of two files are compared': {
    files: files => ({
      ...whole(files),
      open: async (path, access, mode) => {
        if (access === 'create' || !path.startsWith(`${archiveDirectory}/`))
          return files.open(path, access, mode)
        const source = `${walDirectory}/${path.slice(archiveDirectory.length + 1)}`
        const [there, here] = [await files.stat(path), await files.stat(source)]
        return files.open(there.size === here.size ? source : path, access, mode)
      },
    }),
  },
  'temporary files stay': { files: files => ({ ...whole(files), unlink: async () => {} }) },
  'true is said of everything': {
    module: init => async server => {
      const callbacks = await init(server)
      const archive = callbacks.archive_file_cb.bind(callbacks)
      return {
        ...callbacks,
        archive_file_cb: async (...args) => {
          await Promise.resolve(archive(...args)).catch(() => undefined)
          return true
        },
      }
    },
  },
  'true is said before the work is done': {
    module: init => async server => {
      const callbacks = await init(server)
      const archive = callbacks.archive_file_cb.bind(callbacks)
      return {
        ...callbacks,
        archive_file_cb: (...args) => {
          void Promise.resolve(archive(...args)).catch(() => undefined)
          return true
        },
      }
    },
  },
  'a file is never archived': {
    module: init => async server => ({ ...(await init(server)), archive_file_cb: () => false }),
  },
  'the archiver never rests': {
    files: files => ({
      ...whole(files),
      watch: (path, changed) => {
        const watch = files.watch(path, changed)
        const nudge = () =>
          void files
            .list(path)
            .then(() => changed(undefined))
            .then(nudge)
        nudge()
        return watch
      },
    }),
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

function altered(file: OpenFile, changes: Partial<OpenFile>): OpenFile {
  const close = changes.close ?? (() => file.close())
  return {
    stat: () => file.stat(),
    read: buffer => file.read(buffer),
    write: bytes => file.write(bytes),
    writeAt: (bytes, position) => file.writeAt(bytes, position),
    changeOwner: (uid, gid) => file.changeOwner(uid, gid),
    sync: () => file.sync(),
    ...changes,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function finalPath(path: string): string {
  const name = path.slice(archiveDirectory.length + 1)
  if (!path.startsWith(`${archiveDirectory}/`) || !isTemporary(name)) return path
  return `${archiveDirectory}/${name.slice('archtemp.'.length, name.lastIndexOf('.'))}`
}
