import assert from 'node:assert/strict'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  availableMajors,
  type PostgresServer,
  requiredMajors,
  startPostgres,
} from './support/postgresql-server.ts'
import { privateDirectory, temporaryDirectory } from './support/unprivileged.ts'

const majors = await availableMajors()

test('PostgreSQL 15 to 18 are there to test with', t => {
  t.diagnostic(`PostgreSQL majors covered: ${majors.join(', ')}`)
  if (!majors.includes(19)) t.diagnostic('PostgreSQL 19 could not be fetched here and was not covered')
  assert.deepEqual(
    requiredMajors.filter(major => !majors.includes(major)),
    [],
  )
})

for (const major of majors) {
  test(`PostgreSQL ${major} starts, archives with contrib's basic_archive, and starts again from its base backup`, async () => {
    await using directory = await temporaryDirectory()
    const archive = join(directory.path, 'archive')
    await privateDirectory(archive)
    await using server = await startPostgres({
      major,
      walSegmentMegabytes: 1,
      settings: {
        archive_mode: 'on',
        archive_library: 'basic_archive',
        'basic_archive.archive_directory': archive,
      },
    })

    const [version] = await server.query<{ number: string }>(
      `SELECT current_setting('server_version_num') AS number`,
    )
    assert.equal(Math.floor(Number(version?.number) / 10_000), major)
    await server.query('CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number')

    const segment = await server.switchWal()
    await archived(server, segment)
    const { size } = await stat(join(archive, segment))
    assert.equal(size, 1024 * 1024)

    const copy = join(directory.path, 'copy')
    const backup = await server.baseBackup(copy)
    assert.match(backup.startLsn, /^[0-9A-F]+\/[0-9A-F]+$/)
    assert.match(backup.endLsn, /^[0-9A-F]+\/[0-9A-F]+$/)
    assert.equal(backup.timeline, 1)
    const manifest: { Files: { Path: string; Size: number }[] } = JSON.parse(
      await readFile(join(copy, 'backup_manifest'), 'utf8'),
    )
    // Our parser cut the stream into files; the server's own list says whether all of them are whole.
    for (const file of manifest.Files)
      assert.equal((await stat(join(copy, file.Path))).size, file.Size, file.Path)

    await using second = await startPostgres({
      major,
      dataDirectory: copy,
      settings: { archive_mode: 'off' },
    })
    const [row] = await second.query<{ sum: string }>('SELECT sum(number) FROM kept')
    assert.equal(row?.sum, '500500')
  })
}

test('a server can be reloaded, stopped in each mode, killed and started again', async () => {
  await using server = await startPostgres({ major: 18 })
  await server.configure({ work_mem: '5MB' })
  assert.deepEqual(await server.query('SHOW work_mem'), [{ work_mem: '5MB' }])
  for (const mode of ['smart', 'fast', 'immediate'] as const) {
    await server.stop(mode)
    assert.equal(server.pid, undefined)
    await server.start()
  }
  server.kill('SIGKILL')
  await server.ended()
  await server.start()
  assert.match(await server.log(), /automatic recovery in progress/)
  await server.configure({ 'a.b.c': 'a name that is a syntax error' })
  assert.match(await server.log(), /postgresql\.conf" contains errors; no changes were applied/)
})

test('a standby follows its archive until it is promoted', async () => {
  await using directory = await temporaryDirectory()
  await using primary = await startPostgres({ major: 18 })
  const copy = join(directory.path, 'copy')
  await primary.baseBackup(copy)
  await using standby = await startPostgres({
    major: 18,
    dataDirectory: copy,
    signalFile: 'standby',
    settings: { restore_command: 'false' },
  })
  assert.deepEqual(await standby.query('SELECT pg_is_in_recovery()'), [{ pg_is_in_recovery: true }])
  await standby.promote()
  assert.deepEqual(await standby.query('SELECT pg_is_in_recovery()'), [{ pg_is_in_recovery: false }])
})

test('nothing is left of a server that was disposed of', async () => {
  const server = await startPostgres({ major: 18 })
  const { pid, socketDirectory } = server
  await server[Symbol.asyncDispose]()
  await assert.rejects(readdir(socketDirectory), { code: 'ENOENT' })
  assert.throws(() => process.kill(pid ?? 0, 0), { code: 'ESRCH' })
})

async function archived(server: PostgresServer, segment: string): Promise<void> {
  const deadline = Date.now() + 30_000
  for (;;) {
    const [row] = await server.query<{ name: string | null }>(
      'SELECT last_archived_wal AS name FROM pg_stat_archiver',
    )
    if (row?.name !== null && row?.name !== undefined && row.name >= segment) return
    assert.ok(Date.now() < deadline, `"${segment}" was not archived within 30 s:\n${await server.log()}`)
    await sleep(50)
  }
}
