// What keeps an archiver process running, with a clock and with processes that a test plays.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ExitStatus } from '../src/archiver/archiver.ts'
import type { SupervisorMessage } from '../src/archiver/messages.ts'
import { Supervisor } from '../src/archiver/supervisor.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import { parseCommandLineSetting, type Settings, settingsOf } from '../src/host/settings.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { type SimulatedProcess, SimulatedProcesses } from '../src/system/simulated-processes.ts'

const atStart = settingsOf([parseCommandLineSetting('archive_library=first')])
const later = settingsOf([parseCommandLineSetting('archive_library=second')])

const startsMax = 100 // no test comes near it

/** Lets time pass until it ends, but not for ever. */
async function endOf(clock: SimulatedClock, run: Promise<ExitStatus>): Promise<ExitStatus> {
  const late = clock.sleep(3_600_000).then(() => assert.fail('it has not ended within an hour'))
  return clock.run(Promise.race([run, late]))
}

function stage() {
  const clock = new SimulatedClock()
  const processes = new SimulatedProcesses()
  const told: string[] = []
  const log = ({ level, errmsg, errdetail }: LogMessage) => {
    told.push(`${level}: ${errmsg}`)
    if (errdetail !== undefined) told.push(`DETAIL: ${errdetail}`)
  }
  /** Each start: in which second, and with which settings. */
  const starts: Array<{ second: number; settings: Settings }> = []
  const supervisor = new Supervisor({
    clock,
    log,
    settings: atStart,
    fork: settings => {
      // Starting without a pause has to fail a test, not to hang it.
      if (starts.length >= startsMax) throw new Error('it is started again and again')
      starts.push({ second: clock.monotonic() / 1_000, settings })
      return processes.fork('archiver', { cwd: '/data', title: 'archiver', onMessage: () => {} })
    },
  })
  return {
    clock,
    processes,
    told,
    starts,
    seconds: () => starts.map(({ second }) => second),
    supervisor,
    /** The process that runs now. */
    running: (): SimulatedProcess => {
      const process = processes.forked.at(-1)
      assert.ok(process)
      return process
    },
    types: (process: SimulatedProcess) =>
      process.received.map(message => (message as SupervisorMessage).type as string),
  }
}

// Starting again

test('one that ends at once is started again 10 seconds after its last start', async () => {
  const { clock, processes, seconds, supervisor } = stage()
  processes.onFork = process => process.exit(1)
  void supervisor.run()
  await clock.pass(35_000)
  assert.deepEqual(seconds(), [0, 10, 20, 30])
})

test('one that has run for longer is started again at once', async () => {
  const { clock, seconds, supervisor, running } = stage()
  void supervisor.run()
  await clock.pass(25_000)
  running().exit(0)
  await clock.pass(1)
  assert.deepEqual(seconds(), [0, 25])
})

test('one that ends after seven seconds is started again after three more', async () => {
  const { clock, seconds, supervisor, running } = stage()
  void supervisor.run()
  await clock.pass(7_000)
  running().exit(0)
  await clock.pass(2_900)
  assert.deepEqual(seconds(), [0])
  await clock.pass(100)
  assert.deepEqual(seconds(), [0, 10])
})

test('an orderly end, with status 0 or 1, is not told: the archiver has said why', async () => {
  for (const status of [0, 1]) {
    const { clock, told, supervisor, running } = stage()
    void supervisor.run()
    await clock.pass(0)
    running().exit(status)
    await clock.pass(5_000)
    assert.deepEqual(told, [])
  }
})

test('every other end is told in the words of the postmaster', async () => {
  const ends: Array<[(process: SimulatedProcess) => void, string]> = [
    [process => process.exit(2), 'LOG: archiver process (PID 1) exited with exit code 2'],
    [process => process.exit(134), 'LOG: archiver process (PID 1) exited with exit code 134'],
    [process => process.crash('SIGKILL'), 'LOG: archiver process (PID 1) was terminated by signal 9: Killed'],
    [
      process => process.crash('SIGSEGV'),
      'LOG: archiver process (PID 1) was terminated by signal 11: Segmentation fault',
    ],
  ]
  for (const [end, expected] of ends) {
    const { clock, told, supervisor, running } = stage()
    void supervisor.run()
    await clock.pass(0)
    end(running())
    await clock.pass(5_000)
    assert.deepEqual(told, [expected])
  }
})

test('a process that cannot be started is told, and tried again after 10 seconds', async () => {
  const { clock, processes, told, seconds, supervisor } = stage()
  processes.startFailure = new Error('spawn node EAGAIN')
  void supervisor.run()
  await clock.pass(15_000)
  assert.deepEqual(told, ['LOG: could not fork archiver process: spawn node EAGAIN'])
  assert.deepEqual(seconds(), [0, 10])
  assert.equal(supervisor.pid, 2)
})

test('it knows which process archives, and that none does during a pause', async () => {
  const { clock, supervisor, running } = stage()
  assert.equal(supervisor.pid, undefined)
  void supervisor.run()
  await clock.pass(0)
  assert.equal(supervisor.pid, 1)
  running().exit(1)
  await clock.pass(0)
  assert.equal(supervisor.pid, undefined)
})

// Reload

