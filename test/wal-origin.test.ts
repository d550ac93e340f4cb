// Who a WAL file is from: nothing is stored that is not what its name says, of the cluster that is archived.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { clusterFacts } from '../src/archiver/cluster-facts.ts'
import { originBytes, requireOrigin } from '../src/repository/wal-origin.ts'
import { realFiles } from '../src/system/real-files.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedDisk } from '../src/system/simulated-files.ts'
import { parseLongPageHeader } from '../src/wal/page-header.ts'
import { majorOfPageMagic, pageMagicOf } from '../src/wal/page-magic.ts'
import { availableMajors, startPostgres } from './support/postgresql-server.ts'
import { archiveOptions, failure, realStage } from './support/repository-stage.ts'
import { anySystemIdentifier, type WalSegmentOptions, walSegment } from './support/wal-segment.ts'

const name = '000000020000000000000005'
const hint = `Nothing was stored. Find out how the file came into pg_wal. A server with a page format of its own needs "pgarchivist.header_check = off".`

/** What is said of a segment that is archived under this name, by a server of timeline 2 with segments of 1 MB. */
async function said(content: Uint8Array | Partial<WalSegmentOptions>, as = name): Promise<string> {
  await using stage = await realStage()
  await stage.put(as, content instanceof Uint8Array ? content : walSegment({ name, ...content }))
  const { archive } = stage.start()
  const work = archive(as)
  if (
    await work.then(
      () => true,
      () => false,
    )
  )
    return 'archived'
  const text = await failure(work)
  // Nothing was stored, and nothing is left of the attempt.
  const files = (await readdir(stage.root, { recursive: true, withFileTypes: true })).filter(each =>
    each.isFile(),
  )
  assert.deepEqual(
    files.map(each => each.name),
    ['pgarchivist-repository.json'],
  )
  assert.ok(text.endsWith(`\nHINT: ${hint}`), text)
  return text.slice(0, -`\nHINT: ${hint}`.length)
}

test('a segment of the cluster, the version, the size and the place in its name is archived', async () => {
  assert.equal(await said({}), 'archived')
})

test('a segment in which a timeline began has the one of its parent in its first page, and is archived', async () => {
  assert.equal(await said({ timeline: 1 }), 'archived')
})

test('a partial segment is looked at as a segment is', async () => {
  assert.equal(await said({}, `${name}.partial`), 'archived')
  assert.equal(
    await said({ systemIdentifier: '1' }, `${name}.partial`),
    `FOREIGN_WAL: file "${name}.partial" belongs to another cluster\nDETAIL: Its system identifier is 1, that of this cluster is ${anySystemIdentifier}.`,
  )
})

test('each thing that does not fit is refused in words of its own', async () => {
  const segment = (more: Partial<WalSegmentOptions> = {}) => walSegment({ name, ...more })
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = segment()
    change(bytes)
    return bytes
  }
  const refusals: Array<[Uint8Array | Partial<WalSegmentOptions>, string, string]> = [
    [
      { systemIdentifier: '7300000000000000002' },
      'belongs to another cluster',
      `Its system identifier is 7300000000000000002, that of this cluster is ${anySystemIdentifier}.`,
    ],
    [
      { magic: 0xd118 },
      'was written by another version of PostgreSQL',
      'The magic number of its pages is D118 (PostgreSQL 18), that of this server is D116 (PostgreSQL 17).',
    ],
    [
      { magic: 0xbeef },
      'was written by another version of PostgreSQL',
      'The magic number of its pages is BEEF, that of this server is D116 (PostgreSQL 17).',
    ],
    [
      segment({ segmentBytes: 2 * 1024 * 1024 }),
      'has another segment size',
      'Its header says 2097152 bytes, the segments of this cluster have 1048576.',
    ],
    [
      { name: '000000020000000000000004' },
      'holds another segment',
      'Its first page is that of LSN 0/400000, its name stands for 0/500000.',
    ],
    [
      { timeline: 3 },
      'holds another timeline',
      'Its first page is of timeline 3, its name stands for timeline 2.',
    ],
    [
      segment().subarray(0, 1024 * 1024 - 8_192),
      'is not complete',
      'It has 1040384 bytes, its header says 1048576.',
    ],
    [
      Buffer.concat([segment(), Buffer.alloc(8_192)]),
      'is not complete',
      'It has 1056768 bytes, its header says 1048576.',
    ],
    [Buffer.alloc(1024 * 1024), 'is not a WAL segment', 'It does not begin with the header of a WAL page.'],
    [Buffer.alloc(0), 'is not a WAL segment', 'It does not begin with the header of a WAL page.'],
    [segment().subarray(0, 39), 'is not a WAL segment', 'It does not begin with the header of a WAL page.'],
    [
      changed(bytes => bytes.writeUInt16LE(0, 2)), // no long header
      'is not a WAL segment',
      'It does not begin with the header of a WAL page.',
    ],
    [
      changed(bytes => bytes.writeUInt32LE(1024 * 1024 + 1, 32)), // no size that initdb allows
      'is not a WAL segment',
      'It does not begin with the header of a WAL page.',
    ],
  ]
  for (const [content, what, detail] of refusals) {
    assert.equal(await said(content), `FOREIGN_WAL: file "${name}" ${what}\nDETAIL: ${detail}`)
  }
})

