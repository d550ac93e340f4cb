import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { readConfigurationFiles } from '../src/host/configuration-file.ts'
import { isSameMarks, sourceMarks } from '../src/host/source-marks.ts'
import { realFiles } from '../src/system/real-files.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

/** So late that nothing was changed a moment ago. */
const later = { now: () => Date.now() + 60_000 }

test('whatever changes settings changes a mark: files, includes, directories of them, and what is not there yet', async () => {
  await using directory = await temporaryDirectory()
  const path = (name: string) => join(directory.path, name)
  await mkdir(path('conf.d'))
  await mkdir(path('sub'))
  const text = "include 'sub/one.conf'\ninclude_dir 'conf.d'\ninclude_if_exists 'sub/none.conf'\n"
  await writeFile(path('postgresql.conf'), text)
  await writeFile(path('sub/one.conf'), 'x.a = 1\n')
  await writeFile(path('conf.d/a.conf'), 'x.b = 1\n')
  const marks = async () => {
    const dataDirectory = directory.path
    const configFile = path('postgresql.conf')
    const { sources } = await readConfigurationFiles({ files: realFiles, configFile, dataDirectory })
    return await sourceMarks(realFiles, later, sources)
  }
  let before = await marks()
  assert.ok(isSameMarks(before, await marks()), 'nothing has changed')
  const changes: Array<[string, () => Promise<unknown>]> = [
    ['a file is written to', () => writeFile(path('postgresql.conf'), text)],
    ['an included one is', () => writeFile(path('sub/one.conf'), 'x.a = 2\n')],
    ['one of a directory is', () => writeFile(path('conf.d/a.conf'), 'x.b = 2\n')],
    ['one comes into the directory', () => writeFile(path('conf.d/b.conf'), '')],
    ['one goes', () => rm(path('conf.d/a.conf'))],
    ['one comes that may be missing', () => writeFile(path('sub/none.conf'), 'x.a = 3\n')],
    ['ALTER SYSTEM is used for the first time', () => writeFile(path('postgresql.auto.conf'), 'x.a = 4\n')],
    [
      'ALTER SYSTEM is used again',
      async () => {
        await writeFile(path('postgresql.auto.conf.tmp'), 'x.a = 5\n')
        await rename(path('postgresql.auto.conf.tmp'), path('postgresql.auto.conf'))
      },
    ],
  ]
  for (const [what, change] of changes) {
    await change()
    // What the launcher compares is what was read before.
    const now = await Promise.all((before ?? []).map(async ({ path: each }) => stat(each)))
    assert.notDeepEqual(
      now,
      before?.map(({ identity }) => identity),
      what,
    )
    const after = await marks()
    assert.ok(!isSameMarks(before, after), what)
    assert.deepEqual(
      after?.map(({ identity }) => identity),
      after?.map(({ path: each }) => stat(each)),
    )
    before = after
  }
})

/** As the launcher has it. */
function stat(path: string): string {
  try {
    return execFileSync('stat', ['-L', '-c', '%d %i %s %.9Y %.9Z', '--', path], { stdio: 'pipe' })
      .toString()
      .trimEnd()
  } catch {
    return 'is not there'
  }
}

test('what was changed a moment ago has no mark, because the next change might not show', async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'x.conf')
  await writeFile(path, '')
  const { changedNs } = await realFiles.stat(path)
  const changedMs = Number(changedNs / 1_000_000n)
  assert.equal(await sourceMarks(realFiles, { now: () => changedMs + 40 }, [path]), undefined)
  assert.equal((await sourceMarks(realFiles, { now: () => changedMs + 60 }, [path]))?.length, 1)
})

test('where neither file nor directory is, or a name is in two lines, there are no marks', async () => {
  await using directory = await temporaryDirectory()
  assert.equal(await sourceMarks(realFiles, later, [join(directory.path, 'no/x.conf')]), undefined)
  await writeFile(join(directory.path, 'a\nb'), '')
  assert.equal(await sourceMarks(realFiles, later, [join(directory.path, 'a\nb')]), undefined)
})
