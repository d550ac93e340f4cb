import { type StormCounts, storm } from './storm.ts'

const failuresToldMax = 20

export interface ManyStorms {
  first: number
  seeds: number
  /** Ends earlier when this much real time has passed. */
  minutes?: number | undefined
  /** How long each storm lasts, in simulated time; otherwise each seed decides. */
  stormMinutes?: number | undefined
  /** With a module that archives ahead. */
  ahead?: boolean | undefined
  progress?: (done: number) => void
}

export interface Summary {
  failed: { seed: number; message: string }[]
  text: string
}

/** Runs one storm after another, and goes on after one that fails, to see how often and in how many ways. */
export async function runStorms(options: ManyStorms): Promise<Summary> {
  const { first, seeds, minutes = Number.POSITIVE_INFINITY, stormMinutes, progress, ahead = false } = options
  const start = performance.now()
  const total: StormCounts = { files: 0, steps: 0, faults: 0, kills: 0, cuts: 0 }
  const failed: Summary['failed'] = []
  let done = 0
  while (done < seeds && performance.now() - start < minutes * 60_000) {
    const seed = first + done
    try {
      const counts = await storm({
        seed,
        ahead,
        ...(stormMinutes !== undefined && { minutes: stormMinutes }),
      })
      total.files += counts.files
      total.steps += counts.steps
      total.faults += counts.faults
      total.kills += counts.kills
      total.cuts += counts.cuts
    } catch (thrown) {
      failed.push({ seed, message: String(thrown) })
    }
    done++
    progress?.(done)
  }
  const seconds = ((performance.now() - start) / 1_000).toFixed(1)
  const lines = [
    `${done} seeds from ${first} in ${seconds} s: ${total.files} files, ${total.steps} steps, ` +
      `${total.faults} faults, ${total.kills} kills, ${total.cuts} power cuts; ${failed.length} seeds failed`,
  ]
  for (const { seed, message } of failed.slice(0, failuresToldMax)) {
    lines.push(`seed ${seed}: ${message}`, `  npm run simulate -- --seed ${seed}${ahead ? ' --ahead' : ''}`)
  }
  return { failed, text: lines.join('\n') }
}
