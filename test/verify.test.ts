// What verify says of a repository, on a simulated disk: gaps and timelines, strangers, what cannot be read, and what
// changes while it looks. Damage has a file of its own, verify-damage.test.ts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { walObjectKey } from '../src/repository/object-key.ts'
import type { FindingsOfKind, VerifyReport } from '../src/repository/verify-report.ts'
import type { Fate, Step } from '../src/system/simulated-files.ts'
import { backupHistory, SimulatedRepository, segments, testTime } from './support/filled-repository.ts'
import { anySystemIdentifier as cluster } from './support/wal-segment.ts'

const otherCluster = '7300000000000000002'

/** What was found, in short: each kind with its messages. */
function told(kinds: readonly FindingsOfKind<string>[]): Record<string, string[]> {
  return Object.fromEntries(kinds.map(({ kind, shown }) => [kind, shown.map(({ message }) => message)]))
}

function assertSound(report: VerifyReport): void {
  assert.deepEqual(told(report.findings), {})
  assert.equal(report.error, null)
  assert.equal(report.status, 'ok')
}

function timeline(report: VerifyReport, number: number) {
  const found = report.clusters[0]?.timelines.find(each => each.timeline === number)
  assert.ok(found, `timeline ${number} is in the report`)
  return found
}

test('a repository where everything is there is all right, and how far a restore can reach is told', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 6))
  await filled.archive(['000000010000000000000002.00000028.backup'], {
    content: backupHistory('0/200028', '0/300138'),
  })
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(told(report.notes), {})
  assert.equal(report.objects, 7)
  assert.equal(report.removed_meanwhile, 0)
  assert.equal(report.clusters[0]?.system_identifier, cluster)
  assert.equal(report.clusters[0]?.wal_segment_size, 1024 * 1024)
  const { stored_bytes, plaintext_bytes, ...rest } = timeline(report, 1)
  assert.deepEqual(rest, {
    timeline: 1,
    parent: null,
    first_segment: '000000010000000000000001',
    newest_segment: '000000010000000000000006',
    segments: 6,
    partial_segments: { count: 0, shown: [] },
    backup_histories: 1,
    missing_segments: 0,
    restore: {
      from: { timeline: 1, lsn: '0/100000' },
      backup: { name: '000000010000000000000002.00000028.backup', started_at: '2026-11-21 03:00:00 UTC' },
      to: {
        timeline: 1,
        lsn: '0/700000',
        segment: '000000010000000000000006',
        written_at: '2026-11-21T04:00:00.000Z',
      },
    },
  })
  assert.equal(plaintext_bytes, 6 * 1024 * 1024 + backupHistory('0/200028', '0/300138').length)
  assert.equal(stored_bytes, report.bytes)
})

test('a repository without any file is not taken for one where everything is there', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 1))
  filled.remove(...segments(1, 1, 1))
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    nothing_archived: ['repository "file:///repository" has no file of any cluster'],
  })
  assert.equal(report.status, 'findings')
  assert.equal(report.objects, 0)
  assert.deepEqual(report.clusters, [])
})

// It leaves no gap: verify of a server's data directory said "all right" of the other clusters, or of nothing at all.
test('a cluster that has to be there, and has gone as a whole, is missed', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 2), { systemIdentifier: otherCluster })
  const missed = {
    nothing_archived: [
      `repository "file:///repository" has no file of the cluster with system identifier ${cluster}`,
    ],
  }
  const report = await filled.verify({ expectedCluster: cluster })
  assert.deepEqual(told(report.findings), missed)
  assert.equal(report.status, 'findings')
  assert.equal(report.objects, 2)
  assertSound(await filled.verify({ expectedCluster: otherCluster }))
  for (const name of segments(1, 1, 2)) filled.disk.remove(filled.pathOf(name, otherCluster))
  assert.deepEqual(told((await filled.verify({ expectedCluster: cluster })).findings), missed)
})

