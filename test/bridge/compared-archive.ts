import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { BridgedServer } from './bridged-server.ts'

export const segmentBytes = 1024 * 1024

/**
 * The archive of a server, each of whose files is compared with its source while that is there. What has been compared
 * is removed, so that an archive of any length fits; its digest stays, for a file that is archived again.
 */
export class ComparedArchive {
  readonly #bridged: BridgedServer
  readonly #digests = new Map<string, string>()
  #lastInOrder = { name: '', doneNs: 0n }

  constructor(bridged: BridgedServer) {
    this.#bridged = bridged
  }

  /** How many files have been compared. */
  get files(): number {
    return this.#digests.size
  }

  get #wal(): string {
    return join(this.#bridged.postgres.dataDirectory, 'pg_wal')
  }

  async waiting(): Promise<number> {
    return (await this.#statusFiles('.ready')).length
  }

  /** All that the server takes for archived has to be there, byte for byte. */
  async compare(): Promise<void> {
    const done = await this.#statusFiles('.done')
    const archived = new Set(await readdir(this.#bridged.places.archive))
    for (const name of done) {
      const digest = this.#digests.get(name)
      if (digest !== undefined && !archived.has(name)) continue
      const copy = await readFile(this.#copyOf(name))
      if (digest === undefined) {
        // A segment that has been recycled has gone; it is then missed by isComplete().
        const source = await readFile(join(this.#wal, name)).catch(() => undefined)
        if (source === undefined) continue
        assert.equal(source.length, segmentBytes)
        assert(copy.equals(source), `"${name}" differs from its source`)
        this.#digests.set(name, digestOf(copy))
      } else assert.equal(digestOf(copy), digest, `"${name}" was archived again with other content`)
      await rm(this.#copyOf(name))
    }
  }

  /** No file was taken for archived before an earlier one, since the last time it was asked. */
  async isInOrder(): Promise<void> {
    for (const name of (await this.#statusFiles('.done')).toSorted()) {
      if (name <= this.#lastInOrder.name) continue
      const status = join(this.#wal, 'archive_status', `${name}.done`)
      // When it got that name. A checkpoint may have removed it.
      const time = await stat(status, { bigint: true }).catch(() => undefined)
      if (time === undefined) continue
      const { name: before, doneNs } = this.#lastInOrder
      assert(time.ctimeNs >= doneNs, `"${before}" was done after "${name}"`)
      this.#lastInOrder = { name, doneNs: time.ctimeNs }
    }
  }

  /** No segment is missing between the first and the last one, and all were compared. Returns how many there are. */
  async isComplete(): Promise<number> {
    await this.compare()
    assert.deepEqual(await readdir(this.#bridged.places.archive), [], 'not compared, or not complete')
    const numbers = [...this.#digests.keys()].map(segmentNumber).toSorted((a, b) => a - b)
    const [first = 0] = numbers
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => first + index),
    )
    return numbers.length
  }

  #copyOf(name: string): string {
    return join(this.#bridged.places.archive, name)
  }

  async #statusFiles(suffix: '.ready' | '.done'): Promise<string[]> {
    const names = await readdir(join(this.#wal, 'archive_status'))
    return names.filter(name => name.endsWith(suffix)).map(name => name.slice(0, -suffix.length))
  }
}

function digestOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

/** Its place in the order of segments, where each has 1 MB. */
function segmentNumber(name: string): number {
  const segmentsPerFile = 0x100000000 / segmentBytes
  return Number.parseInt(name.slice(8, 16), 16) * segmentsPerFile + Number.parseInt(name.slice(16), 16)
}
