import { RepositoryError } from '../../src/repository/repository-error.ts'
import { isUnfinishedWrite } from '../../src/repository/store/unfinished-write.ts'
import type { Clock } from '../../src/system/clock.ts'
import type { Files } from '../../src/system/files.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { SimulatedClock } from '../../src/system/simulated-clock.ts'
import {
  type CutMode,
  type Fate,
  SimulatedDisk,
  type SimulatedFiles,
  type Step,
} from '../../src/system/simulated-files.ts'
import { archivingServer, startMachine } from '../support/repository-stage.ts'
import { BrokenPromise } from './judge.ts'
import { synchronousCodec } from './repository-codec.ts'
import { equal, mountPoint, RepositoryJudge, unmounted } from './repository-judge.ts'

const stepMs = 0.1
const retryMs = 1_000 // as the archiver's
const archivedWithinMs = 5 * 60_000
const leftoverAgeMs = 25 * 3_600_000
const filesAtOnce = 3

export interface RepositoryWorldOptions {
  seed: number
  /** What may be put between a server and the disk, to see whether the simulation notices. */
  lie?: ((files: Files) => Files) | undefined
  trace?: ((line: string) => void) | undefined
}

/** One machine with a repository, servers that archive to it, and somebody who reads. */
export class RepositoryWorld {
  readonly clock = new SimulatedClock()
  readonly random: SeededRandom
  readonly disk: SimulatedDisk
  readonly judge: RepositoryJudge
  readonly servers: SimulatedServer[] = []
  /** What becomes of each step of a server. */
  fate: (step: Step) => Fate | undefined = () => undefined
  delayMs: () => number = () => stepMs
  /** Where it is false, every link fails, as on FAT and on some network file systems. */
  hasHardLinks = true
  /** Called when a fate was that a server stops. */
  stopped: (server: SimulatedServer) => void = server => server.kill()
  /** Steps of all servers so far. */
  steps = 0
  cuts = 0
  readonly lie: (files: Files) => Files
  readonly #trace: ((line: string) => void) | undefined
  /** Does what nobody's fate concerns: an administrator. */
  #hand: SimulatedFiles
  /** What the administrator does, and power cuts, come one after the other. */
  #alone: Promise<void> = Promise.resolve()
  /** What attempts that began before the disk was unmounted have left where it was. */
  #beside = new Set<string>()

  constructor({ seed, lie = files => files, trace }: RepositoryWorldOptions) {
    this.random = new SeededRandom(seed)
    this.lie = lie
    this.#trace = trace
    this.disk = new SimulatedDisk(this.random.fork(), () => this.clock.now())
    this.disk.makeDirectory('/mnt')
    startMachine(this.disk, this.cuts)
    this.#hand = this.disk.mount()
    this.judge = new RepositoryJudge(this.disk)
  }

  addServer(): SimulatedServer {
    const server = new SimulatedServer(this, String.fromCharCode(0x61 + this.servers.length))
    this.servers.push(server)
    return server
  }

  /** Whoever makes the root need not sync its name. */
  async makeRoot(): Promise<void> {
    await this.#hand.makeDirectory(mountPoint, 0o700)
  }

  /** Runs the story to its end, or to the first broken promise. */
  async run(story: () => Promise<void>): Promise<void> {
    const onUnhandled = (thrown: unknown) =>
      this.judge.fail(`a rejection was left unhandled: ${String(thrown)}`)
    process.on('unhandledRejection', onUnhandled)
    try {
      await this.clock.run(Promise.race([this.makeRoot().then(story), this.judge.broken]))
    } finally {
      process.off('unhandledRejection', onUnhandled)
    }
  }

  tell(line: string): void {
    this.#trace?.(`${(this.clock.monotonic() / 1_000).toFixed(4).padStart(10)} s  ${line}`)
  }

  /** Cuts the power and, when it is back, reads everything that was acknowledged. */
  powerCut(mode?: CutMode): Promise<void> {
    return this.#inTurn(() => this.#cutPower(mode))
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#alone = this.#alone.then(work)
    return this.#alone
  }