test('nothing is said to be gone where not everything could be listed', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 2))
  const files = filled.seen({
    fate: ({ operation, path }: Step): Fate | undefined =>
      operation === 'list' && path === `/repository/${cluster}`
        ? { kind: 'fails', code: 'EACCES' }
        : undefined,
  })
  const report = await filled.verify({ expectedCluster: cluster, files })
  assert.equal(report.status, 'incomplete')
  assert.deepEqual(Object.keys(told(report.findings)), ['unreadable'])
})

test('missing segments between the oldest and the newest are found where there is no base backup', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 3, 4), ...segments(1, 6, 6), ...segments(1, 9, 10)])
  const report = await filled.verify()
  assert.equal(report.status, 'findings')
  assert.deepEqual(report.findings, [
    {
      kind: 'missing',
      count: 2,
      hint: 'No restore can pass the gap. Look for the files in pg_wal of the server and of its standbys, as long as they have them; if they are gone, take a new base backup.',
      shown: [
        {
          message: 'segment "000000010000000000000005" is missing',
          system_identifier: cluster,
          timeline: 1,
          first: '000000010000000000000005',
          last: '000000010000000000000005',
          count: 1,
        },
        {
          message: '2 segments are missing, "000000010000000000000007" to "000000010000000000000008"',
          system_identifier: cluster,
          timeline: 1,
          first: '000000010000000000000007',
          last: '000000010000000000000008',
          count: 2,
        },
      ],
    },
  ])
  assert.equal(timeline(report, 1).missing_segments, 3)
  assert.deepEqual(timeline(report, 1).restore?.from, { timeline: 1, lsn: '0/900000' })
})

test('a gap goes across the logs that names are counted in, for the segment size of the cluster', async () => {
  const filled = new SimulatedRepository()
  const names = [
    '000000010000000000000FFE',
    '000000010000000000000FFF',
    '000000010000000100000002',
    '000000010000000100000003',
  ]
  await filled.archive(names)
  assert.deepEqual(told((await filled.verify()).findings), {
    missing: ['2 segments are missing, "000000010000000100000000" to "000000010000000100000001"'],
  })
  const large = new SimulatedRepository()
  await large.archive(['0000000100000000000000FF', '000000010000000100000000'], {
    segmentBytes: 16 * 1024 ** 2,
  })
  assertSound(await large.verify())
  const gigabytes = new SimulatedRepository()
  await gigabytes.archive(['000000010000000000000003', '000000010000000100000001'], {
    segmentBytes: 1024 ** 3,
    content: '',
  })
  // Without their bytes they are not right, but where they are in the WAL is known.
  assert.deepEqual(told((await gigabytes.verify()).findings)['missing'], [
    'segment "000000010000000100000000" is missing',
  ])
})

test('a partial segment fills no gap, and is told', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 2), '000000010000000000000003.partial', ...segments(1, 4, 4)])
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    missing: [
      'segment "000000010000000000000003" is missing; of its beginning there is "000000010000000000000003.partial"',
    ],
  })
  assert.deepEqual(timeline(report, 1).partial_segments, {
    count: 1,
    shown: ['000000010000000000000003.partial'],
  })
})

test('what is missing before the oldest base backup is a note, and takes nothing from restores', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 1), ...segments(1, 4, 7)])
  await filled.archive(['000000010000000000000005.00000028.backup'], {
    content: backupHistory('0/500028', '0/600138'),
  })
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(told(report.notes), {
    unneeded_gap: [
      '2 segments are missing, "000000010000000000000002" to "000000010000000000000003"; no restore needs it',
    ],
  })
})

test('a base backup needs its WAL from its first segment to the one where it is consistent', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 4, 6))
  await filled.archive(['000000010000000000000003.00000028.backup'], {
    content: backupHistory('0/300028', '0/800138'),
  })
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    missing: [
      'segment "000000010000000000000003" is missing',
      '2 segments are missing, "000000010000000000000007" to "000000010000000000000008"',
    ],
  })
  assert.equal(timeline(report, 1).restore, null)
})

test('a base backup that ends exactly where a segment ends does not need the next one', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 3, 4))
  await filled.archive(['000000010000000000000003.00000028.backup'], {
    content: backupHistory('0/300028', '0/500000'),
  })
  assertSound(await filled.verify())
})

