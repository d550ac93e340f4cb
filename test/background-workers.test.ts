import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { BackgroundWorker } from '../src/contract/background-worker.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import { messagesInFlightMax } from '../src/host/background-worker-main.ts'
import { BackgroundWorkers } from '../src/host/background-workers.ts'
import { realClock } from '../src/system/clock.ts'
import type { Processes } from '../src/system/processes.ts'
import { createRealProcesses, realProcesses } from '../src/system/real-processes.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { SimulatedProcesses } from '../src/system/simulated-processes.ts'

const program = join(import.meta.dirname, '../src/cli/background-worker.ts')
const worker: BackgroundWorker = { bgw_name: 'w', bgw_function_name: 'main' }

/** What was logged, without DEBUG, and with PID n for the process ids that nobody can foresee. */
function texts(messages: LogMessage[]): string[] {
  return messages
    .filter(({ level }) => !level.startsWith('DEBUG'))
    .map(({ level, errmsg }) => `${level}: ${errmsg.replace(/\(PID \d+\)/, '(PID n)')}`)
}

// First with simulated processes and a simulated clock: what is decided.

function simulated() {
  const clock = new SimulatedClock()
  const processes = new SimulatedProcesses()
  const messages: LogMessage[] = []
  const log = (message: LogMessage) => void messages.push(message)
  const workers = new BackgroundWorkers({
    source: '/m.ts',
    program,
    dataDirectory: '/data',
    processes,
    clock,
    log,
  })
  return { clock, processes, messages, workers }
}

test('a worker gets its task and its title', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_main_arg: new Map([['a', new Date(0)]]) })
  assert.equal(processes.forked.length, 0)
  workers.start(new Map([['m.interval', 5]]))
  await clock.pass(0)
  const [started] = processes.forked
  assert.equal(started?.program, program)
  assert.equal(started.options.title, 'pgarchivist: w')
  assert.equal(started.options.cwd, '/data')
  const task = {
    source: '/m.ts',
    functionName: 'main',
    argument: new Map([['a', new Date(0)]]),
    dataDirectory: '/data',
  }
  assert.deepEqual(started.received, [{ type: 'start', task, values: new Map([['m.interval', 5]]) }])
})

test('a worker that ended with status 0 stays ended, also with a restart interval', async () => {
  const { clock, processes, messages, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 1 })
  workers.start(new Map())
  processes.forked[0]?.exit(0)
  await clock.pass(100_000)
  assert.equal(processes.forked.length, 1)
  assert.deepEqual(texts(messages), ['LOG: background worker "w" (PID n) exited with exit code 0'])
})

test('a worker without a restart interval stays ended after any end', async () => {
  const { clock, processes, messages, workers } = simulated()
  workers.register(worker)
  workers.start(new Map())
  processes.forked[0]?.crash('SIGSEGV')
  await clock.pass(100_000)
  assert.equal(processes.forked.length, 1)
  assert.deepEqual(texts(messages), [
    'LOG: background worker "w" (PID n) was terminated by signal 11: Segmentation fault',
  ])
})

test('a worker that ended with another status is started again after its restart interval, each time', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 30 })
  workers.start(new Map())
  const starts: number[] = []
  processes.onFork = process => {
    starts.push(clock.monotonic())
    process.exit(1)
  }
  processes.forked[0]?.crash('SIGKILL')
  await clock.pass(95_000)
  assert.deepEqual(starts, [30_000, 60_000, 90_000])
})

test('a worker that cannot be started is tried again after its restart interval', async () => {
  const { clock, processes, messages, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 10 })
  processes.startFailure = Object.assign(new Error('spawn EAGAIN'), { code: 'EAGAIN' })
  workers.start(new Map())
  await clock.pass(10_001)
  assert.equal(processes.forked.length, 2)
  assert.deepEqual(texts(messages), [
    'LOG: could not fork background worker process: Resource temporarily unavailable',
  ])
})

