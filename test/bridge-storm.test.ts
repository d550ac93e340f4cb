import { after, describe, test } from 'node:test'
import { removeTemplates } from './bridge/bridged-server.ts'
import { runStorm, type StormOptions } from './bridge/storm.ts'
import { availableMajors } from './support/postgresql-server.ts'
import { buildableMajors } from './support/server-library.ts'

// The day decides, so that every day finds something new and two runs of one day agree.
const dayMs = 86_400_000
const seed = Math.floor(Date.now() / dayMs)

// The contracts of an archive module of both kinds at length, the others as they are there.
const thorough: Omit<StormOptions, 'seed'>[] = [15, 18].flatMap(major => [
  { major, lasts: { seconds: 20 } },
  { major, lasts: { seconds: 8 }, archivesAhead: true },
])
const available = await availableMajors()
const others = (await buildableMajors()).filter(
  major => available.includes(major) && ![15, 18].includes(major),
)
const short = others.map((major, at) => ({ major, lasts: { seconds: 6 }, archivesAhead: at % 2 === 0 }))

describe('while the process beside the archiver is killed, stopped, blocked and replaced', {
  concurrency: 3,
}, () => {
  for (const options of [...thorough, ...short]) {
    const { major, archivesAhead } = options
    const ahead = archivesAhead ? ' that gives its module several files at once' : ''
    test(`no file is lost, and PostgreSQL ${major}${ahead} goes on`, async t => {
      t.diagnostic(`PostgreSQL major covered: ${major}; seed ${seed + major}`)
      const tell = (line: string) => t.diagnostic(line)
      tell(await runStorm({ ...options, seed: seed + major, onBlow: tell }))
    })
  }
})

after(removeTemplates)
