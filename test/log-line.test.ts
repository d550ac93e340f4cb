import assert from 'node:assert/strict'
import { test } from 'node:test'
import { jsonLine, textLines } from '../src/observe/log-line.ts'

const origin = { time: Date.UTC(2026, 10, 21, 10, 15, 0, 250), pid: 4711 }

test('a message is one line in the form of the server', () => {
  assert.equal(
    textLines({ level: 'LOG', errmsg: 'archiver is shut down' }, origin),
    '2026-11-21 10:15:00.250 UTC [4711] LOG:  archiver is shut down\n',
  )
})

test('DETAIL and HINT have lines of their own, and are left out where there are none', () => {
  assert.equal(
    textLines({ level: 'FATAL', errmsg: 'a', errdetail: 'B.', errhint: 'C.', errcode: '22023' }, origin),
    '2026-11-21 10:15:00.250 UTC [4711] FATAL:  a\n' +
      '2026-11-21 10:15:00.250 UTC [4711] DETAIL:  B.\n' +
      '2026-11-21 10:15:00.250 UTC [4711] HINT:  C.\n',
  )
  assert.equal(
    textLines({ level: 'ERROR', errmsg: 'a', errdetail: undefined, errhint: '' }, origin),
    '2026-11-21 10:15:00.250 UTC [4711] ERROR:  a\n',
  )
})

test('the five levels of DEBUG are one word', () => {
  for (const level of ['DEBUG1', 'DEBUG2', 'DEBUG3', 'DEBUG4', 'DEBUG5'] as const) {
    assert.equal(textLines({ level, errmsg: 'a' }, origin), '2026-11-21 10:15:00.250 UTC [4711] DEBUG:  a\n')
  }
})

test('lines after the first of a text begin with a tab, so that none can pass for a message of its own', () => {
  assert.equal(
    textLines({ level: 'ERROR', errmsg: 'one\ntwo', errdetail: 'three\nfour' }, origin),
    '2026-11-21 10:15:00.250 UTC [4711] ERROR:  one\n\ttwo\n' +
      '2026-11-21 10:15:00.250 UTC [4711] DETAIL:  three\n\tfour\n',
  )
})

test('JSON is one line with the keys of jsonlog, without those that say nothing', () => {
  assert.equal(
    jsonLine({ level: 'LOG', errmsg: 'archiver is shut down' }, origin),
    '{"timestamp":"2026-11-21T10:15:00.250Z","pid":4711,"error_severity":"LOG",' +
      '"message":"archiver is shut down","backend_type":"archiver"}\n',
  )
})

test('JSON has the code, DETAIL and HINT, and stays one line', () => {
  const line = jsonLine(
    { level: 'ERROR', errmsg: 'one\n"two"', errdetail: 'B.', errhint: 'C.', errcode: '22023' },
    origin,
  )
  assert.equal(line.indexOf('\n'), line.length - 1)
  assert.deepEqual(JSON.parse(line), {
    timestamp: '2026-11-21T10:15:00.250Z',
    pid: 4711,
    error_severity: 'ERROR',
    state_code: '22023',
    message: 'one\n"two"',
    detail: 'B.',
    hint: 'C.',
    backend_type: 'archiver',
  })
})
