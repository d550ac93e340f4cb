import { aheadLies } from './ahead.ts'
import { blows, failures, oneSegment, rivals, stories, strikeEverywhere, strikeTwice } from './every-step.ts'
import { lies } from './lies.ts'
import { storm } from './storm.ts'

const strikes = { blows, failures, rivals }

/** Strikes at every step of a story, and returns how many runs that were. */
export async function strikeStory(name: string, what: keyof typeof strikes): Promise<number> {
  const story = stories.find(each => each.name === name)
  if (story === undefined) throw new Error(`there is no story "${name}"`)
  return await strikeEverywhere(story, strikes[what])
}

/** Ends it at every step, and again at every step of its next life. */
export async function strikeBothLives(): Promise<number> {
  const first = blows.filter(blow => blow.kind !== 'in order')
  const second = first.filter(blow => !blow.took)
  return await strikeTwice(oneSegment, first, second)
}

/** Lets every step fail, and then cuts the power at every later one. */
export async function failAndCut(): Promise<number> {
  const cuts = blows.filter(blow => blow.kind === 'any order' && !blow.took)
  return await strikeTwice(oneSegment, failures.slice(0, 2), cuts)
}

/** Rejects as soon as a story shows the lie. */
export async function lieAboutArchiver(lie: string): Promise<void> {
  const how = lies[lie]
  if (how === undefined) throw new Error(`there is no lie "${lie}"`)
  for (const story of stories) await strikeEverywhere(story, [...rivals, ...blows], { lies: how })
}

/** What the first storm says that shows the lie. */
export async function lieAboutLookAhead(lie: string, storms: number): Promise<string | undefined> {
  const how = aheadLies[lie]
  if (how === undefined) throw new Error(`there is no lie "${lie}"`)
  for (let seed = 0; seed < storms; seed++) {
    try {
      await storm({ seed, ahead: true, lies: how })
    } catch (thrown) {
      return `seed ${seed}: ${String(thrown)}`
    }
  }
  return undefined
}
