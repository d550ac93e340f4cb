import { setTimeout as sleep } from 'node:timers/promises'

const patienceMs = 45_000
const pauseMs = 25

/**
 * Resolves when `look` says true. Status files, logs and statistics of other processes announce nothing, so they
 * are looked at. What `look` throws counts as not yet; the last of it is told if the time is up.
 */
export async function settle(what: string, look: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + patienceMs
  for (;;) {
    let problem: unknown
    try {
      if (await look()) return
    } catch (thrown) {
      problem = thrown
    }
    if (Date.now() > deadline)
      throw new Error(`not within ${patienceMs / 1_000} s: ${what}`, { cause: problem })
    await sleep(pauseMs)
  }
}
