// What a repository promises, on a real disk: what it stores, what it refuses, and what it says then.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmod,
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import { generateIdentity } from 'age-encryption'
import { walSource } from '../src/modules/repository.ts'
import { plaintextDigest } from '../src/repository/codec/plaintext-digest.ts'
import { recipientOf } from '../src/repository/codec/recipient.ts'
import { knownRepositoryPath } from '../src/repository/known-repositories.ts'
import { parseMetadataBlock } from '../src/repository/metadata-block.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import { fileUrl } from '../src/repository/store/local-store.ts'
import { realFiles } from '../src/system/real-files.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedDisk } from '../src/system/simulated-files.ts'
import {
  anyId,
  anyTime,
  archiveOptions,
  archivingServer,
  failure,
  keyOf,
  realStage,
} from './support/repository-stage.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const name = '000000010000000000000001'
const kinds = [name, `${name}.partial`, `${name}.00000028.backup`, '00000002.history']
const otherId = '00000000-0000-4000-8000-000000000002'
// Node takes some 150 until it has stripped the types of all sources, and collects garbage when it likes.
const memoryMaxMegabytes = 350
const markerName = 'pgarchivist-repository.json'

const identity = await generateIdentity()
const otherIdentity = await generateIdentity()

/** Content that a file of this kind can have. */
function contentOf(each: string, seed = 1): Uint8Array {
  return /^[0-9A-F]{24}(\.partial)?$/.test(each)
    ? walSegment({ name: each, seed })
    : Buffer.from(`content ${seed} of ${each}\n`)
}

const filesIn = async (directory: string) =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter(each => !each.isDirectory())
    .map(each => join(each.parentPath, each.name).slice(directory.length + 1))
    .toSorted()

// Stored and fetched

test('every kind of file is stored under its key, and comes back as it was', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  for (const each of kinds) {
    const content = await stage.put(each, contentOf(each))
    assert.equal(await archive(each), 'archived')
    assert.deepEqual(await fetch(each), content)
  }
  assert.deepEqual(await filesIn(stage.root), [...kinds.map(keyOf), markerName].toSorted())
})

test('a file may be empty', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  await stage.put('00000002.history', '')
  assert.equal(await archive('00000002.history'), 'archived')
  assert.equal((await fetch('00000002.history'))?.length, 0)
})

test('an object says what it is', async () => {
  await using stage = await realStage()
  const { archive } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  const parsed = parseMetadataBlock(await stage.object(name))
  assert.ok(parsed.kind === 'metadata')
  const { metadata } = parsed
  const content = await readFile(join(stage.data, 'pg_wal', name))
  const { mtimeNs } = await stat(join(stage.data, 'pg_wal', name), { bigint: true })
  const storedBytes = (await stage.object(name)).subarray(4_096)
  assert.deepEqual(metadata, {
    name,
    system_identifier: anySystemIdentifier,
    plaintext_xxh128: (await plaintextDigest(chunksOf(content))).digest,
    plaintext_length: 1024 * 1024,
    stored_sha256: createHash('sha256').update(storedBytes).digest('hex'),
    stored_length: storedBytes.length,
    compression: 'zstd',
    encryption: 'none',
    recipients: [],
    wal_segment_size: 1024 * 1024,
    wal_page_magic: 'D116',
    archived_at: new Date(anyTime).toISOString(),
    modified_at: new Date(Number(mtimeNs / 1_000_000n)).toISOString(),
    writer: 'pgarchivist test',
  })
})

function chunksOf(content: Buffer) {
  let at = 0
  return {
    read: async (buffer: Uint8Array) => {
      const bytesRead = content.copy(buffer, 0, at, at + buffer.length)
      at += bytesRead
      return bytesRead
    },
  }
}

test('a file that is not there is known to be missing', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  // In the same directory, in one that is not there, on a timeline that is not there.
  for (const each of ['000000010000000000000002', '000000010000000900000001', '00000009.history']) {
    assert.equal(await fetch(each), undefined)
  }
})

test('a cluster of which there is nothing looks in the wrong place', async () => {
  await using stage = await realStage()
  const { archive, repository } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  const request = { systemIdentifier: '42', name, identities: async () => [] }
  assert.equal(
    await failure(repository.fetch(request, async () => {})),
    `UNKNOWN_CLUSTER: repository "${repository.url}" has no file of a cluster with system identifier 42\nHINT: Is this the right repository, and the right data directory?`,
  )
})

test('what is no name of a WAL file is neither stored nor looked for, wherever it would lead', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  for (const each of [
    '',
    '.',
    '..',
    '../../x',
    `${name}/../x`,
    `${name}.pgarchivist`,
    `${name}\n`,
    'PG_VERSION',
    `${name.toLowerCase()}f`,
  ]) {
    assert.equal(
      await failure(archive(each)),
      `SOURCE: "${each}" is not the name of a WAL file\nHINT: Only segments, timeline histories, backup histories and partial segments are archived.`,
    )
    assert.equal(
      await failure(fetch(each)),
      `SETTINGS: "${each}" is not the name of a WAL file\nHINT: Only segments, timeline histories, backup histories and partial segments can be there.`,
    )
  }
  assert.deepEqual(await readdir(stage.root), [])
})

