// A module that archives ahead, on a disk that forgets: nobody who watches the server can tell the difference, and every
// promise is kept, whatever ends the archiver, fails, changes or takes the place of a file.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aheadLies, tellStory } from './simulation/ahead.ts'
import { lieAboutLookAhead } from './simulation/archiver-proofs.ts'
import { runStorms } from './simulation/many-storms.ts'
import { storm } from './simulation/storm.ts'
import { inThread } from './support/in-thread.ts'

const storms = 400
const comparedStories = 150
// Of storms in which a fault of the look-ahead has to show, this many are enough for each.
const stormsUntilFound = 400

test('no promise is broken in any of hundreds of storms in which the module archives ahead', async t => {
  const { failed, text } = await inThread(new URL('simulation/many-storms.ts', import.meta.url), runStorms, {
    first: 0,
    seeds: storms,
    ahead: true,
  })
  t.diagnostic(text)
  assert.equal(failed.length, 0, text)
})

test('files are done in the same order, and the archive is the same, as without it', async t => {
  let ahead = 0
  let failed = 0
  for (let seed = 0; seed < comparedStories; seed++) {
    const without = await tellStory(seed, { filesAtOnce: 1 })
    assert.equal(without.ahead, 0)
    const filesAtOnce = [2, 4, 64][seed % 3] ?? 2
    const withIt = await tellStory(seed, { filesAtOnce })
    const where = `seed ${seed}, ${filesAtOnce} files at once`
    assert.deepEqual(withIt.done, without.done, `${where}: the order`)
    assert.deepEqual(withIt.archive, without.archive, `${where}: the archive`)
    // When it fails depends on how soon its turn comes; but what fails ahead fails nothing that is asked for.
    assert.deepEqual(withIt.failedWithoutReason, [], where)
    assert.deepEqual(without.failedWithoutReason, [], where)
    ahead += withIt.ahead
    failed += withIt.failed
  }
  t.diagnostic(`${ahead} calls for files that nobody had asked for, ${failed} files failed`)
  assert(ahead > comparedStories)
})

test('a seed tells the same story every time', async () => {
  const told = async () => {
    const lines: string[] = []
    await storm({ seed: 4, ahead: true, trace: line => lines.push(line) })
    return lines
  }
  const first = await told()
  assert(first.length > 100)
  assert.deepEqual(await told(), first)
})

const proofs = new URL('simulation/archiver-proofs.ts', import.meta.url)
for (const lie of Object.keys(aheadLies)) {
  test(`a look-ahead would be found out for which it is true that ${lie}`, async t => {
    const found = await inThread(proofs, lieAboutLookAhead, lie, stormsUntilFound)
    assert.ok(found !== undefined, `not in ${stormsUntilFound} storms`)
    t.diagnostic(found)
  })
}
