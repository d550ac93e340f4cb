// Requests to a real Azurite, and what becomes of each mistake: told apart, in one line, with the remedy, without a
// secret. What Azurite never says is said by a server of our own.

import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { ContainerClient, ContainerSASPermissions, StorageSharedKeyCredential } from '@azure/storage-blob'
import { walSource } from '../src/modules/repository.ts'
import { Repository } from '../src/repository/repository.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import type { AzureDriver, AzureDriverOptions } from '../src/repository/store/azure/azure-driver.ts'
import { RequestError } from '../src/repository/store/request-error.ts'
import { verify } from '../src/repository/verify.ts'
import { realClock } from '../src/system/clock.ts'
import { realFiles } from '../src/system/real-files.ts'
import { azureDriver, azureStore } from './support/azure-store.ts'
import { archiveOptions } from './support/repository-stage.ts'
import { RunningAzurite } from './support/running-azurite.ts'
import { temporaryDirectory } from './support/unprivileged.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

let azurite: RunningAzurite

before(async () => {
  azurite = await RunningAzurite.start()
})
after(async () => await azurite?.stop())

const key = '1/wal/00000001/00000000/000000010000000000000001.pgarchivist'
const body = [Buffer.from('twenty-'), Buffer.from('three bytes, ok.')]
const content = Buffer.concat(body)
const otherKey = randomBytes(64).toString('base64')

