// Pages of names, whose requests are given up, are asked for twice at once, and end one after another.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pageMs, SftpListings } from '../src/repository/store/sftp/sftp-listings.ts'
import type { SftpEntry } from '../src/repository/store/sftp/sftp-session.ts'

const directories = ['a/', 'b/', 'c/', 'd/']
const firstNames = directories.flatMap(directory => [1, 2, 3].map(number => `${directory}${number}`))
const limit = 4

/** An answer that comes when it is told to. */
interface HeldAnswer {
  isAsked: PromiseWithResolvers<void>
  mayCome: PromiseWithResolvers<void>
}

/** A server with four directories, which tells what it was asked. */
function stage() {
  const keys = [...firstNames]
  const asked: string[] = []
  const clock = { nowMs: 0, readMs: 0, monotonic: () => clock.nowMs }
  const held: Array<HeldAnswer & { prefix: string }> = []
  const read = async (prefix: string, signal: AbortSignal | undefined): Promise<SftpEntry[]> => {
    signal?.throwIfAborted()
    asked.push(prefix)
    clock.nowMs += clock.readMs
    // What a directory holds is known before the answer arrives.
    const names = keys.filter(key => key.startsWith(prefix)).map(key => key.slice(prefix.length))
    const inside = new Set(names.map(name => name.replace(/\/.*/, '/')))
    const at = held.findIndex(each => each.prefix === prefix)
    for (const { isAsked, mayCome } of at < 0 ? [] : held.splice(at, 1)) {
      signal?.addEventListener('abort', () => mayCome.reject(signal.reason), { once: true })
      isAsked.resolve()
      await mayCome.promise
    }
    return [...inside].map(name => ({
      name: name.replace('/', ''),
      kind: name.endsWith('/') ? ('directory' as const) : ('file' as const),
      size: 7,
      modifiedMs: 0,
    }))
  }
  /** Of whoever asks next for this directory. */
  const hold = (prefix: string): HeldAnswer => {
    const isAsked = Promise.withResolvers<void>()
    const mayCome = Promise.withResolvers<void>()
    held.push({ prefix, isAsked, mayCome })
    return { isAsked, mayCome }
  }
  return { keys, asked, clock, listings: new SftpListings(read, clock), hold }
}

/** As through `withDeadline`: a request that has ended aborts its signal. */
async function page(listings: SftpListings, after?: string, signal?: AbortSignal): Promise<string[]> {
  const ended = new AbortController()
  const both = AbortSignal.any(signal === undefined ? [ended.signal] : [signal, ended.signal])
  try {
    const { objects } = await listings.page({ prefix: '', after, limit }, both)
    return objects.map(({ key }) => key)
  } finally {
    ended.abort(new Error('the request has ended'))
  }
}

async function all(listings: SftpListings): Promise<string[]> {
  const found: string[] = []
  for (let names = await page(listings); names.length > 0; names = await page(listings, names.at(-1)))
    found.push(...names)
  return found
}

// Every listing over more than a page failed with "the request has ended": all of its pages read with the signal of the
// first.
test('each page reads with the signal of its own request, and no directory is read twice', async () => {
  const { listings, asked } = stage()
  assert.deepEqual(await all(listings), firstNames)
  assert.deepEqual(asked, ['', ...directories])
})

test('a page that is given up fails with the reason, and whoever asks again gets all of it', async () => {
  const { listings, hold } = stage()
  const first = await page(listings)
  const { isAsked } = hold('c/')
  const patience = new AbortController()
  const second = page(listings, first.at(-1), patience.signal)
  await isAsked.promise
  patience.abort(new Error('it took too long'))
  await assert.rejects(second, /^Error: it took too long$/)
  assert.deepEqual(await page(listings, first.at(-1)), firstNames.slice(4, 8))
  assert.deepEqual(await page(listings, 'c/2'), firstNames.slice(8))
})

