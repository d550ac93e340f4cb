// What stands between a store and its driver: deadlines, retries, the limit, races, faults and counts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepositoryError } from '../src/repository/repository-error.ts'
import { MemoryDriver } from '../src/repository/store/memory-driver.ts'
import { RequestError, type RequestRetry } from '../src/repository/store/request-error.ts'
import { type Answers, type RequestKind, type Send, sendTo } from '../src/repository/store/requests.ts'
import { durationBoundsMs, RequestCounts, withCounts } from '../src/repository/store/with-counts.ts'
import { withDeadline } from '../src/repository/store/with-deadline.ts'
import { withFaults } from '../src/repository/store/with-faults.ts'
import { withHedging } from '../src/repository/store/with-hedging.ts'
import { withLimit } from '../src/repository/store/with-limit.ts'
import { withRetries } from '../src/repository/store/with-retries.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'

const never = () => new Promise<never>(() => {})
const list = { prefix: '', limit: 1 }
const page: Answers['list'] = { objects: [], isLast: true }

/** A store that is asked for lists only. */
function lists(answer: (signal: AbortSignal | undefined) => Promise<Answers['list']>): Send {
  return ((_kind: RequestKind, _request: unknown, signal?: AbortSignal) => answer(signal)) as Send
}

function failing(retry: RequestRetry, retryAfterMs?: number): RequestError {
  return new RequestError('UNREACHABLE', `"${retry}"`, { retry, retryAfterMs })
}

// Deadlines

test('a request that is not answered ends when it has taken too long for what it carries', async () => {
  const clock = new SimulatedClock()
  let signal: AbortSignal | undefined
  const send = withDeadline(
    (_kind, _request, given) => {
      signal = given
      return never()
    },
    { url: 's3://bucket', clock },
  )
  const ended = async (work: Promise<unknown>) => {
    const beganMs = clock.monotonic()
    const thrown: unknown = await clock.run(work).catch((reason: unknown) => reason)
    assert.ok(thrown instanceof RequestError)
    assert.equal(thrown.retry, 'slow down')
    assert.equal(signal?.aborted, true)
    return [thrown.message, clock.monotonic() - beganMs]
  }
  const body = [new Uint8Array(1024 ** 2), new Uint8Array(1024 ** 2)]
  const silent = (seconds: number) => [
    `repository "s3://bucket" gave no answer within ${seconds} s`,
    seconds * 1_000,
  ]
  assert.deepEqual(await ended(send('list', list)), silent(10))
  assert.deepEqual(await ended(send('put', { key: 'a', body })), silent(18))
  assert.deepEqual(await ended(send('get', { key: 'a', start: 0, bytes: 8 * 1024 ** 2 })), silent(42))
  const end = { key: 'a', upload: '', parts: [], length: 1 }
  assert.deepEqual(await ended(send('endUpload', end)), silent(60))
})

test('a request that is aborted ends at once, also where the driver does not notice', async () => {
  const clock = new SimulatedClock()
  const send = withDeadline(never, { url: '', clock })
  const abort = new AbortController()
  clock.after(5, () => abort.abort(new Error('enough')))
  await assert.rejects(clock.run(send('list', list, abort.signal)), { message: 'enough' })
  assert.equal(clock.monotonic(), 5)
  await assert.rejects(send('list', list, abort.signal), { message: 'enough' })
})

// Retries

test('what may have been an accident is tried again, after longer and longer pauses, up to a limit', async () => {
  const clock = new SimulatedClock()
  const tries: number[] = []
  const told: string[] = []
  const send = withRetries(
    lists(async () => {
      tries.push(clock.monotonic())
      throw failing('again')
    }),
    { clock, random: () => 0.5, totalMs: 20_000, retried: (kind, { message }) => told.push(kind + message) },
  )
  await assert.rejects(clock.run(send('list', list)), { message: '"again"' })
  assert.deepEqual(tries, [0, 100, 300, 700, 1_500, 3_100, 6_300, 11_300, 16_300])
  assert.equal(told.length, 8)
  assert.equal(told[0], 'list"again"')
})

test('the store is given the time that it asks for, and nobody waits who cannot be served in time', async () => {
  const clock = new SimulatedClock()
  let tries = 0
  const send = withRetries(
    lists(async () => {
      if (++tries < 3) throw failing('slow down', 7_000)
      return page
    }),
    { clock, random: () => 0, totalMs: 20_000 },
  )
  assert.equal(await clock.run(send('list', list)), page)
  assert.equal(clock.monotonic(), 14_000)
  tries = 0
  const hasty = withRetries(
    lists(async () => {
      tries++
      throw failing('slow down', 7_000)
    }),
    { clock, random: () => 0, totalMs: 5_000 },
  )
  await assert.rejects(clock.run(hasty('list', list)))
  assert.equal(tries, 1)
})

