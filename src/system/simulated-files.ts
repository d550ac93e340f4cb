/**
 * The simulated twin of the file system: one disk in memory, mounted by processes that can be killed, on a machine
 * whose power can be cut.
 *
 * What a power cut leaves is as bad as the rules of POSIX allow:
 *
 * - Content that was not synced is kept, lost or torn: any subset of its pages, the size with zeroes below it.
 * - Changes of names that no sync of the directory followed are each kept or lost. Two changes of one name keep
 *   their order, and a rename is one change of two names, so that a file is never lost by renaming it.
 * - Syncing a file makes its content durable, not its name.
 * - A failed sync of a file leaves its pages marked as clean, as Linux does: some were written, some never will be,
 *   and the next sync succeeds without writing them.
 * - A failed sync of a directory leaves its changes as they were; the next one can make them durable.
 *
 * A kill, which ends one process on a machine that stays up, keeps all of this and loses nothing.
 *
 * Every operation of the port is a numbered step, and a step can be told its fate: to fail, with or without having
 * had its effect, or to be the last thing that its process ever did.
 */
import { getSystemErrorMap } from 'node:util'
import type { FileStatus, Files, OpenFile, Watch } from './files.ts'
import type { SeededRandom } from './seeded-random.ts'
import { errnoCode } from './system-error.ts'

export const pageBytes = 4_096 // what the kernel writes back at once
const inodesReusedPercent = 50 // real file systems give the number of a removed file to the next one
const symbolicLinksMax = 40 // as in Linux
const nameBytesMax = 255 // as in Linux

/** How a power cut treats changes of names that were not synced. */
export type CutMode =
  /** Of each directory, the changes up to some moment are kept: a journal that was written in order. */
  | 'in order'
  /** Each name has its own moment. */
  | 'any order'

export type Operation =
  | 'stat'
  | 'list'
  | 'open'
  | 'readText'
  | 'link'
  | 'rename'
  | 'unlink'
  | 'makeDirectory'
  | 'chown'
  | 'realPath'
  | 'syncDirectory'
  | 'watch'
  | 'fstat'
  | 'fchown'
  | 'read'
  | 'write'
  | 'sync'
  | 'close'

export interface Step {
  /** Counts the operations of one process, from 1. */
  number: number
  operation: Operation
  path: string
  /** Where `link` and `rename` lead. */
  to?: string
  /** How much `write` was given. */
  bytes?: number
}

/** What is to become of a step. `written` is how much of a write took place. */
export type Fate =
  /** The call fails with this code. With `took`, its effect is there all the same, as when NFS loses an answer. */
  | { kind: 'fails'; code: string; took?: boolean; written?: number }
  /** The process is never told, because it ends here, before or after the effect. */
  | { kind: 'stops'; took: boolean; written?: number }

export interface MountOptions {
  /** Asked at every step. Without an answer, the step does what it should. */
  fate?: (step: Step) => Fate | undefined
  /** How long a step takes, before it has its effect. */
  delay?: (step: Step) => Promise<void>
  /** Told after every step, with the code of its failure. */
  stepped?: (step: Step, code: string | undefined) => void
  /** Told when a step was the last of this process. */
  stopped?: (step: Step) => void
  /** May a notification of `watch` be lost? */
  losesNotification?: () => boolean
  /** Who the process runs as; 0 is above permission bits. */
  uid?: number
  umask?: number
  /** What relative paths start from. */
  workingDirectory?: string
}

type Inode = FileInode | DirectoryInode | SymbolicLinkInode

interface InodeBase {
  number: number
  mode: number
  uid: number
  modified: number
}

interface FileInode extends InodeBase {
  kind: 'file'
  /** What processes read: the page cache. */
  content: Uint8Array
  /** What the medium has. */
  durable: Uint8Array
  /** Pages whose content the medium may not have. */
  dirty: Set<number>
  /** Whether the medium may have another size. */
  sizeIsDirty: boolean
  links: number
  openHandles: number
}

interface DirectoryInode extends InodeBase {
  kind: 'directory'
  names: Map<string, Inode>
  durableNames: Map<string, Inode>
  watchers: Set<(name: string) => void>
}

interface SymbolicLinkInode extends InodeBase {
  kind: 'symbolic link'
  target: string
}

/** One atomic change of the name space that is not known to be durable. */
interface Change {
  edits: Edit[]
}

/** After it, `name` means `inode`, or nothing. */
interface Edit {
  directory: DirectoryInode
  name: string
  inode: Inode | undefined
}

