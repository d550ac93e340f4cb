// The module `repository` in the command, with its settings in postgresql.conf, on disks that really fail.

import assert from 'node:assert/strict'
import { execFile, fork } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, chmod, cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { openRepository } from '../src/cli/open-repository.ts'
import { knownRepositoryPath } from '../src/repository/known-repositories.ts'
import { parseWalObjectKey } from '../src/repository/object-key.ts'
import { fileUrl } from '../src/repository/store/local-store.ts'
import { realStage } from './support/repository-stage.ts'
import {
  type BareCluster,
  bareCluster,
  processTitle,
  runCommand,
  type StartOptions,
  startArchiver,
} from './support/running-archiver.ts'
import { giveAway, unprivileged } from './support/unprivileged.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const run = promisify(execFile)
const names = Array.from({ length: 9 }, (_, i) => `00000001000000000000000${i + 1}`)
const [first = '', second = '', third = '', fourth = '', fifth = ''] = names

/** A cluster with a control file, whose postgresql.conf names its archive directory as repository. */
async function cluster(): Promise<
  BareCluster & { configure(settings?: Record<string, string>): Promise<void> }
> {
  const bare = await bareCluster()
  await mkdir(join(bare.data, 'global'))
  await giveAway(join(bare.data, 'global'))
  const control = Buffer.alloc(8_192)
  control.writeBigUInt64LE(BigInt(anySystemIdentifier))
  await bare.write('data/global/pg_control', control)
  const configure = async (settings: Record<string, string> = {}) => {
    const all: Record<string, string> = { repository: fileUrl(bare.archive), ...settings }
    const lines = Object.entries(all).map(([key, value]) => `pgarchivist.${key} = '${value}'\n`)
    await bare.write('data/postgresql.conf', `archive_library = 'repository'\n${lines.join('')}`)
  }
  await configure()
  return { ...bare, configure }
}

const ready = (it: BareCluster, name: string) => it.makeReady(name, walSegment({ name }))

async function fetchFrom(directory: string, name: string): Promise<Buffer | undefined> {
  const repository = await openRepository({ scheme: 'file', directory }, {})
  const pieces: Uint8Array[] = []
  const request = { systemIdentifier: anySystemIdentifier, name, identities: async () => [] }
  return (await repository.fetch(request, async bytes => void pieces.push(bytes)))
    ? Buffer.concat(pieces)
    : undefined
}

const tooOften = (name: string) =>
  `A WARNING:  archiving write-ahead log file "${name}" failed too many times, will try again later`

