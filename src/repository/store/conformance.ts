/**
 * What every store must do, as tests that any store can be put through:
 *
 * ```ts
 * for (const { name, prove } of storeConformance({ newStore: async () => new MyStore() })) test(name, prove)
 * ```
 *
 * Each fact is proved on a store of its own. `prove` needs no test runner: it rejects when the fact is not so.
 */
import assert from 'node:assert/strict'
import { RepositoryError } from '../repository-error.ts'
import { partBytesDefault } from './part-bytes.ts'
import type { NewObject, Store } from './store.ts'

export interface StoreConformanceOptions {
  /**
   * A store in an empty place of its own. Where the name of the place can be chosen and it is asked for an odd one, it
   * has spaces, `%`, `+`, quotes and letters outside of ASCII.
   */
  newStore(options: { isOddlyNamed: boolean }): Promise<Store>
  /** The same place for another writer; otherwise the same store is used. */
  anotherWriter?: (store: Store) => Promise<Store>
  /** Frees the place. */
  close?: (store: Store) => PromiseLike<void> | undefined
  /** The size in which larger objects are stored, so that it is tried around it. */
  partBytes?: number
  /** So many that they are more than a page, and that a page ends inside a directory. */
  manyNames?: number
  /** Are two who write at once told apart? Some stores cannot do so. */
  keepsWhatIsThere?: boolean
}

export interface StoreFact {
  name: string
  prove: () => Promise<void>
}

const megabyte = 1024 ** 2
const frontBytes = 4_096
const racers = 16
// Of 16 MB.
const segmentsPerLog = 256
const someKey = '7300000000000000001/wal/00000001/00000000/000000010000000000000001.pgarchivist'

export function storeConformance(options: StoreConformanceOptions): StoreFact[] {
  const all = options.keepsWhatIsThere === false ? trials : [...trials, ...trialsOfKeeping]
  return all.map(([name, prove]) => ({
    name,
    prove: async () => {
      const store = await options.newStore({ isOddlyNamed: false })
      try {
        await prove(store, options)
      } finally {
        await closeStore(store, options)
      }
    },
  }))
}

type Trial = (store: Store, options: StoreConformanceOptions) => Promise<void>

