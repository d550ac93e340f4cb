import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { test } from 'node:test'
import { Distance } from './support/distance.ts'
import { type Fault, type FaultPlan, randomFaults } from './support/fault-plan.ts'
import { FaultProxy, type FaultProxyOptions } from './support/fault-proxy.ts'
import { HttpFraming, type Piece, toldLength } from './support/http-framing.ts'

test('messages are cut in the same places however their bytes arrive', () => {
  const messages = [
    'PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello',
    'GET /b HTTP/1.1\r\nHost: x\r\n\r\n',
    'PUT /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nt: 1\r\n\r\n',
    'PUT /d HTTP/1.1\r\nContent-Length: 0\r\n\r\n',
  ]
  const stream = Buffer.from(messages.join(''))
  for (const size of [1, 2, 3, 7, 50, stream.length]) {
    const framing = new HttpFraming(head => toldLength(head) ?? 0)
    const whole: string[] = []
    const data: string[] = []
    let message = ''
    let body = ''
    for (let at = 0; at < stream.length; at += size) {
      for (const piece of framing.feed(stream.subarray(at, at + size)) as Iterable<Piece>) {
        if (piece.kind === 'head') message += piece.head.bytes.toString()
        if (piece.kind === 'body') message += piece.bytes.toString()
        if (piece.kind === 'body' && piece.isData) body += piece.bytes.toString()
        if (piece.kind !== 'end') continue
        whole.push(message)
        data.push(body)
        message = ''
        body = ''
      }
    }
    assert.deepEqual(whole, messages, `in pieces of ${size}`)
    assert.deepEqual(data, ['hello', '', 'hello0123456789', ''])
  }
})

test('without faults everything passes as it is: bodies with a length, in chunks, and after "100 Continue"', async () => {
  await using stage = await Stage.start()
  const large = Buffer.alloc(3_000_000, 'large')
  assert.equal((await stage.put('/large', large)).status, 200)
  assert.deepEqual(stage.stored.get('/large'), large)
  assert.deepEqual((await stage.get('/large')).body, large)
  assert.deepEqual((await stage.get('/large?chunked')).body, large)
  assert.equal((await stage.put('/expected', 'told to go on', { Expect: '100-continue' })).status, 200)
  assert.equal(stage.stored.get('/expected')?.toString(), 'told to go on')
  assert.equal((await stage.put('/in-chunks', 'chunks', { 'Transfer-Encoding': 'chunked' })).status, 200)
  assert.equal(stage.stored.get('/in-chunks')?.toString(), 'chunks')
  assert.equal((await stage.ask('HEAD', '/large')).headers['content-length'], '3000000')
  assert.equal((await stage.get('/missing')).status, 404)
  const { requests, answers, connections, faults } = stage.proxy.counts
  assert.deepEqual({ requests, answers, faults }, { requests: 7, answers: 7, faults: {} })
  assert.equal(connections, 1, 'the connection was kept')
})

test('an answer of its own is given without asking the store, or after the store has done it', async () => {
  await using stage = await Stage.start()
  const answer = (status: number, code: string, executed: boolean): Fault => ({
    kind: 'answer',
    status,
    code,
    executed,
  })
  stage.next(answer(503, 'SlowDown', false))
  const refused = await stage.put('/a', 'a')
  assert.equal(refused.status, 503)
  assert.match(refused.body.toString(), /<Error><Code>SlowDown<\/Code>/)
  assert.equal(stage.stored.has('/a'), false)

  stage.next(answer(500, 'InternalError', true))
  assert.equal((await stage.put('/a', 'a')).status, 500)
  assert.equal(stage.stored.get('/a')?.toString(), 'a')

  stage.next(answer(412, 'PreconditionFailed', false))
  const early = await stage.put('/b', 'b', { Expect: '100-continue' })
  assert.equal(early.status, 412)
  assert.equal(early.headers.connection, 'close')

  stage.next(answer(403, 'AccessDenied', false))
  assert.equal((await stage.ask('HEAD', '/a')).status, 403)
  assert.equal((await stage.get('/a')).body.toString(), 'a')
  assert.deepEqual(stage.proxy.counts.faults, { answer: 3, 'answer, executed': 1 })
  assert.equal(stage.proxy.counts.connections, 2, 'a new one only after the one that was closed')
})

test('a request that is cut in its body does not reach the store whole', async () => {
  await using stage = await Stage.start()
  stage.next({ kind: 'reset request', at: 0.5 })
  await assert.rejects(stage.put('/a', Buffer.alloc(1_000_000)), isReset)
  stage.next({ kind: 'reset request', at: 0 })
  await assert.rejects(stage.get('/a'), isReset)
  await stage.aborted(1)
  assert.equal(stage.stored.has('/a'), false)
  assert.deepEqual(stage.asked, ['PUT /a'], 'the second was not asked at all')
})