  async #cutPower(mode: CutMode | undefined): Promise<void> {
    this.cuts++
    this.tell('THE POWER IS CUT')
    for (const server of this.servers) server.kill()
    this.disk.powerCut(mode)
    startMachine(this.disk, this.cuts)
    this.#hand = this.disk.mount()
    this.judge.lookAfterCut()
    await this.readEverything()
    // Nothing was acknowledged if the root is gone, and somebody makes it again.
    if (this.judge.isMounted && !this.disk.names('/mnt').includes('repository')) await this.makeRoot()
  }

  async readEverything(): Promise<void> {
    for (const [name, content] of this.judge.acknowledged) {
      if (!this.judge.isMounted) return
      const { fetch } = this.#reader(this.disk.mount())
      const read = await fetch(name).catch((thrown: unknown) => String(thrown))
      if (read instanceof Uint8Array && equal(read, content)) continue
      this.judge.fail(
        `"${name}" was acknowledged, and reading it gave ${read instanceof Uint8Array ? 'something else' : read}`,
      )
    }
  }

  /** Somebody asks for a file that may be there, on a disk that may be failing. */
  async readOne(name: string): Promise<void> {
    const content = this.judge.acknowledged.get(name)
    const files = this.lie(
      this.disk.mount({
        fate: step => {
          const fate = this.fate(step)
          return fate?.kind === 'fails' ? fate : undefined
        },
        delay: () => this.clock.sleep(this.delayMs()),
      }),
    )
    try {
      const read = await this.#reader(files).fetch(name)
      if (content === undefined) return
      if (read === undefined) this.judge.fail(`"${name}" was acknowledged, and said to be missing`)
      else if (!equal(read, content)) this.judge.fail(`"${name}" was read, and is something else`)
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError)) this.judge.fail(`reading threw ${String(thrown)}`)
    }
  }

  #reader(files: Files) {
    const now = () => this.clock.now()
    return archivingServer({
      files,
      data: '/reader',
      root: mountPoint,
      now,
      codec: synchronousCodec,
      forgets: true,
    })
  }

  /** The disk of the repository goes away, and leaves the directory that it was mounted on. */
  unmount(): Promise<void> {
    return this.#inTurn(() => this.#unmount())
  }

  async #unmount(): Promise<void> {
    this.tell('the disk is unmounted')
    await this.#hand.rename(mountPoint, unmounted)
    await this.#hand.makeDirectory(mountPoint, 0o700)
    await this.#hand.syncDirectory('/mnt')
    this.judge.isMounted = false
  }

  /** It comes back, and covers whatever was written beside it. */
  mountAgain(): Promise<void> {
    return this.#inTurn(() => this.#mountAgain())
  }

  async #mountAgain(): Promise<void> {
    this.tell('the disk is mounted again')
    await this.#hand.rename(mountPoint, `/mnt/.beside-${this.clock.monotonic()}`)
    await this.#hand.rename(unmounted, mountPoint)
    await this.#hand.syncDirectory('/mnt')
    this.judge.isMounted = true
    this.#beside.clear()
    await this.readEverything()
  }

  /** An attempt has ended. One that began while the disk was away writes nothing to where it was. */
  lookBeside(beganMounted: boolean): void {
    if (this.judge.isMounted) return
    const keys = this.judge.keys('', mountPoint)
    const first = keys.find(key => !this.#beside.has(key))
    if (first === undefined) return
    if (!beganMounted && !this.servers.some(server => server.isSurprised))
      this.judge.fail(`"${first}" was written beside the disk`)
    this.#beside = new Set(keys)
  }

  /**
   * Everything works from now on. So within minutes every file has to be stored or refused for good, a day later
   * nothing unfinished may be left, and one more power cut may take nothing.
   */
  async comeToRest(): Promise<void> {
    this.tell('from here on nothing fails')
    this.fate = () => undefined
    this.delayMs = () => stepMs
    if (!this.judge.isMounted) await this.mountAgain()
    await this.#archiveAll('without a fault')
    // A process that starts looks for what others have left.
    for (const server of this.servers) {
      if (server.openFiles > 0) throw new BrokenPromise(`${server.openFiles} files were left open`)
      server.kill()
    }
    await this.clock.sleep(leftoverAgeMs)
    for (const server of this.servers) server.finishOneOfEach()
    // Whoever comes to a directory tidies it up.
    for (const key of this.judge.unfinished) {
      const name = /\/\.([^/]+)\.pgarchivist\.[0-9a-f]{16}\.tmp$/.exec(key)?.[1]
      if (name !== undefined) this.servers[0]?.archiveAgain(name)
    }
    await this.#archiveAll('a day later')
    // A lock is nobody's to remove: whose it is cannot be told. So it may keep others out, but only there.
    const left = this.judge.unfinished.filter(key => !key.includes('.lock.'))
    if (left.length > 0) throw new BrokenPromise(`unfinished writes were left behind: ${left.join(', ')}`)
    await this.powerCut()
    for (const server of this.servers) {
      for (const [name, content] of server.acknowledged) {
        if (!equal(this.judge.stored.get(name), content)) throw new BrokenPromise(`"${name}" is lost`)
      }
    }
    await Promise.resolve() // so that a promise that broke last is noticed before the story ends
  }

  async #archiveAll(when: string): Promise<void> {
    const deadline = this.clock.monotonic() + archivedWithinMs
    while (this.servers.some(server => server.pending.length > 0)) {
      for (const server of this.servers) if (!server.isAlive) server.start()
      if (this.clock.monotonic() > deadline) {
        const waiting = this.servers.flatMap(server => server.pending.map(name => `${server.name}: ${name}`))
        throw new BrokenPromise(`${when}, these were not archived: ${waiting.join(', ')}`)
      }
      await this.clock.sleep(retryMs)
    }
  }
}