/** A disk, and the view of it that nobody in the simulation has: what is on the medium, and how to spoil it. */
export class SimulatedDisk {
  readonly #random: SeededRandom
  readonly #now: () => number
  readonly #root: DirectoryInode
  #changes: Change[] = []
  #inodesMade = 1
  #inodesFree: number[] = []
  #mounts = new Set<SimulatedFiles>()
  readonly #watched = new Set<DirectoryInode>()
  readonly #parts = new Map<string, string[]>()

  /** `now` stamps files with the time of day. */
  constructor(random: SeededRandom, now: () => number = () => 0) {
    this.#random = random
    this.#now = now
    this.#root = this.newDirectory()
    this.#root.mode = 0o755
  }

  /** The disk as a process sees it that starts now. */
  mount(options: MountOptions = {}): SimulatedFiles {
    const files = new SimulatedFiles(this, options)
    this.#mounts.add(files)
    return files
  }

  /**
   * Ends all processes and forgets what was not synced. Afterwards the disk can be mounted again and has, to all
   * appearance, never had anything else on it.
   */
  powerCut(mode: CutMode = this.#random.pick(['in order', 'any order'])): void {
    for (const files of this.#mounts) files.kill()
    this.#mounts.clear()
    const pending = this.#changes
    this.#flush(
      mode === 'in order' ? this.#anyPrefixes(pending) : pending.filter(() => this.#random.chance(0.5)),
    )
    this.#changes = []
    const numbers = new Set<number>()
    const settled = new Set<Inode>()
    const settle = (directory: DirectoryInode) => {
      directory.names = new Map(directory.durableNames)
      for (const inode of directory.names.values()) {
        if (settled.has(inode)) {
          if (inode.kind === 'file') inode.links++
          continue
        }
        settled.add(inode)
        // A number that was reused while its first owner's removal was not durable now has two owners.
        if (numbers.has(inode.number)) inode.number = ++this.#inodesMade
        numbers.add(inode.number)
        if (inode.kind === 'directory') settle(inode)
        if (inode.kind === 'file') this.#forgetContent(inode)
      }
    }
    settle(this.#root)
    this.#inodesFree = []
  }

  /** What `path` would certainly hold after a power cut, or `undefined` where this depends on luck. */
  surviving(path: string): Uint8Array | undefined {
    const [content, ...others] = this.survivors(path) ?? []
    return others.every(other => Buffer.compare(other, content ?? other) === 0) ? content : undefined
  }

  /** What `path` may hold after a power cut, or `undefined` where it may be missing or torn. */
  survivors(path: string): Uint8Array[] | undefined {
    const { directory, name } = this.parentOf(path)
    const possible = [directory.durableNames.get(name)]
    for (const { edits } of this.#changes) {
      for (const edit of edits) {
        if (edit.name === name && edit.directory === directory) possible.push(edit.inode)
      }
    }
    const contents: Uint8Array[] = []
    for (const inode of possible) {
      if (inode?.kind !== 'file' || !isClean(inode)) return undefined
      contents.push(inode.durable)
    }
    return contents
  }

  /** Names that a directory may have after a power cut. */
  possibleNames(path: string): Set<string> {
    const directory = this.find(path, true)
    if (directory?.kind !== 'directory') return new Set()
    const names = new Set(directory.durableNames.keys())
    for (const { edits } of this.#changes) {
      for (const edit of edits) {
        if (edit.inode !== undefined && edit.directory === directory) names.add(edit.name)
      }
    }
    return names
  }

  /** What processes find at `path` now, or `undefined` where there is no file. */
  content(path: string): Uint8Array | undefined {
    const { directory, name } = this.parentOf(path)
    const inode = directory.names.get(name)
    return inode?.kind === 'file' ? inode.content : undefined
  }

  names(path: string): string[] {
    const inode = this.find(path, true)
    return inode?.kind === 'directory' ? [...inode.names.keys()] : []
  }

  /** Puts a file there, durably and at once, replacing what there was. */
  place(path: string, content: Uint8Array | string, mode = 0o600): void {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content
    const inode = this.newFile(mode, 0)
    inode.content = bytes
    inode.durable = bytes
    this.#putDurably(path, inode)
  }

  /** Puts a file there of which nothing is durable yet, as another process would that syncs nothing. */
  scribble(path: string, content: Uint8Array | string, mode = 0o600): void {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content
    const { directory, name } = this.parentOf(path)
    const inode = this.newFile(mode, 0)
    this.writeAt(inode, 0, bytes)
    this.change([{ directory, name, inode }])
  }

  makeDirectory(path: string, mode = 0o700): void {
    const inode = this.newDirectory()
    inode.mode = mode
    this.#putDurably(path, inode)
  }

  placeSymbolicLink(path: string, target: string): void {
    this.#putDurably(path, { ...this.#newInode(0o777, 0), kind: 'symbolic link', target })
  }

  /** Removes a name, durably and at once. */
  remove(path: string): void {
    this.#putDurably(path, undefined)
  }

  /** Removes a name, which a power cut may bring back. */
  drop(path: string): void {
    const { directory, name } = this.parentOf(path)
    if (directory.names.has(name)) this.change([{ directory, name, inode: undefined }])
  }

  setMode(path: string, mode: number): void {
    const inode = this.find(path, true)
    if (inode === undefined) throw errno('ENOENT', 'chmod', path)
    inode.mode = mode
  }

  setOwner(path: string, uid: number): void {
    const inode = this.find(path, true)
    if (inode === undefined) throw errno('ENOENT', 'chown', path)
    inode.uid = uid
  }

  /** @internal What the mounts share. */
  get root(): DirectoryInode {
    return this.#root
  }

  /** @internal */
  get random(): SeededRandom {
    return this.#random
  }

  /** @internal */
  find(
    path: string,
    followLast: boolean,
    allowed: (directory: DirectoryInode) => void = () => {},
  ): Inode | undefined {
    return this.#walk(this.#root, path, followLast, allowed, symbolicLinksMax).inode
  }

  /** @internal The directory that a path leads to, and the last name of it. */
  parentOf(
    path: string,
    allowed: (directory: DirectoryInode) => void = () => {},
    followLast = false,
  ): { directory: DirectoryInode; name: string } {
    const { directory, name } = this.#walk(this.#root, path, followLast, allowed, symbolicLinksMax)
    return { directory, name }
  }

  /** @internal Of something that is there. */
  realPath(path: string): string {
    const wanted = this.find(path, true)
    const search = (directory: DirectoryInode, at: string): string | undefined => {
      if (directory === wanted) return at
      for (const [name, inode] of directory.names) {
        if (inode === wanted) return `${at}/${name}`
        const below = inode.kind === 'directory' ? search(inode, `${at}/${name}`) : undefined
        if (below !== undefined) return below
      }
      return undefined
    }
    return search(this.#root, '') || '/'
  }

  #walk(
    from: DirectoryInode,
    path: string,
    followLast: boolean,
    allowed: (directory: DirectoryInode) => void,
    linksLeft: number,
  ): { inode: Inode | undefined; directory: DirectoryInode; name: string } {
    if (path === '') throw pathError('ENOENT')
    let directory = path.startsWith('/') ? this.#root : from
    const parts = this.#partsOf(path)
    const parents = [directory]
    let inode: Inode | undefined = directory
    let name = ''
    for (const [index, part] of parts.entries()) {
      if (inode === undefined) throw pathError('ENOENT')
      if (inode.kind !== 'directory') throw pathError('ENOTDIR')
      if (part.length * 4 > nameBytesMax && Buffer.byteLength(part) > nameBytesMax)
        throw pathError('ENAMETOOLONG')
      directory = inode
      allowed(directory)
      if (part === '..') {
        if (parents.length > 1) parents.pop()
        inode = parents.at(-1)
        name = ''
        continue
      }
      name = part
      inode = directory.names.get(part)
      const isLast = index === parts.length - 1
      if (inode?.kind === 'symbolic link' && (!isLast || followLast || path.endsWith('/'))) {
        if (linksLeft === 0) throw pathError('ELOOP')
        const rest = [inode.target, ...parts.slice(index + 1)].join('/')
        return this.#walk(directory, rest, followLast, allowed, linksLeft - 1)
      }
      if (inode?.kind === 'directory') parents.push(inode)
    }
    if (path.endsWith('/') && inode !== undefined && inode.kind !== 'directory') throw pathError('ENOTDIR')
    return { inode, directory, name }
  }

  /** The same few paths come again and again. */
  #partsOf(path: string): string[] {
    const known = this.#parts.get(path)
    if (known !== undefined) return known
    const parts = path.split('/').filter(part => part !== '' && part !== '.')
    this.#parts.set(path, parts)
    return parts
  }

