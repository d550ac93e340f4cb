/**
 * What `archive-push` leaves behind when more files wait than the one that it was run for: archives them before the
 * server asks, and ends by itself. Its arguments are the directory of the WAL and the one for its notes.
 */
import { writeFileSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { PushAhead } from '../host/push-ahead.ts'
import { isSameMarks, type SourceMark, sourceMarks } from '../host/source-marks.ts'
import { walSource } from '../modules/repository.ts'
import { realClock } from '../system/clock.ts'
import { identityOf, printIdentity } from '../system/process-identity.ts'
import { realFiles } from '../system/real-files.ts'
import { realLocks } from '../system/real-locks.ts'
import { errnoCode } from '../system/system-error.ts'
import { pushTarget } from './archive-push-command.ts'
import type { RepositorySettings } from './repository-settings.ts'
import { isAlive } from './running-server.ts'

const idleMs = 60_000
const filesAtOnceLocal = 4 // as "pgarchivist.archive_ahead" has it by default
const lookMs = 1_000
const stableAttempts = 10
const stableAfterMs = 100

const [walDirectory = '', notesDirectory = ''] = process.argv.slice(2)
process.title = 'pgarchivist: archive-push'
// The server's signals are for those whom it waits for. And whatever ends this by a signal, under a postmaster that is
// process number 1, would restart the cluster.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR2', 'SIGALRM'] as const) {
  process.on(signal, () => {})
}
process.on('uncaughtException', () => process.exit(1))

await run()
process.exit(0)

async function run(): Promise<void> {
  await mkdir(notesDirectory, { mode: 0o700 }).catch(thrown => {
    if (errnoCode(thrown) !== 'EEXIST') throw thrown
  })
  const lock = await realLocks.acquire(path.join(notesDirectory, 'lock'), `${process.pid}\n`)
  if (lock === undefined) return
  const wal = path.join(walDirectory, 'any')
  const found = await stableTarget(wal)
  if (found === undefined) return
  const { repository, options, settings, marks } = found
  const server = await serverOf(settings.dataDirectory)
  if (server === undefined) return

  let lookedAt = realClock.monotonic()
  const mayGoOn = async () => {
    if (realClock.monotonic() - lookedAt < lookMs) return 'goes on'
    lookedAt = realClock.monotonic()
    if ((await serverOf(settings.dataDirectory)) !== server) return 'gone'
    // What was archived by other settings is not what the server is told now.
    return isSameMarks(await marksOf(settings), marks) ? 'goes on' : 'over'
  }
  const ahead = new PushAhead({
    files: realFiles,
    clock: realClock,
    walDirectory,
    notesDirectory,
    archiveFile: async (name, file) => {
      await repository.archive(walSource(realFiles, name, file), options)
    },
    filesAtOnce: repository.filesAtOnce ?? filesAtOnceLocal,
    idleMs,
    mayGoOn,
  })
  const self = await identityOf(realFiles, process.pid)
  if (self === undefined) return
  // The notes of the one before were of other settings, perhaps: they have to go before anybody trusts this process.
  await ahead.clear()
  writeFileSync(
    path.join(notesDirectory, 'state'),
    [
      printIdentity(self),
      process.env['PGARCHIVIST_PUSHED_WITH'] ?? '',
      ...marks.flatMap(({ identity, path: source }) => [identity, source]),
      'end\n',
    ].join('\n'),
    { mode: 0o600 },
  )
  await ahead.run()
}

/**
 * Where files go, and the marks of what says so: they are the same before and after it was read, so they stand for what
 * was read. `undefined` where they keep changing.
 */
async function stableTarget(wal: string) {
  for (let attempt = 0; attempt < stableAttempts; attempt++) {
    const { settings } = await pushTarget(wal, {}, 'ahead of archive-push')
    const marks = await marksOf(settings)
    const target = await pushTarget(wal, {}, 'ahead of archive-push')
    if (marks !== undefined && isSameMarks(marks, await marksOf(target.settings))) return { ...target, marks }
    await realClock.sleep(stableAfterMs)
  }
  return undefined
}

function marksOf({ sources }: RepositorySettings): Promise<SourceMark[] | undefined> {
  return sourceMarks(realFiles, realClock, sources)
}

/** Whose WAL it is; `undefined` when no server runs on the directory. */
async function serverOf(dataDirectory: string): Promise<string | undefined> {
  const text = await readFile(path.join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')
  const [pid, , startTime] = text.split('\n')
  return pid && startTime && isAlive(Number(pid)) ? `${pid} ${startTime}` : undefined
}
