import type { ArchiveModuleInit } from '../../src/contract/archive-module.ts'
import type { Files } from '../../src/system/files.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { inArchiveOrder } from '../../src/wal/archive-order.ts'
import type { Lies } from './archiver-process.ts'
import { archiveDirectory, statusDirectory, walDirectory } from './judge.ts'
import { World } from './world.ts'

const segmentBytes = 8 * 1_024

/** What became of a story: all that a server and its operator can see. */
export interface Ending {
  /** Files in the order in which they were marked as done first. */
  done: string[]
  /** Files that failed although the module would have archived them for whoever asked for them. */
  failedWithoutReason: string[]
  /** How many files were failed with a reason. */
  failed: number
  /** Names and contents. */
  archive: Record<string, string>
  /** How many calls of the module were for a file that nobody had asked for. */
  ahead: number
}

interface Story {
  /** Files that wait when the archiver starts. */
  waiting: number
  hasOtherKinds: boolean
  /** When each of the segments after these is finished. */
  finishedAtMs: number[]
  /** The module fails for these of the files, counted from the first, until then. */
  sick: { file: number; untilMs: number; throws: boolean }[]
  /** Of what is archived ahead, how much fails. */
  aheadFailures: number
  ends: { atMs: number; how: 'kill' | 'stop' | 'terminate' }[]
  reloadsAtMs: number[]
  stepMs: number
}

const storyMs = 120_000

function storyOf(seed: number): Story {
  const random = new SeededRandom(seed)
  const times = (max: number, within: number) =>
    Array.from({ length: random.integer(0, max) }, () => random.integer(0, within)).toSorted((a, b) => a - b)
  const waiting = random.pick([1, 2, 5, 20, 100])
  return {
    waiting,
    hasOtherKinds: random.chance(0.5),
    finishedAtMs: times(20, 60_000),
    sick: times(3, waiting).map(file => ({
      file,
      untilMs: random.pick([30_000, 90_000]),
      throws: random.chance(0.5),
    })),
    aheadFailures: random.pick([0, 0, 0.1, 0.5, 1]),
    ends: times(4, storyMs - 30_000).map(atMs => ({ atMs, how: random.pick(['kill', 'stop', 'terminate']) })),
    reloadsAtMs: times(4, storyMs),
    stepMs: random.pick([0.1, 1, 20]),
  }
}

/**
 * Tells the story of a seed, with as many files at once as is said. Whoever watches the server must not be able to tell
 * how many these were.
 */
export async function tellStory(
  seed: number,
  { filesAtOnce, lies = {} }: { filesAtOnce: number; lies?: Lies },
): Promise<Ending> {
  const story = storyOf(seed)
  const random = new SeededRandom(seed).fork()
  const done = new Set<string>()
  const failed = new Set<string>()
  let ahead = 0
  const sickUntil = new Map<string, { untilMs: number; throws: boolean }>()

  const module = (init: ArchiveModuleInit): ArchiveModuleInit => {
    return async server => {
      const callbacks = await init(server)
      const archive = callbacks.archive_file_cb.bind(callbacks)
      return {
        ...callbacks,
        archive_file_cb: async (state, file, path, context) => {
          const sickness = sickUntil.get(file)
          if (file !== world.archiver?.requested) {
            ahead++
            if (random.chance(story.aheadFailures)) return false
          }
          if (sickness !== undefined && world.clock.monotonic() < sickness.untilMs) {
            if (sickness.throws) throw new Error(`not before ${sickness.untilMs} ms`)
            return false
          }
          return archive(state, file, path, context)
        },
      }
    }
  }
  const world = new World({
    seed,
    segmentBytes,
    filesAtOnce,
    stepsMax: 200_000,
    lies: { ...lies, module },
    // Of one that was killed, the last mark may be there although it was not told.
    done: () => {
      const marks = world.disk.names(statusDirectory).filter(name => name.endsWith('.done'))
      for (const file of inArchiveOrder(marks.map(mark => mark.slice(0, -'.done'.length)))) done.add(file)
    },
    failed: file => void failed.add(file),
  })
  const { clock, server, disk } = world
  world.delayMs = () => story.stepMs

  await world.run(async () => {
    for (let file = 0; file < story.waiting; file++) {
      const name = server.finishSegment()
      for (const { file: sick, ...sickness } of story.sick) if (sick === file) sickUntil.set(name, sickness)
    }
    if (story.hasOtherKinds) {
      server.finishBackupHistory()
      server.switchTimeline()
    }
    world.startArchiver()
    await Promise.all([
      ...story.finishedAtMs.map(async atMs => {
        await clock.sleep(atMs)
        server.finishSegment()
      }),
      ...story.reloadsAtMs.map(async atMs => {
        await clock.sleep(atMs)
        world.archiver?.forget()
      }),
      ...story.ends.map(async ({ atMs, how }) => {
        await clock.sleep(atMs)
        if (how === 'kill') world.kill()
        else world.archiver?.[how]()
        // It is started again ten seconds later, whether it has obeyed or not.
        await clock.sleep(10_000)
        if (world.archiver?.isDead === false) world.kill()
        world.startArchiver()
      }),
    ])
    await clock.sleep(storyMs)
    await world.comeToRest()
  })
  const archive: Record<string, string> = {}
  for (const name of disk.names(archiveDirectory).toSorted()) {
    archive[name] = Buffer.from(disk.content(`${archiveDirectory}/${name}`) ?? []).toString('base64')
  }
  const failedWithoutReason = [...failed].filter(file => !sickUntil.has(file))
  return { done: [...done], failed: failed.size, failedWithoutReason, archive, ahead }
}

/** Faults that a look-ahead could have. Each has to be found out. */
export const aheadLies: Record<string, Lies> = {
  'a file is known by its name alone': {
    aheadFiles: files => withStat(files, async path => ({ ...(await files.stat(path)), ...nobody })),
  },
  'a file is known by everything but its times and its number': {
    aheadFiles: files =>
      withStat(files, async path => {
        const { size, device, ...status } = await files.stat(path)
        return { ...status, ...nobody, size, device }
      }),
  },
  'what fails ahead is taken for archived': {
    ahead: archiveFile => async (file, path, signal) => {
      await archiveFile(file, path, signal)
      return true
    },
  },
}

const nobody = { device: 0n, inode: 0n, size: 0, modifiedNs: 0n, changedNs: 0n }

/** Of files in pg_wal, but not of others, which the look-ahead has no business with. */
function withStat(files: Files, stat: Files['stat']): Files {
  return new Proxy(files, {
    get: (target, property) => {
      if (property === 'stat') {
        return (path: string) => (path.startsWith(`${walDirectory}/`) ? stat(path) : files.stat(path))
      }
      const value: unknown = Reflect.get(target, property)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
