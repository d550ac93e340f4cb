import assert from 'node:assert/strict'
import { appendFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import {
  type ConfigurationFiles,
  configurationFileBytesMax,
  findConfigurationFile,
  readConfigurationFiles,
  readPostmasterOptions,
} from '../src/host/configuration-file.ts'
import type { Files } from '../src/system/files.ts'
import { realFiles } from '../src/system/real-files.ts'
import { type PostgresServer, requiredMajors, startPostgres } from './support/postgresql-server.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

type Contents = Record<string, string | Uint8Array>

async function write(directory: string, contents: Contents): Promise<void> {
  for (const [name, content] of Object.entries(contents)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), content)
  }
}

/** Reads files from a directory of their own, in which every message calls the directory DIR. */
async function read(contents: Contents, files: Files = realFiles): Promise<ConfigurationFiles> {
  await using directory = await temporaryDirectory()
  await write(directory.path, contents)
  const configFile = join(directory.path, 'postgresql.conf')
  const result = await readConfigurationFiles({ files, configFile, dataDirectory: directory.path })
  const anonymous = (text: string) => text.replaceAll(directory.path, 'DIR')
  return {
    settings: new Map(
      [...result.settings].map(([key, setting]) => [
        key,
        { ...setting, sourcefile: anonymous(setting.sourcefile ?? '') },
      ]),
    ),
    errors: result.errors.map(error => ({ ...error, errmsg: anonymous(error.errmsg) })),
    notices: result.notices.map(notice => ({ ...notice, errmsg: anonymous(notice.errmsg) })),
    sources: result.sources.map(anonymous),
    fileWithErrors: result.fileWithErrors && anonymous(result.fileWithErrors),
  }
}

const readOne = (line: string | Uint8Array) => read({ 'postgresql.conf': line })

// What a PostgreSQL 15 made of each line.
const accepted: readonly (readonly [line: string, name: string, value: string])[] = [
  ['x.a=1', 'x.a', '1'],
  ['x.a yes', 'x.a', 'yes'],
  ["x.a'1'", 'x.a', '1'],
  [`x.d 'it''s \\'q\\' \\101\\n\\x \\\\'`, 'x.d', "it's 'q' A\nx \\"],
  ["x.d = '\\b\\f\\r\\t\\0'", 'x.d', '\b\f\r\t'],
  ["x.s = '\\303\\251\\0rest'", 'x.s', 'é'],
  ["x.s = '\\1012\\8\\777'", 'x.s', 'A28\ufffd'],
  ["x.s = 'a\\400b'", 'x.s', 'a'],
  ["x.v= '' ", 'x.v', ''],
  ["x.v= ''''''", 'x.v', "''"],
  ["x.c = '#no comment' # but this is", 'x.c', '#no comment'],
  ['x.g=1.5e3', 'x.g', '1.5e3'],
  ['x.g=-1.5E-3', 'x.g', '-1.5E-3'],
  ['x.h=0x10', 'x.h', '0x10'],
  ['x.i = -1', 'x.i', '-1'],
  ['x.i = +5kB', 'x.i', '+5kB'],
  ['x.l = 5min# c', 'x.l', '5min'],
  ['x.w = 0x', 'x.w', '0x'],
  ['x.w = 0xg', 'x.w', '0xg'],
  ['x.m=.', 'x.m', '.'],
  ['x.j = a/b:c-d.e', 'x.j', 'a/b:c-d.e'],
  ['x.t=é', 'x.t', 'é'],
  ['é.ü = 1', 'é.ü', '1'],
  ['\t X.Upper \t=\tYes \r', 'X.Upper', 'Yes'],
]

test('a line is a name and a value, quoted where it is not simple', async () => {
  for (const [line, name, value] of accepted) {
    const { settings, errors } = await readOne(`${line}\n`)
    assert.deepEqual(errors, [], line)
    assert.deepEqual(
      [...settings.values()],
      [{ name, value, source: 'PGC_S_FILE', sourcefile: 'DIR/postgresql.conf', sourceline: 1 }],
      line,
    )
  }
})

