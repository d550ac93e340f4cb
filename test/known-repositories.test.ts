import assert from 'node:assert/strict'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { KnownRepositoriesFile } from '../src/repository/known-repositories.ts'
import { realFiles } from '../src/system/real-files.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

test('processes that begin to use a repository at the same moment all remember it', async () => {
  // With one temporary name for all, one of them removed the file of another, which then said that it was replaced.
  await using directory = await temporaryDirectory()
  for (let round = 0; round < 20; round++) {
    const dataDirectory = join(directory.path, `data-${round}`)
    await mkdir(dataDirectory)
    const writers = ['module', 'archive-push 1', 'archive-push 2', 'archive-push 3'].map(
      writer =>
        new KnownRepositoriesFile({ files: realFiles, dataDirectory, isGroupReadable: false, writer }),
    )
    await Promise.all(writers.map(each => each.remember('file:///srv/wal', 'id')))
    assert.deepEqual(JSON.parse(await readFile(writers[0]?.path ?? '', 'utf8')), { 'file:///srv/wal': 'id' })
    assert.deepEqual(await readdir(join(dataDirectory, 'pgarchivist')), ['repositories.json'])
  }
})
