import type { Files } from '../../src/system/files.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import type { Fate, Operation, Step } from '../../src/system/simulated-files.ts'
import { mountPoint } from './repository-judge.ts'
import { RepositoryWorld } from './repository-world.ts'

export interface RepositoryStormOptions {
  seed: number
  lie?: ((files: Files) => Files) | undefined
  trace?: ((line: string) => void) | undefined
}

export interface RepositoryStormCounts {
  files: number
  steps: number
  faults: number
  kills: number
  cuts: number
}

/** What may go wrong with each operation on Linux. */
const errorsOf: Record<Operation, string[]> = {
  stat: ['EIO', 'EACCES', 'ESTALE'],
  list: ['EIO', 'EMFILE', 'ENFILE'],
  open: ['EIO', 'EACCES', 'EMFILE', 'ENOSPC', 'EROFS', 'EDQUOT'],
  readText: ['EIO', 'EACCES', 'EMFILE'],
  makeDirectory: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  chown: ['EIO', 'EROFS'],
  realPath: ['EIO', 'EACCES'],
  link: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  rename: ['EIO', 'ENOSPC', 'EROFS', 'EACCES'],
  unlink: ['EIO', 'EROFS', 'EACCES', 'EBUSY'],
  syncDirectory: ['EIO', 'EACCES', 'EMFILE'],
  watch: ['ENOSPC', 'EMFILE'],
  fstat: ['EIO'],
  fchown: ['EIO', 'EROFS'],
  read: ['EIO', 'ESTALE'],
  write: ['ENOSPC', 'EIO', 'EDQUOT', 'EFBIG'],
  sync: ['EIO', 'ENOSPC', 'EDQUOT'],
  close: ['EIO'],
}

/** How bad it gets; drawn for each seed, so that there are runs with much of one thing and nothing of another. */
function weatherOf(random: SeededRandom) {
  return {
    failures: random.pick([0, 0, 0.003, 0.01, 0.05, 0.2]),
    deaths: random.pick([0, 0.001, 0.005, 0.02]),
    /** Of deaths, how many are power cuts. */
    cutShare: random.pick([0, 0.3, 0.5, 1]),
    slowSteps: random.pick([0, 0, 0.01, 0.05]),
    /** Calls that take place and fail all the same, as over NFS. */
    lostAnswers: random.pick([0, 0, 0.2, 0.5]),
    /** The chance at each deed that the repository is out of order for a while. */
    outages: random.pick([0, 0, 0.03, 0.1]),
    unmounts: random.pick([0, 0, 0.05, 0.2]),
    /** The chance that a server finishes a file with content of its own. */
    conflicts: random.pick([0, 0, 0.1, 0.3]),
  }
}

