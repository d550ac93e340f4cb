import { parseMarker } from '../../src/repository/marker.ts'
import { markerKey, parseWalObjectKey, walObjectKey } from '../../src/repository/object-key.ts'
import { isUnfinishedWrite } from '../../src/repository/store/unfinished-write.ts'
import type { SimulatedDisk } from '../../src/system/simulated-files.ts'
import { anySystemIdentifier } from '../support/wal-segment.ts'
import { BrokenPromise } from './judge.ts'
import { contentOfObject } from './repository-codec.ts'

/** Where the disk of the repository is mounted, and where it is to be found while it is not. */
export const mountPoint = '/mnt/repository'
export const unmounted = '/mnt/.unmounted'

/**
 * Watches one run from outside and holds a repository to its promises:
 *
 * - An object's name stands for all of a file's bytes from the moment that it can be seen, and for ever.
 * - What was acknowledged has the content of the server that it was acknowledged to.
 * - A repository has one marker, which stays as it is.
 * - Nothing gets its name where the disk is not mounted.
 */
export class RepositoryJudge {
  /** Rejects with the first broken promise. */
  readonly broken: Promise<never>
  /** What each name was first seen to hold. */
  readonly stored = new Map<string, Uint8Array>()
  /** Contents that servers have under a name. */
  readonly truth = new Map<string, Uint8Array[]>()
  /** What may be lost to a power cut without a broken promise, because nobody was told that it is there. */
  readonly acknowledged = new Map<string, Uint8Array>()
  readonly #disk: SimulatedDisk
  readonly #looked = new Map<string, Uint8Array>()
  #markerId: string | undefined
  #isMounted = true
  #break: (broken: BrokenPromise) => void = () => {}

  constructor(disk: SimulatedDisk) {
    this.#disk = disk
    this.broken = new Promise((_resolve, reject) => {
      this.#break = reject
    })
    this.broken.catch(() => {}) // whoever waits for it is told; until then it is not unhandled
  }

  fail(message: string): void {
    this.#break(new BrokenPromise(message))
  }

  get root(): string {
    return this.#isMounted ? mountPoint : unmounted
  }

  set isMounted(isMounted: boolean) {
    this.#isMounted = isMounted
  }

  get isMounted(): boolean {
    return this.#isMounted
  }

  acknowledge(name: string, content: Uint8Array): void {
    this.look()
    const before = this.acknowledged.get(name)
    if (before !== undefined && !equal(before, content))
      this.fail(`"${name}" was acknowledged twice, with different content`)
    this.acknowledged.set(name, content)
    // There may be two of them while another server writes it once more; either will do.
    const objects = this.#disk.survivors(`${this.root}/${walObjectKey(anySystemIdentifier, name)}`)
    if (objects === undefined) this.fail(`"${name}" was acknowledged, but a power cut could take it`)
    else if (!objects.every(object => equal(contentOfObject(object, name), content)))
      this.fail(`"${name}" was acknowledged, but something else is stored`)
  }

  /** Looks at all that can be seen. */
  look(): void {
    const seen = new Set<string>()
    for (const key of this.keys()) {
      const path = `${this.root}/${key}`
      const bytes = this.#disk.content(path)
      if (bytes === undefined || isUnfinished(key)) continue
      seen.add(key)
      if (this.#looked.get(key) === bytes) continue
      this.#looked.set(key, bytes)
      if (key === markerKey) this.#lookAtMarker(bytes)
      else this.#lookAtObject(key, bytes)
    }
    for (const name of this.stored.keys()) {
      if (!seen.has(walObjectKey(anySystemIdentifier, name))) this.fail(`"${name}" was removed`)
    }
    if (this.#markerId !== undefined && !seen.has(markerKey)) this.fail('the marker was removed')
    if (this.#isMounted) return
    for (const key of this.keys('', mountPoint)) {
      if (!isUnfinished(key)) this.fail(`"${key}" was stored where the disk was not mounted`)
    }
  }

  /** A power cut may take what nobody was told of. */
  lookAfterCut(): void {
    this.#looked.clear()
    this.stored.clear()
    if (this.acknowledged.size === 0) this.#markerId = undefined
    this.look()
    for (const name of this.acknowledged.keys()) {
      if (!this.stored.has(name)) this.fail(`"${name}" was acknowledged, and lost with the power`)
    }
  }

  /** Everything below the root but directories. */
  keys(directory = '', root = this.root): string[] {
    return this.#disk.names(directory === '' ? root : `${root}/${directory}`).flatMap(name => {
      const key = directory === '' ? name : `${directory}/${name}`
      return this.#disk.content(`${root}/${key}`) === undefined ? this.keys(key, root) : [key]
    })
  }

  get unfinished(): string[] {
    return this.keys().filter(key => isUnfinished(key))
  }

  #lookAtMarker(bytes: Uint8Array): void {
    const marker = parseMarker(Buffer.from(bytes).toString())
    if (marker === undefined) this.fail('the marker can be seen, and is not whole')
    else if (this.#markerId !== undefined && marker.id !== this.#markerId)
      this.fail('the marker was replaced')
    this.#markerId = marker?.id
  }

  #lookAtObject(key: string, bytes: Uint8Array): void {
    const { name } = parseWalObjectKey(key) ?? { name: '' }
    const content = contentOfObject(bytes, name)
    if (content === undefined) return this.fail(`"${key}" can be seen, and is not whole`)
    const before = this.stored.get(name)
    if (before !== undefined && !equal(before, content)) this.fail(`"${name}" was replaced by other content`)
    if (!this.truth.get(name)?.some(each => equal(each, content)))
      this.fail(`"${name}" holds what no server had`)
    this.stored.set(name, content)
  }
}

const isUnfinished = (key: string) => isUnfinishedWrite(key.slice(key.lastIndexOf('/') + 1))

export function equal(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0
}