test('only BgWorkerStart_RecoveryFinished waits for the end of recovery', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_name: 'late', bgw_start_time: 'BgWorkerStart_RecoveryFinished' })
  workers.register({ ...worker, bgw_name: 'consistent', bgw_start_time: 'BgWorkerStart_ConsistentState' })
  workers.register({ ...worker, bgw_name: 'early', bgw_start_time: 'BgWorkerStart_PostmasterStart' })
  const titles = () => processes.forked.map(({ options }) => options.title)
  workers.start(new Map())
  await clock.pass(1_000)
  assert.deepEqual(titles(), ['pgarchivist: consistent', 'pgarchivist: early'])
  workers.recoveryFinished()
  workers.recoveryFinished()
  await clock.pass(0)
  assert.deepEqual(titles(), ['pgarchivist: consistent', 'pgarchivist: early', 'pgarchivist: late'])
})

test('a worker that waits for the end of recovery does not delay a stop, and is not started by it', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_start_time: 'BgWorkerStart_RecoveryFinished' })
  workers.start(new Map())
  await clock.run(workers.stop())
  workers.recoveryFinished()
  await clock.pass(1_000)
  assert.equal(clock.monotonic(), 1_000)
  assert.equal(processes.forked.length, 0)
})

test('new values of the settings reach a running worker, and those that start later', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 1 })
  workers.start(new Map([['m.a', 1]]))
  workers.reload(new Map([['m.a', 2]]))
  await clock.pass(0)
  assert.deepEqual(processes.forked[0]?.received[1], { type: 'reload', values: new Map([['m.a', 2]]) })
  processes.forked[0]?.exit(1)
  await clock.pass(1_001)
  const second = processes.forked[1]?.received[0] as { values: unknown } | undefined
  assert.deepEqual(second?.values, new Map([['m.a', 2]]))
})

test('for a worker that does not read, only the newest values wait', async () => {
  const { clock, processes, workers } = simulated()
  workers.register(worker)
  workers.start(new Map())
  const [started] = processes.forked
  assert(started !== undefined)
  const sent: unknown[] = []
  let letThrough = () => {}
  started.send = message => {
    sent.push(message)
    return new Promise(resolve => {
      letThrough = resolve
    })
  }
  for (const a of [1, 2, 3, 4]) workers.reload(new Map([['m.a', a]]))
  letThrough()
  await clock.pass(0)
  assert.deepEqual(sent, [
    { type: 'reload', values: new Map([['m.a', 1]]) },
    { type: 'reload', values: new Map([['m.a', 4]]) },
  ])
})

test('stop tells a worker, waits for it, and does not start it again', async () => {
  const { clock, processes, messages, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 0 })
  workers.start(new Map())
  const [started] = processes.forked
  assert(started !== undefined)
  started.onMessage = message => {
    if ((message as { type: string }).type === 'stop') void clock.sleep(2_000).then(() => started.exit(1))
  }
  await clock.run(workers.stop())
  assert.equal(clock.monotonic(), 2_000)
  await clock.pass(10_000)
  assert.equal(processes.forked.length, 1)
  assert.deepEqual(texts(messages), ['LOG: background worker "w" (PID n) exited with exit code 1'])
})

test('a worker that does not stop is killed after five seconds', async () => {
  const { clock, messages, workers } = simulated()
  workers.register(worker)
  workers.start(new Map())
  await clock.run(workers.stop())
  assert.equal(clock.monotonic(), 5_000)
  assert.deepEqual(texts(messages), ['LOG: background worker "w" (PID n) was terminated by signal 9: Killed'])
})

test('a stop during the restart interval is immediate', async () => {
  const { clock, processes, workers } = simulated()
  workers.register({ ...worker, bgw_restart_time: 86_400 })
  workers.start(new Map())
  processes.forked[0]?.exit(1)
  await clock.pass(10)
  await clock.run(workers.stop())
  assert.equal(clock.monotonic(), 10)
})