// The same name again

test('the same content again is success, whatever has changed about how it would be stored', async () => {
  await using stage = await realStage()
  const { archive } = stage.start()
  for (const each of kinds) {
    await stage.put(each, contentOf(each))
    await archive(each)
    const before = await stage.object(each)
    for (const more of [
      {},
      { compressionLevel: 7 },
      { recipients: [recipientOf(identity)] },
      { headerCheck: false },
    ]) {
      assert.equal(await archive(each, more), 'already archived')
      assert.equal(await stage.start().archive(each, more), 'already archived')
    }
    assert.deepEqual(await stage.object(each), before)
  }
})

test('the same content is known without a key', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  const content = await stage.putSegment(name)
  await archive(name, { recipients: [recipientOf(identity)] })
  assert.equal(await archive(name), 'already archived')
  assert.equal(await archive(name, { recipients: [recipientOf(otherIdentity)] }), 'already archived')
  assert.deepEqual(await fetch(name, [identity]), content)
})

test('other content is refused, with what is there, since when, and what to do', async () => {
  await using stage = await realStage()
  const { archive, repository } = stage.start()
  for (const each of kinds) {
    await stage.put(each, contentOf(each))
    await archive(each)
    const before = await stage.object(each)
    const other = await stage.put(each, contentOf(each, 2))
    const parsed = parseMetadataBlock(before)
    assert.ok(parsed.kind === 'metadata')
    for (const server of [archive, stage.start().archive]) {
      const said = await failure(server(each))
      assert.equal(
        said.replace(/has \d+ bytes with digest [0-9a-f]{32}\.\n/, 'has OTHER.\n'),
        `DIFFERENT: archive file "${each}" already exists with other content\n` +
          `DETAIL: Repository "${repository.url}" has had it since 2026-01-01T00:00:00.000Z, ${parsed.metadata.plaintext_length} bytes with digest ${parsed.metadata.plaintext_xxh128}; the file that was to be archived has OTHER.\n` +
          'HINT: Two servers of one origin may archive to this repository: find out which one shall, and give the other one a repository of its own.',
      )
      assert.ok(said.includes(`archived has ${other.length} bytes`))
      assert.ok(
        !said.includes(`archived has ${other.length} bytes with digest ${parsed.metadata.plaintext_xxh128}`),
      )
    }
    assert.deepEqual(await stage.object(each), before)
  }
})

test('content that is longer, shorter or empty is other content', async () => {
  await using stage = await realStage()
  const { archive } = stage.start()
  await stage.put('00000002.history', 'content')
  await archive('00000002.history')
  for (const other of ['conten', 'content ', '', 'Content']) {
    await stage.put('00000002.history', other)
    await assert.rejects(archive('00000002.history'), { code: 'DIFFERENT' })
  }
})

// Damage

/** What can become of an object on a bad disk, and what is then said of it. */
const damages: Array<[string, (path: string) => Promise<void>, string]> = [
  ['a flipped bit in the metadata', flipAt(100), 'its metadata block is damaged'],
  ['a flipped bit in the checksum', flipAt(4_090), 'its metadata block is damaged'],
  ['a flipped bit in what is stored', flipAt(5_000), 'the stored bytes do not match their digest'],
  ['half of it', path => truncate(path, 5_000), 'the stored bytes end after 904 of STORED'],
  ['nothing but the metadata', path => truncate(path, 4_096), 'the stored bytes end after 0 of STORED'],
  ['a part of the metadata', path => truncate(path, 4_095), 'it is shorter than its metadata block'],
  ['nothing', path => truncate(path, 0), 'it is shorter than its metadata block'],
  [
    'more than was stored',
    path => writeFile(path, 'more', { flag: 'a' }),
    'there are more than the STORED bytes that were stored',
  ],
]

function flipAt(position: number) {
  return async (path: string) => {
    const bytes = await readFile(path)
    bytes[position] = (bytes[position] ?? 0) ^ 1
    await writeFile(path, bytes)
  }
}

test('a damaged object is neither replaced nor taken for the file, and says how it is damaged', async () => {
  for (const recipients of [[], [recipientOf(identity)]]) {
    for (const [what, damage, why] of damages) {
      await using stage = await realStage()
      const { archive, fetch, repository } = stage.start()
      await stage.putSegment(name)
      await archive(name, { recipients })
      const stored = (await stage.object(name)).length - 4_096
      await damage(stage.objectPath(name))
      const before = await stage.object(name)
      const message = `CORRUPT: "${keyOf(name)}" in repository "${repository.url}" is damaged: ${why.replace('STORED', `${stored}`)}`
      assert.equal(
        await failure(archive(name)),
        `${message}\nHINT: Move "${keyOf(name)}" out of the repository: the file is then archived anew. "pgarchivist verify" looks for other damage.`,
        what,
      )
      assert.equal(
        await failure(fetch(name, [identity])),
        `${message}\nHINT: What is stored is damaged. Restore this object from a copy of the repository; "pgarchivist verify" looks for others.`,
        what,
      )
      assert.deepEqual(await stage.object(name), before)
    }
  }
})