function open(
  place: string,
  environment: NodeJS.ProcessEnv = { AZURE_STORAGE_KEY: azurite.key },
  { endpoint = azurite.endpoint, ...options }: Partial<AzureDriverOptions> & { endpoint?: string } = {},
): AzureDriver {
  return azureDriver(`azure://${place}?account=archive&endpoint=${endpoint}`, environment, options)
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
  assert.ok(thrown instanceof RepositoryError, inspect(thrown))
  const everything = inspect(thrown, { depth: 20, showHidden: true })
  for (const secret of [azurite.key, otherKey, ...secrets])
    assert.ok(!everything.includes(secret), everything)
  assert.doesNotMatch(everything, /sig=(?!")|SharedKey |authorization:/i)
  const { code, message, hint } = thrown
  const detail = thrown.detail?.replace(/to request [\w-]+/, 'to request N')
  return { code, message, detail, hint, retry: thrown instanceof RequestError ? thrown.retry : 'never' }
}

/** Answers everything in one way. */
async function answering(status: number, code: string | undefined, headers: Record<string, string> = {}) {
  return await answeringAs((request, response) => {
    request.resume()
    request.on('end', () => {
      response.writeHead(status, { ...headers, ...(code !== undefined && { 'x-ms-error-code': code }) })
      response.end()
    })
  })
}

async function answeringAs(answer: RequestListener) {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/archive`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

test('an object is stored once, and comes back in pieces', async () => {
  await using driver = open(`${await azurite.createContainer()}/a/b`)
  const { handlers } = driver
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
})

test('two who store one object in parts do not mix them, and the second one is told that there is one', async () => {
  const container = await azurite.createContainer()
  await using first = open(container)
  await using second = open(container)
  const upload = async ({ handlers }: AzureDriver, text: string) => {
    const name = await handlers.beginUpload({ key })
    const parts = [
      await handlers.putPart({ key, upload: name, part: 1, start: 0, body: [Buffer.from(`${text} one `)] }),
      await handlers.putPart({ key, upload: name, part: 2, start: 9, body: [Buffer.from(`${text} two`)] }),
    ]
    return { key, upload: name, parts, length: 17 }
  }
  const [one, two] = [await upload(first, 'first'), await upload(second, 'other')]
  const { uploads } = await second.handlers.listUploads({})
  assert.deepEqual(uploads.map(each => each.upload).toSorted(), [one.upload, two.upload].toSorted())
  assert.equal(await first.handlers.endUpload(one), 'written')
  // Its answer was lost, and it comes again.
  assert.equal(await first.handlers.endUpload(one), 'exists')
  assert.equal(await second.handlers.endUpload(two), 'exists')
  const stored = await second.handlers.get({ key, start: 0, bytes: 100 })
  assert.equal(stored?.bytes.toString(), 'first one first two')
  assert.deepEqual(await second.handlers.listUploads({}), { uploads: [], next: undefined })
})

test('parts that are gone are an error where no object is there', async () => {
  await using driver = open(await azurite.createContainer())
  const { handlers } = driver
  const upload = await handlers.beginUpload({ key })
  const parts = [await handlers.putPart({ key, upload, part: 1, start: 0, body })]
  const never = `${parts[0]?.slice(0, -8) ?? ''}${Buffer.from('-00002').toString('base64')}`
  const failure = await failureOf(handlers.endUpload({ key, upload, parts: [...parts, never], length: 46 }))
  assert.equal(
    failure.message,
    `could not store "${key}" in repository "${driver.url}": the store has lost its parts`,
  )
  assert.equal(await handlers.get({ key, start: 0, bytes: 1 }), undefined)
})

test('pages follow one another, also for who does not know where the last one ended', async () => {
  const container = await azurite.createContainer()
  await using driver = open(`${container}/p`)
  const keys = ['1/a', '1/b', '1/c', '1/d', '2/a']
  for (const each of ['', ...keys]) await driver.handlers.put({ key: each, body })
  await using other = open(`${container}/p`)
  for (const { handlers } of [driver, other]) {
    const seen: string[] = []
    for (let after: string | undefined = handlers === other.handlers ? '1/a' : undefined; ; ) {
      const { objects, isLast } = await handlers.list({ prefix: '1/', after, limit: 2 })
      seen.push(...objects.map(each => each.key))
      if (isLast) break
      after = objects.at(-1)?.key
    }
    assert.deepEqual(seen, handlers === other.handlers ? ['1/b', '1/c', '1/d'] : keys.slice(0, 4))
  }
})

test('a container that is not there is told from an object that is not', async () => {
  await using driver = open('no-such-container/wal')
  const expected = (deed: string) => ({
    code: 'UNREACHABLE',
    message: `could not ${deed} repository "${driver.url}": there is no container "no-such-container" in account "archive"`,
    detail: 'The store answered 404 ContainerNotFound to request N: The specified container does not exist.',
    hint: 'Make it, or correct "pgarchivist.repository": a container is never made for you.',
    retry: 'never',
  })
  const { handlers } = driver
  assert.deepEqual(await failureOf(handlers.inspect(undefined)), expected('use'))
  assert.deepEqual(await failureOf(handlers.get({ key, start: 0, bytes: 1 })), expected(`read "${key}" in`))
  assert.deepEqual(await failureOf(handlers.put({ key, body })), expected(`store "${key}" in`))
  assert.deepEqual(await failureOf(handlers.list({ prefix: '1/', limit: 1 })), expected('list "1/" in'))
})

test('a wrong key, and a key that is none', async () => {
  const container = await azurite.createContainer()
  await using driver = open(container, { AZURE_STORAGE_KEY: otherKey })
  const could = `could not use repository "${driver.url}": `
  // Azurite has the word of a firewall for it.
  assert.deepEqual(await failureOf(driver.handlers.inspect(undefined)), {
    code: 'UNREACHABLE',
    message: `${could}access denied`,
    detail: 'The store answered 403 AuthorizationFailure to request N.',
    hint: 'Is this machine allowed in the firewall of account "archive", under "Networking"? Are AZURE_STORAGE_KEY or AZURE_STORAGE_CONNECTION_STRING right?',
    retry: 'never',
  })
  await using store = await answering(403, 'AuthenticationFailed')
  await using driverOfAzure = open(container, { AZURE_STORAGE_KEY: otherKey }, store)
  assert.deepEqual(await failureOf(driverOfAzure.handlers.inspect(undefined)), {
    code: 'UNREACHABLE',
    message: `could not use repository "${driverOfAzure.url}": the key of account "archive" is wrong`,
    detail: 'The store answered 403 AuthenticationFailed.',
    hint: 'Correct AZURE_STORAGE_KEY or AZURE_STORAGE_CONNECTION_STRING in the environment of the server, and start it again: was the key rotated?',
    retry: 'never',
  })
  const cases: Array<[NodeJS.ProcessEnv, string]> = [
    [{ AZURE_STORAGE_KEY: 'not!a!key' }, 'AZURE_STORAGE_KEY holds no account key'],
    [{ AZURE_STORAGE_SAS_TOKEN: 'hush' }, 'AZURE_STORAGE_SAS_TOKEN is no SAS token'],
    [{ AZURE_STORAGE_CONNECTION_STRING: 'hush' }, 'AZURE_STORAGE_CONNECTION_STRING is no connection string'],
    [
      { AZURE_STORAGE_CONNECTION_STRING: 'AccountName=archive' },
      'AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature',
    ],
    [
      { AZURE_STORAGE_CONNECTION_STRING: `AccountName=else;AccountKey=${otherKey}` },
      'AZURE_STORAGE_CONNECTION_STRING is for account "else", not for "archive"',
    ],
  ]
  for (const [environment, what] of cases) {
    await using wrong = open(container, environment)
    const { code, message } = await failureOf(wrong.handlers.inspect(undefined), 'not!a!key', 'hush')
    assert.deepEqual([code, message], ['SETTINGS', `${could}${what}`])
  }
})

test('a connection string is enough', async () => {
  const container = await azurite.createContainer()
  await using driver = azureDriver(`azure://${container}`, {
    AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString,
  })
  assert.equal(await driver.handlers.put({ key, body }), 'written')
})

