// How a store across a network is used: what is asked, how often, and what is made of the answers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { KnownRepositories } from '../src/repository/known-repositories.ts'
import { encodeMarker } from '../src/repository/marker.ts'
import { markerKey, walObjectKey } from '../src/repository/object-key.ts'
import { Repository } from '../src/repository/repository.ts'
import type { RepositoryWarning } from '../src/repository/repository-identity.ts'
import { MemoryBudget } from '../src/repository/store/memory-budget.ts'
import { MemoryDriver, type MemoryDriverOptions } from '../src/repository/store/memory-driver.ts'
import { partBytesDefault } from '../src/repository/store/part-bytes.ts'
import { RemoteStore, remoteStore } from '../src/repository/store/remote-store.ts'
import { type RequestKind, type Requests, type Send, sendTo } from '../src/repository/store/requests.ts'
import type { NewObject } from '../src/repository/store/store.ts'
import { RequestCounts } from '../src/repository/store/with-counts.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { synchronousCodec } from './simulation/repository-codec.ts'
import { noise } from './support/coded-bytes.ts'
import { anyId, archiveOptions, failure } from './support/repository-stage.ts'
import { sourceOf } from './support/source-of.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const megabyte = 1024 ** 2
const names = Array.from({ length: 40 }, (_, index) => (index + 1).toString(16).toUpperCase())
const nameOf = (index: number) => `0000000100000000000000${(names[index] ?? '').padStart(2, '0')}`
const keyOf = (name: string) => walObjectKey(anySystemIdentifier, name)
const unproven: Partial<MemoryDriverOptions> = {
  features: { putKeeps: 'unproven', endUploadKeeps: 'unproven' },
}
const replacing: Partial<MemoryDriverOptions> = { ...unproven, replaces: { put: true, endUpload: true } }

type Asked = { [K in RequestKind]: [kind: K, request: Requests[K]] }[RequestKind]

class Stage {
  readonly clock = new SimulatedClock()
  readonly driver: MemoryDriver
  readonly budget = new MemoryBudget()
  /** What was asked, in order. */
  asked: Asked[] = []
  /** Comes before a request is done, and may throw or change the store. */
  before: (asked: Asked) => Promise<void> | void = () => {}

  constructor(options: Partial<MemoryDriverOptions> = {}) {
    this.driver = new MemoryDriver({ clock: this.clock, ...options })
  }

  get kinds(): string[] {
    return this.asked.map(([kind]) => kind)
  }

  store(): RemoteStore {
    const send: Send = async (kind, request, signal) => {
      const asked = [kind, request] as unknown as Asked
      this.asked.push(asked)
      await this.before(asked)
      signal?.throwIfAborted()
      return await sendTo(this.driver)(kind, request, signal)
    }
    const { url, features } = this.driver
    return new RemoteStore({ url, features, send, clock: this.clock, budget: this.budget })
  }

  repository(
    more: { unguarded?: (warning: RepositoryWarning) => void; known?: KnownRepositories } = {},
  ): Repository {
    return new Repository({
      store: this.store(),
      clock: this.clock,
      newId: () => anyId,
      writer: 'pgarchivist test',
      codec: synchronousCodec,
      ...more,
    })
  }
}

/** What is remembered in a data directory. */
function memory(): KnownRepositories {
  const ids = new Map<string, string>()
  return {
    pathOf: () => 'memory',
    idOf: async url => ids.get(url),
    remember: async (url, id) => void ids.set(url, id),
  }
}

function objectOf(content: Uint8Array, frontBytes = Math.min(4_096, content.length)): NewObject {
  return {
    frontBytes,
    write: async append => {
      for (let at = frontBytes; at < content.length; at += megabyte)
        await append(content.slice(at, Math.min(content.length, at + megabyte)))
      return content.subarray(0, frontBytes)
    },
  }
}

const segmentSource = (name: string) => sourceOf(name, walSegment({ name }))

