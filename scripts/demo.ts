// npm run demo: loses a table and gets it back. A throwaway PostgreSQL archives its WAL to a repository, with our
// library in it or `pgarchivist archiver` beside it, and a second PostgreSQL is recovered from a base backup and the
// repository to the moment before the table was dropped.

import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, open, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { type PostgresServer, requiredMajors, startPostgres } from '../test/support/postgresql-server.ts'
import { buildServerLibrary } from '../test/support/server-library.ts'
import {
  checkout,
  privateDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from '../test/support/unprivileged.ts'

const usage = `Usage: npm run demo -- [--major N] [--beside]

  --major N   the PostgreSQL to show it with: ${requiredMajors.join(', ')} (default: ${Math.max(...requiredMajors)})
  --beside    run "pgarchivist archiver" beside the server, with nothing installed into it; so it is done as well
              where the server's library cannot be built
`

const waitMs = 60_000
const logTailLines = 15
const repeatedSignalMs = 1_000

const interruption = new AbortController()

const began = performance.now()

const indent = ' '.repeat(10)

const run = promisify(execFile)

// Every step is one line, and what belongs to it below, printed when it has come true.
async function step<T>(work: () => Promise<T>, describe: (result: T) => string): Promise<T> {
  interruption.signal.throwIfAborted()
  const result = await work()
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  console.log(`${seconds.padStart(6)} s  ${describe(result).replaceAll('\n', `\n${indent}`)}`)
  return result
}

async function until(what: string, condition: () => Promise<boolean>, archiver?: Archiver): Promise<void> {
  const deadline = performance.now() + waitMs
  while (!(await condition())) {
    if (archiver !== undefined && archiver.ended) throw new Error('the archiver ended too early')
    if (performance.now() > deadline) throw new Error(`waited ${waitMs / 1000} s in vain for ${what}`)
    await sleep(100, undefined, { signal: interruption.signal })
  }
}

interface Archiver extends AsyncDisposable {
  readonly ended: boolean
  stop(): Promise<number | null>
}

async function startArchiver(dataDirectory: string, repository: string, logPath: string): Promise<Archiver> {
  const launcher = join(await checkout(), 'bin/pgarchivist')
  const settings = { archive_library: 'repository', 'pgarchivist.repository': repository }
  const command = [launcher, 'archiver', '-D', dataDirectory]
  for (const [name, value] of Object.entries(settings)) command.push('-c', `${name}=${value}`)
  await using log = await open(logPath, 'a')
  // As with the servers: Ctrl-C is for the demo, which then stops the archiver, and the archiver ends with it.
  const child: ChildProcess = spawn('setpriv', ['--pdeathsig', 'TERM', ...command], {
    ...unprivileged,
    env: unprivilegedEnvironment,
    cwd: '/',
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  })
  await once(child, 'spawn')
  const ended = () => child.exitCode !== null || child.signalCode !== null
  const stop = async () => {
    if (!ended()) {
      const exit = once(child, 'exit')
      child.kill('SIGTERM')
      const patience = setTimeout(() => child.kill('SIGKILL'), 20_000)
      await exit.finally(() => clearTimeout(patience))
    }
    return child.exitCode
  }
  return {
    get ended() {
      return ended()
    },
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
    },
  }
}

interface Contents {
  rows: number
  digest: string
}

async function contents(server: PostgresServer): Promise<Contents> {
  const [row] = await server.query<{ rows: string; digest: string }>(
    `SELECT count(*) AS rows, md5(string_agg(orders::text, ',' ORDER BY number)) AS digest FROM orders`,
  )
  assert(row !== undefined)
  return { rows: Number(row.rows), digest: row.digest }
}

async function takeOrders(server: PostgresServer, count: number): Promise<void> {
  await server.query(
    `INSERT INTO orders (customer, cents) SELECT md5(n::text), n * 7 % 10000 FROM generate_series(1, $1::int) AS n`,
    [count],
  )
}

