import assert from 'node:assert/strict'
import { test } from 'node:test'
import { freeMemory } from '../src/system/free-memory.ts'

test('bytes that have a buffer to themselves are gone, and those that share one are not', () => {
  const whole = new Uint8Array(1024)
  freeMemory(whole)
  assert.equal(whole.length, 0)
  assert.equal(whole.buffer.byteLength, 0)

  const buffer = new ArrayBuffer(1024)
  for (const part of [new Uint8Array(buffer, 0, 1000), new Uint8Array(buffer, 24)]) {
    freeMemory(part)
    assert.equal(buffer.byteLength, 1024)
  }
  const pooled = Buffer.from('of a pool that all small buffers are made of')
  freeMemory(pooled)
  assert.equal(pooled.toString(), 'of a pool that all small buffers are made of')
  const shared = new Uint8Array(new SharedArrayBuffer(8))
  freeMemory(shared)
  assert.equal(shared.length, 8)
  freeMemory(new Uint8Array(0))
})
