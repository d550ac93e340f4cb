import { markerKey, walObjectKey } from '../../src/repository/object-key.ts'
import { Repository } from '../../src/repository/repository.ts'
import { RepositoryError } from '../../src/repository/repository-error.ts'
import { MemoryBudget } from '../../src/repository/store/memory-budget.ts'
import { MemoryDriver } from '../../src/repository/store/memory-driver.ts'
import { remoteStore } from '../../src/repository/store/remote-store.ts'
import {
  type RemoteDriver,
  type RequestKind,
  type Send,
  sendTo,
} from '../../src/repository/store/requests.ts'
import { type Fault, withFaults } from '../../src/repository/store/with-faults.ts'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import { SimulatedClock } from '../../src/system/simulated-clock.ts'
import { archiveOptions } from '../support/repository-stage.ts'
import { sourceOf } from '../support/source-of.ts'
import { anySystemIdentifier } from '../support/wal-segment.ts'
import { BrokenPromise } from './judge.ts'
import { contentOfObject, synchronousCodec } from './repository-codec.ts'
import { equal } from './repository-judge.ts'

const partBytes = 8 * 1024
const budgetBytes = 48 * 1024
const filesAtOnce = 3
const filesMax = 20
const retryMs = 1_000 // as the archiver's
const archivedWithinMs = 10 * 60_000
/** What was given up has come to its end by then. */
const settledMs = 120_000
const lostUploadMs = 25 * 3_600_000

export interface RemoteStormOptions {
  seed: number
  /** Lies between the network and a server, to see whether the simulation notices. */
  lie?: ((send: Send) => Send) | undefined
  trace?: ((line: string) => void) | undefined
}

export interface RemoteStormCounts {
  files: number
  requests: number
  faults: number
  kills: number
  uploads: number
}

const kinds: readonly RequestKind[] = [
  'inspect',
  'put',
  'get',
  'list',
  'beginUpload',
  'putPart',
  'endUpload',
  'abandonUpload',
  'listUploads',
  'confirm',
]

/**
 * One seed: servers archive to one store across a network that does everything that networks do, and die in between;
 * somebody reads meanwhile; and at the end there is a calm in which they catch up. Held to all the while:
 *
 * - An object is whole from the moment that it is there, has a content that a server has, and keeps it for ever.
 * - What was acknowledged is there, with the content of the server that it was acknowledged to.
 * - What is there is never said to be missing, and nobody is refused whose content is the same.
 * - In the calm everything is archived or refused for good, uploads that were lost are gone, and no memory is held.
 */
export async function remoteStorm(options: RemoteStormOptions): Promise<RemoteStormCounts> {
  const storm = new RemoteStorm(options)
  await storm.run()
  return storm.counts
}

class RemoteStorm {
  readonly counts: RemoteStormCounts = { files: 0, requests: 0, faults: 0, kills: 0, uploads: 0 }
  readonly #options: RemoteStormOptions
  readonly #clock = new SimulatedClock()
  readonly #random: SeededRandom
  readonly #driver: MemoryDriver
  readonly #servers: Server[] = []
  readonly #weather: ReturnType<typeof weatherOf>
  readonly #endMs: number
  /** The contents that servers have under a name. */
  readonly #truth = new Map<string, Uint8Array[]>()
  /** What each name was first seen to hold. */
  readonly #stored = new Map<string, Uint8Array>()
  readonly #acknowledged = new Map<string, Uint8Array>()
  readonly #looked = new Map<string, Uint8Array>()
  readonly #broken = Promise.withResolvers<never>()
  #isCalm = false
  #outageEndMs = 0