test('an object under the key of another one is damage', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  const other = '000000010000000000000002'
  await cp(stage.objectPath(name), stage.objectPath(other))
  await stage.putSegment(other)
  for (const use of [archive, fetch]) {
    await assert.rejects(use(other), {
      code: 'CORRUPT',
      message: new RegExp(`is damaged: it is "${name}" of cluster ${anySystemIdentifier}$`),
    })
  }
})

test('no key, a wrong key and damage are told apart', async () => {
  await using stage = await realStage()
  const { archive, fetch, repository } = stage.start()
  const content = await stage.putSegment(name)
  await archive(name, { recipients: [recipientOf(identity)] })
  const detail = `DETAIL: It is encrypted for ${recipientOf(identity)}.`
  assert.equal(
    await failure(fetch(name)),
    `NO_KEY: "${keyOf(name)}" in repository "${repository.url}" is encrypted, and there is no private key\n${detail}\nHINT: Set "pgarchivist.identity_file" to a file that holds the private key of one of these recipients.`,
  )
  assert.equal(
    await failure(fetch(name, [otherIdentity])),
    `WRONG_KEY: "${keyOf(name)}" in repository "${repository.url}" cannot be opened with this private key\n${detail}\nHINT: The identity file has to hold the private key of one of these recipients.`,
  )
  assert.deepEqual(await fetch(name, [otherIdentity, identity]), content)
  await flipAt(5_000)(stage.objectPath(name))
  for (const identities of [[otherIdentity], [identity]]) {
    await assert.rejects(fetch(name, identities), { code: 'CORRUPT' })
  }
})

test('what takes the content may fail in its own words', async () => {
  await using stage = await realStage()
  const { archive, repository } = stage.start()
  await stage.putSegment(name)
  await archive(name, { recipients: [recipientOf(identity)] })
  const full = Object.assign(new Error('the disk of the server is full'), { code: 'ENOSPC' })
  const request = { systemIdentifier: anySystemIdentifier, name }
  const fail = async () => {
    throw full
  }
  await assert.rejects(repository.fetch({ ...request, identities: async () => [identity] }, fail), full)
  await assert.rejects(
    repository.fetch({ ...request, identities: fail }, async () => {}),
    full,
  )
})

// Two servers

test('of two servers that archive the same file at once both succeed, and there is one object', async () => {
  for (let round = 0; round < 10; round++) {
    await using stage = await realStage()
    const content = await stage.putSegment(name)
    await cp(stage.data, join(stage.above, 'other'), { recursive: true })
    const first = stage.start()
    const second = stage.start({ data: join(stage.above, 'other'), newId: () => otherId })
    const outcomes = await Promise.all([first.archive(name), second.archive(name, { compressionLevel: 3 })])
    assert.ok(outcomes.includes('archived'), outcomes.join())
    assert.deepEqual(await first.fetch(name), content)
    assert.deepEqual(await filesIn(stage.root), [keyOf(name), markerName].toSorted())
    assert.equal(first.created.length + second.created.length, 1)
  }
})

test('of two servers that archive other content at once one wins, and the other is refused', async () => {
  for (let round = 0; round < 10; round++) {
    await using stage = await realStage()
    await cp(stage.data, join(stage.above, 'other'), { recursive: true })
    const ours = await stage.putSegment(name)
    const theirs = walSegment({ name, seed: 2 })
    await writeFile(join(stage.above, 'other/pg_wal', name), theirs)
    const first = stage.start()
    const second = stage.start({ data: join(stage.above, 'other') })
    const [a, b] = await Promise.allSettled([first.archive(name), second.archive(name)])
    const won = [a, b].filter(each => each.status === 'fulfilled')
    assert.equal(won.length, 1, JSON.stringify([a, b]))
    const lost = a.status === 'rejected' ? a : b
    assert.ok(lost.status === 'rejected' && lost.reason instanceof RepositoryError)
    assert.equal(lost.reason.code, 'DIFFERENT')
    assert.deepEqual(await first.fetch(name), a.status === 'fulfilled' ? ours : theirs)
  }
})