const trials: [name: string, prove: Trial][] = [
  [
    'a place that was never used is fit for use, empty, and has nothing',
    async store => {
      await store.inspect()
      assert.equal(await store.isEmpty(), true)
      assert.equal(await store.mayHave('1/'), false)
      assert.equal(await store.open(someKey), undefined)
      assert.deepEqual(await keysIn(store, ''), [])
      assert.deepEqual(await unfinishedIn(store), [])
    },
  ],
  [
    'an object is there when it is written, and then the place is not empty',
    async store => {
      assert.equal(await store.put(someKey, objectOf(contentOf(5_000))), 'written')
      await mustHold(store, someKey, contentOf(5_000))
      assert.equal(await store.isEmpty(), false)
      assert.equal(await store.mayHave('7300000000000000001/wal/'), true)
      assert.equal(await store.confirm(someKey), 'durable')
      assert.equal(await store.open(`${someKey}2`), undefined)
    },
  ],
  [
    'nothing is stored before it is allowed, nor where it is not',
    async store => {
      for (const [index, bytes] of [5_000, 20 * megabyte].entries()) {
        const key = `${someKey}-${index}`
        const allowed = Promise.withResolvers<void>()
        const storing = store.put(key, objectOf(contentOf(bytes)), { allowed: allowed.promise })
        // Long enough to get ready what is to be stored.
        for (let time = 0; time < 30; time++) assert.equal(await store.open(key), undefined)
        assert.deepEqual(await unfinishedIn(store), [])
        allowed.resolve()
        assert.equal(await storing, 'written')
        await mustHold(store, key, contentOf(bytes))

        const refusal = new RepositoryError('NO_MARKER', 'this is not the place')
        const refused = store.put(`${key}-b`, objectOf(contentOf(bytes)), {
          allowed: Promise.reject(refusal),
        })
        await assert.rejects(refused, thrown => thrown === refusal)
        assert.equal(await store.open(`${key}-b`), undefined)
        assert.deepEqual(await unfinishedIn(store), [])
      }
    },
  ],
  [
    'what was compared may be replaced by the same',
    async store => {
      const content = contentOf(70_000)
      await store.put(someKey, objectOf(content))
      assert.equal(await store.put(someKey, objectOf(content), { replace: true }), 'written')
      await mustHold(store, someKey, content)
    },
  ],
  [
    'an object of any size comes back as it was, in pieces of any size',
    async (store, { partBytes = partBytesDefault }) => {
      const sizes = [1, frontBytes, partBytes - 1, partBytes, partBytes + 1, 3 * partBytes, 40 * megabyte]
      for (const [index, bytes] of sizes.entries()) {
        const key = someKey.replace('000000010000000000000001', `00000001000000000000000${index + 2}`)
        const content = contentOf(bytes)
        assert.equal(await store.put(key, objectOf(content, Math.min(bytes, frontBytes))), 'written')
        await mustHold(store, key, content)
        await mustHold(store, key, content, 3 * megabyte + 1)
      }
    },
  ],
  [
    'whoever wants only the start of an object gets it, and may go on',
    async store => {
      const content = contentOf(20 * megabyte)
      await store.put(someKey, objectOf(content))
      await using object = await store.open(someKey, { bytesWanted: frontBytes })
      assert.equal(object?.length, content.length)
      const start = new Uint8Array(frontBytes)
      assert.equal(await object.read(start), frontBytes)
      assertSame(start, content.subarray(0, frontBytes))
      assertSame(await restOf(object), content.subarray(frontBytes))
    },
  ],
  [
    'an object whose front has to come last is whole, also where there is nothing else',
    async store => {
      const [alone, empty] = [someKey, someKey.replace('1.pg', '2.pg')]
      await store.put(alone, { frontBytes, write: async () => contentOf(frontBytes) })
      await mustHold(store, alone, contentOf(frontBytes))
      await store.put(empty, { frontBytes: 0, write: async () => new Uint8Array(0) })
      await mustHold(store, empty, new Uint8Array(0))
    },
  ],
  [
    'an object that fails while it is written is not there, and leaves nothing unfinished',
    async store => {
      for (const bytes of [0, 100_000, 20 * megabyte]) {
        const failure = new Error('the source has failed')
        const failing: NewObject = {
          frontBytes,
          write: async append => {
            await appendAll(contentOf(bytes), append)
            throw failure
          },
        }
        const thrown: unknown = await store.put(someKey, failing).catch((reason: unknown) => reason)
        assert.equal(thrown, failure)
        assert.equal(await store.open(someKey), undefined)
        assert.deepEqual(await keysIn(store, ''), [])
        assert.deepEqual(await unfinishedIn(store), [])
      }
      assert.equal(await store.put(someKey, objectOf(contentOf(5_000))), 'written')
    },
  ],
  [
    'a write that is aborted tells the truth, and the next one succeeds',
    async store => {
      for (const [index, bytes] of [5_000, 20 * megabyte].entries()) {
        const key = someKey.replace('1.pg', `${index + 2}.pg`)
        const abort = new AbortController()
        const aborted: NewObject = {
          frontBytes,
          write: async append => {
            await appendAll(contentOf(bytes).subarray(frontBytes), append)
            abort.abort(new Error('enough'))
            abort.signal.throwIfAborted()
            return contentOf(frontBytes)
          },
        }
        await assert.rejects(store.put(key, aborted, { signal: abort.signal }))
        assert.equal(await store.open(key), undefined)
        assert.equal(await store.put(key, objectOf(contentOf(bytes))), 'written')
        await mustHold(store, key, contentOf(bytes))
      }
    },
  ],
  [
    'a write that is under way is unfinished, and no object',
    async store => {
      const { promise: mayEnd, resolve: end } = Promise.withResolvers<void>()
      const { promise: isUnderWay, resolve: begin } = Promise.withResolvers<void>()
      const content = contentOf(30 * megabyte)
      const put = store.put(someKey, {
        frontBytes,
        write: async append => {
          await appendAll(content.subarray(frontBytes), append)
          begin()
          await mayEnd
          return content.subarray(0, frontBytes)
        },
      })
      await Promise.race([isUnderWay, put])
      const [unfinished, ...others] = await unfinishedIn(store)
      assert.deepEqual(others, [])
      assert.ok(unfinished?.includes('000000010000000000000001.pgarchivist'), unfinished)
      assert.deepEqual(await unfinishedIn(store, 0), [])
      assert.deepEqual(await keysIn(store, ''), [])
      assert.equal(await store.open(someKey), undefined)
      end()
      assert.equal(await put, 'written')
      assert.deepEqual(await unfinishedIn(store), [])
    },
  ],
  [
    'names come in their order, however many there are, and only those that were asked for',
    async (store, { manyNames = 1_300 }) => {
      // As WAL lies: the segments of a log file in a directory of their own.
      const keys = Array.from({ length: manyNames }, (_, index) => {
        const [log, segment] = [Math.floor(index / segmentsPerLog), index % segmentsPerLog]
        return `12/wal/00000001/${digits(log)}/00000001${digits(log)}${digits(segment)}.pgarchivist`
      })
      keys.push(
        '1/wal/00000001/00000000/000000010000000000000001.pgarchivist',
        '12/wal/00000002.history.pgarchivist',
        '12/wal/00000002/00000002.history.pgarchivist',
        '12-/wal/00000002/00000002.history.pgarchivist',
        '123/wal/00000001/00000000/000000010000000000000001.pgarchivist',
        'pgarchivist-repository.json',
      )
      const atOnce = 32
      for (let at = 0; at < keys.length; at += atOnce) {
        await Promise.all(
          keys.slice(at, at + atOnce).map(key => store.put(key, objectOf(contentOf(frontBytes)))),
        )
      }
      keys.sort()
      const timeline = '12/wal/00000001/'
      for (const prefix of ['', '1/', '12/', timeline, `${timeline}00000001/`, '123/', '2/']) {
        const expected = keys.filter(key => key.startsWith(prefix))
        assert.deepEqual(await keysIn(store, prefix), expected, `below "${prefix}"`)
        assert.equal(await store.mayHave(prefix), expected.length > 0, `below "${prefix}"`)
      }
      for await (const { key, length } of store.list('1/')) assert.equal(length, frontBytes, key)
    },
  ],
  [
    'what is not there cannot be confirmed, and that is an error',
    async store => {
      await assert.rejects(store.confirm(someKey), RepositoryError)
    },
  ],
  [
    'a place with an odd name is as good as any other',
    async (_, options) => {
      const store = await options.newStore({ isOddlyNamed: true })
      try {
        assert.equal(await store.isEmpty(), true)
        for (const bytes of [10_000, 9 * megabyte]) {
          const key = `${bytes}/${someKey}`
          assert.equal(await store.put(key, objectOf(contentOf(bytes))), 'written')
          assert.equal(await store.put(key, objectOf(contentOf(bytes))), 'exists')
          await mustHold(store, key, contentOf(bytes))
          assert.deepEqual(await keysIn(store, `${bytes}/`), [key])
        }
        assert.deepEqual(await unfinishedIn(store), [])
      } finally {
        await closeStore(store, options)
      }
    },
  ],
]