test('a worker asks for more only as fast as its messages are acknowledged, every 100 ms', async () => {
  const { clock, processes, messages, workers } = simulated()
  workers.register(worker)
  workers.start(new Map())
  const [started] = processes.forked
  for (const errmsg of ['a', 'b', 'c'])
    started?.sendToParent({ type: 'log', message: { level: 'LOG', errmsg } })
  await clock.pass(99)
  assert.deepEqual(texts(messages), ['LOG: a', 'LOG: b', 'LOG: c'])
  assert.equal(started?.received.length, 1)
  await clock.pass(1)
  assert.deepEqual(started?.received[1], { type: 'logged', count: 3 })
})

const refused: [fact: string, registration: unknown, errmsg: string][] = [
  ['no name', { bgw_function_name: 'f' }, 'background worker "undefined": invalid name'],
  ['an empty name', { bgw_name: '', bgw_function_name: 'f' }, 'background worker "": invalid name'],
  [
    'a name that PostgreSQL would cut off',
    { bgw_name: 'é'.repeat(48), bgw_function_name: 'f' },
    `background worker "${'é'.repeat(48)}": name is longer than 95 bytes`,
  ],
  ['no function', { bgw_name: 'x' }, 'background worker "x": invalid function name'],
  [
    'a function instead of its name',
    { bgw_name: 'x', bgw_function_name: () => {} },
    'background worker "x": invalid function name',
  ],
  [
    'an unknown start time',
    { bgw_name: 'x', bgw_function_name: 'f', bgw_start_time: 'soon' },
    'background worker "x": invalid start time',
  ],
  ...[-1, 86_401, NaN, '5'].map(
    bgw_restart_time =>
      [
        `a restart interval of ${bgw_restart_time}`,
        { bgw_name: 'x', bgw_function_name: 'f', bgw_restart_time },
        'background worker "x": invalid restart interval',
      ] satisfies [string, unknown, string],
  ),
  [
    'an argument that cannot be copied',
    { bgw_name: 'x', bgw_function_name: 'f', bgw_main_arg: () => {} },
    'background worker "x": the argument cannot be copied to another process',
  ],
]
for (const [fact, registration, errmsg] of refused) {
  test(`a registration with ${fact} is refused in the log, and others still work`, async () => {
    const { processes, messages, workers } = simulated()
    workers.register(registration as BackgroundWorker)
    workers.register(worker)
    workers.start(new Map())
    assert.deepEqual(texts(messages), [`LOG: ${errmsg}`])
    assert.deepEqual(
      processes.forked.map(({ options }) => options.title),
      ['pgarchivist: w'],
    )
  })
}

test('a second registration under a name, and one after the start, are refused', () => {
  const { messages, workers } = simulated()
  workers.register(worker)
  workers.register(worker)
  workers.start(new Map())
  workers.register({ ...worker, bgw_name: 'late' })
  assert.deepEqual(texts(messages), [
    'LOG: background worker "w": name is already in use',
    'LOG: background worker "late": must be registered while the module is initialized',
  ])
})

// From here on with real processes: what they do.

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'background-workers-'))
})
after(() => rm(directory, { recursive: true, force: true }))

const patience = { timeout: 60_000 }

async function real(source: string, processes: Pick<Processes, 'fork'> = realProcesses) {
  const file = join(await mkdtemp(join(directory, 'module-')), 'module.ts')
  await writeFile(file, source)
  const messages: LogMessage[] = []
  const listeners = new Set<() => void>()
  const log = (message: LogMessage) => {
    messages.push(message)
    for (const listener of listeners) listener()
  }
  /** Resolves with the first message of which this text is a part, as soon as there is one. */
  const logged = (text: string) =>
    new Promise<LogMessage>(resolve => {
      const look = () => {
        const found = messages.find(({ errmsg }) => errmsg.includes(text))
        if (found !== undefined) resolve(found)
      }
      listeners.add(look)
      look()
    })
  const options = { source: file, program, dataDirectory: directory, processes, clock: realClock, log }
  return { workers: new BackgroundWorkers(options), messages, logged, file }
}

/** Does the process exist, and is it more than a dead one that nobody has asked about yet? */
async function isRunning(pid: number): Promise<boolean> {
  try {
    const status = await readFile(`/proc/${pid}/stat`, 'utf8')
    return !status.slice(status.lastIndexOf(')')).startsWith(') Z')
  } catch {
    return false
  }
}

