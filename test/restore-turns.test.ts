import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Turns } from '../src/restore/turns.ts'

test('few work at once, and the lowest rank is next', async () => {
  const turns = new Turns(2)
  const comers = new Map(['a', 'b', 'c', 'd'].map((name, rank) => [name, turns.of(rank)]))
  const ends = new Map<string, () => void>()
  const begun = () => [...ends.keys()].join(' ')
  const ask = async (work: string) =>
    await comers.get(work.charAt(0))?.(async () => {
      const { promise, resolve } = Promise.withResolvers<void>()
      ends.set(work, resolve)
      await promise
      return work
    })
  const done = ['d1', 'c1', 'c2', 'b1', 'a1'].map(ask)
  const orders: string[] = []
  for (const ended of ['d1', 'a1', 'c1', 'b1', 'c2']) {
    await setImmediate()
    orders.push(begun())
    ends.get(ended)?.()
  }
  assert.deepEqual(orders, ['d1 c1', 'd1 c1 a1', 'd1 c1 a1 b1', 'd1 c1 a1 b1 c2', 'd1 c1 a1 b1 c2'])
  assert.deepEqual(await Promise.all(done), ['d1', 'c1', 'c2', 'b1', 'a1'])
})

test('one that fails makes room all the same', async () => {
  const turns = new Turns(1)
  const failed = turns.of(0)(async () => {
    throw new Error('no')
  })
  const next = turns.of(0)(async () => 'done')
  await assert.rejects(failed, /no/)
  assert.equal(await next, 'done')
})
