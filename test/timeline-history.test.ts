// Timeline histories, by the rules of the server that writes and reads them.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  parseTimelineHistory,
  timelineHistoryName,
  timelineOf,
  timelineText,
} from '../src/wal/timeline-history.ts'

test('a timeline history lists the ancestors, oldest first, and where each was left', () => {
  const text = `1\t0/3000158\tno recovery target specified

2\tA/FF00C8F8\tbefore transaction 731 at 2026-11-21 04:00:00+00
`
  assert.deepEqual(parseTimelineHistory(text, 3), [
    { timeline: 1, lsn: 0x3000158n },
    { timeline: 2, lsn: 0xa_ff00_c8f8n },
  ])
})

test('comments, empty lines, spaces and a missing reason are as good as for the server', () => {
  assert.deepEqual(parseTimelineHistory('# made by hand\n\n  7   0/03000158\n', 8), [
    { timeline: 7, lsn: 0x3000158n },
  ])
  assert.deepEqual(parseTimelineHistory('', 5), [])
})

test('what the server would refuse is no timeline history', () => {
  assert.equal(parseTimelineHistory('one\t0/3000158\tx\n', 3), undefined)
  assert.equal(parseTimelineHistory('1\n', 3), undefined)
  assert.equal(parseTimelineHistory('1\t3000158\tx\n', 3), undefined)
  assert.equal(parseTimelineHistory('1\t0/123456789\tx\n', 3), undefined)
  // Not in increasing sequence.
  assert.equal(parseTimelineHistory('2\t0/3000158\tx\n1\t0/4000000\tx\n', 3), undefined)
  assert.equal(parseTimelineHistory('2\t0/3000158\tx\n2\t0/4000000\tx\n', 3), undefined)
  // Not older than the timeline itself.
  assert.equal(parseTimelineHistory('3\t0/3000158\tx\n', 3), undefined)
  assert.equal(parseTimelineHistory('0\t0/3000158\tx\n', 3), undefined)
})

test('a timeline stands in names in hexadecimal', () => {
  assert.equal(timelineHistoryName(26), '0000001A.history')
  assert.equal(timelineText(0xffff_ffff), 'FFFFFFFF')
  assert.equal(timelineOf('0000001A.history'), 26)
  assert.equal(timelineOf('FFFFFFFF00000000000000AB.partial'), 0xffff_ffff)
})