const exists = async (path: string) =>
  await access(path).then(
    () => true,
    () => false,
  )

interface Demo {
  major: number
  isBeside: boolean
  stack: AsyncDisposableStack
  logs: Map<string, () => Promise<string>>
}

/** A server whose WAL is archived to the repository at the URL; and the archiver beside it, if there is one. */
async function startArchivedServer(
  { major, isBeside, stack, logs }: Demo,
  directory: string,
  repository: string,
): Promise<{ server: PostgresServer; archiver?: Archiver }> {
  const start = async (settings: Record<string, string>) => {
    const server = stack.use(await startPostgres({ major, settings: { archive_mode: 'on', ...settings } }))
    logs.set('server', async () => await server.log())
    return server
  }

  let library: string | undefined
  try {
    if (!isBeside) library = await buildServerLibrary(major)
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split('\n')
    console.log(`${indent}The library for the server cannot be built here: ${reason}`)
  }
  if (library !== undefined) {
    // Where "pgarchivist install" puts it is the directory in which servers look by themselves.
    const ours = { archive_library: 'pgarchivist', 'pgarchivist.repository': repository }
    const path = { dynamic_library_path: `${dirname(library)}:$libdir` }
    const server = await step(
      async () => await start({ ...ours, ...path }),
      ({ socketDirectory }) =>
        `PostgreSQL ${major} runs in ${socketDirectory}, and archives by itself:\n${settingLines(ours)}`,
    )
    return { server }
  }

  const server = await step(
    async () => await start({ archive_library: '', archive_command: '' }),
    ({ socketDirectory }) => `PostgreSQL ${major} runs in ${socketDirectory}`,
  )
  const archiverLog = join(directory, 'archiver.log')
  logs.set('archiver', async () => await readFile(archiverLog, 'utf8').catch(() => ''))
  const archiver = await step(
    async () => stack.use(await startArchiver(server.dataDirectory, repository, archiverLog)),
    () =>
      `beside it runs "pgarchivist archiver":\n${settingLines({ archive_library: 'repository', 'pgarchivist.repository': repository })}`,
  )
  return { server, archiver }
}

const settingLines = (settings: Record<string, string>) =>
  Object.entries(settings)
    .map(([name, value]) => `  ${name} = '${value}'`)
    .join('\n')

