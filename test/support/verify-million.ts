// Verifies a made-up repository of a million objects and prints what came of it. A program of its own, because the
// test runner follows every promise, which takes several times as long as the work itself.

import { walObjectKey } from '../../src/repository/object-key.ts'
import { Repository } from '../../src/repository/repository.ts'
import { verify } from '../../src/repository/verify.ts'
import { segmentName } from '../../src/wal/segment-position.ts'
import { GeneratedStore, hollowObject } from './memory-store.ts'
import { anySystemIdentifier } from './wal-segment.ts'

const objects = 1_000_000
const segmentBytes = 1024 * 1024

export interface MillionResult {
  error: unknown
  objects: number
  removed: number
  progressed: number
  totals: number
  openedMax: number
  leftOpen: number
  heldMax: number
  missing: number | undefined
  findings: Array<{ kind: string; count: number; shown: number }>
}

const keyOf = (segment: number) =>
  walObjectKey(anySystemIdentifier, segmentName({ timeline: 1, segment: BigInt(segment) }, segmentBytes))

// Every third segment is missing. Of the others one in a thousand is damaged, and most are removed meanwhile, because
// that takes the least time.
const segmentAt = (index: number) => 1 + index + Math.floor(index / 2)
const damaged = new Uint8Array(10)
const damagedKeys = new Set<string>()
for (let index = 0; index < objects; index += 1_000) damagedKeys.add(keyOf(segmentAt(index)))
const firstSound = keyOf(segmentAt(1))

let listed = 0
const store = new GeneratedStore(
  function* () {
    for (let index = 0; index < objects; index++) {
      listed++
      yield keyOf(segmentAt(index))
    }
  },
  key => (damagedKeys.has(key) ? damaged : key === firstSound ? hollowObject(key) : undefined),
  () => damaged.length,
)

let progressed = 0
let totals = 0
let heldMax = 0
const report = await verify({
  repository: new Repository({
    store,
    clock: { now: () => 0, monotonic: () => 0 },
    newId: () => '',
    writer: 'a test',
  }),
  clock: { sleep: async () => undefined },
  jobs: Number(process.argv[2]),
  identities: async () => [],
  decode: false,
  findingsShownMax: Number(process.argv[3]),
  progress: progress => {
    if (progress.phase !== 'reading') return
    progressed++
    totals = progress.objectsTotal
    // How far the second look at the list is ahead of what has been dealt with.
    heldMax = Math.max(heldMax, listed - objects - progress.objects)
  },
})
const result: MillionResult = {
  error: report.error,
  objects: report.objects,
  removed: report.removed_meanwhile,
  progressed,
  totals,
  openedMax: store.openedMax,
  leftOpen: store.opened,
  heldMax,
  missing: report.clusters[0]?.timelines[0]?.missing_segments,
  findings: report.findings.map(({ kind, count, shown }) => ({ kind, count, shown: shown.length })),
}
process.stdout.write(JSON.stringify(result))
