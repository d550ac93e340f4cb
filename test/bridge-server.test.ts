// The contract of archive modules, kept by the server's own archiver with a module in TypeScript.

import assert from 'node:assert/strict'
import { chmod, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../src/cli/install/compile.ts'
import {
  BridgedServer,
  childrenOf,
  exists,
  isAlive,
  removeTemplates,
  until,
  writeFor,
} from './bridge/bridged-server.ts'
import { copying, copyingWith } from './bridge/modules.ts'
import { availableMajors } from './support/postgresql-server.ts'
import { buildableMajors, buildServerLibrary, serverHeaders } from './support/server-library.ts'
import { checkout } from './support/unprivileged.ts'

// The contract is tried in all majors, what does not depend on them in the oldest and the newest stable one.
const majors = [15, 18]
const available = await availableMajors()
const allMajors = (await buildableMajors()).filter(major => available.includes(major))

const gaveUp = (file: string) =>
  `WARNING:  archiving write-ahead log file "${file}" failed too many times, will try again later`
const changedModule = 'LOG:  restarting archiver process because value of "pgarchivist.module" was changed'
const changedLibrary = 'LOG:  restarting archiver process because value of "archive_library" was changed'

const notANode = (path: string) =>
  `pgarchivist: "${path}" is not a Node of version 24.21.0 or newer: change "pgarchivist.node" or PGARCHIVIST_NODE`

/** An archiver is not started again within ten seconds of its start. */
async function mayRestartArchiver(bridged: BridgedServer): Promise<void> {
  await until('the archiver is old enough to be started again at once', async () => {
    const [row] = await bridged.postgres.query<{ isOld: boolean }>(
      `SELECT now() - backend_start > '11 s' AS "isOld" FROM pg_stat_activity WHERE backend_type = 'archiver'`,
    )
    return row?.isOld === true
  })
}

describe('with the library in the server', { concurrency: 6 }, () => {
  for (const major of allMajors) {
    test(`the module basic_archive archives in PostgreSQL ${major}`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}`)
      await using bridged = await BridgedServer.start({ major, module: 'basic_archive', timeouts: 'default' })
      const { archive } = bridged.places
      await bridged.staysUp(async () => {
        await bridged.postgres.configure({ 'basic_archive.archive_directory': archive })
        const name = await bridged.postgres.switchWal()
        await bridged.archives(name)
        const [copy, source] = await Promise.all([
          readFile(join(archive, name)),
          readFile(join(bridged.postgres.dataDirectory, 'pg_wal', name)),
        ])
        assert(copy.equals(source))
        await bridged.counts({ archived_count: 1, last_archived_wal: name, failed_count: 0 })
      })
      await bridged.postgres.stop('fast')
      await bridged.leavesNobody()
    })

    test(`PostgreSQL ${major} gives the callbacks their state, and files of all kinds in its order`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: ({ archive, journal, trouble }) => `
import { appendFileSync, copyFileSync, existsSync } from 'node:fs'
const note = text => appendFileSync('${journal}', text + '\\n')
export function _PG_archive_module_init(server) {
  note('init ' + [server.contract_version, server.wal_segment_size, Math.floor(server.server_version_num / 10000)])
  return {
    startup_cb(state) { state.private_data = { files: 0 }; note('startup ' + server.data_directory) },
    check_configured_cb(state) {
      if (!existsSync('${trouble}')) return true
      server.arch_module_check_errdetail('There is trouble after ' + state.private_data.files + ' files.')
      return false
    },
    archive_file_cb(state, file, path, { signal }) {
      copyFileSync(path, '${archive}/' + file)
      state.private_data.files++
      note([file, path === server.data_directory + '/pg_wal/' + file, process.cwd() === server.data_directory, signal.aborted].join(' '))
      return true
    },
    shutdown_cb(state) { note('shutdown after ' + state.private_data.files) },
  }
}`,
        isInTrouble: true,
      })
      const { postgres } = bridged
      const first = await postgres.switchWal()
      const notConfigured =
        major >= 17
          ? 'WARNING:  "archive_mode" enabled, yet archiving is not configured'
          : 'WARNING:  archive_mode enabled, yet archiving is not configured'
      await bridged.says(notConfigured)
      if (major >= 17) await bridged.says('DETAIL:  There is trouble after 0 files.')
      // Not configured is not a failure.
      await bridged.counts({ archived_count: 0, failed_count: 0 })

      const segment = '000000010000000A00000002'
      const files = [
        segment,
        `${segment}.00000028.backup`,
        `${segment}.partial`,
        '00000007.history',
        'rotarybackupstory',
      ]
      for (const file of files) await bridged.makeReady(file, `content of ${file}`)
      await bridged.endTrouble()
      const last = await postgres.switchWal()
      for (const file of [first, last, ...files]) await bridged.archives(file)
      for (const file of files)
        assert.equal(await readFile(join(bridged.places.archive, file), 'utf8'), `content of ${file}`)
      await bridged.counts({ archived_count: 7, failed_count: 0, last_archived_wal: 'rotarybackupstory' })

      await postgres.stop('fast')
      const given = (file: string) => `${file} true true false`
      assert.deepEqual((await bridged.journal()).slice(0, 9), [
        `init 1,1048576,${major}`,
        `startup ${postgres.dataDirectory}`,
        ...['00000007.history', first, last, ...files.slice(0, 3), 'rotarybackupstory'].map(given),
      ])
      assert.match((await bridged.journal()).at(-1) ?? '', /^shutdown after [78]$/)
      await bridged.leavesNobody()
    })

    test(`what a module reports is in the log of PostgreSQL ${major}, with DETAIL and HINT, and ERROR goes no further`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying(`
          for (const level of ['DEBUG5', 'DEBUG1', 'INFO', 'NOTICE', 'WARNING', 'LOG'])
            server.ereport(level, { errmsg: 'a ' + level, errdetail: 'The 100% facts.', errhint: 'Be\\nglad.', errcode: '01004' })
          server.ereport('ERROR', { errmsg: 'could not do it: ü', errcode: '58P01', errhint: 'Try again.' })`),
        settings: { log_line_prefix: '%b [%p] %e ', log_min_messages: 'debug1' },
        isInTrouble: true,
      })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        await bridged.counts({ failed_count: 3, last_failed_wal: name, archived_count: 0 })
        const lines = (await bridged.postgres.log()).split('\n').flatMap(line => {
          const [, text] = /^archiver \[\d+\] (.*)$/.exec(line) ?? []
          return text === undefined ? (line.startsWith('\t') ? [line] : []) : [text]
        })
        const start = lines.findIndex(line => line.endsWith('a DEBUG1'))
        const more = (code: string) => [`${code} DETAIL:  The 100% facts.`, `${code} HINT:  Be`, '\tglad.']
        assert.deepEqual(lines.slice(start, start + 22), [
          ...['01004 DEBUG:  a DEBUG1', ...more('01004')],
          // To the server's log INFO is what LOG is; PostgreSQL itself would show it nowhere else.
          ...['01004 LOG:  a INFO', ...more('01004')],
          ...['01004 NOTICE:  a NOTICE', ...more('01004')],
          ...['01004 WARNING:  a WARNING', ...more('01004')],
          ...['01004 LOG:  a LOG', ...more('01004')],
          '58P01 ERROR:  could not do it: ü',
          '58P01 HINT:  Try again.',
        ])
        await bridged.endTrouble()
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`PostgreSQL ${major} knows the settings of the module, with units, and tells it new values`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: ({ archive, journal }) => `
import { appendFileSync, copyFileSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  const pause = server.DefineCustomIntVariable({ name: 'probe.pause', short_desc: 'A time.', boot_value: 7,
    min_value: 0, max_value: 600000, flags: ['GUC_UNIT_MS'] })
  const memory = server.DefineCustomIntVariable({ name: 'probe.memory', short_desc: 'Memory.', boot_value: 64, flags: ['GUC_UNIT_KB'] })
  const ratio = server.DefineCustomRealVariable({ name: 'probe.ratio', short_desc: 'A ratio.', boot_value: 0.5, min_value: 0, max_value: 1 })
  const level = server.DefineCustomEnumVariable({ name: 'probe.level', short_desc: 'A level.', boot_value: 'low', options: ['low', 'high'] })
  const name = server.DefineCustomStringVariable({ name: 'probe.name', short_desc: 'A name.', boot_value: '',
    check_hook(value, check) {
      if (value !== 'bad') return true
      check.GUC_check_errdetail('Bad names are not accepted.')
      return false
    } })
  const on = server.DefineCustomBoolVariable({ name: 'probe.on', short_desc: 'A switch.', boot_value: false })
  server.MarkGUCPrefixReserved('probe')
  return {
    archive_file_cb(state, file, path) {
      const values = [pause, memory, ratio, level, name, on].map(each => JSON.stringify(each.value))
      appendFileSync('${journal}', values.join(' ') + '\\n')
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}`,
        settings: {
          'probe.pause': '2s',
          'probe.memory': '1MB',
          'probe.level': 'HIGH',
          'probe.name': `it's "ü"`,
          'probe.on': 'yes',
          'probe.typo': '1',
        },
      })
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        assert.deepEqual(await bridged.journal(), [`2000 1024 0.5 "high" "it's \\"ü\\"" true`])
        await bridged.says('WARNING:  invalid configuration parameter name "probe.typo", removing it')

        await bridged.postgres.configure({
          'probe.pause': '1min',
          'probe.ratio': '0.25',
          'probe.name': 'bad',
          'probe.on': 'off',
          'probe.memory': 'much',
        })
        await bridged.archives(await bridged.postgres.switchWal())
        assert.equal((await bridged.journal())[1], `60000 1024 0.25 "high" "it's \\"ü\\"" false`)
        await bridged.says('WARNING:  invalid value for parameter "probe.name": "bad"')
        await bridged.says('DETAIL:  Bad names are not accepted.')

        // A process that is started again gets what is true now.
        process.kill(await bridged.nodePid(), 'SIGKILL')
        await bridged.postgres.configure({ 'probe.name': 'good', 'probe.memory': '2MB' })
        await bridged.archives(await bridged.postgres.switchWal())
        assert.equal((await bridged.journal()).at(-1), `60000 2048 0.25 "high" "good" false`)
        assert.equal(await bridged.saidTimes(/attempt to redefine|declaration of/), 0)
      })
    })

    test(`another module is used after a reload in PostgreSQL ${major}, and contrib's library after another`, async () => {
      const withShutdown = (name: string) =>
        copyingWith({
          callback: `shutdown_cb() { note('shutdown of ${name}') },`,
          inInit: `note('init of ${name}')`,
        })
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: withShutdown('one'),
      })
      const { postgres } = bridged
      const two = await bridged.writeModule(withShutdown('two'), 'two.ts')
      await bridged.staysUp(async () => {
        const first = await postgres.switchWal()
        await bridged.archives(first)
        await mayRestartArchiver(bridged)
        await postgres.configure({ 'pgarchivist.module': two })
        const second = await postgres.switchWal()
        await bridged.archives(second, 10_000)
        await bridged.says(changedModule)
        assert.deepEqual(await bridged.journal(), [
          'init of one',
          `attempt ${first}`,
          'shutdown of one',
          'init of two',
          `attempt ${second}`,
        ])

        await mayRestartArchiver(bridged)
        const { archive } = bridged.places
        await postgres.configure({
          archive_library: 'basic_archive',
          'basic_archive.archive_directory': archive,
        })
        const third = await postgres.switchWal()
        await bridged.archives(third, 10_000)
        await bridged.says(changedLibrary)
        assert.deepEqual((await bridged.journal()).slice(5), ['shutdown of two'])
        assert(await exists(join(archive, third)))
        await bridged.counts({ archived_count: 3, failed_count: 0 })
        assert.deepEqual(
          (await bridged.processes()).filter(each => each.includes('pgarchivist:')),
          [],
        )
      })
    })

    test(`PostgreSQL ${major} is given files in its order while the module has several of them at once`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: ({ archive, journal, trouble }) => `
import { appendFileSync, copyFileSync, existsSync } from 'node:fs'
const note = text => appendFileSync('${journal}', text + '\\n')
let atOnce = 0
export function _PG_archive_module_init(server) {
  return {
    archive_ahead: true,
    async archive_file_cb(state, file, path) {
      // The server may look before all are there. Nothing has failed then.
      while (existsSync('${trouble}')) await new Promise(resolve => setTimeout(resolve, 5))
      note('begins ' + file)
      note('at once ' + ++atOnce)
      // Until there are as many as there may be, or no more come.
      for (let times = 0; times < 100 && atOnce < 3; times++) await new Promise(resolve => setTimeout(resolve, 5))
      copyFileSync(path, '${archive}/' + file)
      atOnce--
      note('ends ' + file)
      return true
    },
  }
}`,
        settings: { 'pgarchivist.archive_ahead': '3' },
        isInTrouble: true,
      })
      // They come before the server's own, so that the order is the same if it finds them by itself before the switch.
      const files = Array.from({ length: 9 }, (_, at) => `0000000000000A000000000${at + 1}`)
      for (const file of files) await bridged.makeReady(file, `content of ${file}`)
      await bridged.endTrouble()
      const last = await bridged.postgres.switchWal()
      for (const file of [...files, last]) await bridged.archives(file)
      const journal = await bridged.journal()
      const begun = journal.flatMap(line => /^begins (.*)$/.exec(line)?.[1] ?? [])
      assert.deepEqual([...new Set(begun)].toSorted(), [...files, last])
      for (const file of files) {
        const itsLines = journal.filter(line => line.endsWith(file)).map(line => line.replace(file, ''))
        // Again is allowed, and may be under way; at once it is not.
        assert.match(itsLines.join(''), /^(begins ends )+(begins )?$/)
      }
      assert(journal.includes('at once 3'))
      assert(!journal.includes('at once 4'))
      await bridged.counts({ archived_count: 10, failed_count: 0, last_archived_wal: last })
      await bridged.postgres.stop('fast')
      await bridged.leavesNobody()
    })
  }

  for (const major of majors) {
    // To tell whether somebody may see such a setting the server looks into its catalogs, which an archiver cannot.
    test(`a setting that only superusers may see can be read and changed in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: ({ archive, journal }) => `
import { appendFileSync, copyFileSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  const secret = server.DefineCustomStringVariable({ name: 'probe.secret', short_desc: 'A secret.', boot_value: '', flags: ['GUC_SUPERUSER_ONLY'] })
  return {
    archive_file_cb(state, file, path) {
      appendFileSync('${journal}', secret.value + '\\n')
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}`,
        settings: { 'probe.secret': 'a' },
      })
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        await bridged.postgres.configure({ 'probe.secret': 'b' })
        await bridged.archives(await bridged.postgres.switchWal())
        assert.deepEqual(await bridged.journal(), ['a', 'b'])
      })
    })

    test(`a worker of the module lives through the last cycle of PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: places => `
${copyingWith({
  inInit: `server.RegisterBackgroundWorker({ bgw_name: 'beside', bgw_function_name: 'beside' })`,
  callback: `shutdown_cb() { note('shutdown') },`,
})(places)}
export async function beside(argument, { signal }) {
  note('worker begins')
  await new Promise(resolve => signal.addEventListener('abort', resolve))
  note('worker ends')
}`,
      })
      const { postgres } = bridged
      const first = await postgres.switchWal()
      await bridged.archives(first)
      await until('the worker runs', async () => (await bridged.journal()).includes('worker begins'))
      await postgres.query(`SELECT pg_logical_emit_message(false, 'test', 'for the last segment')`)
      await postgres.stop('fast')
      await bridged.leavesNobody()
      const journal = (await bridged.journal()).filter(line => line !== 'worker begins')
      const last = journal[1] ?? ''
      assert.match(last, /^attempt [0-9A-F]{24}$/)
      assert.deepEqual(journal, [`attempt ${first}`, last, 'shutdown', 'worker ends'])
    })

    test(`a worker that blocks its thread does not outlive PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: places => `
${copyingWith({ inInit: `server.RegisterBackgroundWorker({ bgw_name: 'beside', bgw_function_name: 'beside' })` })(places)}
export function beside() {
  note('worker begins')
  for (;;);
}`,
      })
      await bridged.archives(await bridged.postgres.switchWal())
      await until('the worker runs', async () => (await bridged.journal()).includes('worker begins'))
      await bridged.postgres.stop('fast')
      await bridged.leavesNobody()
    })

    test(`loaded by all processes of PostgreSQL ${major}, its settings are seen and validated`, async () => {
      const library = await buildServerLibrary(major)
      await using bridged = await BridgedServer.start({
        major,
        module: copying(),
        settings: { shared_preload_libraries: library },
      })
      const { postgres } = bridged
      await bridged.staysUp(async session => {
        const { rows } = await session.query<{ name: string; setting: string; unit: string | null }>(
          `SELECT name, setting, unit FROM pg_settings WHERE name LIKE 'pgarchivist.%' ORDER BY name`,
        )
        assert.deepEqual(
          rows.map(({ name, setting, unit }) =>
            `${name} ${setting} ${unit ?? ''}`.replace(bridged.places.root, '<root>'),
          ),
          [
            'pgarchivist.archive_ahead 4 ',
            'pgarchivist.compression_level 1 ',
            'pgarchivist.encryption_recipients  ',
            'pgarchivist.file_timeout 1000 ms',
            'pgarchivist.header_check on ',
            'pgarchivist.identity_file  ',
            'pgarchivist.memory_limit 512 MB',
            'pgarchivist.module <root>/module.ts ',
            'pgarchivist.node  ',
            'pgarchivist.repository  ',
            'pgarchivist.repository_quorum 0 ',
            'pgarchivist.spool_directory  ',
            'pgarchivist.spool_limit 1048576 kB',
            'pgarchivist.start_timeout 10000 ms',
            'pgarchivist.stop_timeout 1000 ms',
          ],
        )
        await assert.rejects(session.query(`ALTER SYSTEM SET pgarchivist.file_timeout = '1ms'`), {
          message:
            /^1 ms is outside the valid range for parameter "pgarchivist.file_timeout" \(1000( ms)? \.\. 1073741823( ms)?\)$/,
        })
        await assert.rejects(session.query('ALTER SYSTEM SET pgarchivist.typo = 1'))
        await bridged.archives(await postgres.switchWal())
      })
    })

    test(`spaces, quotes and letters of the path of the data directory of PostgreSQL ${major} reach the module`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying(),
        dataName: `dätä 'of' "x" $1 \\`,
      })
      const module = await bridged.writeModule(copying(), `mödule 'of' "x".ts`)
      await bridged.archives(await bridged.postgres.switchWal())
      await mayRestartArchiver(bridged)
      await bridged.postgres.configure({ 'pgarchivist.module': module })
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.says(changedModule)
      await bridged.counts({ archived_count: 2, failed_count: 0 })
    })

    test(`a file that keeps failing is tried three times while nothing else happens in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying('return false'),
        isInTrouble: true,
      })
      const name = await bridged.postgres.switchWal()
      await bridged.says(gaveUp(name))
      // Long enough for several rounds, if something woke the archiver each time.
      await sleep(10_000)
      assert.deepEqual(await bridged.journal(), Array<string>(3).fill(`attempt ${name}`))
      await bridged.counts({ failed_count: 3, archived_count: 0 })
    })

    test(`a file at which the process dies is tried three times while nothing else happens in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying(`process.kill(process.pid, 'SIGKILL')`),
        isInTrouble: true,
      })
      const name = await bridged.postgres.switchWal()
      await bridged.says(gaveUp(name))
      await sleep(10_000)
      assert.deepEqual(await bridged.journal(), Array<string>(3).fill(`attempt ${name}`))
      await bridged.counts({ failed_count: 3, archived_count: 0 })
    })
  }
})

describe('when the process beside the archiver is', { concurrency: 6 }, () => {
  for (const major of allMajors) {
    test(`killed in PostgreSQL ${major}, the next file finds another one`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        for (let times = 1; times <= 5; times++) {
          const pid = await bridged.nodePid()
          process.kill(pid, 'SIGKILL')
          await bridged.archives(await bridged.postgres.switchWal())
          await bridged.says('LOG:  pgarchivist process (PID <pid>) was terminated by signal 9: Killed', {
            times,
          })
        }
      })
      await bridged.postgres.stop('fast')
      await bridged.leavesNobody()
    })
  }

  for (const major of majors) {
    test(`stopped in PostgreSQL ${major}, it is replaced, and nobody waits for it`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      await bridged.staysUp(async session => {
        await bridged.archives(await bridged.postgres.switchWal())
        process.kill(await bridged.nodePid(), 'SIGSTOP')
        const name = await bridged.postgres.switchWal()
        const start = Date.now()
        await session.query('DROP DATABASE victim')
        assert(Date.now() - start < 2_000, `DROP DATABASE took ${Date.now() - start} ms`)
        await bridged.archives(name)
        await bridged.says('WARNING:  pgarchivist process (PID <pid>) was ended: it does not answer')
        process.kill(await bridged.nodePid(), 'SIGSTOP')
      })
      await bridged.postgres.switchWal()
      const start = Date.now()
      await bridged.postgres.stop('fast')
      assert(Date.now() - start < 15_000, `the shutdown took ${Date.now() - start} ms`)
      await bridged.leavesNobody()
    })

    test(`stopped for a moment in PostgreSQL ${major}, it goes on as the same`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      await bridged.archives(await bridged.postgres.switchWal())
      const pid = await bridged.nodePid()
      process.kill(pid, 'SIGSTOP')
      const name = await bridged.postgres.switchWal()
      await sleep(500)
      process.kill(pid, 'SIGCONT')
      await bridged.archives(name)
      assert.equal(await bridged.nodePid(), pid)
      await bridged.counts({ archived_count: 2, failed_count: 0 })
    })

    // Each of these ends with nobody left, whatever the process is doing.
    const states: Array<[string, string]> = [
      ['has nothing to do', ''],
      ['blocks its thread', 'for (;;);'],
      ['is stopped', `process.kill(process.pid, 'SIGSTOP')`],
    ]
    for (const [state, statements] of states) {
      test(`left alone because PostgreSQL ${major} is killed or stopped at once while it ${state}, it ends too`, async () => {
        for (const end of ['immediate', 'kill'] as const) {
          await using bridged = await BridgedServer.start({
            major,
            module: copying(statements),
            settings: { 'pgarchivist.file_timeout': '30s' },
          })
          await bridged.archives(await bridged.postgres.switchWal())
          await bridged.makeTrouble()
          if (statements !== '') {
            const name = await bridged.postgres.switchWal()
            await until('the module has the file', async () =>
              (await bridged.journal()).includes(`attempt ${name}`),
            )
          }
          const node = await bridged.nodePid()
          if (end === 'immediate') await bridged.postgres.stop('immediate')
          else {
            bridged.postgres.kill('SIGKILL')
            await bridged.postgres.ended()
          }
          await bridged.leavesNobody()
          await until('the process has ended', async () => !(await isAlive(node)), 5_000)
        }
      })
    }

    test(`left alone because the archiver of PostgreSQL ${major} is told to end, it ends with it and comes back with the next`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        const node = await bridged.nodePid()
        const archiver = await bridged.archiverPid()
        assert(archiver !== undefined)
        process.kill(archiver, 'SIGTERM')
        const name = await bridged.postgres.switchWal()
        // The server's archiver waits a minute for the end of the server before it ends by itself.
        await until('the process ends', async () => !(await isAlive(node)), 75_000)
        await bridged.archives(name)
        assert.notEqual(await bridged.archiverPid(), archiver)
        await bridged.counts({ archived_count: 2, failed_count: 0 })
      })
    })

    test(`started again and again in PostgreSQL ${major}, the archiver has no more descriptors than before`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      await bridged.archives(await bridged.postgres.switchWal())
      const archiver = await bridged.archiverPid()
      assert(archiver !== undefined)
      const before = await bridged.descriptors(archiver)
      for (let times = 0; times < 5; times++) {
        process.kill(await bridged.nodePid(), 'SIGKILL')
        await bridged.archives(await bridged.postgres.switchWal())
      }
      assert.equal(await bridged.archiverPid(), archiver)
      assert.deepEqual(await bridged.descriptors(archiver), before)
      assert.equal((await childrenOf(archiver)).length, 1)
    })
  }
})

describe('what is not there is told', { concurrency: 6 }, () => {
  for (const major of majors) {
    test(`a module without a file, and one with an error in it, in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({ major, module: '/nowhere/module.ts' })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        await bridged.says('ERROR:  could not access file "/nowhere/module.ts": No such file or directory')
        await mayRestartArchiver(bridged)
        const broken = await bridged.writeModule(() => 'export function (', 'broken.ts')
        await bridged.postgres.configure({ 'pgarchivist.module': broken })
        await bridged.nudgeUntilSays(
          /^ERROR: {2}could not load library "<root>\/broken.ts": <root>\/broken.ts:1: /,
        )
        await mayRestartArchiver(bridged)
        await bridged.postgres.configure({ 'pgarchivist.module': await bridged.writeModule(copying()) })
        await bridged.archives(name)
      })
    })

    test(`a Node that is too old, or not there, in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      const old = join(bridged.places.root, 'old-node')
      await writeFor(old, '#!/bin/sh\necho v20.19.4\n')
      await chmod(old, 0o755)
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        await bridged.postgres.configure({ 'pgarchivist.node': old })
        process.kill(await bridged.nodePid(), 'SIGKILL')
        const first = await bridged.postgres.switchWal()
        await bridged.says(notANode('<root>/old-node'))
        await bridged.postgres.configure({ 'pgarchivist.node': '/nowhere/node' })
        const second = await bridged.postgres.switchWal()
        await bridged.says(notANode('/nowhere/node'))
        assert.equal(await bridged.isDone(first), false)
        await bridged.postgres.configure({ 'pgarchivist.node': '' })
        await bridged.archives(first)
        await bridged.archives(second)
      })
    })

    test(`a pgarchivist that has been moved, in PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({ major, module: copying() })
      const { root } = bridged.places
      const launcher = join(root, 'pgarchivist')
      const headers = (await serverHeaders()).get(major)
      assert(headers !== undefined)
      const library = join(root, 'other.so')
      await compile({ compiler: ['cc'], major, includeDirectories: [headers], launcher, output: library }, '')
      await chmod(library, 0o755)
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        await mayRestartArchiver(bridged)
        await bridged.postgres.configure({ archive_library: library })
        const name = await bridged.postgres.switchWal()
        await bridged.nudgeUntilSays(
          'WARNING:  could not execute "<root>/pgarchivist": No such file or directory',
        )
        await bridged.says(
          'HINT:  Has pgarchivist been moved? Run "pgarchivist install" from where it is now.',
        )
        await writeFor(
          `${launcher}.new`,
          `#!/bin/sh\nexec "${join(await checkout(), 'bin/pgarchivist')}" "$@"\n`,
        )
        await chmod(`${launcher}.new`, 0o755)
        await rename(`${launcher}.new`, launcher)
        await bridged.archives(name)
      })
    })
  }
})

after(removeTemplates)
