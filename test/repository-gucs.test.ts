// The settings of the module repository: one list here, one in the library, and values under both callers.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { DeclaringGucRegistry, type ServerGuc } from '../src/bridge/declaring-guc-registry.ts'
import { libraryGucs } from '../src/bridge/library-gucs.ts'
import type { ToServer } from '../src/bridge/messages.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import { GucRegistry } from '../src/host/guc-registry.ts'
import { type Settings, settingsOf } from '../src/host/settings.ts'
import { type RepositoryGuc, repositoryGucs } from '../src/repository/repository-gucs.ts'
import { BridgedServer, removeTemplates } from './bridge/bridged-server.ts'
import { availableMajors, startPostgres } from './support/postgresql-server.ts'
import { buildableMajors, buildServerLibrary } from './support/server-library.ts'
import { checkout } from './support/unprivileged.ts'

const available = await availableMajors()
const allMajors = (await buildableMajors()).filter(major => available.includes(major))

const gucs: readonly RepositoryGuc[] = repositoryGucs

function declare(registry: GucRegistry, guc: RepositoryGuc): { readonly value: unknown } {
  switch (guc.type) {
    case 'bool':
      return registry.defineBool(guc)
    case 'int':
      return registry.defineInt(guc)
    case 'string':
      return registry.defineString(guc)
    default:
      return guc satisfies never
  }
}

const asText = (value: unknown) => (typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value))

/** What the server sends of its own settings when nothing is configured, and what it would send besides. */
const fromServer = (values: Record<string, string> = {}): Settings =>
  settingsOf(
    Object.entries({
      'pgarchivist.module': 'repository',
      'pgarchivist.file_timeout': '60000',
      ...Object.fromEntries(gucs.map(guc => [guc.name, asText(guc.boot_value)])),
      ...values,
    }).map(([name, value]) => ({ name, value, source: 'PGC_S_FILE' })),
  )

function bridged(settings: Settings) {
  const sent: ToServer[] = []
  const said: LogMessage[] = []
  const registry = new DeclaringGucRegistry({
    log: message => said.push(message),
    send: message => sent.push(message),
    inServer: repositoryGucs,
  })
  registry.load(settings)
  return { registry, sent, said }
}

const configured = {
  'pgarchivist.repository': 'file:///srv/wal,file:///mnt/wal',
  'pgarchivist.repository_quorum': '1',
  'pgarchivist.compression_level': '3',
  'pgarchivist.encryption_recipients': 'age1one, age1two',
  'pgarchivist.identity_file': '/etc/identity',
  'pgarchivist.spool_directory': '/var/spool',
  'pgarchivist.header_check': 'off',
}
const values = [
  'file:///srv/wal,file:///mnt/wal',
  1,
  3,
  'age1one, age1two',
  '/etc/identity',
  '/var/spool',
  128 * 1024,
  false,
]

test('the standalone archiver gives them the values of postgresql.conf', () => {
  const said: LogMessage[] = []
  const registry = new GucRegistry({ log: message => said.push(message) })
  const written = { ...configured, 'pgarchivist.spool_limit': '128MB' }
  registry.load(
    settingsOf(Object.entries(written).map(([name, value]) => ({ name, value, source: 'PGC_S_FILE' }))),
  )
  assert.deepEqual(
    gucs.map(guc => declare(registry, guc).value),
    values,
  )
  assert.deepEqual(said, [])
})

test('the bridge gives them the values of the server, which it does not tell what it has', () => {
  const { registry, sent, said } = bridged(
    fromServer({ ...configured, 'pgarchivist.spool_limit': `${128 * 1024}` }),
  )
  const variables = gucs.map(guc => declare(registry, guc))
  registry.markPrefixReserved('pgarchivist')
  assert.deepEqual(
    variables.map(each => each.value),
    values,
  )
  assert.deepEqual([sent, said], [[], []])

  registry.reload(fromServer({ ...configured, 'pgarchivist.compression_level': '19' }))
  assert.equal(variables[2]?.value, 19)
})

test('what the library has for itself is not a change for the module', () => {
  const { registry } = bridged(fromServer())
  for (const guc of gucs) declare(registry, guc)
  assert.deepEqual(registry.reload(fromServer({ 'pgarchivist.file_timeout': '30000' })), [])
})

test('what the server refuses of the rest is told after a reload, and once of what the module has declared', () => {
  const refused = { 'pgarchivist.stop_timeout': 'later', 'pgarchivist.spool_limit': '1kB' }
  const told = [
    'invalid value for parameter "pgarchivist.stop_timeout": "later"',
    '1 kB is outside the valid range for parameter "pgarchivist.spool_limit" (65536 kB .. 2147483647 kB)',
  ]
  for (const declared of [[], gucs]) {
    const { registry, said } = bridged(fromServer())
    for (const guc of declared) declare(registry, guc)
    registry.reload(fromServer(refused))
    assert.deepEqual(said.map(({ level, errmsg }) => `${level} ${errmsg}`).toSorted(), [
      ...told.map(text => `WARNING ${text}`).toSorted(),
    ])
  }
})

test('a module may add hooks to such a declaration, and a refusal is told', () => {
  const { registry, said } = bridged(fromServer())
  const [repository] = repositoryGucs
  const variable = registry.defineString({ ...repository, check_hook: value => !value.includes('@') })
  registry.reload(fromServer({ 'pgarchivist.repository': 's3://me:secret@host' }))
  assert.equal(variable.value, '')
  assert.deepEqual(
    said.map(({ level }) => level),
    ['WARNING'],
  )
})

