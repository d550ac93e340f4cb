// Several repositories, of which each may go away and come back, seeded: nothing acknowledged is missing from as many
// as the quorum says, and in the end all have the same.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RepositorySet } from '../src/repository/repository-set.ts'
import { severalStorm } from './simulation/several-storm.ts'

const storms = 15

test('no promise is broken in any of fifteen storms', async t => {
  const total = { archived: 0, refused: 0, kills: 0, outages: 0, copied: 0 }
  for (let seed = 0; seed < storms; seed++) {
    const story = await severalStorm({ seed })
    for (const key of Object.keys(total) as Array<keyof typeof total>) total[key] += story[key]
  }
  t.diagnostic(JSON.stringify(total))
  for (const [what, count] of Object.entries(total)) assert.ok(count > storms / 2, `${count} ${what}`)
})

test('a set would be found out that acknowledges whatever one of its repositories has', async () => {
  const spoil = (set: RepositorySet) => {
    const archive: RepositorySet['archive'] = (source, options) =>
      Promise.any(set.repositories.map(each => each.archive(source, options)))
    return Object.assign(set, { archive })
  }
  await assert.rejects(
    async () => {
      for (let seed = 0; seed < storms; seed++) await severalStorm({ seed, spoil })
    },
    { name: 'BrokenPromise' },
  )
})
