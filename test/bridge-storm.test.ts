import { after, describe, test } from 'node:test'
import { removeTemplates } from './bridge/bridged-server.ts'
import { runStorm } from './bridge/storm.ts'

// The day decides, so that every day finds something new and two runs of one day agree.
const dayMs = 86_400_000
const seed = Math.floor(Date.now() / dayMs)

describe('while the process beside the archiver is killed, stopped and blocked', { concurrency: 2 }, () => {
  for (const major of [15, 18]) {
    test(`no file is lost, and PostgreSQL ${major} goes on`, async t => {
      t.diagnostic(`seed ${seed}`)
      const { text } = await runStorm({
        major,
        seed: seed + major,
        seconds: 20,
        progress: line => t.diagnostic(line),
      })
      t.diagnostic(text)
    })
  }
})

after(removeTemplates)
