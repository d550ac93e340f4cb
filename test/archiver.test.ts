// The loop of the archiver, rule by rule, with a clock and a disk that a test owns.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Archiver, type ExitStatus } from '../src/archiver/archiver.ts'
import type { ArchiveModuleCallbacks } from '../src/contract/archive-module.ts'
import type { ArchiveServer } from '../src/contract/archive-server.ts'
import { type LogMessage, ReportedError } from '../src/contract/error-report.ts'
import { GucRegistry } from '../src/host/guc-registry.ts'
import { parseCommandLineSetting, type Settings, settingsOf } from '../src/host/settings.ts'
import { startModule } from '../src/host/start-module.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'
import { type MountOptions, SimulatedDisk, type Step } from '../src/system/simulated-files.ts'

const walDirectory = '/data/pg_wal'
const statusDirectory = '/data/pg_wal/archive_status'

const stepsMax = 10_000 // no test comes near it

function segment(number: number, timeline = 1): string {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `${hex(timeline)}00000000${hex(number)}`
}

function settings(...texts: string[]): Settings {
  return settingsOf(texts.map(text => parseCommandLineSetting(text)))
}

/** Lets time pass until the archiver ends, but not for ever. */
async function endOf(clock: SimulatedClock, run: Promise<ExitStatus>): Promise<ExitStatus> {
  const late = clock.sleep(3_600_000).then(() => assert.fail('it has not ended within an hour'))
  return clock.run(Promise.race([run, late]))
}

interface StageOptions {
  /** What becomes of steps of the archiver on its disk. */
  mount?: MountOptions
  /** Of the start. */
  settings?: { archive_library: string; archive_command: string }
}

type TestModule =
  | Partial<ArchiveModuleCallbacks>
  | ((server: ArchiveServer) => Partial<ArchiveModuleCallbacks>)

/** An archiver with this module, whose `archive_file_cb` says true unless told otherwise, before its start. */
function stage(module: TestModule = {}, options: StageOptions = {}) {
  const clock = new SimulatedClock()
  const disk = new SimulatedDisk(new SeededRandom(1), () => clock.now())
  for (const path of ['/data', walDirectory, statusDirectory]) disk.makeDirectory(path)

  /** Operations of the archiver on the disk. */
  const steps: Step[] = []
  const files = disk.mount({
    ...options.mount,
    // A loop without a pause has to fail its test, not to hang it.
    fate: step => (step.number > stepsMax ? { kind: 'stops', took: false } : options.mount?.fate?.(step)),
    stepped: step => void steps.push(step),
  })

  /** Whole messages, as "WARNING: text", then "DETAIL: text" and "HINT: text". */
  const told: string[] = []
  const log = ({ level, errmsg, errdetail, errhint }: LogMessage) => {
    told.push(`${level}: ${errmsg}`)
    if (errdetail !== undefined) told.push(`DETAIL: ${errdetail}`)
    if (errhint !== undefined) told.push(`HINT: ${errhint}`)
  }

  /** Attempts, each with the second in which it began: "2 s 000000010000000000000001". */
  const attempts: string[] = []
  const happened: string[] = []
  const current = { archive_library: 'module', archive_command: '', ...options.settings }

  const archiver = new Archiver({
    files,
    clock,
    log,
    dataDirectory: '/data',
    settings: {
      get archive_library() {
        return current.archive_library
      },
      get archive_command() {
        return current.archive_command
      },
      reload: next => {
        current.archive_library = next.get('archive_library')?.value ?? ''
        current.archive_command = next.get('archive_command')?.value ?? ''
      },
    },
    startModule: () =>
      startModule({
        init: server => {
          const callbacks = typeof module === 'function' ? module(server) : module
          return {
            ...callbacks,
            archive_file_cb: (state, file, path, context) => {
              attempts.push(`${clock.monotonic() / 1_000} s ${file}`)
              return callbacks.archive_file_cb?.(state, file, path, context) ?? true
            },
          }
        },
        facts: {
          data_directory: '/data',
          server_version_num: undefined,
          system_identifier: undefined,
          wal_segment_size: undefined,
          wal_page_magic: undefined,
        },
        gucs: new GucRegistry({ log }),
        registerWorker: () => {},
        log,
      }),
    events: {
      archiving: file => void happened.push(`archiving ${file}`),
      archived: file => void happened.push(`archived ${file}`),
      failed: file => void happened.push(`failed ${file}`),
      idle: () => void happened.push('idle'),
    },
  })

  return {
    clock,
    disk,
    archiver,
    steps,
    told,
    attempts,
    happened,
    /** What a server does when it has finished a WAL file. */
    makeReady: (...names: string[]) => {
      for (const name of names) {
        disk.place(`${walDirectory}/${name}`, `content of ${name}`)
        disk.scribble(`${statusDirectory}/${name}.ready`, '')
      }
    },
    statusFiles: () => disk.names(statusDirectory).toSorted(),
    /** How often the archiver has looked for what waits. */
    scans: () =>
      steps.filter(({ operation, path }) => operation === 'list' && path === statusDirectory).length,
  }
}

// When it looks

