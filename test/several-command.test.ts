// The commands, with several repositories.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { realFiles } from '../src/system/real-files.ts'
import { noise } from './support/coded-bytes.ts'
import { FilledRepository, segments } from './support/filled-repository.ts'
import { S3Profiles } from './support/s3-profiles.ts'
import { temporaryDirectory } from './support/unprivileged.ts'
import { anySystemIdentifier } from './support/wal-segment.ts'

const launcher = new URL('../bin/pgarchivist', import.meta.url).pathname
const names = segments(1, 1, 3)

interface Ended {
  status: number
  stdout: string
  stderr: string
}

async function pgarchivist(...args: string[]): Promise<Ended> {
  const run = promisify(execFile)(launcher, args, { cwd: '/' })
  return await run.then(
    ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
    (thrown: { code: number; stdout: string; stderr: string }) => ({ ...thrown, status: thrown.code }),
  )
}

async function stage() {
  const directory = await temporaryDirectory()
  const at = (name: string) => join(directory.path, name)
  for (const name of ['one', 'two', 'out']) await mkdir(at(name))
  const one = new FilledRepository(realFiles, at('one'))
  await one.archive(names)
  const list = ['--repository', `file://${at('one')},file://${at('two')}`]
  const cluster = ['--system-identifier', anySystemIdentifier]
  return { at, one, list, cluster, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() }
}