test('a page that is asked for twice at once is the same both times, and so is what follows', async () => {
  const { listings, hold } = stage()
  const first = await page(listings)
  const answers = [hold('c/'), hold('c/')]
  const asks = [page(listings, first.at(-1)), page(listings, first.at(-1))]
  for (const { isAsked, mayCome } of answers) {
    await isAsked.promise
    mayCome.resolve()
  }
  assert.deepEqual(await Promise.all(asks), [firstNames.slice(4, 8), firstNames.slice(4, 8)])
  const following = [page(listings, 'c/2'), page(listings, 'c/2')]
  assert.deepEqual(await Promise.all(following), [firstNames.slice(8), firstNames.slice(8)])
})

test('when one of two has answered, the other one ends, and what follows is whole', async () => {
  for (const winner of [0, 1]) {
    const { listings, hold } = stage()
    const first = await page(listings)
    const answers = [hold('c/'), hold('c/')]
    const race = new AbortController()
    const asks = answers.map(async () => await page(listings, first.at(-1), race.signal))
    await Promise.all(answers.map(({ isAsked }) => isAsked.promise))
    answers[winner]?.mayCome.resolve()
    assert.deepEqual(await Promise.any(asks), firstNames.slice(4, 8))
    race.abort(new Error('another one was faster'))
    const outcomes = (await Promise.allSettled(asks)).map(({ status }) => status)
    assert.deepEqual(outcomes.toSorted(), ['fulfilled', 'rejected'])
    assert.deepEqual(await page(listings, 'c/2'), firstNames.slice(8))
  }
})

test('listings at the same time do not take names from one another', async () => {
  const { listings } = stage()
  assert.deepEqual(await Promise.all([all(listings), all(listings)]), [firstNames, firstNames])
})

test('what was stored before a listing began is in it, wherever an earlier one was given up', async () => {
  const { listings, keys } = stage()
  const first = await page(listings)
  await page(listings, first.at(-1))
  keys.push('c/4')
  assert.deepEqual(await all(listings), [...firstNames, 'c/4'].sort())
})

test('nor does an earlier listing hide it whose page comes after the new one has begun', async () => {
  const { listings, keys, hold } = stage()
  const first = await page(listings)
  const { isAsked, mayCome } = hold('c/')
  const second = page(listings, first.at(-1))
  await isAsked.promise
  keys.push('c/4')
  assert.deepEqual(await page(listings), firstNames.slice(0, 4))
  assert.deepEqual(await page(listings, 'b/1'), firstNames.slice(4, 8))
  mayCome.resolve()
  assert.deepEqual(await second, firstNames.slice(4, 8))
  assert.deepEqual(await page(listings, 'c/2'), ['c/3', 'c/4', 'd/1', 'd/2'])
})

test('a page that was given up as its last name came leaves nothing behind', async () => {
  const { listings, keys, hold } = stage()
  const { isAsked, mayCome } = hold('b/')
  const patience = new AbortController()
  const first = page(listings, undefined, patience.signal)
  await isAsked.promise
  mayCome.resolve()
  patience.abort(new Error('it took too long'))
  await assert.rejects(first, /^Error: it took too long$/)
  keys.push('b/4')
  assert.deepEqual(await page(listings, 'b/1'), ['b/2', 'b/3', 'b/4', 'c/1'])
})

// With 30 ms to the server, a page over a hundred directories took longer than a request may, however often it was asked.
test('a page that takes long ends with what it has, and the next one goes on there', async () => {
  const { listings, asked, clock } = stage()
  clock.readMs = pageMs / 2
  assert.deepEqual(await page(listings), ['a/1', 'a/2', 'a/3'])
  assert.deepEqual(await page(listings, 'a/3'), ['b/1', 'b/2', 'b/3', 'c/1'])
  clock.readMs = 2 * pageMs
  assert.deepEqual(await page(listings, 'c/1'), ['c/2', 'c/3', 'd/1', 'd/2'])
  assert.deepEqual(await page(listings, 'd/2'), ['d/3'])
  assert.deepEqual(asked, ['', ...directories])
})

test('something is in each page, however long that takes', async () => {
  const { listings, clock } = stage()
  clock.readMs = 2 * pageMs
  assert.deepEqual(await page(listings), ['a/1', 'a/2', 'a/3'])
})
