// What a module, a path or a setting can be that nobody would choose, in a real server: it is archived all the same, or
// one clear line says why not.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { after, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { BridgedServer, type Places, removeTemplates, until, writeFor } from './bridge/bridged-server.ts'
import { copying, copyingWith } from './bridge/modules.ts'
import { type PostgresOptions, PostgresServer, programDirectories } from './support/postgresql-server.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const run = promisify(execFile)
const majors = [15, 18]

/** A server whose data directory has a name in Latin-1. The tests know it by a link, whose name is UTF-8. */
async function startInLatin1(options: PostgresOptions): Promise<PostgresServer> {
  const { major, dataDirectory = '' } = options
  const programs = (await programDirectories()).get(major)
  assert(programs !== undefined)
  const directory = await temporaryDirectory()
  // What starts the server is asked for the link, and gives the real name.
  const named = join(dirname(dataDirectory), 'data-')
  const real = Buffer.concat([Buffer.from(named), Buffer.from([0xe9, 0x20, 0xff])])
  await rename(dataDirectory, real)
  await symlink(real, dataDirectory)
  const octal = String.raw`\351 \377`
  await writeFile(
    join(directory.path, 'postgres'),
    `#!/bin/sh\nexec "${programs}/postgres" -D "$(printf '%s${octal}' '${named}')"\n`,
    { mode: 0o755 },
  )
  const server = new PostgresServer(options, directory.path, directory)
  await server.prepare(options)
  await server.start()
  return server
}

const declares = (statements: string) => copyingWith({ inInit: statements })

/** Two lines of the log: how many there are of each, in the order of the first. */
async function countsOf(bridged: BridgedServer, patterns: readonly RegExp[]): Promise<number[]> {
  return await Promise.all(patterns.map(async pattern => await bridged.saidTimes(pattern)))
}

const gaveUp = /^WARNING: {2}archiving write-ahead log file "[0-9A-F]{24}" failed too many times/