test('what is ready at start is archived at once, and marked done', async () => {
  const { clock, archiver, makeReady, attempts, statusFiles, told } = stage()
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `0 s ${segment(2)}`])
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.done`])
  assert.deepEqual(told, [])
})

test('the module is started before anything is ready', async () => {
  let isStarted = false
  const { clock, archiver, attempts } = stage({
    startup_cb: () => {
      isStarted = true
    },
  })
  void archiver.run()
  await clock.pass(0)
  assert.equal(isStarted, true)
  assert.deepEqual(attempts, [])
})

test('a file that becomes ready is archived at once, not at the next poll', async () => {
  const { clock, archiver, makeReady, attempts } = stage()
  void archiver.run()
  await clock.pass(7_000)
  makeReady(segment(1))
  await clock.pass(0)
  assert.deepEqual(attempts, [`7 s ${segment(1)}`])
})

test('a file whose notification was lost is found by the poll, once a minute', async () => {
  const { clock, archiver, makeReady, attempts } = stage({}, { mount: { losesNotification: () => true } })
  void archiver.run()
  await clock.pass(7_000)
  makeReady(segment(1))
  await clock.pass(100_000)
  assert.deepEqual(attempts, [`60 s ${segment(1)}`])
})

test('where the directory cannot be watched, a WARNING says so and the poll does the work', async () => {
  const { clock, archiver, makeReady, attempts, told } = stage(
    {},
    {
      mount: {
        fate: ({ operation }) => (operation === 'watch' ? { kind: 'fails', code: 'ENOSPC' } : undefined),
      },
    },
  )
  void archiver.run()
  await clock.pass(7_000)
  makeReady(segment(1))
  await clock.pass(100_000)
  assert.deepEqual(attempts, [`60 s ${segment(1)}`])
  assert.deepEqual(told, [
    'WARNING: could not watch directory "pg_wal/archive_status": No space left on device',
    'HINT: New files are found by looking once a minute.',
  ])
})

test('an idle archiver looks once a minute and no more', async () => {
  const { clock, archiver, scans } = stage()
  void archiver.run()
  await clock.pass(599_000)
  assert.equal(scans(), 10)
})

test('its own renames do not wake it', async () => {
  const { clock, archiver, makeReady, scans } = stage()
  makeReady(segment(1), segment(2), segment(3))
  void archiver.run()
  await clock.pass(59_000)
  // One scan that finds them, and one that finds nothing more.
  assert.equal(scans(), 2)
})

test('a name that the server makes ready again, after we renamed it, does wake it', async () => {
  const { clock, archiver, makeReady, attempts } = stage()
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(5_000)
  makeReady(segment(1))
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `5 s ${segment(1)}`])
})

test('a wake-up by request looks at once', async () => {
  const { clock, archiver, makeReady, attempts } = stage({}, { mount: { losesNotification: () => true } })
  void archiver.run()
  await clock.pass(7_000)
  makeReady(segment(1))
  archiver.wake()
  await clock.pass(0)
  assert.deepEqual(attempts, [`7 s ${segment(1)}`])
})

test('a file that becomes ready during a cycle is archived in it', async () => {
  const { clock, archiver, makeReady, attempts } = stage({
    archive_file_cb: (_state, file) => {
      if (file === segment(1)) makeReady(segment(2))
      return true
    },
  })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `0 s ${segment(2)}`])
})

// In which order

test('timeline histories go first, then older timelines, then names in the order of their bytes', async () => {
  const { clock, archiver, makeReady, attempts } = stage()
  makeReady(
    segment(1, 2),
    `${segment(2)}.partial`,
    '00000003.history',
    segment(16),
    `${segment(2)}.00000028.backup`,
    segment(2),
    segment(9),
    '00000002.history',
  )
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [
    '0 s 00000002.history',
    '0 s 00000003.history',
    `0 s ${segment(2)}`,
    `0 s ${segment(2)}.00000028.backup`,
    `0 s ${segment(2)}.partial`,
    `0 s ${segment(9)}`,
    `0 s ${segment(16)}`,
    `0 s ${segment(1, 2)}`,
  ])
})

test('64 names are taken from one scan, and an older file that comes late waits for the next', async () => {
  const order: string[] = []
  const { clock, archiver, makeReady } = stage({
    archive_file_cb: (_state, file) => {
      if (order.push(file) === 1) makeReady(segment(1))
      return true
    },
  })
  makeReady(...Array.from({ length: 100 }, (_, index) => segment(index + 2)))
  void archiver.run()
  await clock.pass(0)
  assert.equal(order.length, 101)
  assert.equal(order.indexOf(segment(1)), 64)
})

test('a timeline history that comes during a batch is next', async () => {
  const order: string[] = []
  const { clock, archiver, makeReady } = stage({
    archive_file_cb: (_state, file) => {
      if (order.push(file) === 2) makeReady('00000002.history')
      return true
    },
  })
  makeReady(segment(1), segment(2), segment(3))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(order, [segment(1), segment(2), '00000002.history', segment(3)])
})

test('a name whose status file is gone when its turn comes is passed over in silence', async () => {
  const { clock, disk, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: (_state, file) => {
      if (file === segment(1)) disk.drop(`${statusDirectory}/${segment(2)}.ready`)
      return true
    },
  })
  makeReady(segment(1), segment(2), segment(3))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `0 s ${segment(3)}`])
  assert.deepEqual(told, [])
})

test('every cycle begins with a scan, also when a failed one left names behind', async () => {
  let works = false
  const { clock, archiver, makeReady, attempts } = stage({ archive_file_cb: () => works })
  makeReady(segment(2), segment(3))
  void archiver.run()
  await clock.pass(10_000)
  works = true
  makeReady(segment(1))
  await clock.pass(0)
  assert.deepEqual(attempts.slice(3), [`10 s ${segment(1)}`, `10 s ${segment(2)}`, `10 s ${segment(3)}`])
})

// What the module is given

test('the module is given the name, the absolute path, and the state that it filled at start', async () => {
  const given: unknown[] = []
  const { clock, archiver, makeReady } = stage({
    startup_cb: state => {
      state.private_data = 'kept'
    },
    archive_file_cb: (state, file, path, context) => {
      given.push(state.private_data, file, path, context.signal.aborted)
      return true
    },
  })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(given, ['kept', segment(1), `${walDirectory}/${segment(1)}`, false])
})

test('files are given to the module one at a time', async () => {
  let underWay = 0
  const { clock, archiver, makeReady, attempts } = stage({
    archive_file_cb: async () => {
      assert.equal(++underWay, 1)
      await clock.sleep(500)
      underWay--
      return true
    },
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(2_000)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `0.5 s ${segment(2)}`])
})

test('names that a server gives to no WAL file are told once and left alone', async () => {
  const { clock, archiver, makeReady, attempts, told, statusFiles } = stage()
  const tooLong = '0'.repeat(41)
  makeReady('tooshort', tooLong, `${segment(1)}x`, segment(2))
  void archiver.run()
  await clock.pass(200_000)
  const ignored = (name: string) => [
    `LOG: ignoring archive status file "pg_wal/archive_status/${name}.ready"`,
    'DETAIL: Its name is not one that a server gives to a WAL file.',
  ]
  assert.deepEqual(told, [...ignored('tooshort'), ...ignored(tooLong), ...ignored(`${segment(1)}x`)])
  assert.deepEqual(attempts, [`0 s ${segment(2)}`])
  assert.deepEqual(
    statusFiles(),
    ['tooshort.ready', `${tooLong}.ready`, `${segment(1)}x.ready`, `${segment(2)}.done`].toSorted(),
  )
})

test('of very many such names only the first twenty are told', async () => {
  const { clock, archiver, makeReady, told } = stage()
  makeReady(...Array.from({ length: 30 }, (_, index) => `foreign-${index}`))
  void archiver.run()
  await clock.pass(200_000)
  assert.equal(told.filter(line => line.startsWith('LOG: ignoring')).length, 20)
})

test('done and other files in the directory are none of its business', async () => {
  const { clock, disk, archiver, attempts, told } = stage()
  disk.place(`${statusDirectory}/${segment(1)}.done`, '')
  disk.place(`${statusDirectory}/note.txt`, '')
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [])
  assert.deepEqual(told, [])
})

// Success and failure

test('only true is success', async () => {
  for (const answer of ['yes', 1, undefined, null, [], new Boolean(true), false]) {
    const { clock, archiver, makeReady, happened, statusFiles } = stage({
      archive_file_cb: () => Promise.resolve(answer as boolean),
    })
    makeReady(segment(1))
    void archiver.run()
    await clock.pass(0)
    assert.deepEqual(happened, [`archiving ${segment(1)}`, `failed ${segment(1)}`], inspect(answer))
    assert.deepEqual(statusFiles(), [`${segment(1)}.ready`])
  }
})

test('a file is tried three times, one second apart, then a WARNING ends the cycle for those behind it too', async () => {
  const { clock, archiver, makeReady, attempts, told, happened, statusFiles } = stage({
    archive_file_cb: (_state, file) => file !== segment(1),
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(10_000)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `1 s ${segment(1)}`, `2 s ${segment(1)}`])
  assert.deepEqual(told, [
    `WARNING: archiving write-ahead log file "${segment(1)}" failed too many times, will try again later`,
  ])
  assert.deepEqual(happened.slice(-3), [`archiving ${segment(1)}`, `failed ${segment(1)}`, 'idle'])
  assert.deepEqual(statusFiles(), [`${segment(1)}.ready`, `${segment(2)}.ready`])
})

test('on a quiet server a failing file costs three attempts a minute, not more', async () => {
  const { clock, archiver, makeReady, attempts } = stage({ archive_file_cb: () => false })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(180_000)
  const seconds = attempts.map(attempt => Number.parseInt(attempt, 10))
  // A cycle of two seconds, then a minute of waiting.
  assert.deepEqual(seconds, [0, 1, 2, 62, 63, 64, 124, 125, 126])
})

test('a new file wakes an archiver that waits after a failure', async () => {
  const { clock, archiver, makeReady, attempts } = stage({ archive_file_cb: () => false })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(10_000)
  makeReady(segment(2))
  await clock.pass(0)
  assert.deepEqual(attempts.slice(3), [`10 s ${segment(1)}`])
})

test('a file that succeeds at the third attempt holds up nothing', async () => {
  let failuresLeft = 2
  const { clock, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: () => failuresLeft-- <= 0,
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(5_000)
  assert.deepEqual(attempts, [
    `0 s ${segment(1)}`,
    `1 s ${segment(1)}`,
    `2 s ${segment(1)}`,
    `2 s ${segment(2)}`,
  ])
  assert.deepEqual(told, [])
})

test('each file has three attempts of its own', async () => {
  const failures = new Map<string, number>()
  const { clock, archiver, makeReady, told } = stage({
    archive_file_cb: (_state, file) => {
      const count = (failures.get(file) ?? 0) + 1
      failures.set(file, count)
      return count > 2
    },
  })
  makeReady(segment(1), segment(2), segment(3))
  void archiver.run()
  await clock.pass(20_000)
  assert.deepEqual(told, [])
})

test('an ERROR is logged with its DETAIL and HINT, and is a failed attempt like any other', async () => {
  const { clock, archiver, makeReady, attempts, told, happened } = stage((server: ArchiveServer) => ({
    archive_file_cb: () => {
      if (attempts.length > 1) return true
      server.ereport('ERROR', {
        errmsg: 'could not store it',
        errdetail: 'The store is full.',
        errhint: 'Empty it.',
      })
    },
  }))
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(5_000)
  assert.deepEqual(told, ['ERROR: could not store it', 'DETAIL: The store is full.', 'HINT: Empty it.'])
  assert.deepEqual(happened, [
    `archiving ${segment(1)}`,
    `failed ${segment(1)}`,
    `archiving ${segment(1)}`,
    `archived ${segment(1)}`,
    'idle',
  ])
})

test('anything that a module throws is an ERROR', async () => {
  const thrown: Array<[unknown, string[]]> = [
    [
      new Error('disk on fire', { cause: new Error('no water') }),
      ['ERROR: disk on fire', 'DETAIL: Caused by: no water'],
    ],
    [new TypeError(''), ['ERROR: TypeError']],
    ['text', ['ERROR: archive module threw a value that is not an error: text']],
    [undefined, ['ERROR: archive module threw a value that is not an error: undefined']],
    [Object.create(null), ['ERROR: archive module threw a value that is not an error: object']],
  ]
  for (const [value, expected] of thrown) {
    const { clock, archiver, makeReady, told } = stage({
      archive_file_cb: () => {
        throw value
      },
    })
    makeReady(segment(1))
    void archiver.run()
    await clock.pass(0)
    assert.deepEqual(told, expected)
  }
})

test('an ERROR that the module catches itself is no failure', async () => {
  const { clock, archiver, makeReady, told, statusFiles } = stage((server: ArchiveServer) => ({
    archive_file_cb: () => {
      try {
        server.ereport('ERROR', { errmsg: 'first store is full' })
      } catch {
        return true // stored in the second
      }
    },
  }))
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(told, [])
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`])
})

