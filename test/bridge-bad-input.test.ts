// What people get wrong around a module: the log of a real server names it, and archiving goes on when it is mended.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { BridgedServer, removeTemplates, writeFor } from './bridge/bridged-server.ts'
import { copying, copyingWith } from './bridge/modules.ts'
import { buildServerLibrary } from './support/server-library.ts'

const majors = [15, 18]
/** One that has another contract, and one that has the same and other structures. */
const othersOf = (major: number) => [15, 17].filter(each => each !== major)

describe('in a real server', { concurrency: 4 }, () => {
  for (const major of majors) {
    test(`a library of another major is told by PostgreSQL ${major}, until it is the right one`, async () => {
      for (const other of othersOf(major)) {
        await using bridged = await BridgedServer.start({
          major,
          timeouts: 'default',
          module: copying(),
          library: await buildServerLibrary(other),
        })
        const { postgres } = bridged
        await bridged.staysUp(async () => {
          const name = await postgres.switchWal()
          await bridged.nudgeUntilSays(
            /^FATAL: {2}incompatible library ".*\/pgarchivist\.so": version mismatch$/,
          )
          await bridged.says(`DETAIL:  Server is version ${major}, library is version ${other}.`)
          await postgres.configure({ archive_library: await buildServerLibrary(major) })
          await bridged.archives(name)
        })
      }
    })

    test(`archive_command and archive_library are not both taken from PostgreSQL 16 on, here in ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: copying(),
        settings: { archive_command: 'false' },
      })
      const { postgres } = bridged
      await bridged.staysUp(async () => {
        const name = await postgres.switchWal()
        if (major >= 16) {
          await bridged.nudgeUntilSays('FATAL:  both "archive_command" and "archive_library" set')
          await bridged.says('DETAIL:  Only one of "archive_command", "archive_library" may be set.')
          assert.equal(await bridged.isDone(name), false)
          await postgres.configure({ archive_command: '' })
        }
        await bridged.archives(name)
        await bridged.counts({ archived_count: 1, failed_count: 0 })
      })
    })

    test(`settings of the library that are of the wrong type are told by PostgreSQL ${major}, at the start and after a reload`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: copying(),
        settings: { 'pgarchivist.file_timeout': 'soon', 'pgarchivist.archive_ahead': '65' },
      })
      const { postgres } = bridged
      await bridged.staysUp(async () => {
        await bridged.archives(await postgres.switchWal())
        await bridged.says('WARNING:  invalid value for parameter "pgarchivist.file_timeout": "soon"')
        await bridged.says(
          'WARNING:  65 is outside the valid range for parameter "pgarchivist.archive_ahead" (1 .. 64)',
        )
        await postgres.configure({
          'pgarchivist.file_timeout': '10s',
          'pgarchivist.archive_ahead': '4',
          'pgarchivist.stop_timeout': 'later',
          'pgarchivist.memory_limit': '-1',
        })
        await bridged.archives(await postgres.switchWal())
        await bridged.says('WARNING:  invalid value for parameter "pgarchivist.stop_timeout": "later"')
        await bridged.says(
          /^WARNING: {2}-1 MB is outside the valid range for parameter "pgarchivist\.memory_limit"/,
        )
        await postgres.configure({ 'pgarchivist.stop_timeout': '1s', 'pgarchivist.memory_limit': '512MB' })
        await bridged.archives(await postgres.switchWal())
        await bridged.counts({ archived_count: 3, failed_count: 0 })
      })
    })

    test(`a setting of the module comes to it of PostgreSQL ${major} from an included file and from ALTER SYSTEM`, async () => {
      const module = ({ archive, journal }: { archive: string; journal: string }) => `
import { appendFileSync, copyFileSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  const level = server.DefineCustomIntVariable({ name: 'probe.level', short_desc: '', boot_value: 1, min_value: 1, max_value: 9 })
  return {
    archive_file_cb(state, file, path) {
      appendFileSync('${journal}', level.value + '\\n')
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}`
      await using bridged = await BridgedServer.start({ major, timeouts: 'default', module })
      const { postgres } = bridged
      const included = join(postgres.dataDirectory, 'probe.conf')
      const levels = async () => {
        await bridged.archives(await postgres.switchWal())
        return (await bridged.journal()).at(-1)
      }
      await bridged.staysUp(async session => {
        // Before version 17 a session must know it, by its standing in a file.
        if (major < 17) {
          await assert.rejects(session.query('ALTER SYSTEM SET probe.level = 3'), {
            message: 'unrecognized configuration parameter "probe.level"',
          })
        }
        await writeFor(included, 'probe.level = 2\n')
        await writeFor(join(postgres.dataDirectory, 'more.conf'), `include 'probe.conf'\n`)
        await postgres.configure({ include_if_exists: 'more.conf' })
        assert.equal(await levels(), '2')
        await writeFor(included, 'probe.level = 10\n')
        await postgres.reload()
        assert.equal(await levels(), '2')
        await bridged.says('WARNING:  10 is outside the valid range for parameter "probe.level" (1 .. 9)')

        await session.query('ALTER SYSTEM SET probe.level = 3')
        await postgres.reload()
        assert.equal(await levels(), '3')
      })
    })

    test(`contrib's library archives in PostgreSQL ${major} where all processes have loaded ours`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: copying(),
        settings: {
          shared_preload_libraries: await buildServerLibrary(major),
          archive_library: 'basic_archive',
        },
      })
      const { archive } = bridged.places
      await bridged.postgres.configure({ 'basic_archive.archive_directory': archive })
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.counts({ archived_count: 1, failed_count: 0 })
      assert.equal(await bridged.findNode(), undefined)
    })

    const wrong: Record<string, { text: string; says: string }> = {
      'has no function to begin with': {
        text: 'export const version = 1',
        says: 'ERROR:  archive modules have to define the symbol _PG_archive_module_init',
      },
      'gives no callbacks': {
        text: 'export function _PG_archive_module_init() {}',
        says: 'ERROR:  archive modules must register an archive callback',
      },
      'throws what is no error': {
        text: `throw 'because'`,
        says: 'ERROR:  archive module threw a value that is not an error: because',
      },
    }
    for (const [what, { text, says }] of Object.entries(wrong)) {
      test(`a module that ${what} is told so in PostgreSQL ${major}, at each start, which come slowly`, async () => {
        await using bridged = await BridgedServer.start({ major, timeouts: 'default', module: () => text })
        await bridged.staysUp(async () => {
          const name = await bridged.postgres.switchWal()
          await bridged.says(/failed too many times, will try again later$/)
          await bridged.says(says)
          const starts = await bridged.saidTimes(says)
          assert(starts <= 4, `${starts} starts`)
          await bridged.writeModule(copying())
          await bridged.archives(name)
        })
      })
    }

    test(`a module that throws in its hooks and in its worker is told so in PostgreSQL ${major}, and archives`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: places => `
${copyingWith({
  inInit: `
  server.DefineCustomIntVariable({ name: 'probe.checked', short_desc: '', boot_value: 1,
    check_hook(value) { if (value > 1) throw new Error('not more than one'); return true } })
  server.DefineCustomIntVariable({ name: 'probe.assigned', short_desc: '', boot_value: 1,
    assign_hook(value) { if (value > 1) throw new Error('not assigned') } })
  server.RegisterBackgroundWorker({ bgw_name: 'beside', bgw_function_name: 'beside' })`,
})(places)}
export function beside() { throw new Error('the worker is tired') }`,
        settings: { 'probe.checked': '2' },
      })
      const { postgres } = bridged
      await bridged.staysUp(async () => {
        await bridged.archives(await postgres.switchWal())
        await bridged.says('WARNING:  invalid value for parameter "probe.checked": 2')
        await bridged.says('DETAIL:  not more than one')
        await bridged.says(/the worker is tired/)
        await postgres.configure({ 'probe.checked': '3', 'probe.assigned': '2' })
        await bridged.archives(await postgres.switchWal())
        await bridged.says(/not assigned/)
        assert.equal(await bridged.saidTimes(/was ended|terminated by signal/), 0)
      })
    })

    test(`a module that throws in shutdown_cb is told so in PostgreSQL ${major}, which stops all the same`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        timeouts: 'default',
        module: copyingWith({ callback: `shutdown_cb() { throw new Error('not on Sundays') },` }),
      })
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.postgres.stop('fast')
      await bridged.says(/^WARNING: {2}not on Sundays$/)
      await bridged.leavesNobody()
    })
  }
})

after(removeTemplates)
