import { spawn } from 'node:child_process'
import { writeSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import { clusterFacts } from '../archiver/cluster-facts.ts'
import { ArchiveStatus } from '../host/archive-status.ts'
import { walSource } from '../modules/repository.ts'
import type { ArchiveOptions } from '../repository/repository.ts'
import { RepositoryError, type RepositoryErrorKind } from '../repository/repository-error.ts'
import type { RepositorySet } from '../repository/repository-set.ts'
import { warningLine } from '../restore/exit-status.ts'
import { realFiles } from '../system/real-files.ts'
import { openRepositories } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'
import { siblingProgram } from './sibling-program.ts'

/**
 * How the program tells the launcher that a file is archived. A program of Node's that ends unexpectedly may do so
 * with 0, so that is not it. Also known in bin/pgarchivist.
 */
export const pushed = 100

/**
 * In the directory of the WAL, where the files are about which it is. Base backups leave out what begins like this.
 * Also known in bin/pgarchivist.
 */
const pushNotesDirectory = 'pgsql_tmp.archive-push'

/** Up to 125, because the server's archiver takes more for a reason to end itself. */
const statusOf: Readonly<Record<RepositoryErrorKind | 'internal', number>> = {
  unreachable: 2,
  settings: 3,
  refused: 4,
  corrupt: 5,
  key: 6,
  internal: 7,
}

/** The module brings a repository that was away up to date; a command that lives for one file cannot. */
const fallsBehind =
  'The others suffice. This one lacks the file until "pgarchivist catch-up" runs, which archive-push does not do by itself.'

/** `pgarchivist archive-push PATH`: resolves with the status for the launcher, `pushed` or one of `statusOf`. */
export async function archivePushCommand(walPath: string, flags: RepositoryFlags): Promise<number> {
  const name = path.basename(walPath)
  try {
    const { repository, options } = await pushTarget(walPath, flags, 'archive-push')
    await repository.archive(walSource(realFiles, name, path.resolve(walPath)), options)
    // Flags may differ from one call to the next, and would have to be part of what is remembered.
    if (Object.keys(flags).length === 0) await pushAhead(path.dirname(path.resolve(walPath)))
    return pushed
  } catch (thrown) {
    complain(name, thrown)
    return statusOf[thrown instanceof RepositoryError ? thrown.kind : 'internal']
  }
}

/** Where files go, by the settings as they are now. */
export async function pushTarget(
  walPath: string,
  flags: RepositoryFlags,
  role: 'archive-push' | 'ahead of archive-push',
): Promise<{ repository: RepositorySet; options: ArchiveOptions; settings: RepositorySettings }> {
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags,
    environment: process.env,
    workingDirectory: process.cwd(),
    walPath,
  })
  settings.requireKnownNames()
  const { dataDirectory } = settings
  const repository = await openRepositories(settings.repositories, {
    quorum: settings.repositoryQuorum,
    role,
    dataDirectory: (await settings.hasCluster()) ? dataDirectory : undefined,
    warn: ({ hint, ...warning }) => {
      const hints = hint === undefined ? fallsBehind : `${hint} ${fallsBehind}`
      tell(`pgarchivist: ${warningLine({ ...warning, hint: hints })}`)
    },
    unguarded: warning => tell(`pgarchivist: ${warningLine(warning)}`),
    created: (url, id) => tell(`pgarchivist: began a new repository at "${url}", with id ${id}`),
  })
  const facts = await clusterFacts(realFiles, dataDirectory)
  return {
    repository,
    settings,
    options: {
      cluster: {
        systemIdentifier: await settings.systemIdentifier(),
        walSegmentBytes: facts.wal_segment_size,
        pageMagic: facts.wal_page_magic,
      },
      headerCheck: settings.headerCheck,
      compressionLevel: settings.compressionLevel,
      recipients: settings.recipients,
    },
  }
}

/**
 * Leaves a process behind that archives what waits, if anything does beside the file that was just archived. Nothing
 * depends on it, so whatever keeps it from starting is no failure of this file.
 */
async function pushAhead(walDirectory: string): Promise<void> {
  // What it leaves in there would belong to root, and keep the server from archiving ahead for good.
  const owner = await stat(walDirectory).catch(() => undefined)
  if (owner?.uid !== process.geteuid?.()) return
  const status = new ArchiveStatus(realFiles, walDirectory)
  const waiting = await status.ready(1, () => undefined).catch(() => undefined)
  if (waiting === undefined || waiting.count < 2) return
  const program = [
    siblingProgram('push-ahead-process'),
    walDirectory,
    `${walDirectory}/${pushNotesDirectory}`,
  ]
  try {
    const child = spawn(process.execPath, [...process.execArgv, ...program], {
      detached: true,
      stdio: 'ignore',
    })
    child.on('error', () => undefined)
    child.unref()
  } catch {
    // As where there is no memory for it.
  }
}

/** In one line, because the server tries again every second. */
function complain(name: string, thrown: unknown): void {
  const { message } = thrown instanceof Error ? thrown : new Error(String(thrown))
  const more = thrown instanceof RepositoryError ? [thrown.detail, thrown.hint] : []
  const sentences = more.filter(each => each !== undefined).map(each => ` ${each}`)
  tell(
    `pgarchivist: could not archive "${name}": ${message}${sentences.length > 0 ? '.' : ''}${sentences.join('')}`,
  )
}

function tell(line: string): void {
  try {
    writeSync(process.stderr.fd, `${line.replaceAll(/\s*\n\s*/g, ' ')}\n`)
  } catch {
    // A log that cannot be written must not change what becomes of the file.
  }
}
