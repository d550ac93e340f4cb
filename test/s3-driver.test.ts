// Requests to a real Ceph, and what becomes of each mistake: told apart, in one line, with the remedy, without a secret.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import type { Duplex } from 'node:stream'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { parseS3Location } from '../src/repository/s3-location.ts'
import { RequestError } from '../src/repository/store/request-error.ts'
import { S3Driver } from '../src/repository/store/s3/s3-driver.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

let ceph: Ceph
let profiles: S3Profiles

before(async () => {
  ceph = await sharedCeph()
  profiles = await S3Profiles.begin()
  await profiles.set({ default: ownerOf(ceph) })
})
after(async () => {
  await profiles?.[Symbol.asyncDispose]()
  await ceph?.[Symbol.asyncDispose]()
})

const body = [Buffer.from('twenty-'), Buffer.from('three bytes, ok.')]
const content = Buffer.concat(body)
const key = '1/wal/00000001/00000000/000000010000000000000001.pgarchivist'

function open(
  place: string,
  options: { endpoint?: string; more?: string; environment?: NodeJS.ProcessEnv; ca?: string } = {},
): S3Driver {
  const { endpoint = ceph.endpoint, more = '', environment = {}, ca } = options
  const location = parseS3Location(`s3://${place}?endpoint=${endpoint}${more}`)
  return new S3Driver({ location, environment, ...(ca !== undefined && { ca }) })
}

interface Failure {
  code: string
  message: string
  detail: string | undefined
  hint: string
  retry: string
}

/** How a request fails. Whatever else the exception holds, none of it may be a secret. */
async function failureOf(request: Promise<unknown>, ...secrets: string[]): Promise<Failure> {
  const thrown: unknown = await request.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  )
  assert.ok(thrown instanceof RequestError, inspect(thrown))
  const everything = inspect(thrown, { depth: 20, showHidden: true })
  for (const secret of [ceph.accessKey, ceph.secretKey, ...secrets])
    assert.ok(!everything.includes(secret), everything)
  assert.doesNotMatch(everything, /Signature=|authorization/i)
  const { code, message, hint, retry } = thrown
  // The number of the request is Ceph's.
  const detail = thrown.detail?.replace(/tx[\w-]+(: missing s3:\w+ permission)?/, 'N')
  return { code, message, detail, hint, retry }
}

test('an object is stored once, and comes back in pieces', async () => {
  const { handlers } = open(`${await ceph.createBucket()}/a/b`)
  await handlers.inspect(undefined)
  assert.equal(await handlers.get({ key, start: 0, bytes: 100 }), undefined)
  assert.equal(await handlers.put({ key, body }), 'written')
  assert.equal(await handlers.put({ key, body: [Buffer.from('other')] }), 'exists')
  const pieces: Array<[number, number]> = [
    [0, 100],
    [0, 23],
    [7, 5],
    [22, 1],
    [22, 9],
    [23, 1],
    [99, 1],
  ]
  for (const [start, bytes] of pieces) {
    const piece = await handlers.get({ key, start, bytes })
    assert.deepEqual(piece?.bytes.toString(), content.subarray(start, start + bytes).toString())
    assert.equal(piece.length, content.length)
  }
  assert.equal(await handlers.put({ key: 'empty', body: [] }), 'written')
  const empty = await handlers.get({ key: 'empty', start: 0, bytes: 5 })
  assert.deepEqual([empty?.bytes.length, empty?.length], [0, 0])
})

test('what a console makes to show a directory is no object', async () => {
  const bucket = await ceph.createBucket()
  await ceph.request({ method: 'PUT', path: `/${bucket}/wal/` })
  const { handlers } = open(`${bucket}/wal`)
  assert.deepEqual(await handlers.list({ prefix: '', limit: 1 }), { objects: [], isLast: true })
})