async function fetched(repository: Repository, name: string): Promise<Buffer | undefined> {
  const pieces: Uint8Array[] = []
  const request = { systemIdentifier: anySystemIdentifier, name, identities: async () => [] }
  const isThere = await repository.fetch(request, async bytes => void pieces.push(bytes))
  return isThere ? Buffer.concat(pieces) : undefined
}

// What a file costs

test('a file is archived with one request, after those that come with the first of a process', async () => {
  for (const options of [{}, unproven]) {
    const stage = new Stage(options)
    const repository = stage.repository()
    await repository.archive(segmentSource(nameOf(0)), archiveOptions)
    stage.asked = []
    for (let file = 1; file < 10; file++)
      await repository.archive(segmentSource(nameOf(file)), archiveOptions)
    // Once a day one looks for uploads that were lost.
    assert.deepEqual(
      stage.kinds.filter(kind => kind !== 'listUploads'),
      Array.from({ length: 9 }, () => 'put'),
    )
    stage.asked = []
    await stage.clock.pass(10_000)
    await Promise.all(
      [10, 11, 12].map(file => repository.archive(segmentSource(nameOf(file)), archiveOptions)),
    )
    assert.deepEqual(stage.kinds.toSorted(), ['get', 'put', 'put', 'put'], 'they share a look at the marker')
  }
})

test('the first file of a process costs a look at the marker more, and its trial where that is needed', async () => {
  const stage = new Stage(unproven)
  const known = memory()
  await stage.repository({ known }).archive(segmentSource(nameOf(0)), archiveOptions)
  stage.asked = []
  await stage.repository({ known }).archive(segmentSource(nameOf(1)), archiveOptions)
  assert.deepEqual(
    stage.asked.map(([kind, request]) => `${kind} ${(request as { key: string }).key}`),
    // The two in the middle at once.
    [`get ${markerKey}`, `put ${markerKey}`, `confirm ${markerKey}`, `put ${keyOf(nameOf(1))}`],
  )
})

test('a repository is begun with few requests, some at once, while the first files are got ready', async () => {
  const stage = new Stage(unproven)
  const repository = stage.repository({ known: memory() })
  await repository.inspect(anySystemIdentifier)
  const opened: number[] = []
  const source = (name: string) => {
    const { open, ...rest } = segmentSource(name)
    return { ...rest, open: () => (opened.push(stage.asked.length), open()) }
  }
  await Promise.all([0, 1, 2].map(file => repository.archive(source(nameOf(file)), archiveOptions)))
  const kinds = stage.kinds.filter(kind => kind !== 'listUploads')
  assert.deepEqual(
    kinds.slice(0, 9),
    // The start; is there one now? is there nothing? the marker, between two looks; the look that counts; the trial.
    ['inspect', 'get', 'get', 'inspect', 'list', 'get', 'put', 'get', 'get'],
  )
  assert.deepEqual(kinds.slice(9), ['put', 'put', 'put', 'put'], 'the trial, and three files')
  assert.ok(opened.length === 3 && opened.every(asked => asked < 6), `opened after ${opened.join()} requests`)
})

test('where nothing may be stored, nothing is removed either', async () => {
  const stage = new Stage()
  const { beginUpload } = stage.driver.handlers
  await beginUpload({ key: keyOf(nameOf(0)) })
  await stage.clock.pass(25 * 3_600_000)
  const store = stage.store()
  const refusal = new Error('this is not the place')
  for (let file = 0; file < 4; file++) {
    const putting = store.put(keyOf(nameOf(file)), objectOf(noise(5_000)), {
      allowed: Promise.reject(refusal),
    })
    await assert.rejects(putting, thrown => thrown === refusal)
  }
  assert.deepEqual(stage.asked, [])
})

