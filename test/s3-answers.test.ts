// What stores, proxies and web sites may answer that Ceph never does, by a server that says what a test wants to hear.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, connect, type Server, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { parseS3Location } from '../src/repository/s3-location.ts'
import { RequestError } from '../src/repository/store/request-error.ts'
import { S3Driver } from '../src/repository/store/s3/s3-driver.ts'
import { s3Failure } from '../src/repository/store/s3/s3-failure.ts'
import { s3Refusal } from '../src/repository/store/s3/s3-refusal.ts'
import { S3Profiles } from './support/s3-profiles.ts'
import { makeTestCertificate } from './support/test-certificate.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

let profiles: S3Profiles
before(async () => {
  profiles = await S3Profiles.begin()
  await profiles.set({ default: { accessKey: 'AKIDOFTHETEST', secretKey: 'secret-of-the-test' } })
})
after(async () => {
  await profiles?.[Symbol.asyncDispose]()
})

const body = [Buffer.from('content')]

function error(
  status: number,
  code: string,
  more = '',
  headers: Record<string, string> = {},
): RequestListener {
  return plain(
    status,
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>said it</Message>${more}</Error>`,
    {
      'content-type': 'application/xml',
      ...headers,
    },
  )
}

function plain(status: number, text: string, headers: Record<string, string> = {}): RequestListener {
  return (request, answer) => {
    request.resume()
    request.on('end', () => answer.writeHead(status, headers).end(text))
  }
}

/** A store that gives one answer to everything. */
async function storeThat(answers: RequestListener) {
  const server = createServer(answers)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const driver = new S3Driver({
    location: parseS3Location(`s3://bucket/wal?endpoint=${endpoint}`),
    environment: {},
  })
  return {
    endpoint,
    handlers: driver.handlers,
    async [Symbol.asyncDispose]() {
      await driver[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
    },
  }
}

async function failureOf(request: Promise<unknown>): Promise<RequestError> {
  const thrown: unknown = await request.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  )
  if (!(thrown instanceof RequestError)) throw thrown
  assert.doesNotMatch(JSON.stringify([thrown.message, thrown.detail, thrown.hint]), /AKIDOFTHETEST|secret-of/)
  return thrown
}

test('each refusal has its words, and says whether trying again may help', async () => {
  const cases: Array<[RequestListener, string, string]> = [
    [error(503, 'SlowDown'), 'the store has too much to do', 'slow down'],
    [error(429, 'TooManyRequests'), 'the store has too much to do', 'slow down'],
    [plain(503, '<html>busy</html>'), 'the store has too much to do', 'slow down'],
    [error(500, 'InternalError'), 'the store had a failure of its own', 'again'],
    [error(409, 'ConditionalRequestConflict'), 'the store had a failure of its own', 'again'],
    [error(400, 'RequestTimeout'), 'the store had a failure of its own', 'again'],
    [plain(502, '<html>bad gateway</html>'), '"ENDPOINT" answered 502', 'again'],
    [plain(404, '<html>not found</html>'), 'what answers at "ENDPOINT" does not speak S3', 'never'],
    [plain(404, ''), 'what answers at "ENDPOINT" does not speak S3', 'never'],
    [
      plain(400, 'Client sent an HTTP request to an HTTPS server.'),
      'what answers at "ENDPOINT" does not speak S3',
      'never',
    ],
    [error(403, 'ExpiredToken'), 'the credentials have expired', 'never'],
    [error(403, 'InvalidToken'), 'the session token is wrong', 'never'],
    [
      error(403, 'RequestTimeTooSkewed'),
      'the clocks of this machine and of the store differ too much',
      'again',
    ],
    [error(403, 'QuotaExceeded'), 'there is no room left', 'never'],
    [
      error(501, 'NotImplemented'),
      'the store does not take conditional requests, or another option in the URL',
      'never',
    ],
    [
      error(400, 'KMS.DisabledException'),
      'the store could not encrypt or decrypt with the key of its key service',
      'never',
    ],
    [
      error(301, 'PermanentRedirect', '', { 'x-amz-bucket-region': 'eu-west-3' }),
      'the bucket is in region "eu-west-3"',
      'again',
    ],
    [error(301, 'PermanentRedirect'), 'the bucket is in another region', 'never'],
    [error(418, 'Teapot'), 'the store refused it (Teapot)', 'never'],
    [(request: IncomingMessage) => request.socket.destroy(), 'the connection to "ENDPOINT" failed', 'again'],
  ]
  for (const [answers, expected, retry] of cases) {
    await using store = await storeThat(answers)
    const failure = await failureOf(store.handlers.put({ key: 'k', body }))
    assert.equal(
      failure.message.replaceAll(store.endpoint, 'ENDPOINT'),
      `could not store "k" in repository "s3://bucket/wal?endpoint=ENDPOINT": ${expected}`,
    )
    assert.equal(failure.retry, retry, expected)
  }
})

