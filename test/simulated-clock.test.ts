import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'

test('a simulated day passes at once, and sleepers wake in the order of their moments', async () => {
  const clock = new SimulatedClock(0)
  const woken: string[] = []
  const sleeper = async (name: string, ms: number) => {
    await clock.sleep(ms)
    woken.push(`${name} at ${clock.monotonic()}`)
  }
  const all = Promise.all([sleeper('late', 86_400_000), sleeper('early', 5), sleeper('early too', 5)])
  await clock.run(all)
  assert.deepEqual(woken, ['early at 5', 'early too at 5', 'late at 86400000'])
  assert.equal(clock.now(), 86_400_000)
})

test('time does not pass while promises can still go on without it', async () => {
  const clock = new SimulatedClock()
  const busy = async () => {
    for (let i = 0; i < 1_000; i++) await Promise.resolve()
    return clock.monotonic()
  }
  const other = clock.sleep(1)
  assert.equal(await clock.run(busy()), 0)
  await clock.run(other)
})

test('time stands still for work that runs on real threads', async () => {
  const clock = new SimulatedClock()
  const work = new Promise<void>(resolve => {
    setImmediate(() => setImmediate(() => setImmediate(resolve)))
  })
  const watched = clock.standStill(work).then(() => clock.monotonic())
  void clock.sleep(10)
  assert.equal(await clock.run(watched), 0)
})

test('an aborted sleep ends when it is aborted, and at once when it was already', async () => {
  const clock = new SimulatedClock()
  const stop = new AbortController()
  const sleep = clock.sleep(60_000, stop.signal)
  clock.after(7, () => stop.abort())
  await clock.run(sleep)
  assert.equal(clock.monotonic(), 7)
  await clock.run(clock.sleep(60_000, stop.signal))
  assert.equal(clock.monotonic(), 7)
})

test('the time of day can be set back, which the monotonic time does not notice', async () => {
  const clock = new SimulatedClock(1_000_000)
  await clock.pass(10)
  clock.setWallClock(-500_000)
  await clock.pass(10)
  assert.equal(clock.now(), 500_020)
  assert.equal(clock.monotonic(), 20)
})

test('work that waits for nothing that could happen is a deadlock, not a hang', async () => {
  const clock = new SimulatedClock()
  await assert.rejects(clock.run(new Promise(() => {})), {
    message: 'nothing is left to wait for, yet the work has not ended',
  })
})

test('the failure of what is run reaches the one who runs it', async () => {
  const clock = new SimulatedClock()
  const work = clock.sleep(3).then(() => {
    throw new Error('no such luck')
  })
  await assert.rejects(clock.run(work), { message: 'no such luck' })
})

test('a seed gives the same numbers every time, and another seed other numbers', () => {
  const draw = (seed: number) => {
    const random = new SeededRandom(seed)
    return [random.bits(), random.integer(1, 6), random.fraction(), ...random.bytes(3), random.fork().bits()]
  }
  assert.deepEqual(draw(7), draw(7))
  assert.notDeepEqual(draw(7), draw(8))
  assert.deepEqual(draw(1).slice(0, 2), [2_442_144_158, 5]) // the same on every machine and with every Node
})

test('random numbers are spread evenly', () => {
  const random = new SeededRandom(1)
  const counts = [0, 0, 0, 0, 0, 0]
  for (let i = 0; i < 60_000; i++) counts[random.integer(0, 5)]!++
  for (const count of counts) assert.ok(Math.abs(count - 10_000) < 500, `${count}`)
})
