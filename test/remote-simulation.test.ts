// Servers that archive across a network which fails in every way, and a simulation that notices what is wrong.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BrokenPromise } from './simulation/judge.ts'
import { remoteLies } from './simulation/remote-lies.ts'
import { remoteStorm } from './simulation/remote-storm.ts'

const seeds = 60
const lyingSeedsMax = 200

test('servers keep every promise, whatever the network does to their requests', async t => {
  const total = { files: 0, requests: 0, faults: 0, kills: 0, uploads: 0 }
  for (let seed = 1; seed <= seeds; seed++) {
    const counts = await remoteStorm({ seed }).catch((thrown: unknown) => {
      throw new Error(`seed ${seed}: scripts/node test/simulation/simulate-remote.ts --seed ${seed}`, {
        cause: thrown,
      })
    })
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += counts[key]
  }
  t.diagnostic(JSON.stringify(total))
  // A simulation in which nothing happens proves nothing.
  assert.ok(
    total.files > 5 * seeds && total.faults > seeds && total.uploads > seeds && total.kills > seeds / 2,
  )
})

for (const [what, lie] of Object.entries(remoteLies)) {
  test(`it would be noticed if this were so: ${what}`, async t => {
    for (let seed = 1; seed <= lyingSeedsMax; seed++) {
      try {
        await remoteStorm({ seed, lie })
      } catch (thrown) {
        if (!(thrown instanceof BrokenPromise)) throw thrown
        t.diagnostic(`seed ${seed}: ${thrown.message}`)
        return
      }
    }
    assert.fail(`not in ${lyingSeedsMax} seeds`)
  })
}