test('credentials that were renewed are used from then on, whatever was refused when, and however Amazon says so', async () => {
  for (const [status, code] of [
    [403, 'InvalidAccessKeyId'],
    [400, 'ExpiredToken'],
  ] as const) {
    await profiles.set({ default: { accessKey: 'AKIDOFTHETEST', secretKey: 'secret-of-the-test' } })
    const answers = new Map<string, () => void>()
    let bothAsked = () => {}
    const asked = new Promise<void>(resolve => (bothAsked = resolve))
    await using store = await storeThat((request, answer) => {
      const isNew = request.headers.authorization?.includes('AKIDTHATISNEW') === true
      const say = isNew
        ? plain(200, '', { etag: '"tag"' })
        : error(status, code, '', { 'x-amz-bucket-region': 'eu-west-3' })
      if (isNew) say(request, answer)
      else answers.set(request.url?.split('?')[0]?.slice(-1) ?? '', () => say(request, answer))
      if (answers.size === 2) bothAsked()
    })
    const put = (key: string) => store.handlers.put({ key, body })
    const refused = { a: failureOf(put('a')), b: failureOf(put('b')) }
    await asked
    await profiles.set({ default: { accessKey: 'AKIDTHATISNEW', secretKey: 'secret-of-the-test' } })
    for (const name of ['a', 'b'] as const) {
      answers.get(name)?.()
      assert.equal((await refused[name]).retry, 'again', `${code}, ${name}`)
    }
    assert.equal(await put('c'), 'written')
  }
  await profiles.set({ default: { accessKey: 'AKIDOFTHETEST', secretKey: 'secret-of-the-test' } })
})

test('how long the store wants to be left alone is handed on', async () => {
  await using store = await storeThat(error(503, 'SlowDown', '', { 'retry-after': '7' }))
  assert.equal((await failureOf(store.handlers.put({ key: 'k', body }))).retryAfterMs, 7_000)
})

test('a store that repeats credentials in its words is not quoted with them', async () => {
  await using store = await storeThat(
    plain(403, '<Error><Code>Denied</Code><Message>AKIDOFTHETEST may not</Message></Error>'),
  )
  const { detail } = await failureOf(store.handlers.put({ key: 'k', body }))
  assert.equal(detail, 'The store answered 403 Denied: … may not.')
})

test('an object in an archive class is named as such', async () => {
  await using store = await storeThat(
    error(403, 'InvalidObjectState', '<StorageClass>GLACIER</StorageClass>'),
  )
  const { message } = await failureOf(store.handlers.get({ key: 'k', start: 0, bytes: 9 }))
  assert.match(message, /: it was moved to a storage class that cannot be read at once$/)
})

test('a missing object is one only if the store says so', async () => {
  for (const answers of [
    plain(404, '<html/>'),
    plain(404, ''),
    error(404, 'NotFound'),
    error(404, 'NoSuchBucket'),
  ]) {
    await using store = await storeThat(answers)
    await failureOf(store.handlers.get({ key: 'k', start: 0, bytes: 9 }))
  }
  await using store = await storeThat(error(404, 'NoSuchKey'))
  assert.equal(await store.handlers.get({ key: 'k', start: 0, bytes: 9 }), undefined)
})

test('a piece that is not the one that was asked for, or not all of it, is none', async () => {
  const ranged = (range: string, length: number, text: string) =>
    plain(206, text, { 'content-range': range, 'content-length': String(length) })
  const cut: RequestListener = (_, answer) => {
    answer.writeHead(206, { 'content-range': 'bytes 0-8/20', 'content-length': '9' })
    answer.write('123', () => answer.destroy())
  }
  for (const answers of [
    ranged('bytes 1-9/20', 9, '123456789'),
    ranged('bytes 0-4/20', 5, '12345'),
    plain(206, '123456789'),
    plain(200, 'x'.repeat(20), { 'content-length': '20' }),
    cut,
  ]) {
    await using store = await storeThat(answers)
    const { message, retry } = await failureOf(store.handlers.get({ key: 'k', start: 0, bytes: 9 }))
    assert.match(
      message,
      /could not read "k" in repository .*: (the answer makes no sense|the connection to .* failed)$/,
    )
    assert.equal(retry, 'again')
  }
  await using whole = await storeThat(plain(200, 'short', { 'content-length': '5' }))
  assert.equal((await whole.handlers.get({ key: 'k', start: 0, bytes: 9 }))?.length, 5)
})

test('parts that could not be joined are not an object, although the answer begins with success', async () => {
  const failing = '<Error><Code>InternalError</Code><Message>said it</Message></Error>'
  for (const text of [`<?xml version="1.0"?>\n${failing}`, `<?xml version="1.0"?>\n${failing}\n`, '']) {
    await using store = await storeThat((request, answer) =>
      request.method === 'GET' ? error(404, 'NoSuchKey')(request, answer) : plain(200, text)(request, answer),
    )
    const end = store.handlers.endUpload({ key: 'k', upload: 'u', parts: ['digest "tag"'], length: 7 })
    assert.equal((await failureOf(end)).retry, 'again')
  }
})