/** A server with files to archive. Its process may end at any moment, and is started again. */
export class SimulatedServer {
  readonly name: string
  /** Files that are neither acknowledged nor refused for good. */
  pending: string[] = []
  readonly acknowledged = new Map<string, Uint8Array>()
  /** Files that it has with other content than what was stored first. */
  readonly refused = new Set<string>()
  /** Of the process that runs now. */
  openFiles = 0
  readonly #world: RepositoryWorld
  readonly #contents = new Map<string, Uint8Array>()
  #mount: SimulatedFiles | undefined
  /** Attempts under way that began while the disk was mounted. */
  #begunMounted = 0
  #finished = 0

  constructor(world: RepositoryWorld, name: string) {
    this.#world = world
    this.name = name
    for (const path of [this.data, `${this.data}/pg_wal`]) world.disk.makeDirectory(path)
  }

  get data(): string {
    return `/${this.name}`
  }

  get isAlive(): boolean {
    return this.#mount?.isDead === false
  }

  /** Is something under way that began before the disk was unmounted? */
  get isSurprised(): boolean {
    return this.#begunMounted > 0
  }

  /** A WAL file is complete. Its content is the same on each server unless it is given. */
  finish(name: string, content = this.#world.judge.truth.get(name)?.[0] ?? this.#newContent()): void {
    const { disk, judge } = this.#world
    this.#contents.set(name, content)
    judge.truth.set(name, [...(judge.truth.get(name) ?? []), content])
    disk.place(`${this.data}/pg_wal/${name}`, content)
    if (!this.pending.includes(name)) this.pending.push(name)
  }

  finishOneOfEach(): void {
    const number = (0x80 + this.#finished++).toString(16).toUpperCase()
    this.finish(`0000000100000000000000${number}`)
    for (const timeline of ['00000002', '00000003']) this.finish(`${timeline}.history`)
  }

  has(name: string): boolean {
    return this.#contents.has(name)
  }

  /** Somebody has it archived once more. */
  archiveAgain(name: string): void {
    if (!this.has(name)) this.finish(name)
    if (!this.pending.includes(name)) this.pending.push(name)
  }

  #newContent(): Uint8Array {
    return this.#world.random.bytes(this.#world.random.pick([10, 5_000, 12_000]))
  }

  kill(): void {
    if (!this.isAlive) return
    this.#world.tell(`${this.name} ends`)
    this.#mount?.kill()
    this.#begunMounted = 0
    this.#world.lookBeside(true)
    this.#world.judge.look()
  }

