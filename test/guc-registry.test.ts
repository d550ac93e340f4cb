import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type LogMessage, ReportedError } from '../src/contract/error-report.ts'
import type { GucContext } from '../src/contract/guc.ts'
import { GucRegistry, settingChangeMessage } from '../src/host/guc-registry.ts'
import { mergeSettings, parseCommandLineSetting, type Settings, settingsOf } from '../src/host/settings.ts'

const short_desc = 'For a test.'

/** Settings as a file would give them, one line each. */
function file(values: Record<string, string>): Settings {
  return settingsOf(
    Object.entries(values).map(([name, value], index) => ({
      name,
      value,
      source: 'PGC_S_FILE',
      sourcefile: '/postgresql.conf',
      sourceline: index + 1,
    })),
  )
}

function registry(settings: Settings = file({})) {
  const logged: LogMessage[] = []
  const gucs = new GucRegistry({ log: message => void logged.push(message) })
  gucs.load(settings)
  return { gucs, logged }
}

test('a setting that nobody gives has its boot value', () => {
  const { gucs, logged } = registry()
  const enabled = gucs.defineBool({ name: 'x.enabled', short_desc, boot_value: true })
  const count = gucs.defineInt({ name: 'x.count', short_desc, boot_value: 3 })
  const factor = gucs.defineReal({ name: 'x.factor', short_desc, boot_value: 0.5 })
  const directory = gucs.defineString({ name: 'x.directory', short_desc, boot_value: '' })
  const mode = gucs.defineEnum({ name: 'x.mode', short_desc, boot_value: 'a', options: ['a', 'b'] })
  assert.deepEqual(
    [enabled.value, count.value, factor.value, directory.value, mode.value],
    [true, 3, 0.5, '', 'a'],
  )
  assert.deepEqual(logged, [])
})

test('a placeholder becomes the value when its setting is declared, with the type of the declaration', () => {
  const { gucs, logged } = registry(
    file({
      'x.enabled': 'OFF',
      'X.Count': '0x10',
      'x.factor': '2.5',
      'x.timeout': '1.5min',
      'x.memory': '1GB',
      'x.directory': ' as written ',
      'x.mode': 'B',
      work_mem: 'what the server makes of it is not our business',
    }),
  )
  assert.equal(gucs.get('x.count'), '0x10')
  gucs.defineBool({ name: 'x.enabled', short_desc, boot_value: true })
  gucs.defineInt({ name: 'x.count', short_desc, boot_value: 3 })
  gucs.defineReal({ name: 'x.factor', short_desc, boot_value: 0.5 })
  gucs.defineInt({ name: 'x.timeout', short_desc, boot_value: 1, flags: ['GUC_UNIT_S'] })
  gucs.defineInt({ name: 'x.memory', short_desc, boot_value: 1, flags: ['GUC_UNIT_MB'] })
  gucs.defineString({ name: 'x.directory', short_desc, boot_value: '' })
  gucs.defineEnum({ name: 'x.mode', short_desc, boot_value: 'a', options: ['a', 'b'] })
  assert.deepEqual(
    gucs.values(),
    new Map<string, unknown>([
      ['x.enabled', false],
      ['x.count', 16],
      ['x.factor', 2.5],
      ['x.timeout', 90],
      ['x.memory', 1024],
      ['x.directory', ' as written '],
      ['x.mode', 'b'],
    ]),
  )
  assert.equal(gucs.get('X.COUNT'), 16)
  assert.deepEqual(logged, [])
})

test('a bad value at start is a WARNING, and the boot value is used', () => {
  const { gucs, logged } = registry(
    file({
      'x.enabled': 'maybe',
      'x.count': '5',
      'x.size': '5 mb',
      'x.factor': 'much',
      'x.mode': 'c',
      'x.huge': '1TB',
    }),
  )
  const enabled = gucs.defineBool({ name: 'x.enabled', short_desc, boot_value: true })
  const count = gucs.defineInt({
    name: 'x.count',
    short_desc,
    boot_value: 20,
    min_value: 10,
    max_value: 100,
    flags: ['GUC_UNIT_MS'],
  })
  gucs.defineInt({ name: 'x.size', short_desc, boot_value: 1, flags: ['GUC_UNIT_KB'] })
  gucs.defineReal({ name: 'x.factor', short_desc, boot_value: 1 })
  gucs.defineEnum({ name: 'x.mode', short_desc, boot_value: 'a', options: ['a', 'b'] })
  gucs.defineInt({ name: 'x.huge', short_desc, boot_value: 1, flags: ['GUC_UNIT_BYTE'] })
  assert.deepEqual([enabled.value, count.value], [true, 20])
  const warning = { level: 'WARNING', errcode: '22023' }
  assert.deepEqual(logged, [
    { ...warning, errmsg: 'parameter "x.enabled" requires a Boolean value' },
    {
      ...warning,
      errmsg: '5 ms is outside the valid range for parameter "x.count" (10 ms .. 100 ms)',
    },
    {
      ...warning,
      errmsg: 'invalid value for parameter "x.size": "5 mb"',
      errhint: 'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".',
    },
    { ...warning, errmsg: 'invalid value for parameter "x.factor": "much"' },
    {
      ...warning,
      errmsg: 'invalid value for parameter "x.mode": "c"',
      errhint: 'Available values: a, b.',
    },
    {
      ...warning,
      errmsg: 'invalid value for parameter "x.huge": "1TB"',
      errhint: 'Value exceeds integer range.',
    },
  ])
})