describe('the archiver', { concurrency: 2 }, () => {
  test('archives to a repository that its configuration file names, and goes on with it after a restart', async () => {
    await using it = await cluster()
    for (const name of [first, second]) await ready(it, name)
    for (let life = 1; life <= 2; life++) {
      await using archiver = await startArchiver(['-D', it.data])
      await archiver.started(it.data)
      await it.done(life === 1 ? second : third)
      if (life === 1) await ready(it, third)
      if (life === 1) await it.done(third)
      assert.equal(await archiver.stop(), 0)
      const begun = archiver.lines.filter(line => line.includes('began a new repository'))
      assert.deepEqual(
        begun,
        life === 1 ? [`A LOG:  began a new repository at "${fileUrl(it.archive)}"`] : [],
      )
    }
    for (const name of [first, second, third]) {
      assert.deepEqual(await fetchFrom(it.archive, name), walSegment({ name }))
    }
  })

  test('keeps the old value of a setting that is refused on reload, and says so in one line', async () => {
    await using it = await cluster()
    await ready(it, first)
    await using archiver = await startArchiver(['-D', it.data])
    await it.done(first)
    const refusals: Array<[Record<string, string>, string]> = [
      [
        { repository: '/srv/wal' },
        'A WARNING:  invalid value for parameter "pgarchivist.repository": repository "/srv/wal" is not a URL',
      ],
      [
        { repository: 's3://me:S3cr3t@bucket' },
        'A WARNING:  invalid value for parameter "pgarchivist.repository": repository "s3://…@bucket" holds credentials',
      ],
      [
        { encryption_recipients: 'age1nobody' },
        'A WARNING:  invalid value for parameter "pgarchivist.encryption_recipients": recipient 1 is not a valid public key of age: it is damaged or not complete',
      ],
      [
        { compression_level: '99' },
        'A WARNING:  99 is outside the valid range for parameter "pgarchivist.compression_level" (1 .. 19)',
      ],
    ]
    for (const [settings, line] of refusals) {
      await it.configure(settings)
      archiver.kill('SIGHUP')
      await archiver.line(line)
    }
    await ready(it, second)
    await it.done(second)
    assert.equal(await archiver.stop(), 0)
    assert.ok(!archiver.text.includes('S3cr3t'))
    assert.deepEqual(await fetchFrom(it.archive, second), walSegment({ name: second }))
  })

  test('says at its start that the repository may not be written, and what else is wrong there', async () => {
    await using it = await cluster()
    await chmod(it.archive, 0o555)
    await using archiver = await startArchiver(['-D', it.data])
    await archiver.line(`A WARNING:  could not write to directory "${it.archive}": Permission denied`)
    await archiver.line('A HINT:  Let the user that PostgreSQL runs as own the directory of the repository.')
    await chmod(it.archive, 0o700)
    await ready(it, first)
    await it.done(first)
    // What is written from then on lies below, and the root may be somebody else's.
    await chmod(it.archive, 0o555)
    assert.equal(await archiver.stop(), 0)
    await using again = await startArchiver(['-D', it.data])
    await ready(it, second)
    await it.done(second)
    assert.deepEqual(
      again.lines.filter(line => line.includes('could not')),
      [],
    )
    await again.stop()
    await chmod(it.archive, 0o700)
  })

  test('info shows the repository and its id, or what is wrong with it', async () => {
    await using it = await cluster()
    await ready(it, first)
    const info = async (...args: string[]) => (await runCommand(['info', '-D', it.data, ...args])).stdout
    const url = fileUrl(it.archive)
    assert.match(
      await info(),
      new RegExp(
        `^repository {6}${url}: there is no repository at "${url}": "pgarchivist-repository.json" is missing$`,
        'm',
      ),
    )
    await using archiver = await startArchiver(['-D', it.data])
    await it.done(first)
    assert.equal(await archiver.stop(), 0)
    const { id } = JSON.parse(await readFile(join(it.archive, 'pgarchivist-repository.json'), 'utf8'))
    assert.match(await info(), new RegExp(`^repository {6}${url}, id ${id}$`, 'm'))
    assert.deepEqual(JSON.parse(await info('--output', 'json')).repositories, [{ url, id, problem: null }])
    await it.configure({ repository: 'srv/wal' })
    assert.match(
      await info(),
      /^repository {6}"pgarchivist.repository": repository "srv\/wal" is not a URL, in file /m,
    )
  })

  // archive-push fails for each of these, and info showed a repository where all was well.
  test('info shows what is wrong with the settings', async () => {
    await using it = await cluster()
    const conf = join(it.data, 'postgresql.conf')
    const info = async (...args: string[]) => (await runCommand(['info', '-D', it.data, ...args])).stdout
    const problemsOf = async () => JSON.parse(await info('--output', 'json')).setting_problems
    assert.deepEqual(await problemsOf(), [])
    await it.configure({
      compression_level: '99',
      encryption_recipient: 'age1',
      encryption_recipients: 'age1',
    })
    const problems = (await problemsOf()) as string[]
    const lineOf = async (name: string) =>
      (await readFile(conf, 'utf8')).split('\n').findIndex(line => line.startsWith(`pgarchivist.${name} `)) +
      1
    assert.deepEqual(problems, [
      `unrecognized configuration parameter "pgarchivist.encryption_recipient" in file "${conf}" line ${await lineOf('encryption_recipient')}`,
      `99 is outside the valid range for parameter "pgarchivist.compression_level" (1 .. 19), in file "${conf}" line ${await lineOf('compression_level')}`,
      problems[2],
    ])
    assert.match(problems[2] ?? '', /^"pgarchivist\.encryption_recipients": recipient 1 .*, in file /)
    const text = await info()
    for (const problem of problems) assert.ok(text.includes(`\nsetting         ${problem}\n`), text)
    await appendFile(conf, 'nonsense\n')
    const lines = (await readFile(conf, 'utf8')).split('\n').length - 1
    assert.deepEqual(await problemsOf(), [`syntax error in file "${conf}" line ${lines}, near end of line`])
  })

  test('tells a misspelt setting, and not one that is for the library in the server', async () => {
    await using it = await cluster()
    await it.configure({ encryption_recipient: 'age1x', file_timeout: '10s' })
    await using archiver = await startArchiver(['-D', it.data])
    await archiver.line(
      'A WARNING:  invalid configuration parameter name "pgarchivist.encryption_recipient", removing it',
    )
    await archiver.line('A DETAIL:  "pgarchivist" is now a reserved prefix.')
    assert.equal(await archiver.stop(), 0)
    assert.equal(archiver.lines.filter(line => line.includes('invalid configuration parameter')).length, 1)
  })

  test('uses another repository after a reload, and says which', async () => {
    await using it = await cluster()
    await ready(it, first)
    await using archiver = await startArchiver(['-D', it.data])
    await it.done(first)
    const other = join(it.root, 'other')
    await mkdir(other)
    await giveAway(other)
    await it.configure({ repository: fileUrl(other) })
    archiver.kill('SIGHUP')
    await archiver.line(`A LOG:  parameter "pgarchivist.repository" changed to "${fileUrl(other)}"`)
    await ready(it, second)
    await it.done(second)
    await archiver.line(`A LOG:  began a new repository at "${fileUrl(other)}"`)
    assert.deepEqual(await fetchFrom(other, second), walSegment({ name: second }))
  })

  test('gives what it stores as root to the owner of the cluster', async () => {
    assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can give files away')
    await using it = await cluster()
    await chmod(it.data, 0o750)
    await ready(it, first)
    await using archiver = await startArchiver(['-D', it.data], { identity: {} })
    await it.done(first)
    assert.equal(await archiver.stop(), 0)
    const entries = await readdir(it.archive, { recursive: true, withFileTypes: true })
    for (const path of [
      ...entries.map(entry => join(entry.parentPath, entry.name)),
      knownRepositoryPath(it.data, fileUrl(it.archive)),
    ]) {
      const status = await stat(path)
      assert.equal(status.uid, unprivileged.uid, path)
      assert.equal(status.mode & 0o777, status.isDirectory() ? 0o750 : 0o640, path)
    }
  })
})

