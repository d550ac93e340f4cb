import { unlinkSync, writeSync } from 'node:fs'
import path from 'node:path'
import { fetchWhole, requireWalFileName } from '../restore/archive-get.ts'
import { type Destination, destinationOf } from '../restore/destination.ts'
import { delivered, notThere, troubleLine, troubleStatus, warningLine } from '../restore/exit-status.ts'
import { handOver } from '../restore/hand-over.ts'
import { Recovery } from '../restore/recovery.ts'
import { Spool, sourceMark, spoolPath } from '../restore/spool.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'
import { walFileKind } from '../wal/wal-file-name.ts'
import { FailedRepositories } from './failed-repositories.ts'
import { FetcherAhead } from './fetcher-ahead.ts'
import { openRepositories } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'

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
  const target = {
    ...destination,
    mode: cluster !== undefined && (cluster.mode & 0o050) === 0o050 ? 0o640 : 0o600,
    // What root restores is for the server.
    owner: process.geteuid?.() === 0 ? cluster : undefined,
  }

  const fetched = async () => {
    const repository = await openRepositories(settings.repositories, {
      dataDirectory: cluster && dataDirectory,
      warn: warning => complain(`pgarchivist: ${warningLine(warning)}\n`),
      failed: destination.isRecovery ? new FailedRepositories(destination.directory) : undefined,
    })
    const source = { repository, systemIdentifier, identities: () => settings.identities() }
    return (await fetchWhole(realFiles, target, source, name)) !== false
  }

  // Only a server that recovers goes on to other files.
  const isAhead = destination.isRecovery && (await Recovery.of(realFiles, dataDirectory)) !== undefined
  if (!isAhead) return await fetched()

  const isSegment = walFileKind(name) === 'segment'
  const directory = spoolPath(dataDirectory, destination.directory, settings.spoolDirectory)
  const spool = new Spool(realFiles, directory, target.mode)
  const mark = sourceMark(settings.repositories, systemIdentifier)
  const options = { files: realFiles, clock: realClock, spool, source: mark }
  const isHandedOver = isSegment && (await handOver(options, name, target))
  const fetcher = new FetcherAhead(spool, mark, { flags, workingDirectory, dest })
  // Whatever becomes of the next files, the answer about this one is right.
  let isInVain = false
  const ahead = async (step: () => Promise<void>) => {
    if (isInVain) return
    try {
      await step()
    } catch (thrown) {
      isInVain = true
      complain(`pgarchivist: nothing is fetched ahead: ${(thrown as Error).message}\n`)
    }
  }
  await ahead(async () => {
    // The fetcher has nobody to complain to.
    void settings.spoolLimitBytes
    await fetcher.startEarly()
  })
  const isDelivered = isHandedOver || (await fetched())
  await ahead(() =>
    fetcher.goOn(isDelivered && isSegment ? { name, path: destination.path, isHandedOver } : undefined),
  )
  return isDelivered
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