// Is it configured?

test('check_configured_cb is asked before every attempt', async () => {
  const asked: number[] = []
  const { clock, archiver, makeReady, attempts } = stage({
    check_configured_cb: () => {
      asked.push(attempts.length)
      return true
    },
    archive_file_cb: (_state, file) => file === segment(1),
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(10_000)
  assert.deepEqual(asked, [0, 1, 2, 3])
  assert.equal(attempts.length, 4)
})

test('what is not configured archives nothing, with one WARNING for each wake-up', async () => {
  let isConfigured = false
  const { clock, archiver, makeReady, attempts, told, happened, statusFiles } = stage(
    (server: ArchiveServer) => ({
      check_configured_cb: () => {
        if (!isConfigured) server.arch_module_check_errdetail('Nothing is set.')
        return isConfigured
      },
    }),
  )
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(59_000)
  const warning = [
    'WARNING: "archive_mode" enabled, yet archiving is not configured',
    'DETAIL: Nothing is set.',
  ]
  assert.deepEqual(told, warning)
  await clock.pass(2_000)
  assert.deepEqual(told, [...warning, ...warning])
  assert.deepEqual(attempts, [])
  assert.deepEqual(happened, ['idle', 'idle'])
  isConfigured = true
  await clock.pass(60_000)
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.done`])
})

test('nothing is asked and nothing warned where nothing is ready', async () => {
  const { clock, archiver, told } = stage({ check_configured_cb: () => false })
  void archiver.run()
  await clock.pass(200_000)
  assert.deepEqual(told, [])
})

test('the DETAIL of an earlier check is not shown again', async () => {
  let checks = 0
  const { clock, archiver, makeReady, told } = stage((server: ArchiveServer) => ({
    check_configured_cb: () => {
      checks++
      // The first leaves a text behind and says yes, the second says no and why, the third just no.
      if (checks < 3) server.arch_module_check_errdetail(`Check ${checks}.`)
      return checks === 1 || checks > 3
    },
    archive_file_cb: () => checks > 3,
  }))
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(62_000)
  const warning = 'WARNING: "archive_mode" enabled, yet archiving is not configured'
  assert.deepEqual(told, [warning, 'DETAIL: Check 2.', warning])
})

test('a text that a check leaves behind that says yes is not the DETAIL of the next no', async () => {
  let checks = 0
  const { clock, archiver, makeReady, told } = stage((server: ArchiveServer) => ({
    check_configured_cb: () => {
      if (++checks > 1) return false
      server.arch_module_check_errdetail('Left behind.')
      return true
    },
    archive_file_cb: () => false,
  }))
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(10_000)
  assert.deepEqual(told, ['WARNING: "archive_mode" enabled, yet archiving is not configured'])
})

test('a check that answers anything but true is a no', async () => {
  const { clock, archiver, makeReady, attempts, told } = stage({
    check_configured_cb: () => 'yes' as unknown as boolean,
  })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [])
  assert.deepEqual(told, ['WARNING: "archive_mode" enabled, yet archiving is not configured'])
})

test('an ERROR in check_configured_cb is FATAL, and shutdown_cb is called', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, attempts, told, happened } = stage({
    check_configured_cb: () => {
      throw new Error('cannot tell')
    },
    shutdown_cb: () => void shutdowns++,
  })
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: cannot tell'])
  assert.deepEqual(attempts, [])
  assert.deepEqual(happened, [])
  assert.equal(shutdowns, 1)
})

// Orphans

test('a status file without its WAL file is removed with a WARNING, and the next file has its turn', async () => {
  const { clock, disk, archiver, makeReady, attempts, told, happened, statusFiles } = stage()
  makeReady(segment(1), segment(2))
  disk.drop(`${walDirectory}/${segment(1)}`)
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(told, [
    `WARNING: removed orphan archive status file "pg_wal/archive_status/${segment(1)}.ready"`,
  ])
  assert.deepEqual(attempts, [`0 s ${segment(2)}`])
  assert.deepEqual(happened.slice(0, 3), [`archiving ${segment(2)}`, `archived ${segment(2)}`, 'idle'])
  assert.deepEqual(statusFiles(), [`${segment(2)}.done`])
})

test('a WAL file that vanishes between two attempts makes an orphan', async () => {
  const { clock, disk, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: (_state, file) => {
      disk.drop(`${walDirectory}/${file}`)
      return false
    },
  })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(5_000)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  assert.deepEqual(told, [
    `WARNING: removed orphan archive status file "pg_wal/archive_status/${segment(1)}.ready"`,
  ])
})

test('an orphan that cannot be removed is tried three times, one second apart, then ends the cycle', async () => {
  let isReadOnly = true
  const tries: number[] = []
  const { clock, disk, archiver, makeReady, attempts, told, statusFiles } = stage(
    {},
    {
      mount: {
        fate: ({ operation }) => {
          if (operation !== 'unlink') return undefined
          tries.push(clock.monotonic())
          return isReadOnly ? { kind: 'fails', code: 'EROFS' } : undefined
        },
      },
    },
  )
  makeReady(segment(1), segment(2))
  disk.drop(`${walDirectory}/${segment(1)}`)
  void archiver.run()
  await clock.pass(30_000)
  const statusFile = `pg_wal/archive_status/${segment(1)}.ready`
  const warning = `WARNING: removal of orphan archive status file "${statusFile}" failed too many times, will try again later`
  assert.deepEqual(tries, [0, 1_000, 2_000])
  assert.deepEqual(told, [warning])
  assert.deepEqual(attempts, [])
  isReadOnly = false
  await clock.pass(32_000)
  assert.deepEqual(told, [warning, `WARNING: removed orphan archive status file "${statusFile}"`])
  assert.deepEqual(statusFiles(), [`${segment(2)}.done`])
})

test('a WAL file that cannot be looked at is no orphan: the module finds out what is wrong', async () => {
  const { clock, archiver, makeReady, attempts, told } = stage(
    {},
    {
      mount: {
        fate: ({ operation, path }) =>
          operation === 'stat' && path === `${walDirectory}/${segment(1)}`
            ? { kind: 'fails', code: 'EIO' }
            : undefined,
      },
    },
  )
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  assert.deepEqual(told, [])
})

test('when the whole of pg_wal vanishes, nothing in it is an orphan', async () => {
  const { clock, disk, archiver, makeReady, attempts, told, steps } = stage({
    archive_file_cb: () => {
      disk.remove(walDirectory)
      return false
    },
  })
  makeReady(segment(1), segment(2))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.equal(attempts.length, 3)
  assert.deepEqual(told, [
    `WARNING: archiving write-ahead log file "${segment(1)}" failed too many times, will try again later`,
    'FATAL: could not open directory "pg_wal/archive_status": No such file or directory',
  ])
  assert.equal(steps.filter(({ operation }) => operation === 'unlink').length, 0)
})

// Marking done

test('where the status file cannot be renamed, a WARNING ends the cycle, and the file comes again later', async () => {
  let isReadOnly = true
  const { clock, archiver, makeReady, attempts, told, happened, statusFiles } = stage(
    {},
    {
      mount: {
        fate: ({ operation }) =>
          operation === 'rename' && isReadOnly ? { kind: 'fails', code: 'EROFS' } : undefined,
      },
    },
  )
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(59_000)
  const from = `pg_wal/archive_status/${segment(1)}.ready`
  const to = `pg_wal/archive_status/${segment(1)}.done`
  assert.deepEqual(told, [`WARNING: could not rename file "${from}" to "${to}": Read-only file system`])
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  // It is stored, and counts.
  assert.deepEqual(happened, [`archiving ${segment(1)}`, `archived ${segment(1)}`, 'idle'])
  isReadOnly = false
  await clock.pass(1_000)
  assert.deepEqual(attempts.slice(1), [`60 s ${segment(1)}`, `60 s ${segment(2)}`])
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.done`])
})