test('what will be the same, and what is nobody knows what, is not tried again', async () => {
  const clock = new SimulatedClock()
  for (const error of [failing('never'), new RepositoryError('SETTINGS', 'wrong'), new TypeError('a bug')]) {
    let tries = 0
    const send = withRetries(
      lists(async () => {
        tries++
        throw error
      }),
      { clock, random: () => 0, totalMs: 20_000 },
    )
    await assert.rejects(clock.run(send('list', list)), error)
    assert.equal(tries, 1)
  }
})

test('a pause ends when the request is aborted', async () => {
  const clock = new SimulatedClock()
  const abort = new AbortController()
  clock.after(2_000, () => abort.abort(new Error('enough')))
  const send = withRetries(
    lists(async () => {
      throw failing('again', 15_000)
    }),
    { clock, random: () => 0, totalMs: 20_000 },
  )
  await assert.rejects(clock.run(send('list', list, abort.signal)), { message: 'enough' })
  assert.equal(clock.monotonic(), 2_000)
})

// The limit

/** Asks for so many lists at once, each of which takes 10 ms; tells how many were under way at most. */
async function flood(clock: SimulatedClock, send: Send, requests: number): Promise<void> {
  await clock.run(
    Promise.all(Array.from({ length: requests }, () => send('list', list).catch(() => undefined))),
  )
}

test('more and more requests are under way as long as the store keeps up, and half as many when it does not', async () => {
  const clock = new SimulatedClock()
  let underWay = 0
  let most = 0
  let isBusy = false
  const told: number[] = []
  const send = withLimit(
    lists(async () => {
      most = Math.max(most, ++underWay)
      await clock.sleep(10)
      underWay--
      if (isBusy) throw failing('slow down')
      return page
    }),
    { clock, changed: atOnce => told.push(atOnce) },
  )
  await flood(clock, send, 16)
  assert.equal(most, 16)
  await flood(clock, send, 5_000)
  assert.equal(most, 64)
  isBusy = true
  told.length = 0
  // All that were under way at the same time say the same thing.
  await flood(clock, send, 64)
  assert.deepEqual(told, [32])
  await flood(clock, send, 200)
  assert.equal(told.at(-1), 1)
  isBusy = false
  await flood(clock, send, 2_000)
  assert.ok((told.at(-1) ?? 0) > 40, `${told.at(-1)}`)
})

test('whoever waits is served in turn, unless it is aborted', async () => {
  const clock = new SimulatedClock()
  const served: number[] = []
  const abort = new AbortController()
  const send: Send = withLimit(
    ((_kind: RequestKind, { limit }: { limit: number }) => {
      served.push(limit)
      return clock.sleep(10).then(() => page)
    }) as Send,
    { clock },
  )
  const asked = Array.from({ length: 20 }, (_, limit) =>
    send('list', { prefix: '', limit }, limit === 17 ? abort.signal : undefined),
  )
  abort.abort(new Error('enough'))
  const outcomes = await clock.run(Promise.allSettled(asked))
  assert.deepEqual(
    outcomes.flatMap(({ status }, index) => (status === 'rejected' ? [index] : [])),
    [17],
  )
  assert.deepEqual(served, [...Array.from({ length: 17 }, (_, index) => index), 18, 19])
})

// Races

test('a request that takes much longer than its like is raced by a second one, whose answer is taken', async () => {
  const clock = new SimulatedClock()
  let sent = 0
  let abandoned = 0
  let stalls = false
  const told: string[] = []
  const send = withHedging(
    lists(async signal => {
      const isFirst = sent++ % 2 === 0
      if (stalls && isFirst) {
        signal?.addEventListener('abort', () => abandoned++)
        return await never()
      }
      await clock.sleep(400)
      return page
    }),
    { clock, hedged: kind => told.push(kind) },
  )
  for (let i = 0; i < 20; i++) await clock.run(send('list', list))
  assert.equal(sent, 20)
  stalls = true
  const beganMs = clock.monotonic()
  assert.equal(await clock.run(send('list', list)), page)
  assert.equal(clock.monotonic() - beganMs, 4 * 400 + 400)
  assert.deepEqual([told, abandoned], [['list'], 1])
})

test('what is slow as all of its size is not raced, nor is what must not be sent twice', async () => {
  const clock = new SimulatedClock()
  let sent = 0
  const send = withHedging(
    (async (kind: RequestKind, request: { body?: Uint8Array[] }) => {
      sent++
      await clock.sleep(request.body === undefined ? 20_000 : (request.body[0]?.length ?? 0) / 2_000)
      return kind === 'beginUpload' ? 'upload' : 'written'
    }) as Send,
    { clock },
  )
  const put = (bytes: number) => send('put', { key: 'a', body: [new Uint8Array(bytes)] })
  for (let i = 0; i < 20; i++) await clock.run(put(1_000))
  for (let i = 0; i < 20; i++) await clock.run(put(6_000_000))
  await clock.run(send('beginUpload', { key: 'a' }))
  assert.equal(sent, 41)
})