  /** @internal */
  newFile(mode: number, uid: number): FileInode {
    const nothing = new Uint8Array(0)
    return {
      ...this.#newInode(mode, uid),
      kind: 'file',
      content: nothing,
      durable: nothing,
      dirty: new Set(),
      sizeIsDirty: false,
      links: 0,
      openHandles: 0,
    }
  }

  /** @internal */
  newDirectory(): DirectoryInode {
    const base = this.#newInode(0o700, 0)
    return { ...base, kind: 'directory', names: new Map(), durableNames: new Map(), watchers: new Set() }
  }

  #newInode(mode: number, uid: number): InodeBase {
    const reused = this.#random.chance(inodesReusedPercent / 100) ? this.#inodesFree.pop() : undefined
    return { number: reused ?? ++this.#inodesMade, mode, uid, modified: this.#now() }
  }

  /** @internal Changes names for everybody to see, and for a power cut to forget. */
  change(edits: Edit[]): void {
    this.#changes.push({ edits })
    for (const { directory, name, inode } of edits) {
      const before = directory.names.get(name)
      if (inode === undefined) directory.names.delete(name)
      else directory.names.set(name, inode)
      if (inode?.kind === 'file') inode.links++
      directory.modified = this.#now()
      this.#notify(directory, name)
      if (before?.kind === 'file') {
        before.links--
        this.release(before)
      }
    }
  }