test('new settings go to the process that runs and to those that are started later', async () => {
  const { clock, starts, supervisor, running } = stage()
  void supervisor.run()
  await clock.pass(0)
  supervisor.reload(later)
  assert.deepEqual(running().received, [{ type: 'reload', settings: later }])
  running().exit(0)
  await clock.pass(10_001)
  assert.deepEqual(starts, [
    { second: 0, settings: atStart },
    { second: 10, settings: later },
  ])
})

test('new settings that come during a pause are those of the next start', async () => {
  const { clock, starts, supervisor, running } = stage()
  void supervisor.run()
  await clock.pass(0)
  running().exit(1)
  await clock.pass(3_000)
  supervisor.reload(later)
  await clock.pass(7_000)
  assert.deepEqual(starts.at(-1), { second: 10, settings: later })
})

// Stopping

const fastShutdown = 'LOG: received fast shutdown request'
const immediateShutdown = 'LOG: received immediate shutdown request'

test('stop asks the archiver for its last cycle and waits for it', async () => {
  const { clock, told, supervisor, running, types, starts } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  const stopped = supervisor.stop()
  assert.deepEqual(types(running()), ['stop'])
  await clock.pass(15_000)
  running().exit(0)
  assert.equal(await endOf(clock, ended), 0)
  await clock.run(stopped)
  assert.deepEqual(told, [fastShutdown])
  assert.equal(clock.monotonic(), 15_000)
  assert.equal(starts.length, 1)
})

test('stop during a pause ends it at once', async () => {
  const { clock, told, supervisor, running, starts } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  running().exit(1)
  await clock.pass(3_000)
  await clock.run(supervisor.stop())
  assert.equal(await endOf(clock, ended), 0)
  assert.equal(clock.monotonic(), 3_000)
  assert.deepEqual(told, [fastShutdown])
  assert.equal(starts.length, 1)
})

test('a last cycle that archives nothing for 20 seconds is abandoned, and killed a second later', async () => {
  const { clock, told, supervisor, running, types } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  await clock.pass(19_999)
  assert.deepEqual(types(running()), ['stop'])
  await clock.pass(1)
  assert.deepEqual(types(running()), ['stop', 'abandon'])
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 21_000)
  assert.deepEqual(await running().ended, { code: null, signal: 'SIGKILL' })
  assert.deepEqual(told, [
    fastShutdown,
    'WARNING: archiver has archived nothing for 20 s and is ended',
    'DETAIL: The files that are left are archived after the next start.',
  ])
})

test('one that ends by itself when it is abandoned is not killed', async () => {
  const { clock, supervisor, running } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  running().onMessage = message => {
    if ((message as SupervisorMessage).type === 'abandon') clock.after(900, () => running().exit(0))
  }
  void supervisor.stop()
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 20_900)
  assert.deepEqual(await running().ended, { code: 0, signal: null })
})

test('every archived file renews the patience', async () => {
  const { clock, told, supervisor, running } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  for (let round = 0; round < 3; round++) {
    await clock.pass(15_000)
    supervisor.noteProgress()
  }
  running().exit(0)
  assert.equal(await endOf(clock, ended), 0)
  assert.deepEqual(told, [fastShutdown])
})

test('patience that was renewed ends when nothing more is archived', async () => {
  const { clock, told, supervisor } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  await clock.pass(15_000)
  supervisor.noteProgress()
  assert.equal(await endOf(clock, ended), 1)
  // Looked at every 20 s: the file of the 15th second is seen in the 20th.
  assert.equal(clock.monotonic(), 41_000)
  assert.equal(told.length, 3)
})

test('a last cycle that always finds more to do is ended after a minute', async () => {
  const { clock, told, supervisor } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  for (let round = 0; round < 4; round++) {
    await clock.pass(14_000)
    supervisor.noteProgress()
  }
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 61_000)
  assert.deepEqual(told, [
    fastShutdown,
    'WARNING: archiver is still archiving after 60 s and is ended',
    'DETAIL: The files that are left are archived after the next start.',
  ])
})

test('a second stop is an end at once', async () => {
  const { clock, told, supervisor, running, types } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  await clock.pass(5_000)
  void supervisor.stop()
  assert.deepEqual(types(running()), ['stop', 'abandon'])
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 6_000)
  // What the first one would have said 15 seconds later is not said any more.
  await clock.pass(60_000)
  assert.deepEqual(told, [fastShutdown, immediateShutdown])
})

test('a stop without a last cycle abandons at once', async () => {
  const { clock, told, supervisor, running, types } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stopNow()
  assert.deepEqual(types(running()), ['abandon'])
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 1_000)
  // That it was killed is our own doing and no crash.
  assert.deepEqual(told, [immediateShutdown])
})

test('a stop without a last cycle during a pause ends it at once', async () => {
  const { clock, supervisor, running, starts } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  running().exit(1)
  await clock.pass(3_000)
  await clock.run(supervisor.stopNow())
  assert.equal(await endOf(clock, ended), 1)
  assert.equal(clock.monotonic(), 3_000)
  assert.equal(starts.length, 1)
})

test('a crash in the last cycle is told, and not followed by another start', async () => {
  const { clock, told, supervisor, running, starts } = stage()
  const ended = supervisor.run()
  await clock.pass(0)
  void supervisor.stop()
  running().crash('SIGSEGV')
  await endOf(clock, ended)
  assert.deepEqual(told, [
    fastShutdown,
    'LOG: archiver process (PID 1) was terminated by signal 11: Segmentation fault',
  ])
  assert.equal(starts.length, 1)
})