test('names that XML cannot hold do not keep others from being listed', async () => {
  const bucket = await ceph.createBucket()
  for (const path of [`/${bucket}/wal/\u0001`, `/${bucket}/wal/a b+c%20`]) {
    const { status } = await ceph.request({ method: 'PUT', path, body: 'x' })
    assert.equal(status, 200)
  }
  const { objects } = await open(`${bucket}/wal`).handlers.list({ prefix: '', limit: 9 })
  assert.deepEqual(objects, [
    { key: '\u0001', length: 1 },
    { key: 'a b+c%20', length: 1 },
  ])
})

test('parts become an object unless there is one, also when the answer was lost', async () => {
  const { handlers } = open(await ceph.createBucket())
  const upload = async () => {
    const part = randomBytes(5 * 1024 ** 2)
    const name = await handlers.beginUpload({ key })
    const parts = [
      await handlers.putPart({ key, upload: name, part: 1, start: 0, body: [part] }),
      await handlers.putPart({ key, upload: name, part: 2, start: part.length, body }),
    ]
    return { key, upload: name, parts, length: part.length + content.length }
  }
  const [first, second] = [await upload(), await upload()]
  const { uploads } = await handlers.listUploads({})
  assert.deepEqual(uploads.map(each => each.upload).toSorted(), [first.upload, second.upload].toSorted())
  assert.equal(await handlers.endUpload(first), 'written')
  assert.notEqual(await handlers.endUpload(first), undefined)
  assert.equal(await handlers.endUpload(second), 'exists')
  await handlers.abandonUpload(second)
  await handlers.abandonUpload(second)
  // Nothing is left of it, but there is an object.
  assert.equal(await handlers.endUpload(second), 'exists')
  assert.deepEqual(await handlers.listUploads({}), { uploads: [], next: undefined })
  const end = await handlers.get({ key, start: first.length - content.length, bytes: 100 })
  assert.equal(end?.bytes.toString(), content.toString())
})

test('bytes that were changed on the way are not stored', async () => {
  const bucket = await ceph.createBucket()
  await using proxy = await Alteration.begin(new URL(ceph.endpoint))
  const { handlers } = open(bucket, { endpoint: proxy.endpoint })
  const failure = await failureOf(handlers.put({ key, body: [Buffer.from('THE WRONG BYTES')] }))
  assert.equal(failure.retry, 'again')
  assert.match(failure.detail ?? '', /XAmzContentSHA256Mismatch/)
  assert.equal(await open(bucket).handlers.get({ key, start: 0, bytes: 1 }), undefined)
})

test('a bucket that is not there is told from an object that is not', async () => {
  const driver = open('no-such-bucket-here/wal')
  const expected = (deed: string) => ({
    code: 'UNREACHABLE',
    message: `could not ${deed} repository "s3://no-such-bucket-here/wal?endpoint=${ceph.endpoint}": there is no bucket "no-such-bucket-here"`,
    detail: 'The store answered 404 NoSuchBucket to request N.',
    hint: 'Make it, or correct "pgarchivist.repository": a bucket is never made for you.',
    retry: 'never',
  })
  const { handlers } = driver
  assert.deepEqual(await failureOf(handlers.inspect(undefined)), expected('use'))
  assert.deepEqual(await failureOf(handlers.get({ key, start: 0, bytes: 1 })), expected(`read "${key}" in`))
  assert.deepEqual(await failureOf(handlers.put({ key, body })), expected(`store "${key}" in`))
  assert.deepEqual(await failureOf(handlers.list({ prefix: '1/', limit: 1 })), expected('list "1/" in'))
})

