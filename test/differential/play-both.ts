import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startPostgres } from '../support/postgresql-server.ts'
import { memoryDirectory } from '../support/unprivileged.ts'
import { type Difference, unlisted } from './compare.ts'
import type { Contestant } from './contestant.ts'
import { script } from './script.ts'
import { type ContestantOptions, ServerContestant } from './server-contestant.ts'
import { type Observation, Stage } from './stage.ts'

const run = promisify(execFile)

/** Plays the script to the server's own archiver and to ours, side by side; returns what is different and not listed. */
export async function playBoth(
  major: number,
  createOurs: (options: ContestantOptions) => Promise<Contestant>,
  differences: readonly Difference[],
  used: (title: string) => void,
): Promise<string[]> {
  await using template = await memoryDirectory()
  await using theirDirectory = await memoryDirectory()
  await using ourDirectory = await memoryDirectory()
  // One cluster, copied, so that both name their segments alike.
  const cluster = join(template.path, 'data')
  await makeCluster(major, cluster)
  const copyTo = async (directory: ContestantOptions['directory']): Promise<ContestantOptions> => {
    const dataDirectory = join(directory.path, 'data')
    await run('cp', ['-a', cluster, dataDirectory])
    return { major, dataDirectory, directory }
  }
  await using server = await ServerContestant.create(await copyTo(theirDirectory))
  await using we = await createOurs(await copyTo(ourDirectory))
  const [theirs, ours] = await Promise.all([play(server), play(we)])

  return script.flatMap(({ name: scene }, index) => {
    const applicable = differences.filter(
      ({ majors, scenes }) => (majors?.includes(major) ?? true) && (scenes?.includes(scene) ?? true),
    )
    const [their, our] = [theirs[index], ours[index]]
    assert(their !== undefined && our !== undefined)
    const lines = unlisted(their, our, applicable, used)
    return lines.length === 0 ? [] : [`\n${scene}:`, ...lines]
  })
}

async function makeCluster(major: number, dataDirectory: string): Promise<void> {
  await using server = await startPostgres({ major, dataDirectory, walSegmentMegabytes: 1 })
  await server.stop('fast')
}

async function play(contestant: Contestant): Promise<Observation[]> {
  const stage = new Stage(contestant)
  const observations: Observation[] = []
  try {
    for (const scene of script) {
      await scene.play(stage)
      observations.push(await stage.observe(scene))
    }
  } finally {
    // A server whose archiver stands still would not stop.
    stage.resume()
  }
  return observations
}
