import { type CatchUpReport, catchUp } from '../repository/catch-up.ts'
import type { Repository } from '../repository/repository.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import { type VerifyOptions, type VerifyProgress, verify } from '../repository/verify.ts'
import type { VerifyReport } from '../repository/verify-report.ts'
import { realClock } from '../system/clock.ts'
import { processors } from '../system/processors.ts'
import { realFiles } from '../system/real-files.ts'
import { comparisonText } from './comparison-text.ts'
import { openRepository } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'
import { bytesText, verifyText, withoutControls } from './verify-text.ts'

export interface VerifyFlags extends RepositoryFlags {
  output: 'text' | 'json'
  decode?: boolean
  progress?: boolean
  jobs?: number
  timeline?: number[]
}

export const verifyStatus = { ok: 0, findings: 1, incomplete: 2 } as const

// As long as the store waits with removing what was left by a process that has died.
const unfinishedAfterMs = 24 * 60 * 60 * 1_000

// A terminal is to look alive; a log is to be readable.
const progressTerminalMs = 200
const progressLogMs = 10_000

/** What is said of several repositories, each for itself and all of them compared. */
interface SeveralReport {
  version: 1
  status: VerifyReport['status']
  repositories: VerifyReport[]
  /** For each cluster, what one repository lacks and another one has. */
  comparisons: CatchUpReport[]
}

/** `pgarchivist verify`: resolves with the exit status. */
export async function verifyCommand(flags: VerifyFlags): Promise<number> {
  let reports: VerifyReport[]
  let comparisons: CatchUpReport[] = []
  try {
    ;({ reports, comparisons } = await verifyRepositories(flags))
  } catch (thrown) {
    reports = [failedReport(thrown)]
  }
  const [only] = reports
  const status = worst([...reports.map(each => each.status), ...comparisons.map(comparisonStatus)])
  const several: SeveralReport = { version: 1, status, repositories: reports, comparisons }
  const json = reports.length === 1 ? only : several
  const text = [...reports.map(textOf), ...comparisons.map(comparisonText)].filter(each => each !== '')
  process.stdout.write(flags.output === 'json' ? `${JSON.stringify(json, null, 2)}\n` : text.join('\n'))
  for (const { error } of reports) if (error !== null) complain(error)
  return verifyStatus[status]
}

async function verifyRepositories(
  flags: VerifyFlags,
): Promise<{ reports: VerifyReport[]; comparisons: CatchUpReport[] }> {
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags,
    environment: process.env,
    workingDirectory: process.cwd(),
  })
  const urls = settings.repositories
  const identities = await readIdentities(settings, flags)
  const named = flags.systemIdentifier ?? (process.env['PGARCHIVIST_SYSTEM_IDENTIFIER'] || undefined)
  const systemIdentifier = named === undefined ? undefined : await settings.systemIdentifier()
  const hasCluster = await settings.hasCluster()
  // Where the server remembers which repository is the right one; a reader writes nothing there.
  const dataDirectory = hasCluster ? settings.dataDirectory : undefined
  const expectedCluster = hasCluster && named === undefined ? await clusterOf(settings, flags) : undefined
  const repositories = await Promise.all(
    urls.map(url => openRepository(url, { role: 'reader', dataDirectory })),
  )
  const reports: VerifyReport[] = []
  for (const repository of repositories) {
    reports.push(await verifyRepository(repository, flags, { systemIdentifier, expectedCluster }, identities))
  }
  const comparisons: CatchUpReport[] = []
  for (const cluster of repositories.length > 1 && flags.timeline === undefined ? clustersIn(reports) : []) {
    comparisons.push(
      await catchUp({
        repositories,
        systemIdentifier: cluster,
        filesAtOnce: flags.jobs ?? processors,
        isDryRun: true,
        comparesAll: true,
      }),
    )
  }
  return { reports, comparisons }
}

/** Its files have to be there. Who has only started us in a data directory that is not theirs to read does not ask for it. */
async function clusterOf(settings: RepositorySettings, flags: VerifyFlags): Promise<string | undefined> {
  try {
    return await settings.systemIdentifier()
  } catch (thrown) {
    if (flags.pgdata !== undefined || !(thrown instanceof RepositoryError)) throw thrown
    return undefined
  }
}

