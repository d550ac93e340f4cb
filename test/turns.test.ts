import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Turns } from '../src/repository/codec/turns.ts'

/** Work that ends when it is told to. */
function heldWork(name: string, begun: string[]) {
  const { promise, resolve } = Promise.withResolvers<void>()
  const work = async () => {
    begun.push(name)
    await promise
  }
  return { work, end: resolve }
}

const settled = () => new Promise(resolve => setImmediate(resolve))

test('no more work at once than may, and who joined first is first', async () => {
  const turns = new Turns(2)
  const takers = ['a', 'b', 'c', 'd'].map(name => ({ name, taker: turns.join() }))
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const done = takers.toReversed().map(({ name, taker }) => {
    const { work, end } = heldWork(name, begun)
    ends.set(name, end)
    return taker.during(work)
  })
  await settled()
  assert.deepEqual(begun, ['d', 'c'], 'nobody waits while there is room')
  ends.get('d')?.()
  await settled()
  assert.deepEqual(begun, ['d', 'c', 'a'])
  ends.get('c')?.()
  await settled()
  assert.deepEqual(begun, ['d', 'c', 'a', 'b'])
  for (const end of ends.values()) end()
  await Promise.all(done)
})

test('a turn ends also when the work fails, and its error is told', async () => {
  const turns = new Turns(1)
  using taker = turns.join()
  await assert.rejects(
    taker.during(async () => await Promise.reject(new Error('no'))),
    /^Error: no$/,
  )
  assert.equal(await taker.during(async () => 'again'), 'again')
})

test('who does nothing keeps nobody', async () => {
  const turns = new Turns(1)
  using _ = turns.join()
  using other = turns.join()
  assert.equal(await other.during(async () => 'done'), 'done')
})
