// Servers that archive across a network which fails in every way, and a simulation that notices what is wrong.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { remoteLies } from './simulation/remote-lies.ts'
import { lieAboutNetwork, runRemoteStorms } from './simulation/remote-proofs.ts'
import { inThread } from './support/in-thread.ts'

const seeds = 60
const lyingSeedsMax = 200
const proofs = new URL('simulation/remote-proofs.ts', import.meta.url)

test('servers keep every promise, whatever the network does to their requests', async t => {
  const total = await inThread(proofs, runRemoteStorms, seeds)
  t.diagnostic(JSON.stringify(total))
  // A simulation in which nothing happens proves nothing.
  assert.ok(
    total.files > 5 * seeds && total.faults > seeds && total.uploads > seeds && total.kills > seeds / 2,
  )
})

for (const what of Object.keys(remoteLies)) {
  test(`it would be noticed if this were so: ${what}`, async t => {
    const noticed = await inThread(proofs, lieAboutNetwork, what, lyingSeedsMax)
    assert.ok(noticed !== undefined, `not in ${lyingSeedsMax} seeds`)
    t.diagnostic(noticed)
  })
}
