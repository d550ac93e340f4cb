import assert from 'node:assert/strict'
import { test } from 'node:test'
import { historyOf, nextSegment, timelineBegins } from '../src/restore/timeline-history.ts'

const megabyte = 1024 * 1024

test('a timeline history tells where each timeline began', () => {
  const text =
    '1\t0/3000028\tno recovery target specified\n\n# a comment\n2\t1/A0000000\tat restore point "x"\n'
  assert.deepEqual(timelineBegins(5, text), [
    { timeline: 1, begin: 0n },
    { timeline: 2, begin: 0x3000028n },
    { timeline: 5, begin: 0x1_a000_0000n },
  ])
  assert.deepEqual(timelineBegins(2, ''), [{ timeline: 2, begin: 0n }])
  for (const wrong of ['1', '1\tx', 'x\t0/1', '2\t0/1\n1\t0/2', '5\t0/1']) {
    assert.equal(timelineBegins(5, wrong), undefined, wrong)
  }
})

test('after a segment comes the next one, on the newest timeline that has begun there', () => {
  const history = [
    { timeline: 1, begin: 0n },
    { timeline: 2, begin: 0x3000028n },
    { timeline: 5, begin: 0x3f00000n },
    { timeline: 7, begin: 0x8000000n },
  ]
  const size = 16 * megabyte
  const next = (timeline: number, segment: bigint) => {
    const after = nextSegment({ timeline, segment }, size, history)
    return [after.timeline, after.segment]
  }
  assert.deepEqual(next(1, 1n), [1, 2n])
  // Two timelines began in this one.
  assert.deepEqual(next(1, 2n), [5, 3n])
  assert.deepEqual(next(2, 3n), [5, 4n])
  assert.deepEqual(next(5, 6n), [5, 7n])
  assert.deepEqual(next(5, 7n), [7, 8n])
  assert.deepEqual(next(7, 8n), [7, 9n])
  assert.deepEqual(nextSegment({ timeline: 1, segment: 9n }, size, undefined), { timeline: 1, segment: 10n })
})

test('of several histories the newest that leads on from a timeline is the way', () => {
  const two = timelineBegins(2, '1 0/1')
  const three = timelineBegins(3, '1 0/1')
  const four = timelineBegins(4, '1 0/1\n2 0/2')
  assert.ok(two && three && four)
  assert.equal(historyOf(2, [two, four, three]), four)
  assert.equal(historyOf(3, [two, four, three]), three)
  assert.equal(historyOf(1, [four, two]), four)
  assert.equal(historyOf(9, [two, three, four]), undefined)
})