test('a check hook may refuse a value, in its own words or in the usual ones', () => {
  const { gucs, logged } = registry(
    file({ 'x.a': 'on', 'x.b': '7', 'x.c': '1e10', 'x.d': 'text', 'x.e': 'B', 'x.f': 'other' }),
  )
  const no = (boot: unknown) => (value: unknown) => value === boot
  gucs.defineBool({ name: 'x.a', short_desc, boot_value: false, check_hook: no(false) })
  gucs.defineInt({ name: 'x.b', short_desc, boot_value: 0, check_hook: no(0) })
  gucs.defineReal({ name: 'x.c', short_desc, boot_value: 0, check_hook: no(0) })
  gucs.defineString({
    name: 'x.d',
    short_desc,
    boot_value: '',
    check_hook: (value, check) => {
      check.GUC_check_errdetail(`Seen from ${check.source}.`)
      check.GUC_check_errhint('Leave it empty.')
      return value === ''
    },
  })
  gucs.defineEnum({
    name: 'x.e',
    short_desc,
    boot_value: 'a',
    options: ['a', 'b'],
    check_hook: no('a'),
  })
  const own = gucs.defineString({
    name: 'x.f',
    short_desc,
    boot_value: '',
    check_hook: (value, check) => {
      check.GUC_check_errmsg('this one is not for you')
      return value === ''
    },
  })
  assert.equal(own.value, '')
  const warning = { level: 'WARNING', errcode: '22023' }
  assert.deepEqual(logged, [
    { ...warning, errmsg: 'invalid value for parameter "x.a": 1' },
    { ...warning, errmsg: 'invalid value for parameter "x.b": 7' },
    { ...warning, errmsg: 'invalid value for parameter "x.c": 1e+10' },
    {
      ...warning,
      errmsg: 'invalid value for parameter "x.d": "text"',
      errdetail: 'Seen from PGC_S_FILE.',
      errhint: 'Leave it empty.',
    },
    { ...warning, errmsg: 'invalid value for parameter "x.e": "b"' },
    { ...warning, errmsg: 'this one is not for you' },
  ])
})

test('a check hook that throws has refused, and its message is the DETAIL', () => {
  const { gucs, logged } = registry(file({ 'x.a': '1', 'x.b': '1' }))
  const throwing = (value: number) => {
    if (value === 0) return true
    throw new Error('this hook has a bug')
  }
  gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0, check_hook: throwing })
  gucs.defineInt({
    name: 'x.b',
    short_desc,
    boot_value: 0,
    check_hook: value => {
      if (value === 0) return true
      throw new ReportedError('ERROR', { errmsg: 'could not look', errhint: 'Look elsewhere.' })
    },
  })
  assert.deepEqual(
    logged.map(({ level, errmsg, errdetail, errhint }) => [level, errmsg, errdetail, errhint]),
    [
      ['WARNING', 'invalid value for parameter "x.a": 1', 'this hook has a bug', undefined],
      ['WARNING', 'invalid value for parameter "x.b": 1', 'could not look', 'Look elsewhere.'],
    ],
  )
})

test('a check hook that reports FATAL means the process, not the value', () => {
  const { gucs } = registry(file({ 'x.a': '1' }))
  const check_hook = (value: number) => {
    if (value === 0) return true
    throw new ReportedError('FATAL', { errmsg: 'cannot go on' })
  }
  assert.throws(() => gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0, check_hook }), {
    level: 'FATAL',
    errmsg: 'cannot go on',
  })
})