test('wrong keys are told apart from missing ones', async () => {
  const bucket = await ceph.createBucket()
  const { accessKey } = ceph
  await profiles.set({
    stranger: { accessKey: 'NOBODYKNOWSTHISKEY01', secretKey: 'secret-of-the-stranger' },
    forger: { accessKey, secretKey: 'secret-of-the-forger' },
  })
  const url = `s3://${bucket}?endpoint=${ceph.endpoint}`
  const inspectAs = async (profile: string, ...secrets: string[]) =>
    await failureOf(open(bucket, { more: `&profile=${profile}` }).handlers.inspect(undefined), ...secrets)
  assert.deepEqual(await inspectAs('stranger', 'NOBODYKNOWSTHISKEY01', 'secret-of-the-stranger'), {
    code: 'UNREACHABLE',
    message: `could not use repository "${url}": the store does not know the access key`,
    detail: 'The store answered 403 InvalidAccessKeyId to request N.',
    hint: 'Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the server, or its credentials file. Is the endpoint that of the store that gave it?',
    retry: 'never',
  })
  assert.deepEqual(await inspectAs('forger', 'secret-of-the-forger'), {
    code: 'UNREACHABLE',
    message: `could not use repository "${url}": the secret access key is wrong`,
    detail: 'The store answered 403 SignatureDoesNotMatch to request N.',
    hint: 'Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the server, or its credentials file.',
    retry: 'never',
  })
  assert.deepEqual(await inspectAs('nobody'), {
    code: 'UNREACHABLE',
    message: `could not use repository "${url}": there are no credentials in profile "nobody"`,
    detail: 'Could not load credentials from any providers.',
    hint: 'Let AWS_SHARED_CREDENTIALS_FILE, in the environment that the server is started with, name a file that has them and that the server may read.',
    retry: 'never',
  })
})

test('a machine without any credentials is told where they belong', async () => {
  const file = process.env['AWS_SHARED_CREDENTIALS_FILE']
  process.env['AWS_SHARED_CREDENTIALS_FILE'] = '/nonexistent'
  try {
    const failure = await failureOf(open('any-bucket').handlers.put({ key, body }))
    assert.deepEqual(failure, {
      code: 'UNREACHABLE',
      message: `could not store "${key}" in repository "s3://any-bucket?endpoint=${ceph.endpoint}": there are no credentials`,
      detail: 'Could not load credentials from any providers.',
      hint: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE, in the environment that the server is started with, or give this machine a role.',
      retry: 'never',
    })
  } finally {
    process.env['AWS_SHARED_CREDENTIALS_FILE'] = file
  }
})

test('the permission that is missing is named, and what is missing without it is not missing', async () => {
  const bucket = await ceph.createBucket()
  const user = await ceph.createUser()
  await profiles.set({ user })
  await open(`${bucket}/wal`).handlers.put({ key, body })
  const { handlers, url } = open(`${bucket}/wal`, { more: '&profile=user' })
  const refused = (deed: string, hint: string) => ({
    code: 'UNREACHABLE',
    message: `could not ${deed} repository "${url}": access denied`,
    detail: 'The store answered 403 AccessDenied to request N.',
    hint: `Allow these credentials ${hint}`,
    retry: 'never',
  })
  const onBucket = `on "arn:aws:s3:::${bucket}"`
  const onObjects = `on "arn:aws:s3:::${bucket}/wal/*"`
  const read = refused(
    `read "${key}" in`,
    `"s3:GetObject" ${onObjects} and "s3:ListBucket" ${onBucket}: without the latter, what is missing cannot be told from what is forbidden.`,
  )
  const failure = async (request: Promise<unknown>) =>
    await failureOf(request, user.accessKey, user.secretKey)
  const get = (name = key) => handlers.get({ key: name, start: 0, bytes: 100 })

  await ceph.allow(bucket, user, ['s3:ListBucket', 's3:PutObject'])
  await handlers.inspect(undefined)
  assert.equal(await handlers.put({ key: 'a', body }), 'written')
  assert.deepEqual(await failure(get()), read)

  await ceph.allow(bucket, user, ['s3:GetObject', 's3:PutObject'])
  assert.equal((await get())?.length, content.length)
  assert.equal(await handlers.put({ key: 'b', body }), 'written')
  assert.deepEqual(await failure(handlers.inspect(undefined)), refused('use', `"s3:ListBucket" ${onBucket}.`))
  assert.deepEqual(
    await failure(handlers.list({ prefix: '', limit: 1 })),
    refused('list', `"s3:ListBucket" ${onBucket}.`),
  )
  assert.deepEqual(await failure(get('not-there')), {
    ...read,
    message: read.message.replace(key, 'not-there'),
  })

  await ceph.allow(bucket, user, ['s3:GetObject', 's3:ListBucket'])
  await handlers.inspect(undefined)
  assert.equal(await get('not-there'), undefined)
  const write = refused(`store "${key}" in`, `"s3:PutObject" ${onObjects}.`)
  assert.deepEqual(await failure(handlers.put({ key, body })), write)
  assert.deepEqual(await failure(handlers.beginUpload({ key })), write)
  assert.deepEqual(
    await failure(handlers.listUploads({})),
    refused('list unfinished uploads in', `"s3:ListBucketMultipartUploads" ${onBucket}.`),
  )
})