  /** @internal Frees the number of a file that has neither name nor handle. */
  release(inode: FileInode): void {
    if (inode.openHandles === 0 && inode.links === 0) this.#inodesFree.push(inode.number)
  }

  /** @internal */
  writeAt(inode: FileInode, position: number, bytes: Uint8Array): void {
    const end = position + bytes.length
    if (end > inode.content.length) {
      const grown = new Uint8Array(end)
      grown.set(inode.content)
      inode.content = grown
      inode.sizeIsDirty = true
    } else {
      inode.content = inode.content.slice()
    }
    inode.content.set(bytes, position)
    for (let page = Math.floor(position / pageBytes); page * pageBytes < end; page++) inode.dirty.add(page)
    inode.modified = this.#now()
    this.#notifyContent(inode)
  }

  /** @internal */
  syncContent(inode: FileInode): void {
    if (isClean(inode)) return
    inode.durable = mixedPages(inode, inode.content.length, () => true)
    markClean(inode)
  }

  /** @internal What a sync leaves that the medium refused. */
  spoilContent(inode: FileInode): void {
    if (isClean(inode)) return
    // The size goes another way than the pages, through the journal, and later succeeds.
    inode.durable = mixedPages(inode, inode.content.length, () => this.#random.chance(0.5))
    markClean(inode)
    // Some file systems leave the new content in the page cache, where everyone still reads it; others drop it.
    if (this.#random.chance(0.5)) inode.content = inode.durable
  }

  /** @internal */
  syncNames(directory: DirectoryInode): void {
    this.#flush(this.#changesOf(directory))
  }

  #changesOf(directory: DirectoryInode): Change[] {
    return this.#changes.filter(({ edits }) => edits.some(edit => edit.directory === directory))
  }

  /** Makes these changes durable, and all earlier changes of the same names, without which they mean nothing. */
  #flush(chosen: Change[]): void {
    if (chosen.length === 0) return
    const kept = new Set(chosen)
    const touched = new Map<DirectoryInode, Set<string>>()
    for (const change of this.#changes.toReversed()) {
      const isNeeded = change.edits.some(({ directory, name }) => touched.get(directory)?.has(name))
      if (!isNeeded && !kept.has(change)) continue
      kept.add(change)
      for (const { directory, name } of change.edits) {
        const names = touched.get(directory) ?? new Set()
        touched.set(directory, names.add(name))
      }
    }
    for (const change of this.#changes) {
      if (!kept.has(change)) continue
      for (const { directory, name, inode } of change.edits) {
        if (inode === undefined) directory.durableNames.delete(name)
        else directory.durableNames.set(name, inode)
      }
    }
    this.#changes = this.#changes.filter(change => !kept.has(change))
  }

  #anyPrefixes(pending: Change[]): Change[] {
    const kept = new Map<DirectoryInode, Set<Change>>()
    for (const directory of new Set(pending.flatMap(({ edits }) => edits.map(edit => edit.directory)))) {
      const changes = this.#changesOf(directory)
      kept.set(directory, new Set(changes.slice(0, this.#random.integer(0, changes.length))))
    }
    return pending.filter(change => change.edits.every(({ directory }) => kept.get(directory)?.has(change)))
  }

  #forgetContent(inode: FileInode): void {
    inode.openHandles = 0
    inode.links = 1
    if (!isClean(inode)) {
      const outcome = this.#random.pick(['kept', 'lost', 'torn', 'torn'] as const)
      if (outcome === 'kept') inode.durable = mixedPages(inode, inode.content.length, () => true)
      if (outcome === 'torn')
        inode.durable = mixedPages(inode, this.#tornSize(inode), () => this.#random.chance(0.5))
      markClean(inode)
    }
    inode.content = inode.durable
  }

  #tornSize({ content, durable }: FileInode): number {
    const least = Math.min(durable.length, content.length)
    const most = Math.max(durable.length, content.length)
    const between = Math.floor(this.#random.integer(least, most) / pageBytes) * pageBytes
    return this.#random.pick([least, most, most, Math.max(least, between)])
  }

  #putDurably(path: string, inode: Inode | undefined): void {
    const { directory, name } = this.parentOf(path)
    const edit = { directory, name, inode }
    this.change([edit])
    this.#flush(this.#changes.filter(change => change.edits.includes(edit)))
  }

  /** @internal */
  watch(directory: DirectoryInode, watcher: (name: string) => void): void {
    directory.watchers.add(watcher)
    this.#watched.add(directory)
  }

  /** @internal */
  unwatch(directory: DirectoryInode, watcher: (name: string) => void): void {
    directory.watchers.delete(watcher)
    if (directory.watchers.size === 0) this.#watched.delete(directory)
  }

  #notify(directory: DirectoryInode, name: string): void {
    for (const watcher of directory.watchers) watcher(name)
  }

