// Real servers that recover with archive-get.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { ArchivedServer, fetcherPid, isFetcher, spoolOf, until } from './restore/archived-server.ts'
import { availableMajors, type PostgresServer } from './support/postgresql-server.ts'
import { unprivileged, unprivilegedEnvironment } from './support/unprivileged.ts'

const run = promisify(execFile)
const rowsPerSegment = 100

async function rows(server: PostgresServer): Promise<number> {
  const [row] = await server.query<{ count: string }>('SELECT count(*) FROM kept').catch(() => [])
  return Number(row?.count ?? 0)
}

async function isInRecovery(server: PostgresServer): Promise<boolean> {
  const [row] = await server.query<{ is: boolean }>('SELECT pg_is_in_recovery() AS is')
  return row?.is === true
}

const ended = (server: PostgresServer) =>
  until('recovery has ended', async () => !(await isInRecovery(server)))

/** Starts a server that cannot recover, and returns its log when it has given up. */
async function logOfFailure(start: Promise<PostgresServer>): Promise<string> {
  try {
    await using server = await start
    await server.ended()
    return await server.log()
  } catch (thrown) {
    // It had not come as far as to accept connections; the message holds the end of its log.
    return (thrown as Error).message
  }
}

async function noFetcherAfter(pid: number | undefined): Promise<void> {
  if (pid !== undefined) await until('the fetcher has ended', async () => !(await isFetcher(pid)), 5_000)
}

