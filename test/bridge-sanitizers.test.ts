// The library in a living server, built with gcc's checks of memory and arithmetic, through all that happens to it.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { BridgedServer, removeTemplates, until } from './bridge/bridged-server.ts'
import { copyingWith } from './bridge/modules.ts'
import { sanitized } from './bridge/sanitized-server.ts'

const majors = [15, 18]

const files = 300
const reloads = 12

/** Settings of each kind, messages of each kind, several files at once, and a worker. */
const busy = (boot: number) =>
  copyingWith({
    atTop: `export async function beside(argument, { signal, ereport }) {
  note('worker begins')
  ereport('LOG', { errmsg: 'the worker is there' })
  await new Promise(resolve => signal.addEventListener('abort', resolve))
}`,
    inInit: `
  server.RegisterBackgroundWorker({ bgw_name: 'beside', bgw_function_name: 'beside' })
  const count = server.DefineCustomIntVariable({ name: 'probe.count', short_desc: 'A number.', boot_value: ${boot}, min_value: 0, max_value: 100 })
  const pause = server.DefineCustomIntVariable({ name: 'probe.pause', short_desc: 'A time.', boot_value: 7, flags: ['GUC_UNIT_MS'] })
  const ratio = server.DefineCustomRealVariable({ name: 'probe.ratio', short_desc: 'A ratio.', boot_value: 0.5, min_value: 0, max_value: 1 })
  const level = server.DefineCustomEnumVariable({ name: 'probe.level', short_desc: 'A level.', boot_value: 'low', options: ['low', 'high'] })
  const secret = server.DefineCustomStringVariable({ name: 'probe.secret', short_desc: 'A secret.', boot_value: '', flags: ['GUC_SUPERUSER_ONLY'] })
  const on = server.DefineCustomBoolVariable({ name: 'probe.on', short_desc: 'A switch.', boot_value: false })
  const name = server.DefineCustomStringVariable({ name: 'probe.name', short_desc: 'A name.', boot_value: '',
    check_hook(value, check) {
      if (!value.startsWith('bad')) return true
      check.GUC_check_errdetail('Bad names are not accepted.')
      return false
    } })
  server.MarkGUCPrefixReserved('probe')`,
    callback: `
    archive_ahead: true,
    check_configured_cb() {
      if (!inTrouble()) return true
      for (const level of ['DEBUG1', 'INFO', 'NOTICE', 'WARNING', 'LOG'])
        server.ereport(level, { errmsg: '%s%n ' + 'ü'.repeat(4000), errdetail: '%d'.repeat(2000), errhint: 'Be\\nglad.', errcode: '01004' })
      server.arch_module_check_errdetail('It is %s since ' + 'long '.repeat(1000))
      return false
    },
    shutdown_cb() { note('shutdown') },`,
  })

/** What the archiver's own memory is, by the names of its contexts. */
async function memoryOf(bridged: BridgedServer): Promise<Map<string, number>> {
  const before = await bridged.saidTimes(/^LOG: {2}Grand total: /)
  await bridged.postgres.query(
    `SELECT pg_log_backend_memory_contexts(pid) FROM pg_stat_activity WHERE backend_type = 'archiver'`,
  )
  await bridged.says(/^LOG: {2}Grand total: /, { times: before + 1 })
  const lines = await bridged.said()
  const from = lines.findLastIndex(line => line.startsWith('LOG:  logging memory contexts'))
  const used = new Map<string, number>()
  for (const line of lines.slice(from)) {
    const [, name = '', bytes] =
      /^LOG: {2}level: \d+; (?:\D+: .*?)?([\w ]+): \d+ total .*; (\d+) used$/.exec(line) ?? []
    if (bytes !== undefined) used.set(name, (used.get(name) ?? 0) + Number(bytes))
  }
  return used
}

