// The history files of base backups.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backupStart, parseBackupHistory } from '../src/wal/backup-history.ts'
import { backupHistory } from './support/filled-repository.ts'

test('a backup history tells where its backup begins and where it is consistent', () => {
  assert.deepEqual(parseBackupHistory(backupHistory('0/2000028', 'A/3000138')), {
    startLsn: 0x200_0028n,
    stopLsn: 0xa_0300_0138n,
    startTime: '2026-11-21 03:00:00 UTC',
    label: 'nightly',
  })
})

test('a label cannot pretend to be another line', () => {
  const text = backupHistory('0/2000028', '0/3000138').replace(
    'nightly',
    'x\nSTOP WAL LOCATION: 0/9000000 (file 000000010000000000000009)\nSTART TIME: never',
  )
  assert.equal(parseBackupHistory(text)?.stopLsn, 0x300_0138n)
  assert.equal(parseBackupHistory(text)?.startTime, '2026-11-21 03:00:00 UTC')
})

test('what does not say from where to where is no backup history', () => {
  assert.equal(parseBackupHistory(''), undefined)
  assert.equal(
    parseBackupHistory('START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n'),
    undefined,
  )
  assert.equal(parseBackupHistory(backupHistory('0/2000028', '0/x')), undefined)
  // It ends before it begins.
  assert.equal(parseBackupHistory(backupHistory('0/3000028', '0/2000028')), undefined)
})

test('the name tells the beginning as well, for any segment size', () => {
  const name = '000000010000000200000003.00000028.backup'
  assert.equal(backupStart(name, 16 * 1024 ** 2), 0x2_0300_0028n)
  assert.equal(backupStart(name, 1024 ** 2), 0x2_0030_0028n)
  assert.equal(backupStart(name, 1024 ** 3), 0x2_c000_0028n)
})