// What a PostgreSQL 15 stopped at in each line.
const refused: readonly (readonly [line: string, near: string])[] = [
  ['x.e = 1.5GB', 'token "GB"'],
  ['x.f=1e3', 'token "3"'],
  ['x.k = /path', 'token "/"'],
  ["x.n='unterminated", 'token "\'"'],
  ["x.o = 'a''", 'token "\'"'],
  ["x.ff = 'a\\", 'token "\'"'],
  ["x.hh = 1 'a''b", `token "'a'"`],
  ['x.b.c = 2', 'token "x.b.c"'],
  ['x.p', 'end of line'],
  ['x.q =', 'end of line'],
  ['x.u== 5', 'token "="'],
  ['= 5', 'token "="'],
  ['1x = 5', 'token "1x"'],
  ['x.r = a b', 'token "b"'],
  ['x.1y = 3', 'token "x.1y"'],
  ['x.$z = 3', 'token "x."'],
  ['x.z$ = 3', 'token "$"'],
  ['.x = 3', 'token "."'],
  ['x. = 4', 'token "x."'],
  ['x.bb = 5é', 'token "é"'],
  ['x.cc = "dq"', 'token """'],
  ["x.dd = 'tail' x", 'token "x"'],
  ['x.ee = 1..2', 'token ".2"'],
]

test('a line that is none is reported with the first word that does not fit', async () => {
  for (const [line, near] of refused) {
    const { settings, errors, fileWithErrors } = await readOne(`\nx.good = 1\n${line}\nx.more = 2\n`)
    assert.deepEqual(
      errors,
      [{ errmsg: `syntax error in file "DIR/postgresql.conf" line 3, near ${near}`, errcode: '42601' }],
      line,
    )
    assert.deepEqual([...settings.keys()], ['x.good', 'x.more'], line)
    assert.equal(fileWithErrors, 'DIR/postgresql.conf')
  }
})

test('a last line without an end is a line', async () => {
  const { settings, errors } = await readOne("x.a = 1\nx.b = 'two'")
  assert.deepEqual(errors, [])
  assert.equal(settings.get('x.b')?.value, 'two')
  assert.equal(settings.get('x.b')?.sourceline, 2)
})

test('a last line that lacks its value is reported one line early, as by the server', async () => {
  const { errors } = await readOne('x.a = 1\nx.b =')
  assert.equal(errors[0]?.errmsg, 'syntax error in file "DIR/postgresql.conf" line 1, near end of line')
})

test('the last of several lines for one setting counts, whatever the case of its name', async () => {
  const { settings } = await readOne('Work_Mem = 1\nother = 2\nwork_mem = 3\n')
  assert.equal(settings.get('work_mem')?.value, '3')
  assert.equal(settings.get('work_mem')?.sourceline, 3)
})

test('what ALTER SYSTEM wrote counts more than postgresql.conf', async () => {
  const { settings, errors, notices } = await read({
    'postgresql.conf': 'x.a = 1\nx.b = 1\n',
    'postgresql.auto.conf': "# Do not edit this file manually!\nx.a = '2'\n",
  })
  assert.deepEqual([errors, notices], [[], []])
  assert.deepEqual(settings.get('x.a'), {
    name: 'x.a',
    value: '2',
    source: 'PGC_S_FILE',
    sourcefile: 'DIR/postgresql.auto.conf',
    sourceline: 2,
  })
  assert.equal(settings.get('x.b')?.value, '1')
})

test('errors in postgresql.auto.conf are told of that file', async () => {
  const result = await read({ 'postgresql.conf': '', 'postgresql.auto.conf': 'nonsense\n' })
  assert.deepEqual(
    result.errors.map(error => error.errmsg),
    ['syntax error in file "DIR/postgresql.auto.conf" line 1, near end of line'],
  )
  assert.equal(result.fileWithErrors, 'DIR/postgresql.auto.conf')
})

test('a missing configuration file is an error', async () => {
  const { settings, errors, fileWithErrors } = await read({})
  assert.deepEqual(errors, [
    { errmsg: 'could not open configuration file "DIR/postgresql.conf": No such file or directory' },
  ])
  assert.equal(fileWithErrors, 'DIR/postgresql.conf')
  assert.equal(settings.size, 0)
})