async function untilGone(pid: number): Promise<void> {
  // The death of a process that is not our child is no event that Node could wait for.
  while (await isRunning(pid)) await realClock.sleep(20)
}

test(
  'a worker has its argument, the settings, the log, the directory, and stops when told',
  patience,
  async () => {
    const { workers, messages, logged } = await real(`
    import { once } from 'node:events'
    import type { BackgroundWorkerContext } from 'pgarchivist'
    export async function main(argument: Map<string, Date>, context: BackgroundWorkerContext) {
      const { signal, GetConfigOption, ereport, data_directory } = context
      console.log('this belongs to standard error')
      ereport('LOG', { errmsg: [...argument].join(), errdetail: data_directory, errhint: process.cwd() })
      ereport('LOG', { errmsg: GetConfigOption('M.Interval') + ' ' + process.title })
      try { GetConfigOption('m.nosuch') } catch (error) { ereport('WARNING', error) }
      await once(signal, 'abort')
      ereport('LOG', { errmsg: 'interval at the end: ' + GetConfigOption('m.interval') })
    }`)
    workers.register({ ...worker, bgw_main_arg: new Map([['a', new Date(NaN)]]) })
    workers.start(new Map([['m.interval', 5]]))
    await logged('unrecognized')
    workers.reload(new Map([['m.interval', 6]]))
    await workers.stop()
    assert.deepEqual(texts(messages), [
      'LOG: a,Invalid Date',
      'LOG: 5 pgarchivist: w',
      'WARNING: unrecognized configuration parameter "m.nosuch"',
      'LOG: interval at the end: 6',
      'LOG: background worker "w" (PID n) exited with exit code 0',
    ])
    const first = messages.find(({ errmsg }) => errmsg === 'a,Invalid Date')
    assert.equal(first?.errdetail, directory)
    assert.equal(first.errhint, directory)
  },
)

const ends: [fact: string, source: string, log: string[]][] = [
  [
    'a worker that returns ends with status 0, whatever it leaves behind',
    'export function main() { setInterval(() => {}, 1000) }',
    ['LOG: background worker "w" (PID n) exited with exit code 0'],
  ],
  [
    'a worker may end its process with any status',
    'export function main() { process.exit(3) }',
    ['LOG: background worker "w" (PID n) exited with exit code 3'],
  ],
  [
    'a crash of a worker is logged with its signal',
    'export function main() { process.kill(process.pid, "SIGKILL") }',
    ['LOG: background worker "w" (PID n) was terminated by signal 9: Killed'],
  ],
  [
    'what a worker throws is an ERROR',
    'export async function main() { throw new Error("no ticket") }',
    ['ERROR: no ticket', 'LOG: background worker "w" (PID n) exited with exit code 1'],
  ],
  [
    'an exception that nothing in a worker catches is an ERROR',
    'export async function main() { setTimeout(() => { throw new Error("late") }); await new Promise(() => {}) }',
    ['ERROR: late', 'LOG: background worker "w" (PID n) exited with exit code 1'],
  ],
  [
    'a rejection that nothing in a worker handles is an ERROR',
    'export async function main() { void Promise.reject(new Error("lost")); await new Promise(r => setTimeout(r, 60000)) }',
    ['ERROR: lost', 'LOG: background worker "w" (PID n) exited with exit code 1'],
  ],
  [
    'FATAL ends a worker with status 1',
    'export function main(_, { ereport }) { ereport("FATAL", { errmsg: "enough" }) }',
    ['FATAL: enough', 'LOG: background worker "w" (PID n) exited with exit code 1'],
  ],
]
for (const [fact, source, log] of ends) {
  test(fact, patience, async () => {
    const { workers, messages, logged } = await real(source)
    workers.register(worker)
    workers.start(new Map())
    await logged('background worker "w" (PID ')
    assert.deepEqual(texts(messages), log)
    await workers.stop()
  })
}