const trialsOfKeeping: [name: string, prove: Trial][] = [
  [
    'what is there is kept, whoever comes with the same or with other content',
    async (store, options) => {
      const first = contentOf(9_000)
      assert.equal(await store.put(someKey, objectOf(first)), 'written')
      const other = await anotherOf(store, options)
      for (const each of [first, contentOf(9_000, 2), contentOf(8_000, 3), contentOf(9 * megabyte, 4)]) {
        assert.equal(await store.put(someKey, objectOf(each)), 'exists')
        assert.equal(await other.put(someKey, objectOf(each)), 'exists')
        await mustHold(other, someKey, first)
      }
      const marker = contentOf(9_000)
      assert.equal(await store.keepsWhatIsThere(someKey, marker), true)
      await mustHold(store, someKey, first)
      assert.deepEqual(await unfinishedIn(store), [])
    },
  ],
  [
    'of many who write one object at the same time one wins, and all read what that one has written',
    async (store, options) => {
      const writers = await Promise.all(Array.from({ length: racers }, () => anotherOf(store, options)))
      const known = 'known'
      const bytesOfKnown = contentOf(1_000)
      await store.put(known, objectOf(bytesOfKnown))
      for (const each of writers) assert.equal(await each.keepsWhatIsThere(known, bytesOfKnown), true)
      for (const [round, bytes] of [20_000, 9 * megabyte].entries()) {
        const key = someKey.replace(/1\.pgarchivist$/, `${round + 2}.pgarchivist`)
        const contents = writers.map((_, index) => contentOf(bytes, index))
        const outcomes = await Promise.all(
          writers.map((writer, index) => writer.put(key, objectOf(contents[index] ?? contentOf(0)))),
        )
        const winners = outcomes.flatMap((outcome, index) => (outcome === 'written' ? [index] : []))
        assert.equal(winners.length, 1, `${winners.length} of ${racers} were told that they have written it`)
        await mustHold(store, key, contents[winners[0] ?? -1] ?? contentOf(0))
      }
    },
  ],
]