describe('with checks of memory and arithmetic', { concurrency: 2 }, () => {
  for (const major of majors) {
    test(`PostgreSQL ${major} archives, reloads, loses processes and stops, and nothing is found`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}`)
      await using checked = await sanitized(major)
      await using bridged = await BridgedServer.start({
        major,
        module: busy(7),
        library: checked.library,
        startServer: checked.startServer,
        // A checkpoint would remove what tells that a file is archived.
        settings: {
          max_wal_size: '1GB',
          'probe.count': '1',
          'probe.name': 'bad from the start',
          'probe.typo': '1',
        },
      })
      const { postgres } = bridged
      await bridged.staysUp(async () => {
        await bridged.archives(await postgres.switchWal())
        await bridged.says('LOG:  the worker is there')
        const archiver = await bridged.archiverPid()

        for (let file = 1; file <= files; file++)
          await bridged.makeReady(
            `0000000100000A00${file.toString(16).toUpperCase().padStart(8, '0')}`,
            `${file}`,
          )
        await bridged.makeReady('0000000100000A0000000001.00000028.backup', '')
        await bridged.makeReady('00000007.history', 'history')
        await postgres.switchWal()
        await bridged.archivesAll()
        await bridged.counts({ archived_count: files + 4, failed_count: 0 })

        const change = async (round: number): Promise<void> => {
          await postgres.configure({
            'probe.count': ['5', '101', 'many', '-1'][round % 4] ?? '',
            'probe.pause': ['1min', '2h', '300000d'][round % 3] ?? '',
            'probe.ratio': ['0.25', 'NaN', '1e300'][round % 3] ?? '',
            'probe.level': ['high', 'higher'][round % 2] ?? '',
            'probe.on': ['off', 'on', 'perhaps'][round % 3] ?? '',
            'probe.name': `${['good', 'bad'][round % 2]} ${'x'.repeat(round * 100)}`,
            'probe.secret': `${round}`,
            'pgarchivist.archive_ahead': `${1 + (round % 8)}`,
            'pgarchivist.memory_limit': ['0', '512MB', '1GB'][round % 3] ?? '',
          })
          await bridged.archives(await postgres.switchWal())
        }
        for (let round = 0; round < reloads; round++) await change(round)
        const early = await memoryOf(bridged)
        for (let round = 0; round < reloads; round++) await change(round)
        const late = await memoryOf(bridged)
        assert.equal(late.get('pgarchivist'), early.get('pgarchivist'))
        // What a reload changes is text of the same lengths.
        const growth = (late.get('TopMemoryContext') ?? 0) - (early.get('TopMemoryContext') ?? Number.NaN)
        assert(growth <= 1024, `TopMemoryContext has grown by ${growth} bytes in ${reloads} reloads`)

        for (let times = 1; times <= 3; times++) {
          process.kill(await bridged.nodePid(), 'SIGKILL')
          await bridged.archives(await postgres.switchWal())
        }
        process.kill(await bridged.nodePid(), 'SIGSTOP')
        await bridged.archives(await postgres.switchWal())
        await bridged.says('WARNING:  pgarchivist process (PID <pid>) was ended: it does not answer')
        const keeper = await bridged.findKeeper(await bridged.nodePid())
        assert(keeper !== undefined)
        process.kill(keeper, 'SIGKILL')
        await bridged.archives(await postgres.switchWal())

        await bridged.makeTrouble()
        const unwanted = await postgres.switchWal()
        await bridged.says(/^WARNING: {2}"?archive_mode"? enabled, yet archiving is not configured$/)
        await bridged.endTrouble()
        await bridged.archives(unwanted)
        assert.equal(await bridged.archiverPid(), archiver, 'the archiver is the same process')
        assert.deepEqual(await checked.reports(postgres), [])

        // A module that declares the same settings otherwise.
        await postgres.configure({ 'pgarchivist.module': await bridged.writeModule(busy(8), 'other.ts') })
        await bridged.archives(await postgres.switchWal())
        await bridged.says(
          'LOG:  restarting archiver process because value of "pgarchivist.module" was changed',
        )
        assert.notEqual(await bridged.archiverPid(), archiver)
      })
      await postgres.stop('fast')
      await bridged.leavesNobody()
      await until('the last module was shut down', async () => (await bridged.journal()).includes('shutdown'))
      assert.deepEqual(await checked.reports(postgres), [])
    })
  }

  // Otherwise the others would prove nothing.
  for (const [deed, report, ...preprocessorOptions] of [
    ['a write behind what was allocated', /AddressSanitizer: heap-buffer-overflow/, '-DWRITE_TOO_FAR'],
    ['a write behind an array', /runtime error: index 8 out of bounds/],
  ] as const) {
    test(`${deed} would be found`, async () => {
      const mainSource = join(import.meta.dirname, 'bridge/overflowing-library.c')
      await using checked = await sanitized(18, { mainSource, preprocessorOptions })
      await using bridged = await BridgedServer.start({
        major: 18,
        module: busy(7),
        library: checked.library,
        startServer: checked.startServer,
      })
      await until('it is found', async () => {
        const reports = await checked.reports(bridged.postgres)
        return reports.some(each => report.test(each))
      })
    })
  }
})

after(removeTemplates)
