// One Ceph for all test files of a run, because it takes ten seconds and half a gigabyte. Node's test runner loads this
// file first and keeps it until all files are done; a test file asks it through a Unix socket, and the first one who asks
// has it started. A test file that runs without it starts a Ceph of its own.
//
// Whoever shares makes buckets and users of his own, and does nothing to the gateway that others would notice.

import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Ceph, type CephAddress, type CephDialect, RunningCeph } from './running-ceph.ts'
import { type TemporaryDirectory, temporaryDirectory } from './unprivileged.ts'

// Tells the runner's children where to ask.
const variable = 'PGARCHIVIST_TEST_CEPH'

let directory: TemporaryDirectory | undefined
let server: Server | undefined
const started = new Map<CephDialect, Promise<RunningCeph>>()

/** Called by Node's test runner before the first test file. */
export async function globalSetup(): Promise<void> {
  directory = await temporaryDirectory()
  const socket = join(directory.path, 'ceph.sock')
  server = createServer({ allowHalfOpen: true }, connection => {
    // One who was killed while waiting must not end this with him.
    connection.on('error', () => {})
    void answer(connection).then(line => connection.end(line))
  })
  server.listen(socket)
  await once(server, 'listening')
  process.env[variable] = socket
}

async function answer(connection: Socket): Promise<string> {
  try {
    const dialect = (await text(connection)) as CephDialect
    const ceph = started.get(dialect) ?? RunningCeph.start({ dialect })
    started.set(dialect, ceph)
    return JSON.stringify((await ceph).address)
  } catch (error) {
    return JSON.stringify({ error: String(error) })
  }
}

/** Called by Node's test runner when all test files are done. */
export async function globalTeardown(): Promise<void> {
  server?.close()
  for (const ceph of started.values())
    await ceph.then(
      each => each.stop(),
      () => {},
    )
  await directory?.[Symbol.asyncDispose]()
}

/** The Ceph of this run; or one that belongs to the caller, who has to dispose of it in either case. */
export async function sharedCeph(options: { dialect?: CephDialect } = {}): Promise<Ceph> {
  const socket = process.env[variable]
  if (socket === undefined) return await RunningCeph.start(options)
  const connection = connect({ path: socket, allowHalfOpen: true })
  connection.end(options.dialect ?? 'current')
  const address: CephAddress | { error: string } = JSON.parse(await text(connection))
  if ('error' in address) throw new Error(`the Ceph for this run could not be started: ${address.error}`)
  return new Ceph(address)
}
