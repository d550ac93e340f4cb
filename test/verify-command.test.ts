// `pgarchivist verify` from outside, on real disks: what it prints, in both forms, and how it ends.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { recipientOf } from '../src/repository/codec/recipient.ts'
import { findingKinds, noteKinds, type VerifyReport } from '../src/repository/verify-report.ts'
import { realFiles } from '../src/system/real-files.ts'
import { backupHistory, FilledRepository, segments } from './support/filled-repository.ts'
import {
  checkout,
  giveAway,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from './support/unprivileged.ts'
import { anySystemIdentifier as cluster } from './support/wal-segment.ts'

const identity = 'AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX'
const launcher = join(await checkout(), 'bin/pgarchivist')

interface Ended {
  status: number | string | null | undefined
  stdout: string
  stderr: string
}

async function run(args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = '/'): Promise<Ended> {
  const options = { ...unprivileged, env: { ...unprivilegedEnvironment, ...env }, cwd }
  return await new Promise(resolve => {
    execFile(launcher, ['verify', ...args], options, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : error.code, stdout, stderr })
    })
  })
}

/** A repository that the unprivileged user may read. */
async function filledAt(
  directory: string,
): Promise<FilledRepository & { url: string; open: () => Promise<void> }> {
  const root = join(directory, 'wal')
  await mkdir(root)
  const open = async () => {
    const { promisify } = await import('node:util')
    await promisify(execFile)('chmod', ['-R', 'a+rX', root])
  }
  return Object.assign(new FilledRepository(realFiles, root), { url: `file://${root}`, open })
}

async function dataDirectoryAt(data: string, systemIdentifier: string, url: string): Promise<void> {
  await mkdir(join(data, 'global'), { recursive: true })
  await writeFile(join(data, 'PG_VERSION'), '17\n')
  await writeFile(join(data, 'postgresql.conf'), `pgarchivist.repository = '${url}'\n`)
  const control = Buffer.alloc(8192)
  control.writeBigUInt64LE(BigInt(systemIdentifier))
  await writeFile(join(data, 'global/pg_control'), control)
}

test('a sound repository ends with status 0 and one line per thing to know', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive([...segments(1, 1, 3), '000000010000000000000004.partial', ...segments(2, 4, 5)])
  await filled.archive(['00000002.history'], { content: '1\t0/480000\tx\n' })
  await filled.archive(['000000010000000000000002.00000028.backup'], {
    content: backupHistory('0/200028', '0/300138'),
  })
  await filled.open()
  const { status, stdout, stderr } = await run(['--repository', filled.url])
  assert.equal(stderr, '')
  assert.equal(
    stdout
      .replaceAll(/\d+(\.\d)? [kM]B, read$/gm, 'SIZE, read')
      .replaceAll(/stored as .*$/gm, 'stored as SIZE'),
    `repository ${filled.url}

cluster ${cluster}, segments of 1 MB
  timeline 1: 000000010000000000000001 to 000000010000000000000003
    3 segments, 1 backup history, 1 partial segment (000000010000000000000004.partial), 4.0 MB stored as SIZE
    can be restored up to 0/400000 (written 2026-11-21T04:00:00.000Z) from base backups begun at 0/100000 or later, the oldest known one (000000010000000000000002.00000028.backup, 2026-11-21 03:00:00 UTC)
  timeline 2, from timeline 1 at 0/480000: 000000020000000000000004 to 000000020000000000000005
    2 segments, 2.0 MB stored as SIZE
    can be restored up to 0/600000 (written 2026-11-21T04:00:00.000Z) from base backups begun at 0/100000 on timeline 1 or later, the oldest known one (000000010000000000000002.00000028.backup, 2026-11-21 03:00:00 UTC)

all right: 8 objects, SIZE, read
`,
  )
  assert.equal(status, 0)
})

