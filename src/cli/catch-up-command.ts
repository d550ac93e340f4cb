import { type CatchUpReport, catchUp } from '../repository/catch-up.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import type { SetWarning } from '../repository/repository-set.ts'
import { warningLine } from '../restore/exit-status.ts'
import { realFiles } from '../system/real-files.ts'
import { comparisonText } from './comparison-text.ts'
import { openRepository } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'

export interface CatchUpFlags extends RepositoryFlags {
  output: 'text' | 'json'
  dryRun?: boolean
  jobs?: number
}

export const catchUpStatus = { ok: 0, differences: 1, incomplete: 2 } as const

/** `pgarchivist catch-up`: resolves with the exit status. */
export async function catchUpCommand(flags: CatchUpFlags): Promise<number> {
  let report: CatchUpReport
  try {
    report = await catchUpByHand(flags)
  } catch (thrown) {
    const told = thrown instanceof Error ? thrown : new Error(String(thrown))
    const { detail, hint } = told instanceof RepositoryError ? told : {}
    warn({ message: told.message, detail, ...(hint !== undefined && { hint }) })
    return catchUpStatus.incomplete
  }
  process.stdout.write(
    flags.output === 'json' ? `${JSON.stringify(report, null, 2)}\n` : comparisonText(report),
  )
  return catchUpStatus[report.status]
}

function warn(warning: SetWarning): void {
  process.stderr.write(`pgarchivist: ${warningLine(warning)}\n`)
}

async function catchUpByHand(flags: CatchUpFlags): Promise<CatchUpReport> {
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags,
    environment: process.env,
    workingDirectory: process.cwd(),
  })
  const urls = settings.repositories
  if (urls.length < 2) {
    throw new RepositoryError('SETTINGS', '"pgarchivist.repository" names one repository only', {
      hint: 'Name several, separated by commas: each is brought up to date from the others.',
    })
  }
  const systemIdentifier = await settings.systemIdentifier()
  const options = {
    // Others may be at work at the same time, each under names of its own.
    role: 'catch-up by hand' as const,
    dataDirectory: (await settings.hasCluster()) ? settings.dataDirectory : undefined,
    created: (url: string, id: string) =>
      process.stderr.write(`pgarchivist: began a new repository at "${url}", with id ${id}\n`),
    unguarded: warn,
  }
  const repositories = await Promise.all(urls.map(url => openRepository(url, options)))
  try {
    return await catchUp({
      repositories,
      systemIdentifier,
      filesAtOnce: flags.jobs ?? 4,
      isDryRun: flags.dryRun ?? false,
      comparesAll: true,
    })
  } finally {
    await Promise.allSettled(repositories.map(each => each[Symbol.asyncDispose]()))
  }
}