/** One seed: servers at work, everything that can happen to them, and at the end a calm in which they catch up. */
export async function repositoryStorm({
  seed,
  lie,
  trace,
}: RepositoryStormOptions): Promise<RepositoryStormCounts> {
  const random = new SeededRandom(seed).fork()
  const world = new RepositoryWorld({ seed, lie, trace })
  const { clock, judge } = world
  const weather = weatherOf(random)
  world.tell(`weather: ${JSON.stringify(weather)}`)
  const endMs = random.pick([10_000, 20_000, 60_000])
  let faults = 0
  let kills = 0
  let outage: { until: number; code: string } | undefined

  world.hasHardLinks = random.chance(0.85)
  world.delayMs = () => (random.chance(weather.slowSteps) ? random.integer(1, 10_000) : random.fraction())
  world.stopped = server => {
    server.kill()
    if (random.chance(weather.cutShare)) void world.powerCut()
    else kills++
  }
  world.fate = (step: Step): Fate | undefined => {
    if (random.chance(weather.deaths)) {
      const took = random.chance(0.5)
      const written = !took && step.bytes !== undefined ? random.integer(0, step.bytes) : undefined
      return { kind: 'stops', took, ...(written !== undefined && { written }) }
    }
    const isOut = outage !== undefined && clock.monotonic() < outage.until && step.path.startsWith(mountPoint)
    if (isOut && step.operation !== 'close') return { kind: 'fails', code: outage?.code ?? 'EIO' }
    if (!random.chance(weather.failures)) return undefined
    faults++
    return failure(step)
  }

  function failure({ operation, bytes }: Step): Fate {
    const isLost = random.chance(weather.lostAnswers)
    if (isLost && operation === 'link' && world.hasHardLinks)
      return { kind: 'fails', code: random.pick(['EEXIST', 'EIO']), took: true }
    if (isLost && operation === 'makeDirectory')
      return { kind: 'fails', code: random.pick(['EEXIST', 'EIO']), took: true }
    if (isLost && (operation === 'rename' || operation === 'unlink'))
      return { kind: 'fails', code: random.pick(['ENOENT', 'EIO']), took: true }
    const written = bytes === undefined ? undefined : random.integer(0, bytes)
    return {
      kind: 'fails',
      code: random.pick(errorsOf[operation]),
      ...(written !== undefined && { written }),
    }
  }

  let segment = 1
  let timeline = 1

  function finishSome(): void {
    const hex = (number: number) => number.toString(16).toUpperCase().padStart(8, '0')
    const deed = random.fraction()
    const name =
      deed < 0.75
        ? `${hex(timeline)}${hex(segment >> 3)}${hex(segment++ & 7)}`
        : deed < 0.85
          ? `${hex(timeline)}${hex(segment >> 3)}${hex(segment & 7)}.partial`
          : deed < 0.92
            ? `${hex(timeline)}${hex(segment >> 3)}${hex(segment & 7)}.00000028.backup`
            : `${hex(++timeline)}.history`
    for (const server of world.servers) {
      if (judge.truth.has(name) && server.has(name)) continue
      if (server !== world.servers[0] && random.chance(0.3)) continue
      if (random.chance(weather.conflicts)) server.finish(name, random.bytes(random.pick([10, 5_000])))
      else server.finish(name)
    }
  }

  async function serve(): Promise<void> {
    while (clock.monotonic() < endMs) {
      await clock.sleep(random.integer(0, random.pick([100, 1_000, 3_000])))
      finishSome()
      if (random.chance(0.1)) againSome()
      if (random.chance(0.2)) await readSome()
      if (random.chance(weather.outages)) {
        const code = random.pick(['ENOSPC', 'EIO', 'EROFS', 'ESTALE', 'EACCES'])
        outage = { until: clock.monotonic() + random.integer(1_000, 20_000), code }
        world.tell(`the repository is out of order: ${code}`)
      }
      // Who has never archived may begin a repository where the disk is not mounted: nothing tells that it should be.
      const isKnown = world.servers.every(server => server.acknowledged.size > 0)
      if (!judge.isMounted && random.chance(0.3)) await world.mountAgain()
      else if (judge.isMounted && isKnown && random.chance(weather.unmounts)) await world.unmount()
      if (random.chance(weather.deaths * weather.cutShare)) await world.powerCut()
    }
  }

  function againSome(): void {
    const server = random.pick(world.servers)
    const names = [...server.acknowledged.keys()]
    if (names.length > 0) server.archiveAgain(random.pick(names))
  }

  async function readSome(): Promise<void> {
    const names = [...judge.truth.keys()]
    await Promise.race([world.readOne(random.pick(names)), clock.sleep(5_000)])
  }

  async function supervise(): Promise<void> {
    while (clock.monotonic() < endMs) {
      for (const server of world.servers) if (!server.isAlive) server.start()
      await clock.sleep(random.integer(500, 3_000))
    }
  }

  await world.run(async () => {
    const servers = random.pick([1, 1, 2, 3])
    for (let i = 0; i < servers; i++) world.addServer()
    await Promise.all([serve(), supervise()])
    await world.comeToRest()
  })
  return { files: judge.acknowledged.size, steps: world.steps, faults, kills, cuts: world.cuts }
}