test('a declaration that is not the one of the server is refused, whatever differs', () => {
  for (const guc of gucs) {
    const others: object[] = [
      { short_desc: 'x' },
      { long_desc: 'x' },
      { context: 'PGC_USERSET' },
      { flags: ['GUC_NOT_IN_SAMPLE'] },
    ]
    if (guc.type === 'int')
      others.push({ boot_value: 70_000, max_value: 80_000 }, { max_value: 2_000_000_000 })
    if (guc.type === 'bool') others.push({ boot_value: false })
    if (guc.type === 'string') others.push({ boot_value: 'x' })
    for (const other of others) {
      const { registry, sent } = bridged(fromServer())
      assert.throws(() => declare(registry, { ...guc, ...other }), {
        level: 'ERROR',
        errmsg: `attempt to redefine parameter "${guc.name}"`,
      })
      assert.deepEqual(sent, [])
    }
  }
})

test('of the prefix pgarchivist there are no others', () => {
  for (const name of ['pgarchivist.module', 'pgarchivist.mine', 'PgArchivist.mine']) {
    const { registry, sent } = bridged(fromServer())
    assert.throws(() => registry.defineString({ name, short_desc: '', boot_value: '' }), {
      level: 'ERROR',
      errmsg: `invalid configuration parameter name "${name}"`,
      errdetail: '"pgarchivist" is a reserved prefix.',
    })
    assert.deepEqual(sent, [])
  }
})

test('a library that is older than the module does not stand in for what is configured with a default', () => {
  const older = new Map(fromServer())
  older.delete('pgarchivist.encryption_recipients')
  const { registry } = bridged(older)
  assert.throws(() => gucs.forEach(guc => declare(registry, guc)), {
    level: 'ERROR',
    errmsg: 'the library in the server does not know the setting "pgarchivist.encryption_recipients"',
    errhint: 'It is older than the module. Run "pgarchivist install", then restart the archiver.',
  })
})

const units: Partial<Record<string, string>> = { GUC_UNIT_KB: 'kB', GUC_UNIT_MB: 'MB', GUC_UNIT_MS: 'ms' }

function inPgSettings(guc: ServerGuc): Record<string, string | null> {
  const isInt = guc.type === 'int'
  const unit = (guc.flags ?? []).map(flag => units[flag]).find(each => each !== undefined)
  return {
    name: guc.name,
    vartype: guc.type === 'int' ? 'integer' : guc.type,
    unit: unit ?? null,
    min_val: isInt ? String(guc.min_value) : null,
    max_val: isInt ? String(guc.max_value) : null,
    boot_val: asText(guc.boot_value),
    context: 'sighup',
    short_desc: guc.short_desc,
    extra_desc: guc.long_desc ?? null,
  }
}

describe('in a real server', () => {
  for (const major of allMajors) {
    test(`${major} they and those of the library itself are the ones of the lists, and no others are`, async () => {
      await using server = await startPostgres({
        major,
        settings: { shared_preload_libraries: await buildServerLibrary(major) },
      })
      const columns = 'name, vartype, unit, min_val, max_val, boot_val, context, short_desc, extra_desc'
      const rows = await server.query(
        `SELECT ${columns} FROM pg_settings WHERE name LIKE 'pgarchivist.%' ORDER BY name COLLATE "C"`,
      )
      assert.deepEqual(
        rows,
        [...libraryGucs, ...gucs].map(inPgSettings).toSorted((a, b) => (a['name']! < b['name']! ? -1 : 1)),
      )
      for (const guc of gucs) {
        assert.equal(guc.context, 'PGC_SIGHUP')
        const takesList = guc.flags?.includes('GUC_LIST_INPUT') === true
        // What takes a list takes two values; anything else refuses the second one.
        const setting = server.query(`ALTER SYSTEM SET ${guc.name} = '64MB', 'b'`)
        if (takesList) await setting
        else await assert.rejects(setting, { message: `SET ${guc.name} takes only one argument` })
      }
    })
  }

  for (const major of [15, 18]) {
    test(`${major} their values reach a module, at the start and after a reload`, async () => {
      const list = join(await checkout(), 'src/repository/repository-gucs.ts')
      await using server = await BridgedServer.start({
        major,
        settings: { ...configured, 'pgarchivist.spool_limit': '128MB' },
        module: ({ archive, journal }) => `
import { appendFileSync, copyFileSync } from 'node:fs'
import { repositoryGucs } from '${list}'
const define = { bool: 'DefineCustomBoolVariable', int: 'DefineCustomIntVariable', string: 'DefineCustomStringVariable' }
export function _PG_archive_module_init(server) {
  const variables = repositoryGucs.map(guc => server[define[guc.type]](guc))
  server.MarkGUCPrefixReserved('pgarchivist')
  return {
    archive_file_cb(state, file, path) {
      appendFileSync('${journal}', JSON.stringify(variables.map(each => each.value)) + '\\n')
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}`,
      })
      await server.staysUp(async () => {
        await server.archives(await server.postgres.switchWal())
        assert.deepEqual(await server.journal(), [JSON.stringify(values)])

        await server.postgres.configure({
          'pgarchivist.compression_level': '19',
          'pgarchivist.spool_limit': '1kB',
        })
        await server.archives(await server.postgres.switchWal())
        assert.deepEqual((await server.journal())[1], JSON.stringify(values.with(2, 19)))
        // The server itself would keep silent about a value that it does not take.
        await server.says(
          /^WARNING: {2}1 kB is outside the valid range for parameter "pgarchivist\.spool_limit" \(65536 kB \.\. 2147483647 kB\)$/,
        )

        // A process that is started again declares the same.
        process.kill(await server.nodePid(), 'SIGKILL')
        await server.archives(await server.postgres.switchWal())
        assert.equal(await server.saidTimes(/attempt to redefine|reserved prefix|restarting archiver/), 0)
        await server.counts({ failed_count: 0, archived_count: 3 })
      })
    })
  }
})

after(removeTemplates)
