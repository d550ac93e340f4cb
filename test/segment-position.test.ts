import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatLsn, parseLsn, segmentName, segmentPosition } from '../src/wal/segment-position.ts'

const mebibyte = 1024 ** 2

test('names and numbers of segments belong together, at every size that initdb allows', () => {
  const pairs: Array<[name: string, megabytes: number, timeline: number, segment: bigint]> = [
    ['000000010000000000000001', 16, 1, 1n],
    ['0000000100000000000000FF', 16, 1, 255n],
    ['000000010000000100000000', 16, 1, 256n],
    ['0000000AFFFFFFFF000000FF', 16, 10, (1n << 40n) - 1n],
    ['000000010000000000000FFF', 1, 1, 4_095n],
    ['000000010000000100000000', 1, 1, 4_096n],
    ['000000010000000000000003', 1_024, 1, 3n],
    ['000000010000000100000000', 1_024, 1, 4n],
    ['FFFFFFFF0000000000000000', 16, 4_294_967_295, 0n],
  ]
  for (const [name, megabytes, timeline, segment] of pairs) {
    assert.deepEqual(segmentPosition(name, megabytes * mebibyte), { timeline, segment })
    assert.equal(segmentName({ timeline, segment }, megabytes * mebibyte), name)
  }
})

test('a name may go on behind the segment', () => {
  const expected = { timeline: 1, segment: 0xa965n }
  assert.deepEqual(segmentPosition('00000001000000A900000065.partial', 16 * mebibyte), expected)
  assert.deepEqual(segmentPosition('00000001000000A900000065.00000028.backup', 16 * mebibyte), expected)
})

test('an LSN is written and read as the server does', () => {
  for (const [lsn, text] of [
    [0n, '0/0'],
    [0x3000028n, '0/3000028'],
    [0x16_b374d848n, '16/B374D848'],
    [0xffff_ffff_ffff_ffffn, 'FFFFFFFF/FFFFFFFF'],
  ] as const) {
    assert.equal(formatLsn(lsn), text)
    assert.equal(parseLsn(text), lsn)
    assert.equal(parseLsn(text.toLowerCase()), lsn)
  }
  for (const text of ['', '0', '/', '0/', '0/123456789', '0/x', ' 0/0', '0/0\n', '-1/0']) {
    assert.equal(parseLsn(text), undefined, text)
  }
})
