import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  isSystemIdentifier,
  parseWalObjectKey,
  walObjectKey,
  walPrefix,
} from '../src/repository/object-key.ts'

const cluster = '7300000000000000001'

const keys: Array<[string, string]> = [
  ['00000001000000A900000065', '00000001/000000A9/00000001000000A900000065.pgarchivist'],
  ['00000001000000A900000065.partial', '00000001/000000A9/00000001000000A900000065.partial.pgarchivist'],
  [
    '00000001000000A900000065.00000028.backup',
    '00000001/000000A9/00000001000000A900000065.00000028.backup.pgarchivist',
  ],
  ['0000000B.history', '0000000B/0000000B.history.pgarchivist'],
]

test('each kind of file has its place, by cluster and name only', () => {
  for (const [name, key] of keys) assert.equal(walObjectKey(cluster, name), `${cluster}/wal/${key}`)
})

test('a key tells what it is the key of', () => {
  for (const [name, key] of keys) {
    assert.deepEqual(parseWalObjectKey(`${cluster}/wal/${key}`), { systemIdentifier: cluster, name })
  }
})

test('a key that is almost one of ours is none', () => {
  const segment = '00000001000000A900000065'
  for (const key of [
    '',
    'pgarchivist-repository.json',
    `${cluster}/wal/00000001/000000A9/${segment}`,
    `${cluster}/wal/00000001/000000A9/${segment}.pgarchivist.tmp`,
    `${cluster}/wal/00000001/000000A9/.${segment}.pgarchivist`,
    `${cluster}/wal/00000001/000000A8/${segment}.pgarchivist`,
    `${cluster}/wal/00000002/000000A9/${segment}.pgarchivist`,
    `${cluster}/wal/00000001/${segment}.pgarchivist`,
    `${cluster}/backup/00000001/000000A9/${segment}.pgarchivist`,
    `0${cluster}/wal/00000001/000000A9/${segment}.pgarchivist`,
    `x/wal/00000001/000000A9/${segment}.pgarchivist`,
    `wal/00000001/000000A9/${segment}.pgarchivist`,
    `/${cluster}/wal/00000001/000000A9/${segment}.pgarchivist`,
    `${cluster}/wal/00000001/000000A9/../000000A9/${segment}.pgarchivist`,
    `${cluster}/wal/00000001/000000a9/${segment.toLowerCase()}.pgarchivist`,
    `${cluster}/wal/00000002/0000000B.history.pgarchivist`,
    `${cluster}/wal/0000000B/0000000B.history.pgarchivist\n`,
  ]) {
    assert.equal(parseWalObjectKey(key), undefined, key)
  }
})

test('the WAL of a cluster and of a timeline has one prefix each, under which all of their keys are', () => {
  assert.equal(walPrefix(cluster), `${cluster}/wal/`)
  assert.equal(walPrefix(cluster, '00000001'), `${cluster}/wal/00000001/`)
  for (const [name] of keys) {
    assert.ok(walObjectKey(cluster, name).startsWith(walPrefix(cluster, name.slice(0, 8))))
  }
})

test('a system identifier is a whole number as the server prints it', () => {
  for (const text of ['1', cluster, '18446744073709551615'])
    assert.equal(isSystemIdentifier(text), true, text)
  for (const text of ['', '0', '01', '-1', '1.5', ' 1', '1\n', 'x', '1/../2', '123456789012345678901']) {
    assert.equal(isSystemIdentifier(text), false, text)
  }
})