  start(): void {
    const world = this.#world
    world.tell(`${this.name} starts`)
    this.openFiles = 0
    const mount = world.disk.mount({
      fate: step => {
        world.steps++
        const fate = world.fate(step) ?? this.#fateOfLink(step)
        if (fate !== undefined) world.tell(`${this.name} ${told(step)}: ${JSON.stringify(fate)}`)
        return fate
      },
      delay: () => world.clock.sleep(world.delayMs()),
      stepped: (step, code) => {
        world.tell(`${this.name} ${told(step)}${code === undefined ? '' : `: ${code}`}`)
        if (step.operation === 'open' && code === undefined) this.openFiles++
        if (step.operation === 'close') this.openFiles--
        if (changesNames(step)) world.judge.look()
      },
      stopped: () => world.stopped(this),
    })
    this.#mount = mount
    const server = archivingServer({
      files: world.lie(mount),
      data: this.data,
      root: mountPoint,
      now: () => world.clock.now(),
      newId: () => uuid(world.random),
      codec: synchronousCodec,
    })
    const clock = mortalClock(world.clock, mount)
    const underWay = new Set<string>()
    const work = async () => {
      while (!mount.isDead) {
        const name = this.pending.find(each => !underWay.has(each))
        if (name === undefined) {
          await clock.sleep(retryMs)
          continue
        }
        underWay.add(name)
        const isDone = await this.#attempt(name, server, mount)
        underWay.delete(name)
        // Two servers that waited for the same time would find each other's locks for ever.
        if (!isDone) await clock.sleep(retryMs + world.random.integer(0, 200))
      }
    }
    for (let i = 0; i < filesAtOnce; i++) {
      work().catch((thrown: unknown) => world.judge.fail(`${this.name} threw ${String(thrown)}`))
    }
  }

  async #attempt(
    name: string,
    { archive }: ReturnType<typeof archivingServer>,
    mount: SimulatedFiles,
  ): Promise<boolean> {
    const world = this.#world
    const content = this.#contents.get(name) ?? new Uint8Array()
    const beganMounted = world.judge.isMounted
    if (beganMounted) this.#begunMounted++
    try {
      await archive(name, { headerCheck: false })
      if (mount.isDead) return true
      world.tell(`${this.name}: ${name} is archived`)
      world.judge.acknowledge(name, content)
      this.acknowledged.set(name, content)
      this.pending = this.pending.filter(each => each !== name)
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError)) {
        world.judge.fail(`archiving threw ${String(thrown)}`)
        return false
      }
      world.tell(`${this.name}: ${thrown.code}: ${thrown.message}`)
      this.#judgeRefusal(name, content, thrown)
    }
    if (beganMounted) this.#begunMounted--
    world.lookBeside(beganMounted)
    return !this.pending.includes(name)
  }

  #judgeRefusal(name: string, content: Uint8Array, { code, message }: RepositoryError): void {
    const { judge } = this.#world
    const stored = judge.stored.get(name)
    if (code === 'DIFFERENT') {
      if (equal(stored, content)) judge.fail(`"${name}" was refused although it is what is stored`)
      this.refused.add(name)
      this.pending = this.pending.filter(each => each !== name)
    }
    // The disk loses what was not synced, but nothing that it holds is ever damaged.
    if (code === 'CORRUPT') judge.fail(`something was said to be damaged: ${message}`)
    if (code === 'OTHER_REPOSITORY' || code === 'NEWER_FORMAT') judge.fail(`${code}: ${message}`)
  }

  #fateOfLink(step: Step): Fate | undefined {
    return step.operation === 'link' && !this.#world.hasHardLinks
      ? { kind: 'fails', code: 'EPERM' }
      : undefined
  }
}

/** May the step have changed what stands under final names? */
function changesNames({ operation, path, to }: Step): boolean {
  if (to !== undefined) return to.startsWith('/mnt/')
  if (operation !== 'open' && operation !== 'write' && operation !== 'unlink') return false
  return path.startsWith('/mnt/') && !isUnfinishedWrite(path.slice(path.lastIndexOf('/') + 1))
}

function told({ number, operation, path, to, bytes }: Step): string {
  const target = to === undefined ? '' : ` -> ${to}`
  return `step ${number}: ${operation} ${path}${target}${bytes === undefined ? '' : ` (${bytes} bytes)`}`
}

function uuid(random: SeededRandom): string {
  const hex = Buffer.from(random.bytes(16)).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/** For a dead process no time comes. */
function mortalClock(clock: SimulatedClock, files: SimulatedFiles): Pick<Clock, 'sleep'> {
  return {
    sleep: async (ms, signal) => {
      await clock.sleep(ms, signal)
      if (files.isDead) await new Promise(() => {})
    },
  }
}