test('a check hook that is asynchronous is found out at once, and its promise ends nobody', async () => {
  const { gucs } = registry()
  // As in JavaScript, where nothing says that hooks are synchronous.
  const check_hook: () => boolean = Object(async () => {
    throw new Error('nobody waits for this')
  })
  assert.throws(() => gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0, check_hook }), {
    level: 'FATAL',
    errmsg: 'failed to initialize x.a to 0',
    errdetail: 'The check hook did not return a Boolean.',
  })
  await new Promise(resolve => setImmediate(resolve)) // when a rejection would be found unhandled
})

test('an assign hook is told the boot value, then each value, before the value is there', () => {
  const { gucs } = registry(file({ 'x.a': '1' }))
  const told: number[] = []
  const seen: unknown[] = []
  const assign_hook = (value: number) => {
    told.push(value)
    seen.push(told.length === 1 ? undefined : gucs.get('x.a'))
  }
  gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0, assign_hook })
  gucs.reload(file({ 'x.a': '2' }))
  gucs.reload(file({}))
  assert.deepEqual(told, [0, 1, 2, 0])
  assert.deepEqual(seen.slice(2), [1, 2])
})

test('an assign hook that throws leaves the old value', () => {
  const { gucs, logged } = registry()
  const assign_hook = (value: string) => {
    if (value !== '') throw new Error('no room')
  }
  const variable = gucs.defineString({ name: 'x.a', short_desc, boot_value: '', assign_hook })
  assert.deepEqual(gucs.reload(file({ 'x.a': 'new' })), [])
  assert.equal(variable.value, '')
  assert.deepEqual(
    logged.map(({ level, errmsg, errdetail }) => [level, errmsg, errdetail]),
    [['WARNING', 'invalid value for parameter "x.a": "new"', 'no room']],
  )
})

test('declaring a setting twice is an ERROR, whatever the case and the type', () => {
  const { gucs } = registry()
  gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0 })
  gucs.defineString({ name: 'archive_library', short_desc, boot_value: '' }, 'core')
  assert.throws(() => gucs.defineString({ name: 'X.A', short_desc, boot_value: '' }), {
    name: 'ReportedError',
    level: 'ERROR',
    errmsg: 'attempt to redefine parameter "X.A"',
    errcode: 'XX000',
  })
  assert.throws(() => gucs.defineString({ name: 'archive_library', short_desc, boot_value: '' }), {
    level: 'ERROR',
    errmsg: 'attempt to redefine parameter "archive_library"',
  })
})

test('what a module cannot declare is FATAL or an ERROR, and is not declared', () => {
  const { gucs } = registry()
  const declaration = { name: 'x.a', short_desc, boot_value: '' }
  assert.throws(() => gucs.defineString({ ...declaration, context: 'PGC_POSTMASTER' }), {
    level: 'FATAL',
    errmsg: 'cannot create PGC_POSTMASTER variables after startup',
  })
  assert.throws(() => gucs.defineString({ ...declaration, flags: ['GUC_LIST_QUOTE'] }), {
    level: 'FATAL',
    errmsg: 'extensions cannot define GUC_LIST_QUOTE variables',
  })
  for (const name of ['a', 'x.1y', 'x..y', '']) {
    assert.throws(() => gucs.defineString({ ...declaration, name }), {
      level: 'ERROR',
      errmsg: `invalid configuration parameter name "${name}"`,
      errdetail: 'Custom parameter names must be two or more simple identifiers separated by dots.',
      errcode: '42602',
    })
  }
  assert.deepEqual(gucs.values(), new Map())
})

test('a boot value that its own declaration refuses is FATAL', () => {
  const { gucs } = registry()
  const failed = (errmsg: string, errdetail: string) => ({ level: 'FATAL', errmsg, errdetail })
  assert.throws(
    () => gucs.defineInt({ name: 'x.a', short_desc, boot_value: 5, min_value: 10 }),
    failed(
      'failed to initialize x.a to 5',
      '5 is outside the valid range for parameter "x.a" (10 .. 2147483647)',
    ),
  )
  assert.throws(
    () => gucs.defineInt({ name: 'x.a', short_desc, boot_value: 1.5 }),
    failed('failed to initialize x.a to 1.5', 'The value is not an integer.'),
  )
  assert.throws(
    () => gucs.defineReal({ name: 'x.a', short_desc, boot_value: Number.NaN }),
    failed(
      'failed to initialize x.a to NaN',
      'NaN is outside the valid range for parameter "x.a" (-1.79769e+308 .. 1.79769e+308)',
    ),
  )
  assert.throws(
    () => gucs.defineString({ name: 'x.a', short_desc, boot_value: JSON.parse('null') }),
    failed('failed to initialize x.a to "null"', 'The value is not a string.'),
  )
  assert.throws(
    () => gucs.defineEnum<string>({ name: 'x.a', short_desc, boot_value: 'c', options: ['a', 'b'] }),
    failed('failed to initialize x.a to "c"', 'Available values: a, b.'),
  )
  assert.throws(
    () => gucs.defineBool({ name: 'x.a', short_desc, boot_value: true, check_hook: () => false }),
    failed('failed to initialize x.a to 1', 'invalid value for parameter "x.a": 1'),
  )
  assert.deepEqual(gucs.values(), new Map())
})