test('whoever gives up does not wait for leave to store, nor hold memory', async () => {
  const stage = new Stage()
  const controller = new AbortController()
  const reason = new Error('too late')
  const never = new Promise<void>(() => {})
  const putting = [5_000, 20 * megabyte].map((bytes, file) =>
    stage.store().put(keyOf(nameOf(file)), objectOf(noise(bytes)), {
      allowed: never,
      signal: controller.signal,
    }),
  )
  for (let turn = 0; turn < 100; turn++) await nextTurn()
  controller.abort(reason)
  for (const each of putting) await assert.rejects(each, thrown => thrown === reason)
  assert.equal(stage.budget.usedBytes, 0)
  assert.deepEqual(stage.asked, [])
})

test('that it is the wrong place is told before what is wrong with a file', async () => {
  const stage = new Stage()
  const known = { ...memory(), idOf: async () => '99999999-0000-4000-8000-000000000000' }
  await stage.repository().archive(segmentSource(nameOf(0)), archiveOptions)
  const foreign = sourceOf(
    nameOf(1),
    walSegment({ name: nameOf(1), systemIdentifier: '7000000000000000001' }),
  )
  await assert.rejects(stage.repository({ known }).archive(foreign, archiveOptions), {
    code: 'OTHER_REPOSITORY',
  })
  await assert.rejects(stage.repository().archive(foreign, archiveOptions), { code: 'FOREIGN_WAL' })
})

test('a marker that the network has altered is not remembered, and not put into its place', async () => {
  // It would have been missed for ever, and a store that replaces objects would have got it.
  const stage = new Stage(replacing)
  await stage.repository().archive(segmentSource(nameOf(0)), archiveOptions)
  const marker = stage.driver.objects.get(markerKey)
  assert.ok(marker)
  let isAltered = true
  stage.before = ([kind, request]) => {
    if (kind !== 'get' || request.key !== markerKey) return
    const altered = Buffer.from(Buffer.from(marker).toString().replace(anyId, anyId.replace('0', '1')))
    stage.driver.objects.set(markerKey, isAltered ? altered : marker)
    isAltered = false
  }
  const known = memory()
  const repository = stage.repository({ known })
  assert.match(
    await failure(repository.archive(segmentSource(nameOf(1)), archiveOptions)),
    /^UNREACHABLE: .* was read twice, and was not the same/,
  )
  assert.equal(await known.idOf(repository.url), undefined)
  assert.equal(await repository.archive(segmentSource(nameOf(1)), archiveOptions), 'archived')
  assert.equal(await known.idOf(repository.url), anyId)
  assert.deepEqual(stage.driver.objects.get(markerKey), marker)
})

test('a file is fetched with two requests at the same time, and a missing one is missed with one more', async () => {
  const stage = new Stage()
  await stage.repository().archive(segmentSource(nameOf(0)), archiveOptions)
  stage.asked = []
  let atOnce = 0
  stage.before = async () => {
    atOnce++
    await stage.clock.sleep(30)
  }
  const reader = stage.repository()
  const beganMs = stage.clock.monotonic()
  assert.deepEqual(
    await stage.clock.run(fetched(reader, nameOf(0))),
    Buffer.from(walSegment({ name: nameOf(0) })),
  )
  assert.deepEqual([stage.kinds, stage.clock.monotonic() - beganMs, atOnce], [['get', 'get'], 30, 2])
  stage.asked = []
  assert.equal(await stage.clock.run(fetched(stage.repository(), nameOf(1))), undefined)
  assert.deepEqual(stage.kinds, ['get', 'get', 'list'])
})

test('nothing is said to be missing where the marker is missing too, or cannot be read', async () => {
  const stage = new Stage()
  const writer = stage.repository()
  await writer.archive(segmentSource(nameOf(0)), archiveOptions)
  stage.driver.objects.delete(markerKey)
  assert.match(await failure(fetched(stage.repository(), nameOf(1))), /^NO_MARKER: there is no repository at/)
  // Also by a process that has seen it, after ten seconds or after any failure.
  await stage.clock.pass(10_000)
  assert.match(await failure(fetched(writer, nameOf(1))), /^NO_MARKER: /)
  await assert.rejects(writer.archive(segmentSource(nameOf(2)), archiveOptions), /is gone/)
  assert.equal(stage.driver.objects.has(keyOf(nameOf(2))), false)
})

