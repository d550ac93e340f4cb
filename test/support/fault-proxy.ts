// Stands between a client and a store on loopback, and does to them what networks and stores do: distance, narrow lines,
// resets, silence, answers that are lost, refused, cut short or wrong, and outages. All of it can be changed while
// connections are open. It speaks HTTP/1.1, or takes bytes as they come (for TLS, for SFTP).
//
// A line here has delay and width but no slow start: a fresh connection is as wide as an old one.

import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { DelayedPipe, Line } from './delayed-pipe.ts'
import type { Fault, FaultPlan, RequestFacts } from './fault-plan.ts'
import {
  type BodyLength,
  type Head,
  HttpFraming,
  type Piece,
  toldLength,
  withHeader,
} from './http-framing.ts'

export interface FaultProxyOptions {
  /** Where the store is: `http://127.0.0.1:1234`, or host and port. */
  target: string | { host: string; port: number }
  /** `bytes` takes them as they come: distance, width, outages and cut connections, but nothing per request. */
  speaks?: 'http' | 'bytes'
  roundTripMs?: number
  plan?: FaultPlan
}

/** What it did so far. */
export interface FaultCounts {
  connections: number
  silentConnections: number
  requests: number
  /** Answers of the store that were passed on as they were. */
  answers: number
  /** Requests that were refused because of the clock. */
  skewed: number
  cutConnections: number
  /** Faults that took effect, by kind. `answer, executed` is apart from `answer`, and the same with `silence`. */
  faults: Record<string, number>
}

/** As far as Amazon lets clocks differ. */
const skewToleranceMs = 15 * 60 * 1000

export class FaultProxy implements AsyncDisposable {
  readonly counts: FaultCounts = {
    connections: 0,
    silentConnections: 0,
    requests: 0,
    answers: 0,
    skewed: 0,
    cutConnections: 0,
    faults: {},
  }
  /** Which fault each request meets. */
  plan: FaultPlan | undefined
  /** New connections are accepted, and then nothing happens. */
  acceptsSilently = false
  /** So much later it is at the store than it is: it refuses by this time and tells it in its answers. */
  skewMs = 0
  /** Told of every fault when it takes effect. */
  onFault: ((fault: Fault, request: RequestFacts) => void) | undefined

  readonly target: { host: string; port: number }
  readonly speaks: 'http' | 'bytes'
  readonly toStore = new Line()
  readonly toClient = new Line()
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  #port = 0

  private constructor(options: FaultProxyOptions) {
    const { target } = options
    const url = typeof target === 'string' ? new URL(target) : undefined
    this.target = typeof target === 'string' ? { host: url?.hostname ?? '', port: Number(url?.port) } : target
    this.speaks = options.speaks ?? 'http'
    this.plan = options.plan
    this.roundTripMs = options.roundTripMs ?? 0
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, client => this.#accept(client))
  }

  static async start(options: FaultProxyOptions): Promise<FaultProxy> {
    const proxy = new FaultProxy(options)
    await proxy.#listen()
    return proxy
  }