test('a base backup behind a gap is what restores begin with', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(1, 5, 9)])
  for (const at of [1, 6]) {
    await filled.archive([`00000001000000000000000${at}.00000028.backup`], {
      content: backupHistory(`0/${at}00028`, `0/${at}00138`),
    })
  }
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), { missing: ['segment "000000010000000000000004" is missing'] })
  const { restore } = timeline(report, 1)
  assert.deepEqual(restore?.backup?.name, '000000010000000000000006.00000028.backup')
  assert.deepEqual(restore?.from, { timeline: 1, lsn: '0/500000' })
  assert.equal(restore?.to.segment, '000000010000000000000009')
})

test('without a base backup behind the gap, restores end at the gap', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(1, 5, 9)])
  await filled.archive(['000000010000000000000001.00000028.backup'], {
    content: backupHistory('0/100028', '0/100138'),
  })
  const { restore } = timeline(await filled.verify(), 1)
  assert.equal(restore?.backup?.name, '000000010000000000000001.00000028.backup')
  assert.equal(restore?.to.segment, '000000010000000000000003')
})

test('a base backup that is not consistent before the gap begins no restore', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(1, 5, 9)])
  await filled.archive(['000000010000000000000002.00000028.backup'], {
    content: backupHistory('0/200028', '0/600138'),
  })
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), { missing: ['segment "000000010000000000000004" is missing'] })
  assert.equal(timeline(report, 1).restore, null)
})

/** Two timelines; the second one was begun in the middle of segment 4. */
async function withBranch(parent: readonly string[], child: readonly string[]): Promise<SimulatedRepository> {
  const filled = new SimulatedRepository()
  await filled.archive([...parent, ...child])
  await filled.archive(['00000002.history'], { content: '1\t0/480000\tno recovery target specified\n' })
  return filled
}

test('a timeline needs its parent until the segment in which it began, and begins with that segment', async () => {
  const filled = await withBranch(
    [...segments(1, 1, 3), '000000010000000000000004.partial'],
    segments(2, 4, 6),
  )
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(timeline(report, 2).parent, { timeline: 1, lsn: '0/480000' })
  assert.deepEqual(timeline(report, 2).restore?.from, { timeline: 1, lsn: '0/100000' })
  assert.equal(timeline(report, 1).restore?.to.segment, '000000010000000000000003')
})

test('a segment that is missing before the branch is missing on the parent', async () => {
  const filled = await withBranch(segments(1, 1, 2), segments(2, 4, 6))
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), { missing: ['segment "000000010000000000000003" is missing'] })
  assert.equal(report.findings[0]?.shown[0]?.timeline, 1)
  // From the child's first segment on, everything is there.
  assert.deepEqual(timeline(report, 2).restore?.from, { timeline: 2, lsn: '0/400000' })
})

test('a segment that is missing behind the branch is missing on the child', async () => {
  const filled = await withBranch(segments(1, 1, 9), segments(2, 5, 6))
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), { missing: ['segment "000000020000000000000004" is missing'] })
  assert.equal(report.findings[0]?.shown[0]?.timeline, 2)
})

test('a new timeline of which only the history is there needs its parent and nothing else', async () => {
  assertSound(await (await withBranch(segments(1, 1, 3), [])).verify())
  const filled = await withBranch(segments(1, 1, 2), [])
  assert.deepEqual(told((await filled.verify()).findings), {
    missing: ['segment "000000010000000000000003" is missing'],
  })
})

test('a timeline left exactly where a segment ends is needed to there', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(2, 4, 5)])
  await filled.archive(['00000002.history'], { content: '1\t0/400000\tno recovery target specified\n' })
  assertSound(await filled.verify())
})

test('a timeline that was left in the segment it began in has none of its own, and needs none', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(3, 4, 6)])
  await filled.archive(['00000002.history'], { content: '1\t0/480000\tno recovery target specified\n' })
  await filled.archive(['00000003.history'], {
    content: '1\t0/480000\tno recovery target specified\n2\t0/490000\tno recovery target specified\n',
  })
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(timeline(report, 3).parent, { timeline: 2, lsn: '0/490000' })
  assert.deepEqual(timeline(report, 3).restore?.from, { timeline: 1, lsn: '0/100000' })
})

