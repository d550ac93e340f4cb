// Many objects share one budget: it is kept, and nobody waits for ever.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeMarker } from '../src/repository/marker.ts'
import { markerKey } from '../src/repository/object-key.ts'
import { Repository } from '../src/repository/repository.ts'
import { MemoryBudget } from '../src/repository/store/memory-budget.ts'
import { MemoryDriver } from '../src/repository/store/memory-driver.ts'
import { RemoteStore } from '../src/repository/store/remote-store.ts'
import { sendTo } from '../src/repository/store/requests.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { noise } from './support/coded-bytes.ts'
import { archiveOptions, keyOf } from './support/repository-stage.ts'
import { sourceOf } from './support/source-of.ts'

const budgetBytes = 100
const ownBytesMax = 60
const smallBytes = 2
const objectsMax = 30
/** For what would never end. */
const bounded = { timeout: 30_000 }

/** Objects that come at any moment, hold up to 60 bytes, fail or are given up, in an order that the seed decides. */
async function storm(seed: number): Promise<number> {
  const random = new SeededRandom(seed)
  const clock = new SimulatedClock()
  const budget = new MemoryBudget(budgetBytes, smallBytes)
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
  await clock.run(Promise.all(Array.from({ length: random.integer(1, objectsMax) }, object)))
  assert.equal(budget.usedBytes, 0, `seed ${seed}`)
  return usedMax
}

test('whatever comes in whatever order, there is never more than the budget, what one object needs, and what is small', async () => {
  const limit = budgetBytes + ownBytesMax + objectsMax * smallBytes
  let most = 0
  for (let seed = 1; seed <= 500; seed++) {
    const usedMax = await storm(seed)
    assert.ok(usedMax <= limit, `seed ${seed}: ${usedMax}`)
    most = Math.max(most, usedMax)
  }
  assert.ok(most > budgetBytes, 'nothing ever came to the limit')
})

test('the object that came first goes on while all others wait, in their order', async () => {
  const budget = new MemoryBudget(10, 0)
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

test('what is small never waits, but only where nothing is held yet', async () => {
  const budget = new MemoryBudget(10, 2)
  const [first, second, third] = [budget.open(), budget.open(), budget.open()]
  await first.take(10)
  let hasCome = false
  const large = second.take(3).then(() => (hasCome = true))
  await third.take(2)
  const more = third.take(1).then(() => assert.ok(hasCome, 'it came before the one that was there first'))
  assert.deepEqual([budget.usedBytes, hasCome], [12, false])
  first[Symbol.dispose]()
  await Promise.all([large, more])
})

test(
  'files that are archived at once where a disk can be unmounted do not wait for each other for ever',
  bounded,
  async () => {
    // Each of them held memory while it waited for as much again to read the marker, which others had who waited, too.
    const clock = new SimulatedClock()
    const driver = new MemoryDriver({ clock, features: { canBeUnmounted: true } })
    driver.objects.set(markerKey, encodeMarker('00000000-0000-4000-8000-00000000000a', '', 'test'))
    const { url, features } = driver
    const budget = new MemoryBudget(8 * 1024 ** 2)
    const store = new RemoteStore({ url, features, send: sendTo(driver), clock, budget })
    const repository = new Repository({ store, clock, newId: () => '', writer: 'test' })
    const body = noise(4 * 1024 ** 2)
    const names = Array.from({ length: 8 }, (_, index) => `00000001000000000000000${index}`)
    const archived = names.map(name =>
      repository.archive(sourceOf(name, body), { ...archiveOptions, headerCheck: false }),
    )
    assert.deepEqual(await Promise.all(archived), Array(8).fill('archived'))
    for (const name of names) assert.ok(driver.objects.has(keyOf(name)), name)
    assert.equal(budget.usedBytes, 0)
  },
)