test('a data directory without any configuration file gives no settings and no complaint', async () => {
  await using directory = await temporaryDirectory()
  const options = { files: realFiles, dataDirectory: directory.path }
  assert.equal(await findConfigurationFile(options), undefined)
  assert.deepEqual(await readConfigurationFiles({ ...options, configFile: undefined }), {
    settings: new Map(),
    errors: [],
    notices: [],
    sources: [`${directory.path}/postgresql.auto.conf`],
    fileWithErrors: undefined,
  })
})

test('files include others, relative to themselves, at the place where they say so', async () => {
  // Directories list their files in no order, and never in the one that would hide a mistake.
  const files = { ...realFiles, list: async (path: string) => (await realFiles.list(path)).toReversed() }
  const { settings, errors, notices, sources } = await read(
    {
      'postgresql.conf':
        "x.a = 1\nx.b = 1\nINCLUDE 'sub/one.conf'\nx.b = 9\n" +
        "include_if_exists = 'sub/none.conf'\ninclude_dir = 'sub/d/'\n",
      'sub/one.conf': "x.a = 2\nx.b = 2\ninclude '../two.conf'\n",
      'two.conf': 'x.c = 3\n',
      'sub/d/b.conf': 'x.d = b\nx.e = b\n',
      'sub/d/c.conf': 'x.d = c\n',
      'sub/d/a.conf': 'x.d = a\n',
      'sub/d/B.conf': 'x.e = B\nx.f = B\n',
      'sub/d/.hidden.conf': 'nonsense\n',
      'sub/d/a.conf.bak': 'nonsense\n',
      'sub/d/.conf': 'nonsense\n',
      'sub/d/directory.conf/c.conf': 'nonsense\n',
    },
    files,
  )
  assert.deepEqual(errors, [])
  assert.deepEqual(notices, [
    { level: 'LOG', errmsg: 'skipping missing configuration file "DIR/sub/none.conf"' },
  ])
  assert.deepEqual(
    sources,
    [
      'postgresql.conf',
      'sub/one.conf',
      'two.conf',
      'sub/none.conf',
      'sub/d',
      'sub/d/B.conf',
      'sub/d/a.conf',
      'sub/d/b.conf',
      'sub/d/c.conf',
      'postgresql.auto.conf',
    ].map(each => `DIR/${each}`),
  )
  const found = [...settings.values()].map(({ name, value, sourcefile, sourceline }) => [
    name,
    value,
    `${sourcefile}:${sourceline}`,
  ])
  assert.deepEqual(found, [
    ['x.a', '2', 'DIR/sub/one.conf:1'],
    ['x.c', '3', 'DIR/two.conf:1'],
    ['x.b', '9', 'DIR/postgresql.conf:4'],
    ['x.f', 'B', 'DIR/sub/d/B.conf:2'],
    ['x.e', 'b', 'DIR/sub/d/b.conf:2'],
    ['x.d', 'c', 'DIR/sub/d/c.conf:1'],
  ])
})

const messages = (result: ConfigurationFiles) => result.errors.map(error => error.errmsg)

test('what cannot be included is an error, and reading goes on', async () => {
  const result = await read({
    'postgresql.conf':
      "include 'none.conf'\ninclude ''\ninclude ' '\ninclude_dir ' '\ninclude_dir 'nodir/'\n" +
      "include 'directory/'\ninclude 'postgresql.conf'\nx.a = 1\n",
    'directory/a.conf': '',
  })
  assert.deepEqual(messages(result), [
    'could not open configuration file "DIR/none.conf": No such file or directory',
    'empty configuration file name: ""',
    'empty configuration file name: " "',
    'empty configuration directory name: " "',
    'could not open configuration directory "DIR/nodir": No such file or directory',
    'input in flex scanner failed at file "DIR/directory" line 1',
    'configuration file recursion in "DIR/postgresql.conf"',
  ])
  assert.equal(result.errors[5]?.errdetail, 'The file could not be read: Is a directory.')
  assert.equal(result.settings.get('x.a')?.value, '1')
})