test('reserving a prefix removes what is not declared, and names it', () => {
  const { gucs, logged } = registry(
    file({ 'x.known': '1', 'X.Typo': '2', 'x.sub.typo': '3', 'xy.other': '4' }),
  )
  gucs.defineInt({ name: 'x.known', short_desc, boot_value: 0 })
  gucs.markPrefixReserved('x')
  gucs.markPrefixReserved('x')
  const removed = (name: string) => ({
    level: 'WARNING',
    errmsg: `invalid configuration parameter name "${name}", removing it`,
    errdetail: '"x" is now a reserved prefix.',
    errcode: '42602',
  })
  assert.deepEqual(logged, [removed('X.Typo'), removed('x.sub.typo')])
  assert.deepEqual(
    gucs.values(),
    new Map<string, unknown>([
      ['xy.other', '4'],
      ['x.known', 1],
    ]),
  )
  assert.throws(() => gucs.get('x.typo'), {
    level: 'ERROR',
    errmsg: 'unrecognized configuration parameter "x.typo"',
    errcode: '42704',
  })
})

test('what is declared after its prefix was reserved begins with its boot value', () => {
  const settings = file({ 'x.late': '1' })
  const { gucs } = registry(settings)
  gucs.markPrefixReserved('x')
  const late = gucs.defineInt({ name: 'x.late', short_desc, boot_value: 0 })
  assert.equal(late.value, 0)
  gucs.reload(settings)
  assert.equal(late.value, 1)
})

test('under a reserved prefix a reload brings no placeholders, and says so', () => {
  const { gucs, logged } = registry()
  gucs.markPrefixReserved('x')
  assert.deepEqual(gucs.reload(file({ 'x.typo': '1' })), [])
  assert.deepEqual(logged, [
    {
      level: 'WARNING',
      errmsg: 'invalid configuration parameter name "x.typo"',
      errdetail: '"x" is a reserved prefix.',
      errcode: '42602',
    },
  ])
})

test('a reload changes values, takes back what was removed, and returns both', () => {
  const { gucs, logged } = registry(
    file({ 'x.a': '1', 'x.b': '1', 'x.same': '1min', 'x.free': 'p', work_mem: '1' }),
  )
  const a = gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0 })
  const b = gucs.defineInt({ name: 'x.b', short_desc, boot_value: 0 })
  gucs.defineInt({ name: 'x.same', short_desc, boot_value: 0, flags: ['GUC_UNIT_S'] })
  const changes = gucs.reload(file({ 'x.b': '2', 'x.same': '60', 'x.free': 'q', work_mem: '2' }))
  assert.deepEqual([a.value, b.value, gucs.get('x.free')], [0, 2, 'q'])
  assert.deepEqual(changes.map(settingChangeMessage), [
    { level: 'LOG', errmsg: 'parameter "x.a" removed from configuration file, reset to default' },
    { level: 'LOG', errmsg: 'parameter "x.b" changed to "2"' },
    { level: 'LOG', errmsg: 'parameter "x.free" changed to "q"' },
  ])
  assert.deepEqual(logged, [])
})

test('a value refused on reload is a WARNING every time, and the old one stays until it is right', () => {
  const { gucs, logged } = registry(file({ 'x.a': '7' }))
  const a = gucs.defineInt({ name: 'x.a', short_desc, boot_value: 0, max_value: 9 })
  const warning = {
    level: 'WARNING',
    errmsg: '10 is outside the valid range for parameter "x.a" (-2147483648 .. 9)',
    errcode: '22023',
  }
  assert.deepEqual(gucs.reload(file({ 'x.a': '10' })), [])
  assert.deepEqual(gucs.reload(file({ 'x.a': '10' })), [])
  assert.equal(a.value, 7)
  assert.deepEqual(logged, [warning, warning])
  assert.deepEqual(gucs.reload(file({ 'x.a': '8' })), [{ name: 'x.a', value: '8' }])
  assert.equal(a.value, 8)
})

