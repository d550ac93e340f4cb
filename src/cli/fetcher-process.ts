/** `pgarchivist: fetcher`, which an archive-get leaves behind to fetch what the server is going to ask for next. */

import { rm, rmdir, statfs } from 'node:fs/promises'
import path from 'node:path'
import { destinationOf, temporaryPrefix } from '../restore/destination.ts'
import { Fetcher } from '../restore/fetcher.ts'
import { Recovery } from '../restore/recovery.ts'
import { Spool, sourceMark, spoolPath } from '../restore/spool.ts'
import { moveWhole } from '../restore/whole-file.ts'
import { realClock } from '../system/clock.ts'
import { identityOf } from '../system/process-identity.ts'
import { processors } from '../system/processors.ts'
import { realFiles } from '../system/real-files.ts'
import { realLocks } from '../system/real-locks.ts'
import { FailedRepositories } from './failed-repositories.ts'
import { openRepositories } from './open-repository.ts'
import { type RepositoryFlags, RepositorySettings } from './repository-settings.ts'
import { isAlive } from './running-server.ts'

/** What an archive-get tells the fetcher that it starts. */
export interface FetcherStart {
  flags: RepositoryFlags
  workingDirectory: string
  /** As the server wrote it. */
  dest: string
}

const writtenAtOnceMin = 2
const writtenAtOnceMax = 4

async function run({ flags, workingDirectory, dest }: FetcherStart): Promise<void> {
  const readSettings = () =>
    RepositorySettings.read({
      files: realFiles,
      flags,
      environment: process.env,
      workingDirectory,
      walPath: dest,
    })
  const settings = await readSettings()
  const { dataDirectory } = settings
  const { directory: walDirectory } = destinationOf(path.resolve(workingDirectory, dest), process.pid)
  const recovery = await Recovery.of(realFiles, dataDirectory)
  const self = await identityOf(realFiles, process.pid)
  if (recovery === undefined || self === undefined) return

  const cluster = await realFiles.stat(dataDirectory)
  const mode = (cluster.mode & 0o050) === 0o050 ? 0o640 : 0o600
  const spool = new Spool(realFiles, spoolPath(dataDirectory, walDirectory, settings.spoolDirectory), mode)
  await spool.open(process.geteuid?.())
  const lock = await realLocks.acquire(spool.lockPath, `${process.pid}\n`)
  if (lock === undefined) return

  await removeLeftovers(walDirectory)
  const repository = await openRepositories(settings.repositories, {
    dataDirectory,
    failed: new FailedRepositories(walDirectory),
  })
  // Nobody is to wait for one that cannot fetch. And the first connection takes its time.
  await repository.reach()
  const systemIdentifier = await settings.systemIdentifier()
  const mark = sourceMark(settings.repositories, systemIdentifier)
  const facts = await factsOf(settings)
  const handOver = await canBeRenamed(spool.directory, walDirectory)
  const written = Math.min(Math.max(processors, writtenAtOnceMin), writtenAtOnceMax)
  const fetcher = new Fetcher({
    files: realFiles,
    clock: realClock,
    spool,
    self,
    source: { repository, systemIdentifier, identities: () => settings.identities() },
    sourceMark: mark,
    walDirectory,
    handOver,
    filesAtOnce: repository.filesAtOnce ?? written,
    writtenAtOnce: written,
    limitBytes: settings.spoolLimitBytes,
    recovery,
    haveSettingsChanged: async () => {
      const now = await readSettings().then(factsOf, () => undefined)
      return now !== facts
    },
    diskSpace: async directory => {
      const { bavail, blocks, bsize } = await statfs(directory)
      return { free: bavail * bsize, total: blocks * bsize }
    },
    watched: [spool.directory, dataDirectory],
  })
  const options = process.env['PGARCHIVIST_LAUNCHED_WITH'] ?? ''
  const end = await fetcher.run(() => spool.writeState(self, { handOver, options, source: mark }))
  if (end === 'server is gone') return
  await rm(spool.lockPath, { force: true })
  await rmdir(spool.directory).catch(() => undefined)
}

/** A command that was killed could not remove what it had begun. */
async function removeLeftovers(walDirectory: string): Promise<void> {
  const names: string[] = []
  await realFiles.visit(walDirectory, name => {
    if (name.startsWith(`${temporaryPrefix}.`)) names.push(name)
  })
  for (const name of names) {
    const pid = Number(name.slice(temporaryPrefix.length + 1).split('.')[0])
    if (pid > 0 && !isAlive(pid)) await rm(path.join(walDirectory, name), { force: true })
  }
}

/** Everything that decides what is fetched and where it is put, as text. */
async function factsOf(settings: RepositorySettings): Promise<string> {
  return JSON.stringify([
    settings.repositories,
    await settings.systemIdentifier(),
    settings.spoolDirectory ?? null,
    settings.spoolLimitBytes,
  ])
}

/** The device number does not tell: two mounts of one file system have the same. So it is tried. */
async function canBeRenamed(from: string, to: string): Promise<'rename' | 'copy'> {
  const [there, back] = [path.join(from, 'probe'), path.join(to, `${temporaryPrefix}.${process.pid}.probe`)]
  try {
    const probe = await realFiles.open(there, 'create')
    await probe.close()
    return (await moveWhole(realFiles, there, back)) ? 'rename' : 'copy'
  } catch {
    return 'copy'
  } finally {
    await rm(back, { force: true })
    await rm(there, { force: true })
  }
}

// Whatever happens, this is nobody's failure: the server asks for each file itself. And where the postmaster is the
// first process of a container, it restarts the cluster when a process that it never started ends otherwise.
function end(): never {
  process.exit(0)
}
process.on('uncaughtException', end)
process.on('unhandledRejection', end)
for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR2', 'SIGPIPE', 'SIGALRM'] as const) {
  process.on(signal, end)
}
const [title = 'pgarchivist: fetcher', start = '{}'] = process.argv.slice(2)
process.title = title
run(JSON.parse(start) as FetcherStart).then(end, end)
