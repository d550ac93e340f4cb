import type { CutMode, Fate, Step } from '../../src/system/simulated-files.ts'
import type { Lies } from './archiver-process.ts'
import { archiveDirectory, isLocked } from './judge.ts'
import { placeInArchive, walContent } from './simulated-server.ts'
import { World } from './world.ts'

const segmentBytes = 3 * 4_096
const storyMs = 30_000 // time enough for every story, and for another life after a blow

/** What happens to a server and its archive: short, so that something can be done to the archiver at every step. */
export interface Story {
  name: string
  hasHardLinks?: boolean
  tell(world: World): void | Promise<void>
}

export const oneSegment: Story = {
  name: 'one segment',
  tell: ({ server }) => void server.finishSegment(),
}

export const stories: Story[] = [
  oneSegment,
  {
    name: 'one segment, on a file system without hard links',
    hasHardLinks: false,
    tell: ({ server }) => void server.finishSegment(),
  },
  {
    name: 'a segment, a backup history file, a partial segment and a timeline history file',
    tell: ({ server }) => {
      server.finishSegment()
      server.finishBackupHistory()
      server.switchTimeline()
    },
  },
  {
    name: 'a segment that another hand has put into the archive, without syncing it',
    tell: ({ server, disk, random, judge }) => {
      const content = walContent(random, segmentBytes)
      judge.expectForeign(server.nextSegment, content)
      disk.scribble(`${archiveDirectory}/${server.nextSegment}`, content)
      server.finishSegment(content)
    },
  },
  {
    name: 'another file under the name of the first of two segments',
    tell: ({ server, disk, random, judge }) => {
      placeInArchive(disk, judge, server.nextSegment, walContent(random, segmentBytes))
      server.finishSegment()
      server.finishSegment()
    },
  },
  {
    name: 'a segment that is to be archived twice',
    tell: async ({ server, clock }) => {
      server.finishSegment()
      await clock.sleep(5_000)
      server.archiveAgain()
    },
  },
  {
    name: 'an orphan, and a segment that comes late',
    tell: async ({ server, clock }) => {
      server.leaveOrphan()
      server.finishSegment(undefined, false)
      server.finishSegment()
      await clock.sleep(5_000)
      server.checkpoint()
    },
  },
]

/** What ends the archiver at a step: alone, or with the whole machine. */
export interface Blow {
  kind: 'kill' | CutMode
  /** Does the step still have its effect? */
  took: boolean
}

/** Another server that archives a file of the same name into the same directory, just before a step. */
export interface Rival {
  kind: 'rival'
  content: 'the same' | 'other'
}

export type Trouble = Blow | Fate | Rival

export const rivals: Rival[] = [
  { kind: 'rival', content: 'the same' },
  { kind: 'rival', content: 'other' },
]

export const blows: Blow[] = (['kill', 'in order', 'any order'] as const).flatMap(kind => [
  { kind, took: false },
  { kind, took: true },
])

/** What a step can answer instead of doing its work, or after having done it. */
export const failures: Fate[] = [
  { kind: 'fails', code: 'EIO' },
  { kind: 'fails', code: 'EIO', took: true },
  { kind: 'fails', code: 'ENOSPC', written: 4_096 },
  { kind: 'fails', code: 'EACCES' },
]

export interface StrikeOptions {
  seed: number
  lies?: Lies | undefined
  trace?: ((line: string) => void) | undefined
}

/**
 * Tells a story and does something to the archiver at the given steps, counted over all of its lives. Resolves with
 * the number of steps in the story.
 */
export async function strike(
  story: Story,
  at: ReadonlyMap<number, Trouble>,
  { seed, lies, trace }: StrikeOptions,
): Promise<number> {
  const world = new World({ seed, segmentBytes, ...(lies && { lies }), ...(trace && { trace }) })
  world.hasHardLinks = story.hasHardLinks ?? true
  let isDown = false
  world.fate = (step: Step) => {
    const blow = at.get(world.steps)
    if (blow === undefined || blow.kind === 'fails' || blow.kind === 'stops') return blow
    if (blow.kind === 'rival') return compete(world, blow)
    world.stopped = () => {
      isDown = true
      if (blow.kind === 'kill') world.kill()
      else world.powerCut(blow.kind)
    }
    // Of a write that does not take place, a part may have.
    const part =
      !blow.took && step.bytes !== undefined ? { written: world.random.integer(0, step.bytes) } : {}
    return { kind: 'stops', took: blow.took, ...part }
  }
  let steps = 0
  await world.run(async () => {
    world.startArchiver()
    await Promise.all([story.tell(world), live()])
    steps = world.steps
    await world.comeToRest()
  })
  return steps

  async function live(): Promise<void> {
    while (world.clock.monotonic() < storyMs) {
      await world.clock.sleep(1_000)
      if (!isDown) continue
      isDown = false
      world.startArchiver()
    }
  }
}

function compete({ server, disk, judge, random }: World, { content }: Rival): undefined {
  for (const [name, truth] of server.truth) {
    const path = `${archiveDirectory}/${name}`
    // Where there are no hard links, everybody holds to the lock.
    if (disk.content(path) !== undefined || isLocked(disk, archiveDirectory, name)) continue
    placeInArchive(disk, judge, name, content === 'the same' ? truth : walContent(random, truth.length))
  }
}

/** Does each of these to the archiver at every step of a story, one at a time. Resolves with the number of runs. */
export async function strikeEverywhere(
  story: Story,
  what: readonly Trouble[],
  { seeds = 1, lies }: { seeds?: number; lies?: Lies | undefined } = {},
): Promise<number> {
  let runs = 0
  const steps = await strike(story, new Map(), { seed: 0, lies })
  for (let step = 1; step <= steps; step++) {
    for (const blow of what) {
      for (let seed = 0; seed < seeds; seed++) {
        runs++
        await strikeAndExplain(story, new Map([[step, blow]]), { seed, lies })
      }
    }
  }
  return runs
}

/** Ends the archiver twice, at every step and then at every step of the life that follows. */
export async function strikeTwice(
  story: Story,
  what: readonly Trouble[],
  then: readonly Trouble[],
  { seeds = 1, lies }: { seeds?: number; lies?: Lies | undefined } = {},
): Promise<number> {
  let runs = 0
  const steps = await strike(story, new Map(), { seed: 0, lies })
  for (let first = 1; first <= steps; first++) {
    for (const blow of what) {
      const stepsAfter = await strike(story, new Map([[first, blow]]), { seed: 0, lies })
      for (let second = first + 1; second <= stepsAfter; second++) {
        for (const next of then) {
          for (let seed = 0; seed < seeds; seed++) {
            runs++
            await strikeAndExplain(
              story,
              new Map([
                [first, blow],
                [second, next],
              ]),
              { seed, lies },
            )
          }
        }
      }
    }
  }
  return runs
}

async function strikeAndExplain(
  story: Story,
  at: ReadonlyMap<number, Trouble>,
  options: StrikeOptions,
): Promise<void> {
  try {
    await strike(story, at, options)
  } catch (thrown) {
    const where = JSON.stringify([...at])
    throw new Error(`in the story "${story.name}", seed ${options.seed}, with ${where}: ${String(thrown)}`, {
      cause: thrown,
    })
  }
}
