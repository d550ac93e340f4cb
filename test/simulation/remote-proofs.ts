import { BrokenPromise } from './judge.ts'
import { remoteLies } from './remote-lies.ts'
import { remoteStorm } from './remote-storm.ts'

/** Runs one storm after another, and returns what there was in all of them. */
export async function runRemoteStorms(seeds: number) {
  const total = { files: 0, requests: 0, faults: 0, kills: 0, uploads: 0 }
  for (let seed = 1; seed <= seeds; seed++) {
    const counts = await remoteStorm({ seed }).catch((thrown: unknown) => {
      throw new Error(
        `seed ${seed}: scripts/node test/simulation/simulate-remote.ts --seed ${seed}: ${String(thrown)}`,
        { cause: thrown },
      )
    })
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += counts[key]
  }
  return total
}

/** What the first storm says that shows the lie. */
export async function lieAboutNetwork(what: string, seeds: number): Promise<string | undefined> {
  const lie = remoteLies[what]
  if (lie === undefined) throw new Error(`there is no lie "${what}"`)
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      await remoteStorm({ seed, lie })
    } catch (thrown) {
      if (!(thrown instanceof BrokenPromise)) throw thrown
      return `seed ${seed}: ${thrown.message}`
    }
  }
  return undefined
}
