// One recovery of the WAL of a corpus, watched.

import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { giveAway } from '../test/support/unprivileged.ts'
import { type ArchiverSettings, settingLines, tail } from './contestants.ts'
import { copySegments, serverSettings, type WalArena, type WalContestant, warm } from './wal-arena.ts'
import { type Corpus, segmentBytes } from './wal-corpus.ts'
import { WatchedServer } from './watched-server.ts'

const run = promisify(execFile)

const pollMs = 10
const limitMsPerSegment = 5_000
const limitMsMin = 60_000

// In the server's words. The checkpoint that follows is the same for all.
const recoveryStart = /starting (backup|archive) recovery/
const recoveryEnd = /archive recovery complete$/m

/** Somebody who brings the segments of a corpus back. */
export interface RestoreContestant {
  name: string
  /** Archives to what it restores from later, where that is not what all have. */
  archives?: WalContestant
  /** Of the server, besides what all servers have. */
  environment?: NodeJS.ProcessEnv
  /** Returns the settings of a server that restores; nothing of that is measured. */
  prepare(turn: RestoreTurn): Promise<ArchiverSettings>
}

export interface RestoreTurn {
  corpus: Corpus
  /** The directory of what was archived before, or of the segments as they are; empty where that is not on this disk. */
  archive: string
  dataDirectory: string
  /** A path that is free. */
  scratch: string
}

export interface Restore {
  /** From the beginning of recovery until there is nothing more to be replayed. */
  wallSeconds: number
  /** Of the server and all that it has started, from its start to the same moment. */
  cpuSeconds: number
}

/** What replaying takes by itself. */
export const alreadyThere: RestoreContestant = {
  name: 'nobody: the segments are in `pg_wal` already',
  prepare: async ({ corpus, dataDirectory }) => {
    await copySegments(corpus, join(dataDirectory, 'pg_wal'))
    return { restore_command: 'false' }
  },
}

/** Restores from what was archived before, in a copy of the corpus' base backup. */
export async function restoreOnce(
  arena: WalArena,
  contestant: RestoreContestant,
  archive: string,
  signal: AbortSignal,
): Promise<Restore> {
  signal.throwIfAborted()
  const { corpus } = arena
  const [dataDirectory, scratch] = [arena.path('restored'), arena.path('restored-scratch')]
  try {
    await run('cp', ['-a', '--reflink=never', corpus.backupDirectory, dataDirectory])
    const settings = await contestant.prepare({ corpus, archive, dataDirectory, scratch })
    const configuration = join(dataDirectory, 'postgresql.conf')
    const lines = settingLines({ ...serverSettings(arena.path('')), archive_mode: 'off', ...settings })
    await writeFile(configuration, `${await readFile(configuration, 'utf8')}${lines}`)
    const signalFile = join(dataDirectory, 'recovery.signal')
    await writeFile(signalFile, '')
    await giveAway(signalFile)
    await run('sync', ['-f', dataDirectory])
    if (archive !== '') await warm(archive)
    await using server = await WatchedServer.start({
      reaper: arena.reaper,
      programDirectory: arena.programDirectory,
      dataDirectory,
      logPath: arena.path('restored.log'),
      environment: contestant.environment,
    })
    const deadline = server.startedAt + Math.max(limitMsMin, corpus.segments.length * limitMsPerSegment)
    while (!recoveryEnd.test(await server.log())) {
      await server.requireAlive().catch((error: unknown) => {
        throw new Error(`${contestant.name}: ${error instanceof Error ? error.message : String(error)}`)
      })
      if (Date.now() > deadline) {
        const log = tail(await server.log())
        throw new Error(`${contestant.name} has not restored everything; the log ends with:\n${log}`)
      }
      await sleep(pollMs, undefined, { signal })
    }
    const cpuSeconds = await server.cpuSeconds()
    const log = await server.log()
    const end = endOfRedo(log)
    if (end !== corpus.segments.at(-1)) {
      throw new Error(
        `with ${contestant.name} recovery has ended in "${end}"; the log ends with:\n${tail(log)}`,
      )
    }
    const wallSeconds = (timeOf(log, recoveryEnd) - timeOf(log, recoveryStart)) / 1_000
    return { wallSeconds, cpuSeconds }
  } finally {
    await rm(dataDirectory, { recursive: true, force: true })
    await rm(scratch, { recursive: true, force: true })
  }
}

/** When the server wrote the first such line of its log. */
function timeOf(log: string, message: RegExp): number {
  const line = log.split('\n').find(each => message.test(each)) ?? ''
  const time = /^(\S+) (\S+) GMT /.exec(line)
  return Date.parse(`${time?.[1]}T${time?.[2]}Z`)
}

/** The segment with the last record that was replayed, on the first timeline. */
function endOfRedo(log: string): string | undefined {
  const [, high = '', low = ''] = /redo done at ([0-9A-F]+)\/([0-9A-F]+)/.exec(log) ?? []
  if (high === '') return undefined
  const segment = Math.floor(Number.parseInt(low, 16) / segmentBytes)
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return `00000001${hex(Number.parseInt(high, 16))}${hex(segment)}`
}
