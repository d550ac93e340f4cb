import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeMarker, markerBytesMax, parseMarker } from '../src/repository/marker.ts'

const id = '3f2a5af7-87b7-4405-b57e-29084c7d3158'

test('a marker is the text that FORMAT.md describes', () => {
  assert.equal(
    Buffer.from(encodeMarker(id, '2026-01-01T00:00:00.000Z', 'pgarchivist 1')).toString(),
    `{
 "format": 1,
 "id": "${id}",
 "created_at": "2026-01-01T00:00:00.000Z",
 "writer": "pgarchivist 1"
}
`,
  )
})

test('what was written is read, whatever a later version has added', () => {
  const text = Buffer.from(encodeMarker(id, '2026-01-01T00:00:00.000Z', 'x')).toString()
  assert.deepEqual(parseMarker(text), { format: 1, id })
  const more = JSON.stringify({ format: 1, id, color: 'blue', writer: 5 })
  assert.deepEqual(parseMarker(more), { format: 1, id })
  assert.ok(text.length < markerBytesMax)
})

test('a later format is told apart from damage, whatever else it says', () => {
  assert.deepEqual(parseMarker(JSON.stringify({ format: 2, id })), { format: 2, id })
  assert.equal(parseMarker(JSON.stringify({ format: 2, ID: 1 }))?.format, 2)
})

test('anything else is no marker', () => {
  const whole = Buffer.from(encodeMarker(id, '2026-01-01T00:00:00.000Z', 'x')).toString()
  for (let length = 0; length < whole.length - 2; length++) {
    assert.equal(parseMarker(whole.slice(0, length)), undefined, `${length} bytes of it`)
  }
  for (const value of [
    null,
    1,
    'text',
    [],
    {},
    { format: 1 },
    { id },
    { format: '1', id },
    { format: 0, id },
    { format: -1, id },
    { format: 1.5, id },
    { format: 1, id: '' },
    { format: 1, id: 5 },
    { format: 1, id: `${id}\nLOG:  forged` },
    { format: 1, id: id.toUpperCase() },
  ]) {
    assert.equal(parseMarker(JSON.stringify(value)), undefined, JSON.stringify(value))
  }
  assert.equal(parseMarker('\0'.repeat(4_096)), undefined)
})