test('a file of an included directory that does not exist ends the directory', async () => {
  await using directory = await temporaryDirectory()
  await write(directory.path, { 'postgresql.conf': "include_dir 'd'\nx.b = 1\n", 'd/a.conf': 'x.a = 1\n' })
  await symlink('nowhere', join(directory.path, 'd/b.conf'))
  const { settings, errors } = await readConfigurationFiles({
    files: realFiles,
    configFile: 'postgresql.conf',
    dataDirectory: directory.path,
  })
  assert.deepEqual(errors, [
    { errmsg: `could not stat file "${directory.path}/d/b.conf": No such file or directory` },
  ])
  assert.deepEqual([...settings.keys()], ['x.b'])
})

test('files include each other ten levels deep and no deeper', async () => {
  const contents: Record<string, string> = { 'postgresql.conf': "include 'f1.conf'\n" }
  for (let level = 1; level <= 12; level++) {
    contents[`f${level}.conf`] = `include 'f${level + 1}.conf'\nx.level_${level} = 1\n`
  }
  const result = await read(contents)
  assert.deepEqual(messages(result), [
    'could not open configuration file "f11.conf": maximum nesting depth exceeded',
  ])
  assert.equal(result.settings.size, 10)
})

test('directories that include each other end after a thousand files', async () => {
  const contents: Record<string, string> = { 'postgresql.conf': "include_dir 'd'\n" }
  const others = Array.from({ length: 8 }, (_, file) => `include '../e/${file}.conf'\n`).join('')
  for (let file = 0; file < 8; file++) {
    contents[`d/${file}.conf`] = others
    contents[`e/${file}.conf`] = others.replaceAll('../e', '../d')
  }
  const result = await read(contents)
  const problems = new Set(messages(result).map(message => message.split(': ')[1]))
  assert.deepEqual([...problems], ['maximum nesting depth exceeded', 'too many configuration files'])
  assert.ok(result.errors.length < 20_000, `${result.errors.length} errors`)
})

test('a file is given up after a hundred syntax errors', async () => {
  const result = await readOne('= 1\n'.repeat(150))
  assert.equal(result.errors.length, 101)
  assert.equal(messages(result)[99], 'syntax error in file "DIR/postgresql.conf" line 100, near token "="')
  assert.deepEqual(result.errors[100], {
    errmsg: 'too many syntax errors found, abandoning file "DIR/postgresql.conf"',
    errcode: '54000',
  })
})

test('a file that is too large is not read', async () => {
  const result = await readOne(Buffer.alloc(configurationFileBytesMax + 1, '#'))
  assert.deepEqual(messages(result), ['configuration file "DIR/postgresql.conf" is too large'])
})

test('a quoted string may be as long as the file', async () => {
  const value = "it''s ".repeat(100_000)
  const { settings } = await readOne(`x.a = '${value}'\nx.b = '${value}\n`)
  assert.equal(settings.get('x.a')?.value, value.replaceAll("''", "'"))
})

test('files are bytes: a line in another encoding spoils nothing but itself', async () => {
  const { settings, errors } = await readOne(Buffer.from("x.a = 'caf\xe9'\nx.b = 'ok'\n", 'latin1'))
  assert.deepEqual(errors, [])
  assert.equal(settings.get('x.a')?.value, 'caf\ufffd')
  assert.equal(settings.get('x.b')?.value, 'ok')
})

test('a file that may not be read is reported, but include_if_exists skips it', async () => {
  const files: Files = {
    ...realFiles,
    open: async (path, ...rest) => {
      if (!path.endsWith('secret.conf')) return await realFiles.open(path, ...rest)
      throw Object.assign(new Error('EACCES'), { code: 'EACCES', errno: -13 })
    },
  }
  const result = await read(
    { 'postgresql.conf': "include 'secret.conf'\ninclude_if_exists 'secret.conf'\n" },
    files,
  )
  assert.deepEqual(messages(result), [
    'could not open configuration file "DIR/secret.conf": Permission denied',
  ])
  assert.deepEqual(result.notices, [
    { level: 'LOG', errmsg: 'skipping missing configuration file "DIR/secret.conf"' },
  ])
})