test('where size and version of the cluster are not known, any will do, but its identifier has to be right', async () => {
  await using stage = await realStage()
  const options = {
    cluster: { systemIdentifier: anySystemIdentifier, walSegmentBytes: undefined, pageMagic: undefined },
  }
  const { archive } = stage.start()
  await stage.put(name, walSegment({ name, magic: 0xd0ff, segmentBytes: 2 * 1024 * 1024 }))
  assert.equal(await archive(name, options), 'archived')
  const other = '000000020000000000000006'
  await stage.put(other, walSegment({ name: other, systemIdentifier: '1' }))
  await assert.rejects(archive(other, options), { code: 'FOREIGN_WAL' })
})

test('with the check switched off anything is archived', async () => {
  await using stage = await realStage()
  const { archive, fetch } = stage.start()
  for (const [index, content] of [
    Buffer.alloc(0),
    Buffer.from('text'),
    walSegment({ name, magic: 1 }),
  ].entries()) {
    const each = `00000002000000000000000${index}`
    await stage.put(each, content)
    assert.equal(await archive(each, { headerCheck: false }), 'archived')
    assert.deepEqual(await fetch(each), content)
  }
})

test('files without pages are not looked at', async () => {
  await using stage = await realStage()
  const { archive } = stage.start()
  for (const each of ['00000002.history', `${name}.00000028.backup`]) {
    await stage.put(each, '1\t0/3000000\tno recovery target specified\n')
    assert.equal(await archive(each), 'archived')
  }
})

test('what is no system identifier is no place to archive to', async () => {
  await using stage = await realStage()
  const { archive, repository } = stage.start()
  await stage.put('00000002.history', 'x')
  for (const systemIdentifier of ['', '0', '../7', '-1']) {
    const said = `SETTINGS: "${systemIdentifier}" is not a system identifier of PostgreSQL\nHINT: It is in the control file "global/pg_control", and "pg_controldata" shows it.`
    const cluster = { ...archiveOptions.cluster, systemIdentifier }
    assert.equal(await failure(archive('00000002.history', { cluster })), said)
    const request = { systemIdentifier, name, identities: async () => [] }
    assert.equal(await failure(repository.fetch(request, async () => {})), said)
  }
  assert.deepEqual(await readdir(stage.root), [])
})

test('the majors that we know have a magic number each', () => {
  const magics = [15, 16, 17, 18, 19].map(major => pageMagicOf(major * 10_000 + 3))
  assert.deepEqual(magics, [0xd110, 0xd113, 0xd116, 0xd118, 0xd122])
  assert.deepEqual(
    magics.map(magic => majorOfPageMagic(magic ?? 0)),
    [15, 16, 17, 18, 19],
  )
  assert.deepEqual([pageMagicOf(200_000), majorOfPageMagic(0)], [undefined, undefined])
})