function clustersIn(reports: readonly VerifyReport[]): Set<string> {
  return new Set(reports.flatMap(report => report.clusters.map(each => each.system_identifier)))
}

async function verifyRepository(
  repository: Repository,
  flags: VerifyFlags,
  clusters: Pick<VerifyOptions, 'systemIdentifier' | 'expectedCluster'>,
  identities: readonly string[],
): Promise<VerifyReport> {
  const progress = progressFor(flags)
  try {
    return await verify({
      repository,
      clock: realClock,
      ...clusters,
      timelines: flags.timeline,
      jobs: flags.jobs ?? processors,
      identities: async () => identities,
      decode: flags.decode ?? false,
      unfinishedWrites: () => repository.store.unfinishedWrites(realClock.now() - unfinishedAfterMs),
      ...(progress && { progress: progress.show }),
    })
  } finally {
    progress?.end()
  }
}

function worst(statuses: ReadonlyArray<VerifyReport['status']>): VerifyReport['status'] {
  if (statuses.includes('incomplete')) return 'incomplete'
  return statuses.includes('findings') ? 'findings' : 'ok'
}

function comparisonStatus({ status }: CatchUpReport): VerifyReport['status'] {
  return status === 'differences' ? 'findings' : status
}

/** Without decoding, keys only tell more of where timelines branched off: having none is no failure. */
async function readIdentities(settings: RepositorySettings, flags: VerifyFlags): Promise<readonly string[]> {
  const isAskedFor = flags.decode === true || flags.identityFile !== undefined
  try {
    return await settings.identities()
  } catch (thrown) {
    if (isAskedFor || !(thrown instanceof RepositoryError)) throw thrown
    return []
  }
}

function progressFor({ progress }: VerifyFlags) {
  const { stderr } = process
  if (!stderr.isTTY && !progress) return undefined
  const startedMs = realClock.monotonic()
  let shownMs = startedMs
  let shown = ''
  let last: VerifyProgress | undefined
  return {
    show: (now: VerifyProgress) => {
      last = now
      const nowMs = realClock.monotonic()
      if (nowMs - shownMs < (stderr.isTTY ? progressTerminalMs : progressLogMs)) return
      shownMs = nowMs
      const line = progressText(now, nowMs - startedMs)
      stderr.write(stderr.isTTY ? `\r${line.padEnd(shown.length)}` : `pgarchivist: ${line}\n`)
      shown = line
    },
    end: () => {
      if (stderr.isTTY) stderr.write(`\r${' '.repeat(shown.length)}\r`)
      else if (last !== undefined) {
        stderr.write(`pgarchivist: ${progressText(last, realClock.monotonic() - startedMs)}\n`)
      }
    },
  }
}

function progressText(
  { phase, objects, bytes, objectsTotal, bytesTotal }: VerifyProgress,
  ms: number,
): string {
  if (phase === 'looking') return `${objects} names`
  const rate = bytesText(Math.round((bytes * 1_000) / Math.max(ms, 1)))
  return `${objects} of ${objectsTotal} objects, ${bytesText(bytes)} of ${bytesText(bytesTotal)}, ${rate} per second`
}

/** When nothing could be looked at. */
function failedReport(thrown: unknown): VerifyReport {
  const told = thrown instanceof Error ? thrown : new Error(String(thrown))
  const { detail, hint } = told instanceof RepositoryError ? told : {}
  return {
    version: 1,
    repository: '',
    status: 'incomplete',
    error: { message: told.message, detail: detail ?? null, hint: hint ?? null },
    decoded: false,
    objects: 0,
    bytes: 0,
    removed_meanwhile: 0,
    clusters: [],
    findings: [],
    notes: [],
  }
}

/** What went wrong before anything was looked at is told on standard error alone. */
function textOf(report: VerifyReport): string {
  const isNothing = report.status === 'incomplete' && report.objects === 0
  return isNothing ? '' : verifyText(report)
}

function complain({ message, detail, hint }: NonNullable<VerifyReport['error']>): void {
  const lines = [
    `pgarchivist: ${message}`,
    ...(detail === null ? [] : [`DETAIL: ${detail}`]),
    ...(hint === null ? [] : [`HINT: ${hint}`]),
  ]
  process.stderr.write(`${lines.map(withoutControls).join('\n')}\n`)
}