/**
 * A small disk in place of the archive that only the archiver sees, in a mount namespace of its own, mounted so that it
 * can be taken away and brought back.
 */
async function withDisk(it: BareCluster, megabytes: number) {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can mount disks')
  const disk = join(it.root, 'disk')
  await mkdir(disk)
  const mount = `mount -t tmpfs -o size=${megabytes}m,mode=777 tmpfs '${disk}' && mount --bind '${disk}' '${it.archive}'`
  const become = `setpriv --reuid=${unprivileged.uid} --regid=${unprivileged.gid} --clear-groups`
  const wrapper = ['unshare', '-m', 'sh', '-c', `${mount} && exec ${become} "$@"`, 'sh']
  const options: StartOptions = { wrapper, identity: {} }
  const archiver = await startArchiver(['-D', it.data], options)
  await archiver.started(it.data)
  return {
    archiver,
    /** Its path for others. */
    disk: `/proc/${archiver.pid}/root${disk}`,
    /** What is at the place of the archive, for the archiver. */
    place: `/proc/${archiver.pid}/root${it.archive}`,
    inNamespace: async (...command: string[]) => {
      await run('nsenter', ['-t', String(archiver.pid), '-m', ...command])
    },
    /** Its lines about this file, without those that are the same each time. */
    told: () =>
      archiver.lines
        .filter(line => line.startsWith('A '))
        .map(line => line.replace(/[^"]*\/\.[^"]*\.tmp/, 'TEMPORARY')),
  }
}

/** Reads from a copy, because paths through /proc lead elsewhere for those who ask where they are. */
async function mustHold(it: BareCluster, disk: string, stored: string[]): Promise<void> {
  const copy = join(it.root, 'copy')
  await cp(disk, copy, { recursive: true })
  for (const name of stored) assert.deepEqual(await fetchFrom(copy, name), walSegment({ name }))
}