test('a rename that failed does not make it deaf to the next news of that name', async () => {
  const { clock, disk, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: () => {
      if (attempts.length === 1) disk.drop(`${statusDirectory}/${segment(1)}.ready`)
      return true
    },
  })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(10_000)
  const from = `pg_wal/archive_status/${segment(1)}.ready`
  const to = `pg_wal/archive_status/${segment(1)}.done`
  assert.deepEqual(told, [`WARNING: could not rename file "${from}" to "${to}": No such file or directory`])
  makeReady(segment(1))
  await clock.pass(0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, `10 s ${segment(1)}`])
})

// The directory itself

test('a directory that cannot be read ends the archiver, after shutdown_cb', async () => {
  let shutdowns = 0
  const { clock, archiver, told } = stage(
    { shutdown_cb: () => void shutdowns++ },
    {
      mount: { fate: ({ operation }) => (operation === 'list' ? { kind: 'fails', code: 'EIO' } : undefined) },
    },
  )
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: could not open directory "pg_wal/archive_status": Input/output error'])
  assert.equal(shutdowns, 1)
})

test('a status file that cannot be looked at ends the archiver, and the message names it', async () => {
  const statusFile = `${statusDirectory}/${segment(2)}.ready`
  const { clock, archiver, makeReady, told } = stage(
    {},
    {
      mount: {
        fate: ({ operation, path }) =>
          operation === 'stat' && path === statusFile ? { kind: 'fails', code: 'EIO' } : undefined,
      },
    },
  )
  makeReady(segment(1), segment(2))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, [
    `FATAL: could not stat file "pg_wal/archive_status/${segment(2)}.ready": Input/output error`,
  ])
})