test('a lost answer leaves the request done and the client without a word', async () => {
  await using stage = await Stage.start()
  stage.next({ kind: 'reset answer', at: 0 })
  await assert.rejects(stage.put('/a', 'a'), isReset)
  assert.equal(stage.stored.get('/a')?.toString(), 'a')
  stage.stored.set('/large', Buffer.alloc(1_000_000))
  stage.next({ kind: 'reset answer', at: 0.5 })
  await assert.rejects(stage.get('/large'), isReset)
  assert.deepEqual(stage.proxy.counts.faults, { 'reset answer': 2 })
})

test('an answer that is cut short either tells so by the end of the connection, or lies about its length', async () => {
  await using stage = await Stage.start()
  const whole = Buffer.from('0123456789')
  stage.stored.set('/a', whole)
  stage.next({ kind: 'truncate', at: 0.5, tells: false })
  await assert.rejects(stage.get('/a'), { code: 'ECONNRESET', message: 'aborted' })
  stage.next({ kind: 'truncate', at: 0.5, tells: true })
  assert.equal((await stage.get('/a')).body.toString(), '01234')
  stage.next({ kind: 'truncate', at: 0, tells: true })
  assert.equal((await stage.get('/a')).body.toString(), '')
  assert.deepEqual((await stage.get('/a')).body, whole)
  assert.deepEqual(stage.proxy.counts.faults, { truncate: 3 })
})

test('an altered answer differs in one bit', async () => {
  await using stage = await Stage.start()
  const whole = Buffer.alloc(1_000_000)
  stage.stored.set('/a', whole)
  stage.next({ kind: 'alter', at: 0.75 })
  const { body } = await stage.get('/a')
  assert.equal(body.length, whole.length)
  assert.equal(body[750_000], 1)
  body[750_000] = 0
  assert.deepEqual(body, whole)
})

test('silence keeps the connection open, whether the store has done it or not', async () => {
  await using stage = await Stage.start()
  for (const executed of [false, true]) {
    stage.next({ kind: 'silence', executed })
    const giveUp = new AbortController()
    const asked = stage.put(`/${executed}`, 'x', {}, giveUp.signal)
    // The fault is told when it takes effect, which is all that a client could wait for.
    await stage.faulted()
    giveUp.abort()
    await assert.rejects(asked, { name: 'AbortError' })
    assert.equal(stage.stored.has(`/${executed}`), executed)
  }
  assert.equal((await stage.put('/a', 'a')).status, 200)
})

test('connections can be accepted in silence', async () => {
  await using stage = await Stage.start()
  stage.proxy.acceptsSilently = true
  const client = connect(stage.proxy.port, '127.0.0.1')
  await once(client, 'connect')
  client.end('GET / HTTP/1.1\r\n\r\n')
  assert.equal(await text(client), '')
  stage.proxy.acceptsSilently = false
  assert.equal((await stage.put('/a', 'a')).status, 200)
  assert.equal(stage.proxy.counts.silentConnections, 1)
  assert.deepEqual(stage.asked, ['PUT /a'])
})

test('during an outage connections are refused, and afterwards everything is as before', async () => {
  await using stage = await Stage.start()
  await stage.put('/a', 'a')
  await stage.proxy.beginOutage()
  await assert.rejects(stage.get('/a'), (error: NodeJS.ErrnoException) =>
    ['ECONNREFUSED', 'ECONNRESET'].includes(error.code ?? ''),
  )
  await assert.rejects(stage.get('/a'), { code: 'ECONNREFUSED' })
  await stage.proxy.endOutage()
  assert.equal((await stage.get('/a')).body.toString(), 'a')
})

test('cut connections are cut in mid-request, and the next ones are accepted', async () => {
  await using stage = await Stage.start()
  stage.next({ kind: 'silence', executed: true })
  const asked = stage.put('/a', 'a')
  await stage.faulted()
  stage.proxy.cutConnections()
  await assert.rejects(asked, isReset)
  assert.equal((await stage.get('/a')).status, 200)
  assert.equal(stage.proxy.counts.cutConnections, 1)
})