test('a timeline in between of which nothing is left is missing', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(3, 7, 8)])
  await filled.archive(['00000003.history'], { content: '1\t0/480000\tx\n2\t0/780000\tx\n' })
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    missing: ['3 segments are missing, "000000020000000000000004" to "000000020000000000000006"'],
  })
  assert.equal(timeline(report, 2).missing_segments, 3)
})

test('base backups of a descendant make its ancestors unneeded', async () => {
  const filled = await withBranch([...segments(1, 1, 1), ...segments(1, 3, 3)], segments(2, 4, 6))
  await filled.archive(['000000020000000000000005.00000028.backup'], {
    content: backupHistory('0/500028', '0/500138'),
  })
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(told(report.notes), {
    unneeded_gap: ['segment "000000010000000000000002" is missing; no restore needs it'],
  })
  assert.equal(timeline(report, 1).restore, null)
})

test('the oldest base backup of a timeline may be on its parent', async () => {
  const filled = await withBranch(segments(1, 1, 3), segments(2, 4, 6))
  await filled.archive(['000000010000000000000002.00000028.backup'], {
    content: backupHistory('0/200028', '0/300138'),
  })
  const report = await filled.verify()
  assertSound(report)
  assert.equal(timeline(report, 2).restore?.backup?.name, '000000010000000000000002.00000028.backup')
})

test('a timeline history is missing where there are segments of its timeline', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(2, 4, 5)])
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    missing_history: [
      `"00000002.history" of cluster ${cluster} is missing, and there are segments of its timeline, as "000000020000000000000004"`,
    ],
  })
  assert.match(report.findings[0]?.hint ?? '', /^The server never removes this file: copy it from pg_wal/)
})

test('a timeline history that the server would refuse is found', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(2, 4, 5)])
  await filled.archive(['00000002.history'], { content: '1 nowhere\n' })
  assert.deepEqual(told((await filled.verify()).findings), {
    bad_history: [`"00000002.history" of cluster ${cluster} is not a timeline history`],
  })
})

test('a backup history without positions counts by its name, and is noted', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 1), ...segments(1, 3, 4)])
  await filled.archive(['000000010000000000000003.00000028.backup'], { content: 'nothing\n' })
  const report = await filled.verify()
  assertSound(report)
  assert.deepEqual(told(report.notes), {
    unneeded_gap: ['segment "000000010000000000000002" is missing; no restore needs it'],
    bad_backup_history: [
      `"000000010000000000000003.00000028.backup" of cluster ${cluster} does not say where the backup began and ended`,
    ],
  })
})

test('segments of two sizes in one cluster are a finding, and what the other size holds is no gap', async () => {
  const filled = new SimulatedRepository()
  // 0/600000 to 0/A00000, and after pg_resetwal from there to 0/C00000: in the order of names, this one comes first.
  await filled.archive(segments(1, 6, 9))
  await filled.archive(segments(1, 5, 5), { segmentBytes: 2 * 1024 * 1024 })
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    mixed_segment_sizes: [
      `cluster ${cluster} has segments of several sizes: 2097152 bytes from "000000010000000000000005" on, 1048576 bytes from "000000010000000000000006" on`,
    ],
  })
  assert.equal(timeline(report, 1).restore?.to.segment, '000000010000000000000005')
})

test('what was stored while the segment size was another one is no gap', async () => {
  const filled = new SimulatedRepository()
  // 0/600000 to 0/800000, from there to 0/C00000 in two of the double size, and to 0/E00000 as at first.
  await filled.archive([...segments(1, 6, 7), ...segments(1, 12, 13)])
  await filled.archive(segments(1, 4, 5), { segmentBytes: 2 * 1024 * 1024 })
  assert.deepEqual(Object.keys(told((await filled.verify()).findings)), ['mixed_segment_sizes'])
})

test('sizes may differ between timelines, too', async () => {
  const filled = await withBranch(segments(1, 1, 3), [])
  await filled.archive(segments(2, 2, 3), { segmentBytes: 2 * 1024 * 1024 })
  assert.deepEqual(Object.keys(told((await filled.verify()).findings)), ['mixed_segment_sizes'])
})