test('credentials that are renewed in their file are used from then on', async () => {
  const bucket = await ceph.createBucket()
  const [before, after] = [await ceph.createUser(), await ceph.createUser()]
  await ceph.setBucketPolicy(bucket, [
    {
      Effect: 'Allow',
      Principal: { AWS: [before, after].map(({ id }) => `arn:aws:iam:::user/${id}`) },
      Action: 's3:*',
      Resource: [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`],
    },
  ])
  await profiles.set({ renewed: before })
  const { handlers } = open(bucket, { more: '&profile=renewed' })
  assert.equal(await handlers.put({ key: 'a', body }), 'written')
  await ceph.suspendUser(before)
  const suspended = await failureOf(handlers.put({ key: 'b', body }), before.accessKey, before.secretKey)
  assert.equal(
    suspended.message,
    `could not store "b" in repository "s3://${bucket}?endpoint=${ceph.endpoint}": the user of the credentials is suspended`,
  )
  assert.equal(suspended.retry, 'never')
  await profiles.set({ renewed: after })
  // The refused one is the last with the old ones.
  assert.equal((await failureOf(handlers.put({ key: 'b', body }))).retry, 'again')
  assert.equal(await handlers.put({ key: 'b', body }), 'written')
})

test('credentials that are about to expire are asked for anew, while there is time', async () => {
  const bucket = await ceph.createBucket()
  const asked = `${profiles.file}-asked`
  const expiring = (ms: number) =>
    `{ \\"Version\\": 1, \\"AccessKeyId\\": \\"${ceph.accessKey}\\", \\"SecretAccessKey\\": \\"${ceph.secretKey}\\", \\"Expiration\\": \\"${new Date(Date.now() + ms).toISOString()}\\" }`
  await profiles.set({
    expiring: `credential_process = sh -c "echo x >> ${asked}; echo '${expiring(60_000)}'"`,
  })
  const { handlers } = open(bucket, { more: '&profile=expiring' })
  for (const name of ['a', 'b', 'c']) assert.equal(await handlers.put({ key: name, body }), 'written')
  assert.ok((await readFile(asked, 'utf8')).length > 2)
})

test('a command for credentials that fails is not repeated in messages', async () => {
  await profiles.set({ broken: 'credential_process = sh -c "exit 3" top-secret-argument' })
  const { handlers } = open('any-bucket', { more: '&profile=broken' })
  assert.deepEqual(await failureOf(handlers.inspect(undefined), 'top-secret-argument'), {
    code: 'UNREACHABLE',
    message: `could not use repository "s3://any-bucket?endpoint=${ceph.endpoint}": there are no credentials in profile "broken"`,
    detail: 'Could not load credentials from any providers.',
    hint: 'Let AWS_SHARED_CREDENTIALS_FILE, in the environment that the server is started with, name a file that has them and that the server may read.',
    retry: 'never',
  })
})

test('a bucket that vanishes is missed at once', async () => {
  const bucket = await ceph.createBucket()
  const { handlers } = open(bucket)
  assert.equal(await handlers.put({ key, body }), 'written')
  await ceph.removeBucket(bucket)
  for (const request of [
    () => handlers.put({ key: 'b', body }),
    () => handlers.get({ key, start: 0, bytes: 1 }),
    () => handlers.get({ key: 'b', start: 0, bytes: 1 }),
    () => handlers.list({ prefix: '', limit: 1 }),
    () => handlers.confirm({ key }),
  ]) {
    const { message, retry } = await failureOf(request())
    assert.match(message, new RegExp(`: there is no bucket "${bucket}"$`))
    assert.equal(retry, 'never')
  }
})

test('each way in which an endpoint can be wrong has its own line', async () => {
  const port = new URL(ceph.endpoint).port
  const refused = await closedPort()
  const failing = async (endpoint: string) => {
    const { message, hint, retry, code } = await failureOf(
      open('wal-bucket', { endpoint }).handlers.inspect(undefined),
    )
    return [
      message.replace(`could not use repository "s3://wal-bucket?endpoint=${endpoint}": `, ''),
      hint,
      retry,
      code,
    ]
  }
  assert.deepEqual(await failing(`http://127.0.0.1:${refused}`), [
    `"http://127.0.0.1:${refused}" refused the connection`,
    'Is the store running, and are host and port in "endpoint" right? It is tried again.',
    'again',
    'UNREACHABLE',
  ])
  assert.deepEqual(await failing(`https://127.0.0.1:${port}`), [
    `"https://127.0.0.1:${port}" does not speak TLS`,
    'Write "endpoint=http://…", or the port where it does.',
    'never',
    'UNREACHABLE',
  ])
})

test('a store is trusted by the certificate in ca_file, and only for the names in it', async () => {
  const bucket = await ceph.createBucket()
  const { secureEndpoint, mismatchedEndpoint, caFile } = ceph.address
  const ca = await readFile(caFile, 'utf8')
  const right = open(bucket, { endpoint: secureEndpoint, ca })
  assert.equal(await right.handlers.put({ key, body }), 'written')
  assert.equal((await right.handlers.get({ key, start: 0, bytes: 1 }))?.length, content.length)

  const unknown = await failureOf(open(bucket, { endpoint: secureEndpoint }).handlers.inspect(undefined))
  assert.deepEqual(unknown, {
    code: 'SETTINGS',
    message: `could not use repository "s3://${bucket}?endpoint=${secureEndpoint}": the certificate of "${secureEndpoint}" is signed by nobody who is trusted here`,
    detail: 'Unable to verify the first certificate.',
    hint: 'Let "ca_file" in "pgarchivist.repository" name the file with the certificate of whoever signed it.',
    retry: 'never',
  })
  const mismatched = await failureOf(
    open(bucket, { endpoint: mismatchedEndpoint, ca }).handlers.inspect(undefined),
  )
  assert.deepEqual(mismatched, {
    code: 'SETTINGS',
    message: `could not use repository "s3://${bucket}?endpoint=${mismatchedEndpoint}": the certificate of "${mismatchedEndpoint}" is for another host`,
    detail:
      "Hostname/IP does not match certificate's altnames: IP: 127.0.0.2 is not in the cert's list: 127.0.0.1.",
    hint: 'Write the host in "endpoint" as the certificate names it.',
    retry: 'never',
  })
  const plain = await failureOf(
    open(bucket, { endpoint: secureEndpoint.replace('https:', 'http:') }).handlers.inspect(undefined),
  )
  assert.match(plain.message, /: the connection to "http:.*" failed$/)
  assert.deepEqual(
    [plain.hint, plain.retry],
    [
      'Check the network, and whether the store wants "endpoint=https://…" there; it is tried again.',
      'again',
    ],
  )
})

test('buckets can be part of the name of the host, and HTTP_PROXY is used', async () => {
  const bucket = await ceph.createBucket()
  await using proxy = await Proxy.begin()
  const { port } = new URL(ceph.endpoint)
  const endpoint = `http://localhost:${port}`
  const environment = { HTTP_PROXY: proxy.url }
  const { handlers } = open(bucket, { endpoint, more: '&path_style=off', environment })
  assert.equal(await handlers.put({ key, body }), 'written')
  assert.deepEqual(proxy.hosts, [`${bucket}.localhost:${port}`])
})

test('a bucket under Object Lock takes objects, once each, and in parts', async () => {
  const bucket = await ceph.createBucket(undefined, { objectLock: true })
  const rule =
    '<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>'
  const { status } = await ceph.request({
    method: 'PUT',
    path: `/${bucket}`,
    query: { 'object-lock': '' },
    body: rule,
  })
  assert.equal(status, 200)
  const { handlers } = open(bucket)
  assert.equal(await handlers.put({ key, body }), 'written')
  assert.equal(await handlers.put({ key, body }), 'exists')
  const upload = await handlers.beginUpload({ key: 'b' })
  const parts = [await handlers.putPart({ key: 'b', upload, part: 1, start: 0, body })]
  assert.equal(await handlers.endUpload({ key: 'b', upload, parts, length: content.length }), 'written')
  const locked = await ceph.request({ method: 'GET', path: `/${bucket}/${key}`, query: { retention: '' } })
  assert.match(locked.body, /GOVERNANCE/)
})

test('tags and storage class are stored with the object', async () => {
  const bucket = await ceph.createBucket()
  const { handlers } = open(bucket, { more: '&tags=team%3Ddb%26kind%3Dwal&storage_class=STANDARD' })
  assert.equal(await handlers.put({ key, body }), 'written')
  const { body: tags } = await ceph.request({ path: `/${bucket}/${key}`, query: { tagging: '' } })
  assert.match(tags, /<Key>kind<\/Key><Value>wal<\/Value>.*<Key>team<\/Key><Value>db<\/Value>/)
})

test('a storage class that the store does not have is named', async () => {
  const { handlers } = open(await ceph.createBucket(), { more: '&storage_class=NOWHERE' })
  const { message, hint } = await failureOf(handlers.put({ key, body }))
  assert.match(message, /: the store refused it \(InvalidArgument\)$/)
  assert.equal(hint, 'Can it do what "storage_class" in the URL asks for?')
})

test('the store encrypts with the key that is named, and says so where it cannot', async () => {
  const bucket = await ceph.createBucket()
  const { secureEndpoint: endpoint, caFile } = ceph.address
  const ca = await readFile(caFile, 'utf8')
  const encrypted = open(bucket, { endpoint, ca, more: `&sse=aws:kms&kms_key_id=${ceph.kmsKeyId}` })
  assert.equal(await encrypted.handlers.put({ key, body }), 'written')
  assert.equal(
    (await encrypted.handlers.get({ key, start: 0, bytes: 100 }))?.bytes.toString(),
    content.toString(),
  )
  const { headers } = await ceph.request({ path: `/${bucket}/${key}` }, { endpoint, ca })
  assert.equal(headers['x-amz-server-side-encryption-aws-kms-key-id'], ceph.kmsKeyId)
  // Ceph refuses to do so over a connection that others could listen to.
  const { handlers } = open(bucket, { more: '&sse=AES256' })
  const { message, hint } = await failureOf(handlers.put({ key, body }))
  assert.match(message, /: the store refused it \(InvalidArgument\)$/)
  assert.equal(hint, 'Can it do what "sse" in the URL asks for?')
})

test('a proxy in the environment is used, and its refusal told', async () => {
  const bucket = await ceph.createBucket()
  await using proxy = await Proxy.begin()
  const { secureEndpoint, caFile } = ceph.address
  const ca = await readFile(caFile, 'utf8')
  const environment = { HTTPS_PROXY: proxy.url.replace('//', '//user:proxy-password@') }
  const through = open(bucket, { endpoint: secureEndpoint, ca, environment })
  assert.equal(await through.handlers.put({ key, body }), 'written')
  assert.equal(proxy.hosts.length, 1)
  const around = open(bucket, {
    endpoint: secureEndpoint,
    ca,
    environment: { ...environment, NO_PROXY: '127.0.0.1' },
  })
  assert.equal(await around.handlers.put({ key, body }), 'exists')
  assert.equal(proxy.hosts.length, 1)
  proxy.refuses = true
  const refused = open(bucket, { endpoint: secureEndpoint, ca, environment })
  const failure = await failureOf(refused.handlers.put({ key, body }), 'proxy-password')
  assert.deepEqual(failure, {
    code: 'UNREACHABLE',
    message: `could not store "${key}" in repository "s3://${bucket}?endpoint=${secureEndpoint}": the proxy did not let us through to "${secureEndpoint}"`,
    detail: undefined,
    hint: 'Correct HTTPS_PROXY, or name the host in NO_PROXY.',
    retry: 'again',
  })
})

test('a request that is aborted ends with the reason, whatever the store does', async () => {
  const server = createServer(() => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  const { handlers } = open('silent-bucket', { endpoint: `http://127.0.0.1:${port}` })
  const abort = new AbortController()
  server.once('connection', () => abort.abort(new Error('enough')))
  await assert.rejects(async () => handlers.put({ key, body }, abort.signal), new Error('enough'))
  await assert.rejects(async () => handlers.put({ key, body }, abort.signal), new Error('enough'))
  server.close()
})

async function closedPort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  server.close()
  await once(server, 'close')
  return port
}

/** Hands bytes over in both directions, and changes some of them on their way to the store. */
class Alteration implements AsyncDisposable {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  static async begin(store: URL): Promise<Alteration> {
    const server = createServer(client => {
      const upstream = connect(Number(store.port), store.hostname)
      upstream.pipe(client)
      client.on('data', chunk =>
        upstream.write(Buffer.from(chunk.toString('latin1').replace('WRONG', 'wrong'), 'latin1')),
      )
      client.on('close', () => upstream.destroy()).on('error', () => upstream.destroy())
      upstream.on('close', () => client.destroy()).on('error', () => client.destroy())
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Alteration(server)
  }

  get endpoint(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
  }
}

/** What HTTP_PROXY and HTTPS_PROXY name: it connects to where it is told to on loopback, or refuses. */
class Proxy implements AsyncDisposable {
  readonly #server: HttpServer
  readonly #sockets = new Set<Duplex>()
  /** Those that it was asked to connect to. */
  readonly hosts: string[] = []
  refuses = false

  private constructor(server: HttpServer) {
    this.#server = server
    server.on('connect', ({ url = '' }, client) => this.#tunnel(url, client))
    server.on('request', (request, answer) => this.#forward(request, answer))
  }

  static async begin(): Promise<Proxy> {
    const server = createHttpServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Proxy(server)
  }

  get url(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`
  }

  #tunnel(host: string, client: Duplex): void {
    this.#sockets.add(client)
    client.on('error', () => {})
    if (this.refuses) return void client.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    this.hosts.push(host)
    const { port } = new URL(`http://${host}`)
    const store = connect(Number(port), '127.0.0.1', () => client.write('HTTP/1.1 200 OK\r\n\r\n'))
    store.on('error', () => client.destroy())
    store.pipe(client).pipe(store)
  }

  #forward(request: IncomingMessage, answer: ServerResponse): void {
    const { host, port, pathname, search } = new URL(request.url ?? '')
    this.hosts.push(host)
    const { method, headers } = request
    const path = `${pathname}${search}`
    const forwarded = httpRequest({ host: '127.0.0.1', port, method, path, headers, agent: false }, reply => {
      answer.writeHead(reply.statusCode ?? 0, reply.headers)
      reply.pipe(answer)
    })
    request.pipe(forwarded)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}