// FATAL and PANIC

test('FATAL ends the archiver with status 1, after shutdown_cb, and counts as no attempt', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, told, happened, statusFiles } = stage((server: ArchiveServer) => ({
    archive_file_cb: () => server.ereport('FATAL', { errmsg: 'cannot go on', errdetail: 'It broke.' }),
    shutdown_cb: () => void shutdowns++,
  }))
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: cannot go on', 'DETAIL: It broke.'])
  assert.deepEqual(happened, [`archiving ${segment(1)}`])
  assert.deepEqual(statusFiles(), [`${segment(1)}.ready`])
  assert.equal(shutdowns, 1)
})

test('FATAL ends the archiver also where the module catches it', async () => {
  for (const afterwards of ['says true', 'throws something else'] as const) {
    const { clock, archiver, makeReady, told, statusFiles } = stage((server: ArchiveServer) => ({
      archive_file_cb: () => {
        try {
          server.ereport('FATAL', { errmsg: 'cannot go on' })
        } catch {
          if (afterwards === 'says true') return true
          throw new Error('something else')
        }
      },
    }))
    makeReady(segment(1))
    assert.equal(await endOf(clock, archiver.run()), 1)
    assert.deepEqual(told, ['FATAL: cannot go on'])
    assert.deepEqual(statusFiles(), [`${segment(1)}.ready`], afterwards)
  }
})

