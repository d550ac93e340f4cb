import { type RepositoryStormCounts, repositoryStorm } from './repository-storm.ts'

const failuresToldMax = 20

/** Runs one storm after another, and goes on after one that fails, to see how often and in how many ways. */
export async function runRepositoryStorms(
  first: number,
  seeds: number,
): Promise<{ failed: number; text: string }> {
  const total: RepositoryStormCounts = { files: 0, steps: 0, faults: 0, kills: 0, cuts: 0 }
  const failures: string[] = []
  for (let seed = first; seed < first + seeds; seed++) {
    try {
      const counts = await repositoryStorm({ seed })
      total.files += counts.files
      total.steps += counts.steps
      total.faults += counts.faults
      total.kills += counts.kills
      total.cuts += counts.cuts
    } catch (thrown) {
      failures.push(
        `seed ${seed}: ${String(thrown)}\n  scripts/node test/simulation/simulate-repository.ts --seed ${seed}`,
      )
    }
  }
  const summary =
    `${seeds} seeds from ${first}: ${total.files} files, ${total.steps} steps, ${total.faults} faults, ` +
    `${total.kills} kills, ${total.cuts} power cuts; ${failures.length} seeds failed`
  return { failed: failures.length, text: [summary, ...failures.slice(0, failuresToldMax)].join('\n') }
}