test('where everything is slow at once, hardly more is asked of the store', async () => {
  const clock = new SimulatedClock()
  let sent = 0
  let atOnce = 0
  let atOnceMax = 0
  const send = withHedging(
    lists(async () => {
      sent++
      atOnceMax = Math.max(atOnceMax, ++atOnce)
      await clock.sleep(sent <= 100 ? 10 : 30_000)
      atOnce--
      return page
    }),
    { clock },
  )
  for (let i = 0; i < 100; i++) await clock.run(send('list', list))
  await clock.run(Promise.all(Array.from({ length: 200 }, () => send('list', list))))
  assert.ok(sent > 300 && sent <= 304, `${sent}`)
  assert.ok(atOnceMax <= 204, `${atOnceMax}`)
})

test('of two that fail, the first one says why; and one that succeeds is enough', async () => {
  const clock = new SimulatedClock()
  const race = (second: () => Promise<Answers['list']>) => {
    let sent = 0
    const answer = async () => {
      const isFirst = sent++ === 0
      await clock.sleep(5_000)
      if (!isFirst) return await second()
      throw failing('again')
    }
    return clock.run(withHedging(lists(answer), { clock })('list', list))
  }
  await assert.rejects(
    race(() => Promise.reject(failing('never'))),
    { message: '"again"' },
  )
  assert.equal(await race(() => Promise.resolve(page)), page)
})

test('an object that was stored by the slower of two is there, and nobody is told that it has other content', async () => {
  const clock = new SimulatedClock()
  const driver = new MemoryDriver({ clock })
  let puts = 0
  const slowToAnswer: Send = async (kind, request, signal) => {
    const answer = await sendTo(driver)(kind, request, signal)
    if (kind === 'put' && ++puts === 1) await clock.sleep(60_000, signal)
    return answer
  }
  const send = withHedging(slowToAnswer, { clock })
  const outcome = await clock.run(send('put', { key: 'a', body: [Buffer.from('content')] }))
  // It is for the caller to see that this is its own.
  assert.equal(outcome, 'exists')
  assert.equal(Buffer.from(driver.objects.get('a') ?? []).toString(), 'content')
})

// Faults

test('a fault strikes before or after the request, and a stalled one is never heard of again', async () => {
  const clock = new SimulatedClock()
  const driver = new MemoryDriver({ clock })
  const faults = [
    { kind: 'fails', retry: 'again' },
    { kind: 'loses its answer', retry: 'slow down' },
    { kind: 'stalls', doneAfterMs: 0 },
    { kind: 'stalls', doneAfterMs: undefined },
    undefined,
  ] as const
  let next = 0
  const send = withFaults(sendTo(driver), { clock, faultOf: () => faults[next++], delayMs: () => 10 })
  const put = async (key: string) => {
    const abort = new AbortController()
    clock.after(100, () => abort.abort(new Error('enough')))
    const told = await clock
      .run(send('put', { key, body: [] }, abort.signal))
      .catch((thrown: unknown) => (thrown instanceof RequestError ? thrown.retry : (thrown as Error).message))
    return [told, driver.objects.has(key)]
  }
  assert.deepEqual(await put('a'), ['again', false])
  assert.deepEqual(await put('b'), ['slow down', true])
  assert.deepEqual(await put('c'), ['enough', true])
  assert.deepEqual(await put('d'), ['enough', false])
  assert.deepEqual(await put('e'), ['written', true])
})

// Counts

test('what was asked, how long it took and what became of it is counted', async () => {
  const clock = new SimulatedClock()
  const driver = new MemoryDriver({ clock })
  const random = new SeededRandom(1)
  const counts = new RequestCounts()
  let fails: RequestRetry | undefined
  const send = withCounts(
    withFaults(sendTo(driver), {
      clock,
      faultOf: () => (fails === undefined ? undefined : { kind: 'fails', retry: fails }),
      delayMs: () => 15,
    }),
    { counts, clock },
  )
  const body = [random.bytes(1_000), random.bytes(500)]
  await clock.run(send('put', { key: 'a', body }))
  await clock.run(send('get', { key: 'a', start: 0, bytes: 1_000_000 }))
  await clock.run(send('get', { key: 'b', start: 0, bytes: 1_000_000 }))
  fails = 'slow down'
  await assert.rejects(clock.run(send('put', { key: 'b', body })))
  fails = 'again'
  await assert.rejects(clock.run(send('put', { key: 'b', body })))
  const within = (ms: number) => durationBoundsMs.findIndex(bound => bound === ms)
  const { durations: puts, ...ofPut } = counts.of('put')
  assert.deepEqual(ofPut, { requests: 3, failures: 2, throttles: 1, retries: 0, hedges: 0, bytes: 1_500 })
  assert.equal(puts[within(50)], 1)
  assert.equal(puts[within(20)], 2)
  const { durations: gets, ...ofGet } = counts.of('get')
  assert.deepEqual(ofGet, { requests: 2, failures: 0, throttles: 0, retries: 0, hedges: 0, bytes: 1_500 })
  assert.equal(gets[within(50)], 2)
  assert.equal(counts.requests, 5)
})
