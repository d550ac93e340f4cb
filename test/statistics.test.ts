import assert from 'node:assert/strict'
import { test } from 'node:test'
import { countArchived, countFailed, newStatistics, parseStatistics } from '../src/archiver/statistics.ts'

const start = Date.UTC(2026, 0, 1)

test('a new archiver has counted nothing since now', () => {
  assert.deepEqual(newStatistics(start), {
    archived_count: 0,
    last_archived_wal: null,
    last_archived_time: null,
    failed_count: 0,
    last_failed_wal: null,
    last_failed_time: null,
    stats_reset: '2026-01-01T00:00:00.000Z',
  })
})

test('every attempt counts, with the last name and time of each outcome', () => {
  const statistics = newStatistics(start)
  countFailed(statistics, '000000010000000000000001', start + 1_000)
  countFailed(statistics, '000000010000000000000001', start + 2_000)
  countArchived(statistics, '000000010000000000000001', start + 3_000)
  countArchived(statistics, '00000002.history', start + 4_000)
  assert.deepEqual(statistics, {
    archived_count: 2,
    last_archived_wal: '00000002.history',
    last_archived_time: '2026-01-01T00:00:04.000Z',
    failed_count: 2,
    last_failed_wal: '000000010000000000000001',
    last_failed_time: '2026-01-01T00:00:02.000Z',
    stats_reset: '2026-01-01T00:00:00.000Z',
  })
})

test('statistics that were written are read again', () => {
  const statistics = newStatistics(start)
  assert.deepEqual(parseStatistics(JSON.stringify(statistics)), statistics)
  countFailed(statistics, 'a', start)
  countArchived(statistics, 'b', start)
  assert.deepEqual(parseStatistics(JSON.stringify(statistics)), statistics)
})

test('anything else is no statistics', () => {
  const whole = newStatistics(start)
  const texts = [
    '',
    'garbage',
    'null',
    '[]',
    '7',
    '"text"',
    '{}',
    JSON.stringify(whole).slice(0, -1),
    JSON.stringify({ ...whole, archived_count: -1 }),
    JSON.stringify({ ...whole, archived_count: 1.5 }),
    JSON.stringify({ ...whole, archived_count: '1' }),
    JSON.stringify({ ...whole, archived_count: Number.MAX_SAFE_INTEGER + 1 }),
    JSON.stringify({ ...whole, failed_count: null }),
    JSON.stringify({ ...whole, last_archived_wal: 1 }),
    JSON.stringify({ ...whole, last_archived_time: 0 }),
    JSON.stringify({ ...whole, last_failed_wal: {} }),
    JSON.stringify({ ...whole, last_failed_time: false }),
    JSON.stringify({ ...whole, stats_reset: null }),
  ]
  for (const text of texts) assert.equal(parseStatistics(text), undefined, text)
})