test('FATAL that a module of ours throws by itself ends the archiver as well', async () => {
  const { clock, archiver, makeReady, told, statusFiles } = stage({
    archive_file_cb: () => {
      throw new ReportedError('FATAL', { errmsg: 'cannot go on' })
    },
  })
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: cannot go on'])
  assert.deepEqual(statusFiles(), [`${segment(1)}.ready`])
})

test('FATAL that is caught in check_configured_cb or in startup_cb ends it as well', async () => {
  for (const callback of ['startup_cb', 'check_configured_cb'] as const) {
    const { clock, archiver, makeReady, attempts, told } = stage((server: ArchiveServer) => ({
      [callback]: () => {
        try {
          server.ereport('FATAL', { errmsg: 'cannot go on' })
        } catch {
          return true
        }
      },
    }))
    makeReady(segment(1))
    assert.equal(await endOf(clock, archiver.run()), 1)
    assert.deepEqual(told, ['FATAL: cannot go on'])
    assert.deepEqual(attempts, [], callback)
  }
})

test('PANIC ends the archiver without shutdown_cb', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, told, happened } = stage((server: ArchiveServer) => ({
    archive_file_cb: () => server.ereport('PANIC', { errmsg: 'nothing can be trusted' }),
    shutdown_cb: () => void shutdowns++,
  }))
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['PANIC: nothing can be trusted'])
  assert.deepEqual(happened, [`archiving ${segment(1)}`])
  assert.equal(shutdowns, 0)
})

test('an ERROR in startup_cb is FATAL, and shutdown_cb is not called', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, attempts, told } = stage({
    startup_cb: () => {
      throw new Error('no store')
    },
    shutdown_cb: () => void shutdowns++,
  })
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: no store'])
  assert.deepEqual(attempts, [])
  assert.equal(shutdowns, 0)
})