async function demo(what: Demo): Promise<void> {
  const { major, stack, logs } = what
  const { path: directory } = stack.use(await temporaryDirectory())
  const launcher = join(await checkout(), 'bin/pgarchivist')
  await privateDirectory(join(directory, 'repository'))
  const repository = `file://${join(directory, 'repository')}`

  const { server, archiver } = await startArchivedServer(what, directory, repository)

  await step(
    async () => {
      await server.query(
        `CREATE TABLE orders (number serial PRIMARY KEY, customer text NOT NULL, cents int NOT NULL,
                              taken timestamptz NOT NULL DEFAULT clock_timestamp())`,
      )
      await takeOrders(server, 10_000)
    },
    () => '10,000 orders are taken',
  )

  const copy = join(directory, 'recovered')
  await step(
    // Without WAL of its own, the backup is worth nothing unless the archive is complete.
    async () => await server.baseBackup(copy, { wal: false }),
    backup => `a base backup is taken, from ${backup.startLsn} to ${backup.endLsn}`,
  )

  const before = await step(
    async () => {
      for (let hour = 0; hour < 5; hour++) {
        await takeOrders(server, 5_000)
        await server.switchWal()
      }
      return await contents(server)
    },
    ({ rows, digest }) => `business goes on: ${rows.toLocaleString('en')} orders, md5 of all rows ${digest}`,
  )

  const moment = await step(
    async () => {
      const [row] = await server.query<{ moment: string }>('SELECT clock_timestamp()::text AS moment')
      assert(row !== undefined)
      await server.query('DROP TABLE orders')
      return row.moment
    },
    time => `the table of orders is dropped by accident, just after ${time}`,
  )

  await step(
    async () => {
      await server.query('CREATE TABLE complaints AS SELECT generate_series(1, 100) AS number')
      const last = await server.switchWal()
      const done = join(server.dataDirectory, 'pg_wal/archive_status', `${last}.done`)
      await until(`"${last}" to be archived`, async () => await exists(done), archiver)
      return last
    },
    last => `all WAL up to here is archived, the last of it in ${last}`,
  )

  const recovery = {
    restore_command: `${launcher} archive-get "%f" "%p"`,
    recovery_target_time: moment,
  }
  const recovered = await step(
    async () => {
      const second = stack.use(
        await startPostgres({
          major,
          dataDirectory: copy,
          signalFile: 'recovery',
          settings: {
            archive_mode: 'off',
            'pgarchivist.repository': repository,
            recovery_target_action: 'promote',
            ...recovery,
          },
        }),
      )
      logs.set('recovered server', async () => await second.log())
      await until('recovery to end', async () => {
        const [row] = await second.query<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering')
        return row?.recovering === false
      })
      return second
    },
    () => `a second PostgreSQL is recovered to that moment:\n${settingLines(recovery)}`,
  )

  await step(
    async () => {
      const after = await contents(recovered)
      assert.deepEqual(after, before, 'the recovered orders are not those that were lost')
      const [lost] = await server.query<{ orders: string | null }>(`SELECT to_regclass('orders') AS orders`)
      assert.equal(lost?.orders, null)
      return after
    },
    ({ rows, digest }) =>
      `it has all ${rows.toLocaleString('en')} orders, md5 ${digest}: the same; the first has none`,
  )

  await step(
    async () => {
      const { stdout } = await run(launcher, ['verify', '--decode', '--repository', repository], {
        ...unprivileged,
        env: unprivilegedEnvironment,
        cwd: '/',
      })
      return stdout.split('\n').filter(line => line !== '')
    },
    report =>
      `pgarchivist verify --decode says of the repository:\n${report.map(line => `  ${line}`).join('\n')}`,
  )

  if (archiver === undefined) return
  await step(
    async () => {
      const status = await archiver.stop()
      assert.equal(status, 0, `the archiver ended with status ${status}`)
    },
    () => 'the archiver has ended cleanly',
  )
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      major: { type: 'string' },
      beside: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    return 0
  }
  const major = Number(values.major ?? Math.max(...requiredMajors))
  if (!requiredMajors.includes(major)) {
    process.stderr.write(`demo: there is no PostgreSQL "${values.major}" to show\n${usage}`)
    return 1
  }

  // The first signal ends the demo at the next step, with everything cleaned up; a later one ends it now, and the
  // kernel then stops what it started. Ctrl-C comes from the terminal and once more through npm.
  let interruptedBy: NodeJS.Signals | undefined
  let interruptedAt = 0
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (interruptedBy !== undefined && performance.now() > interruptedAt + repeatedSignalMs)
        process.exit(130)
      if (interruptedBy !== undefined) return
      interruptedBy = signal
      interruptedAt = performance.now()
      interruption.abort()
    })
  }

  const logs = new Map<string, () => Promise<string>>()
  await using stack = new AsyncDisposableStack()
  try {
    await demo({ major, isBeside: values.beside, stack, logs })
    console.log('\nNothing was lost. The demo removes its servers and files again.')
    return 0
  } catch (error) {
    if (interruptedBy !== undefined) {
      process.stderr.write(`\ndemo: interrupted by ${interruptedBy}; cleaning up\n`)
      return 130
    }
    process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : String(error)}\n`)
    for (const [name, read] of logs) {
      const tail = (await read()).trimEnd().split('\n').slice(-logTailLines)
      process.stderr.write(`\nThe log of the ${name} ends with:\n${tail.map(line => `  ${line}\n`).join('')}`)
    }
    return 1
  }
}

process.exitCode = await main()
