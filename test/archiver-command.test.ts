// The command from outside, as a user sees it: its log, its statuses, what it does with signals and with bad input.
// Those that wait for a restart, ten seconds after a start, come first, so that the others run beside them.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import {
  appears,
  type BareCluster,
  bareCluster,
  exists,
  processTitle,
  type RunningArchiver,
  runCommand,
  startArchiver,
  startBasicArchive,
  startModuleText,
} from './support/running-archiver.ts'
import { giveAway, unprivileged } from './support/unprivileged.ts'

const run = promisify(execFile)

const first = '000000010000000000000001'
const second = '000000010000000000000002'
const third = '000000010000000000000003'
const fourth = '000000010000000000000004'

const fastShutdown = 'S LOG:  received fast shutdown request'
const immediateShutdown = 'S LOG:  received immediate shutdown request'
const isShutDown = 'S LOG:  archiver is shut down'
const archiving = (directory: string) => `S LOG:  archiving write-ahead log of data directory "${directory}"`
const failedTooOften = (name: string) =>
  `A WARNING:  archiving write-ahead log file "${name}" failed too many times, will try again later`

/** A module with this `archive_file_cb`. */
const withBody = (body: string) => `
  export function _PG_archive_module_init(server) {
    return { async archive_file_cb(_state, file, path, { signal }) { ${body} } }
  }`

/** Waits until it is killed: for nothing that a signal of the archiver would end. */
const hangs = withBody(
  `server.ereport('LOG', { errmsg: 'begun' }); await new Promise(() => setInterval(() => {}, 1000))`,
)

async function endsWithin(ms: number, archiver: RunningArchiver): Promise<number | NodeJS.Signals> {
  const patience = new AbortController()
  const late = sleep(ms, undefined, { signal: patience.signal }).then(
    () => assert.fail(`it has not ended within ${ms} ms:\n${archiver.text}`),
    () => 0,
  )
  try {
    return await Promise.race([archiver.ended, late])
  } finally {
    patience.abort()
  }
}

const stored = (cluster: BareCluster, name: string) => readFile(join(cluster.archive, name), 'utf8')