test('a segment that is not as long as segments of its cluster is found', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 2))
  await filled.archive(segments(1, 3, 3), { content: 'cut off' })
  await filled.archive(segments(1, 4, 4))
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    wrong_size: [
      `"${cluster}/wal/00000001/00000000/000000010000000000000003.pgarchivist" is no segment that this cluster can have: it holds 7 bytes, the segment size of its cluster is 1048576`,
    ],
  })
  assert.deepEqual(timeline(report, 1).restore?.from.lsn, '0/400000')
})

test('each cluster is looked at by itself, and one that is named alone', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 2))
  await filled.archive([...segments(1, 1, 1), ...segments(1, 3, 3)], { systemIdentifier: otherCluster })
  const all = await filled.verify()
  assert.deepEqual(
    all.clusters.map(each => [each.system_identifier, each.timelines[0]?.missing_segments]),
    [
      [cluster, 0],
      [otherCluster, 1],
    ],
  )
  assert.equal(all.status, 'findings')
  const one = await filled.verify({ systemIdentifier: cluster })
  assertSound(one)
  assert.equal(one.objects, 2)
})

test('a cluster that is named and not there is no success', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 1))
  const report = await filled.verify({ systemIdentifier: otherCluster })
  assert.equal(report.status, 'incomplete')
  assert.deepEqual(report.error, {
    message: `repository "file:///repository" has no file of a cluster with system identifier ${otherCluster}`,
    detail: null,
    hint: 'Is this the right repository, and the right data directory?',
  })
})

test('of timelines that are named only these are read, and what is missing there is known all the same', async () => {
  const filled = await withBranch(segments(1, 1, 2), segments(2, 5, 6))
  filled.change('000000010000000000000001', bytes => bytes.subarray(0, 5_000))
  const report = await filled.verify({ timelines: [2] })
  assert.deepEqual(told(report.findings), { missing: ['segment "000000020000000000000004" is missing'] })
  assert.equal(report.objects, 3)
  const unknown = await filled.verify({ timelines: [2, 7] })
  assert.equal(unknown.error?.message, 'repository "file:///repository" has no file of timeline 7')
})

test('strangers are named: beside WAL a finding, elsewhere a note', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 2))
  const { disk, directory } = filled
  disk.place(`${directory}/README`, '')
  disk.makeDirectory(`${directory}/${cluster}/backup`)
  disk.place(`${directory}/${cluster}/backup/manifest`, '')
  disk.place(`${filled.pathOf('000000010000000000000001')}.bak`, '')
  disk.place(`${directory}/${cluster}/wal/00000001/000000010000000000000002.pgarchivist`, '')
  const report = await filled.verify()
  assert.deepEqual(told(report.findings), {
    stranger: [
      `"${cluster}/wal/00000001/00000000/000000010000000000000001.pgarchivist.bak" is not an object of a repository`,
      `"${cluster}/wal/00000001/000000010000000000000002.pgarchivist" is not an object of a repository`,
    ],
  })
  assert.deepEqual(told(report.notes), {
    stranger: [
      `"${cluster}/backup/manifest" is not an object of a repository`,
      '"README" is not an object of a repository',
    ],
  })
  assert.equal(report.objects, 2)
})

test('unfinished writes are noted when they are old, and nothing is said of young ones', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 1))
  const object = filled.pathOf('000000010000000000000001')
  const directory = object.slice(0, object.lastIndexOf('/'))
  const temporary = '.000000010000000000000002.pgarchivist.0123456789abcdef.tmp'
  filled.disk.place(`${directory}/${temporary}`, 'half')
  filled.disk.place(`${directory}/000000010000000000000002.pgarchivist.lock.${temporary}`, '')
  assert.deepEqual((await filled.verify()).notes, [])
  const { unfinishedWrites } = await import('../src/repository/store/unfinished-writes.ts')
  const report = await filled.verify({
    unfinishedWrites: () => unfinishedWrites(filled.disk.mount(), filled.directory, testTime + 1),
  })
  assertSound(report)
  const key = `${cluster}/wal/00000001/00000000`
  assert.deepEqual(told(report.notes), {
    unfinished_write: [
      `"${key}/${temporary}" is a write that has not ended (4 bytes)`,
      `"${key}/000000010000000000000002.pgarchivist.lock.${temporary}" is a write that has not ended (0 bytes)`,
    ],
  })
})