test('a repository that another server has begun while this one was about to is used, and not said to be gone', async () => {
  // It was said where another file of the same server had seen the marker meanwhile.
  const stage = new Stage()
  const { promise: hasCome, resolve: come } = Promise.withResolvers<void>()
  const { promise: mayGo, resolve: go } = Promise.withResolvers<void>()
  stage.before = async ([kind]) => {
    if (kind !== 'inspect') return
    come()
    await mayGo
  }
  const repository = stage.repository()
  const beginning = repository.archive(segmentSource(nameOf(0)), archiveOptions)
  await hasCome
  stage.before = () => {}
  await stage.repository().archive(segmentSource(nameOf(1)), archiveOptions)
  await repository.archive(segmentSource(nameOf(2)), archiveOptions)
  go()
  assert.equal(await beginning, 'archived')
})

test('a failure makes the next file look at the marker again', async () => {
  const stage = new Stage()
  const repository = stage.repository()
  await repository.archive(segmentSource(nameOf(0)), archiveOptions)
  stage.asked = []
  stage.before = ([kind]) => {
    if (kind === 'put') throw new Error('the network is away')
  }
  await assert.rejects(repository.archive(segmentSource(nameOf(1)), archiveOptions), /the network is away/)
  stage.before = () => {}
  await repository.archive(segmentSource(nameOf(1)), archiveOptions)
  assert.deepEqual(
    stage.kinds.filter(kind => kind !== 'listUploads'),
    ['put', 'get', 'put'],
  )
})

// Objects in parts

test('the parts of a large object are sent while it is written, the first one last', async () => {
  const stage = new Stage()
  const content = noise(20 * megabyte)
  const store = stage.store()
  const seen: string[][] = []
  const object = objectOf(content)
  await store.put('a', {
    ...object,
    write: async append =>
      await object.write(async bytes => {
        await append(bytes)
        seen.push(stage.kinds)
      }),
  })
  assert.deepEqual(seen[6], [])
  assert.deepEqual(seen[17], ['beginUpload', 'putPart'])
  const parts = stage.asked.flatMap(([kind, request]) =>
    kind === 'putPart' ? [[request.part, request.start]] : [],
  )
  assert.deepEqual(parts, [
    [2, partBytesDefault],
    [3, 2 * partBytesDefault],
    [1, 0],
  ])
  assert.equal(stage.kinds.at(-1), 'endUpload')
  assert.ok(Buffer.compare(stage.driver.objects.get('a') ?? content.subarray(1), content) === 0)
})

test('a segment that could not be compressed takes four requests', async () => {
  const stage = new Stage()
  await stage.store().put('a', objectOf(noise(16 * megabyte + 40_000)))
  assert.deepEqual(stage.kinds, ['beginUpload', 'putPart', 'putPart', 'endUpload'])
})

test('whatever fails of a large object, it is abandoned, and all memory is given back', async () => {
  const content = noise(30 * megabyte)
  for (const fails of ['beginUpload', 'putPart', 'endUpload'] as const) {
    for (const nth of [1, 2, 3]) {
      const stage = new Stage()
      let times = 0
      stage.before = ([kind]) => {
        if (kind === fails && ++times === nth) throw new Error(`${kind} has failed`)
      }
      const outcome = await stage
        .store()
        .put('a', objectOf(content))
        .catch((thrown: unknown) => (thrown as Error).message)
      assert.equal(outcome, times >= nth ? `${fails} has failed` : 'written')
      assert.equal(stage.driver.objects.has('a'), outcome === 'written')
      assert.equal(stage.driver.uploads.size, 0)
      assert.equal(stage.budget.usedBytes, 0)
    }
  }
})