  constructor(options: RemoteStormOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    const random = this.#random.fork()
    this.#weather = weatherOf(random)
    this.#endMs = random.pick([5_000, 20_000, 60_000])
    // Without conditions nothing can be promised to several servers that write at once.
    const serverCount = random.pick([1, 2, 2, 3])
    const isForgetful = serverCount === 1 && random.chance(0.3)
    const unproven = isForgetful || random.chance(0.3)
    const isHalfForgetful = unproven && random.chance(0.5)
    this.#driver = new MemoryDriver({
      clock: this.#clock,
      pageMax: random.pick([3, 1_000]),
      features: {
        partBytesMin: 1,
        ...(unproven && { putKeeps: 'unproven', endUploadKeeps: 'unproven' }),
      },
      replaces: isForgetful
        ? { put: random.chance(0.7), endUpload: random.chance(0.7) }
        : { endUpload: isHalfForgetful },
    })
    for (let i = 0; i < serverCount; i++) this.#servers.push(new Server(String.fromCharCode(0x61 + i)))
    this.#broken.promise.catch(() => {}) // told where it is waited for
    this.tell(`weather: ${JSON.stringify(this.#weather)}`)
  }

  async run(): Promise<void> {
    const onUnhandled = (thrown: unknown) => this.#fail(`a rejection was left unhandled: ${String(thrown)}`)
    process.on('unhandledRejection', onUnhandled)
    try {
      await this.#clock.run(Promise.race([this.#story(), this.#broken.promise]))
    } finally {
      process.off('unhandledRejection', onUnhandled)
    }
    this.counts.files = this.#acknowledged.size
  }

  tell(line: string): void {
    this.#options.trace?.(`${(this.#clock.monotonic() / 1_000).toFixed(3).padStart(10)} s  ${line}`)
  }

  #fail(message: string): void {
    this.#broken.reject(new BrokenPromise(message))
  }

  async #story(): Promise<void> {
    for (const server of this.#servers) this.#start(server)
    await Promise.all([this.#finishFiles(), this.#killSome(), this.#readSome()])
    this.tell('from here on nothing fails')
    this.#isCalm = true
    await this.#archiveAll('without a fault')
    for (const server of this.#servers) {
      await this.#clock.sleep(settledMs)
      const { budget, name } = server.process
      if (budget.usedBytes !== 0) throw new BrokenPromise(`${name} holds ${budget.usedBytes} bytes`)
      this.#kill(server)
    }
    await this.#clock.sleep(lostUploadMs)
    for (const server of this.#servers) this.#start(server)
    for (let file = 0xf0; file < 0xf4; file++) this.#finish(segmentOf(file), false)
    await this.#archiveAll('a day later')
    await this.#clock.sleep(settledMs)
    const left = [...this.#driver.uploads.values()].map(({ key }) => key)
    if (left.length > 0) throw new BrokenPromise(`uploads were left behind: ${left.join(', ')}`)
    for (const name of this.#acknowledged.keys()) await this.#read(name)
    await Promise.resolve() // so that a promise that broke last is noticed before the story ends
  }

  async #archiveAll(when: string): Promise<void> {
    const deadline = this.#clock.monotonic() + archivedWithinMs
    while (this.#servers.some(server => server.pending.length > 0)) {
      if (this.#clock.monotonic() > deadline) {
        const waiting = this.#servers.flatMap(server => server.pending.map(name => `${server.name}: ${name}`))
        throw new BrokenPromise(`${when}, these were not archived: ${waiting.join(', ')}`)
      }
      await this.#clock.sleep(retryMs)
    }
  }

  // What happens

  async #finishFiles(): Promise<void> {
    for (let file = 1; file <= filesMax && this.#clock.monotonic() < this.#endMs; file++) {
      const deed = this.#random.fraction()
      this.#finish(
        deed < 0.8 ? segmentOf(file) : `${(file + 1).toString(16).toUpperCase().padStart(8, '0')}.history`,
        true,
      )
      if (this.#random.chance(this.#weather.outages))
        this.#outageEndMs = this.#clock.monotonic() + this.#random.integer(1_000, 70_000)
      await this.#clock.sleep(this.#random.integer(0, this.#random.pick([200, 2_000, 10_000])))
    }
  }

  #finish(name: string, mayDiffer: boolean): void {
    const common = this.#random.bytes(this.#random.pick([10, 3_000, 3_000, 9_000, 40_000]))
    for (const server of this.#servers) {
      if (mayDiffer && server !== this.#servers[0] && this.#random.chance(0.3)) continue
      const isOwn = mayDiffer && this.#random.chance(this.#weather.conflicts)
      const content = isOwn ? this.#random.bytes(this.#random.pick([10, 40_000])) : common
      server.contents.set(name, content)
      server.pending.push(name)
      this.#truth.set(name, [...(this.#truth.get(name) ?? []), content])
    }
  }

  async #killSome(): Promise<void> {
    while (this.#clock.monotonic() < this.#endMs) {
      await this.#clock.sleep(this.#random.integer(100, 5_000))
      if (!this.#random.chance(this.#weather.deaths)) continue
      const server = this.#random.pick(this.#servers)
      this.counts.kills++
      this.#kill(server)
      await this.#clock.sleep(this.#random.integer(0, 2_000))
      this.#start(server)
    }
  }

  async #readSome(): Promise<void> {
    while (this.#clock.monotonic() < this.#endMs) {
      await this.#clock.sleep(this.#random.integer(100, 5_000))
      const names = [...this.#truth.keys()]
      if (names.length > 0) await this.#read(this.#random.pick(names))
      if (this.#random.chance(0.2)) await this.#list()
    }
  }

  async #read(name: string): Promise<void> {
    const before = this.#stored.get(name)
    const { repository } = this.#process('a reader')
    try {
      const pieces: Uint8Array[] = []
      const request = { systemIdentifier: anySystemIdentifier, name, identities: async () => [] }
      const isThere = await repository.fetch(request, async bytes => void pieces.push(bytes))
      if (!isThere && before !== undefined) this.#fail(`"${name}" is there, and was said to be missing`)
      if (isThere && !equal(this.#stored.get(name), Buffer.concat(pieces)))
        this.#fail(`"${name}" was read, and is something else`)
    } catch (thrown) {
      this.tell(`a reader: ${name}: ${String(thrown)}`)
      this.#judgeReader(thrown, before !== undefined)
    }
  }

  async #list(): Promise<void> {
    const before = [...this.#driver.objects.keys()]
    const { repository } = this.#process('a lister')
    try {
      const keys: string[] = []
      for await (const { key } of repository.store.list('')) keys.push(key)
      if (keys.some((key, index) => index > 0 && key <= (keys[index - 1] ?? '')))
        this.#fail('names came in another order')
      const missed = before.find(key => !keys.includes(key))
      if (missed !== undefined) this.#fail(`"${missed}" is there, and was not listed`)
    } catch (thrown) {
      this.#judgeReader(thrown, true)
    }
  }

  #judgeReader(thrown: unknown, isThere: boolean): void {
    const code = thrown instanceof RepositoryError ? thrown.code : undefined
    const isFine =
      (code === 'UNREACHABLE' && !this.#isCalm) ||
      // Nothing was stored yet, neither by this cluster nor by any.
      (!isThere && (code === 'NO_MARKER' || code === 'UNKNOWN_CLUSTER'))
    if (!isFine) this.#fail(`reading threw ${String(thrown)}`)
  }

  // Servers

  #start(server: Server): void {
    this.tell(`${server.name} starts`)
    const own = this.#process(server.name, server)
    server.process = own
    const underWay = new Set<string>()
    const work = async () => {
      while (!own.isDead) {
        const name = server.pending.find(each => !underWay.has(each))
        if (name !== undefined) {
          underWay.add(name)
          const isDone = await this.#attempt(server, own, name)
          underWay.delete(name)
          if (isDone) continue
        }
        await this.#clock.sleep(retryMs)
      }
    }
    for (let i = 0; i < filesAtOnce; i++) {
      work().catch((thrown: unknown) => this.#fail(`${server.name} threw ${String(thrown)}`))
    }
  }

  #kill(server: Server): void {
    this.tell(`${server.name} ends`)
    server.process.isDead = true
  }

  async #attempt(server: Server, own: Process, name: string): Promise<boolean> {
    const content = server.contents.get(name) ?? new Uint8Array()
    const abort = new AbortController()
    if (!this.#isCalm && this.#random.chance(this.#weather.aborts))
      this.#clock.after(this.#random.integer(0, 5_000), () => abort.abort(new Error('it takes too long')))
    try {
      const options = { ...archiveOptions, headerCheck: false, signal: abort.signal }
      const outcome = await own.repository.archive(sourceOf(name, content), options)
      if (own.isDead) return true
      this.tell(`${server.name}: ${name} ${outcome}`)
      this.#acknowledge(name, content)
    } catch (thrown) {
      if (own.isDead) return true
      this.tell(`${server.name}: ${name}: ${String(thrown)}`)
      const code = thrown instanceof RepositoryError ? thrown.code : undefined
      const stored = this.#stored.get(name)
      if (code === 'UNREACHABLE' && !this.#isCalm) return false
      if (code === 'SOURCE' && abort.signal.aborted) return false
      const isRight = code === 'DIFFERENT' && stored !== undefined && !equal(stored, content)
      // What began before the calm may still fail.
      if (!isRight && code !== 'UNREACHABLE') this.#fail(`${server.name} was refused: ${String(thrown)}`)
      if (!isRight) return false
    }
    server.pending = server.pending.filter(each => each !== name)
    return true
  }

  #acknowledge(name: string, content: Uint8Array): void {
    const stored = this.#stored.get(name)
    if (stored === undefined) this.#fail(`"${name}" was acknowledged, and is not there`)
    else if (!equal(stored, content)) this.#fail(`"${name}" was acknowledged, but something else is stored`)
    this.#acknowledged.set(name, content)
  }

  /** A process with connections of its own, which dies with it. */
  #process(name: string, server?: Server): Process {
    const budget = new MemoryBudget(budgetBytes)
    const own = { name, isDead: false, budget } as Process
    const faults = this.#random.fork()
    const network = withFaults((kind, request, signal) => this.#ask(kind, request, signal), {
      clock: this.#clock,
      faultOf: kind => this.#faultOf(kind, faults),
      delayMs: () =>
        !this.#isCalm && faults.chance(this.#weather.slow) ? faults.integer(0, 8_000) : faults.integer(0, 60),
    })
    const { lie = (send: Send) => send } = this.#options
    const send = lie(async (kind, request, signal) => {
      // What a dead process has sent may still arrive, but it sends nothing more and hears of nothing.
      if (own.isDead) return await new Promise<never>(() => {})
      const answer = await network(kind, request, signal)
      return own.isDead ? await new Promise<never>(() => {}) : answer
    })
    const driver: RemoteDriver = {
      url: this.#driver.url,
      features: this.#driver.features,
      handlers: Object.fromEntries(
        kinds.map(kind => [kind, (request: never, signal?: AbortSignal) => send(kind, request, signal)]),
      ) as unknown as RemoteDriver['handlers'],
      [Symbol.asyncDispose]: async () => {},
    }
    const random = this.#random.fork()
    own.repository = new Repository({
      store: remoteStore(driver, {
        clock: this.#clock,
        random: () => random.fraction(),
        retryMs: server === undefined ? 20_000 : 60_000,
        budget,
        partBytes,
      }),
      clock: this.#clock,
      newId: () => uuid(this.#random),
      writer: `server ${name}`,
      known: server?.known,
      codec: synchronousCodec,
    })
    return own
  }

  // The store

  #faultOf(kind: RequestKind, random: SeededRandom): Fault | undefined {
    if (this.#isCalm) return undefined
    const retry = random.pick(['again', 'again', 'again', 'slow down', 'never'] as const)
    if (this.#clock.monotonic() < this.#outageEndMs) {
      this.counts.faults++
      return { kind: 'fails', retry }
    }
    if (!random.chance(this.#weather.failures)) return undefined
    this.counts.faults++
    this.tell(`a fault strikes "${kind}"`)
    switch (random.pick(['fails', 'loses its answer', 'stalls'] as const)) {
      case 'fails':
        return { kind: 'fails', retry }
      case 'loses its answer':
        return { kind: 'loses its answer', retry }
      case 'stalls':
        return { kind: 'stalls', doneAfterMs: random.chance(0.5) ? random.integer(0, 100_000) : undefined }
    }
  }

  #ask: Send = async (kind, request, signal) => {
    this.counts.requests++
    if (kind === 'beginUpload') this.counts.uploads++
    const answer = await sendTo(this.#driver)(kind, request, signal)
    if (kind === 'put' || kind === 'endUpload') this.#look((request as { key: string }).key)
    return answer
  }

  #look(key: string): void {
    const bytes = this.#driver.objects.get(key)
    const before = this.#looked.get(key)
    if (bytes === undefined || bytes === before) return
    this.#looked.set(key, bytes)
    if (key === markerKey) {
      if (before !== undefined && !equal(before, bytes)) this.#fail('the marker was replaced')
      return
    }
    const name = key.slice(key.lastIndexOf('/') + 1, -'.pgarchivist'.length)
    const content = walObjectKey(anySystemIdentifier, name) === key ? contentOfObject(bytes, name) : undefined
    if (content === undefined) return this.#fail(`"${key}" is there, and is not whole`)
    if (!this.#truth.get(name)?.some(each => equal(each, content)))
      this.#fail(`"${name}" holds what no server had`)
    const stored = this.#stored.get(name)
    if (stored !== undefined && !equal(stored, content)) this.#fail(`"${name}" was replaced by other content`)
    this.#stored.set(name, content)
  }
}

interface Process {
  name: string
  isDead: boolean
  budget: MemoryBudget
  repository: Repository
}

/** A server, which outlives its processes. */
class Server {
  readonly name: string
  readonly contents = new Map<string, Uint8Array>()
  pending: string[] = []
  process!: Process
  #id: string | undefined
  readonly known = {
    pathOf: () => 'memory',
    idOf: async () => this.#id,
    remember: async (_url: string, id: string) => void (this.#id = id),
  }

  constructor(name: string) {
    this.name = name
  }
}

function weatherOf(random: SeededRandom) {
  return {
    /** The chance of a request that something becomes of it. */
    failures: random.pick([0, 0.02, 0.1, 0.3]),
    slow: random.pick([0, 0, 0.02, 0.2]),
    /** Each time that it is thought of. */
    deaths: random.pick([0, 0.1, 0.5]),
    outages: random.pick([0, 0, 0.02, 0.1]),
    aborts: random.pick([0, 0, 0.1, 0.4]),
    /** The chance that a server has a content of its own. */
    conflicts: random.pick([0, 0, 0.1, 0.4]),
  }
}

const segmentOf = (number: number) =>
  `0000000100000000000000${number.toString(16).toUpperCase().padStart(2, '0')}`

function uuid(random: SeededRandom): string {
  const hex = Buffer.from(random.bytes(16)).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
