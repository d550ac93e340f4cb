// Several repositories as one: when a file counts as archived, and what is concluded from what each of them says.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { knownRepositoryPath } from '../src/repository/known-repositories.ts'
import { encodeMarker } from '../src/repository/marker.ts'
import { markerKey } from '../src/repository/object-key.ts'
import { failure, keyOf } from './support/repository-stage.ts'
import { SeveralStage } from './support/several-stage.ts'
import { anySystemIdentifier } from './support/wal-segment.ts'

const [one, two, three] = ['00000002.history', '00000003.history', '00000004.history'] as const

/** Until nothing is left to do that no timer waits for. */
const settled = () => new Promise(resolve => setImmediate(() => setImmediate(resolve)))

test('a file is archived when all repositories have it, and each has an object of its own', async () => {
  const stage = new SeveralStage({ count: 3 })
  const set = stage.set()
  stage.put(one)
  assert.equal(await stage.archive(set, one), 'archived')
  assert.equal(stage.has(one), '/a /b /c')
  assert.equal(await stage.archive(set, one), 'already archived')
  assert.deepEqual(stage.warnings, [])
})

test('with all needed and one away the file fails with its name, and the others do not read it again', async () => {
  const stage = new SeveralStage({ count: 3 })
  const set = stage.set()
  stage.put(one)
  stage.away.set('/b', 'EIO')
  const expected =
    `UNREACHABLE: could not archive "${one}" in repository "file:///b": could not open file "/b/pgarchivist-repository.json": Input/output error\n` +
    'DETAIL: 2 of 3 repositories have it, 3 are needed.\n' +
    'HINT: The disk of the repository has failed: the log of the kernel says more.'
  assert.equal(await failure(stage.archive(set, one)), expected)
  const opened = stage.opened
  for (let i = 0; i < 3; i++) assert.equal(await failure(stage.archive(set, one)), expected)
  assert.equal(stage.opened, opened)
  assert.equal(stage.has(one), '/a /c')
  stage.away.clear()
  assert.equal(await stage.archive(set, one), 'archived')
  assert.equal(stage.has(one), '/a /b /c')
  assert.deepEqual(stage.answersAgain, ['file:///b'])
})

test('a file of the same name and size that came later is not taken for the one that was archived', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one, 'content 1')
  stage.away.set('/b', 'EIO')
  await failure(stage.archive(set, one))
  stage.put(one, 'content 2')
  stage.away.clear()
  assert.match(await failure(stage.archive(set, one)), /^DIFFERENT: could not archive .* "file:\/\/\/a"/)
})

test('a quorum suffices: one that is away is named once, and fails nothing', async () => {
  const stage = new SeveralStage({ count: 3 })
  const set = stage.set(2)
  stage.away.set('/c', 'EIO')
  for (const name of [one, two]) {
    stage.put(name)
    assert.equal(await stage.archive(set, name), 'archived')
    await settled()
    assert.equal(stage.has(name), '/a /b')
  }
  assert.deepEqual(stage.warnings, [
    `could not archive "${one}" in repository "file:///c": could not open file "/c/pgarchivist-repository.json": Input/output error`,
  ])
  assert.equal(stage.fellBehind.length, 2)
  stage.away.set('/b', 'EIO')
  stage.put(three)
  assert.match(await failure(stage.archive(set, three)), /1 of 3 repositories have it, 2 are needed\./)
})

test('a slow one holds up nothing that others suffice for, ends by itself, and is not given more than a few', async () => {
  const stage = new SeveralStage()
  const set = stage.set(1)
  const slow = Promise.withResolvers<void>()
  stage.held.set('/b', slow.promise)
  const names = Array.from({ length: 7 }, (_, index) => `0000001${index}.history`)
  for (const name of names) {
    stage.put(name)
    assert.equal(await stage.archive(set, name), 'archived')
  }
  slow.resolve()
  for (let i = 0; i < 200; i++) await settled()
  assert.deepEqual(
    names.map(name => stage.has(name)),
    ['/a /b', '/a /b', '/a /b', '/a /b', '/a', '/a', '/a'],
  )
  assert.deepEqual(stage.fellBehind, ['file:///b', 'file:///b', 'file:///b'])
})

test('what goes on after the answer stores nothing else when the server recycles the file', async () => {
  const stage = new SeveralStage()
  const set = stage.set(1)
  for (const name of [one, two]) {
    stage.put(name)
    await stage.archive(set, name)
  }
  await settled()
  const slow = Promise.withResolvers<void>()
  stage.held.set('/b', slow.promise)
  stage.put(three, 'content 1')
  await stage.archive(set, three)
  stage.put(three, 'content 2')
  slow.resolve()
  for (let i = 0; i < 200; i++) await settled()
  assert.equal(stage.has(three), '/a')
  assert.deepEqual(stage.warnings, [
    `could not archive "${three}" in repository "file:///b": file "${three}" was changed while it was being archived`,
  ])
})

test('what is under way when the set is given up is not stored', async () => {
  const stage = new SeveralStage()
  const set = stage.set(1)
  const slow = Promise.withResolvers<void>()
  stage.held.set('/b', slow.promise)
  stage.put(one)
  await stage.archive(set, one)
  const ended = set.giveUp()
  slow.resolve()
  await ended
  assert.equal(stage.has(one), '/a')
  assert.deepEqual(stage.warnings, [])
})