test('of all that is written at once no more is held than the budget and what one object needs', async () => {
  const stage = new Stage()
  const budgetBytes = 20 * megabyte
  const budget = new MemoryBudget(budgetBytes)
  const { url, features } = stage.driver
  const send: Send = async (kind, request, signal) => {
    await stage.clock.sleep(100)
    usedMax = Math.max(usedMax, budget.usedBytes)
    return await sendTo(stage.driver)(kind, request, signal)
  }
  let usedMax = 0
  const store = new RemoteStore({ url, features, send, clock: stage.clock, budget })
  const content = noise(24 * megabyte)
  const keys = Array.from({ length: 6 }, (_, index) => `${index}`)
  const writeAll = Promise.all(keys.map(key => store.put(key, objectOf(content))))
  assert.deepEqual(
    await stage.clock.run(writeAll),
    keys.map(() => 'written'),
  )
  // The first part, the one that is filled, and two on their way.
  assert.ok(usedMax > budgetBytes / 2 && usedMax <= budgetBytes + 33 * megabyte, `${usedMax}`)
  usedMax = 0
  const readAll = Promise.all(
    keys.map(async key => {
      await using object = await store.open(key)
      const whole = new Uint8Array(content.length + 1)
      assert.equal(await object?.read(whole), content.length)
      assert.ok(Buffer.compare(whole.subarray(0, content.length), content) === 0)
    }),
  )
  await stage.clock.run(readAll)
  assert.ok(usedMax > 0 && usedMax <= budgetBytes + 40 * megabyte, `${usedMax}`)
  assert.equal(budget.usedBytes, 0)
})

test('many large files that cannot be compressed are archived and fetched at once, also through the real codec', async () => {
  const stage = new Stage()
  await using repository = new Repository({
    store: stage.store(),
    clock: stage.clock,
    newId: () => anyId,
    writer: 'pgarchivist test',
  })
  const content = noise(16 * megabyte)
  const files = Array.from(
    { length: 6 },
    (_, index) => `${(index + 2).toString(16).padStart(8, '0').toUpperCase()}.history`,
  )
  await Promise.all(
    files.map(name => repository.archive(sourceOf(name, Buffer.from(content)), archiveOptions)),
  )
  for (const name of files)
    assert.ok(Buffer.compare((await fetched(repository, name)) ?? content.subarray(1), content) === 0)
  assert.equal(stage.budget.usedBytes, 0)
})

test('who gives up does not wait for a look at the marker that gets no answer, after the file was stored or before it is read', async () => {
  const stage = new Stage()
  const repository = stage.repository()
  await repository.archive(segmentSource(nameOf(0)), archiveOptions)
  const silence = Promise.withResolvers<void>()
  let isSilent = false
  let looks = Promise.withResolvers<void>()
  stage.before = async ([kind, request]) => {
    // From then on the look before is too old.
    if (kind === 'put') await stage.clock.pass(10_000)
    isSilent ||= kind === 'put'
    if (kind !== 'get' || request.key !== markerKey || !isSilent) return
    looks.resolve()
    await silence.promise
  }
  const request = { systemIdentifier: anySystemIdentifier, name: nameOf(0), identities: async () => [] }
  for (const begin of [
    (signal: AbortSignal) => repository.archive(segmentSource(nameOf(1)), { ...archiveOptions, signal }),
    (signal: AbortSignal) => repository.fetch({ ...request, signal }, async () => {}),
  ]) {
    looks = Promise.withResolvers()
    const controller = new AbortController()
    const given = begin(controller.signal)
    await looks.promise
    controller.abort(new Error('given up'))
    await assert.rejects(given, /given up/)
    await stage.clock.pass(10_000)
  }
  silence.resolve()
})

test('uploads that have lost their writer are abandoned a day later, but only those of ours', async () => {
  const stage = new Stage()
  const begin = (key: string) => sendTo(stage.driver)('beginUpload', { key })
  await begin(keyOf(nameOf(0)))
  await begin('somebody-elses/thing')
  await stage.clock.pass(25 * 3_600_000)
  await begin(keyOf(nameOf(1)))
  await using store = stage.store()
  await store.put('a', objectOf(noise(10)))
  assert.equal(stage.driver.uploads.size, 3, 'one file is not worth it')
  await store.put('b', objectOf(noise(10)))
  await stage.clock.pass(1)
  assert.deepEqual(
    [...stage.driver.uploads.values()].map(({ key }) => key),
    ['somebody-elses/thing', keyOf(nameOf(1))],
  )
})