test('a SAS token that has expired, that may not write, that may do all', async () => {
  const container = await azurite.createContainer()
  const client = new ContainerClient(
    `${azurite.endpoint}/${container}`,
    new StorageSharedKeyCredential('archive', azurite.key),
  )
  const tokenFor = async (permissions: string, expiresOn: string) =>
    (
      await client.generateSasUrl({
        permissions: ContainerSASPermissions.parse(permissions),
        expiresOn: new Date(expiresOn),
      })
    ).split('?')[1] ?? ''
  const as = (token: string) => open(container, { AZURE_STORAGE_SAS_TOKEN: token })
  const signatureOf = (token: string) => new URLSearchParams(token).get('sig') ?? 'none'

  const all = await tokenFor('rcwl', '2100-01-01T00:00:00Z')
  await using allowed = as(all)
  await allowed.handlers.inspect(undefined)
  assert.equal(await allowed.handlers.put({ key, body }), 'written')

  const old = await tokenFor('rcwl', '2026-01-02T03:04:05Z')
  await using late = as(old)
  assert.deepEqual(await failureOf(late.handlers.inspect(undefined), signatureOf(old)), {
    code: 'UNREACHABLE',
    message: `could not use repository "${late.url}": the SAS token has expired at 2026-01-02T03:04:05Z`,
    detail: 'The store answered 403 AuthorizationFailure to request N.',
    hint: 'Make a new one, set AZURE_STORAGE_SAS_TOKEN in the environment of the server, and start it again.',
    retry: 'never',
  })

  const reader = await tokenFor('rl', '2100-01-01T00:00:00Z')
  await using reading = as(reader)
  assert.deepEqual(await failureOf(reading.handlers.put({ key: 'new', body }), signatureOf(reader)), {
    code: 'UNREACHABLE',
    message: `could not store "new" in repository "${reading.url}": access denied`,
    detail: 'The store answered 403 AuthorizationPermissionMismatch to request N.',
    hint: 'Make a SAS token for the container with the permissions to create (c) and to write (w).',
    retry: 'never',
  })
})

test('where nothing answers, where there is no account, and where something else answers', async () => {
  await using nobody = open('wal-container', undefined, { endpoint: 'http://127.0.0.1:1/archive' })
  assert.deepEqual(await failureOf(nobody.handlers.inspect(undefined)), {
    code: 'UNREACHABLE',
    message: `could not use repository "${nobody.url}": "http://127.0.0.1:1/archive" refused the connection`,
    detail: undefined,
    hint: 'Is the store running, and are host and port in "endpoint" right? It is tried again.',
    retry: 'again',
  })
  await using web = await answering(404, undefined)
  await using lost = open('wal-container', undefined, web)
  for (const request of [lost.handlers.inspect(undefined), lost.handlers.get({ key, start: 0, bytes: 1 })]) {
    const { message, retry } = await failureOf(request)
    assert.match(message, / what answers at "http:\/\/127\.0\.0\.1:\d+\/archive" is no Azure Blob Storage$/)
    assert.equal(retry, 'never')
  }
})

