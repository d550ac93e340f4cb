import assert from 'node:assert/strict'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { generateX25519Identity } from 'age-encryption'
import { dataDirectoryOf, type RepositoryFlags, RepositorySettings } from '../src/cli/repository-settings.ts'
import { RepositoryError } from '../src/repository/repository-error.ts'
import type { RepositoryUrl } from '../src/repository/repository-url.ts'
import { realFiles } from '../src/system/real-files.ts'
import { temporaryDirectory, unprivileged } from './support/unprivileged.ts'

interface Place extends AsyncDisposable {
  data: string
  write(name: string, text: string): Promise<void>
  read(options?: { flags?: RepositoryFlags; environment?: NodeJS.ProcessEnv }): Promise<RepositorySettings>
}

async function place(): Promise<Place> {
  const directory = await temporaryDirectory()
  const data = join(directory.path, 'data')
  await mkdir(join(data, 'global'), { recursive: true })
  return {
    data,
    write: (name, text) => writeFile(join(data, name), text),
    read: ({ flags = {}, environment = {} } = {}) =>
      RepositorySettings.read({ files: realFiles, flags, environment, workingDirectory: data }),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

function refused(deed: () => unknown, message: string | RegExp, hint?: string | RegExp): void {
  assert.throws(deed, (thrown: unknown) => {
    assert.ok(thrown instanceof RepositoryError)
    assert.equal(thrown.kind, 'settings')
    if (typeof message === 'string') assert.equal(thrown.message, message)
    else assert.match(thrown.message, message)
    if (typeof hint === 'string') assert.equal(thrown.hint, hint)
    else if (hint) assert.match(thrown.hint, hint)
    return true
  })
}

const pathOf = (urls: readonly RepositoryUrl[]) =>
  urls.map(url => (url.scheme === 'file' ? url.directory : url.scheme)).join(' ')

test('the data directory is the named one, else the parent of the pg_wal of the file, else the working directory', () => {
  const of = (pgdata: string | undefined, walPath: string | undefined) =>
    dataDirectoryOf({ flags: { pgdata }, walPath, workingDirectory: '/elsewhere' })
  assert.equal(of('/named', '/data/pg_wal/x'), '/named')
  assert.equal(of('../named', undefined), '/named')
  assert.equal(of(undefined, '/data/pg_wal/x'), '/data')
  assert.equal(of(undefined, 'data/pg_wal/x'), '/elsewhere/data')
  assert.equal(of(undefined, 'pg_wal/x'), '/elsewhere')
  assert.equal(of(undefined, '/pg_wal/x'), '/')
  assert.equal(of(undefined, '/data/pg_wal/below/x'), '/elsewhere')
  assert.equal(of(undefined, 'x'), '/elsewhere')
  assert.equal(of(undefined, undefined), '/elsewhere')
})

test('files count less than the command line of the server, that less than the environment, and flags most', async () => {
  await using directory = await place()
  const url = async (options = {}) => pathOf((await directory.read(options)).repositories)
  await directory.write('postgresql.conf', `pgarchivist.repository = 'file:///from/conf'\n`)
  assert.equal(await url(), '/from/conf')
  await directory.write('postgresql.auto.conf', `PgArchivist.Repository = 'file:///from/auto'\n`)
  assert.equal(await url(), '/from/auto')
  await directory.write(
    'postmaster.opts',
    `/usr/bin/postgres "-D" "${directory.data}" "-c" "pgarchivist.repository=file:///from/opts"\n`,
  )
  assert.equal(await url(), '/from/opts')
  const environment = { PGARCHIVIST_REPOSITORY: 'file:///from/environment' }
  assert.equal(await url({ environment }), '/from/environment')
  assert.equal(await url({ environment, flags: { repository: 'file:///from/flag' } }), '/from/flag')
  assert.equal(await url({ environment: { PGARCHIVIST_REPOSITORY: '' } }), '/from/opts')
})

test('the configuration file is the one that the server was started with', async () => {
  await using directory = await place()
  await directory.write('elsewhere.conf', `pgarchivist.repository = 'file:///from/elsewhere'\n`)
  await directory.write(
    'postmaster.opts',
    `/usr/bin/postgres "--config_file=${directory.data}/elsewhere.conf"\n`,
  )
  await directory.write('postgresql.conf', `pgarchivist.repository = 'file:///from/conf'\n`)
  assert.equal(pathOf((await directory.read()).repositories), '/from/elsewhere')
})

test('types, units, lists and relative paths are those of the server', async () => {
  await using directory = await place()
  await directory.write(
    'postgresql.conf',
    `pgarchivist.compression_level = 0x3
     pgarchivist.spool_limit = 2GB
     pgarchivist.spool_directory = 'spool'
     pgarchivist.header_check = of\n`,
  )
  const settings = await directory.read({ flags: {}, environment: { PGARCHIVIST_COMPRESSION_LEVEL: '7' } })
  assert.equal(settings.compressionLevel, 7)
  assert.equal(settings.spoolLimitBytes, 2 * 1024 ** 3)
  assert.equal(settings.spoolDirectory, join(directory.data, 'spool'))
  assert.equal(settings.headerCheck, false)
  assert.deepEqual(settings.recipients, [])
  const defaults = await directory.read({
    flags: { spoolDirectory: '', spoolLimit: '1TB', headerCheck: 'on' },
  })
  assert.equal(defaults.spoolDirectory, undefined)
  assert.equal(defaults.spoolLimitBytes, 1024 ** 4)
  assert.equal(defaults.headerCheck, true)
})

test('what cannot be used is named with its place, when it is needed', async () => {
  await using directory = await place()
  await directory.write('postgresql.conf', `\npgarchivist.compression_level = 20\n`)
  await directory.write('postmaster.opts', `/usr/bin/postgres "-c" "pgarchivist.header_check=perhaps"\n`)
  const settings = await directory.read({
    flags: { spoolLimit: '1 kB', repository: 'file:///srv/wal' },
    environment: { PGARCHIVIST_ENCRYPTION_RECIPIENTS: 'age1, age1' },
  })
  assert.equal(pathOf(settings.repositories), '/srv/wal')
  refused(
    () => settings.compressionLevel,
    `20 is outside the valid range for parameter "pgarchivist.compression_level" (1 .. 19), in file "${directory.data}/postgresql.conf" line 2`,
    'Correct the setting.',
  )
  refused(
    () => settings.spoolLimitBytes,
    '1 kB is outside the valid range for parameter "pgarchivist.spool_limit" (65536 kB .. 2147483647 kB), in option "--spool-limit"',
  )
  refused(
    () => settings.headerCheck,
    'parameter "pgarchivist.header_check" requires a Boolean value, in the command line of the server',
  )
  refused(() => settings.recipients, /^"pgarchivist.encryption_recipients": recipient 1 /)
  const unit = await directory.read({ environment: { PGARCHIVIST_SPOOL_LIMIT: '1 parsec' } })
  refused(
    () => unit.spoolLimitBytes,
    'invalid value for parameter "pgarchivist.spool_limit": "1 parsec", in environment variable PGARCHIVIST_SPOOL_LIMIT',
    'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".',
  )
})

test('files with errors stand for nothing, but what is said beside them counts', async () => {
  await using directory = await place()
  await directory.write('postgresql.conf', `pgarchivist.repository = 'file:///srv/wal'\nnonsense\n`)
  const settings = await directory.read({ environment: { PGARCHIVIST_SPOOL_LIMIT: '1GB' } })
  refused(
    () => settings.repositories,
    `syntax error in file "${directory.data}/postgresql.conf" line 2, near end of line`,
    `Configuration file "${directory.data}/postgresql.conf" contains errors: correct it, or run this as a user who may read it.`,
  )
  assert.equal(settings.spoolLimitBytes, 1024 ** 3)
})

test('the system identifier is that of the control file, unless another one is named', async () => {
  await using directory = await place()
  const control = Buffer.alloc(8192)
  control.writeBigUInt64LE(18_446_744_073_709_551_615n)
  await writeFile(join(directory.data, 'global/pg_control'), control)
  assert.equal(await (await directory.read()).systemIdentifier(), '18446744073709551615')
  const environment = { PGARCHIVIST_SYSTEM_IDENTIFIER: '12' }
  assert.equal(await (await directory.read({ environment })).systemIdentifier(), '12')
  const flags = { systemIdentifier: '13' }
  assert.equal(await (await directory.read({ environment, flags })).systemIdentifier(), '13')
  for (const wrong of ['0', '../1', '1x', '-1']) {
    await assert.rejects(
      async () => (await directory.read({ flags: { systemIdentifier: wrong } })).systemIdentifier(),
      {
        message: `"${wrong}" in option "--system-identifier" is not a system identifier`,
      },
    )
  }
  await writeFile(join(directory.data, 'global/pg_control'), Buffer.alloc(8192))
  await assert.rejects(async () => (await directory.read()).systemIdentifier(), {
    message: `could not read the system identifier from file "${directory.data}/global/pg_control"`,
  })
})

test('a named data directory that is not there is told before anything is missed in it', async () => {
  await using directory = await place()
  const flags = { pgdata: 'nowhere', repository: 'file:///srv/wal' }
  const settings = await directory.read({ flags })
  const message = `data directory "${join(directory.data, 'nowhere')}" does not exist`
  const hint = 'Name the data directory of the server with -D.'
  assert.equal(pathOf(settings.repositories), '/srv/wal')
  refused(() => settings.recipients, message, hint)
  await assert.rejects(settings.systemIdentifier(), { message, hint })
  assert.equal(
    await (await directory.read({ flags: { ...flags, systemIdentifier: '1' } })).systemIdentifier(),
    '1',
  )
})

test('an identity file is for its owner only, or for a group where it belongs to root', async () => {
  await using directory = await place()
  const key = await generateX25519Identity()
  const file = join(directory.data, 'key')
  const flags = { identityFile: 'key' }
  assert.deepEqual(await (await directory.read()).identities(), [])
  await writeFile(file, `# created\n${key}\n`)
  const isRoot = 'uid' in unprivileged
  for (const [mode, isAccepted] of [
    [0o600, true],
    [0o400, true],
    [0o640, isRoot],
    [0o660, false],
    [0o644, false],
    [0o601, false],
  ] as const) {
    await chmod(file, mode)
    const identities = (await directory.read({ flags })).identities()
    if (isAccepted) assert.deepEqual(await identities, [key])
    else
      await assert.rejects(identities, {
        message: `identity file "${file}" may be read or changed by others`,
      })
  }
})

// "/tmp" as an identity file was met with the advice to change the permissions of /tmp.
test('an identity file is a file', async () => {
  await using directory = await place()
  for (const [identityFile, what] of [
    ['global', 'is a directory'],
    ['/dev/null', 'is not a regular file'],
  ] as const) {
    await assert.rejects((await directory.read({ flags: { identityFile } })).identities(), {
      message: `identity file "${resolve(directory.data, identityFile)}" ${what}`,
      hint: 'Let "pgarchivist.identity_file" name a file that holds secret keys as "age-keygen" writes them.',
    })
  }
})

test('a data directory with nothing in it will do', async () => {
  await using directory = await place()
  const settings = await directory.read({ flags: { repository: 'file:///srv/wal', systemIdentifier: '1' } })
  assert.equal(pathOf(settings.repositories), '/srv/wal')
  assert.equal(await settings.systemIdentifier(), '1')
  assert.equal(await settings.hasCluster(), false)
  assert.equal(settings.compressionLevel, 1)
  const nothing = await directory.read()
  refused(
    () => nothing.repositories,
    '"pgarchivist.repository" is not set',
    `Set it in the configuration of the server whose data directory is "${directory.data}", or use --repository or PGARCHIVIST_REPOSITORY.`,
  )
})