test('what a check hook refuses on reload leaves the other settings to change', () => {
  const { gucs, logged } = registry(file({ 'x.dir': '/old', 'x.b': '1' }))
  const check_hook = (value: string) => value !== '/bad'
  const dir = gucs.defineString({ name: 'x.dir', short_desc, boot_value: '', check_hook })
  const b = gucs.defineInt({ name: 'x.b', short_desc, boot_value: 0 })
  assert.deepEqual(gucs.reload(file({ 'x.dir': '/bad', 'x.b': '2' })), [{ name: 'x.b', value: '2' }])
  assert.deepEqual([dir.value, b.value], ['/old', 2])
  assert.deepEqual(logged, [
    { level: 'WARNING', errmsg: 'invalid value for parameter "x.dir": "/bad"', errcode: '22023' },
  ])
})

test('the context decides what a reload may change', () => {
  const reloaded = (context: GucContext, next: Record<string, string>) => {
    const { gucs, logged } = registry(file({ a: '1' }))
    const a = gucs.defineInt({ name: 'a', short_desc, boot_value: 0, context }, 'core')
    gucs.reload(file(next))
    return [a.value, ...logged.map(({ level, errmsg, errcode }) => `${level} ${errcode}: ${errmsg}`)]
  }
  const restart = 'WARNING 55P02: parameter "a" cannot be changed without restarting the server'
  for (const context of ['PGC_SIGHUP', 'PGC_SUSET', 'PGC_USERSET'] as const) {
    assert.deepEqual(reloaded(context, { a: '2' }), [2], context)
    assert.deepEqual(reloaded(context, {}), [0], context)
  }
  for (const context of ['PGC_BACKEND', 'PGC_SU_BACKEND'] as const) {
    assert.deepEqual(reloaded(context, { a: '2' }), [1], context)
    assert.deepEqual(reloaded(context, {}), [1], context)
  }
  assert.deepEqual(reloaded('PGC_POSTMASTER', { a: '2' }), [1, restart])
  assert.deepEqual(reloaded('PGC_POSTMASTER', { a: '0x1' }), [1], 'the same, otherwise written')
  assert.deepEqual(reloaded('PGC_POSTMASTER', {}), [1, restart])
  const never = 'WARNING 55P02: parameter "a" cannot be changed'
  assert.deepEqual(reloaded('PGC_INTERNAL', { a: '2' }), [0, never, never])
})

test('a value from the command line is not checked again, and no file changes it', () => {
  const commandLine = settingsOf([parseCommandLineSetting('x.a=1')])
  const { gucs } = registry(mergeSettings(file({ 'x.a': '5' }), commandLine))
  const checked: string[] = []
  const a = gucs.defineInt({
    name: 'x.a',
    short_desc,
    boot_value: 0,
    check_hook: (value, { source }) => {
      checked.push(`${value} ${source}`)
      return true
    },
  })
  assert.deepEqual(gucs.reload(mergeSettings(file({ 'x.a': '6' }), commandLine)), [])
  assert.equal(a.value, 1)
  assert.deepEqual(checked, ['0 PGC_S_DEFAULT', '1 PGC_S_ARGV'])
})

test('core settings have no prefix, exist before anything is loaded, and get their values then', () => {
  const logged: LogMessage[] = []
  const gucs = new GucRegistry({ log: message => void logged.push(message) })
  const library = gucs.defineString({ name: 'archive_library', short_desc, boot_value: '' }, 'core')
  const mode = gucs.defineEnum(
    {
      name: 'archive_mode',
      short_desc,
      boot_value: 'on',
      options: ['on', 'off', 'always'],
      context: 'PGC_POSTMASTER',
    },
    'core',
  )
  gucs.load(file({ archive_library: 'basic_archive', archive_mode: 'Always', 'x.$bad': '1' }))
  assert.deepEqual([library.value, mode.value], ['basic_archive', 'always'])
  assert.equal(gucs.get('Archive_Library'), 'basic_archive')
  assert.throws(() => gucs.get('work_mem'), {
    errmsg: 'unrecognized configuration parameter "work_mem"',
  })
  assert.deepEqual(logged, [
    {
      level: 'WARNING',
      errmsg: 'invalid configuration parameter name "x.$bad"',
      errdetail: 'Custom parameter names must be two or more simple identifiers separated by dots.',
      errcode: '42602',
    },
  ])
})

test('a variable cannot be written to', () => {
  const { gucs } = registry()
  const variable = gucs.defineInt({ name: 'x.a', short_desc, boot_value: 1 })
  assert.throws(() => Object.assign(variable, { value: 2 }), TypeError)
  assert.equal(variable.value, 1)
})