describe('with the library in the server', { concurrency: 4 }, () => {
  for (const major of majors) {
    test(`a data directory of PostgreSQL ${major} whose path is not UTF-8 is archived, and its files are read`, async () => {
      const module = ({ archive, journal }: Places) => `
import { appendFileSync, copyFileSync, existsSync, statSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  const level = server.DefineCustomIntVariable({ name: 'probe.level', short_desc: 'A level.', boot_value: 1, min_value: 1, max_value: 9 })
  server.RegisterBackgroundWorker({ bgw_name: 'beside', bgw_function_name: 'beside' })
  return {
    archive_file_cb(state, file, path) {
      copyFileSync(path, '${archive}/' + file)
      const version = statSync(server.data_directory + '/PG_VERSION').size > 0
      appendFileSync('${journal}', ['archived', level.value, version, path === server.data_directory + '/pg_wal/' + file].join(' ') + '\\n')
      return true
    },
  }
}
export async function beside(argument, { signal }) {
  appendFileSync('${journal}', 'worker in ' + (existsSync('PG_VERSION') ? 'the data directory' : process.cwd()) + '\\n')
  await new Promise(resolve => signal.addEventListener('abort', resolve))
}`
      await using bridged = await BridgedServer.start({
        major,
        module,
        settings: { 'probe.level': '3' },
        startServer: startInLatin1,
      })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        await bridged.archives(name)
        const source = await readFile(join(bridged.postgres.dataDirectory, 'pg_wal', name))
        assert((await readFile(join(bridged.places.archive, name))).equals(source))
        // What the server itself would keep silent about is found in a file of that directory.
        await bridged.postgres.configure({ 'probe.level': '10' })
        await bridged.archives(await bridged.postgres.switchWal())
        await bridged.says('WARNING:  10 is outside the valid range for parameter "probe.level" (1 .. 9)')
        await until('the worker runs', async () => (await bridged.journal()).length === 3)
        assert.deepEqual((await bridged.journal()).toSorted(), [
          'archived 3 true true',
          'archived 3 true true',
          'worker in the data directory',
        ])
        await bridged.counts({ failed_count: 0, archived_count: 2 })
      })
      await bridged.postgres.stop('fast')
    })

    test(`a path in a setting that is not UTF-8 is told in PostgreSQL ${major}, which goes on`, async () => {
      await using bridged = await BridgedServer.start({ major, module: 'basic_archive' })
      const conf = join(bridged.postgres.dataDirectory, 'postgresql.conf')
      const before = await readFile(conf)
      const line = Buffer.from("\nbasic_archive.archive_directory = '/nowhere/\xe9'\n", 'latin1')
      await writeFor(conf, Buffer.concat([before, line]))
      await bridged.postgres.reload()
      await bridged.staysUp(async () => {
        await bridged.postgres.switchWal()
        await bridged.says('WARNING:  the value of parameter "basic_archive.archive_directory" is not UTF-8')
        await bridged.postgres.configure({ 'basic_archive.archive_directory': bridged.places.archive })
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`the most that a module may declare and say is taken by PostgreSQL ${major}`, async () => {
      const part = 'x'.repeat(63)
      await using bridged = await BridgedServer.start({
        major,
        isInTrouble: true,
        module: places => `
${copyingWith({
  inInit: `
    const more = { short_desc: 'd'.repeat(1e6), long_desc: 'ü'.repeat(1e6) }
    server.DefineCustomStringVariable({ name: '${part}.${part}', boot_value: 'x'.repeat(13000), ...more })
    server.DefineCustomEnumVariable({ name: 'most.options', boot_value: 'o999', options: Array.from({ length: 1000 }, (_, i) => 'o' + i), ...more })
    server.DefineCustomIntVariable({ name: 'most.number', boot_value: -2147483648, ...more })
    server.DefineCustomRealVariable({ name: 'most.real', boot_value: Number.MAX_VALUE, ...more })
    for (const context of ['PGC_SIGHUP', 'PGC_SUSET', 'PGC_USERSET', 'PGC_INTERNAL', 'PGC_SU_BACKEND', 'PGC_BACKEND'])
      server.DefineCustomBoolVariable({ name: 'most.' + context, boot_value: true, context, ...more })
    for (let i = 10; i < 256; i++) server.DefineCustomBoolVariable({ name: 'most.bool' + i, boot_value: true })
    for (let i = 0; i < 63; i++) server.MarkGUCPrefixReserved('most' + i)
    server.MarkGUCPrefixReserved('${part}')`,
  callback: `check_configured_cb() {
      if (!inTrouble()) return true
      server.arch_module_check_errdetail('€'.repeat(1e6))
      const long = 'x'.repeat(1e6)
      server.ereport('WARNING', { errmsg: 'long', errdetail: long, errhint: long, errcode: long })
      return false
    },`,
})(places)}`,
      })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        await bridged.says('WARNING:  long')
        await bridged.says(/^WARNING: {2}"?archive_mode"? enabled, yet archiving is not configured$/)
        if (major >= 17) await bridged.says(/^DETAIL: {2}€+…$/)
        await bridged.endTrouble()
        await bridged.postgres.switchWal()
        await bridged.archives(name)
        assert.deepEqual(
          await countsOf(bridged, [/was ended/, /exited with/, /does not keep/, /^ERROR/, /redefine/]),
          [0, 0, 0, 0, 0],
        )
      })
    })

    const refused: Record<string, { statements: string; says: string; detail: string }> = {
      'a setting with a name that is too long': {
        statements: `server.DefineCustomStringVariable({ name: 'a.' + 'x'.repeat(64), short_desc: '', boot_value: '' })`,
        says: `ERROR:  parameter "a.${'x'.repeat(64)}" cannot be declared`,
        detail: 'DETAIL:  The name is not two simple identifiers of at most 63 bytes, separated by a dot.',
      },
      '257 settings': {
        statements: `for (let i = 0; i < 257; i++) server.DefineCustomBoolVariable({ name: 'a.b' + i, short_desc: '', boot_value: true })`,
        says: 'ERROR:  parameter "a.b256" cannot be declared',
        detail: 'DETAIL:  A module can declare 256 parameters.',
      },
      'a setting of the postmaster': {
        statements: `server.DefineCustomBoolVariable({ name: 'a.b', short_desc: '', boot_value: true, context: 'PGC_POSTMASTER' })`,
        says: 'ERROR:  cannot create PGC_POSTMASTER variables after startup',
        detail: '',
      },
    }
    for (const [what, { statements, says, detail }] of Object.entries(refused)) {
      test(`a module that declares ${what} is told so in PostgreSQL ${major}, at each start, which come slowly`, async () => {
        await using bridged = await BridgedServer.start({ major, module: declares(statements) })
        await bridged.staysUp(async () => {
          const name = await bridged.postgres.switchWal()
          await bridged.says(gaveUp)
          await bridged.says(says)
          if (detail !== '') await bridged.says(detail)
          // Three attempts, and what it was started for before: not one start after the other.
          const starts = await bridged.saidTimes(says)
          assert(starts <= 4, `${starts} starts`)
          assert.equal(await bridged.saidTimes(/does not keep to the protocol/), 0)
          await bridged.writeModule(copying())
          await bridged.archives(name)
        })
      })
    }

    test(`settings that fit no frame are told in PostgreSQL ${major} with the one to blame, until they do`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying(),
        settings: { 'other.small': 'x'.repeat(1_000), 'other.large': 'x'.repeat(300_000) },
      })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        await bridged.says(gaveUp)
        const told = 'WARNING:  the settings are too long for the archive module, which is not started'
        await bridged.says(told)
        await bridged.says(
          'DETAIL:  Of 262144 bytes for all settings with a prefix, "other.large" takes 300000.',
        )
        assert((await bridged.saidTimes(told)) <= 4)
        assert.equal(await bridged.saidTimes(/was ended|exited with/), 0)
        await bridged.postgres.configure({ 'other.large': '' })
        await bridged.archives(name)

        // While the module runs, too.
        await bridged.postgres.configure({ 'other.large': 'x'.repeat(300_000) })
        await bridged.postgres.switchWal()
        await bridged.says(/was ended: the settings are too long for it$/)
        await bridged.postgres.configure({ 'other.large': '' })
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`what a module prints and reports in shutdown_cb is in the log of PostgreSQL ${major}, to the last line`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copyingWith({
          callback: `async shutdown_cb() {
      for (let line = 0; line < 200; line++) console.log('printed ' + line)
      console.error('printed as an error')
      await new Promise(resolve => setTimeout(resolve, 50))
      for (let line = 0; line < 200; line++) server.ereport('NOTICE', { errmsg: 'reported ' + line })
      console.log('printed at last')
    },`,
        }),
        settings: { log_min_messages: 'notice' },
      })
      await bridged.archives(await bridged.postgres.switchWal())
      await bridged.postgres.stop('fast')
      const printed = Array.from({ length: 200 }, (_, line) => `printed ${line}`)
      const reported = Array.from({ length: 200 }, (_, line) => `NOTICE:  reported ${line}`)
      const said = (await bridged.said()).filter(line => /printed|reported/.test(line))
      assert.deepEqual(
        said.filter(line => line.startsWith('printed')),
        [...printed, 'printed as an error', 'printed at last'],
      )
      assert.deepEqual(
        said.filter(line => line.startsWith('NOTICE')),
        reported,
      )
      await bridged.leavesNobody()
    })

    test(`what a module prints before process.exit, or before it blocks, is in the log of PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: places =>
          copying(`
        for (let line = 0; line < 200; line++) console.log('printed ' + line)
        server.ereport('LOG', { errmsg: 'reported' })
        if (existsSync('${places.root}/exit')) process.exit(0)
        for (;;);`)(places),
        isInTrouble: true,
      })
      await writeFor(join(bridged.places.root, 'exit'), '')
      await bridged.staysUp(async () => {
        await bridged.postgres.switchWal()
        await bridged.says('WARNING:  archive module ended its thread with status 0')
        for (const line of ['printed 0', 'printed 199', 'LOG:  reported']) await bridged.says(line)
        await run('rm', [join(bridged.places.root, 'exit')])
        const before = await bridged.saidTimes('printed 199')
        await bridged.postgres.switchWal()
        await bridged.says('WARNING:  archive module blocks its thread and is started again')
        await bridged.says('printed 199', { times: before + 1 })
        await bridged.endTrouble()
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`a flood of what a module prints and reports is bounded in the log of PostgreSQL ${major}, its ERROR is not lost`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying(`
        for (let line = 0; line < 200000; line++) {
          console.log('printed')
          if (line % 2 === 0) server.ereport('LOG', { errmsg: 'reported' })
        }
        server.ereport('ERROR', { errmsg: 'why it failed' })`),
        settings: { 'pgarchivist.file_timeout': '30s' },
        isInTrouble: true,
      })
      await bridged.staysUp(async () => {
        await bridged.postgres.switchWal()
        await bridged.says(gaveUp)
        await bridged.says('ERROR:  why it failed', { times: 3 })
        const [printed = 0, reported = 0, notes = 0, stops = 0] = await countsOf(bridged, [
          /^printed$/,
          /^LOG: {2}reported$/,
          /^WARNING: {2}\d+ messages of the archive module came too fast and were dropped$/,
          /archive module prints too much, and further lines are left out$/,
        ])
        assert(printed >= 5_000 && printed < 8_000, `${printed} lines were printed`)
        assert(reported >= 5_000 && reported < 8_000, `${reported} messages were reported`)
        assert(notes >= 1 && notes <= 6, `${notes} times it was told that messages were dropped`)
        assert(stops >= 1 && stops <= 3, `${stops} times it was told that lines are left out`)
        await bridged.endTrouble()
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`a file that a module never answers for is told once in each attempt in PostgreSQL ${major}, with what to do`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copying('await new Promise(() => {})'),
        isInTrouble: true,
      })
      await bridged.staysUp(async () => {
        const name = await bridged.postgres.switchWal()
        const ended = `WARNING:  archive module has not answered for "${name}" in 3 attempts and is started again`
        await bridged.says(
          `WARNING:  archiving write-ahead log file "${name}" failed too many times, will try again later`,
        )
        await bridged.says(ended)
        const said = (await bridged.said()).filter(line =>
          /took longer|not answered|HINT|failed too many/.test(line),
        )
        const tookLonger = `WARNING:  archiving write-ahead log file "${name}" took longer than 1000 ms`
        const hint = 'HINT:  See "pgarchivist.file_timeout".'
        const isTold = (line: string) => line === tookLonger || line.endsWith(hint)
        assert.deepEqual(said.filter(line => line === tookLonger).length, 3)
        assert.deepEqual(said.filter(isTold).length, 7, said.join('\n'))
        assert.equal(await bridged.saidTimes(ended), 1)
        // The module was given the file once; the other two attempts waited for the same call.
        assert.deepEqual(await bridged.journal(), [`attempt ${name}`])
        await bridged.endTrouble()
        await bridged.archives(await bridged.postgres.switchWal())
      })
    })

    test(`nothing is started any more when PostgreSQL ${major} has no time left for it, and one line says so`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copyingWith({ atTop: `note('loaded')`, inInit: '' }),
        settings: { 'pgarchivist.stop_timeout': '0', 'pgarchivist.start_timeout': '30s' },
      })
      await bridged.archives(await bridged.postgres.switchWal())
      // The next one would take long, and this one is not there any more when it is asked.
      await bridged.writeModule(
        copyingWith({ atTop: `note('loaded'); await new Promise(() => setTimeout(() => {}, 1e6))` }),
      )
      const loads = async () => (await bridged.journal()).filter(line => line === 'loaded').length
      const node = await bridged.nodePid()
      await bridged.postgres.query(`SELECT pg_logical_emit_message(false, 'test', 'for the last segment')`)
      process.kill(node, 'SIGKILL')
      const loadsBefore = await loads()
      const start = Date.now()
      await bridged.postgres.stop('fast')
      const ms = Date.now() - start
      assert.equal(await loads(), loadsBefore)
      // The server makes three attempts with pauses of a second, and perhaps a second cycle of them.
      assert(ms < 8_000, `the shutdown took ${ms} ms`)
      await bridged.says(
        /^WARNING: {2}write-ahead log file "[0-9A-F]{24}" and later ones are not archived before the server has stopped$/,
      )
      assert.equal(await bridged.saidTimes(/are not archived before/), 1)
      await bridged.leavesNobody()
    })

    test(`a process that is started again declares and reserves the same in PostgreSQL ${major}, and nothing is said`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: declares(`
    server.DefineCustomIntVariable({ name: 'probe.level', short_desc: 'A level.', boot_value: 1, flags: ['GUC_UNIT_KB'] })
    server.MarkGUCPrefixReserved('probe')`),
        settings: { 'probe.level': '2MB', 'probe.typo': '1' },
      })
      await bridged.staysUp(async () => {
        for (let start = 1; start <= 3; start++) {
          await bridged.archives(await bridged.postgres.switchWal())
          const node = await bridged.nodePid()
          process.kill(node, 'SIGKILL')
          await until('it has ended', async () => (await bridged.findNode()) !== node)
        }
        await bridged.archives(await bridged.postgres.switchWal())
        assert.deepEqual(
          await countsOf(bridged, [/probe\.typo/, /redefine|reserved prefix|restarting archiver|^ERROR/]),
          [1, 1],
          'the misspelt one, in one line and its DETAIL, once',
        )
        await bridged.counts({ failed_count: 0, archived_count: 4 })
      })
    })

    test(`the module basic_archive works where contrib's library of that name is loaded by all of PostgreSQL ${major}`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: 'basic_archive',
        settings: { shared_preload_libraries: 'basic_archive' },
      })
      await bridged.staysUp(async () => {
        await bridged.postgres.configure({ 'basic_archive.archive_directory': bridged.places.archive })
        await bridged.archives(await bridged.postgres.switchWal())
        process.kill(await bridged.nodePid(), 'SIGKILL')
        await bridged.archives(await bridged.postgres.switchWal())
        assert.deepEqual(await countsOf(bridged, [/redefine/, /^ERROR/, /is not what/]), [0, 0, 0])
        await bridged.counts({ failed_count: 0, archived_count: 2 })
      })
    })

    test(`a setting that another library of PostgreSQL ${major} has, of another type, is told once`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: declares(
          `server.DefineCustomBoolVariable({ name: 'basic_archive.archive_directory', short_desc: '', boot_value: true })`,
        ),
        settings: { shared_preload_libraries: 'basic_archive' },
      })
      await bridged.staysUp(async () => {
        await bridged.archives(await bridged.postgres.switchWal())
        process.kill(await bridged.nodePid(), 'SIGKILL')
        await bridged.archives(await bridged.postgres.switchWal())
        const told =
          'WARNING:  setting "basic_archive.archive_directory" is not what the archive module declares'
        assert.equal(await bridged.saidTimes(told), 1)
      })
    })

    // The pipe to the logger is one for all processes of a server. Where it does not block, all of them lose what does
    // not fit at the moment.
    test(`the pipe to the logger of PostgreSQL ${major} stays as it is, whatever the module prints, also when Node is killed`, async () => {
      await using bridged = await BridgedServer.start({
        major,
        module: copyingWith({
          atTop: `import 'node:util'\nconsole.log('printed'); console.error('printed'); process.stdout.write('printed\\n')`,
        }),
        settings: { logging_collector: 'on' },
      })
      const flags = async (pid: number | undefined) =>
        /^flags:\t(\d+)$/m.exec(await readFile(`/proc/${pid}/fdinfo/2`, 'utf8'))?.[1]
      const nonBlocking = 0o4000
      const isBlocking = async (pid: number | undefined) =>
        (Number.parseInt((await flags(pid)) ?? '', 8) & nonBlocking) === 0
      for (let turn = 0; turn < 2; turn++) {
        await bridged.archives(await bridged.postgres.switchWal())
        for (const pid of [bridged.postgres.pid, await bridged.archiverPid()]) assert(await isBlocking(pid))
        process.kill(await bridged.nodePid(), 'SIGKILL')
        assert(await isBlocking(bridged.postgres.pid))
      }
    })
  }
})

after(removeTemplates)