test('that an object is there tells what became of a lost answer, but not whether the store refuses to replace it', async () => {
  const request = { key: 'k', upload: 'u', parts: ['digest "tag"'], length: 7 }
  for (const refusal of [error(500, 'InternalError'), error(404, 'NoSuchUpload')]) {
    await using store = await storeThat((asked, answer) =>
      asked.method === 'GET'
        ? plain(206, 'c', { 'content-range': 'bytes 0-0/7', 'content-length': '1' })(asked, answer)
        : refusal(asked, answer),
    )
    assert.equal(await store.handlers.endUpload(request), 'exists')
    await assert.rejects(store.handlers.endUpload({ ...request, isTrial: true }))
  }
  await using refusing = await storeThat(error(412, 'PreconditionFailed'))
  assert.equal(await refusing.handlers.endUpload({ ...request, isTrial: true }), 'exists')
})

test("a bucket in another of Amazon's regions is found, or the right region named", async () => {
  await using directory = await temporaryDirectory()
  const names = ['us-east-1', 'eu-central-1'].map(region => `DNS:*.s3.${region}.amazonaws.com`)
  const certificate = await makeTestCertificate(directory.path, [...names, 'DNS:*.s3.amazonaws.com'])
  const hosts: string[] = []
  const refusals: Array<() => void> = []
  let atOnce = 3
  const amazon = createSecureServer(
    { cert: await readFile(certificate.certificateFile), key: await readFile(certificate.keyFile) },
    (request: IncomingMessage, answer: ServerResponse) => {
      hosts.push(request.headers.host ?? '')
      const isRight = request.headers.authorization?.includes('/eu-central-1/s3/') === true
      if (isRight) return plain(200, '', { etag: '"tag"' })(request, answer)
      const told = { 'x-amz-bucket-region': 'eu-central-1' }
      const refuse = error(400, 'AuthorizationHeaderMalformed', '<Region>eu-central-1</Region>', told)
      refusals.push(() => refuse(request, answer))
      // Not before all of them are on their way.
      if (refusals.length === atOnce) for (const refuse of refusals.splice(0)) refuse()
    },
  )
  await using proxy = await tunnelTo(amazon)
  const ca = await readFile(certificate.caFile, 'utf8')
  const open = (more: string) =>
    new S3Driver({
      location: parseS3Location(`s3://bucket${more}`),
      environment: { HTTPS_PROXY: proxy.url },
      ca,
    })

  const open1 = open('')
  const puts = ['a', 'b', 'c'].map(key => failureOf(open1.handlers.put({ key, body })))
  assert.deepEqual(
    (await Promise.all(puts)).map(({ retry }) => retry),
    ['again', 'again', 'again'],
  )
  atOnce = 1
  assert.equal(await open1.handlers.put({ key: 'k', body }), 'written')
  assert.match(hosts.at(-1) ?? '', /^bucket\.s3\.eu-central-1\.amazonaws\.com/)

  const { message, hint, retry, code } = await failureOf(
    open('?region=us-east-1').handlers.put({ key: 'k', body }),
  )
  assert.deepEqual(
    [message, hint, retry, code],
    [
      'could not store "k" in repository "s3://bucket": the bucket is in region "eu-central-1"',
      'Write "region=eu-central-1" into the URL in "pgarchivist.repository".',
      'never',
      'SETTINGS',
    ],
  )
  await open1[Symbol.asyncDispose]()
})

/** A proxy that leads to one server, wherever it is told to connect to. */
async function tunnelTo(target: Server) {
  target.listen(0, '127.0.0.1')
  await once(target, 'listening')
  const sockets = new Set<Socket>()
  const proxy = createServer()
  proxy.on('connect', (_, client: Socket) => {
    const store = connect((target.address() as AddressInfo).port, '127.0.0.1', () =>
      client.write('HTTP/1.1 200 OK\r\n\r\n'),
    )
    for (const socket of [client, store]) {
      sockets.add(socket)
      socket.on('error', () => {})
    }
    store.pipe(client).pipe(store)
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      proxy.close()
      target.close()
    },
  }
}

test('a connection that is not made in time is tried again, by the name of the store', () => {
  // As the client makes it, without a code. It comes before the deadline of a request that carries much.
  const late = Object.assign(new Error('the request socket did not establish a connection'), {
    name: 'TimeoutError',
  })
  const url = 's3://bucket/?endpoint=http://192.0.2.1'
  const location = parseS3Location(url)
  const failed = { kind: 'put', key: 'a', url, location, secrets: [], isMended: false } as const
  const told = s3Failure(s3Refusal(late), failed)
  assert.ok(told instanceof RequestError)
  assert.equal(told.retry, 'again')
  assert.equal(told.kind, 'unreachable')
  assert.equal(
    told.message,
    `could not store "a" in repository "${url}": the connection to "http://192.0.2.1" failed`,
  )
  assert.equal(told.detail, 'The reason is ETIMEDOUT.')
})