test('an error in shutdown_cb is FATAL and makes the status 1', async () => {
  const { clock, archiver, told } = stage({
    shutdown_cb: () => {
      throw new Error('cannot let go')
    },
  })
  archiver.stop()
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, ['FATAL: cannot let go'])
})

test('a shutdown_cb that hangs is given up after 20 seconds, with status 1', async () => {
  const { clock, archiver, told } = stage({ shutdown_cb: () => new Promise(() => {}) })
  archiver.stop()
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.equal(clock.monotonic(), 20_000)
  assert.deepEqual(told, ['WARNING: archive module did not shut down within 20 s'])
})

test('a shutdown_cb that takes its time has it', async () => {
  const { clock, archiver, told } = stage({ shutdown_cb: () => clock.sleep(19_000) })
  archiver.stop()
  assert.equal(await endOf(clock, archiver.run()), 0)
  assert.deepEqual(told, [])
})

// Reload

test('another archive_library ends the archiver in an orderly way, after the file that is under way', async () => {
  const { clock, archiver, makeReady, attempts, told, happened, statusFiles } = stage({
    archive_file_cb: () => {
      archiver.reload(settings('archive_library=other'))
      return true
    },
    shutdown_cb: () => void happened.push('shutdown_cb'),
  })
  makeReady(segment(1), segment(2))
  assert.equal(await endOf(clock, archiver.run()), 0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  assert.deepEqual(told, ['LOG: restarting archiver process because value of "archive_library" was changed'])
  assert.deepEqual(happened, [`archiving ${segment(1)}`, `archived ${segment(1)}`, 'shutdown_cb'])
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.ready`])
})

test('a reload wakes an archiver that waits', async () => {
  const { clock, archiver } = stage()
  const ended = archiver.run()
  await clock.pass(5_000)
  archiver.reload(settings('archive_library=other'))
  assert.equal(await endOf(clock, ended), 0)
  assert.equal(clock.monotonic(), 5_000)
})

test('a reload that leaves archive_library as it is goes on archiving', async () => {
  const { clock, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: () => {
      archiver.reload(settings('archive_library=module'))
      return true
    },
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(0)
  assert.equal(attempts.length, 2)
  assert.deepEqual(told, [])
})

test('new settings come into force between two attempts, not under a callback', async () => {
  const { clock, archiver, makeReady, attempts, told } = stage({
    archive_file_cb: async () => {
      archiver.reload(settings('archive_library=other'))
      await clock.sleep(500)
      assert.deepEqual(told, [])
      return false
    },
  })
  makeReady(segment(1))
  assert.equal(await endOf(clock, archiver.run()), 0)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
})

const bothSet = [
  'FATAL: both "archive_command" and "archive_library" set',
  'DETAIL: Only one of "archive_command", "archive_library" may be set.',
]

test('both archive_command and archive_library at start are FATAL before the module is started', async () => {
  let startups = 0
  const { clock, archiver, told } = stage(
    { startup_cb: () => void startups++ },
    { settings: { archive_library: 'module', archive_command: 'true' } },
  )
  assert.equal(await endOf(clock, archiver.run()), 1)
  assert.deepEqual(told, bothSet)
  assert.equal(startups, 0)
})

test('both set by a reload are FATAL, after shutdown_cb, also when the library is another one', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, attempts, told } = stage({ shutdown_cb: () => void shutdowns++ })
  const ended = archiver.run()
  await clock.pass(5_000)
  makeReady(segment(1))
  archiver.reload(settings('archive_library=other', 'archive_command=true'))
  assert.equal(await endOf(clock, ended), 1)
  assert.deepEqual(told, bothSet)
  assert.deepEqual(attempts, [])
  assert.equal(shutdowns, 1)
})

// The end

test('stop gives one more cycle to an archiver that waits, and then ends it', async () => {
  const { clock, archiver, makeReady, attempts, happened } = stage(
    { shutdown_cb: () => void happened.push('shutdown_cb') },
    { mount: { losesNotification: () => true } },
  )
  const ended = archiver.run()
  await clock.pass(5_000)
  makeReady(segment(1))
  archiver.stop()
  assert.equal(await endOf(clock, ended), 0)
  assert.deepEqual(attempts, [`5 s ${segment(1)}`])
  assert.deepEqual(happened.slice(-2), ['idle', 'shutdown_cb'])
})

test('stop during a cycle is followed by one more full cycle', async () => {
  const { clock, archiver, makeReady, attempts, scans } = stage({
    archive_file_cb: (_state, file) => {
      if (attempts.length === 1) archiver.stop()
      return file !== segment(2)
    },
  })
  makeReady(segment(1), segment(2))
  assert.equal(await endOf(clock, archiver.run()), 0)
  // The third failure ends the cycle in which stop came; the next one begins at once, and is the last.
  const failing = [0, 1, 2, 2, 3, 4].map(second => `${second} s ${segment(2)}`)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`, ...failing])
  assert.equal(scans(), 2)
})

test('the last cycle archives what becomes ready while it lasts', async () => {
  const { clock, archiver, makeReady, attempts } = stage({
    archive_file_cb: (_state, file) => {
      if (file === segment(1)) makeReady(segment(2))
      return true
    },
  })
  makeReady(segment(1))
  archiver.stop()
  assert.equal(await endOf(clock, archiver.run()), 0)
  assert.equal(attempts.length, 2)
})