test('a function that the module does not export is an ERROR of the worker', patience, async () => {
  const { workers, messages, logged, file } = await real('export const other = 1')
  workers.register(worker)
  workers.start(new Map())
  await logged('background worker "w" (PID ')
  assert.deepEqual(texts(messages), [
    `ERROR: could not find function "main" in file "${file}"`,
    'LOG: background worker "w" (PID n) exited with exit code 1',
  ])
})

test('the DETAIL, HINT and SQLSTATE of an ERROR arrive', patience, async () => {
  const { workers, logged } = await real(`export function main(_, { ereport }) {
    ereport('ERROR', { errmsg: 'oh no', errdetail: 'd', errhint: 'h', errcode: '58030' })
  }`)
  workers.register(worker)
  workers.start(new Map())
  const error = { level: 'ERROR', errmsg: 'oh no', errdetail: 'd', errhint: 'h', errcode: '58030' }
  assert.deepEqual(await logged('oh no'), error)
  await workers.stop()
})

test('an endless loop is killed at stop, five seconds after it was told', patience, async () => {
  const { workers, messages, logged } = await real(`export function main(_, { ereport }) {
    ereport('LOG', { errmsg: 'pid ' + process.pid })
    while (true) {}
  }`)
  workers.register(worker)
  workers.start(new Map())
  const pid = Number((await logged('pid ')).errmsg.slice(4))
  const begin = realClock.monotonic()
  await workers.stop()
  const seconds = (realClock.monotonic() - begin) / 1_000
  assert(seconds > 4.9 && seconds < 8, `${seconds} s`)
  assert.equal(await isRunning(pid), false)
  assert.equal(
    texts(messages).at(-1),
    'LOG: background worker "w" (PID n) was terminated by signal 9: Killed',
  )
})

test('a worker ignores the signals that its parent acts on', patience, async () => {
  const { workers, messages, logged } = await real(`
    import { once } from 'node:events'
    export async function main(_, { ereport, signal }) {
      ereport('LOG', { errmsg: 'pid ' + process.pid })
      await once(signal, 'abort')
    }`)
  workers.register(worker)
  workers.start(new Map())
  const pid = Number((await logged('pid ')).errmsg.slice(4))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.kill(pid, signal)
  await workers.stop()
  assert.equal(texts(messages).at(-1), 'LOG: background worker "w" (PID n) exited with exit code 0')
})

test('the last words of a worker arrive, however much is on its way before them', patience, async () => {
  const { workers, messages, logged } = await real(`
    export function main(_, { ereport }) {
      for (let i = 0; i < 900; i++) ereport('LOG', { errmsg: 'x'.repeat(8000) })
      throw new Error('the last words')
    }`)
  workers.register(worker)
  workers.start(new Map())
  await logged('background worker "w" (PID ')
  assert.deepEqual(texts(messages).slice(900), [
    'ERROR: the last words',
    'LOG: background worker "w" (PID n) exited with exit code 1',
  ])
})

test('a worker in a loop that logs is limited, and says so', patience, async () => {
  const { workers, messages, logged } = await real(`
    export async function main(_, { ereport }) {
      for (let i = 0; i < 200000; i++) ereport('LOG', { errmsg: 'x'.repeat(100000) })
    }`)
  workers.register(worker)
  workers.start(new Map())
  await logged('background worker "w" (PID ')
  const [first] = messages.filter(({ level }) => level === 'LOG')
  assert.equal(first?.errmsg.length, 8_192)
  const dropped = 200_000 - messagesInFlightMax
  assert.deepEqual(texts(messages).slice(messagesInFlightMax), [
    `WARNING: background worker logged too much at once: ${dropped} messages were dropped`,
    'LOG: background worker "w" (PID n) exited with exit code 0',
  ])
})

