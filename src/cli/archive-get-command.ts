import { spawn } from 'node:child_process'
import { unlinkSync, writeSync } from 'node:fs'
import path from 'node:path'
import { fetchWhole, requireWalFileName } from '../restore/archive-get.ts'
import { type Destination, destinationOf } from '../restore/destination.ts'
import { delivered, notThere, troubleLine, troubleStatus, warningLine } from '../restore/exit-status.ts'
import { handOver } from '../restore/hand-over.ts'
import { Recovery } from '../restore/recovery.ts'
import { Spool, sourceMark, spoolPath } from '../restore/spool.ts'
import { realClock } from '../system/clock.ts'
import { identityOf, isRunning } from '../system/process-identity.ts'
import { realFiles } from '../system/real-files.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import { FailedRepositories } from './failed-repositories.ts'
import type { FetcherStart } from './fetcher-process.ts'
import { openRepositories } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'
import { siblingProgram } from './sibling-program.ts'

/**
 * `pgarchivist archive-get NAME DEST`: resolves with the status for the launcher, which `exit-status.ts` lists. That
 * for a file that is not there is given in one place, and everything that is not foreseen ends elsewhere.
 */
export async function archiveGetCommand(name: string, dest: string, flags: RepositoryFlags): Promise<number> {
  const destination = destinationOf(path.resolve(dest), process.pid)
  tidyUpWhenKilled(destination)
  try {
    return (await get(name, dest, destination, flags)) ? delivered : notThere
  } catch (thrown) {
    complain(`pgarchivist: ${troubleLine(name, thrown)}\n`)
    return troubleStatus(thrown)
  }
}

async function get(
  name: string,
  dest: string,
  destination: Destination,
  flags: RepositoryFlags,
): Promise<boolean> {
  requireWalFileName(name)
  const workingDirectory = process.cwd()
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags,
    environment: process.env,
    workingDirectory,
    walPath: dest,
  })
  const { dataDirectory } = settings
  const cluster = (await settings.hasCluster()) ? await realFiles.stat(dataDirectory) : undefined
  const systemIdentifier = await settings.systemIdentifier()
  const repository = await openRepositories(settings.repositories, {
    dataDirectory: cluster && dataDirectory,
    warn: warning => complain(`pgarchivist: ${warningLine(warning)}\n`),
    failed: destination.isRecovery ? new FailedRepositories(destination.directory) : undefined,
  })
  const source = { repository, systemIdentifier, identities: () => settings.identities() }
  const target = {
    ...destination,
    mode: cluster !== undefined && (cluster.mode & 0o050) === 0o050 ? 0o640 : 0o600,
    // What root restores is for the server.
    owner: process.geteuid?.() === 0 ? cluster : undefined,
  }

  // Only a server that recovers goes on to other files.
  const isAhead = destination.isRecovery && (await Recovery.of(realFiles, dataDirectory)) !== undefined
  const fetched = async () => (await fetchWhole(realFiles, target, source, name)) !== false
  if (!isAhead) return await fetched()

  const isSegment = walFileKind(name) === 'segment'
  const directory = spoolPath(dataDirectory, destination.directory, settings.spoolDirectory)
  const spool = new Spool(realFiles, directory, target.mode)
  const mark = sourceMark(repository.url, systemIdentifier)
  const options = { files: realFiles, clock: realClock, spool, source: mark }
  const isHandedOver = isSegment && (await handOver(options, name, target))
  const isDelivered = isHandedOver || (await fetched())
  try {
    // The fetcher has nobody to complain to.
    void settings.spoolLimitBytes
    const segment = isDelivered && isSegment ? await realFiles.stat(destination.path) : undefined
    const delivered = segment && { name, segmentBytes: segment.size }
    // It can be asked for the next file, also where this one was not there.
    const start = { flags, workingDirectory, dest, delivered }
    await leaveFetcher(spool, mark, start, isHandedOver)
  } catch (thrown) {
    // Whatever becomes of the next files, this answer is right.
    complain(`pgarchivist: nothing is fetched ahead: ${(thrown as Error).message}\n`)
  }
  return isDelivered
}

/** Tells the fetcher where the recovery is; starts one where there is none. */
async function leaveFetcher(
  spool: Spool,
  mark: string,
  start: FetcherStart,
  isHandedOver: boolean,
): Promise<void> {
  await spool.open(process.geteuid?.())
  const state = await spool.readState()
  let hasFetcher = await spool.hasFetcher()
  if (
    hasFetcher &&
    state !== undefined &&
    state.source !== mark &&
    (await isRunning(realFiles, state.fetcher))
  ) {
    // It fetches from somewhere else, as it was told before.
    process.kill(state.fetcher.pid, 'SIGTERM')
    hasFetcher = false
  }
  // What is handed over the fetcher sees by itself.
  if (!isHandedOver && start.delivered !== undefined) {
    await spool.writePosition(start.delivered, `${process.pid} ${Date.now()}`, process.pid)
  }
  if (hasFetcher) return
  const fetcher = spawn(
    process.execPath,
    [...process.execArgv, siblingProgram('fetcher-process'), 'pgarchivist: fetcher', JSON.stringify(start)],
    { cwd: '/', detached: true, stdio: 'ignore' },
  )
  // What prevents it is told here at once, or never.
  fetcher.on('error', () => undefined)
  fetcher.unref()
  const identity = fetcher.pid === undefined ? undefined : await identityOf(realFiles, fetcher.pid)
  if (identity !== undefined) await spool.writeStarted(identity)
}

/** At once, because the process is about to end. A log that cannot be written must not change how it ends. */
function complain(line: string): void {
  try {
    writeSync(process.stderr.fd, line)
  } catch {
    // The status tells the server.
  }
}

/** A server that stops ends its commands by a signal; no half-written file shall stay behind for that. */
function tidyUpWhenKilled({ temporaryPath }: Destination): void {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP'] as const) {
    process.once(signal, () => {
      try {
        unlinkSync(temporaryPath)
      } catch {
        // It was not begun, or it has its name already.
      }
      process.kill(process.pid, signal)
    })
  }
}