// Stores that do not keep what is there

test('a store that replaces what is there is found out, and the operator is told once', async () => {
  for (const replaces of [{ put: true }, { endUpload: true }, {}]) {
    const stage = new Stage({ ...unproven, replaces })
    const told: RepositoryWarning[] = []
    const repository = stage.repository({ unguarded: warning => told.push(warning) })
    const large = { ...sourceOf('00000002.history', noise(9 * megabyte)) }
    await repository.archive(segmentSource(nameOf(0)), archiveOptions)
    assert.equal(told.length, replaces.put ? 1 : 0)
    await repository.archive(large, archiveOptions)
    await repository.archive(segmentSource(nameOf(1)), archiveOptions)
    assert.equal(told.length, replaces.put ? 1 : 0)
    for (const { message } of told) {
      assert.equal(
        message,
        'repository "memory:" cannot keep two servers from archiving different files under one name',
      )
    }
    assert.equal(stage.driver.uploads.size, 0)
    assert.equal(stage.driver.objects.size, 4)
  }
})

test('where only parts replace what is there, a large object goes in one request, and of many writers one wins', async () => {
  const stage = new Stage({ ...unproven, replaces: { endUpload: true } })
  const marker = noise(300)
  await stage.store().put('marker', objectOf(marker))
  const writers = [stage.store(), stage.store(), stage.store()]
  for (const each of writers) assert.equal(await each.keepsWhatIsThere('marker', marker), true)
  const contents = writers.map((_, index) => noise(20 * megabyte, index))
  const outcomes = await Promise.all(
    writers.map((each, index) => each.put('a', objectOf(contents[index] ?? marker))),
  )
  assert.equal(outcomes.filter(outcome => outcome === 'written').length, 1)
  const winner = contents[outcomes.indexOf('written')] ?? marker
  assert.ok(Buffer.compare(stage.driver.objects.get('a') ?? marker, winner) === 0)
  assert.equal(stage.asked.filter(([kind, request]) => kind === 'putPart' && request.key === 'a').length, 0)
  assert.ok(Buffer.compare(stage.driver.objects.get('marker') ?? winner, marker) === 0)
  assert.equal(stage.driver.uploads.size, 0)
})

test('there, one that is too large to be held goes in parts with a look before and after, and the operator is told', async () => {
  const stage = new Stage({ ...unproven, replaces: { endUpload: true } })
  let told = 0
  const store = stage.store()
  const marker = noise(300)
  await store.put('marker', objectOf(marker))
  await store.keepsWhatIsThere('marker', marker, () => told++)
  const large = noise(80 * megabyte)
  assert.equal(await store.put('a', objectOf(large)), 'written')
  assert.equal(told, 1)
  assert.ok(Buffer.compare(stage.driver.objects.get('a') ?? marker, large) === 0)
  const parts = stage.asked.flatMap(([kind, request]) =>
    kind === 'putPart' && request.key === 'a' ? [[request.part, request.start]] : [],
  )
  const first = 64 * megabyte + 64 * 1024
  assert.deepEqual(parts, [
    [2, first],
    [3, first + partBytesDefault],
    [1, 0],
  ])
  assert.equal(await store.put('a', objectOf(noise(80 * megabyte, 2))), 'exists')
  assert.ok(Buffer.compare(stage.driver.objects.get('a') ?? marker, large) === 0)
})

