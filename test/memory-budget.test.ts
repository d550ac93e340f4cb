// Many objects share one budget: it is kept, and nobody waits for ever.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryBudget } from '../src/repository/store/memory-budget.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'

const budgetBytes = 100
const ownBytesMax = 60

/** Objects that come at any moment, hold up to 60 bytes, fail or are given up, in an order that the seed decides. */
async function storm(seed: number): Promise<number> {
  const random = new SeededRandom(seed)
  const clock = new SimulatedClock()
  const budget = new MemoryBudget(budgetBytes)
  let used = 0
  let usedMax = 0
  const hold = (bytes: number) => {
    used += bytes
    usedMax = Math.max(usedMax, used)
  }

  async function object(): Promise<void> {
    await clock.sleep(random.integer(0, 200))
    using share = budget.open()
    const abort = new AbortController()
    if (random.chance(0.2)) clock.after(random.integer(1, 300), () => abort.abort(new Error('given up')))
    let held = 0
    try {
      for (let pieces = random.integer(1, 12); pieces > 0; pieces--) {
        const bytes = random.integer(1, ownBytesMax - held)
        if (random.chance(0.3)) {
          if (!share.tryTake(bytes)) continue
        } else await share.take(bytes, abort.signal)
        held += bytes
        hold(bytes)
        await clock.sleep(random.integer(0, 20), abort.signal)
        abort.signal.throwIfAborted()
        const back = random.chance(0.5) || held === ownBytesMax ? held : 0
        held -= back
        hold(-back)
        share.give(back)
      }
    } catch (thrown) {
      assert.equal((thrown as Error).message, 'given up')
    } finally {
      hold(-held)
    }
  }

  // The clock throws where nothing can go on.
  await clock.run(Promise.all(Array.from({ length: random.integer(1, 30) }, object)))
  assert.equal(budget.usedBytes, 0, `seed ${seed}`)
  return usedMax
}

test('whatever comes in whatever order, there is never more than the budget and what one object needs', async () => {
  let most = 0
  for (let seed = 1; seed <= 500; seed++) {
    const usedMax = await storm(seed)
    assert.ok(usedMax <= budgetBytes + ownBytesMax, `seed ${seed}: ${usedMax}`)
    most = Math.max(most, usedMax)
  }
  assert.ok(most > budgetBytes, 'nothing ever came to the limit')
})

test('the object that came first goes on while all others wait, in their order', async () => {
  const budget = new MemoryBudget(10)
  const [first, second, third] = [budget.open(), budget.open(), budget.open()]
  const told: string[] = []
  await second.take(10)
  await first.take(50)
  const waiting = [
    third.take(1).then(() => told.push('third')),
    second.take(10).then(() => told.push('second')),
  ]
  assert.equal(third.tryTake(0), false)
  first[Symbol.dispose]()
  // Now the second is the first, and what it holds leaves no room for the third.
  await waiting[1]
  assert.deepEqual(told, ['second'])
  second[Symbol.dispose]()
  await Promise.all(waiting)
  assert.deepEqual(told, ['second', 'third'])
})