test('catch-up fills a new repository with the very objects, once, and tells it before with --dry-run', async () => {
  await using it = await stage()
  const two = new FilledRepository(realFiles, it.at('two'))
  const dry = await pgarchivist('catch-up', ...it.list, ...it.cluster, '--dry-run', '--output', 'json')
  assert.equal(dry.status, 1, dry.stderr)
  const told = JSON.parse(dry.stdout) as { repositories: Array<{ lacking: number; copied: number }> }
  assert.deepEqual(
    told.repositories.map(({ lacking, copied }) => [lacking, copied]),
    [
      [0, 0],
      [3, 0],
    ],
  )
  const done = await pgarchivist('catch-up', ...it.list, ...it.cluster)
  assert.equal(done.status, 0, done.stderr)
  assert.match(done.stderr, /^pgarchivist: began a new repository at "file:\S+two", with id /)
  assert.match(done.stdout, /two" lacks 3 that others have, 3 copied/)
  for (const name of names) {
    assert.deepEqual(await readFile(two.pathOf(name)), await readFile(it.one.pathOf(name)))
  }
  const again = await pgarchivist('catch-up', ...it.list, ...it.cluster)
  assert.match(again.stdout, /two" lacks 0 that others have, 0 copied/)
})

test('catch-up ends with 1 where a name has other content of the same length, be it a segment', async () => {
  await using it = await stage()
  await pgarchivist('catch-up', ...it.list, ...it.cluster)
  const [name = ''] = segments(1, 9, 9)
  await it.one.archive([name], { content: noise(500, 1) })
  await new FilledRepository(realFiles, it.at('two')).archive([name], { content: noise(500, 2) })
  const { status, stdout } = await pgarchivist('catch-up', ...it.list, ...it.cluster)
  assert.equal(status, 1)
  assert.match(stdout, /0000009.pgarchivist" has other content in "file:\S+one" and "file:\S+two"/)
})

test('catch-up needs several, and ends with 2 where one cannot be reached', async () => {
  await using it = await stage()
  const alone = await pgarchivist('catch-up', '--repository', `file://${it.at('one')}`, ...it.cluster)
  assert.deepEqual(
    [alone.status, alone.stderr],
    [
      2,
      'pgarchivist: "pgarchivist.repository" names one repository only. Name several, separated by commas: each is brought up to date from the others.\n',
    ],
  )
  const many = await pgarchivist('catch-up', ...it.list, ...it.cluster, '--jobs', '65')
  assert.equal(many.status, 2)
  assert.match(many.stderr, /argument '65' is invalid. It has to be a number from 1 to 64.\n/)
  await rename(it.at('two'), it.at('away'))
  const { status, stdout } = await pgarchivist('catch-up', ...it.list, ...it.cluster)
  assert.equal(status, 2)
  assert.match(stdout, /two" lacks 0 .*not all of it could be compared: could not open repository directory/)
})

/** As a store that speaks S3 and takes no notice of conditions: each object replaces the one before. */
async function replacingStore() {
  const objects = new Map<string, Buffer>()
  const respond = async (request: IncomingMessage, answer: ServerResponse) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://store')
    const body = await buffer(request)
    const key = pathname.slice('/bucket/'.length)
    const xml = (text: string) => answer.writeHead(200, { 'content-type': 'application/xml' }).end(text)
    if (request.method === 'PUT') {
      objects.set(key, body)
      answer.writeHead(200, { etag: '"tag"' }).end()
    } else if (searchParams.has('list-type')) {
      const prefix = searchParams.get('prefix') ?? ''
      const keys = [...objects.keys()].filter(each => each.startsWith(prefix)).sort()
      const contents = keys.map(
        each => `<Contents><Key>${each}</Key><Size>${objects.get(each)?.length}</Size></Contents>`,
      )
      xml(`<ListBucketResult><IsTruncated>false</IsTruncated>${contents.join('')}</ListBucketResult>`)
    } else if (searchParams.has('uploads')) {
      xml('<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>')
    } else if (objects.has(key)) {
      const object = objects.get(key) ?? body
      const [, start = 0, end = 0] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
      const piece = object.subarray(Number(start), Number(end) + 1)
      const range = `bytes ${start}-${Number(start) + piece.length - 1}/${object.length}`
      answer.writeHead(206, { 'content-range': range, 'content-length': piece.length }).end(piece)
    } else {
      answer.writeHead(404).end('<Error><Code>NoSuchKey</Code></Error>')
    }
  }
  const server = createServer((request, answer) => void respond(request, answer))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: `s3://bucket/wal?endpoint=${endpoint}`,
    objects,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

test('catch-up names a store that replaces what is there, before it copies to it', async () => {
  await using it = await stage()
  await using store = await replacingStore()
  await using profiles = await S3Profiles.begin()
  await profiles.set({ default: { accessKey: 'AKIDOFTHETEST', secretKey: 'secret-of-the-test' } })
  const list = ['--repository', `file://${it.at('one')},${store.url}`]
  const { status, stderr } = await pgarchivist('catch-up', ...list, ...it.cluster)
  assert.equal(status, 0, stderr)
  assert.match(
    stderr,
    /^pgarchivist: repository "s3:\S+" cannot keep two servers from archiving different files under one name\. .* Let one server only archive to it, /m,
  )
  assert.equal(store.objects.size, names.length + 1)
})

test('verify looks at each of them, and tells what one lacks that another one has', async () => {
  await using it = await stage()
  await pgarchivist('catch-up', ...it.list, ...it.cluster)
  const right = await pgarchivist('verify', ...it.list, '--output', 'json')
  assert.equal(right.status, 0, right.stdout)
  const last = names.at(-1) ?? ''
  await rm(new FilledRepository(realFiles, it.at('two')).pathOf(last))
  const { status, stdout } = await pgarchivist('verify', ...it.list)
  assert.equal(status, 1)
  assert.match(stdout, /3 WAL files compared in 2 repositories\n.*one" lacks 0 .*\n.*two" lacks 1 /)
})

test('archive-get takes a file from whichever has it, and ends with 1 only where all say no', async () => {
  await using it = await stage()
  await pgarchivist('catch-up', ...it.list, ...it.cluster)
  const get = (name: string) => pgarchivist('archive-get', name, it.at('out/file'), ...it.list, ...it.cluster)
  const [first = ''] = names
  assert.equal((await get('0000000100000000000000FF')).status, 1)
  await writeFile(it.one.pathOf(first), 'damaged')
  const healed = await get(first)
  assert.equal(healed.status, 0)
  assert.match(healed.stderr, /was taken from repository "file:\S+two", because .*one" is damaged/)
  await rename(it.at('one'), it.at('away'))
  assert.equal((await get(first)).status, 0)
  const unclear = await get('0000000100000000000000FF')
  assert.equal(unclear.status, 201)
  assert.match(unclear.stderr, /could not open|there is no repository/)
})