test('what a store says is told apart', async () => {
  const cases: Array<[status: number, code: string | undefined, what: string, retry: string]> = [
    [503, 'ServerBusy', 'the store has too much to do', 'slow down'],
    [503, undefined, 'the store has too much to do', 'slow down'],
    [429, 'TooManyRequests', 'the store has too much to do', 'slow down'],
    [500, 'InternalError', 'the store had a failure of its own', 'again'],
    [500, 'OperationTimedOut', 'the store had a failure of its own', 'again'],
    [400, 'Md5Mismatch', 'the store had a failure of its own', 'again'],
    [409, 'BlobArchived', 'it is in the archive tier, which cannot be read at once', 'never'],
    [403, 'AuthorizationFailure', 'access denied', 'never'],
    [403, 'KeyBasedAuthenticationNotPermitted', 'account "archive" does not take keys', 'never'],
    [403, 'AccountIsDisabled', 'account "archive" is disabled', 'never'],
    [409, 'ContainerBeingDeleted', 'container "wal-container" is being deleted', 'never'],
    [404, 'ResourceNotFound', 'the store refused it (ResourceNotFound)', 'never'],
  ]
  for (const [status, code, what, retry] of cases) {
    await using store = await answering(status, code, { 'retry-after': '7' })
    await using driver = open('wal-container', undefined, store)
    const failure = await failureOf(driver.handlers.get({ key, start: 0, bytes: 1 }))
    assert.deepEqual(
      [failure.message, failure.retry],
      [`could not read "${key}" in repository "${driver.url}": ${what}`, retry],
    )
  }
})

test('an answer that is cut off, or makes no sense, is asked for again', async () => {
  const headers = { 'content-range': 'bytes 0-8/20', etag: '"1"' }
  const answers: Array<[answer: RequestListener, what: RegExp]> = [
    [
      (_, response) => {
        response.writeHead(206, { ...headers, 'content-length': 9 })
        response.write('123', () => response.destroy())
      },
      /: the connection to ".*" failed$/,
    ],
    [(_, response) => response.writeHead(206, headers).end('123456789'), /: the answer makes no sense$/],
    [
      (_, response) =>
        response.writeHead(200, { 'content-type': 'application/xml' }).end('<EnumerationResults><Bl'),
      /: what answers at ".*" is no Azure Blob Storage$/,
    ],
  ]
  for (const [answer, what] of answers) {
    await using store = await answeringAs(answer)
    await using driver = open('wal-container', undefined, store)
    const isList = what.source.includes('Azure')
    const request = isList
      ? driver.handlers.list({ prefix: '', limit: 1 })
      : driver.handlers.get({ key, start: 0, bytes: 9 })
    const { message, retry } = await failureOf(request)
    assert.match(message, what)
    assert.equal(retry, 'again', message)
  }
})

test('an object that is leased or protected is there, and whoever must replace it is told why it cannot be', async () => {
  const cases: Array<[number, string, string]> = [
    [412, 'LeaseIdMissing', 'somebody holds a lease on it'],
    [409, 'BlobImmutableDueToPolicy', 'an immutability policy or a legal hold protects it'],
  ]
  for (const [status, code, what] of cases) {
    await using store = await answering(status, code)
    await using driver = open('wal-container', undefined, store)
    assert.equal(await driver.handlers.put({ key, body }), 'exists')
    const { message } = await failureOf(driver.handlers.put({ key, body, replace: true }))
    assert.equal(message, `could not store "${key}" in repository "${driver.url}": ${what}`)
  }
})