test('a trial of parts whose answer is lost proves nothing', async () => {
  const stage = new Stage({ ...unproven, replaces: { endUpload: true } })
  const marker = noise(300)
  const [one, other] = [stage.store(), stage.store()]
  await one.put('marker', objectOf(marker))
  for (const each of [one, other]) await each.keepsWhatIsThere('marker', marker)
  let ends = 0
  stage.before = async ([kind, request]) => {
    // It is done, and nobody is told; asked once more, the store knows nothing of the upload.
    if (kind === 'endUpload' && ends++ === 0) await stage.driver.handlers.endUpload(request)
  }
  const contents = [noise(9 * megabyte, 1), noise(9 * megabyte, 2)]
  await assert.rejects(one.put('a', objectOf(contents[0] ?? marker)))
  assert.equal(stage.driver.objects.has('a'), false)
  assert.equal(await one.put('a', objectOf(contents[0] ?? marker)), 'written')
  assert.equal(await other.put('a', objectOf(contents[1] ?? marker)), 'exists')
  assert.ok(Buffer.compare(stage.driver.objects.get('a') ?? marker, contents[0] ?? marker) === 0)
})

test('there, whoever is replaced between its look and its answer notices', async () => {
  for (const bytes of [5_000, 9 * megabyte]) {
    const stage = new Stage(replacing)
    const store = stage.store()
    const [own, others] = [noise(bytes, 1), noise(bytes, 2)]
    // Somebody else stores theirs right after ours.
    stage.before = ([kind, request]) => {
      const isReadBack = kind === 'get' && request.bytes > 1
      if (isReadBack) stage.driver.objects.set('a', others)
    }
    assert.equal(await store.put('a', objectOf(own)), 'exists')
    stage.before = () => {}
    assert.equal(await store.put('a', objectOf(own)), 'exists', 'it is looked for before it is sent')
    assert.equal(stage.driver.objects.get('a'), others)
  }
})

test('there, two repositories that begin at the same time do not become one', async () => {
  const stage = new Stage(replacing)
  const [mine, others] = [anyId, '00000000-0000-4000-8000-000000000002']
  const repository = stage.repository()
  stage.before = ([kind, request]) => {
    if (kind !== 'get' || request.key !== markerKey || request.bytes === 1) return
    if (stage.driver.objects.has(markerKey))
      stage.driver.objects.set(markerKey, encodeMarker(others, 'now', 'another'))
  }
  await repository.archive(segmentSource(nameOf(0)), archiveOptions)
  assert.match(Buffer.from(stage.driver.objects.get(markerKey) ?? []).toString(), new RegExp(others))
  assert.doesNotMatch(Buffer.from(stage.driver.objects.get(markerKey) ?? []).toString(), new RegExp(mine))
})

// Reading

test('of a large object several pieces are asked for ahead, and of a small one no more than there is', async () => {
  const stage = new Stage()
  const content = new Uint8Array(100 * megabyte)
  stage.driver.objects.set('large', content)
  stage.driver.objects.set('small', noise(100))
  const store = stage.store()
  {
    await using object = await store.open('large')
    assert.deepEqual(stage.kinds, ['get', 'get', 'get', 'get', 'get'], 'one that came, and four on their way')
    await object?.read(new Uint8Array(10))
  }
  assert.equal(stage.budget.usedBytes, 0)
  for (let i = 0; i < 32; i++) await (await store.open('small'))?.[Symbol.asyncDispose]()
  stage.asked = []
  await using _ = await store.open('small')
  assert.deepEqual(stage.asked, [['get', { key: 'small', start: 0, bytes: megabyte }]])
})

test('the memory of a piece that was read is given back at once', async () => {
  const driver = new MemoryDriver({ clock: new SimulatedClock() })
  const content = noise(3 * megabyte)
  driver.objects.set('a', content)
  const pieces: Uint8Array[] = []
  const { get } = driver.handlers
  driver.handlers.get = async (request, signal) => {
    const piece = await get(request, signal)
    if (piece !== undefined) pieces.push(piece.bytes)
    return piece
  }
  const store = remoteStore(driver, { clock: new SimulatedClock(), random: () => 0.5, retryMs: 1_000 })
  await using object = await store.open('a')
  const read = Buffer.alloc(content.length + 1)
  assert.equal(await object?.read(read), content.length)
  assert.ok(read.subarray(0, content.length).equals(content))
  assert.ok(pieces.length > 0)
  assert.deepEqual(
    pieces.map(({ length }) => length),
    pieces.map(() => 0),
  )
})