const failsReading =
  (code: string, ...operations: string[]) =>
  (step: Step): Fate | undefined =>
    operations.includes(step.operation) && step.path.includes('000000010000000000000002.')
      ? { kind: 'fails', code }
      : undefined

test('an object that cannot be read is neither damaged nor missing', async () => {
  for (const [operation, code] of [
    ['open', 'EACCES'],
    ['open', 'EIO'],
    ['fstat', 'EIO'],
    ['read', 'EIO'],
  ] as const) {
    const filled = new SimulatedRepository()
    await filled.archive(segments(1, 1, 3))
    const report = await filled.verify({ files: filled.seen({ fate: failsReading(code, operation) }) })
    assert.deepEqual(
      report.findings.map(({ kind, count, shown }) => [kind, count, shown[0]?.code]),
      [['unreadable', 1, code]],
      `${operation} ${code}`,
    )
    assert.equal(report.status, 'findings')
    assert.equal(timeline(report, 1).restore?.from.lsn, '0/300000')
  }
})

test('a directory that cannot be listed leaves the answer open, and everything else is looked at', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 3))
  const [damaged = ''] = segments(2, 5, 7)
  await filled.archive(segments(2, 5, 7))
  filled.change(damaged, bytes => bytes.with(-1, (bytes.at(-1) ?? 0) ^ 1))
  const fate = (step: Step): Fate | undefined =>
    step.operation === 'list' && step.path.endsWith('/00000001/00000000')
      ? { kind: 'fails', code: 'EACCES' }
      : undefined
  const report = await filled.verify({ files: filled.seen({ fate }) })
  assert.equal(report.status, 'incomplete')
  assert.equal(
    report.error?.message,
    `could not read directory "/repository/${cluster}/wal/00000001/00000000": Permission denied`,
  )
  assert.equal(report.objects, 3)
  assert.deepEqual(
    report.findings.map(({ kind, count, shown }) => [kind, count, shown[0]?.key ?? shown[0]?.message]),
    [
      ['altered', 1, walObjectKey(cluster, damaged)],
      ['unreadable', 1, report.error?.message],
    ],
  )
})

test('a pipe, a directory and a link under the name of an object are no objects', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 5))
  filled.remove(...segments(1, 2, 4))
  filled.disk.makeDirectory(filled.pathOf('000000010000000000000002'))
  filled.disk.placeSymbolicLink(
    filled.pathOf('000000010000000000000003'),
    filled.pathOf('000000010000000000000001'),
  )
  filled.disk.placeSymbolicLink(filled.pathOf('000000010000000000000004'), '/nowhere')
  const report = await filled.verify()
  assert.deepEqual(
    report.findings.map(({ kind, shown }) => [kind, shown.map(each => each.first ?? each.key)]),
    [
      ['missing', ['000000010000000000000002']],
      [
        'unreadable',
        [
          `${cluster}/wal/00000001/00000000/000000010000000000000003.pgarchivist`,
          `${cluster}/wal/00000001/00000000/000000010000000000000004.pgarchivist`,
        ],
      ],
    ],
  )
})

test('a place without a marker, or with one of a newer format, cannot be looked at', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 1))
  const marker = `${filled.directory}/pgarchivist-repository.json`
  filled.disk.place(marker, '{"format": 2, "id": "x"}')
  const newer = await filled.verify()
  assert.equal(newer.status, 'incomplete')
  assert.equal(newer.error?.message, 'repository "file:///repository" has format 2, this version can use 1')
  filled.disk.remove(marker)
  const none = await filled.verify()
  assert.equal(none.status, 'incomplete')
  assert.equal(
    none.error?.message,
    'there is no repository at "file:///repository": "pgarchivist-repository.json" is missing',
  )
  assert.deepEqual(none.findings, [])
})