/** A program that starts a worker in an endless loop. Resolves with it and the worker's process id. */
async function parentOfEndlessLoop(processes: string): Promise<[ChildProcess, number]> {
  const module = join(await mkdtemp(join(directory, 'endless-')), 'endless.ts')
  await writeFile(
    module,
    `export function main(_, { ereport }) { ereport('LOG', { errmsg: 'pid ' + process.pid }); while (true) {} }`,
  )
  const src = join(import.meta.dirname, '../src')
  const text = `
    import { BackgroundWorkers } from '${src}/host/background-workers.ts'
    import { realClock } from '${src}/system/clock.ts'
    import { createRealProcesses } from '${src}/system/real-processes.ts'
    const workers = new BackgroundWorkers({
      source: '${module}', program: '${program}', dataDirectory: '/', clock: realClock,
      processes: ${processes},
      log: ({ errmsg }) => { if (errmsg.startsWith('pid ')) console.log(errmsg) },
    })
    workers.register({ bgw_name: 'endless', bgw_function_name: 'main' })
    workers.start(new Map())`
  const parent = spawn(process.execPath, ['--input-type=module', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  return [parent, Number(line.toString().slice(4))]
}

const launchers: [fact: string, processes: string][] = [
  ['by the kernel', 'createRealProcesses()'],
  [
    'by a thread of its own where the kernel cannot be asked',
    'createRealProcesses({ setpriv: () => undefined })',
  ],
]
for (const [fact, processes] of launchers) {
  test(`an endless loop is killed when its parent is killed with -9, ${fact}`, patience, async () => {
    const [parent, pid] = await parentOfEndlessLoop(processes)
    assert.equal(await isRunning(pid), true)
    parent.kill('SIGKILL')
    await once(parent, 'exit')
    await untilGone(pid)
  })
}

test('a message for a process that has ended goes nowhere, and harms nothing', patience, async () => {
  const file = join(directory, 'ends.mjs')
  await writeFile(file, 'process.exit(0)')
  const child = createRealProcesses().fork(file, { cwd: directory, title: 'ends', onMessage: () => {} })
  await child.send('before it ends')
  assert.deepEqual(await child.ended, { code: 0, signal: null })
  await child.send('after')
  child.kill()
})

test(
  'a message that waits for a process that does not read is given up when that is killed',
  patience,
  async () => {
    const file = join(directory, 'deaf.mjs')
    await writeFile(file, 'for (;;);')
    const child = createRealProcesses().fork(file, { cwd: directory, title: 'deaf', onMessage: () => {} })
    const sent = child.send('x'.repeat(10_000_000))
    child.kill()
    await sent
    assert.deepEqual(await child.ended, { code: null, signal: 'SIGKILL' })
  },
)

test('a program that cannot be started ends with what prevented it', patience, async () => {
  const child = createRealProcesses().fork('x', { cwd: '/nosuch', title: 'x', onMessage: () => {} })
  const end = await child.ended
  assert('startFailure' in end)
  assert.equal((end.startFailure as NodeJS.ErrnoException).code, 'ENOENT')
  assert.equal(child.pid, undefined)
})

test('a command line ends with a status or by a signal', patience, async () => {
  const cwd = directory
  assert.deepEqual(await realProcesses.shell('exit 3', { cwd }), { code: 3, signal: null })
  assert.deepEqual(await realProcesses.shell('kill -TERM $$', { cwd }), { code: null, signal: 'SIGTERM' })
  assert.deepEqual(
    await realProcesses.shell('test "$(pwd -P)" = "$(cd -P ' + cwd + ' && pwd)" && ! read line', { cwd }),
    {
      code: 0,
      signal: null,
    },
  )
  await assert.rejects(realProcesses.shell('exit 0', { cwd: '/nosuch' }), { code: 'ENOENT' })
})

test('an aborted command line is ended with what it started', patience, async () => {
  const abort = new AbortController()
  const pidFile = join(directory, 'sleep.pid')
  const ended = realProcesses.shell(`sleep 600 & echo $! > ${pidFile}; wait`, {
    cwd: directory,
    signal: abort.signal,
  })
  let pid = ''
  while (pid === '') {
    await realClock.sleep(20)
    pid = (await readFile(pidFile, 'utf8').catch(() => '')).trim()
  }
  abort.abort()
  assert.deepEqual(await ended, { code: null, signal: 'SIGTERM' })
  await untilGone(Number(pid))
})