describe('real trouble', { concurrency: 2 }, () => {
  test('a disk that is full, and then one that is read-only, cost nothing but time', async () => {
    await using it = await cluster()
    const { archiver, disk, inNamespace, told } = await withDisk(it, 4)
    await using _ = archiver
    await ready(it, first)
    await it.done(first)
    const filler = join(disk, 'filler')
    const size = 4 * 1024 * 1024
    // As much as there is room for.
    await assert.rejects(writeFile(filler, Buffer.alloc(size)), { code: 'ENOSPC' })
    await ready(it, second)
    await archiver.line(tooOften(second))
    assert.deepEqual(told().slice(-7), [
      ...Array.from({ length: 3 }, () => [
        'A ERROR:  could not write to file "TEMPORARY": No space left on device',
        'A HINT:  Make room in the repository; archiving goes on by itself then.',
      ]).flat(),
      tooOften(second),
    ])
    await rm(filler)
    await ready(it, third) // wakes the archiver
    await it.done(third)
    await it.done(second)

    await inNamespace('mount', '-o', 'remount,ro', it.archive)
    await inNamespace('mount', '-o', 'remount,ro', join(it.root, 'disk')).catch(() => undefined)
    await ready(it, fourth)
    await archiver.line(tooOften(fourth))
    assert.deepEqual(told().slice(-7), [
      ...Array.from({ length: 3 }, () => [
        'A ERROR:  could not create file "TEMPORARY": Read-only file system',
        'A HINT:  Mount the file system of the repository so that it can be written.',
      ]).flat(),
      tooOften(fourth),
    ])
    await inNamespace('mount', '-o', 'remount,rw', join(it.root, 'disk'))
    await inNamespace('mount', '-o', 'remount,rw', it.archive)
    await ready(it, fifth)
    await it.done(fifth)
    await mustHold(it, disk, [first, second, third, fourth, fifth])
    const left = (await readdir(disk, { recursive: true })).filter(name => name.endsWith('.tmp'))
    assert.deepEqual(left, [])
    assert.match(await processTitle(await archiver.archiverPid()), /^pgarchivist: archiver/)
  })

  test('a disk that is unmounted under a running archiver gets nothing written beside it, and archiving goes on when it is back', async () => {
    await using it = await cluster()
    const { archiver, disk, place, inNamespace, told } = await withDisk(it, 8)
    await using _ = archiver
    await ready(it, first)
    await it.done(first)
    const before = told().length
    await inNamespace('umount', '-l', it.archive)
    await ready(it, second)
    await archiver.line(tooOften(second))
    const { id } = JSON.parse(await readFile(join(disk, 'pgarchivist-repository.json'), 'utf8')) as {
      id: string
    }
    assert.deepEqual(told().slice(before), [
      ...Array.from({ length: 3 }, () => [
        `A ERROR:  repository "${fileUrl(it.archive)}" is gone: "pgarchivist-repository.json" is missing`,
        `A DETAIL:  It had the id ${id}.`,
        `A HINT:  Is the disk mounted? Nothing is archived until it is back. If it was given up on purpose, remove "${knownRepositoryPath(it.data, fileUrl(it.archive))}" to begin a new one.`,
      ]).flat(),
      tooOften(second),
    ])
    assert.deepEqual(await readdir(place), [])
    await inNamespace('mount', '--bind', join(it.root, 'disk'), it.archive)
    await ready(it, third)
    await it.done(third)
    await it.done(second)
    await mustHold(it, disk, [first, second, third])
  })

  test('a process that is killed while it archives has lost nothing that it said was archived', async () => {
    await using stage = await realStage()
    const many = Array.from(
      { length: 40 },
      (_, i) => `0000000100000000000000${(i + 16).toString(16).toUpperCase().padStart(2, '0')}`,
    )
    for (const name of many) await stage.putSegment(name)
    const told = new Map<string, string>()
    const program = join(import.meta.dirname, 'support/archiving-process.ts')
    for (let round = 1; told.size < many.length; round++) {
      assert.ok(round <= many.length + 1, 'it does not get on')
      const rest = many.filter(name => !told.has(name))
      const child = fork(program, [stage.data, stage.root, ...rest], {
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      })
      await once(child, 'message')
      child.send('go')
      let lines = 0
      let text = ''
      for await (const chunk of child.stdout?.setEncoding('utf8') ?? []) {
        text += String(chunk)
        for (;;) {
          const end = text.indexOf('\n')
          if (end < 0) break
          const [name = '', ...outcome] = text.slice(0, end).split(' ')
          told.set(name, outcome.join(' '))
          text = text.slice(end + 1)
          // At another moment of another file each time.
          if (++lines === 1 + (round % 4)) setTimeout(() => child.kill('SIGKILL'), (round * 7) % 23)
        }
      }
    }
    for (const name of many) {
      assert.match(told.get(name) ?? '', /^(already )?archived$/)
      assert.deepEqual(await stage.start().fetch(name), walSegment({ name }))
    }
    const keys: string[] = []
    for await (const { key } of stage.start().store.list('')) keys.push(key)
    assert.equal(keys.filter(key => parseWalObjectKey(key)).length, many.length)
    const left = (await readdir(stage.root, { recursive: true })).filter(name => name.endsWith('.tmp'))
    assert.deepEqual(left, [])
  })
})
