import { SeededRandom } from '../../src/system/seeded-random.ts'
import type { Fate, Operation, Step } from '../../src/system/simulated-files.ts'
import type { Lies } from './archiver-process.ts'
import { archiveDirectory, isLocked } from './judge.ts'
import { placeInArchive, walContent } from './simulated-server.ts'
import { World } from './world.ts'

export interface StormOptions {
  seed: number
  /** How long the storm lasts, in simulated time; otherwise the seed decides. */
  minutes?: number
  lies?: Lies
  /** The module archives ahead, settings change, and files are replaced that wait. */
  ahead?: boolean
  trace?: (line: string) => void
}

export interface StormCounts {
  files: number
  steps: number
  faults: number
  kills: number
  cuts: number
}

/** What may go wrong with each operation on Linux. */
const errors: Record<Operation, string[]> = {
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
interface Weather {
  failures: number
  deaths: number
  /** Of deaths, how many are power cuts. */
  cutShare: number
  slowSteps: number
  /** Calls that take place and fail all the same, as over NFS. */
  lostAnswers: number
  /** The chance in each second that the archive is out of order for a while. */
  outages: number
  rivals: number
}

function weatherOf(random: SeededRandom): Weather {
  return {
    failures: random.pick([0, 0, 0.003, 0.01, 0.05, 0.2]),
    deaths: random.pick([0, 0.001, 0.005, 0.02, 0.06]),
    cutShare: random.pick([0, 0.3, 0.5, 1]),
    slowSteps: random.pick([0, 0, 0.01, 0.05]),
    lostAnswers: random.pick([0, 0, 0.2, 0.5]),
    outages: random.pick([0, 0, 0.005, 0.02]),
    rivals: random.pick([0, 0, 0.02, 0.1]),
  }
}

/** One seed: a server at work, everything that can happen to an archiver, and at the end a calm in which it catches up. */
export async function storm(options: StormOptions): Promise<StormCounts> {
  const { seed, lies, trace } = options
  const random = new SeededRandom(seed).fork()
  const minutes = options.minutes ?? random.pick([0.5, 0.5, 1, 2])
  const segmentBytes = random.pick([8, 16, 64]) * 1_024
  const stepsMax = 50_000 * (minutes + 5)
  // A chance of its own, so that a seed without it tells the story that it always told.
  const aheadRandom = new SeededRandom(seed ^ 0x5eed)
  const filesAtOnce = options.ahead === true ? aheadRandom.pick([2, 4, 16]) : 1
  const world = new World({
    seed,
    segmentBytes,
    stepsMax,
    filesAtOnce,
    ...(lies && { lies }),
    ...(trace && { trace }),
  })
  const weather = weatherOf(random)
  world.tell(`weather: ${JSON.stringify(weather)}`)
  const { clock, disk, judge, server } = world
  let faults = 0
  let kills = 0
  let outage: { until: number; code: string } | undefined
  const supervisor = { isDown: false }

  world.hasHardLinks = random.chance(0.85)
  world.losesNotifications = random.chance(0.5)
  world.delayMs = () => (random.chance(weather.slowSteps) ? random.integer(1, 20_000) : random.fraction())
  world.stopped = () => {
    supervisor.isDown = true
    if (random.chance(weather.cutShare)) return world.powerCut()
    kills++
    world.kill()
  }
  world.fate = step => {
    if (random.chance(weather.deaths)) return death(step)
    if (step.operation !== 'watch' && outage !== undefined && step.path.startsWith(archiveDirectory)) {
      if (clock.monotonic() < outage.until) return { kind: 'fails', code: outage.code }
    }
    interfere(step)
    if (!random.chance(weather.failures)) return undefined
    faults++
    return failure(step)
  }

  await world.run(async () => {
    await Promise.all([serve(), supervise()])
    await world.comeToRest()
  })
  return { files: server.truth.size, steps: world.steps, faults, kills, cuts: world.cuts }

  function death(step: Step): Fate {
    const took = random.chance(0.5)
    const written = !took && step.bytes !== undefined ? random.integer(0, step.bytes) : undefined
    return { kind: 'stops', took, ...(written !== undefined && { written }) }
  }

  function failure(step: Step): Fate {
    const { operation, bytes } = step
    if (operation === 'link' && world.hasHardLinks && random.chance(weather.lostAnswers)) {
      return { kind: 'fails', code: random.pick(['EEXIST', 'EIO']), took: true }
    }
    if ((operation === 'rename' || operation === 'unlink') && random.chance(weather.lostAnswers)) {
      return { kind: 'fails', code: random.pick(['ENOENT', 'EIO']), took: true }
    }
    const written = bytes === undefined ? undefined : random.integer(0, bytes)
    return { kind: 'fails', code: random.pick(errors[operation]), ...(written !== undefined && { written }) }
  }

  /** Another server archives into the same directory, and is sometimes quicker by a hair. */
  function interfere({ path }: Step): void {
    const temporary = path.startsWith(`${archiveDirectory}/`) ? path.slice(archiveDirectory.length + 1) : ''
    const name = temporary.startsWith('archtemp.')
      ? temporary.slice('archtemp.'.length, temporary.lastIndexOf('.'))
      : undefined
    const content = name === undefined ? undefined : server.truth.get(name)
    if (name === undefined || content === undefined || !random.chance(weather.rivals)) return
    if (disk.content(`${archiveDirectory}/${name}`) !== undefined) return
    // Where there are no hard links, whoever archives into the same directory holds to the same lock.
    if (isLocked(disk, archiveDirectory, name)) return
    const isSame = random.chance(0.5)
    world.tell(`another server archives "${name}" with ${isSame ? 'the same' : 'other'} content`)
    placeInArchive(disk, judge, name, isSame ? content : otherContent(content))
  }

  function otherContent(content: Uint8Array): Uint8Array {
    const other = content.slice()
    const position = random.integer(0, other.length - 1)
    other[position] = (other[position] ?? 0) ^ 1
    return random.pick([other, content.slice(0, -1), content.slice(0, 0), Buffer.concat([content, other])])
  }

  async function serve(): Promise<void> {
    while (clock.monotonic() < minutes * 60_000) {
      await clock.sleep(random.integer(0, random.pick([100, 3_000, 20_000])))
      const deed = random.fraction()
      if (deed < 0.55) world.tell(`the server finishes ${server.finishSegment()}`)
      else if (deed < 0.6) finishInAdvance()
      else if (deed < 0.65) server.finishSegment(undefined, false)
      else if (deed < 0.68) world.tell(`the server finishes ${server.finishBackupHistory()}`)
      else if (deed < 0.7) server.switchTimeline()
      else if (deed < 0.72) server.leaveOrphan()
      else if (deed < 0.73) server.leaveJunk()
      else if (deed < 0.76) server.archiveAgain()
      else if (deed < 0.77) for (let i = 0; i < 70; i++) server.finishSegment()
      else if (deed < 0.79) clock.setWallClock(random.integer(-3_600_000, 3_600_000))
      else if (deed < 0.83) resolveConflict()
      else if (deed < 0.85) stopArchiver()
      else {
        world.tell('the server makes a checkpoint')
        server.checkpoint()
      }
      if (filesAtOnce > 1) troubleAhead()
      if (random.chance(weather.outages)) {
        outage = {
          until: clock.monotonic() + random.integer(1_000, 120_000),
          code: random.pick(['ENOSPC', 'EIO', 'EROFS', 'ESTALE', 'EACCES']),
        }
        world.tell(`the archive is out of order: ${outage.code}`)
      }
      if (random.chance(weather.deaths * weather.cutShare)) {
        supervisor.isDown = true
        world.powerCut()
      }
    }
  }

  /** What must make the look-ahead forget. */
  function troubleAhead(): void {
    if (aheadRandom.chance(0.05)) {
      world.tell('the settings change')
      world.archiver?.forget()
    }
    if (aheadRandom.chance(0.1))
      world.tell(`the server replaces ${server.replaceWaiting(world.archiver?.requested) ?? 'nothing'}`)
  }

  function finishInAdvance(): void {
    const content = walContent(random, segmentBytes)
    const name = server.nextSegment
    if (disk.content(`${archiveDirectory}/${name}`) === undefined) {
      world.tell(`the archive has something under the name ${name} already`)
      placeInArchive(disk, judge, name, random.chance(0.5) ? content : otherContent(content))
    }
    server.finishSegment(content)
  }

  function resolveConflict(): void {
    for (const name of judge.conflicts) {
      world.tell(`the operator removes ${name} from the archive`)
      judge.forgetForeign(name)
      disk.remove(`${archiveDirectory}/${name}`)
    }
  }

  function stopArchiver(): void {
    if (random.chance(0.7)) world.archiver?.stop()
    else world.archiver?.terminate()
  }

  /** Starts the archiver again whenever it has ended, by itself or not. */
  async function supervise(): Promise<void> {
    while (clock.monotonic() < minutes * 60_000) {
      supervisor.isDown = false
      const archiver = world.startArchiver()
      void archiver.exited.then(() => {
        if (world.archiver === archiver) supervisor.isDown = true
      })
      while (!supervisor.isDown && clock.monotonic() < minutes * 60_000) await clock.sleep(500)
      if (supervisor.isDown) await clock.sleep(random.integer(0, 15_000))
    }
  }
}
