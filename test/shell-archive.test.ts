// archive_command: what is run, and what each way to end means. First with a shell that a test plays, then a real one.

import assert from 'node:assert/strict'
import { mkdir, readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { type LogMessage, ReportedError } from '../src/contract/error-report.ts'
import { GucRegistry } from '../src/host/guc-registry.ts'
import type { ModuleHost } from '../src/host/module-host.ts'
import { startModule } from '../src/host/start-module.ts'
import { replacePercentPlaceholders, shellArchive } from '../src/modules/shell-archive.ts'
import type { ProcessEnd, Processes } from '../src/system/processes.ts'
import { realProcesses } from '../src/system/real-processes.ts'
import { SimulatedProcesses } from '../src/system/simulated-processes.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const file = '000000010000000000000001'
const never = new AbortController().signal

interface Stage {
  host: ModuleHost
  told: string[]
  archive(signal?: AbortSignal): Promise<boolean>
}

async function stage(
  command: string,
  processes: Processes = new SimulatedProcesses(),
  dataDirectory = '/data',
): Promise<Stage> {
  const told: string[] = []
  const log = ({ level, errmsg, errdetail }: LogMessage) => {
    told.push(`${level}: ${errmsg}`)
    if (errdetail !== undefined) told.push(`DETAIL: ${errdetail}`)
  }
  const host = await startModule({
    init: shellArchive({ processes, archiveCommand: () => command }),
    facts: {
      data_directory: dataDirectory,
      server_version_num: undefined,
      system_identifier: undefined,
      wal_segment_size: undefined,
      wal_page_magic: undefined,
    },
    gucs: new GucRegistry({ log }),
    registerWorker: () => {},
    log,
  })
  return {
    host,
    told,
    archive: (signal = never) => host.archiveFile(file, `${dataDirectory}/pg_wal/${file}`, signal),
  }
}

// Placeholders

const values = { f: file, p: `pg_wal/${file}` }

test('%p is the path from the data directory, %f the name, %% a percent sign', () => {
  assert.equal(
    replacePercentPlaceholders('cp "%p" "/archive/%f" && date +%%s', values),
    `cp "pg_wal/${file}" "/archive/${file}" && date +%s`,
  )
  assert.equal(replacePercentPlaceholders('%f%f%%f%%%p', values), `${file}${file}%f%pg_wal/${file}`)
  assert.equal(replacePercentPlaceholders('true', values), 'true')
})

test('what a placeholder stands for is not looked at again', () => {
  assert.equal(replacePercentPlaceholders('%f $& $1', { f: '%p$&', p: 'x' }), '%p$& $& $1')
})

test('any other placeholder is an ERROR', () => {
  for (const letter of ['x', 'F', ' ', 'r', '\n', 'é', '😀']) {
    assert.throws(() => replacePercentPlaceholders(`cp %${letter} x`, values), {
      level: 'ERROR',
      errmsg: `invalid value for parameter "archive_command": "cp %${letter} x"`,
      errdetail: `String contains unexpected placeholder "%${letter}".`,
      errcode: '22023',
    })
  }
})

test('a placeholder is not one of the things that every object has', () => {
  assert.throws(() => replacePercentPlaceholders('%_', values), ReportedError)
})

test('a percent sign at the end is an ERROR', () => {
  assert.throws(() => replacePercentPlaceholders('cp %p 100%', values), {
    level: 'ERROR',
    errmsg: 'invalid value for parameter "archive_command": "cp %p 100%"',
    errdetail: 'String ends unexpectedly after escape character "%".',
    errcode: '22023',
  })
})

test('a command with a wrong placeholder is a failed attempt, and nothing is run', async () => {
  const processes = new SimulatedProcesses()
  processes.onShell = () => assert.fail('it was run')
  const { archive, told } = await stage('cp %x', processes)
  assert.equal(await archive(), false)
  assert.deepEqual(told, [
    'ERROR: invalid value for parameter "archive_command": "cp %x"',
    'DETAIL: String contains unexpected placeholder "%x".',
  ])
})

// Configured or not

test('it is configured when archive_command is set, and otherwise says what is missing', async () => {
  const { host } = await stage('true')
  assert.deepEqual(await host.checkConfigured(), { configured: true })
  const unset = await stage('')
  assert.deepEqual(await unset.host.checkConfigured(), {
    configured: false,
    errdetail: '"archive_command" is not set.',
  })
})

// How it may end, in the order of the table in PostgreSQL's shell_archive.c

function ending(end: ProcessEnd): SimulatedProcesses {
  const processes = new SimulatedProcesses()
  processes.onShell = async () => end
  return processes
}

test('the command runs in the data directory and is given the signal of the attempt', async () => {
  const processes = new SimulatedProcesses()
  const seen: unknown[] = []
  processes.onShell = async (command, { cwd, signal }) => {
    seen.push(command, cwd, signal)
    return { code: 0, signal: null }
  }
  const { archive } = await stage('cp %p /archive/%f', processes)
  const { signal } = new AbortController()
  await archive(signal)
  assert.deepEqual(seen.slice(0, 2), [`cp pg_wal/${file} /archive/${file}`, '/data'])
  assert.ok(seen[2] instanceof AbortSignal)
})

test('status 0 is success', async () => {
  const { archive, told } = await stage('store %f', ending({ code: 0, signal: null }))
  assert.equal(await archive(), true)
  assert.deepEqual(told, [
    `DEBUG3: executing archive command "store ${file}"`,
    `DEBUG1: archived write-ahead log file "${file}"`,
  ])
})

test('status 1 to 125 is a failed attempt with a LOG line', async () => {
  for (const code of [1, 2, 64, 124, 125]) {
    const { archive, told } = await stage('store %f', ending({ code, signal: null }))
    assert.equal(await archive(), false)
    assert.deepEqual(told.slice(1), [
      `LOG: archive command failed with exit code ${code}`,
      `DETAIL: The failed archive command was: store ${file}`,
    ])
  }
})

test('a status above 125 says that the next file would fare no better: FATAL', async () => {
  for (const code of [126, 127, 128, 129, 143, 255]) {
    const { archive } = await stage('store %f', ending({ code, signal: null }))
    await assert.rejects(archive(), {
      level: 'FATAL',
      errmsg: `archive command failed with exit code ${code}`,
      errdetail: `The failed archive command was: store ${file}`,
    })
  }
})

test('a shell that a signal ended is FATAL, with the number of the signal and its text', async () => {
  const signals: Array<[NodeJS.Signals, string]> = [
    ['SIGTERM', '15: Terminated'],
    ['SIGKILL', '9: Killed'],
    ['SIGSEGV', '11: Segmentation fault'],
    ['SIGINT', '2: Interrupt'],
  ]
  for (const [signal, shown] of signals) {
    const { archive } = await stage('store %f', ending({ code: null, signal }))
    await assert.rejects(archive(), {
      level: 'FATAL',
      errmsg: `archive command was terminated by signal ${shown}`,
      errdetail: `The failed archive command was: store ${file}`,
    })
  }
})

test('a shell that could not be started is a failed attempt that says why', async () => {
  const processes = new SimulatedProcesses()
  processes.onShell = async () => {
    throw Object.assign(new Error('spawn /bin/sh ENOMEM'), { code: 'ENOMEM', errno: -12 })
  }
  const { archive, told } = await stage('store %f', processes)
  assert.equal(await archive(), false)
  assert.deepEqual(told.slice(1), ['ERROR: could not execute archive command: Cannot allocate memory'])
})

test('the end of the archiver is told to those who debug', async () => {
  const { host, told } = await stage('true')
  assert.equal(await host.shutdown(), true)
  assert.deepEqual(told, ['DEBUG1: archiver process shutting down'])
})

// With a real shell

async function realStage(command: string) {
  const directory = await temporaryDirectory()
  const data = await realpath(directory.path)
  await mkdir(join(data, 'pg_wal'))
  await writeFile(join(data, 'pg_wal', file), 'content')
  const staged = await stage(command, realProcesses, data)
  return { ...staged, data, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() }
}

test('a real command copies the file by its relative path', async () => {
  await using it = await realStage('test ! -f archived-%f && cp %p archived-%f && pwd >where')
  assert.equal(await it.archive(), true)
  assert.equal(await readFile(join(it.data, `archived-${file}`), 'utf8'), 'content')
  assert.equal(await readFile(join(it.data, 'where'), 'utf8'), `${it.data}\n`)
})

test('a real command ends in all of these ways', async () => {
  const failed: Array<[string, string]> = [
    ['exit 1', 'archive command failed with exit code 1'],
    ['exit 125', 'archive command failed with exit code 125'],
    ['false', 'archive command failed with exit code 1'],
  ]
  for (const [command, errmsg] of failed) {
    await using it = await realStage(command)
    assert.equal(await it.archive(), false)
    assert.deepEqual(it.told.slice(1), [
      `LOG: ${errmsg}`,
      `DETAIL: The failed archive command was: ${command}`,
    ])
  }
  const fatal: Array<[string, string]> = [
    ['exit 126', 'archive command failed with exit code 126'],
    ['./not-there 2>not-shown', 'archive command failed with exit code 127'],
    ['./pg_wal 2>not-shown', 'archive command failed with exit code 126'],
    ['kill -TERM $$', 'archive command was terminated by signal 15: Terminated'],
    ['kill -KILL $$', 'archive command was terminated by signal 9: Killed'],
  ]
  for (const [command, errmsg] of fatal) {
    await using it = await realStage(command)
    await assert.rejects(it.archive(), {
      level: 'FATAL',
      errmsg,
      errdetail: `The failed archive command was: ${command}`,
    })
  }
})

test('a real command reads nothing', async () => {
  await using it = await realStage('cat >read')
  assert.equal(await it.archive(), true)
  assert.equal(await readFile(join(it.data, 'read'), 'utf8'), '')
})

test('a real command that nobody waits for any more is asked to end, with what it started', async () => {
  const abort = new AbortController()
  await using it = await realStage('trap "" INT; mkfifo never; echo >began; cat never | cat')
  const ended = it.archive(abort.signal)
  // The shell has begun when its fifo is there to be opened; nothing but the signal ends what waits for a writer.
  while ((await readFile(join(it.data, 'began'), 'utf8').catch(() => '')) === '') {
    await new Promise(resolve => {
      setTimeout(resolve, 5)
    })
  }
  abort.abort()
  await assert.rejects(ended, { errmsg: 'archive command was terminated by signal 15: Terminated' })
})