test('more than there are repositories is refused, and one place with two names does not count as two', async () => {
  const stage = new SeveralStage()
  assert.throws(() => stage.set(3), {
    message:
      'nothing is archived, because "pgarchivist.repository_quorum" is 3 and "pgarchivist.repository" names 2 repositories',
  })
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  for (const each of ['pgarchivist-repository.json']) {
    stage.disk.place(`/b/${each}`, stage.disk.content(`/a/${each}`) ?? new Uint8Array())
  }
  for (const root of ['/a', '/b']) stage.disk.remove(knownRepositoryPath('/data', `file://${root}`))
  assert.match(
    await failure(stage.archive(stage.set(), one)),
    /^SETTINGS: .*repositories "file:\/\/\/a" and "file:\/\/\/b" are one and the same, with id /,
  )
})

test('a file is read from whichever can answer, and the one that could not is asked last for a minute', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  stage.away.set('/a', 'EIO')
  assert.equal(await stage.fetch(set, one), `content of ${one}\n`)
  stage.away.set('/a', 'ENOENT')
  stage.away.set('/b', 'EACCES')
  // Were it asked first, its text would be the one that is told.
  assert.match(
    await failure(stage.fetch(set, one)),
    /^UNREACHABLE: could not open file "\/b\/.*Permission denied/,
  )
})

test('missing is only what every repository provably does not have', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  assert.equal(await stage.fetch(set, two), undefined)
  for (const root of stage.roots) {
    stage.away.set(root, 'EIO')
    const told = await failure(stage.fetch(stage.set(), two))
    assert.match(told, /^UNREACHABLE: /)
    assert.match(
      told,
      new RegExp(`DETAIL: Repository "file://${root === '/a' ? '/b' : '/a'}" does not have "${two}"`),
    )
    stage.away.clear()
  }
})

test('a repository that has nothing of the cluster yet is no reason not to tell, unless it is the only one', async () => {
  const stage = new SeveralStage()
  stage.away.set('/b', 'EIO')
  stage.put(one)
  await stage.archive(stage.set(1), one)
  stage.away.clear()
  stage.disk.place(`/b/${markerKey}`, encodeMarker(randomUUID(), '', ''))
  assert.equal(await stage.fetch(stage.set(), two), undefined)
  assert.equal(await stage.fetch(stage.set(), one), `content of ${one}\n`)
  stage.away.set('/a', 'EIO')
  assert.match(await failure(stage.fetch(stage.set(), two)), /^UNREACHABLE: [^]*Input\/output error/)
})

test('all are out of reach only where none says that it is there', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  stage.away.set('/a', 'EIO')
  await stage.set().reach()
  stage.away.set('/b', 'EIO')
  assert.match(await failure(stage.set().reach()), /^UNREACHABLE: [^]*Input\/output error/)
})

test('what could not answer when somebody was to be reached is asked last from then on', async () => {
  const stage = new SeveralStage()
  stage.put(one)
  await stage.archive(stage.set(), one)
  const set = stage.set()
  stage.away.set('/a', 'EIO')
  await set.reach()
  stage.away.set('/a', 'ENOENT')
  stage.away.set('/b', 'EACCES')
  // Were the other one asked first, its text would be the one that is told.
  assert.match(
    await failure(stage.fetch(set, one)),
    /^UNREACHABLE: could not open file "\/b\/.*Permission denied/,
  )
})

test('what is damaged in one repository comes from another one, with a warning', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  const path = `/a/${keyOf(one)}`
  const bytes = Uint8Array.from(stage.disk.content(path) ?? [])
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
  stage.disk.place(path, bytes)
  assert.equal(await stage.fetch(set, one), `content of ${one}\n`)
  assert.deepEqual(stage.warnings, [
    `"${one}" was taken from repository "file:///b", because "${keyOf(one)}" in repository "file:///a" is damaged: another digest`,
  ])
  stage.away.set('/b', 'EIO')
  assert.match(await failure(stage.fetch(set, one)), /^CORRUPT: [^]*Input\/output error/)
})

test('a fault of ours with one repository does not keep another one from answering', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  const [first, second] = set.repositories
  assert.ok(first !== undefined && second !== undefined)
  first.fetch = async () => {
    throw new TypeError('this is a fault')
  }
  assert.equal(await stage.fetch(set, one), `content of ${one}\n`)
  assert.deepEqual(stage.warnings, [
    `"${one}" was taken from repository "file:///b", because this is a fault`,
  ])
  // Nor does it mean that the file is not there.
  second.fetch = async () => false
  await assert.rejects(stage.fetch(set, one), /this is a fault/)
})

test('whoever cannot take the bytes is asked no more', async () => {
  const stage = new SeveralStage()
  const set = stage.set()
  stage.put(one)
  await stage.archive(set, one)
  const noRoom = new Error('no room')
  let asked = 0
  const request = { systemIdentifier: anySystemIdentifier, name: one, identities: async () => [] }
  const fetched = set.fetch(request, async () => {
    asked++
    throw noRoom
  })
  await assert.rejects(fetched, noRoom)
  assert.equal(asked, 1)
})