for (const major of [15, 18]) {
  test(`PostgreSQL ${major} recovers to the end of its WAL, and nothing stays of what was fetched ahead`, async () => {
    await using archived = await ArchivedServer.start(major)
    const copy = await archived.backup()
    const last = await archived.writeSegments(30)
    await archived.archive(last)
    await using server = await archived.recover(copy, 'recovery')
    let pid: number | undefined
    await until('there is a fetcher, or all is over', async () => {
      pid ??= await fetcherPid(copy)
      return pid !== undefined || !(await isInRecovery(server))
    })
    await ended(server)
    assert.equal(await rows(server), 30 * rowsPerSegment)
    assert.match(await server.log(), new RegExp(`restored log file "${last}" from archive`))
    assert.ok(pid, 'there was a fetcher')
    await noFetcherAfter(pid)
    assert.deepEqual(
      (await readdir(join(copy, 'pg_wal'))).filter(name => name.startsWith('pgsql_tmp')),
      [],
    )
  })

  test(`PostgreSQL ${major} recovers to a restore point, and another one follows it to its new timeline`, async () => {
    await using archived = await ArchivedServer.start(major)
    const [first, second] = [await archived.backup(), await archived.backup()]
    await archived.writeSegments(6)
    await archived.server.query(`SELECT pg_create_restore_point('here')`)
    const last = await archived.writeSegments(6)
    await archived.archive(last)

    await using server = await archived.recover(first, 'recovery', {
      ...archived.outboxSettings,
      recovery_target_name: 'here',
      recovery_target_action: 'promote',
    })
    await ended(server)
    assert.equal(await rows(server), 6 * rowsPerSegment)
    const lastOfSecond = await archived.writeSegments(8, server)
    assert.match(lastOfSecond, /^00000002/)
    const names = await archived.archive(lastOfSecond, first)
    assert.ok(names.includes('00000002.history'))

    await using follower = await archived.recover(second, 'recovery')
    await ended(follower)
    assert.equal(await rows(follower), 14 * rowsPerSegment)
    assert.match(await follower.log(), new RegExp(`restored log file "${lastOfSecond}" from archive`))
    assert.match(await follower.log(), /selected new timeline ID: 3/)
  })

  test(`a standby of PostgreSQL ${major} asks again and again, also when the repository is away for a while`, async () => {
    await using archived = await ArchivedServer.start(major)
    const copy = await archived.backup()
    await archived.archive(await archived.writeSegments(5))
    await using standby = await archived.recover(copy, 'standby')
    await until('it has what is archived', async () => (await rows(standby)) === 5 * rowsPerSegment)

    await archived.archive(await archived.writeSegments(3))
    await until('it has what was archived since', async () => (await rows(standby)) === 8 * rowsPerSegment)

    await rename(archived.repository, `${archived.repository}.away`)
    await until('it says why', async () => /pgarchivist: could not get "/.test(await standby.log()))
    assert.equal(await rows(standby), 8 * rowsPerSegment)
    assert.ok(await isInRecovery(standby))
    await rename(`${archived.repository}.away`, archived.repository)
    await archived.archive(await archived.writeSegments(3))
    await until('it goes on', async () => (await rows(standby)) === 11 * rowsPerSegment)

    const pid = await fetcherPid(copy)
    await standby.promote()
    await noFetcherAfter(pid)
    assert.ok(!(await readdir(join(copy, 'pg_wal'))).includes('pgsql_tmp.pgarchivist'))
  })
}

// Recovery waits at the first commit, so that the server can be met in the middle of it.
const slowly = { recovery_min_apply_delay: '1h' }

for (const mode of ['fast', 'immediate'] as const) {
  test(`a server that is stopped in the middle (${mode}) leaves no fetcher, and goes on when it is started again`, async () => {
    await using archived = await ArchivedServer.start(18)
    const copy = await archived.backup()
    await archived.archive(await archived.writeSegments(20))
    await using server = await archived.recover(copy, 'standby', slowly)
    let pid: number | undefined
    await until('there is a fetcher', async () => (pid = await fetcherPid(copy)) !== undefined)
    await until('it has fetched something', async () =>
      (await readdir(spoolOf(copy))).some(name => name.endsWith('.verified')),
    )
    await server.stop(mode)
    await noFetcherAfter(pid)
    const left = (await readdir(spoolOf(copy))).filter(name => /^[0-9A-F]{24}$/.test(name))
    assert.ok(left.length > 0, 'what was fetched stays where it is')

    await rm(join(copy, 'standby.signal'))
    await using again = await archived.recover(copy, 'recovery', { recovery_min_apply_delay: '0' })
    await ended(again)
    assert.equal(await rows(again), 20 * rowsPerSegment)
  })
}

test('damage in the way stops the server, which does not take it for the end, and goes on when it is mended', async () => {
  await using archived = await ArchivedServer.start(18)
  const copy = await archived.backup()
  const middle = await archived.writeSegments(10)
  await archived.archive(await archived.writeSegments(10))
  const object = await archived.objectPath(middle)
  const content = await readFile(object)
  await truncate(object, content.length - 100)

  const log = await logOfFailure(archived.recover(copy, 'recovery'))
  assert.match(log, new RegExp(`pgarchivist: could not get "${middle}": .* is damaged: `))
  assert.match(log, new RegExp(`FATAL: +could not restore file "${middle}" from archive: .*exit code 202`))
  assert.doesNotMatch(log, /selected new timeline/)

  await writeFile(object, content)
  await using server = await archived.recover(copy, 'recovery')
  await ended(server)
  assert.equal(await rows(server), 20 * rowsPerSegment)
})

test('without its marker a repository is not one, and a server does not begin to recover from it', async () => {
  await using archived = await ArchivedServer.start(18)
  const copy = await archived.backup()
  await archived.archive(await archived.writeSegments(3))
  await rm(join(archived.repository, 'pgarchivist-repository.json'))
  const log = await logOfFailure(archived.recover(copy, 'recovery'))
  assert.match(log, /pgarchivist: could not get ".*": there is no repository at/)
  assert.match(log, /FATAL: +could not restore file ".*" from archive: .*exit code 201/)
})

test('a repository that goes away in the middle stops the server, and does not end its WAL', async () => {
  await using archived = await ArchivedServer.start(18)
  const copy = await archived.backup()
  const count = 30
  await archived.archive(await archived.writeSegments(count))
  await using server = await archived.recover(copy, 'recovery', slowly)
  const pid = await fetcherPid(copy)
  await rename(archived.repository, `${archived.repository}.away`)
  await server.configure({ recovery_min_apply_delay: '0' })
  await server.ended()
  const log = await server.log()
  assert.match(log, /FATAL: +could not restore file ".*" from archive: .*exit code 201/)
  assert.doesNotMatch(log, /selected new timeline/)
  await noFetcherAfter(pid)
  await rename(`${archived.repository}.away`, archived.repository)
  await using again = await archived.recover(copy, 'recovery', { recovery_min_apply_delay: '0' })
  await ended(again)
  assert.equal(await rows(again), count * rowsPerSegment)
})

test('another repository in the settings ends the fetcher, and nothing of the first one is used any more', async () => {
  await using archived = await ArchivedServer.start(18)
  const copy = await archived.backup()
  await archived.archive(await archived.writeSegments(20))
  await using server = await archived.recover(copy, 'standby', slowly)
  let pid: number | undefined
  await until('there is a fetcher', async () => (pid = await fetcherPid(copy)) !== undefined)
  await server.configure({ 'pgarchivist.repository': 'file:///nowhere' })
  await noFetcherAfter(pid)
  await until(
    'the spool is gone',
    async () => !(await readdir(join(copy, 'pg_wal'))).includes('pgsql_tmp.pgarchivist'),
  )
})

test('a base backup of a standby holds nothing of its spool', async () => {
  await using archived = await ArchivedServer.start(18)
  const copy = await archived.backup()
  await archived.archive(await archived.writeSegments(20))
  await using standby = await archived.recover(copy, 'standby', { ...slowly, max_wal_senders: '4' })
  await until('something was fetched', async () =>
    (await readdir(spoolOf(copy)).catch(() => [])).some(name => name.endsWith('.verified')),
  )
  const backup = join(archived.directory.path, 'of-the-standby')
  await standby.baseBackup(backup, { wal: false })
  const names = await readdir(backup, { recursive: true })
  assert.ok(names.includes('PG_VERSION'))
  assert.deepEqual(
    names.filter(name => name.includes('pgsql_tmp')),
    [],
  )
})

// The one major whose client programs we have.
for (const major of (await availableMajors()).filter(each => each === 19)) {
  test(`pg_rewind ${major} fetches WAL in any order, and meets no file that vanishes under its hands`, async () => {
    await using archived = await ArchivedServer.start(major)
    const [copy, target] = [await archived.backup(), await archived.backup()]
    await archived.archive(await archived.writeSegments(3))
    await using promoted = await archived.recover(copy, 'standby', archived.outboxSettings)
    await until('it has what is archived', async () => (await rows(promoted)) === 3 * rowsPerSegment)
    await promoted.promote()
    await archived.archive(await archived.writeSegments(2, promoted), copy)

    // The old server goes on, and another standby follows it for a while, past the point where the two have parted.
    await archived.writeSegments(5)
    await archived.server.query(`SELECT pg_create_restore_point('here')`)
    await archived.archive(await archived.writeSegments(20))
    await using server = await archived.recover(target, 'standby', {
      recovery_target_timeline: 'current',
      recovery_target_name: 'here',
    })
    await until('it is at the point', async () => (await rows(server)) === 8 * rowsPerSegment)
    let pid: number | undefined
    await until('there is a fetcher', async () => (pid = await fetcherPid(target)) !== undefined)
    await until('it has fetched something', async () =>
      (await readdir(spoolOf(target))).some(name => name.endsWith('.verified')),
    )
    await promoted.stop()
    await server.stop()

    // At once: a fetcher that took its time would remove files that pg_rewind has listed.
    const { stderr } = await run(
      join(server.programDirectory, 'pg_rewind'),
      ['--target-pgdata', target, '--source-pgdata', copy, '--restore-target-wal', '--no-sync'],
      { ...unprivileged, env: unprivilegedEnvironment, cwd: '/' },
    )
    assert.match(stderr, /Done!/)
    assert.ok(!(await isFetcher(pid ?? 0)))
    assert.ok(!(await readdir(join(target, 'pg_wal'))).includes('pgsql_tmp.pgarchivist'))
  })
}