  #notifyContent(inode: FileInode): void {
    for (const directory of this.#watched) {
      for (const [name, named] of directory.names) if (named === inode) this.#notify(directory, name)
    }
  }
}

/** The disk as one process sees it, from its start until it ends. */
export class SimulatedFiles implements Files {
  readonly #disk: SimulatedDisk
  readonly #options: MountOptions
  readonly #inFlight = new Set<() => void>()
  readonly #watchers = new Map<(name: string) => void, DirectoryInode>()
  #steps = 0
  #isDead = false

  constructor(disk: SimulatedDisk, options: MountOptions) {
    this.#disk = disk
    this.#options = options
  }

  /** How many operations this process has started. */
  get steps(): number {
    return this.#steps
  }

  get isDead(): boolean {
    return this.#isDead
  }

  /** Ends the process. Operations under way may still have their effect, but nobody will be told. */
  kill(): void {
    if (this.#isDead) return
    this.#isDead = true
    for (const effect of this.#inFlight) {
      if (!this.#disk.random.chance(0.5)) continue
      try {
        effect()
      } catch {
        // It would have failed, and nobody is left to hear of it.
      }
    }
    this.#inFlight.clear()
    for (const [watcher, directory] of this.#watchers) this.#disk.unwatch(directory, watcher)
    this.#watchers.clear()
  }

  stat(path: string): Promise<FileStatus> {
    return this.#step({ operation: 'stat', path }, 'stat', () => statusOf(this.#existing(path)))
  }

  list(path: string): Promise<string[]> {
    return this.#step({ operation: 'list', path }, 'scandir', () => {
      const directory = this.#directory(path)
      this.#permit(directory, 4)
      return [...directory.names.keys()]
    })
  }

  async visit(path: string, each: (name: string) => void): Promise<void> {
    for (const name of await this.list(path)) each(name)
  }

  open(path: string, access: 'read' | 'readNoLink' | 'create', mode = 0o600): Promise<OpenFile> {
    return this.#step({ operation: 'open', path }, 'open', () => {
      let inode: Inode
      if (access === 'readNoLink') {
        const { directory, name } = this.#parentOf(path)
        if (directory.names.get(name)?.kind === 'symbolic link') throw pathError('ELOOP')
      }
      if (access !== 'create') {
        inode = this.#existing(path)
        this.#permit(inode, 4)
      } else {
        const { directory, name } = this.#parentOf(path)
        if (name === '' || directory.names.has(name)) throw pathError('EEXIST')
        if (path.endsWith('/')) throw pathError('EISDIR')
        this.#permit(directory, 2)
        inode = this.#disk.newFile(mode & ~(this.#options.umask ?? 0o022), this.#options.uid ?? 0)
        this.#disk.change([{ directory, name, inode }])
      }
      if (inode.kind === 'file') inode.openHandles++
      return new SimulatedOpenFile(this.#disk, inode, path, access, (request, call, effect, spoilt) =>
        this.#step(request, call, effect, spoilt),
      )
    })
  }

  readText(path: string): Promise<string> {
    return this.#step({ operation: 'readText', path }, 'open', () => {
      const inode = this.#existing(path)
      this.#permit(inode, 4)
      if (inode.kind !== 'file') throw pathError('EISDIR')
      return new TextDecoder().decode(inode.content)
    })
  }

  makeDirectory(path: string, mode: number): Promise<void> {
    return this.#step({ operation: 'makeDirectory', path }, 'mkdir', () => {
      const { directory, name } = this.#parentOf(path)
      if (name === '' || directory.names.has(name)) throw pathError('EEXIST')
      this.#permit(directory, 2)
      const made = this.#disk.newDirectory()
      made.mode = mode & ~(this.#options.umask ?? 0o022)
      made.uid = this.#options.uid ?? 0
      this.#disk.change([{ directory, name, inode: made }])
    })
  }

  changeOwner(path: string, uid: number): Promise<void> {
    return this.#step({ operation: 'chown', path }, 'lchown', () => {
      const { directory, name } = this.#parentOf(path)
      const inode = directory.names.get(name)
      if (inode === undefined) throw pathError('ENOENT')
      inode.uid = uid
    })
  }

  async requireWritable(path: string): Promise<void> {
    await this.stat(path)
  }

  realPath(path: string): Promise<string> {
    return this.#step({ operation: 'realPath', path }, 'realpath', () => {
      this.#existing(path)
      return this.#disk.realPath(this.#absolute(path))
    })
  }

  link(existing: string, name: string): Promise<void> {
    return this.#step({ operation: 'link', path: existing, to: name }, 'link', () => {
      const from = this.#parentOf(existing)
      const inode = from.directory.names.get(from.name)
      if (inode === undefined) throw pathError('ENOENT')
      const to = this.#parentOf(name)
      if (to.name === '' || to.directory.names.has(to.name)) throw pathError('EEXIST')
      if (inode.kind === 'directory') throw pathError('EPERM')
      this.#permit(to.directory, 2)
      this.#disk.change([{ directory: to.directory, name: to.name, inode }])
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.#step({ operation: 'rename', path: from, to }, 'rename', () => {
      const source = this.#parentOf(from)
      const inode = source.directory.names.get(source.name)
      const target = this.#parentOf(to)
      if (inode === undefined) throw pathError('ENOENT')
      const replaced = target.directory.names.get(target.name)
      if (inode.kind === 'directory' && contains(inode, target.directory)) throw pathError('EINVAL')
      if (replaced?.kind === 'directory' && contains(replaced, source.directory)) throw pathError('ENOTEMPTY')
      if (replaced?.kind === 'directory' && inode.kind !== 'directory') throw pathError('EISDIR')
      if (replaced !== undefined && replaced.kind !== 'directory' && inode.kind === 'directory') {
        throw pathError('ENOTDIR')
      }
      if (replaced === inode) return // two names of one file: POSIX leaves both
      if (replaced?.kind === 'directory' && replaced.names.size > 0) throw pathError('ENOTEMPTY')
      this.#permit(source.directory, 2)
      this.#permit(target.directory, 2)
      this.#disk.change([
        { directory: target.directory, name: target.name, inode },
        { directory: source.directory, name: source.name, inode: undefined },
      ])
    })
  }

  unlink(path: string): Promise<void> {
    return this.#step({ operation: 'unlink', path }, 'unlink', () => {
      const { directory, name } = this.#parentOf(path)
      const inode = directory.names.get(name)
      if (inode === undefined) throw pathError(name === '' ? 'EISDIR' : 'ENOENT')
      if (inode.kind === 'directory') throw pathError('EISDIR')
      this.#permit(directory, 2)
      this.#disk.change([{ directory, name, inode: undefined }])
    })
  }

  syncDirectory(path: string): Promise<void> {
    return this.#step({ operation: 'syncDirectory', path }, 'fsync', () => {
      const directory = this.#directory(path)
      this.#permit(directory, 4)
      this.#disk.syncNames(directory)
    })
  }

  watch(path: string, changed: (name: string | undefined) => void): Watch {
    const step: Step = { number: ++this.#steps, operation: 'watch', path }
    const fate = this.#isDead ? undefined : this.#options.fate?.(step)
    if (fate?.kind === 'fails') {
      this.#options.stepped?.(step, fate.code)
      throw errno(fate.code, 'watch', path)
    }
    if (fate?.kind === 'stops') this.#stop(step)
    if (this.#isDead) return { close: () => {} }
    const directory = withPath('watch', path, () => this.#directory(path))
    const watcher = (name: string) => {
      if (this.#options.losesNotification?.()) return
      void this.#delay(step).then(() => {
        if (directory.watchers.has(watcher)) changed(name)
      })
    }
    this.#disk.watch(directory, watcher)
    this.#watchers.set(watcher, directory)
    this.#options.stepped?.(step, undefined)
    return {
      close: () => {
        this.#disk.unwatch(directory, watcher)
        this.#watchers.delete(watcher)
      },
    }
  }

  /**
   * One operation. `effect` is given how much of a write is to take place. `spoilt` is what a failure leaves that is
   * not free of consequences.
   */
  async #step<T>(
    request: Omit<Step, 'number'>,
    call: string,
    effect: (written?: number) => T,
    spoilt: () => void = () => {},
  ): Promise<T> {
    if (this.#isDead) return never()
    const step: Step = { number: ++this.#steps, ...request }
    const whenKilled = () => void effect()
    this.#inFlight.add(whenKilled)
    await this.#delay(step)
    if (this.#isDead) return never()
    this.#inFlight.delete(whenKilled)
    const fate = this.#options.fate?.(step)
    if (this.#isDead) return never() // whoever decides on fates may also cut the power
    if (fate !== undefined) {
      const part = step.operation === 'write' ? fate.written : undefined
      withoutFailing(() => {
        if (fate.took) effect()
        else if (part !== undefined) effect(part)
        else if (fate.kind === 'fails') spoilt()
      })
    }
    if (fate?.kind === 'stops') {
      this.#stop(step)
      return never()
    }
    if (fate?.kind === 'fails') {
      this.#options.stepped?.(step, fate.code)
      throw errno(fate.code, call, step.path, step.to)
    }
    try {
      const result = withPath(call, step.path, effect, step.to)
      this.#options.stepped?.(step, undefined)
      return result
    } catch (thrown) {
      this.#options.stepped?.(step, errnoCode(thrown))
      throw thrown
    }
  }

  #stop(step: Step): void {
    this.kill()
    this.#options.stopped?.(step)
  }

  #delay(step: Step): Promise<void> {
    return this.#options.delay?.(step) ?? Promise.resolve()
  }

  #absolute(path: string): string {
    return path === '' || path.startsWith('/') ? path : `${this.#options.workingDirectory ?? ''}/${path}`
  }

  #existing(path: string): Inode {
    const inode = this.#disk.find(this.#absolute(path), true, directory => this.#permit(directory, 1))
    if (inode === undefined) throw pathError('ENOENT')
    return inode
  }

  #directory(path: string): DirectoryInode {
    const inode = this.#existing(path)
    if (inode.kind !== 'directory') throw pathError('ENOTDIR')
    return inode
  }

  #parentOf(path: string) {
    return this.#disk.parentOf(this.#absolute(path), directory => this.#permit(directory, 1))
  }

  /** `bits` as in one digit of a mode: 4 to read, 2 to write, 1 to pass. */
  #permit(inode: Inode, bits: number): void {
    const uid = this.#options.uid ?? 0
    if (uid === 0) return
    const granted = inode.uid === uid ? inode.mode >> 6 : inode.mode
    if ((granted & bits) !== bits) throw pathError('EACCES')
  }
}