test('the configuration file is the one that postmaster.opts names', async () => {
  await using directory = await temporaryDirectory()
  const options = { files: realFiles, dataDirectory: directory.path }
  const found = async (opts: string) => {
    await writeFile(join(directory.path, 'postmaster.opts'), opts)
    return await findConfigurationFile(options)
  }
  const own = join(directory.path, 'postgresql.conf')
  await writeFile(own, '')
  assert.equal(await found('/bin/postgres "-c" "config_file=/etc/pg/main.conf"\n'), '/etc/pg/main.conf')
  assert.equal(await found('/bin/postgres "--config-file=/etc/pg/main.conf"\n'), '/etc/pg/main.conf')
  assert.equal(await found('/bin/postgres "-cconfig_file=main.conf"\n'), join(directory.path, 'main.conf'))
  assert.equal(await found('/bin/postgres "-D" "/old/place"\n'), own)
  assert.equal(await found(''), own)
  assert.equal(await readPostmasterOptions(realFiles, directory.path), '')
  assert.equal(await readPostmasterOptions(realFiles, join(directory.path, 'none')), '')
})

test('the configuration file may be where -D pointed, if the data directory has none', async () => {
  await using directory = await temporaryDirectory()
  await write(directory.path, {
    'etc/postgresql.conf': '',
    'data/postmaster.opts': `/bin/postgres "-D" "${directory.path}/etc"\n`,
  })
  const dataDirectory = join(directory.path, 'data')
  assert.equal(
    await findConfigurationFile({ files: realFiles, dataDirectory }),
    join(directory.path, 'etc/postgresql.conf'),
  )
})

test('a postmaster.opts that cannot be read is not taken for a missing one', async () => {
  await using directory = await temporaryDirectory()
  await mkdir(join(directory.path, 'postmaster.opts'))
  await assert.rejects(findConfigurationFile({ files: realFiles, dataDirectory: directory.path }), {
    message: `could not read file "${directory.path}/postmaster.opts": Is a directory`,
  })
})

// Files for a real server and for us, each with a main.conf.
const corpus: Record<string, Contents> = {
  'everything that is accepted': {
    'main.conf': `${accepted.map(([line]) => line).join('\n')}\n`,
  },
  'no end of the last line': { 'main.conf': "x.a = 1\n# comment\n\nx.b 'two'" },
  'comments and blank lines': { 'main.conf': '#\n   # x\n\t\n\r\n\fx.a = 1\nx.b = 2 #\nx.c=3#' },
  'zero bytes': { 'main.conf': "x.a = 1\n\0\nx.b = 2\nx.c = 'a\0b'\n" },
  'a byte order mark': { 'main.conf': '\ufeffx.a = 1\nx.b = 1\n' },
  'carriage returns': { 'main.conf': "x.a = 1\r\nx.b = 'two'\r\nx.c =\r\n" },
  'case and repetition': { 'main.conf': 'X.a = 1\nx.A = 2\nx.b = 3\nWORK_MEM = 5MB\nwork_mem = 6MB\n' },
  includes: {
    'main.conf':
      "x.a = 1\ninclude 'sub/one.conf'\nx.b = 9\ninclude_dir 'sub/d/'\ninclude_if_exists 'sub//none.conf'\nx.c = 1\n",
    'sub/one.conf': "x.a = 2\nx.b = 2\ninclude_dir = '../other/./'\ninclude_if_exists '../main2.conf'\n",
    'main2.conf': 'x.main2 = 1\n',
    'other/b.conf': 'x.o = b\n',
    'other/a.conf': 'x.o = a\n',
    'other/Z.conf': 'x.o = Z\n',
    'other/é.conf': 'x.p = é\n',
    'other/x.conf~': 'nonsense\n',
    'other/.conf': 'nonsense\n',
    'sub/d/.h.conf': 'nonsense\n',
    'sub/d/dir.conf/x.conf': 'nonsense\n',
  },
  'everything that is refused': { 'main.conf': `x.good = 1\n${refused.map(([line]) => line).join('\n')}\n` },
  'refused at the end of the file': { 'main.conf': 'x.a = 1\nx.b =' },
  'refused at the end of a file of one line': { 'main.conf': 'x.a' },
  'unterminated at the end of the file': { 'main.conf': "x.a = 1\nx.b = 'a''b" },
  'a backslash at the end of a line': { 'main.conf': "x.a = 'a\\\nb'\nx.b = 1\n" },
  'too many errors': { 'main.conf': '= 1\n\n'.repeat(120) },
  'includes that fail': {
    'main.conf':
      "include 'none.conf'\ninclude ''\ninclude_dir '\\t'\ninclude_dir 'nodir'\ninclude_dir './/nodir/'\ninclude 'sub/'\ninclude 'main.conf'\n" +
      "include_if_exists ''\ninclude_if_exists 'none'\ninclude_if_exists 'sub'\ninclude_dir 'main.conf'\ninclude 'main.conf/x'\n" +
      "include_dir 'sub'\ninclude x y\ninclude\n",
    'sub/a.conf': "= 1\ninclude '../main.conf/..'\n",
    'sub/b.conf': '= 2\n',
  },
  'includes in a circle': {
    'main.conf': "x.a = 1\ninclude 'two.conf'\n",
    'two.conf': "include 'main.conf'\n",
  },
}