test("a store with another clock refuses by it and tells it, until the client's clock agrees", async () => {
  await using stage = await Stage.start()
  const hourMs = 60 * 60 * 1000
  stage.proxy.skewMs = hourMs
  const dated = (ms: number) => ({ 'x-amz-date': new Date(ms).toISOString().replaceAll(/[-:]|\.\d+/g, '') })
  const refused = await stage.put('/a', 'a', dated(Date.now()))
  assert.equal(refused.status, 403)
  assert.match(refused.body.toString(), /<Code>RequestTimeTooSkewed</)
  const toldMs = Date.parse(refused.headers.date ?? '')
  assert.ok(toldMs > Date.now() + hourMs / 2, refused.headers.date)
  const accepted = await stage.put('/a', 'a', dated(toldMs))
  assert.equal(accepted.status, 200)
  assert.ok(Date.parse(accepted.headers.date ?? '') > Date.now() + hourMs / 2, accepted.headers.date)
  assert.equal(stage.proxy.counts.skewed, 1)
})

test('answers keep the order of requests that were sent at once', async () => {
  await using stage = await Stage.start()
  for (const name of ['a', 'b', 'c']) stage.stored.set(`/${name}`, Buffer.from(name))
  stage.proxy.plan = ({ target }) =>
    target === '/b' ? { kind: 'answer', status: 503, code: 'SlowDown', executed: false } : undefined
  const client = connect({ port: stage.proxy.port, host: '127.0.0.1', noDelay: true })
  const get = (name: string, more = '') => `GET /${name} HTTP/1.1\r\nHost: x\r\n${more}\r\n`
  client.write(get('a') + get('b') + get('c', 'Connection: close\r\n'))
  const answers = [...(await text(client)).matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => status)
  assert.deepEqual(answers, ['200', '503', '200'])
})

test('a request is never answered sooner than the distance takes, the first of a connection twice', async () => {
  await using stage = await Stage.start({ roundTripMs: 40 })
  const took = async () => {
    const beganMs = performance.now()
    assert.equal((await stage.put('/a', 'a')).status, 200)
    return performance.now() - beganMs
  }
  const [first, second] = [await took(), await took()]
  assert.ok(first >= 80, `the first took ${first} ms`)
  assert.ok(second >= 40, `the second took ${second} ms`)
  stage.proxy.bytesPerSecond = 10_000_000
  const beganMs = performance.now()
  await stage.put('/large', Buffer.alloc(1_000_000))
  const large = performance.now() - beganMs
  assert.ok(large >= 140, `a megabyte took ${large} ms`)
})

test('who has sent a request and goes has sent it, however far the store is', async () => {
  await using stage = await Stage.start({ roundTripMs: 100 })
  const client = connect(stage.proxy.port, '127.0.0.1')
  await new Promise<void>(resolve =>
    client.write('PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na', () => resolve()),
  )
  client.destroy()
  await stage.arrived('PUT /a')
  assert.equal(stage.stored.get('/a')?.toString(), 'a')
})

test('chance gives the same faults for the same seed, in whatever order requests come', () => {
  const odds = { slowDown: 0.1, lostAnswer: 0.1, alter: 0.1, resetRequest: 0.1 }
  const requests = Array.from({ length: 500 }, (_, i) => ({
    method: 'PUT',
    target: `/bucket/${i}`,
    headers: new Map(),
  }))
  const decide = (seed: number, all: typeof requests) => {
    const plan = randomFaults(seed, odds)
    const faults = new Map(all.map(request => [request.target, JSON.stringify(plan(request))]))
    return requests.map(({ target }) => faults.get(target))
  }
  assert.deepEqual(decide(7, requests), decide(7, requests.toReversed()))
  assert.notDeepEqual(decide(7, requests), decide(8, requests))
  const met = decide(7, requests).filter(fault => fault !== undefined).length
  assert.ok(met > 140 && met < 260, `${met} of 500 met a fault, where 200 are expected`)
})

test('through hundreds of requests with faults of every kind, only what was answered is trusted, and that is right', async () => {
  await using stage = await Stage.start()
  const seed = 11
  stage.proxy.plan = randomFaults(seed, {
    slowDown: 0.05,
    internalError: 0.05,
    preconditionFailed: 0.02,
    slowDownAfterwards: 0.05,
    resetRequest: 0.05,
    resetAnswer: 0.05,
    lostAnswer: 0.05,
    truncate: 0.02,
    alter: 0.02,
  })
  const names = Array.from({ length: 400 }, (_, i) => `/${i}`)
  let at = 0
  const worker = async () => {
    for (let name = names[at++]; name !== undefined; name = names[at++]) {
      for (;;) {
        const status = await stage.put(name, name).then(
          answer => answer.status,
          () => 0,
        )
        if (status === 200) break
      }
      assert.equal(stage.stored.get(name)?.toString(), name, `seed ${seed}`)
    }
  }
  await Promise.all(Array.from({ length: 8 }, worker))
  const { faults } = stage.proxy.counts
  for (const kind of ['answer', 'answer, executed', 'reset request', 'reset answer'])
    assert.ok((faults[kind] ?? 0) > 5, `${kind}: ${faults[kind]}`)
})

