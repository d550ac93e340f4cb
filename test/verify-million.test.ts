// A repository of a million objects, with gaps and damage all over it: what verify holds of it stays small. What is
// counted are entries, because how much memory they take differs between machines.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { mapInOrder } from '../src/repository/map-in-order.ts'
import { HeldRanges, type WalRange, WalRuns } from '../src/repository/wal-runs.ts'
import type { MillionResult } from './support/verify-million.ts'

const jobs = 4
const shownMax = 20
const heapMegabytes = 40 // the names alone would take more

test('a million objects with gaps and damage all over are counted, and few of them kept', async () => {
  const program = join(import.meta.dirname, 'support/verify-million.ts')
  const args = [`--max-old-space-size=${heapMegabytes}`, program, `${jobs}`, `${shownMax}`]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const { heldMax, openedMax, ...result } = JSON.parse(stdout) as MillionResult
  assert.deepEqual(result, {
    error: null,
    objects: 1_000_000,
    removed: 998_999,
    progressed: 1_000_000,
    totals: 1_000_000,
    leftOpen: 0,
    missing: 499_999,
    findings: [
      { kind: 'missing', count: 499_999, shown: shownMax },
      { kind: 'truncated', count: 1_000, shown: shownMax },
    ],
  })
  assert.ok(heldMax <= jobs, `${heldMax} objects were held`)
  assert.ok(openedMax <= jobs, `${openedMax} objects were open`)
})

test('of many stretches, those at both ends are kept, and the others counted', () => {
  const held = new HeldRanges(2, 3)
  for (let at = 0n; at < 1_000n; at++) held.add({ from: at * 10n, to: at * 10n + 4n })
  assert.deepEqual(
    held.held.map(({ from }) => from),
    [0n, 10n, 9_970n, 9_980n, 9_990n],
  )
  assert.deepEqual(held.unheld, { count: 995, bytes: 995n * 4n })
})

test('stretches that touch or overlap are one run', () => {
  const runs: WalRange[] = []
  const gaps: WalRange[] = []
  const joined = new WalRuns(
    run => runs.push(run),
    gap => gaps.push(gap),
  )
  assert.equal(joined.hull, undefined)
  for (const [from, to] of [
    [0n, 2n],
    [2n, 4n],
    [3n, 5n],
    [1n, 2n],
    [7n, 8n],
  ] as const) {
    joined.add({ from, to })
  }
  assert.deepEqual(joined.hull, { from: 0n, to: 8n })
  joined.end()
  assert.deepEqual(runs, [
    { from: 0n, to: 5n },
    { from: 7n, to: 8n },
  ])
  assert.deepEqual(gaps, [{ from: 5n, to: 7n }])
})

async function* numbers(count: number, taken: (number: number) => void = () => undefined) {
  for (let number = 0; number < count; number++) {
    taken(number)
    yield number
  }
}

test('results come in the order of the items, whatever ends first, and few items are held', async () => {
  const release: Array<() => void> = []
  let taken = 0
  const mapped = mapInOrder(
    numbers(7, () => taken++),
    3,
    async number => {
      await new Promise<void>(resolve => {
        release[number] = resolve
        // The third one of each three lets the others go, so that the last to come ends first.
        if (number % 3 === 2 || number === 6) for (const go of release.toReversed()) go?.()
      })
      return number
    },
  )
  const results: number[] = []
  for await (const result of mapped) {
    assert.ok(taken - results.length <= 3, `${taken - results.length} are held`)
    results.push(result)
    for (const go of release) go?.()
  }
  assert.deepEqual(results, [0, 1, 2, 3, 4, 5, 6])
})

test('what fails is told in its turn, and nothing is left under way', async () => {
  let underWay = 0
  const mapped = mapInOrder(numbers(10), 3, async number => {
    underWay++
    await new Promise(resolve => setImmediate(resolve))
    underWay--
    if (number === 1) throw new Error('the second one')
    return number
  })
  const results: number[] = []
  await assert.rejects(async () => {
    for await (const result of mapped) results.push(result)
  }, /^Error: the second one$/)
  assert.deepEqual(results, [0])
  assert.equal(underWay, 0)
})
