import type { Files } from '../../src/system/files.ts'
import type { Fate, Step } from '../../src/system/simulated-files.ts'
import type { Blow } from './every-step.ts'
import { RepositoryWorld } from './repository-world.ts'

const storyMs = 20_000 // time enough for every story, and for another life after a blow

/** What happens to servers and their repository: short, so that something can be done to them at every step. */
export interface RepositoryStory {
  name: string
  hasHardLinks?: boolean
  tell(world: RepositoryWorld): Promise<void>
}

const [first, second, history, partial] = [
  '000000010000000000000001',
  '000000010000000000000002',
  '00000002.history',
  '000000010000000000000003.partial',
]

export const firstFile: RepositoryStory = {
  name: 'the first file, which begins a repository',
  tell: async world => world.addServer().finish(first),
}

export const repositoryStories: RepositoryStory[] = [
  firstFile,
  {
    name: 'the first file, on a file system without hard links',
    hasHardLinks: false,
    tell: async world => world.addServer().finish(first),
  },
  {
    name: 'files of several kinds at once',
    tell: async world => {
      const server = world.addServer()
      for (const name of [first, history, partial]) server.finish(name)
    },
  },
  {
    name: 'a file that is to be archived twice',
    tell: async world => {
      const server = world.addServer()
      server.finish(first)
      await world.clock.sleep(5_000)
      server.archiveAgain(first)
    },
  },
  {
    name: 'two servers that archive the same file to a repository that neither has begun',
    tell: async world => {
      for (const server of [world.addServer(), world.addServer()]) server.finish(first)
    },
  },
  {
    name: 'two servers that archive other content under the same name',
    tell: async world => {
      const [a, b] = [world.addServer(), world.addServer()]
      a.finish(first, world.random.bytes(5_000))
      b.finish(first, world.random.bytes(5_000))
      b.finish(second)
    },
  },
  {
    name: 'a disk that is unmounted for a while',
    tell: async world => {
      const server = world.addServer()
      server.finish(first)
      while (server.pending.length > 0) await world.clock.sleep(500)
      await world.unmount()
      server.finish(second)
      await world.clock.sleep(5_000)
      await world.mountAgain()
    },
  },
]

export interface StrikeOptions {
  seed: number
  lie?: ((files: Files) => Files) | undefined
  trace?: ((line: string) => void) | undefined
}

/** Tells a story and does something to a server at one step, counted over all of them. Resolves with their number. */
export async function strikeRepository(
  story: RepositoryStory,
  at: { step: number; what: Blow | Fate } | undefined,
  { seed, lie, trace }: StrikeOptions,
): Promise<number> {
  const world = new RepositoryWorld({ seed, lie, trace })
  world.hasHardLinks = story.hasHardLinks ?? true
  const blow =
    at !== undefined && 'took' in at.what && at.what.kind !== 'fails' ? (at.what as Blow) : undefined
  world.fate = (step: Step) => {
    if (world.steps !== at?.step) return undefined
    if (blow === undefined) return at.what as Fate
    const part =
      !blow.took && step.bytes !== undefined ? { written: world.random.integer(0, step.bytes) } : {}
    return { kind: 'stops', took: blow.took, ...part }
  }
  world.stopped = server => {
    server.kill()
    if (blow !== undefined && blow.kind !== 'kill') void world.powerCut(blow.kind)
  }
  let steps = 0
  await world.run(async () => {
    await Promise.all([story.tell(world), live(world)])
    steps = world.steps
    await world.comeToRest()
  })
  return steps
}

/** Starts each server again whenever it has ended. */
async function live(world: RepositoryWorld): Promise<void> {
  while (world.clock.monotonic() < storyMs) {
    for (const server of world.servers) if (!server.isAlive) server.start()
    await world.clock.sleep(1_000)
  }
}

/** Does each of these to a server at every step of a story, one at a time. Resolves with the number of runs. */
export async function strikeRepositoryEverywhere(
  story: RepositoryStory,
  what: readonly (Blow | Fate)[],
  { seeds = 1, lie }: { seeds?: number; lie?: ((files: Files) => Files) | undefined } = {},
): Promise<number> {
  let runs = 0
  for (let seed = 0; seed < seeds; seed++) {
    const steps = await strikeRepository(story, undefined, { seed, lie })
    for (let step = 1; step <= steps; step++) {
      for (const each of what) {
        runs++
        await strikeRepository(story, { step, what: each }, { seed, lie }).catch((thrown: unknown) => {
          const where = `seed ${seed}, step ${step}, with ${JSON.stringify(each)}`
          throw new Error(`in the story "${story.name}", ${where}: ${String(thrown)}`, { cause: thrown })
        })
      }
    }
  }
  return runs
}