test('a distance is a process of its own that ends when it is stopped', async () => {
  await using stage = await Stage.start()
  stage.stored.set('/a', Buffer.from('a'))
  const distance = await Distance.start({ target: stage.endpoint, roundTripMs: 20 })
  const beganMs = performance.now()
  const answer = await fetch(`${distance.endpoint}/a`)
  assert.equal(await answer.text(), 'a')
  assert.ok(performance.now() - beganMs >= 40)
  await distance.stop()
  await assert.rejects(fetch(`${distance.endpoint}/a`))
})

test('bytes that are not HTTP pass too, where the proxy is told not to look', async () => {
  const server = createTcpServer({ allowHalfOpen: true }, socket => socket.pipe(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  await using proxy = await FaultProxy.start({
    target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    speaks: 'bytes',
    roundTripMs: 10,
  })
  const client = connect({ port: proxy.port, host: '127.0.0.1' })
  client.end('SSH-2.0-whoever\r\n')
  assert.equal(await text(client), 'SSH-2.0-whoever\r\n')
  server.close()
})

function isReset(error: NodeJS.ErrnoException): boolean {
  return error.code === 'ECONNRESET' || error.code === 'EPIPE'
}

interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: Buffer
}

/** A store that keeps what is put, a proxy before it, and a client with one connection at a time. */
class Stage implements AsyncDisposable {
  readonly stored = new Map<string, Buffer>()
  readonly asked: string[] = []
  readonly proxy: FaultProxy
  readonly #server: Server
  readonly #agent = new Agent({ keepAlive: true })
  readonly #faulted = Promise.withResolvers<void>()
  #nextFault = this.#faulted
  #abortedCount = 0

  private constructor(server: Server, proxy: FaultProxy) {
    this.#server = server
    this.proxy = proxy
    proxy.onFault = () => this.#nextFault.resolve()
    server.on('request', (request: IncomingMessage, response) => {
      const [path = ''] = request.url?.split('?') ?? []
      this.asked.push(`${request.method} ${path}`)
      void (async () => {
        if (request.method === 'PUT') {
          this.stored.set(path, await buffer(request))
          server.emit('stored', `PUT ${path}`)
          response.end('done')
          return
        }
        const body = this.stored.get(path)
        if (body === undefined) response.writeHead(404).end('none')
        else if (request.url?.endsWith('?chunked')) response.writeHead(200).end(body)
        else response.writeHead(200, { 'Content-Length': body.length }).end(body)
      })().catch(() => {
        this.#abortedCount++
        server.emit('aborted')
      })
    })
  }

  static async start(options: Partial<FaultProxyOptions> = {}): Promise<Stage> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port }
    return new Stage(server, await FaultProxy.start({ target, ...options }))
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** The next request meets this fault, and those after it none. */
  next(fault: Fault): void {
    this.#nextFault = Promise.withResolvers<void>()
    const once: FaultPlan = () => {
      this.proxy.plan = undefined
      return fault
    }
    this.proxy.plan = once
  }

  async faulted(): Promise<void> {
    await this.#nextFault.promise
  }

  /** Returns when the store has noticed that so many requests were not sent to their ends. */
  async aborted(count: number): Promise<void> {
    while (this.#abortedCount < count) await once(this.#server, 'aborted')
  }

  async arrived(what: string): Promise<void> {
    for (;;) {
      const [path] = await once(this.#server, 'stored')
      if (path === what) return
    }
  }

  async put(path: string, body: Buffer | string, headers = {}, signal?: AbortSignal): Promise<Answer> {
    return await this.ask('PUT', path, headers, Buffer.from(body), signal)
  }

  async get(path: string): Promise<Answer> {
    return await this.ask('GET', path)
  }

  async ask(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body: Buffer = Buffer.alloc(0),
    signal?: AbortSignal,
  ): Promise<Answer> {
    const length = 'Transfer-Encoding' in headers ? {} : { 'Content-Length': body.length }
    const given = signal === undefined ? {} : { signal }
    return await new Promise((resolve, reject) => {
      const request = httpRequest(
        `${this.proxy.endpoint}${path}`,
        { method, headers: { ...headers, ...length }, agent: this.#agent, ...given },
        answer => {
          buffer(answer).then(
            bytes => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: bytes }),
            reject,
          )
        },
      )
      request.on('error', reject)
      if ('Expect' in headers) request.on('continue', () => request.end(body))
      else request.end(body)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
    await this.proxy.stop()
    this.#server.closeAllConnections()
    this.#server.close()
  }
}