test('of processes that archive the same files at once all succeed, and there is one object of each', async () => {
  await using stage = await realStage()
  const names = Array.from(
    { length: 12 },
    (_, i) => `0000000100000000000000${(16 + i).toString(16).toUpperCase()}`,
  )
  for (const each of names) await stage.putSegment(each)
  const start = async (data: string) => {
    await cp(stage.data, data, { recursive: true })
    const child = fork(
      join(import.meta.dirname, 'support/archiving-process.ts'),
      [data, stage.root, ...names],
      {
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      },
    )
    const output = child.stdout?.setEncoding('utf8').toArray()
    await once(child, 'message') // it is ready
    return { go: () => child.send('go'), told: async () => (await output)?.join('') }
  }
  const processes = await Promise.all(['a', 'b', 'c'].map(each => start(join(stage.above, each))))
  for (const { go } of processes) go()
  const told = await Promise.all(processes.map(each => each.told()))
  const outcomes = told.flatMap(text => (text ?? '').trim().split('\n'))
  assert.equal(outcomes.length, 3 * names.length, told.join())
  for (const each of names) {
    const said = outcomes.filter(line => line.startsWith(each)).toSorted()
    assert.equal(said.filter(line => line === `${each} archived`).length, 1, said.join())
    assert.equal(said.filter(line => line === `${each} already archived`).length, 2, said.join())
    assert.deepEqual(await stage.start().fetch(each), walSegment({ name: each }))
  }
  assert.deepEqual(await filesIn(stage.root), [...names.map(keyOf), markerName].toSorted())
})

test('as many files at once as there can be are archived, in one repository that is begun once', async () => {
  await using stage = await realStage()
  const { archive, fetch, created } = stage.start()
  const names = Array.from(
    { length: 64 },
    (_, i) =>
      `00000001000000${(i % 3).toString().padStart(2, '0')}000000${(16 + i).toString(16).toUpperCase()}`,
  )
  for (const each of names) await stage.putSegment(each)
  assert.deepEqual(
    await Promise.all(names.map(each => archive(each))),
    names.map(() => 'archived'),
  )
  assert.equal(created.length, 1)
  for (const each of names) assert.deepEqual(await fetch(each), walSegment({ name: each }))
  assert.deepEqual(await filesIn(stage.root), [...names.map(keyOf), markerName].toSorted())
  assert.deepEqual(await openIn(stage.above), [])
})

