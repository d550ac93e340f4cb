import assert from 'node:assert/strict'
import { link, mkdir, mkdtemp, open, readFile, rm, unlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import type { ArchiveModuleCallbacks, ArchiveModuleInit } from '../src/contract/archive-module.ts'
import {
  archiveModuleConformance,
  type ConformanceArchive,
  checkArchiveModule,
} from '../src/contract/conformance.ts'
import { becomeUnprivileged } from './support/unprivileged.ts'

const becomeRootAgain = becomeUnprivileged()

/** A module as its author would write it: one directory, and nothing is true before it is durable. */
const example: ArchiveModuleInit = server => {
  const directory = server.DefineCustomStringVariable({
    name: 'example.directory',
    short_desc: 'Where WAL files are archived.',
    boot_value: '',
  })
  server.MarkGUCPrefixReserved('example')
  let attempts = 0

  async function sync(path: string): Promise<void> {
    await using file = await open(path)
    await file.sync()
  }

  async function archive(file: string, path: string): Promise<boolean> {
    const content = await readFile(path)
    const final = join(directory.value, file)
    const temporary = join(directory.value, `.${file}.${process.pid}.${performance.now()}.${attempts++}`)
    await writeFile(temporary, content, { flag: 'wx', flush: true })
    try {
      await link(temporary, final)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (content.equals(await readFile(final))) await sync(final)
      else server.ereport('ERROR', { errmsg: `archive file "${file}" already exists with other contents` })
    } finally {
      await unlink(temporary)
    }
    await sync(directory.value)
    return true
  }

  return {
    check_configured_cb: () => {
      if (directory.value === '') server.arch_module_check_errdetail('example.directory is not set.')
      return directory.value !== ''
    },
    archive_file_cb: (_state, file, path) => archive(file, path),
    archive_ahead: true,
  }
}

async function newArchive(): Promise<ConformanceArchive> {
  const directory = await mkdtemp(join(tmpdir(), 'conformance-archive-'))
  return {
    settings: { 'example.directory': directory },
    relativeSettings: dataDirectory => ({ 'example.directory': relative(dataDirectory, directory) }),
    archived: file => readFile(join(directory, file)).catch(() => undefined),
    close: () => rm(directory, { recursive: true }),
  }
}

for (const { name, prove } of archiveModuleConformance({ init: example, newArchive })) test(name, prove)

// A suite that finds nothing is worth nothing: modules that are wrong, each in one way, and the facts that say so.

const [segment, history, backup, partial] = [
  '000000010000000000000001',
  '00000002.history',
  '000000010000000000000001.00000028.backup',
  '000000010000000000000002.partial',
] as const
const kinds = [segment, history, backup, partial]
const archived = kinds.map(
  file => `${file} is archived under its name, with its content, and the source is left alone`,
)
const again = kinds.map(
  file => `${file} is accepted again with the same content, as after a crash of the server`,
)
const refused = kinds.map(file => `${file} is refused with other content, and the first content stays`)
const vanished = 'a source that has vanished is a failure, and can be archived when it is there'
const vanishedAgain = 'a source that has vanished is a failure, also when the file has been archived before'
const isUnreadable = 'a source that may not be read is a failure'
const isDirectory = 'a source that is a directory is a failure'
const empty = 'an empty file is archived as one or refused'
const whole = 'a segment of 16 MB is archived whole'
const relativePath = 'a path in the settings may be relative to the data directory'
const configured = 'check_configured_cb is true with the settings, and false without them'
const leak = 'a module that is started and shut down again and again holds nothing open'
const raceSame = 'two servers that archive the same file at the same time both succeed'
const raceOther =
  'of two servers that archive different files under one name at the same time, at most one succeeds'
const aborted =
  'a call that is aborted, before it begins or while it runs, tells the truth, and the next one succeeds'
const ahead = 'a module with archive_ahead takes several files at once'

const isRoot = process.geteuid?.() === 0 // who may read everything

type Change = (callbacks: ArchiveModuleCallbacks, directory: () => string) => Partial<ArchiveModuleCallbacks>

/** The example, with some callbacks replaced. */
function changed(change: Change): ArchiveModuleInit {
  return async server => {
    let directory = { value: '' }
    const callbacks = await example({
      ...server,
      DefineCustomStringVariable: declaration => {
        directory = server.DefineCustomStringVariable(declaration)
        return directory
      },
    })
    return { ...callbacks, ...change(callbacks, () => directory.value) }
  }
}

async function failuresOf(init: ArchiveModuleInit): Promise<string[]> {
  const results = await checkArchiveModule({ init, newArchive })
  return results.filter(({ outcome }) => outcome === 'failed').map(({ name }) => name)
}

const wrong: [fact: string, change: Change, failures: string[]][] = [
  [
    'says true and does nothing',
    () => ({ archive_file_cb: () => true }),
    [
      ...archived,
      ...again,
      ...refused,
      vanished,
      vanishedAgain,
      isDirectory,
      ...(isRoot ? [] : [isUnreadable]),
      empty,
      whole,
      relativePath,
    ].concat([raceSame, raceOther, aborted, ahead]),
  ],
  [
    'overwrites',
    (_callbacks, directory) => ({
      archive_file_cb: async (_state, file, path) => {
        await writeFile(join(directory(), file), await readFile(path))
        return true
      },
    }),
    [...refused, raceOther],
  ],
  [
    'refuses what is there already',
    (_callbacks, directory) => ({
      archive_file_cb: async (_state, file, path) => {
        await writeFile(join(directory(), file), await readFile(path), { flag: 'wx' })
        return true
      },
    }),
    [...again, leak, raceSame, aborted],
  ],
  [
    'takes whatever is there for the same',
    (_callbacks, directory) => ({
      archive_file_cb: async (_state, file, path) => {
        const content = await readFile(path)
        await writeFile(join(directory(), file), content, { flag: 'wx' }).catch(() => {})
        return true
      },
    }),
    [...refused, raceOther],
  ],
  [
    'takes a vanished source for an archived one',
    callbacks => ({
      archive_file_cb: async (state, file, path, context) => {
        const there = await readFile(path).catch((error: NodeJS.ErrnoException) => error.code !== 'ENOENT')
        return there === false || callbacks.archive_file_cb(state, file, path, context)
      },
    }),
    [vanished, vanishedAgain],
  ],
  [
    'answers with a string',
    callbacks => ({
      archive_file_cb: async (...call) => {
        const answer: unknown = (await callbacks.archive_file_cb(...call)) && 'archived'
        return answer as boolean
      },
    }),
    [...archived, ...again, ...refused, vanished, vanishedAgain, empty, whole, relativePath].concat([
      leak,
      raceSame,
      raceOther,
      aborted,
      ahead,
    ]),
  ],
  [
    'loses the end of what is large',
    (_callbacks, directory) => ({
      archive_file_cb: async (_state, file, path) => {
        const content = (await readFile(path)).subarray(0, 10_000_000)
        const final = join(directory(), file)
        const temporary = `${final}.${performance.now()}`
        await writeFile(temporary, content, { flag: 'wx' })
        await link(temporary, final).catch(() => {})
        await unlink(temporary)
        return content.equals(await readFile(final))
      },
    }),
    [whole],
  ],
  [
    'only handles segments',
    callbacks => ({
      archive_file_cb: (state, file, path, context) =>
        file.includes('.') || callbacks.archive_file_cb(state, file, path, context),
    }),
    [...archived.slice(1), ...again.slice(1), ...refused.slice(1), empty, raceSame, raceOther, aborted],
  ],
  [
    'moves the source away',
    callbacks => ({
      archive_file_cb: async (state, file, path, context) => {
        const answer = await callbacks.archive_file_cb(state, file, path, context)
        await unlink(path)
        return answer
      },
    }),
    [...archived, ...again, vanishedAgain, leak, aborted],
  ],
  ['never says whether it is configured', () => ({ check_configured_cb: () => true }), [configured]],
  [
    'takes a path as relative to the root',
    (callbacks, directory) => ({
      archive_file_cb: async (state, file, path, context) => {
        if (!directory().startsWith('/')) await mkdir(`/nosuch/${directory()}`)
        return callbacks.archive_file_cb(state, file, path, context)
      },
    }),
    [relativePath],
  ],
  [
    'remembers an abort for ever',
    callbacks => {
      let over = false
      return {
        archive_file_cb: (state, file, path, context) => {
          over ||= context.signal.aborted
          return !over && callbacks.archive_file_cb(state, file, path, context)
        },
      }
    },
    [aborted],
  ],
  [
    'says that an aborted call was a success',
    callbacks => ({
      archive_file_cb: (state, file, path, context) =>
        context.signal.aborted || callbacks.archive_file_cb(state, file, path, context),
    }),
    [aborted],
  ],
]
for (const [fact, change, failures] of wrong) {
  test(`the suite finds a module that ${fact}`, async () => {
    assert.deepEqual(await failuresOf(changed(change)), failures)
  })
}

test('the suite finds a module that leaves its files open', async () => {
  const left: { close(): Promise<void> }[] = []
  const leaky = changed(() => ({ startup_cb: async () => void left.push(await open('/dev/null')) }))
  assert.deepEqual(await failuresOf(leaky), [leak])
  for (const file of left) await file.close()
})

test('the suite finds a module that shares one temporary name between servers', async () => {
  const sharing = changed((_callbacks, directory) => ({
    archive_file_cb: async (_state, file, path) => {
      const content = await readFile(path)
      const final = join(directory(), file)
      const there = await readFile(final).catch(() => undefined)
      if (there !== undefined) return content.equals(there)
      const temporary = `${final}.tmp`
      await writeFile(temporary, content)
      await link(temporary, final)
      await unlink(temporary)
      return true
    },
  }))
  const failures = await failuresOf(sharing)
  assert(failures.includes(raceSame), failures.join('\n'))
})

test('a failure tells what the module said', async () => {
  const talking: ArchiveModuleInit = server => {
    server.DefineCustomStringVariable({ name: 'example.directory', short_desc: 's', boot_value: '' })
    return {
      archive_file_cb: () => {
        server.ereport('LOG', { errmsg: 'cannot today' })
        return server.ereport('ERROR', { errmsg: 'no room' })
      },
    }
  }
  const [fact] = archiveModuleConformance({ init: talking, newArchive })
  await assert.rejects(fact?.prove() ?? Promise.resolve(), {
    message: `"${segment}": it was not archived. The module said:\n  LOG: cannot today\n  ERROR: no room`,
  })
})

test('a setting that the module does not know is a mistake in the settings, and named', async () => {
  const [fact] = archiveModuleConformance({ init: () => ({ archive_file_cb: () => true }), newArchive })
  await assert.rejects(fact?.prove() ?? Promise.resolve(), {
    message: /^the module does not declare the settings example\.directory/,
  })
})

test('facts that do not apply are skipped, with the reason', async () => {
  const serial = changed(() => ({ archive_ahead: false, check_configured_cb: undefined as never }))
  const results = await checkArchiveModule({
    init: serial,
    newArchive: async () => {
      const archive = await newArchive()
      delete archive.relativeSettings
      return archive
    },
  })
  const skipped = results
    .filter(({ outcome }) => outcome === 'skipped')
    .map(({ name, reason }) => [name, reason])
  const root = [[isUnreadable, 'this user may read everything']]
  assert.deepEqual(skipped, [
    ...(isRoot ? root : []),
    [relativePath, 'no relative settings were given'],
    [configured, 'the module has no check_configured_cb'],
    [ahead, 'the module takes one file at a time'],
  ])
})

test('the suite is what pgarchivist/conformance exports, and puts the working directory back', async () => {
  becomeRootAgain() // the package may lie where only root may enter
  const { exports } = createRequire(import.meta.url)('../package.json') as {
    exports: Record<string, unknown>
  }
  assert.deepEqual(exports['./conformance'], {
    types: './dist/contract/conformance.d.ts',
    default: './dist/contract/conformance.js',
  })
  const before = process.cwd()
  await checkArchiveModule({ init: example, newArchive })
  assert.equal(process.cwd(), before)
})
