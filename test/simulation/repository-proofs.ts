import { blows, failures } from './every-step.ts'
import { firstFile, repositoryStories, strikeRepositoryEverywhere } from './repository-every-step.ts'
import { repositoryLies } from './repository-lies.ts'
import { repositoryStorm } from './repository-storm.ts'

/** Strikes at every step of a story, and returns how many runs that were. What differs between the blows shows with the first file already. */
export async function strikeRepositoryStory(name: string, what: 'blows' | 'failures'): Promise<number> {
  const story = repositoryStories.find(each => each.name === name)
  if (story === undefined) throw new Error(`there is no story "${name}"`)
  const isFirst = story === firstFile
  const fewerBlows = blows.filter(blow => blow.kind === 'any order' || (blow.kind === 'kill' && blow.took))
  const strikes = { blows: isFirst ? blows : fewerBlows, failures: isFirst ? failures : failures.slice(1, 3) }
  return await strikeRepositoryEverywhere(story, strikes[what])
}

/** Rejects as soon as a storm shows the lie. */
export async function lieAboutRepository(lie: string, storms: number): Promise<void> {
  const how = repositoryLies[lie]
  if (how === undefined) throw new Error(`there is no lie "${lie}"`)
  for (let seed = 0; seed < storms; seed++) await repositoryStorm({ seed, lie: how })
}