test('an object that is another one, or gone, while it is being read is an error', async () => {
  const content = noise(30 * megabyte)
  for (const [what, change] of [
    ['was changed', (objects: Map<string, Uint8Array>) => objects.set('a', content.subarray(1))],
    ['was removed', (objects: Map<string, Uint8Array>) => objects.delete('a')],
  ] as const) {
    const stage = new Stage()
    stage.driver.objects.set('a', content)
    await using object = await stage.store().open('a', { bytesWanted: 10 })
    change(stage.driver.objects)
    await assert.rejects(async () => await object?.read(new Uint8Array(content.length)), {
      code: 'UNREACHABLE',
      message: `"a" in repository "memory:" ${what} while it was being read`,
    })
  }
})

// All together

test('files are archived and fetched over a driver that all wrappers are around, and everything is counted', async () => {
  const clock = new SimulatedClock()
  const driver = new MemoryDriver({ clock })
  const counts = new RequestCounts()
  const store = remoteStore(driver, { clock, random: () => 0.5, retryMs: 1_000, counts })
  await clock.run(store.put('a', objectOf(noise(20 * megabyte))))
  assert.equal(await clock.run(store.open('b')), undefined)
  await clock.run(store[Symbol.asyncDispose]())
  const counted = [...counts.entries()].map(([kind, { requests, bytes }]) => [kind, requests, bytes])
  assert.deepEqual(counted, [
    ['beginUpload', 1, 0],
    ['putPart', 3, 20 * megabyte],
    ['endUpload', 1, 0],
    ['get', 1, 0],
  ])
})

// What replaces an object

test('a file is not archived when it cannot be told whether the object that was distrusted was replaced', async () => {
  const stage = new Stage()
  const repository = stage.repository()
  await repository.archive(segmentSource(nameOf(0)), archiveOptions)
  stage.driver.handlers.confirm = async () => 'distrusted'
  const { put } = stage.driver.handlers
  // As where an upload is ended once more, because its first answer was lost.
  stage.driver.handlers.put = async request => (request.replace ? 'exists' : await put(request))
  assert.equal(
    await failure(repository.archive(segmentSource(nameOf(0)), archiveOptions)),
    `UNREACHABLE: "${keyOf(nameOf(0))}" in repository "memory:" may not be on disk, and it could not be told whether it was written anew\nHINT: Check that the repository is there and that this user may use it; it is tried again.`,
  )
})

test('a file that changes after it was compared replaces nothing', async () => {
  const stage = new Stage()
  const repository = stage.repository()
  const name = nameOf(0)
  await repository.archive(segmentSource(name), archiveOptions)
  const before = stage.driver.objects.get(keyOf(name))
  let source = segmentSource(name)
  stage.driver.handlers.confirm = async () => {
    source = sourceOf(name, walSegment({ name, seed: 2 }))
    return 'distrusted'
  }
  const changing = { name, open: () => source.open() }
  assert.match(
    await failure(repository.archive(changing, archiveOptions)),
    /was changed while it was being archived/,
  )
  assert.equal(stage.driver.objects.get(keyOf(name)), before)
})

test('a store that knows no order of names, or begins anew with each page, is told instead of believed', async () => {
  for (const pages of [[['b', 'a']], [['a'], ['a']]]) {
    const stage = new Stage()
    stage.driver.handlers.list = async () => {
      const page = pages.shift() ?? []
      return { objects: page.map(key => ({ key, length: 1 })), isLast: pages.length === 0 }
    }
    const list = async () => {
      for await (const _ of stage.store().list('')) continue
    }
    assert.match(
      await failure(list()),
      /^UNREACHABLE: could not list repository "memory:": its store names "a" after /,
    )
  }
})