test('JSON has the form that docs/verify.md describes, and the status is 1 when there are findings', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive([...segments(1, 1, 1), ...segments(1, 100, 101)])
  const key = `${cluster}/wal/00000001/00000000/000000010000000000000064.pgarchivist`
  await truncate(join(filled.directory, key), 5_000)
  await writeFile(join(filled.directory, 'README'), '')
  await filled.open()
  const { status, stdout, stderr } = await run(['--repository', filled.url, '--output', 'json'])
  assert.equal(stderr, '')
  assert.equal(status, 1)
  const report = JSON.parse(stdout) as VerifyReport
  const stored = (await stat(filled.pathOf('000000010000000000000001'))).size
  const newest = (await stat(filled.pathOf('000000010000000000000065'))).size
  assert.deepEqual(report, {
    version: 1,
    repository: filled.url,
    status: 'findings',
    error: null,
    decoded: false,
    objects: 3,
    bytes: stored + newest + 5_000,
    removed_meanwhile: 0,
    clusters: [
      {
        system_identifier: cluster,
        wal_segment_size: 1_048_576,
        timelines: [
          {
            timeline: 1,
            parent: null,
            first_segment: '000000010000000000000001',
            newest_segment: '000000010000000000000065',
            segments: 3,
            partial_segments: { count: 0, shown: [] },
            backup_histories: 0,
            stored_bytes: stored + newest + 5_000,
            plaintext_bytes: 3 * 1_048_576,
            missing_segments: 98,
            restore: {
              from: { timeline: 1, lsn: '0/6500000' },
              backup: null,
              to: {
                timeline: 1,
                lsn: '0/6600000',
                segment: '000000010000000000000065',
                written_at: '2026-11-21T04:00:00.000Z',
              },
            },
          },
        ],
      },
    ],
    findings: [
      {
        kind: 'missing',
        count: 1,
        hint: findingKinds.missing,
        shown: [
          {
            message: '98 segments are missing, "000000010000000000000002" to "000000010000000000000063"',
            system_identifier: cluster,
            timeline: 1,
            first: '000000010000000000000002',
            last: '000000010000000000000063',
            count: 98,
          },
        ],
      },
      {
        kind: 'truncated',
        count: 1,
        hint: findingKinds.truncated,
        shown: [
          {
            message: report.findings[1]?.shown[0]?.message,
            key,
            system_identifier: cluster,
            timeline: 1,
          },
        ],
      },
    ],
    notes: [
      {
        kind: 'stranger',
        count: 1,
        hint: noteKinds.stranger,
        shown: [{ message: '"README" is not an object of a repository', key: 'README' }],
      },
    ],
  })
  assert.match(report.findings[1]?.shown[0]?.message ?? '', /the stored bytes end after 904 of \d+$/)
})

test('findings come with what to do about them', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive([...segments(1, 1, 1), ...segments(1, 3, 99)])
  await filled.open()
  const { status, stdout } = await run(['--repository', filled.url])
  assert.match(stdout, / {4}1 segment is missing\n/)
  assert.ok(
    stdout.includes(`findings
  missing (1)
    segment "000000010000000000000002" is missing
    HINT: ${findingKinds.missing}

1 finding: 98 objects, `),
    stdout,
  )
  assert.equal(status, 1)
})

test('an object that this user may not read is told apart: neither damaged nor missing', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 3))
  await filled.open()
  const path = filled.pathOf('000000010000000000000002')
  await chmod(path, 0)
  if (unprivileged.uid === undefined) await giveAway(path)
  const { status, stdout } = await run(['--repository', filled.url, '--output', 'json'])
  const { findings } = JSON.parse(stdout) as VerifyReport
  assert.deepEqual(
    findings.map(({ kind, count, shown }) => [kind, count, shown[0]?.code]),
    [['unreadable', 1, 'EACCES']],
  )
  assert.equal(status, 1)
})

test('a directory that this user may not list leaves the answer open, with status 2', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2))
  await filled.open()
  const closed = join(filled.directory, cluster, 'wal/00000001/00000000')
  await chmod(closed, 0)
  const { status, stderr } = await run(['--repository', filled.url])
  assert.match(
    stderr,
    /^pgarchivist: could not read directory ".*\/wal\/00000001\/00000000": Permission denied\n/,
  )
  assert.equal(status, 2)
  await chmod(closed, 0o700)
})