/** What the log of a server says about its configuration, without time, process and level. */
function complaints(log: string): string[] {
  return log
    .split('\n')
    .map(line => /LOG: {2}(.*)$/.exec(line)?.[1] ?? '')
    .filter(text =>
      /^(syntax error|could not (open|stat)|empty conf|input in flex|configuration file rec|too many|skipping)/.test(
        text,
      ),
    )
}

interface FileSetting {
  name: string
  setting: string
  sourcefile: string
  sourceline: number
}

/** Reloads the configuration and tells in which file the server found errors, if any. */
async function reloaded(server: PostgresServer): Promise<string | undefined> {
  const loaded = async () => (await server.query('SELECT pg_conf_load_time()::text AS at'))[0]?.['at']
  const before = await loaded()
  const logged = (await server.log()).length
  server.kill('SIGHUP')
  while ((await loaded()) === before) {
    const complaint = /configuration file "(.*)" contains errors; no changes were applied/.exec(
      (await server.log()).slice(logged),
    )
    if (complaint) return complaint[1]
  }
  return undefined
}

for (const major of requiredMajors) {
  test(`PostgreSQL ${major} reads the same settings from odd files, and complains in the same words`, async () => {
    await using server = await startPostgres({ major })
    const directory = server.dataDirectory
    const configFile = join(directory, 'postgresql.conf')
    const original = await readFile(configFile)
    for (const [name, contents] of Object.entries(corpus)) {
      const subdirectory = `corpus ${name}`
      await write(join(directory, subdirectory), contents)
      await writeFile(configFile, original)
      await appendFile(configFile, `\ninclude '${subdirectory}/main.conf'\n`)

      const ours = await readConfigurationFiles({ files: realFiles, configFile, dataDirectory: directory })
      const logged = (await server.log()).length
      const outcome = await reloaded(server)
      if (outcome === undefined) {
        const theirs = await server.query<FileSetting>(
          'SELECT name, setting, sourcefile, sourceline FROM pg_file_settings ORDER BY seqno',
        )
        // Maps are equal in any order, and setting a key again keeps the last, which is what counts.
        assert.deepEqual(
          new Map(
            [...ours.settings.values()].map(setting => [
              setting.name.toLowerCase(),
              [setting.value, setting.sourcefile, setting.sourceline],
            ]),
          ),
          new Map(theirs.map(row => [row.name.toLowerCase(), [row.setting, row.sourcefile, row.sourceline]])),
          name,
        )
      }
      assert.equal(ours.fileWithErrors, outcome, name)
      const theirs = complaints((await server.log()).slice(logged))
      const skipped = (text: string) => text.startsWith('skipping')
      assert.deepEqual(
        messages(ours),
        theirs.filter(text => !skipped(text)),
        name,
      )
      assert.deepEqual(
        ours.notices.map(notice => notice.errmsg),
        // Every process of a server says it, each for itself.
        [...new Set(theirs.filter(skipped))],
        name,
      )
    }
  })
}