describe('pgarchivist archiver', { concurrency: 2 }, () => {
  test('a module that declares archive_ahead gets as many files at once as the setting says, and no other one does', async () => {
    // Each call waits until as many are under way as there may be, so that one too few would hang.
    const gathers = (count: number, declaration: string) => `
      let underWay = 0, most = 0
      const gathered = Promise.withResolvers()
      export function _PG_archive_module_init(server) {
        return {
          ${declaration}
          async archive_file_cb() {
            most = Math.max(most, ++underWay)
            if (underWay === ${count}) gathered.resolve()
            await gathered.promise
            underWay--
            return true
          },
          shutdown_cb() { server.ereport('LOG', { errmsg: 'most at once: ' + most }) },
        }
      }`
    for (const [count, declaration] of [
      [3, 'archive_ahead: true,'],
      [1, ''],
    ] as const) {
      await using cluster = await bareCluster()
      for (const name of [first, second, third, fourth]) await cluster.makeReady(name)
      const options = ['-c', 'pgarchivist.archive_ahead=3']
      await using archiver = await startModuleText(cluster, gathers(count, declaration), options)
      for (const name of [first, second, third, fourth]) await cluster.done(name)
      assert.equal(await archiver.stop(), 0)
      assert.ok(archiver.lines.includes(`A LOG:  most at once: ${count}`), archiver.text)
    }
  })

  describe('restarts of the archiver process', { concurrency: 5 }, () => {
    test('one that is killed is told, and started again 10 seconds after its start', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      const startedAt = Date.now()
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      process.kill(await archiver.archiverPid(), 'SIGKILL')
      await archiver.line('S LOG:  archiver process (PID n) was terminated by signal 9: Killed')
      assert.deepEqual(await archiver.children(), [])
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.ok(Date.now() - startedAt >= 10_000)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'S LOG:  archiver process (PID n) was terminated by signal 9: Killed',
        fastShutdown,
        isShutDown,
      ])
    })

    test('another archive_library in the file is loaded by a new process, after a SIGHUP', async () => {
      await using cluster = await bareCluster()
      const module = (text: string) =>
        withBody(`server.ereport('LOG', { errmsg: '${text} ' + file }); return true`)
      const [one, two] = [
        await cluster.write('one.ts', module('one')),
        await cluster.write('two.ts', module('two')),
      ]
      await cluster.write('data/postgresql.conf', `archive_library = '${one}'\n`)
      await cluster.makeReady(first)
      await using archiver = await startArchiver(['-D', cluster.data])
      await cluster.done(first)
      await cluster.write('data/postgresql.conf', `archive_library = '${two}'\n`)
      archiver.kill('SIGHUP')
      await archiver.line(
        'A LOG:  restarting archiver process because value of "archive_library" was changed',
      )
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        `A LOG:  one ${first}`,
        'S LOG:  received SIGHUP, reloading configuration files',
        `A LOG:  parameter "archive_library" changed to "${two}"`,
        'A LOG:  restarting archiver process because value of "archive_library" was changed',
        `A LOG:  two ${second}`,
        fastShutdown,
        isShutDown,
      ])
    })

    test('both settings at once are FATAL, until a reload during the pause puts it right', async () => {
      await using cluster = await bareCluster()
      const library = "archive_library = 'basic_archive'\n"
      const directory = `basic_archive.archive_directory = '${cluster.archive}'\n`
      await cluster.write('data/postgresql.conf', `${library}${directory}archive_command = 'true'\n`)
      await cluster.makeReady(first)
      await using archiver = await startArchiver(['-D', cluster.data])
      await archiver.line('A DETAIL:  Only one of "archive_command", "archive_library" may be set.')
      await cluster.write('data/postgresql.conf', library + directory)
      archiver.kill('SIGHUP')
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A FATAL:  both "archive_command" and "archive_library" set',
        'A DETAIL:  Only one of "archive_command", "archive_library" may be set.',
        'S LOG:  received SIGHUP, reloading configuration files',
        fastShutdown,
        isShutDown,
      ])
    })

    test('a rejection that a module leaves unhandled is FATAL, and nothing is lost by it', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      const flag = join(cluster.root, 'flag')
      await using archiver = await startModuleText(
        cluster,
        `import { existsSync, writeFileSync } from 'node:fs'
      ${withBody(`
        if (existsSync('${flag}')) return true
        writeFileSync('${flag}', '')
        void Promise.reject(new Error('left behind'))
        await new Promise(resolve => setTimeout(resolve, 20_000))
        return true`)}`,
      )
      await archiver.line('A FATAL:  left behind')
      assert.deepEqual(await readdir(cluster.statusDirectory), [`${first}.ready`])
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A FATAL:  left behind',
        fastShutdown,
        isShutDown,
      ])
    })

    test('a pg_wal that vanishes, as an unmounted disk does, loses nothing and is used again when it is back', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      const away = join(cluster.root, 'away')
      await rename(cluster.walDirectory, away)
      // What is there now wakes it: the watch is of the directory, wherever it is.
      await cluster.write(`away/archive_status/${second}.ready`, '')
      await archiver.line(
        'A FATAL:  could not open directory "pg_wal/archive_status": No such file or directory',
      )
      await cluster.write(`away/${second}`, 'content')
      await rename(away, cluster.walDirectory)
      await cluster.done(second)
      assert.equal(await stored(cluster, second), 'content')
      assert.equal(await archiver.stop(), 0)
    })
  })

  describe('start and stop', { concurrency: 3 }, () => {
    test('SIGTERM, SIGINT and SIGUSR2 end it after a last cycle, with status 0', async () => {
      for (const signal of ['SIGTERM', 'SIGINT', 'SIGUSR2'] as const) {
        await using cluster = await bareCluster()
        await using archiver = await startModuleText(
          cluster,
          `import { writeFileSync } from 'node:fs'
        ${withBody(`
          server.ereport('LOG', { errmsg: 'begun ' + file })
          await new Promise(resolve => setTimeout(resolve, 300))
          return true`)}`,
        )
        await cluster.makeReady(first)
        await archiver.line(`A LOG:  begun ${first}`)
        archiver.kill(signal)
        await cluster.makeReady(second)
        assert.equal(await archiver.ended, 0)
        assert.deepEqual(archiver.lines, [
          archiving(cluster.data),
          `A LOG:  begun ${first}`,
          fastShutdown,
          `A LOG:  begun ${second}`,
          isShutDown,
        ])
        assert.deepEqual((await readdir(cluster.statusDirectory)).toSorted(), [
          `${first}.done`,
          `${second}.done`,
        ])
      }
    })

    test('SIGTERM right after the start is heard too: one cycle, then the end', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await archiver.started(cluster.data)
      archiver.kill('SIGTERM')
      assert.equal(await endsWithin(10_000, archiver), 0)
      assert.deepEqual(archiver.lines, [archiving(cluster.data), fastShutdown, isShutDown])
      assert.equal(await stored(cluster, first), `content of ${first}`)
    })

    test('SIGHUP right after the start is heard too', async () => {
      await using cluster = await bareCluster()
      await cluster.write('data/postgresql.conf', 'basic_archive.archive_directory = nowhere\n')
      await using archiver = await startArchiver(['-D', cluster.data, '-c', 'archive_library=basic_archive'])
      await archiver.started(cluster.data)
      await cluster.write('data/postgresql.conf', `basic_archive.archive_directory = '${cluster.archive}'\n`)
      archiver.kill('SIGHUP')
      await archiver.line('S LOG:  received SIGHUP, reloading configuration files')
      await archiver.line(
        `A LOG:  parameter "basic_archive.archive_directory" changed to "${cluster.archive}"`,
      )
    })

    test('SIGQUIT ends it at once, with status 1, also while a module blocks its process for ever', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        withBody(`server.ereport('LOG', { errmsg: 'begun' }); for (;;);`),
      )
      await archiver.line('A LOG:  begun')
      archiver.kill('SIGQUIT')
      assert.equal(await endsWithin(10_000, archiver), 1)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A LOG:  begun',
        immediateShutdown,
        isShutDown,
      ])
      assert.deepEqual(await readdir(cluster.statusDirectory), [`${first}.ready`])
    })

    test('a second SIGTERM ends it at once, with status 1, also while a module hangs', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(cluster, hangs)
      await archiver.line('A LOG:  begun')
      archiver.kill('SIGTERM')
      await archiver.line(fastShutdown)
      archiver.kill('SIGTERM')
      assert.equal(await endsWithin(10_000, archiver), 1)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A LOG:  begun',
        fastShutdown,
        immediateShutdown,
        isShutDown,
      ])
      assert.deepEqual(await readdir(cluster.statusDirectory), [`${first}.ready`])
    })

    test('an archive command that is under way is ended by a second SIGTERM, with what it started', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      const command = 'echo begun >&2; sleep 600 | cat'
      await using archiver = await startArchiver(['-D', cluster.data, '-c', `archive_command=${command}`])
      await archiver.line('begun')
      archiver.kill('SIGTERM')
      await archiver.line(fastShutdown)
      archiver.kill('SIGTERM')
      // It ends when nobody has its log open any more, and "sleep" would.
      assert.equal(await endsWithin(10_000, archiver), 1)
    })

    test('kill -9 of the command leaves no process behind, and a new one starts at once', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        withBody(`server.ereport('LOG', { errmsg: 'begun' }); for (;;);`),
      )
      await archiver.line('A LOG:  begun')
      archiver.kill('SIGKILL')
      // Told by the pipe of its log, which every process of it had open.
      assert.equal(await endsWithin(10_000, archiver), 'SIGKILL')
      await using next = await startBasicArchive(cluster)
      await cluster.done(first)
      assert.equal(await next.stop(), 0)
    })

    test('a second archiver is refused, and told who holds the directory', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      await using other = await startBasicArchive(cluster)
      assert.equal(await other.ended, 1)
      assert.match(other.text, new RegExp(`in use by the archiver with PID ${archiver.pid}\n`))
      assert.deepEqual(other.lines, [
        `S FATAL:  data directory "${cluster.data}" is in use by the archiver with PID ${archiver.pid}`,
        'S HINT:  Only one archiver may run on a data directory. End that one first.',
      ])
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
    })

    test('the process list shows who is who, and what it does', async () => {
      await using cluster = await bareCluster()
      await using archiver = await startModuleText(
        cluster,
        withBody(`
        server.ereport('LOG', { errmsg: 'given ' + file })
        if (file === '${first}') return true
        if (file === '${second}') return false
        return await new Promise(() => setInterval(() => {}, 1000))`),
      )
      await archiver.started(cluster.data)
      assert.equal(await processTitle(archiver.pid), 'pgarchivist: archiver supervisor')
      await cluster.makeReady(first)
      await cluster.done(first)
      const pid = await archiver.archiverPid()
      assert.equal(await processTitle(pid), `pgarchivist: archiver last was ${first}`)
      await cluster.makeReady(second)
      await archiver.line(failedTooOften(second))
      assert.equal(await processTitle(pid), `pgarchivist: archiver failed on ${second}`)
      await rm(join(cluster.statusDirectory, `${second}.ready`))
      await cluster.makeReady(third)
      await archiver.line(`A LOG:  given ${third}`)
      assert.equal(await processTitle(pid), `pgarchivist: archiver archiving ${third}`)
    })

    test('SIGHUP puts new settings in force without a restart, whichever of the two processes gets it', async () => {
      await using cluster = await bareCluster()
      const [one, two] = [join(cluster.root, 'one'), join(cluster.root, 'two')]
      for (const path of [one, two]) {
        await mkdir(path)
        await giveAway(path)
      }
      const library = "archive_library = 'basic_archive'\n"
      const to = (directory: string) => `${library}basic_archive.archive_directory = '${directory}'\n`
      await cluster.write('data/postgresql.conf', to(one))
      await cluster.makeReady(first)
      await using archiver = await startArchiver(['-D', cluster.data])
      await cluster.done(first)
      await cluster.write('data/postgresql.conf', to(two))
      archiver.kill('SIGHUP')
      await archiver.line(`A LOG:  parameter "basic_archive.archive_directory" changed to "${two}"`)
      await cluster.makeReady(second)
      await cluster.done(second)
      await cluster.write('data/postgresql.conf', to(one))
      const pid = await archiver.archiverPid()
      process.kill(pid, 'SIGINT') // means nothing to it
      process.kill(pid, 'SIGHUP')
      await archiver.line(`A LOG:  parameter "basic_archive.archive_directory" changed to "${one}"`)
      await cluster.makeReady(third)
      await cluster.done(third)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual((await readdir(one)).toSorted(), [first, third])
      assert.deepEqual(await readdir(two), [second])
    })

    test('SIGHUP with errors in the file changes nothing and says so', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      await cluster.write('data/postgresql.conf', "archive_mode = 'unfinished\n")
      archiver.kill('SIGHUP')
      const unchanged = `S LOG:  configuration file "${cluster.data}/postgresql.conf" contains errors; no changes were applied`
      await archiver.line(unchanged)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'S LOG:  received SIGHUP, reloading configuration files',
        `S LOG:  syntax error in file "${cluster.data}/postgresql.conf" line 1, near token "'"`,
        unchanged,
        fastShutdown,
        isShutDown,
      ])
    })

    test('the data directory may be named by PGDATA, by a relative path and through a link', async () => {
      await using cluster = await bareCluster()
      await symlink(cluster.data, join(cluster.root, 'link'))
      await cluster.makeReady(first)
      const settings = [
        '-c',
        'archive_library=basic_archive',
        '-c',
        'basic_archive.archive_directory=../archive',
      ]
      await using archiver = await startArchiver(settings, { env: { PGDATA: 'link' }, cwd: cluster.root })
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [archiving(cluster.data), fastShutdown, isShutDown])
      assert.equal(await stored(cluster, first), `content of ${first}`)
    })
  })

  describe('log and info', { concurrency: 3 }, () => {
    test('with --log-format json every line is an object with the keys of jsonlog', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        `let attempts = 0
      ${withBody(`
        if (++attempts > 1) return true
        server.ereport('ERROR', { errmsg: 'two\\nlines', errdetail: 'D.', errhint: 'H.', errcode: '53100' })`)}`,
        ['--log-format', 'json'],
      )
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      const entries = archiver.text
        .split('\n')
        .slice(0, -1)
        .map(line => JSON.parse(line) as Record<string, unknown>)
      for (const entry of entries) {
        assert.match(String(entry['timestamp']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
        assert.equal(typeof entry['pid'], 'number')
        delete entry['timestamp']
        entry['pid'] = entry['pid'] === archiver.pid ? 'supervisor' : 'archiver'
      }
      const ofSupervisor = (message: string) => ({
        pid: 'supervisor',
        error_severity: 'LOG',
        message,
        backend_type: 'archiver',
      })
      assert.deepEqual(entries, [
        ofSupervisor(`archiving write-ahead log of data directory "${cluster.data}"`),
        {
          pid: 'archiver',
          error_severity: 'ERROR',
          state_code: '53100',
          message: 'two\nlines',
          detail: 'D.',
          hint: 'H.',
          backend_type: 'archiver',
        },
        ofSupervisor('received fast shutdown request'),
        ofSupervisor('archiver is shut down'),
      ])
    })

    test('log_min_messages decides what is logged', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster, ['-c', 'log_min_messages=debug1'])
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        `A DEBUG:  archived "${first}" via basic_archive`,
        fastShutdown,
        isShutDown,
      ])
      await using quiet = await startBasicArchive(cluster, ['-c', 'log_min_messages=fatal'])
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await quiet.stop(), 0)
      assert.deepEqual(quiet.lines, [])
    })

    test('what a module prints to standard output goes to the log, and standard output stays empty', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        withBody(`console.log('printed'); process.stdout.write('and written\\n'); return true`),
      )
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'printed',
        'and written',
        fastShutdown,
        isShutDown,
      ])
      assert.equal(archiver.stdout, '')
    })

    test('a log that nobody reads any more does not stop archiving', async () => {
      await using cluster = await bareCluster()
      await using archiver = await startBasicArchive(cluster, ['-c', 'log_min_messages=debug5'])
      await archiver.started(cluster.data)
      archiver.closeLog()
      await cluster.makeReady(first)
      await cluster.done(first)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
    })

    const timeless = (text: string) => text.replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, 'TIME')

    test('info tells what was archived and what waits: before the first start, meanwhile, and after the end', async () => {
      await using cluster = await bareCluster()
      const info = async () => timeless((await runCommand(['info', '-D', cluster.data])).stdout)
      const json = async () =>
        JSON.parse(timeless((await runCommand(['info', '-D', cluster.data, '--output', 'json'])).stdout))
      await cluster.makeReady(second)
      await cluster.makeReady('00000002.history')

      const head = `data directory  ${cluster.data}\n`
      assert.equal(
        await info(),
        `${head}archiver        none beside the server has worked here; the server's own is in its view pg_stat_archiver\nwaiting         2, next 00000002.history\n`,
      )
      assert.deepEqual(await json(), {
        data_directory: cluster.data,
        archiver: { running: false, pid: null },
        statistics: null,
        waiting: { count: 2, next: '00000002.history' },
        repositories: [],
        setting_problems: [],
      })

      await using archiver = await startModuleText(cluster, withBody(`return file === '00000002.history'`))
      await archiver.line(failedTooOften(second))
      await appears(join(cluster.data, 'pgarchivist', 'archiver.json'))
      const meanwhile = await json()
      assert.deepEqual(meanwhile.archiver, { running: true, pid: archiver.pid })
      assert.deepEqual(meanwhile.waiting, { count: 1, next: second })
      assert.match(await info(), new RegExp(`^archiver        running, PID ${archiver.pid}$`, 'm'))

      assert.equal(await archiver.stop(), 0)
      assert.equal(
        await info(),
        `${head}archiver        not running\n` +
          'archived        1, last 00000002.history at TIME\n' +
          `failed attempts 6, last ${second} at TIME\n` +
          `waiting         1, next ${second}\n`,
      )
      assert.deepEqual((await json()).statistics, {
        archived_count: 1,
        last_archived_wal: '00000002.history',
        last_archived_time: 'TIME',
        failed_count: 6,
        last_failed_wal: second,
        last_failed_time: 'TIME',
        stats_reset: 'TIME',
      })
    })

    test('statistics survive a restart, and what is no statistics starts anew', async () => {
      await using cluster = await bareCluster()
      const file = join(cluster.data, 'pgarchivist', 'archiver.json')
      const counts = async () => {
        const { archived_count, stats_reset } = JSON.parse(await readFile(file, 'utf8'))
        return { archived_count, stats_reset }
      }
      const archiveOne = async (name: string) => {
        await cluster.makeReady(name)
        await using archiver = await startBasicArchive(cluster)
        await cluster.done(name)
        assert.equal(await archiver.stop(), 0)
        assert.deepEqual(archiver.lines, [archiving(cluster.data), fastShutdown, isShutDown])
      }
      await archiveOne(first)
      const { archived_count, stats_reset } = await counts()
      assert.equal(archived_count, 1)
      await archiveOne(second)
      assert.deepEqual(await counts(), { archived_count: 2, stats_reset })
      await writeFile(file, '{"archived_count": "garbage')
      await archiveOne(third)
      assert.equal((await counts()).archived_count, 1)
    })

    test('an archiver that starts while info looks at its lock is not refused', async () => {
      await using cluster = await bareCluster()
      await mkdir(join(cluster.data, 'pgarchivist'))
      await giveAway(join(cluster.data, 'pgarchivist'))
      const lock = await cluster.write('data/pgarchivist/archiver.lock', '')
      // What info does to find out whether somebody holds it, for longer, so that the two are sure to meet.
      const looking = spawn('flock', ['--shared', lock, 'sh', '-c', 'echo held; sleep 1.5'], {
        ...unprivileged,
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      const looked = once(looking, 'exit')
      await once(looking.stdout, 'data')
      await using archiver = await startBasicArchive(cluster)
      await archiver.started(cluster.data)
      await cluster.makeReady(first)
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      await looked
    })

    test('info says in one line what it cannot read', async () => {
      assert.deepEqual(await runCommand(['info', '-D', '/not/there']), {
        status: 1,
        stdout: '',
        stderr: 'pgarchivist: could not read data directory "/not/there": No such file or directory\n',
      })
    })
  })

  describe('modules with faults', { concurrency: 3 }, () => {
    async function firstFatal(cluster: BareCluster, args: string[], lines: string[]): Promise<void> {
      await using archiver = await startArchiver(['-D', cluster.data, ...args])
      for (const line of lines) await archiver.line(line)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [archiving(cluster.data), ...lines, fastShutdown, isShutDown])
    }

    const faults: Array<[string, string, (path: string) => string[]]> = [
      [
        'is no TypeScript',
        'export function {',
        path => [`A FATAL:  could not load library "${path}": ${path}:1: Expected ident`],
      ],
      [
        'has syntax that is more than types',
        '// a comment\nenum Color { Red }\n',
        path => [
          `A FATAL:  could not load library "${path}": ${path}:2: TypeScript enum is not supported in strip-only mode`,
          'A HINT:  Write a constant object ("const Color = { red: 1 } as const") or a union of literal types. With "erasableSyntaxOnly" in tsconfig.json the compiler refuses it too.',
        ],
      ],
      [
        'has no init function',
        'export const nothing = 0',
        () => ['A FATAL:  archive modules have to define the symbol _PG_archive_module_init'],
      ],
      [
        'registers no callback',
        'export function _PG_archive_module_init() { return {} }',
        () => ['A FATAL:  archive modules must register an archive callback'],
      ],
      [
        'throws while it starts',
        'export function _PG_archive_module_init() { throw new Error("no licence") }',
        () => ['A FATAL:  no licence'],
      ],
    ]
    for (const [fault, text, lines] of faults) {
      test(`one that ${fault} is FATAL, with a message that says so`, async () => {
        await using cluster = await bareCluster()
        const path = await cluster.write('module.ts', text)
        await firstFatal(cluster, ['-c', `archive_library=${path}`], lines(path))
      })
    }

    test('one that is not there is FATAL', async () => {
      await using cluster = await bareCluster()
      await firstFatal(
        cluster,
        ['-c', 'archive_library=/not/there.ts'],
        ['A FATAL:  could not access file "/not/there.ts": No such file or directory'],
      )
    })

    test('one that throws fails its three attempts, and the archiver lives', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        withBody(`if (file === '${first}') throw new Error('no'); return true`),
      )
      await archiver.line(failedTooOften(first))
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A ERROR:  no',
        'A ERROR:  no',
        'A ERROR:  no',
        failedTooOften(first),
      ])
      await rm(join(cluster.statusDirectory, `${first}.ready`))
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
    })

    test('one that ends the process with an odd status is told like a crash, with 0 or 1 it is not', async () => {
      for (const [status, line] of [
        [3, ['S LOG:  archiver process (PID n) exited with exit code 3']],
        [0, []],
      ] as const) {
        await using cluster = await bareCluster()
        await cluster.makeReady(first)
        await using archiver = await startModuleText(
          cluster,
          withBody(`server.ereport('LOG', { errmsg: 'begun' }); process.exit(${status})`),
        )
        await archiver.line('A LOG:  begun')
        for (const each of line) await archiver.line(each)
        assert.equal(await archiver.stop(), 0)
        assert.deepEqual(archiver.lines, [
          archiving(cluster.data),
          'A LOG:  begun',
          ...line,
          fastShutdown,
          isShutDown,
        ])
        assert.deepEqual(await readdir(cluster.statusDirectory), [`${first}.ready`])
      }
    })

    test('what is thrown from a timer is FATAL', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startModuleText(
        cluster,
        withBody(`setTimeout(() => { throw new Error('too late') }); return await new Promise(() => {})`),
      )
      await archiver.line('A FATAL:  too late')
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(await readdir(cluster.statusDirectory), [`${first}.ready`])
    })

    test('where nothing is configured, a WARNING says what is missing', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startArchiver(['-D', cluster.data])
      await archiver.line('A DETAIL:  "archive_command" is not set.')
      assert.equal(await archiver.stop(), 0)
      const warning = [
        'A WARNING:  "archive_mode" enabled, yet archiving is not configured',
        'A DETAIL:  "archive_command" is not set.',
      ]
      // Once at the start, and once in the last cycle.
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        ...warning,
        fastShutdown,
        ...warning,
        isShutDown,
      ])
    })
  })

  describe('bad input', { concurrency: 3 }, () => {
    /** Starts and expects it to refuse, with exactly these lines. */
    async function refuses(args: string[], lines: string[]): Promise<void> {
      await using archiver = await startArchiver(args)
      assert.equal(await archiver.ended, 1)
      assert.deepEqual(archiver.lines, lines)
    }

    test('what is not a data directory is refused, with what is missing', async () => {
      await using cluster = await bareCluster()
      await refuses(
        ['-D', '/not/there'],
        ['S FATAL:  could not access directory "/not/there": No such file or directory'],
      )
      await refuses(
        ['-D', cluster.root],
        [
          `S FATAL:  directory "${cluster.root}" is not a data directory of PostgreSQL`,
          `S DETAIL:  There is no directory "${cluster.root}/pg_wal/archive_status".`,
          'S HINT:  Name the directory that "SHOW data_directory" shows.',
        ],
      )
      const file = await cluster.write('file', '')
      await refuses(
        ['-D', file],
        [`S FATAL:  could not access directory "${file}/pg_wal/archive_status": Not a directory`],
      )
    })

    test('no directory at all is an error of usage', async () => {
      await refuses(
        [],
        [
          "pgarchivist: required option '-D, --pgdata <DIR>' not specified",
          'Try "pgarchivist archiver --help".',
        ],
      )
    })

    test('a directory that may not be written or entered is refused', async () => {
      await using cluster = await bareCluster()
      await chmod(cluster.statusDirectory, 0o500)
      await refuses(
        ['-D', cluster.data],
        [
          `S FATAL:  could not write to directory "${cluster.statusDirectory}": Permission denied`,
          'S HINT:  Run the archiver as the user that owns the data directory.',
        ],
      )
      await chmod(cluster.walDirectory, 0o000)
      await refuses(
        ['-D', cluster.data],
        [`S FATAL:  could not access directory "${cluster.statusDirectory}": Permission denied`],
      )
      await chmod(cluster.walDirectory, 0o700)
      await chmod(cluster.data, 0o500)
      await chmod(cluster.statusDirectory, 0o700)
      await refuses(
        ['-D', cluster.data],
        [
          `S FATAL:  could not lock data directory "${cluster.data}": could not create directory "${cluster.data}/pgarchivist": Permission denied`,
        ],
      )
      await chmod(cluster.data, 0o700)
    })

    test('a pg_wal that is a symbolic link is as good as any', async () => {
      await using cluster = await bareCluster()
      await rename(cluster.walDirectory, join(cluster.root, 'wal'))
      await symlink('../wal', cluster.walDirectory)
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [archiving(cluster.data), fastShutdown, isShutDown])
    })

    test('an unknown setting on the command line is refused', async () => {
      await using cluster = await bareCluster()
      await refuses(
        ['-D', cluster.data, '-c', 'archive_libary=x'],
        ['S FATAL:  unrecognized configuration parameter "archive_libary"'],
      )
    })

    test('a value that a setting does not take is refused', async () => {
      await using cluster = await bareCluster()
      await refuses(
        ['-D', cluster.data, '-c', 'archive_mode=perhaps'],
        [
          'S WARNING:  invalid value for parameter "archive_mode": "perhaps"',
          'S HINT:  Available values: always, on, off.',
          'S FATAL:  configuration contains errors',
        ],
      )
      await refuses(
        ['-D', cluster.data, '-c', 'archive_mode=off'],
        [
          'S FATAL:  archiving is switched off by "archive_mode"',
          'S HINT:  Set "archive_mode" to "on" in the server, which makes files to archive only then.',
        ],
      )
    })

    test('a configuration file with errors is refused at start', async () => {
      await using cluster = await bareCluster()
      await cluster.write('data/postgresql.conf', '\nthis is wrong here\n')
      await refuses(
        ['-D', cluster.data],
        [
          `S LOG:  syntax error in file "${cluster.data}/postgresql.conf" line 2, near token "wrong"`,
          `S FATAL:  configuration file "${cluster.data}/postgresql.conf" contains errors`,
        ],
      )
    })

    test("a setting that the module does not have is told, in the file too; the server's own are let through", async () => {
      await using cluster = await bareCluster()
      await cluster.write('data/postgresql.conf', 'shared_buffers = 1GB\nbasic_archive.archive_dir = wrong\n')
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(archiver.lines, [
        archiving(cluster.data),
        'A WARNING:  invalid configuration parameter name "basic_archive.archive_dir", removing it',
        'A DETAIL:  "basic_archive" is now a reserved prefix.',
        fastShutdown,
        isShutDown,
      ])
    })

    test('names that are not WAL are told once, left alone, and hold up nothing', async () => {
      await using cluster = await bareCluster()
      const foreign = ['0'.repeat(41), 'naïve name', '..', '-rf']
      for (const name of foreign) await cluster.write(`data/pg_wal/archive_status/${name}.ready`, '')
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await cluster.done(first)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
      const told = archiver.lines.filter(line => line.startsWith('A '))
      const expected = foreign.flatMap(name => [
        `A LOG:  ignoring archive status file "pg_wal/archive_status/${name}.ready"`,
        'A DETAIL:  Its name is not one that a server gives to a WAL file.',
      ])
      assert.deepEqual(told.toSorted(), expected.toSorted())
      for (const name of foreign)
        assert.equal(await exists(join(cluster.statusDirectory, `${name}.ready`)), true)
      assert.deepEqual((await readdir(cluster.archive)).toSorted(), [first, second])
    })

    test('a status file that is a directory is told, and archiving goes on when it is gone', async () => {
      await using cluster = await bareCluster()
      const directory = join(cluster.statusDirectory, `${first}.ready`)
      await mkdir(directory)
      await using archiver = await startBasicArchive(cluster)
      const warning = `A WARNING:  removal of orphan archive status file "pg_wal/archive_status/${first}.ready" failed too many times, will try again later`
      await archiver.line(warning)
      assert.deepEqual(archiver.lines, [archiving(cluster.data), warning])
      await rmdir(directory)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
    })

    test('an archive directory that appears later is used as soon as there is work', async () => {
      await using cluster = await bareCluster()
      await rmdir(cluster.archive)
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster)
      await archiver.line(failedTooOften(first))
      const lines = archiver.lines.map(line => line.replace(/archtemp\.[^"]*/, 'TEMPORARY'))
      const error = `A ERROR:  could not create file "${cluster.archive}/TEMPORARY": No such file or directory`
      assert.deepEqual(lines, [archiving(cluster.data), error, error, error, failedTooOften(first)])
      await mkdir(cluster.archive)
      await giveAway(cluster.archive)
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual((await readdir(cluster.archive)).toSorted(), [first, second])
    })

    test('a disk that is full, and then one that is read-only, cost nothing but time', async () => {
      await using cluster = await bareCluster()
      // A small disk that only the archiver sees, in a mount namespace of its own: root needs nothing else, anybody
      // else a user namespace.
      const isRoot = process.getuid?.() === 0
      const mount = `mount -t tmpfs -o size=4m,mode=777 tmpfs '${cluster.archive}'`
      const become = isRoot
        ? `setpriv --reuid=${unprivileged.uid} --regid=${unprivileged.gid} --clear-groups`
        : ''
      const wrapper = ['unshare', isRoot ? '-m' : '-rm', 'sh', '-c', `${mount} && exec ${become} "$@"`, 'sh']
      await using archiver = await startBasicArchive(cluster, [], { wrapper, identity: {} })
      await archiver.started(cluster.data)
      const disk = `/proc/${archiver.pid}/root${cluster.archive}`
      const megabyte = 1024 * 1024
      const failures = (name: string, errmsg: string) => [
        ...Array.from({ length: 3 }, () => `A ERROR:  ${errmsg}`),
        failedTooOften(name),
      ]
      const told = () =>
        archiver.lines
          .filter(line => line.startsWith('A '))
          .map(line => line.replace(/archtemp\.[^"]*/, 'TEMPORARY'))

      await writeFile(join(disk, 'filler'), Buffer.alloc(3 * megabyte))
      await cluster.makeReady(first, Buffer.alloc(2 * megabyte, 'x'))
      await archiver.line(failedTooOften(first))
      const full = failures(
        first,
        `could not write to file "${cluster.archive}/TEMPORARY": No space left on device`,
      )
      assert.deepEqual(told(), full)
      assert.deepEqual(await readdir(disk), ['filler'])
      await rm(join(disk, 'filler'))
      await cluster.makeReady(second)
      await cluster.done(second)
      assert.equal((await stat(join(disk, first))).size, 2 * megabyte)

      const remount = async (how: 'ro' | 'rw') => {
        const user = isRoot ? [] : ['-U', '--preserve-credentials']
        const target = ['-t', String(archiver.pid), '-m', ...user]
        await run('nsenter', [...target, 'mount', '-o', `remount,${how}`, cluster.archive])
      }
      await remount('ro')
      await cluster.makeReady(third)
      await archiver.line(failedTooOften(third))
      const readOnly = failures(
        third,
        `could not create file "${cluster.archive}/TEMPORARY": Read-only file system`,
      )
      assert.deepEqual(told(), [...full, ...readOnly])
      await remount('rw')
      await cluster.makeReady(fourth)
      await cluster.done(fourth)
      assert.deepEqual((await readdir(disk)).toSorted(), [first, second, third, fourth])
      assert.equal(await archiver.stop(), 0)
    })
  })

  describe('as root over the directory of another user', { concurrency: 2 }, () => {
    // Where root does not run the tests, the user is its own root: the same has to hold, and is less of a test.
    const identity = {}

    async function foreignFiles(cluster: BareCluster): Promise<string[]> {
      const { uid } = await stat(cluster.data)
      const { stdout } = await run('find', [cluster.root, '!', '-uid', String(uid), '-printf', '%P\n'])
      return stdout.split('\n').filter(Boolean).toSorted()
    }

    test('nothing is left in it that its owner cannot read or remove', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster, [], { identity })
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      const inData = (await foreignFiles(cluster)).filter(path => path.startsWith('data'))
      assert.deepEqual(inData, [])
      await cluster.makeReady(second)
      await using next = await startBasicArchive(cluster)
      await cluster.done(second)
      assert.equal(await next.stop(), 0)
    })

    test('what it archives can be read by that user, who is the one to restore it', async () => {
      await using cluster = await bareCluster()
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster, [], { identity })
      await cluster.done(first)
      assert.equal(await archiver.stop(), 0)
      assert.deepEqual(await foreignFiles(cluster), [])
    })

    test('a link that the owner puts in place of one of our files leads root nowhere', async () => {
      await using cluster = await bareCluster()
      await using elsewhere = await bareCluster()
      const state = join(cluster.data, 'pgarchivist')
      await mkdir(state)
      await giveAway(state)
      // Of whoever runs the tests, which is what makes it foreign where that is root.
      const precious = join(elsewhere.root, 'precious')
      await writeFile(precious, 'precious', { mode: 0o600 })
      const before = await stat(precious)
      for (const name of ['archiver.lock', 'archiver.json.tmp']) await symlink(precious, join(state, name))
      await cluster.makeReady(first)
      await using archiver = await startBasicArchive(cluster, [], { identity })
      await Promise.race([cluster.done(first), archiver.ended])
      if (archiver.lines.includes(archiving(cluster.data))) await archiver.stop()
      assert.equal(await readFile(await realpath(precious), 'utf8'), 'precious')
      assert.equal((await stat(precious)).uid, before.uid)
    })
  })
})