test('what keeps it from looking ends with status 2 and is told in both forms', async () => {
  await using directory = await temporaryDirectory()
  const missing = join(directory.path, 'nowhere')
  const text = await run(['--repository', `file://${missing}`])
  assert.equal(text.status, 2)
  assert.equal(text.stdout, '')
  assert.match(text.stderr, /^pgarchivist: .*nowhere.*\nHINT: /)
  const json = await run(['--repository', `file://${missing}`, '--output', 'json'])
  assert.equal(json.status, 2)
  const report = JSON.parse(json.stdout) as VerifyReport
  assert.equal(report.status, 'incomplete')
  assert.ok(text.stderr.includes(report.error?.message ?? 'nothing'))
  for (const args of [
    [],
    ['--repository', 'file:/relative'],
    ['--repository', missing],
    ['--repository', `file://${missing}`, '--system-identifier', 'mine'],
    ['--repository', `file://${missing}`, '--jobs', '0'],
    ['--repository', `file://${missing}`, '--timeline', 'x'],
    ['--repository', `file://${missing}`, '--output', 'xml'],
    ['--unknown'],
    ['more'],
  ]) {
    const ended = await run(args, {}, directory.path)
    assert.equal(ended.status, 2, args.join(' '))
    assert.notEqual(ended.stderr, '')
  }
  const many = await run(['--repository', `file://${missing}`, '--jobs', '65'])
  assert.equal(many.status, 2)
  assert.match(many.stderr, /from 1 to 64/)
})

test('the repository may be named by the environment or by the configuration of a server', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2))
  await filled.open()
  assert.equal((await run([], { PGARCHIVIST_REPOSITORY: filled.url })).status, 0)
  const data = join(directory.path, 'data')
  await dataDirectoryAt(data, cluster, filled.url)
  const { status, stdout, stderr } = await run(['-D', data])
  assert.equal(stderr, '')
  assert.match(stdout, /^all right: 2 objects, /m)
  assert.equal(status, 0)
  // It has written nothing there.
  await assert.rejects(stat(join(data, 'pgarchivist')), { code: 'ENOENT' })
})

test('the files of the cluster in the data directory have to be there, and of any without one', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2))
  await filled.open()
  const data = join(directory.path, 'data')
  const other = '7300000000000000002'
  await dataDirectoryAt(data, other, filled.url)
  const missed = await run(['-D', data])
  const lines = `findings
  nothing_archived (1)
    repository "${filled.url}" has no file of the cluster with system identifier ${other}
    HINT: ${findingKinds.nothing_archived}

1 finding: 2 objects, `
  assert.ok(missed.stdout.includes(lines), missed.stdout)
  assert.equal(missed.status, 1)
  // Whoever names a cluster means that one.
  assert.equal((await run(['-D', data, '--system-identifier', cluster])).status, 0)
  await rm(join(filled.directory, cluster), { recursive: true })
  const empty = await run(['--repository', filled.url])
  assert.match(empty.stdout, /has no file of any cluster\n/)
  assert.doesNotMatch(empty.stdout, /all right/)
  assert.equal(empty.status, 1)
  await rm(join(data, 'global/pg_control'))
  const unknown = await run(['-D', data])
  assert.match(
    unknown.stderr,
    /^pgarchivist: could not read the system identifier from file ".*pg_control"\n/,
  )
  assert.equal(unknown.status, 2)
  // Where somebody just happens to be is no data directory that was named.
  assert.equal((await run(['--repository', filled.url], {}, data)).status, 1)
})

test('one timeline is looked at when it is named, in decimal or as in names of files', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive([...segments(1, 1, 3), ...segments(10, 4, 5)])
  await filled.archive(['0000000A.history'], { content: '1\t0/480000\tx\n' })
  await filled.open()
  for (const number of ['10', '0xA']) {
    const { stdout } = await run(['--repository', filled.url, '--output', 'json', '--timeline', number])
    const { clusters, status } = JSON.parse(stdout) as VerifyReport
    assert.equal(status, 'ok')
    assert.deepEqual(
      clusters[0]?.timelines.map(({ timeline }) => timeline),
      [10],
    )
  }
})