// All the server's own files were refused then, as having another segment size.
test('the segment size of a cluster is not taken from a segment of another one', async () => {
  for (const [own, foreign] of [
    ['000000010000000000000001', '000000010000000000000002'],
    ['000000010000000000000002', '000000010000000000000001'],
  ] as const) {
    const disk = new SimulatedDisk(new SeededRandom(1))
    for (const directory of ['/data', '/data/global', '/data/pg_wal']) disk.makeDirectory(directory)
    const control = Buffer.alloc(8192)
    control.writeBigUInt64LE(BigInt(anySystemIdentifier))
    disk.place('/data/global/pg_control', control)
    const otherCluster = { systemIdentifier: '7300000000000000002', segmentBytes: 2 * 1024 * 1024 }
    disk.place(`/data/pg_wal/${foreign}`, walSegment({ name: foreign, ...otherCluster }))
    assert.equal((await clusterFacts(disk.mount(), '/data')).wal_segment_size, undefined)
    disk.place(`/data/pg_wal/${own}`, walSegment({ name: own }))
    assert.equal((await clusterFacts(disk.mount(), '/data')).wal_segment_size, 1024 * 1024)
    // Where it is not known whose they are, any will do.
    disk.remove('/data/global/pg_control')
    disk.remove(`/data/pg_wal/${own}`)
    assert.equal((await clusterFacts(disk.mount(), '/data')).wal_segment_size, 2 * 1024 * 1024)
  }
})

const available = await availableMajors()
assert.ok(available.length >= 4, `only ${available.join(', ')} are available`)

describe('a segment of a real server is what it says', { concurrency: 2 }, () => {
  for (const major of available) {
    test(`of PostgreSQL ${major}`, async () => {
      await using server = await startPostgres({
        major,
        walSegmentMegabytes: 1,
        settings: { wal_keep_size: '64MB' },
      })
      const segment = await server.switchWal()
      const path = join(server.dataDirectory, 'pg_wal', segment)
      const facts = await clusterFacts(realFiles, server.dataDirectory)
      const [row] = await server.query<{ id: string; size: string }>(
        `SELECT system_identifier::text AS id, current_setting('wal_segment_size') AS size FROM pg_control_system()`,
      )
      assert.equal(facts.system_identifier, row?.id)
      assert.equal(facts.wal_segment_size, 1024 * 1024)
      assert.equal(facts.wal_page_magic, pageMagicOf(major * 10_000))
      const cluster = {
        systemIdentifier: facts.system_identifier ?? '',
        walSegmentBytes: facts.wal_segment_size,
        pageMagic: facts.wal_page_magic,
      }
      const content = await readFile(path)
      const start = content.subarray(0, originBytes)
      assert.equal(requireOrigin(segment, start, cluster).segmentBytes, content.length)
      assert.equal(majorOfPageMagic(parseLongPageHeader(start)?.magic ?? 0), major)

      await using stage = await realStage()
      const { archive, repository } = stage.start()
      await stage.put(segment, content)
      assert.equal(await archive(segment, { cluster }), 'archived')
      const request = {
        systemIdentifier: cluster.systemIdentifier,
        name: segment,
        identities: async () => [],
      }
      const pieces: Uint8Array[] = []
      assert.ok(await repository.fetch(request, async bytes => void pieces.push(bytes)))
      assert.deepEqual(Buffer.concat(pieces), content)

      // As a file is that was recycled before it was archived, or copied here.
      const next = segment.replace(/.$/, digit =>
        ((Number.parseInt(digit, 16) + 1) % 16).toString(16).toUpperCase(),
      )
      await stage.put(next, content)
      await assert.rejects(archive(next, { cluster }), { message: `file "${next}" holds another segment` })
      const foreign = { ...cluster, systemIdentifier: '1' }
      await assert.rejects(archive(segment, { cluster: foreign }), {
        message: `file "${segment}" belongs to another cluster`,
      })
    })
  }
})
