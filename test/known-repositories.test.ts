import assert from 'node:assert/strict'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { KnownRepositoryFiles, knownRepositoryPath } from '../src/repository/known-repositories.ts'
import { realFiles } from '../src/system/real-files.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

test('processes that begin to use a repository at the same moment all remember it', async () => {
  // With one temporary name for all, one of them removed the file of another, which then said that it was replaced.
  await using directory = await temporaryDirectory()
  for (let round = 0; round < 20; round++) {
    const dataDirectory = join(directory.path, `data-${round}`)
    await mkdir(dataDirectory)
    const writers = ['module', 'archive-push 1', 'archive-push 2', 'archive-push 3'].map(
      writer => new KnownRepositoryFiles({ files: realFiles, dataDirectory, isGroupReadable: false, writer }),
    )
    await Promise.all(writers.map(each => each.remember('file:///srv/wal', 'id')))
    const path = knownRepositoryPath(dataDirectory, 'file:///srv/wal')
    assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), { url: 'file:///srv/wal', id: 'id' })
    assert.deepEqual(await readdir(join(dataDirectory, 'pgarchivist')), [basename(path)])
  }
})

test('of processes that begin to use different repositories at the same moment none forgets that of another', async () => {
  await using directory = await temporaryDirectory()
  const urls = ['file:///srv/wal', 's3://bucket/wal', 'sftp://host/wal']
  for (let round = 0; round < 20; round++) {
    const dataDirectory = join(directory.path, `data-${round}`)
    await mkdir(dataDirectory)
    const open = (writer: string) =>
      new KnownRepositoryFiles({ files: realFiles, dataDirectory, isGroupReadable: false, writer })
    await Promise.all(urls.map(url => open(url).remember(url, `id of ${url}`)))
    for (const url of urls) assert.equal(await open('reader').idOf(url), `id of ${url}`)
  }
})