async function closeStore(store: Store, options: StoreConformanceOptions): Promise<void> {
  await store[Symbol.asyncDispose]()
  await options.close?.(store)
}

async function anotherOf(store: Store, { anotherWriter }: StoreConformanceOptions): Promise<Store> {
  return (await anotherWriter?.(store)) ?? store
}

/** Bytes in which each place differs from the others near it, and from the same place of another variant. */
function contentOf(bytes: number, variant = 0): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4))
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + 1, 2_654_435_761) + variant
  return new Uint8Array(words.buffer, 0, bytes)
}

function objectOf(content: Uint8Array, front = Math.min(content.length, frontBytes)): NewObject {
  return {
    frontBytes: front,
    write: async append => {
      await appendAll(content.subarray(front), append)
      return content.subarray(0, front)
    },
  }
}

/** In pieces that fit nothing. */
async function appendAll(content: Uint8Array, append: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  const step = megabyte - 7
  for (let at = 0; at < content.length; at += step) await append(content.slice(at, at + step))
}

async function mustHold(store: Store, key: string, content: Uint8Array, piece = 64 * 1024): Promise<void> {
  await using object = await store.open(key)
  assert.ok(object !== undefined, `"${key}" is not there`)
  assert.equal(object.length, content.length, `"${key}" has another length`)
  assertSame(await restOf(object, piece), content)
}

async function restOf(object: { read(buffer: Uint8Array): Promise<number> }, piece = megabyte) {
  const pieces: Uint8Array[] = []
  for (;;) {
    const buffer = new Uint8Array(piece)
    const bytesRead = await object.read(buffer)
    pieces.push(buffer.subarray(0, bytesRead))
    if (bytesRead < piece) return Buffer.concat(pieces)
  }
}

/** As in the name of a WAL file. */
function digits(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0')
}

async function keysIn(store: Store, prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.list(prefix)) keys.push(key)
  return keys
}

const farFutureMs = Date.UTC(2100, 0, 1)

async function unfinishedIn(store: Store, changedBeforeMs = farFutureMs): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.unfinishedWrites(changedBeforeMs)) keys.push(key)
  return keys
}

/** Not with deepEqual, which would print megabytes. */
function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(actual.length, expected.length, `${actual.length} bytes came instead of ${expected.length}`)
  assert.ok(Buffer.compare(actual, expected) === 0, 'the bytes are not those that were stored')
}