  get port(): number {
    return this.#port
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** The distance to the store. The first request of a connection takes two of these, because the set-up takes one. */
  get roundTripMs(): number {
    return this.toStore.delayMs + this.toClient.delayMs
  }

  set roundTripMs(ms: number) {
    this.toStore.delayMs = ms / 2
    this.toClient.delayMs = ms / 2
  }

  /** The width of the line, for all connections together, the same in each direction. */
  set bytesPerSecond(bytes: number) {
    this.toStore.bytesPerSecond = bytes
    this.toClient.bytesPerSecond = bytes
  }

  /** From now on it refuses connections, and those that it had are cut. */
  async beginOutage(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.cutConnections()
    await closed
  }

  async endOutage(): Promise<void> {
    if (!this.#server.listening) await this.#listen()
  }

  /** Resets all connections, in mid-request or not, and goes on to accept others. */
  cutConnections(): void {
    for (const connection of this.#connections) {
      this.counts.cutConnections++
      connection.reset()
    }
  }

  async stop(): Promise<void> {
    await this.beginOutage()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  // The same port again after an outage.
  async #listen(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  #accept(client: Socket): void {
    this.counts.connections++
    const connection = new Connection(this, client)
    this.#connections.add(connection)
    void connection.gone.then(() => this.#connections.delete(connection))
  }
}

interface Exchange {
  request: RequestFacts
  fault: Fault | undefined
  /** What the client gets instead of the store's answer, as soon as it is this exchange's turn. */
  ownAnswer: Buffer | undefined
  closesAfterwards: boolean
}

class Connection {
  readonly gone: Promise<unknown>
  readonly #proxy: FaultProxy
  readonly #client: Socket
  readonly #store: Socket | undefined
  readonly #toStore: DelayedPipe | undefined
  readonly #toClient: DelayedPipe | undefined

  // In the order of the requests, which is that of the answers.
  readonly #exchanges: Exchange[] = []
  // What becomes of the rest of the message that is going through, in each direction.
  #requestPasses = true
  #requestBytesLeft = Number.POSITIVE_INFINITY
  #answerPasses = true
  #answerBytesLeft = Number.POSITIVE_INFINITY
  #bytesUntilAltered = Number.POSITIVE_INFINITY
  #isInterim = false

  constructor(proxy: FaultProxy, client: Socket) {
    this.#proxy = proxy
    this.#client = client
    // Errors are always followed by "close".
    client.on('error', () => {})
    const clientGone = closed(client)
    if (proxy.acceptsSilently) {
      proxy.counts.silentConnections++
      client.resume()
      // Who gives up on it has to be able to.
      client.on('end', () => client.end())
      this.gone = clientGone
      return
    }
    const store = connect({ ...proxy.target, allowHalfOpen: true, noDelay: true })
    store.on('error', () => {})
    this.#store = store
    this.gone = Promise.all([clientGone, closed(store)])
    const toStore = new DelayedPipe(client, store, proxy.toStore)
    const toClient = new DelayedPipe(store, client, proxy.toClient)
    this.#toStore = toStore
    this.#toClient = toClient
    // Connected it is at once, because both ends are here; so what setting up a connection takes is added to what is
    // sent first.
    if (proxy.roundTripMs > 0) toStore.holdFor(proxy.roundTripMs)

    if (proxy.speaks === 'bytes') {
      client.on('data', bytes => toStore.send(bytes))
      store.on('data', bytes => toClient.send(bytes))
    } else {
      const requests = new HttpFraming(head => toldLength(head) ?? 0)
      const answers = new HttpFraming(head => this.#answerLength(head))
      client.on('data', bytes => this.#guard(requests, bytes, piece => this.#takeRequest(piece, toStore)))
      store.on('data', bytes => this.#guard(answers, bytes, piece => this.#takeAnswer(piece, toClient)))
    }
    client.on('end', () => toStore.afterwards(() => store.end()))
    // What was sent before the client went is on its way, and arrives.
    client.on('close', () => {
      toClient.close()
      toStore.afterwards(() => store.end())
    })
    store.on('end', () => toClient.afterwards(() => client.end()))
    store.on('close', hadError => {
      if (hadError) toClient.afterwards(() => client.resetAndDestroy())
    })
  }

  /** Cuts both sides now. */
  reset(): void {
    this.#toStore?.close()
    this.#toClient?.close()
    if (!this.#client.destroyed) this.#client.resetAndDestroy()
    this.#store?.destroy()
  }

  #guard(framing: HttpFraming, bytes: Buffer, take: (piece: Piece) => void): void {
    try {
      for (const piece of framing.feed(bytes)) take(piece)
    } catch {
      // Not HTTP: whoever sent it finds the connection cut.
      this.reset()
    }
  }

  #count(fault: Fault, request: RequestFacts): void {
    const kind = 'executed' in fault && fault.executed ? `${fault.kind}, executed` : fault.kind
    const { faults } = this.#proxy.counts
    faults[kind] = (faults[kind] ?? 0) + 1
    this.#proxy.onFault?.(fault, request)
  }

  #takeRequest(piece: Piece, toStore: DelayedPipe): void {
    switch (piece.kind) {
      case 'head':
        this.#beginRequest(piece.head, toStore)
        break
      case 'body':
        if (this.#requestPasses) this.#passRequest(piece.bytes, toStore)
        break
      case 'end': {
        const exchange = this.#exchanges.at(-1)
        // It is refused when all of it was read, a round trip later than it was sent.
        if (!this.#requestPasses && exchange?.fault?.kind === 'answer' && !exchange.closesAfterwards)
          toStore.afterwards(() => this.#answerItself(exchange))
        break
      }
      default:
        piece satisfies never
    }
  }

  #beginRequest(head: Head, toStore: DelayedPipe): void {
    const [method = '', target = ''] = head.line.split(' ')
    const request: RequestFacts = { method, target, headers: head.headers }
    this.#proxy.counts.requests++
    const skewed = this.#isSkewed(head)
    const fault: Fault | undefined = skewed
      ? { kind: 'answer', status: 403, code: 'RequestTimeTooSkewed', executed: false }
      : this.#proxy.plan?.(request)
    const exchange: Exchange = { request, fault, ownAnswer: undefined, closesAfterwards: false }
    this.#exchanges.push(exchange)
    this.#requestPasses = true
    this.#requestBytesLeft = Number.POSITIVE_INFINITY
    if (fault?.kind === 'answer' && !fault.executed) {
      if (skewed) this.#proxy.counts.skewed++
      else this.#count(fault, request)
      this.#requestPasses = false
      // Who waits to be told to go on is refused now, and what he sends all the same is not read as a request.
      if (head.headers.get('expect') !== undefined) {
        exchange.closesAfterwards = true
        toStore.afterwards(() => this.#answerItself(exchange))
      }
      return
    }
    if (fault?.kind === 'silence' && !fault.executed) {
      this.#count(fault, request)
      this.#requestPasses = false
      return
    }
    if (fault?.kind === 'reset request') {
      this.#count(fault, request)
      const length = toldLength(head) ?? 0
      if (length === 0) {
        this.#requestPasses = false
        toStore.afterwards(() => this.reset())
        return
      }
      this.#requestBytesLeft = Math.floor(fault.at * (length === 'chunked' ? unknownLength : length))
    }
    toStore.send(head.bytes)
  }

  #passRequest(bytes: Buffer, toStore: DelayedPipe): void {
    if (bytes.length < this.#requestBytesLeft) {
      this.#requestBytesLeft -= bytes.length
      toStore.send(bytes)
      return
    }
    toStore.send(bytes.subarray(0, this.#requestBytesLeft))
    this.#requestPasses = false
    toStore.afterwards(() => this.reset())
  }

  #isSkewed(head: Head): boolean {
    if (this.#proxy.skewMs === 0) return false
    const signedAt = head.headers
      .get('x-amz-date')
      ?.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
    if (signedAt === undefined) return false
    return Math.abs(Date.parse(signedAt) - (Date.now() + this.#proxy.skewMs)) > skewToleranceMs
  }

  #answerItself(exchange: Exchange): void {
    if (exchange.fault?.kind !== 'answer') return
    const { status, code } = exchange.fault
    const text = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>injected</Message></Error>`
    // Nothing may follow the head of an answer to HEAD.
    const body = exchange.request.method === 'HEAD' ? '' : text
    const lines = [
      `HTTP/1.1 ${status} ${code}`,
      `Date: ${new Date(Date.now() + this.#proxy.skewMs).toUTCString()}`,
      'Content-Type: application/xml',
      `Content-Length: ${text.length}`,
      // How Azure says it.
      `x-ms-error-code: ${code}`,
      `Connection: ${exchange.closesAfterwards ? 'close' : 'keep-alive'}`,
    ]
    exchange.ownAnswer = Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`)
    this.#sendOwnAnswers()
  }

  // An answer of ours waits for those of the store to what was asked before.
  #sendOwnAnswers(): void {
    for (let first = this.#exchanges[0]; first?.ownAnswer !== undefined; first = this.#exchanges[0]) {
      this.#exchanges.shift()
      this.#toClient?.send(first.ownAnswer)
      if (first.closesAfterwards) this.#toClient?.afterwards(() => this.#client.end())
    }
  }

  #answerLength(head: Head): BodyLength {
    const status = statusOf(head)
    const { method } = this.#exchanges[0]?.request ?? {}
    if (status < 200 || status === 204 || status === 304 || method === 'HEAD') return 0
    return toldLength(head) ?? 'rest'
  }

  #takeAnswer(piece: Piece, toClient: DelayedPipe): void {
    switch (piece.kind) {
      case 'head':
        this.#beginAnswer(piece.head, toClient)
        break
      case 'body':
        if (this.#answerPasses) this.#passAnswer(piece.bytes, piece.isData, toClient)
        break
      case 'end':
        if (!this.#isInterim) this.#endAnswer()
        break
      default:
        piece satisfies never
    }
  }

  #beginAnswer(head: Head, toClient: DelayedPipe): void {
    this.#isInterim = statusOf(head) < 200
    const exchange = this.#exchanges[0]
    const { fault } = exchange ?? {}
    const length = this.#answerLength(head)
    this.#answerPasses = true
    this.#answerBytesLeft = Number.POSITIVE_INFINITY
    this.#bytesUntilAltered = Number.POSITIVE_INFINITY
    let bytes =
      this.#proxy.skewMs === 0
        ? head.bytes
        : withHeader(head, 'date', new Date(Date.now() + this.#proxy.skewMs).toUTCString())
    // "100 Continue" is not what the store has to say.
    if (this.#isInterim || exchange === undefined || fault === undefined) {
      toClient.send(bytes)
      return
    }

    const place = (at: number) => Math.floor(at * (typeof length === 'number' ? length : unknownLength))
    switch (fault.kind) {
      case 'answer':
      case 'silence':
        this.#count(fault, exchange.request)
        this.#answerPasses = false
        return
      case 'reset answer':
        this.#count(fault, exchange.request)
        if (fault.at === 0 || length === 0) {
          this.#answerPasses = false
          toClient.afterwards(() => this.reset())
          return
        }
        this.#answerBytesLeft = place(fault.at)
        break
      case 'truncate':
        // Of nothing, nothing can be missing.
        if (length === 0) break
        this.#count(fault, exchange.request)
        this.#answerBytesLeft = place(fault.at)
        if (fault.tells && typeof length === 'number')
          bytes = withHeader({ ...head, bytes }, 'content-length', String(this.#answerBytesLeft))
        break
      case 'alter':
        if (length === 0) break
        this.#count(fault, exchange.request)
        this.#bytesUntilAltered = place(fault.at)
        break
      case 'stall':
        this.#count(fault, exchange.request)
        toClient.holdFor(fault.ms)
        break
      case 'reset request':
        break
      default:
        fault satisfies never
    }
    toClient.send(bytes)
    if (this.#answerBytesLeft === 0) this.#cutAnswer(toClient)
  }

  #passAnswer(bytes: Buffer, isData: boolean, toClient: DelayedPipe): void {
    let passed = bytes
    if (isData && this.#bytesUntilAltered < bytes.length) {
      passed = Buffer.from(bytes)
      passed[this.#bytesUntilAltered] = (passed[this.#bytesUntilAltered] ?? 0) ^ 1
      this.#bytesUntilAltered = Number.POSITIVE_INFINITY
    } else if (isData) this.#bytesUntilAltered -= bytes.length

    if (passed.length < this.#answerBytesLeft) {
      this.#answerBytesLeft -= passed.length
      toClient.send(passed)
      return
    }
    toClient.send(passed.subarray(0, this.#answerBytesLeft))
    this.#cutAnswer(toClient)
  }

  #cutAnswer(toClient: DelayedPipe): void {
    this.#answerPasses = false
    const fault = this.#exchanges[0]?.fault
    if (fault?.kind === 'reset answer') toClient.afterwards(() => this.reset())
    // The end of the connection is what tells that more should have come.
    else if (fault?.kind === 'truncate' && !fault.tells) toClient.afterwards(() => this.#client.end())
  }

  #endAnswer(): void {
    const exchange = this.#exchanges[0]
    const fault = exchange?.fault
    if (exchange !== undefined && fault?.kind === 'answer') {
      this.#answerItself(exchange)
      return
    }
    // Nothing that was asked later is answered either.
    if (fault?.kind === 'silence') return
    if (fault === undefined) this.#proxy.counts.answers++
    this.#exchanges.shift()
    this.#sendOwnAnswers()
  }
}

// Where a fraction of a body is meant whose length is told only at its end.
const unknownLength = 4096

function statusOf(head: Head): number {
  return Number(head.line.split(' ')[1])
}

/** Unlike `once` it does not mind an error that comes before. */
function closed(socket: Socket): Promise<void> {
  return new Promise(resolve => socket.once('close', () => resolve()))
}