test('with --decode and a key everything is decoded, and no output ever holds a secret', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2), { recipients: [recipientOf(identity)] })
  await filled.open()
  const keyFile = join(directory.path, 'key')
  await writeFile(keyFile, `# a comment\n${identity}\n`, { mode: 0o600 })
  await giveAway(keyFile)
  const decode = ['--repository', filled.url, '--decode']
  const outputs: Ended[] = []
  const ends = async (expected: number, ...args: string[]): Promise<Ended> => {
    const ended = await run([...decode, ...args])
    outputs.push(ended)
    assert.equal(ended.status, expected, `${args.join(' ')}: ${ended.stdout}${ended.stderr}`)
    return ended
  }
  assert.match((await ends(0, '--identity-file', keyFile)).stdout, /^all right: 2 objects, .* decoded$/m)
  assert.match((await ends(1)).stdout, / {2}no_key \(2\)\n/)
  // The two halves of a key mixed up, and a file that others may read.
  await writeFile(keyFile, `${recipientOf(identity)}\n`)
  await ends(2, '--identity-file', keyFile)
  await writeFile(keyFile, `${identity.slice(0, -1)}Q\n`)
  await ends(2, '--identity-file', keyFile)
  await writeFile(keyFile, `${identity}\n`)
  await chmod(keyFile, 0o644)
  assert.match((await ends(2, '--identity-file', keyFile)).stderr, /may be read or changed by others/)
  await rm(keyFile)
  await ends(2, '--identity-file', keyFile)
  for (const { stdout, stderr } of outputs) assert.doesNotMatch(stdout + stderr, /AGE-SECRET-KEY-1/)
})

test('a key that cannot be read is no failure as long as nothing is to be decoded', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2))
  await filled.open()
  const env = { PGARCHIVIST_IDENTITY_FILE: join(directory.path, 'nowhere') }
  assert.equal((await run(['--repository', filled.url], env)).status, 0)
  assert.equal((await run(['--repository', filled.url, '--decode'], env)).status, 2)
})

test('credentials in a URL are refused and not repeated', async () => {
  const ended = await run(['--repository', 'file://me:secret@host/wal', '--output', 'json'])
  assert.equal(ended.status, 2)
  assert.doesNotMatch(ended.stdout + ended.stderr, /secret/)
})

test('names with control characters do not reach the terminal as such', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 1))
  await writeFile(join(filled.directory, 'a\u001b[2Jb\nc'), '')
  await filled.open()
  const { status, stdout } = await run(['--repository', filled.url])
  assert.match(stdout, /^ {4}"a\\u\{1b\}\[2Jb\\u\{a\}c" is not an object of a repository$/m)
  assert.equal(status, 0)
})

test('an unfinished write is judged by when it was really changed, which nobody can set back', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 1))
  const path = filled.pathOf('000000010000000000000001')
  const name = '.000000010000000000000002.pgarchivist.0123456789abcdef.tmp'
  const temporary = join(path, '..', name)
  await writeFile(temporary, 'half')
  await filled.open()
  await utimes(temporary, 0, 0)
  const { stdout, status } = await run(['--repository', filled.url])
  assert.doesNotMatch(stdout, /notes/)
  assert.equal(status, 0)
})

test('--progress tells of itself on standard error only', async () => {
  await using directory = await temporaryDirectory()
  const filled = await filledAt(directory.path)
  await filled.archive(segments(1, 1, 2))
  await filled.open()
  const { status, stdout, stderr } = await run(['--repository', filled.url, '--progress', '--output', 'json'])
  assert.equal(status, 0)
  assert.match(stderr, /^pgarchivist: 2 of 2 objects, [\d.]+ kB of [\d.]+ kB, .* per second\n$/)
  assert.equal((JSON.parse(stdout) as VerifyReport).status, 'ok')
})

test('docs/verify.md names every kind of finding and of note, and every member of the JSON form', async () => {
  const page = await readFile(join(import.meta.dirname, '../docs/verify.md'), 'utf8')
  for (const kind of [...Object.keys(findingKinds), ...Object.keys(noteKinds)]) {
    assert.ok(page.includes(`| \`${kind}\``), `docs/verify.md does not list "${kind}"`)
  }
  const types = await readFile(join(import.meta.dirname, '../src/repository/verify-report.ts'), 'utf8')
  const members = [...types.matchAll(/^ {2}([a-z_]+)\??: /gm)].map(match => match[1] ?? '')
  assert.ok(members.length > 40, `found only ${members.length} members`)
  for (const member of members) {
    if (!Object.hasOwn(findingKinds, member) && !Object.hasOwn(noteKinds, member)) {
      assert.ok(page.includes(`\`${member}\``), `docs/verify.md does not describe "${member}"`)
    }
  }
})