/** Something that happens once, when verify does a step on the disk. */
function meanwhile(when: (step: Step) => boolean, happens: () => void) {
  let hasHappened = false
  return {
    fate: (step: Step): undefined => {
      if (hasHappened || !when(step)) return
      hasHappened = true
      happens()
    },
  }
}

const opens = (name: string) => (step: Step) => step.operation === 'open' && step.path.includes(`${name}.`)

test('a disk that is unmounted meanwhile is not taken for a repository without files', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 6))
  const files = filled.seen(
    meanwhile(opens('000000010000000000000003'), () => {
      filled.disk.remove(`${filled.directory}/pgarchivist-repository.json`)
      filled.disk.remove(`${filled.directory}/${cluster}`)
    }),
  )
  const report = await filled.verify({ files })
  assert.equal(report.status, 'incomplete')
  assert.match(report.error?.message ?? '', /^there is no repository at/)
})

test('what expiry removes while verify reads is no finding', async () => {
  for (let at = 1; at <= 9; at++) {
    const filled = new SimulatedRepository()
    await filled.archive(segments(1, 1, 9))
    for (const start of [1, 6]) {
      await filled.archive([`00000001000000000000000${start}.00000028.backup`], {
        content: backupHistory(`0/${start}00028`, `0/${start}00138`),
      })
    }
    const files = filled.seen(
      meanwhile(opens(`00000001000000000000000${at}`), () => {
        filled.remove('000000010000000000000001.00000028.backup', ...segments(1, 1, 5))
      }),
    )
    const report = await filled.verify({ files })
    assertSound(report)
  }
})

test('expiry without base backups moves the beginning', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 9))
  const files = filled.seen(
    meanwhile(opens('000000010000000000000008'), () => filled.remove(...segments(1, 1, 5))),
  )
  assertSound(await filled.verify({ files }))
})

test('a segment that is removed between its listing and its reading is counted, and not called missing', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 9))
  // Its neighbour is read at the same time, so it has been listed by then.
  const files = filled.seen({
    fate: step => {
      if (opens('000000010000000000000005')(step)) filled.disk.drop(filled.pathOf('000000010000000000000005'))
      return undefined
    },
  })
  const report = await filled.verify({ files })
  assertSound(report)
  assert.equal(report.removed_meanwhile, 1)
})

test('a file that is being archived while later ones are there is waited for', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(1, 5, 6)])
  const pauses: number[] = []
  const sleep = async (ms: number) => {
    pauses.push(ms)
    if (pauses.length === 2) await filled.archive(segments(1, 4, 4))
  }
  assertSound(await filled.verify({ clock: { sleep } }))
  assert.deepEqual(pauses, [1_000, 1_000])
})

test('a gap at the newest end is found when waiting does not help', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 3), ...segments(1, 5, 6)])
  const pauses: number[] = []
  const report = await filled.verify({ clock: { sleep: async ms => void pauses.push(ms) } })
  assert.deepEqual(told(report.findings), { missing: ['segment "000000010000000000000004" is missing'] })
  assert.deepEqual(pauses, [1_000, 1_000, 1_000])
})

test('a gap that is closed from one end meanwhile is as long as it is then', async () => {
  const filled = new SimulatedRepository()
  await filled.archive([...segments(1, 1, 1), ...segments(1, 6, 6)])
  const sleep = async () => {
    if (filled.disk.content(filled.pathOf('000000010000000000000003')) !== undefined) return
    await filled.archive(['000000010000000000000002', '000000010000000000000003', '000000010000000000000005'])
  }
  assert.deepEqual(told((await filled.verify({ clock: { sleep } })).findings), {
    missing: ['segment "000000010000000000000004" is missing'],
  })
})

test('segments that are added behind the newest one while it reads are no finding', async () => {
  const filled = new SimulatedRepository()
  await filled.archive(segments(1, 1, 3))
  let added: Promise<void> | undefined
  const files = filled.seen(
    meanwhile(opens('000000010000000000000002'), () => {
      added = filled.archive([...segments(1, 4, 5), ...segments(2, 4, 5)])
    }),
  )
  const report = await filled.verify({ files })
  await added
  assert.equal(report.error, null)
  assert.deepEqual(told(report.findings)['missing'], undefined)
})
