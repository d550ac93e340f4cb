import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReportedError } from '../src/contract/error-report.ts'
import { postmasterOptions } from '../src/host/postmaster-options.ts'
import {
  isCustomName,
  mergeSettings,
  parseCommandLineSetting,
  settingKey,
  settingsOf,
} from '../src/host/settings.ts'

test('a setting on the command line is a name and a value, with dashes in the name read as underscores', () => {
  assert.deepEqual(parseCommandLineSetting('archive-mode=on'), {
    name: 'archive_mode',
    value: 'on',
    source: 'PGC_S_ARGV',
  })
  assert.deepEqual(parseCommandLineSetting('archive_command=cp -n %p /a=b/%f'), {
    name: 'archive_command',
    value: 'cp -n %p /a=b/%f',
    source: 'PGC_S_ARGV',
  })
  assert.equal(parseCommandLineSetting('basic_archive.archive_directory=').value, '')
})

test('a setting on the command line without a value is an error that repeats what was written', () => {
  assert.throws(() => parseCommandLineSetting('archive-mode'), {
    name: 'ReportedError',
    level: 'ERROR',
    errmsg: '-c archive-mode requires a value',
    errcode: '42601',
  })
  assert.throws(() => parseCommandLineSetting('archive-mode', '--archive-mode'), {
    errmsg: '--archive-mode requires a value',
  })
})

test('a name that no extension can have is refused on the command line', () => {
  const refused = (name: string) => ({
    level: 'ERROR',
    errmsg: `invalid configuration parameter name "${name}"`,
    errdetail: 'Custom parameter names must be two or more simple identifiers separated by dots.',
    errcode: '42602',
  })
  assert.throws(() => parseCommandLineSetting('x.1y=3'), refused('x.1y'))
  assert.throws(() => parseCommandLineSetting('a b.c=3'), refused('a b.c'))
  assert.throws(() => parseCommandLineSetting('x.=3'), ReportedError)
})

test('names of custom settings are identifiers with dots between them', () => {
  for (const name of ['x.y', 'x.y.z', 'x.y$1', 'é.ü', '_._', 'X.Y', 'x.🐘']) {
    assert.equal(isCustomName(name), true, name)
  }
  for (const name of ['x', 'x.', '.y', 'x..y', 'x.1y', 'x.$y', 'x y.z', 'x-y.z', '', 'x.y\n']) {
    assert.equal(isCustomName(name), false, name)
  }
})

test('only ASCII letters of a name are folded to lower case', () => {
  assert.equal(settingKey('Archive_Mode'), 'archive_mode')
  assert.equal(settingKey('É.Ü'), 'É.Ü')
})

test('of settings with one name the last one counts, at the place where it stands', () => {
  const settings = settingsOf([
    { name: 'Work_Mem', value: '1', source: 'PGC_S_FILE', sourcefile: '/a', sourceline: 1 },
    { name: 'other', value: '2', source: 'PGC_S_FILE', sourcefile: '/a', sourceline: 2 },
    { name: 'work_mem', value: '3', source: 'PGC_S_FILE', sourcefile: '/a', sourceline: 3 },
  ])
  assert.deepEqual(
    [...settings.entries()].map(([key, { name, value, sourceline }]) => [key, name, value, sourceline]),
    [
      ['other', 'other', '2', 2],
      ['work_mem', 'work_mem', '3', 3],
    ],
  )
})

test('the command line counts more than any file', () => {
  const merged = mergeSettings(
    settingsOf([
      { name: 'X.A', value: 'file', source: 'PGC_S_FILE', sourcefile: '/a', sourceline: 1 },
      { name: 'x.b', value: 'file', source: 'PGC_S_FILE', sourcefile: '/a', sourceline: 2 },
    ]),
    settingsOf([parseCommandLineSetting('x.a=argument')]),
  )
  assert.deepEqual(merged.get('x.a'), { name: 'x.a', value: 'argument', source: 'PGC_S_ARGV' })
  assert.equal(merged.get('x.b')?.value, 'file')
})

test('settings can be sent to another thread', () => {
  const settings = settingsOf([parseCommandLineSetting('x.a=1')])
  assert.deepEqual(structuredClone(settings), settings)
})

test('postmaster.opts gives the settings that the postmaster was started with', () => {
  // As a PostgreSQL 15 wrote it.
  const text =
    '/usr/lib/postgresql/15/bin/postgres "-D" "/tmp/d" "-c" "listen_addresses=" "-k" "/tmp" "--x.arg-name=3"\n'
  assert.deepEqual(
    [...postmasterOptions(text).values()].map(({ name, value }) => [name, value]),
    [
      ['listen_addresses', ''],
      ['x.arg_name', '3'],
    ],
  )
})

test('postmaster.opts is taken apart as getopt does it', () => {
  const given = (...words: string[]) =>
    [...postmasterOptions(`/bin/postgres ${words.map(word => `"${word}"`).join(' ')}\n`).values()].map(
      ({ name, value }) => `${name}=${value}`,
    )
  assert.deepEqual(given('-carchive_mode=on'), ['archive_mode=on'])
  assert.deepEqual(given('-Fc', 'archive-mode=on'), ['archive_mode=on'])
  assert.deepEqual(given('-D', '-c', '-c', 'a.b=1'), ['a.b=1'], '-c as the value of -D')
  assert.deepEqual(given('-c', 'a.b=x "y" z'), ['a.b=x "y" z'], 'quotes are not escaped in the file')
  assert.deepEqual(given('-c', 'a.b=1', '-c', 'A.B=2'), ['A.B=2'])
  assert.deepEqual(given('--a.b=1', '--', '-c', 'a.c=2'), ['a.b=1'])
  assert.deepEqual(given('-c'), [])
  assert.deepEqual(given('-c', 'novalue'), [])
  assert.deepEqual([...postmasterOptions('').keys()], [])
  assert.deepEqual([...postmasterOptions('/bin/postgres\n').keys()], [])
  assert.deepEqual([...postmasterOptions('/bin/postgres "').keys()], [])
})
