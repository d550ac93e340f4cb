import { availableParallelism } from 'node:os'
import { RepositoryError } from '../repository/repository-error.ts'
import { type VerifyProgress, verify } from '../repository/verify.ts'
import type { VerifyReport } from '../repository/verify-report.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'
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

/** `pgarchivist verify`: resolves with the exit status. */
export async function verifyCommand(flags: VerifyFlags): Promise<number> {
  let report: VerifyReport
  try {
    report = await verifyRepository(flags)
  } catch (thrown) {
    report = failedReport(thrown)
  }
  process.stdout.write(flags.output === 'json' ? `${JSON.stringify(report, null, 2)}\n` : textOf(report))
  if (report.error !== null) complain(report.error)
  return verifyStatus[report.status]
}

async function verifyRepository(flags: VerifyFlags): Promise<VerifyReport> {
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags,
    environment: process.env,
    workingDirectory: process.cwd(),
  })
  const url = settings.repository
  const identities = await readIdentities(settings, flags)
  const named = flags.systemIdentifier ?? (process.env['PGARCHIVIST_SYSTEM_IDENTIFIER'] || undefined)
  // Where the server remembers which repository is the right one; a reader writes nothing there.
  const dataDirectory = (await settings.hasCluster()) ? settings.dataDirectory : undefined
  const repository = await openRepository(url, { role: 'reader', dataDirectory })
  const progress = progressFor(flags)
  try {
    return await verify({
      repository,
      clock: realClock,
      systemIdentifier: named === undefined ? undefined : await settings.systemIdentifier(),
      timelines: flags.timeline,
      jobs: flags.jobs ?? availableParallelism(),
      identities: async () => identities,
      decode: flags.decode ?? false,
      unfinishedWrites: () => repository.store.unfinishedWrites(realClock.now() - unfinishedAfterMs),
      ...(progress && { progress: progress.show }),
    })
  } finally {
    progress?.end()
  }
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