test('the largest segments take no more memory than others, to archive and to compare', async () => {
  await using stage = await realStage()
  const gibibyte = 1024 ** 3
  const start = walSegment({ name }).subarray(0, 8_192)
  start.writeBigUInt64LE(BigInt(gibibyte), 8)
  start.writeUInt32LE(gibibyte, 32)
  await stage.put(name, start)
  await truncate(join(stage.data, 'pg_wal', name), gibibyte)
  const program = join(import.meta.dirname, 'support/archiving-process.ts')
  const child = fork(program, [stage.data, stage.root, name, name, '--memory'], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  const output = child.stdout?.setEncoding('utf8').toArray()
  await once(child, 'message')
  child.send('go')
  const lines = ((await output) ?? []).join('').trim().split('\n')
  assert.deepEqual(lines.slice(0, -1), [`${name} archived`, `${name} already archived`])
  const megabytes = Number.parseInt(lines.at(-1) ?? '') / 1024
  assert.ok(megabytes < memoryMaxMegabytes, `${megabytes} MB`)
})

/** Files of this process that are open below a directory. */
async function openIn(directory: string): Promise<string[]> {
  const targets = await Promise.all(
    (await readdir('/proc/self/fd')).map(fd => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  return targets.filter(target => target.startsWith(directory))
}

// The marker

test('the first file begins a repository in an empty directory, and that is remembered', async () => {
  await using stage = await realStage()
  const { archive, created, repository } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  assert.deepEqual(created, [`${repository.url} ${anyId}`])
  assert.deepEqual(JSON.parse(await readFile(join(stage.root, markerName), 'utf8')), {
    format: 1,
    id: anyId,
    created_at: '2026-01-01T00:00:00.000Z',
    writer: 'pgarchivist test',
  })
  assert.deepEqual(JSON.parse(await readFile(stage.knownPath, 'utf8')), { url: repository.url, id: anyId })
  assert.equal((await stat(stage.knownPath)).mode & 0o777, 0o600)
})

test('what a new file system holds, and unfinished writes, do not make a directory one that is used', async () => {
  await using stage = await realStage()
  const writer = '0123456789abcdef'
  for (const each of ['lost+found', '.zfs', '.snapshot', '.snapshots']) await mkdir(join(stage.root, each))
  for (const each of [`.${markerName}.${writer}.tmp`, `${markerName}.lock..${markerName}.${writer}.tmp`]) {
    await writeFile(join(stage.root, each), '')
  }
  await stage.putSegment(name)
  assert.equal(await stage.start().archive(name), 'archived')
})

test('a directory that holds anything else is not made a repository', async () => {
  for (const each of ['.hidden', 'file', 'lost+found2', `.${markerName}.tmp`]) {
    await using stage = await realStage()
    const { archive, repository, created } = stage.start()
    await writeFile(join(stage.root, each), '')
    await stage.putSegment(name)
    assert.equal(
      await failure(archive(name)),
      `NO_MARKER: "${repository.url}" is not empty, and is not a repository\nHINT: Let "pgarchivist.repository" name an empty directory, or one that holds a repository.`,
    )
    assert.deepEqual([await readdir(stage.root), created], [[each], []])
  }
})

test('a root that is not there is never made, and is used when it is there', async () => {
  await using stage = await realStage()
  const { archive, fetch, repository } = stage.start()
  await rm(stage.root, { recursive: true })
  await stage.putSegment(name)
  const said = `UNREACHABLE: could not open repository directory "${stage.root}": No such file or directory\nHINT: Mount the disk, or make an empty directory that belongs to the server's user: it is never made for you.`
  assert.equal(await failure(archive(name)), said)
  assert.equal(await failure(fetch(name)), said)
  assert.equal(await failure(repository.inspect()), said)
  assert.deepEqual((await readdir(stage.above)).toSorted(), ['data'])
  await mkdir(stage.root)
  assert.equal(await archive(name), 'archived')
})

test('a root that is something else than a directory is a wrong setting', async () => {
  await using stage = await realStage()
  const { archive, repository } = stage.start()
  await rm(stage.root, { recursive: true })
  await writeFile(stage.root, '')
  await stage.putSegment(name)
  const said = `SETTINGS: repository "${stage.root}" is not a directory\nHINT: Let "pgarchivist.repository" name a directory.`
  assert.equal(await failure(repository.inspect()), said)
  await assert.rejects(archive(name))
})

// It was told as a repository that cannot be reached, with the advice to wait for it.
test('a root below a file is a wrong setting, too', async () => {
  await using stage = await realStage()
  const root = join(stage.root, 'afile/below')
  await writeFile(join(stage.root, 'afile'), '')
  const { archive, fetch, repository } = stage.start({ root })
  await stage.putSegment(name)
  const said = `SETTINGS: could not open repository directory "${root}": Not a directory\nHINT: There is a file on the way to it: let "pgarchivist.repository" name a directory.`
  assert.equal(await failure(repository.inspect()), said)
  assert.equal(await failure(repository.requireRepository()), said)
  assert.equal(await failure(archive(name)), said)
  assert.equal(await failure(fetch(name)), said)
})

test('a data directory is refused, and so is everything in one, also behind a symbolic link', async () => {
  const refusals: Array<[string, string, string]> = [
    ['.', 'PG_VERSION', 'is'],
    ['.', '../PG_VERSION', 'is inside'],
  ]
  for (const [, version, where] of refusals) {
    await using stage = await realStage()
    await writeFile(join(stage.root, version), '17\n')
    await stage.putSegment(name)
    for (const root of [stage.root, join(stage.data, '../data/../repository')]) {
      const { archive, repository } = stage.start({ root })
      const said = `SETTINGS: repository "${root}" ${where} a data directory of PostgreSQL\nHINT: Let "pgarchivist.repository" name a directory of its own, best on another disk.`
      assert.equal(await failure(archive(name)), said)
      assert.equal(await failure(repository.inspect()), said)
    }
    await assert.rejects(stat(join(stage.root, markerName)), { code: 'ENOENT' })
  }
})

test('a repository whose marker is gone gets and gives nothing, until it is back; also after a restart', async () => {
  await using stage = await realStage()
  const first = stage.start()
  await stage.putSegment(name)
  await first.archive(name)
  const { url } = first.repository
  // As when the disk is not mounted.
  await rename(stage.root, `${stage.root}-elsewhere`)
  await mkdir(stage.root)
  const next = '000000010000000000000002'
  await stage.putSegment(next)
  const gone = `NO_MARKER: repository "${url}" is gone: "${markerName}" is missing\nDETAIL: It had the id ${anyId}.\nHINT: Is the disk mounted? Nothing is archived until it is back. If it was given up on purpose, remove "${stage.knownPath}" to begin a new one.`
  const nothing = `NO_MARKER: there is no repository at "${url}": "${markerName}" is missing\nHINT: Is the disk mounted, and is this the right directory?`
  const made: string[] = []
  const watched = {
    ...realFiles,
    open: async (...args: Parameters<typeof realFiles.open>) => {
      if (args[1] === 'create') made.push(args[0])
      return realFiles.open(...args)
    },
  }
  for (const server of [first, stage.start({ files: watched })]) {
    for (const each of [name, next]) {
      assert.equal(await failure(server.archive(each)), gone)
      assert.equal(await failure(server.fetch(each)), nothing)
    }
    assert.equal(await failure(server.repository.requireRepository()), nothing)
    await server.repository.inspect() // a server may start without it
  }
  assert.deepEqual([await readdir(stage.root), made], [[], []])
  await rm(stage.root, { recursive: true })
  await rename(`${stage.root}-elsewhere`, stage.root)
  assert.equal(await first.archive(next), 'archived')
})

// Object and marker are asked for at once. "Not there" ends a recovery, and the object was looked for on no disk at all.
test('a disk that is mounted between the look for an object and that for the marker hides nothing', async () => {
  const disk = new SimulatedDisk(new SeededRandom(1), () => anyTime)
  for (const directory of ['/data', '/data/pg_wal', '/repository']) disk.makeDirectory(directory)
  const content = walSegment({ name })
  disk.place(`/data/pg_wal/${name}`, content)
  const hand = disk.mount()
  await archivingServer({ files: hand, data: '/data', root: '/repository' }).archive(name)
  await hand.rename('/repository', '/elsewhere')
  await hand.makeDirectory('/repository', 0o700)
  const missed = Promise.withResolvers<void>()
  let isMounted = false
  const files = disk.mount({
    // An object is missing when the directories above it were looked at, too.
    stepped: ({ operation, path }) => {
      if (operation === 'list' && path === '/repository') missed.resolve()
    },
    delay: async ({ operation, path }) => {
      if (isMounted || operation !== 'open' || path !== `/repository/${markerName}`) return
      isMounted = true
      await missed.promise
      await hand.rename('/repository', '/empty')
      await hand.rename('/elsewhere', '/repository')
    },
  })
  const { fetch } = archivingServer({ files, data: '/data', root: '/repository', forgets: true })
  assert.equal((await fetch(name))?.equals(content), true)
  assert.ok(isMounted)
})

test('without a memory a process still misses the marker that it has seen', async () => {
  await using stage = await realStage()
  const server = stage.start({ forgets: true })
  await stage.putSegment(name)
  await server.archive(name)
  await rm(stage.root, { recursive: true })
  await mkdir(stage.root)
  assert.equal(
    await failure(server.archive(name)),
    `NO_MARKER: repository "${server.repository.url}" is gone: "${markerName}" is missing\nDETAIL: It had the id ${anyId}.\nHINT: Is the disk mounted? Nothing is archived until it is back.`,
  )
  assert.deepEqual(await readdir(stage.root), [])
})

test('another repository in the place of the known one gets and gives nothing, until somebody says that it may', async () => {
  await using stage = await realStage()
  const first = stage.start()
  await stage.putSegment(name)
  await first.archive(name)
  await rm(stage.root, { recursive: true })
  await mkdir(stage.root)
  // Another cluster's, say.
  const other = stage.start({ data: join(stage.above, 'other'), newId: () => otherId })
  await mkdir(join(stage.above, 'other/pg_wal'), { recursive: true })
  await writeFile(join(stage.above, 'other/pg_wal', name), walSegment({ name }))
  await other.archive(name)
  const said = `OTHER_REPOSITORY: repository "${first.repository.url}" is not the one that was used before\nDETAIL: Its id is ${otherId}, that of the one before was ${anyId}.\nHINT: Is the right disk mounted? If it was replaced on purpose, remove "${stage.knownPath}" to use it.`
  for (const server of [first, stage.start()]) {
    assert.equal(await failure(server.archive(name)), said)
    assert.equal(await failure(server.fetch(name)), said)
    assert.equal(await failure(server.repository.inspect()), said)
  }
  await rm(stage.knownPath)
  for (const server of [first, stage.start()]) assert.equal(await server.archive(name), 'already archived')
  assert.deepEqual(JSON.parse(await readFile(stage.knownPath, 'utf8')), {
    url: first.repository.url,
    id: otherId,
  })
})

test('a repository that was given up is begun anew when its memory is removed', async () => {
  await using stage = await realStage()
  const first = stage.start()
  await stage.putSegment(name)
  await first.archive(name)
  await rm(stage.root, { recursive: true })
  await mkdir(stage.root)
  await rm(stage.knownPath)
  assert.equal(await stage.start({ newId: () => otherId }).archive(name), 'archived')
  assert.deepEqual(JSON.parse(await readFile(stage.knownPath, 'utf8')), {
    url: first.repository.url,
    id: otherId,
  })
})

test('who only reads remembers nothing, and needs nothing to write to', async () => {
  await using stage = await realStage()
  const content = await stage.putSegment(name)
  await stage.start().archive(name)
  await rm(join(stage.data, 'pgarchivist'), { recursive: true })
  const reader = stage.start({ data: '/nowhere' })
  assert.deepEqual(await reader.fetch(name), content)
  assert.deepEqual(await stage.start().fetch(name), content)
  await assert.rejects(stat(stage.knownPath), { code: 'ENOENT' })
})

test('two repositories of one cluster are remembered beside each other', async () => {
  await using stage = await realStage()
  await stage.putSegment(name)
  const second = join(stage.above, 'second')
  await mkdir(second)
  const servers = [stage.start(), stage.start({ root: second, newId: () => otherId })]
  for (const server of servers) await server.archive(name)
  for (const [index, id] of [anyId, otherId].entries()) {
    const url = servers[index]?.repository.url ?? ''
    const known = JSON.parse(await readFile(knownRepositoryPath(stage.data, url), 'utf8'))
    assert.deepEqual(known, { url, id })
  }
})

test('a memory that is damaged or cannot be kept stops archiving, and says which file', async () => {
  for (const text of ['', '{', 'null', '[]', '{"url": "file:///x", "id": "of another one"}']) {
    await using stage = await realStage()
    await mkdir(join(stage.data, 'pgarchivist'))
    await writeFile(stage.knownPath, text)
    await stage.putSegment(name)
    assert.equal(
      await failure(stage.start().archive(name)),
      `MEMORY: file "${stage.knownPath}" is damaged\nHINT: It tells which repository is the right one at "${fileUrl(stage.root)}". Make sure that the right one is there, then remove the file.`,
    )
    assert.deepEqual(await readdir(stage.root), [])
  }
  await using stage = await realStage()
  await writeFile(join(stage.data, 'pgarchivist'), '')
  await stage.putSegment(name)
  assert.equal(
    await failure(stage.start().archive(name)),
    `MEMORY: could not read file "${stage.knownPath}": Not a directory\nHINT: It remembers which repository is the right one. Let the user that PostgreSQL runs as own it.`,
  )
})

test('a marker of a later format is left alone', async () => {
  await using stage = await realStage()
  await writeFile(join(stage.root, markerName), JSON.stringify({ format: 2, id: anyId }))
  await stage.putSegment(name)
  const { archive, fetch, repository } = stage.start()
  const said = `NEWER_FORMAT: repository "${repository.url}" has format 2, this version can use 1\nHINT: Use a newer pgarchivist.`
  assert.equal(await failure(archive(name)), said)
  assert.equal(await failure(fetch(name)), said)
  assert.equal(await failure(repository.inspect()), said)
  assert.deepEqual(await readdir(stage.root), [markerName])
})

test('an object of a later format is left alone', async () => {
  await using stage = await realStage()
  const { archive, fetch, repository } = stage.start()
  await stage.putSegment(name)
  await archive(name)
  const bytes = await stage.object(name)
  bytes.write('2', 'pgarchivist object, format '.length)
  bytes.write(createHash('sha256').update(bytes.subarray(0, 4_031)).digest('hex'), 4_031)
  await writeFile(stage.objectPath(name), bytes)
  const said = `NEWER_FORMAT: "${keyOf(name)}" in repository "${repository.url}" has format 2, which this version cannot read\nHINT: Use a newer pgarchivist.`
  assert.equal(await failure(archive(name)), said)
  assert.equal(await failure(fetch(name)), said)
})

test('a damaged marker is neither a marker nor a reason to begin', async () => {
  for (const text of ['', '{', '\0'.repeat(100), '{"format":1}', ' '.repeat(100_000)]) {
    await using stage = await realStage()
    await writeFile(join(stage.root, markerName), text)
    await stage.putSegment(name)
    const { archive, fetch, repository } = stage.start()
    const said = `CORRUPT: "${markerName}" in repository "${repository.url}" is damaged: it is not a marker\nHINT: What is stored is damaged. Restore this object from a copy of the repository; "pgarchivist verify" looks for others.`
    assert.equal(await failure(archive(name)), said)
    assert.equal(await failure(fetch(name)), said)
    assert.deepEqual(await readdir(stage.root), [markerName])
  }
})

test('a repository that is exchanged while a file is being archived has not got it', async () => {
  for (const exchange of ['gone', 'other'] as const) {
    await using stage = await realStage()
    await stage.putSegment(name)
    let isDue = false
    const server = stage.start({
      files: {
        ...realFiles,
        link: async (from, to) => {
          await realFiles.link(from, to)
          if (!isDue) return
          isDue = false
          await rm(join(stage.root, markerName))
          if (exchange === 'other') {
            await writeFile(join(stage.root, markerName), JSON.stringify({ format: 1, id: otherId }))
            await rm(stage.knownPath)
          }
        },
      },
    })
    await server.archive(name)
    isDue = true
    await stage.putSegment('000000010000000000000002')
    await assert.rejects(server.archive('000000010000000000000002'), {
      code: exchange === 'gone' ? 'NO_MARKER' : 'OTHER_REPOSITORY',
    })
  }
})

// The source

test('a source that is missing, unreadable or something else is said to be so, and nothing is stored', async () => {
  await using stage = await realStage()
  const { archive } = stage.start()
  const path = join(stage.data, 'pg_wal', name)
  const hint = 'HINT: Nothing was stored; it is tried again.'
  assert.equal(
    await failure(archive(name)),
    `SOURCE: could not open file "${path}": No such file or directory\n${hint}`,
  )
  await mkdir(path)
  assert.equal(await failure(archive(name)), `SOURCE: could not read file "${path}": Is a directory\n${hint}`)
  assert.deepEqual(await filesIn(stage.root), [markerName])
  await rm(path, { recursive: true })
  await stage.putSegment(name)
  assert.equal(await archive(name), 'archived')
  await rm(path)
  assert.equal(
    await failure(archive(name)),
    `SOURCE: could not open file "${path}": No such file or directory\n${hint}`,
  )
})

test('a source that changes while it is being archived is not stored', async () => {
  const changes: Array<[string, (path: string) => Promise<void>, string]> = [
    [
      'it grows',
      path => writeFile(path, 'more', { flag: 'a' }),
      'The file has more than the 1048576 bytes that it had.',
    ],
    ['it shrinks', path => truncate(path, 100), 'The file ended after 100 of 1048576 bytes.'],
    ['it is written to', path => overwriteEnd(path), 'It was written to.'],
  ]
  for (const [what, change, detail] of changes) {
    await using stage = await realStage()
    await stage.putSegment(name)
    const path = join(stage.data, 'pg_wal', name)
    let isDue = true
    const files = {
      ...realFiles,
      open: async (...args: Parameters<typeof realFiles.open>) => {
        const file = await realFiles.open(...args)
        if (args[0] !== path) return file
        const read = file.read.bind(file)
        file.read = async buffer => {
          const bytesRead = await read(buffer)
          if (isDue) await change(path)
          isDue = false
          return bytesRead
        }
        return file
      },
    }
    const { archive } = stage.start()
    const work = stage
      .start()
      .repository.archive(walSource(files, name, path), { ...archiveOptions, headerCheck: false })
    assert.equal(
      await failure(work),
      `SOURCE: file "${name}" was changed while it was being archived\nDETAIL: ${detail}\nHINT: Nothing was stored; it is tried again.`,
      what,
    )
    assert.deepEqual(await filesIn(stage.root), [markerName])
    assert.equal(await archive(name, { headerCheck: false }), 'archived')
  }
})

async function overwriteEnd(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write('x', 1024 * 1024 - 1)
}

test('an attempt that is given up ends at once, leaves nothing behind, and may be made again', async () => {
  await using stage = await realStage()
  await stage.putSegment(name)
  const said = `SOURCE: archiving of file "${name}" was given up\nHINT: Nothing was stored; it is tried again.`
  const { archive } = stage.start()
  assert.equal(await failure(archive(name, { signal: AbortSignal.abort() })), said)
  assert.deepEqual(await readdir(stage.root), [])
  const attempt = new AbortController()
  const files = {
    ...realFiles,
    open: async (...args: Parameters<typeof realFiles.open>) => {
      if (args[1] === 'create' && args[0].includes(name)) attempt.abort()
      return realFiles.open(...args)
    },
  }
  assert.equal(await failure(stage.start({ files }).archive(name, { signal: attempt.signal })), said)
  assert.deepEqual(await filesIn(stage.root), [markerName])
  assert.deepEqual(await openIn(stage.above), [])
  assert.equal(await archive(name), 'archived')
  // Also where it is only compared, when either of the two is read.
  for (const path of [stage.objectPath(name), join(stage.data, 'pg_wal', name)]) {
    const late = new AbortController()
    const reading = {
      ...realFiles,
      open: async (...args: Parameters<typeof realFiles.open>) => {
        if (args[0] === path) late.abort()
        return realFiles.open(...args)
      },
    }
    assert.equal(await failure(stage.start({ files: reading }).archive(name, { signal: late.signal })), said)
  }
  assert.deepEqual(await openIn(stage.above), [])
})

test('recipients that are none are a wrong setting, and nothing is stored', async () => {
  await using stage = await realStage()
  await stage.putSegment(name)
  assert.equal(
    await failure(stage.start().archive(name, { recipients: ['age1x'] })),
    `SETTINGS: file "${name}" could not be encrypted\nDETAIL: Recipient 1 is not a valid public key of age: it is damaged or not complete.\nHINT: Correct the setting.`,
  )
  assert.deepEqual(await filesIn(stage.root), [markerName])
})

test('who may read the cluster may read what is stored of it', async () => {
  const umask = process.umask(0)
  try {
    for (const [isGroupReadable, file, directory] of [
      [false, 0o600, 0o700],
      [true, 0o640, 0o750],
    ] as const) {
      await using stage = await realStage()
      await stage.putSegment(name)
      await chmod(stage.root, 0o777)
      await stage.start({ isGroupReadable }).archive(name)
      const modes = async (base: string, ...paths: string[]) =>
        Promise.all(paths.map(async path => (await stat(join(base, path))).mode & 0o777))
      assert.deepEqual(await modes(stage.root, markerName, keyOf(name)), [file, file])
      const [cluster = '', wal = '', timeline = '', log = ''] = keyOf(name).split('/')
      assert.deepEqual(
        await modes(
          stage.root,
          cluster,
          join(cluster, wal),
          join(cluster, wal, timeline),
          join(cluster, wal, timeline, log),
        ),
        [directory, directory, directory, directory],
      )
      assert.deepEqual(await modes(stage.data, 'pgarchivist', relative(stage.data, stage.knownPath)), [
        directory,
        file,
      ])
    }
  } finally {
    process.umask(umask)
  }
})