type TakeStep = <T>(
  request: Omit<Step, 'number'>,
  call: string,
  effect: (written?: number) => T,
  spoilt?: () => void,
) => Promise<T>

type Access = Parameters<Files['open']>[1]

class SimulatedOpenFile implements OpenFile {
  readonly #disk: SimulatedDisk
  readonly #inode: Inode
  readonly #path: string
  readonly #access: Access
  readonly #takeStep: TakeStep
  readonly #underWay = new Set<Promise<unknown>>()
  #position = 0
  #isClosed = false

  constructor(disk: SimulatedDisk, inode: Inode, path: string, access: Access, step: TakeStep) {
    this.#disk = disk
    this.#inode = inode
    this.#path = path
    this.#access = access
    this.#takeStep = step
  }

  stat(): Promise<FileStatus> {
    return this.#step({ operation: 'fstat', path: this.#path }, 'fstat', () => {
      this.#beOpen()
      return statusOf(this.#inode)
    })
  }

  read(buffer: Uint8Array): Promise<number> {
    return this.#step({ operation: 'read', path: this.#path }, 'read', () => {
      if (buffer.length === 0) return 0
      this.#beOpen()
      if (this.#access === 'create') throw pathError('EBADF')
      if (this.#inode.kind !== 'file') throw pathError('EISDIR')
      const bytes = this.#inode.content.subarray(this.#position, this.#position + buffer.length)
      buffer.set(bytes)
      this.#position += bytes.length
      return bytes.length
    })
  }

  write(bytes: Uint8Array): Promise<void> {
    const given = bytes.slice() // the caller may use its buffer again
    return this.#step(
      { operation: 'write', path: this.#path, bytes: bytes.length },
      'write',
      (written = given.length) => {
        if (given.length === 0) return
        this.#beOpen()
        if (this.#access !== 'create' || this.#inode.kind !== 'file') throw pathError('EBADF')
        const part = given.subarray(0, written)
        this.#disk.writeAt(this.#inode, this.#position, part)
        this.#position += part.length
      },
    )
  }

  writeAt(bytes: Uint8Array, position: number): Promise<void> {
    const given = bytes.slice()
    return this.#step(
      { operation: 'write', path: this.#path, bytes: bytes.length },
      'write',
      (written = given.length) => {
        if (given.length === 0) return
        this.#beOpen()
        if (this.#access !== 'create' || this.#inode.kind !== 'file') throw pathError('EBADF')
        this.#disk.writeAt(this.#inode, position, given.subarray(0, written))
      },
    )
  }

  changeOwner(uid: number): Promise<void> {
    return this.#step({ operation: 'fchown', path: this.#path }, 'fchown', () => {
      this.#beOpen()
      this.#inode.uid = uid
    })
  }

  sync(): Promise<void> {
    return this.#step(
      { operation: 'sync', path: this.#path },
      'fsync',
      () => {
        this.#beOpen()
        if (this.#inode.kind === 'file') this.#disk.syncContent(this.#inode)
        if (this.#inode.kind === 'directory') this.#disk.syncNames(this.#inode)
      },
      () => {
        if (this.#inode.kind === 'file') this.#disk.spoilContent(this.#inode)
      },
    )
  }

  async close(): Promise<void> {
    // As in Node, which closes when the last operation under way has ended.
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay)
    if (this.#isClosed) return
    const letGo = () => this.#letGo()
    await this.#takeStep({ operation: 'close', path: this.#path }, 'close', letGo, letGo)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #step<T>(
    request: Omit<Step, 'number'>,
    call: string,
    effect: (written?: number) => T,
    spoilt?: () => void,
  ): Promise<T> {
    const step = this.#takeStep(request, call, effect, spoilt)
    this.#underWay.add(step)
    try {
      return await step
    } finally {
      this.#underWay.delete(step)
    }
  }

  /** Also a close that fails has closed. */
  #letGo(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#inode.kind !== 'file') return
    this.#inode.openHandles--
    this.#disk.release(this.#inode)
  }

  #beOpen(): void {
    if (this.#isClosed) throw pathError('EBADF')
  }
}

/** Where a look-up ended; becomes an error of Node's form where the call is known. */
class PathError extends Error {
  readonly code: string

  constructor(code: string) {
    super(code)
    this.code = code
  }
}

/** They are made only once: a simulation meets many, and what costs is their stack trace, which nobody sees. */
function pathError(code: string): PathError {
  const known = pathErrors.get(code)
  if (known !== undefined) return known
  const error = new PathError(code)
  pathErrors.set(code, error)
  return error
}

const pathErrors = new Map<string, PathError>()

function withPath<T>(call: string, path: string, effect: () => T, to?: string): T {
  try {
    return effect()
  } catch (thrown) {
    if (thrown instanceof PathError) throw errno(thrown.code, call, path, to)
    throw thrown
  }
}

function withoutFailing(effect: () => void): void {
  try {
    effect()
  } catch (thrown) {
    if (!(thrown instanceof PathError)) throw thrown
  }
}

/** The error that Node throws for a failed system call. */
function errno(code: string, call: string, path: string, to?: string): NodeJS.ErrnoException {
  const [number, text] = knownErrors.get(code) ?? [undefined, 'unknown error']
  const paths = to === undefined ? `'${path}'` : `'${path}' -> '${to}'`
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0 // as in Node, where no frame of ours is on the stack either
  const error: NodeJS.ErrnoException = new Error(`${code}: ${text}, ${call} ${paths}`)
  Error.stackTraceLimit = limit
  Object.assign(error, { code, errno: number, syscall: call, path })
  return error
}

const knownErrors = new Map(
  [...getSystemErrorMap()].map(([number, [code, text]]) => [code, [number, text] as const]),
)

function contains(outer: DirectoryInode, inner: DirectoryInode): boolean {
  if (outer === inner) return true
  return [...outer.names.values()].some(inode => inode.kind === 'directory' && contains(inode, inner))
}

/** What a dead process is told. */
function never(): Promise<never> {
  return new Promise(() => {})
}

function isClean(inode: FileInode): boolean {
  return inode.dirty.size === 0 && !inode.sizeIsDirty
}

function markClean(inode: FileInode): void {
  inode.dirty.clear()
  inode.sizeIsDirty = false
}

/** The durable content, with those dirty pages that `isWritten` says, in a file of this size. */
function mixedPages(inode: FileInode, size: number, isWritten: (page: number) => boolean): Uint8Array {
  const mixed = new Uint8Array(size)
  mixed.set(inode.durable.subarray(0, size))
  for (const page of inode.dirty) {
    const start = page * pageBytes
    if (start >= size || !isWritten(page)) continue
    mixed.set(inode.content.subarray(start, Math.min(start + pageBytes, size)), start)
  }
  return mixed
}

function statusOf(inode: Inode): FileStatus {
  return {
    kind: inode.kind === 'symbolic link' ? 'other' : inode.kind,
    size: inode.kind === 'file' ? inode.content.length : pageBytes,
    mode: inode.mode,
    uid: inode.uid,
    gid: 0,
    device: 1n,
    inode: BigInt(inode.number),
    modifiedNs: BigInt(Math.round(inode.modified * 1e6)),
    changedNs: BigInt(Math.round(inode.modified * 1e6)),
  }
}
