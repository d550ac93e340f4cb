// However a server ends, and whatever the process beside its archiver does then, it ends soon, leaves nobody behind,
// and archives on when it is started again.

import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { BridgedServer, type Places, removeTemplates, until } from './bridge/bridged-server.ts'
import { runEndings } from './bridge/endings.ts'
import { copying, copyingWith } from './bridge/modules.ts'

const majors = [15, 18]

// The day decides, so that every day finds something new and two runs of one day agree.
const dayMs = 86_400_000
const seed = Math.floor(Date.now() / dayMs)

// The server has twenty seconds for all attempts together, and pauses between them.
const stopWithinMs = 45_000

const hangs: Record<string, (places: Places) => string> = {
  'is silent': copying('await new Promise(() => {})'),
  // Without making others wait for a processor.
  'blocks its thread': copying('Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)'),
  'is stopped': copying(`process.kill(process.pid, 'SIGSTOP')`),
  'does not come out of its start': copyingWith({
    callback: 'async startup_cb() { if (inTrouble()) await new Promise(() => {}) },',
  }),
}

// Nearly all of the time is spent waiting.
describe('with default settings', { concurrency: 10 }, () => {
  for (const major of majors) {
    for (const [hang, module] of Object.entries(hangs)) {
      test(`a fast shutdown of PostgreSQL ${major} does not wait long for a module that ${hang}`, async t => {
        await using bridged = await BridgedServer.start({
          major,
          module,
          timeouts: 'default',
          isInTrouble: true,
        })
        const name = await bridged.postgres.switchWal()
        // It has the file, or will never have it.
        if (hang === 'does not come out of its start') await bridged.nodePid()
        else
          await until('the module hangs', async () => (await bridged.journal()).includes(`attempt ${name}`))
        const start = Date.now()
        await bridged.postgres.stop('fast')
        const ms = Date.now() - start
        t.diagnostic(`the shutdown took ${ms} ms`)
        assert(ms < stopWithinMs, `the shutdown took ${ms} ms`)
        assert.equal(await bridged.isDone(name), false)
        await bridged.leavesNobody()
      })
    }

    test(`a fast shutdown of PostgreSQL ${major} waits for all that a slow module has to archive`, async t => {
      const files = 60
      // Together longer than a stopping server waits for one.
      const fileMs = 400
      await using bridged = await BridgedServer.start({
        major,
        module: ({ archive, trouble }) => `
import { copyFileSync, existsSync } from 'node:fs'
export function _PG_archive_module_init() {
  return {
    async archive_file_cb(state, file, path) {
      if (existsSync('${trouble}')) return false
      await new Promise(resolve => setTimeout(resolve, ${fileMs}))
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}`,
        timeouts: 'default',
        isInTrouble: true,
      })
      for (let file = 0; file < files; file++) await bridged.postgres.switchWal()
      await bridged.endTrouble()
      const start = Date.now()
      await bridged.postgres.stop('fast')
      t.diagnostic(`the shutdown took ${Date.now() - start} ms`)
      const statuses = await readdir(join(bridged.postgres.dataDirectory, 'pg_wal/archive_status'))
      assert.deepEqual(
        statuses.filter(name => name.endsWith('.ready')),
        [],
      )
      assert((await readdir(bridged.places.archive)).length >= files)
      await bridged.leavesNobody()
    })
  }
})

describe('ended again and again,', { concurrency: 2 }, () => {
  for (const major of majors) {
    test(`PostgreSQL ${major} leaves no process behind, and loses no file`, async t => {
      const tell = (line: string) => t.diagnostic(line)
      tell(
        await runEndings({
          major,
          seed: seed + major,
          lasts: { seconds: 30 },
          archivesAhead: major === 18,
          onRound: tell,
        }),
      )
    })
  }
})

after(removeTemplates)
