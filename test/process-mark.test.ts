// Who has made a file, and whether they may still write to it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Files } from '../src/system/files.ts'
import { isGone, ownMark, type ProcessMark, parseMark, printMark } from '../src/system/process-mark.ts'
import { realFiles } from '../src/system/real-files.ts'
import { markedProcess } from './support/marked-process.ts'

test('a process is gone when it has ended, and not before', async () => {
  await using other = await markedProcess()
  assert.equal(await isGone(realFiles, other.mark), false)
  // Its number may be given to another one.
  assert.equal(await isGone(realFiles, { ...other.mark, start: `${other.mark.start}1` }), true)
  await other.end()
  assert.equal(await isGone(realFiles, other.mark), true)
})

test('a mark says the same after it was printed, and nothing else is one', async () => {
  const own = await ownMark(realFiles)
  assert.ok(own)
  assert.equal(own.pid, process.pid)
  for (const mark of [own, { ...own, machine: undefined }]) assert.deepEqual(parseMark(printMark(mark)), mark)
  for (const text of ['', '1', `${printMark(own)}_1`, printMark(own).slice(1 + own.host.length)])
    assert.equal(parseMark(text), undefined)
  // With the longest name that is archived there is room for it in the name of a lock.
  const longest = printMark({
    ...own,
    host: 'h'.repeat(32),
    pid: 4_194_304,
    uid: 2 ** 32 - 1,
    start: '9'.repeat(12),
  })
  const name = '000000010000000000000001.00000028.backup.pgarchivist'
  assert.ok(`${name}.lock..${name}.${longest}.0123456789abcdef.tmp`.length <= 255)
})

interface Machine {
  host?: string
  machineId?: string
  boot?: string
  pidNamespace?: bigint
  uid?: number
  /** Start by process number. */
  running?: Record<number, string>
}

const initial = 4_026_531_836n

/** What a process sees that has number 10. */
function machine(options: Machine): Files {
  const {
    host = 'db1',
    machineId = 'm1',
    boot = 'b1',
    pidNamespace = initial,
    uid = 26,
    running = {},
  } = options
  const stat = (pid: number, start: string) => `${pid} (node) S 1${' 0'.repeat(17)} ${start} 0`
  const texts = new Map([
    ['/proc/self/stat', stat(10, '500')],
    ['/proc/10/stat', stat(10, '500')],
    ['/proc/sys/kernel/hostname', `${host}\n`],
    ['/proc/sys/kernel/random/boot_id', `${boot}\n`],
    ...(machineId === '' ? [] : ([['/etc/machine-id', `${machineId}\n`]] as const)),
    ...Object.entries(running).map(
      ([pid, start]) => [`/proc/${pid}/stat`, stat(Number(pid), start)] as const,
    ),
  ])
  return {
    ...realFiles,
    readText: async path => {
      const text = texts.get(path)
      if (text !== undefined) return text
      throw Object.assign(new Error(path), { code: 'ENOENT' })
    },
    stat: async path => ({
      ...(await realFiles.stat('/')),
      uid,
      inode: path.endsWith('/ns/pid') ? pidNamespace : 1n,
    }),
  }
}

/** The mark of process 20 there, which was started at 600. */
async function markAt(there: Machine): Promise<ProcessMark> {
  const mark = await ownMark(machine(there))
  assert.ok(mark)
  return { ...mark, pid: 20, start: '600' }
}

test('only what certainly is gone is gone: others may have the number, the name or the machine, or not be seen', async () => {
  const container = 4_026_532_000n
  const cases: [said: string, made: Machine, looking: Machine, gone: boolean][] = [
    ['it runs', {}, { running: { 20: '600' } }, false],
    ['it has ended', {}, {}, true],
    ['another one has its number', {}, { running: { 20: '601' } }, true],
    ['it is in another container', { pidNamespace: container }, {}, false],
    ['it is outside of this container', {}, { pidNamespace: container }, false],
    ['it was in this container', { pidNamespace: container }, { pidNamespace: container }, true],
    ['it is of another user, and hidden perhaps', { uid: 27 }, {}, false],
    ['it is of another user, and root sees all', { uid: 27 }, { uid: 0 }, true],
    ['the machine was started again', { boot: 'b0' }, {}, true],
    ['it is on another machine', { boot: 'b0', machineId: 'm2' }, {}, false],
    ['it is on a copy of this machine', { boot: 'b0', host: 'db2' }, {}, false],
    ['machines cannot be told apart', { boot: 'b0', machineId: '' }, { machineId: '' }, false],
    [
      'it was in a container of an image',
      { boot: 'b0', pidNamespace: container },
      { pidNamespace: container },
      false,
    ],
  ]
  for (const [said, made, looking, gone] of cases) {
    assert.equal(await isGone(machine(looking), await markAt(made)), gone, said)
  }
})

test('where the system does not tell, nobody has a mark and nobody is gone', async () => {
  const mark = await markAt({})
  const files: Files = { ...realFiles, readText: async () => Promise.reject(new Error('there is no /proc')) }
  assert.equal(await ownMark(files), undefined)
  assert.equal(await isGone(files, mark), false)
})