test('terminate ends archiving after the file under way, and the archiver a minute later', async () => {
  let shutdowns = 0
  const { clock, archiver, makeReady, attempts, statusFiles } = stage({
    archive_file_cb: () => {
      archiver.terminate()
      return true
    },
    shutdown_cb: () => void shutdowns++,
  })
  makeReady(segment(1), segment(2))
  assert.equal(await endOf(clock, archiver.run()), 0)
  assert.equal(clock.monotonic(), 60_000)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.ready`])
  assert.equal(shutdowns, 1)
})

test('a second terminate does not postpone the end, and a wake-up after the minute brings it', async () => {
  const { clock, archiver, makeReady, attempts } = stage()
  const ended = archiver.run()
  await clock.pass(1_000)
  archiver.terminate()
  await clock.pass(30_000)
  archiver.terminate()
  await clock.pass(31_000)
  makeReady(segment(1))
  assert.equal(await endOf(clock, ended), 0)
  assert.equal(clock.monotonic(), 62_000)
  assert.deepEqual(attempts, [])
})

test('a supervisor that stops its archiver gets the last cycle, whenever SIGTERM comes to all processes', async () => {
  for (const order of ['before', 'after']) {
    const { clock, archiver, makeReady, attempts } = stage()
    const ended = archiver.run()
    await clock.pass(1_000)
    makeReady(segment(1), segment(2))
    if (order === 'before') archiver.terminate()
    archiver.finish()
    if (order === 'after') archiver.terminate()
    assert.equal(await endOf(clock, ended), 0)
    assert.deepEqual(attempts, [`1 s ${segment(1)}`, `1 s ${segment(2)}`], order)
  }
})

test('a directory that takes the place of archive_status is watched in its stead', async () => {
  const { clock, disk, archiver, makeReady, attempts } = stage()
  void archiver.run()
  await clock.pass(1_000)
  disk.remove(statusDirectory)
  disk.makeDirectory(statusDirectory)
  await clock.pass(60_000)
  await clock.pass(7_000)
  makeReady(segment(1))
  await clock.pass(1_000)
  assert.deepEqual(attempts, [`68 s ${segment(1)}`])
})

test('an answer that is neither true nor false is told, because a forgotten return is seen nowhere else', async () => {
  const { clock, archiver, makeReady, told } = stage({ archive_file_cb: (() => 'yes') as never })
  makeReady(segment(1))
  void archiver.run()
  await clock.pass(500)
  assert.deepEqual(told, [
    `WARNING: archive module answered a string for file "${segment(1)}"`,
    'HINT: Only true means that it is archived.',
  ])
})

test('each attempt has a signal of its own', async () => {
  const signals = new Set<AbortSignal>()
  const { clock, archiver, makeReady } = stage({
    archive_file_cb: (_state, _file, _path, { signal }) => {
      signals.add(signal)
      return true
    },
  })
  makeReady(segment(1), segment(2))
  void archiver.run()
  await clock.pass(500)
  assert.equal(signals.size, 2)
})

test('stop after terminate ends at once and archives nothing', async () => {
  const { clock, archiver, makeReady, attempts } = stage()
  const ended = archiver.run()
  await clock.pass(1_000)
  archiver.terminate()
  makeReady(segment(1))
  archiver.stop()
  assert.equal(await endOf(clock, ended), 0)
  assert.equal(clock.monotonic(), 1_000)
  assert.deepEqual(attempts, [])
})

test('abandon tells the module that nobody waits, and ends when its call does', async () => {
  const { clock, archiver, makeReady, attempts, told, statusFiles } = stage({
    archive_file_cb: async (_state, _file, _path, { signal }) => {
      await clock.sleep(3_600_000, signal)
      return !signal.aborted
    },
  })
  makeReady(segment(1), segment(2))
  const ended = archiver.run()
  await clock.pass(1_000)
  archiver.abandon()
  assert.equal(await endOf(clock, ended), 0)
  assert.equal(clock.monotonic(), 1_000)
  assert.deepEqual(attempts, [`0 s ${segment(1)}`])
  assert.deepEqual(told, [])
  assert.deepEqual(statusFiles(), [`${segment(1)}.ready`, `${segment(2)}.ready`])
})

test('a file that the module stored all the same is marked done when the archiver was abandoned', async () => {
  const { clock, archiver, makeReady, statusFiles } = stage({
    archive_file_cb: async () => {
      await clock.sleep(2_000)
      return true
    },
  })
  makeReady(segment(1), segment(2))
  const ended = archiver.run()
  await clock.pass(1_000)
  archiver.abandon()
  await endOf(clock, ended)
  assert.deepEqual(statusFiles(), [`${segment(1)}.done`, `${segment(2)}.ready`])
})

test('abandon cuts a pause between two attempts short', async () => {
  const { clock, archiver, makeReady, attempts } = stage({ archive_file_cb: () => false })
  makeReady(segment(1))
  const ended = archiver.run()
  await clock.pass(500)
  archiver.abandon()
  await endOf(clock, ended)
  assert.equal(clock.monotonic(), 500)
  assert.equal(attempts.length, 1)
})