test('with TLS, only a certificate that is trusted', async () => {
  await using secure = await RunningAzurite.start({ secure: true })
  const { endpoint } = secure
  const ca = await readFile(secure.caFile, 'utf8')
  await using driver = open('wal-container', { AZURE_STORAGE_KEY: secure.key }, { endpoint, ca })
  const { message } = await failureOf(driver.handlers.inspect(undefined), secure.key)
  assert.match(message, /: there is no container "wal-container" in account "archive"$/)
  await using distrusting = open('wal-container', { AZURE_STORAGE_KEY: secure.key }, { endpoint })
  const failure = await failureOf(distrusting.handlers.inspect(undefined), secure.key)
  assert.equal(failure.code, 'SETTINGS')
  assert.equal(
    failure.message,
    `could not use repository "${distrusting.url}": the certificate of "${endpoint}" is signed by nobody who is trusted here`,
  )
})

test('without a key the identity of the machine is used, and its absence is told', async () => {
  const asked: string[] = []
  await using driver = azureDriver(
    'azure://wal-container?account=archive&endpoint=https://127.0.0.1:1',
    { AZURE_CLIENT_ID: 'me', AZURE_TENANT_ID: 'tenant', AZURE_CLIENT_SECRET: 'hush-hush' },
    {
      ask: async url => {
        asked.push(url)
        return new Response('{"error":"invalid_client","error_description":"hush-hush"}', { status: 401 })
      },
    },
  )
  const { message, retry } = await failureOf(driver.handlers.put({ key, body }), 'hush-hush')
  assert.equal(
    message,
    `could not store "${key}" in repository "${driver.url}": login.microsoftonline.com gave no token of the application in AZURE_CLIENT_ID: it answered 401 invalid_client`,
  )
  assert.equal(retry, 'never')
  assert.deepEqual(asked, ['https://login.microsoftonline.com/tenant/oauth2/v2.0/token'])
})

test('WAL is archived, comes back as it was, and other content under its name is refused', async () => {
  const container = await azurite.createContainer()
  await using store = azureStore(open(`${container}/wal`))
  const repository = new Repository({
    store,
    clock: realClock,
    newId: randomUUID,
    writer: 'pgarchivist test',
    known: undefined,
  })
  const name = '000000010000000000000001'
  const content = walSegment({ name })
  await using directory = await temporaryDirectory()
  const archive = async (bytes: Buffer) => {
    const path = join(directory.path, name)
    await writeFile(path, bytes)
    await repository.archive(walSource(realFiles, name, path), archiveOptions)
  }
  const fetched = async (wanted: string) => {
    const pieces: Uint8Array[] = []
    const request = { systemIdentifier: anySystemIdentifier, name: wanted, identities: async () => [] }
    const isThere = await repository.fetch(request, async bytes => void pieces.push(bytes))
    return isThere ? Buffer.concat(pieces) : undefined
  }
  await archive(content)
  await archive(content)
  assert.deepEqual(await fetched(name), content)
  assert.equal(await fetched('000000010000000000000002'), undefined)
  const different = await failureOf(archive(walSegment({ name, seed: 2 })))
  assert.equal(different.code, 'DIFFERENT')
  assert.deepEqual(await fetched(name), content)
  const { status, objects } = await verify({
    repository,
    clock: realClock,
    jobs: 2,
    identities: async () => [],
    decode: true,
    unfinishedWrites: () => store.unfinishedWrites(Date.now()),
  })
  assert.deepEqual([status, objects], ['ok', 1])
})

test('of two servers that archive one name with different content, one wins, each time', async () => {
  const container = await azurite.createContainer()
  await using first = open(container)
  await using second = open(container)
  const rounds = 50
  for (let round = 0; round < rounds; round++) {
    const raced = `1/wal/${round}`
    const outcomes = await Promise.all(
      [first, second].map(({ handlers }, index) =>
        handlers.put({ key: raced, body: [Buffer.from(`server ${index}`)] }),
      ),
    )
    assert.deepEqual(outcomes.toSorted(), ['exists', 'written'])
    const stored = await first.handlers.get({ key: raced, start: 0, bytes: 100 })
    assert.equal(stored?.bytes.toString(), `server ${outcomes.indexOf('written')}`)
  }
})
