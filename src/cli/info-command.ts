import path from 'node:path'
import { type ArchiverStatistics, newStatistics } from '../archiver/statistics.ts'
import { ArchiveStatus } from '../host/archive-status.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import { realFiles } from '../system/real-files.ts'
import { realLocks } from '../system/real-locks.ts'
import { isMissing, systemErrorText } from '../system/system-error.ts'
import { exists } from '../system/write-durably.ts'
import { openRepository } from './open-repository.ts'
import { RepositorySettings } from './repository-settings.ts'
import { StateDirectory } from './state-directory.ts'

interface Info {
  data_directory: string
  archiver: { running: boolean; pid: number | null }
  /** `null` where no archiver of ours has worked yet. */
  statistics: ArchiverStatistics | null
  waiting: { count: number; next: string | null }
  /** Those that the configuration of the server names. */
  repositories: { url: string | null; id: string | null; problem: string | null }[]
  /** What keeps the module "repository" and the commands from using its settings. */
  setting_problems: string[]
}

/** `pgarchivist info`: resolves with the exit status. */
export async function infoCommand(options: { pgdata: string; output: 'text' | 'json' }): Promise<number> {
  let info: Info
  try {
    info = await collectInfo(path.resolve(options.pgdata))
  } catch (thrown) {
    const isThere = await exists(realFiles, options.pgdata).catch(() => false)
    if (isThere && isMissing(thrown)) {
      process.stderr.write(
        `pgarchivist: directory "${options.pgdata}" is not a data directory of PostgreSQL\n`,
      )
      return 1
    }
    process.stderr.write(
      `pgarchivist: could not read data directory "${options.pgdata}": ${systemErrorText(thrown)}\n`,
    )
    return 1
  }
  process.stdout.write(options.output === 'json' ? `${JSON.stringify(info, null, 2)}\n` : asText(info))
  return 0
}

async function collectInfo(dataDirectory: string): Promise<Info> {
  const state = new StateDirectory(dataDirectory)
  const status = new ArchiveStatus(realFiles, `${dataDirectory}/pg_wal`)
  const waiting = await status.ready(1, () => undefined)
  const pid = await archiverPid(state)
  // As the next command would find them; what is wrong with them is part of the answer.
  const settings = await RepositorySettings.read({
    files: realFiles,
    flags: { pgdata: dataDirectory },
    environment: process.env,
    workingDirectory: process.cwd(),
  })
  return {
    data_directory: dataDirectory,
    archiver: { running: pid !== undefined, pid: pid ?? null },
    statistics: (await state.readStatistics()) ?? null,
    waiting: { count: waiting.count, next: waiting.first[0] ?? null },
    repositories: await repositoriesOf(settings),
    setting_problems: settings.problems.map(problemOf),
  }
}

async function repositoriesOf(settings: RepositorySettings): Promise<Info['repositories']> {
  if (!settings.isSet('pgarchivist.repository')) return []
  try {
    return await Promise.all(settings.repositories.map(url => repositoryAt(url, settings.dataDirectory)))
  } catch (thrown) {
    return [{ url: null, id: null, problem: problemOf(thrown) }]
  }
}

async function repositoryAt(at: RepositoryUrl, dataDirectory: string): Promise<Info['repositories'][number]> {
  await using repository = await openRepository(at, { dataDirectory })
  const { url } = repository
  try {
    return { url, id: await repository.requireRepository(), problem: null }
  } catch (thrown) {
    return { url, id: null, problem: problemOf(thrown) }
  }
}

function problemOf(thrown: unknown): string {
  if (thrown instanceof RepositoryError) return thrown.message
  throw thrown
}

async function archiverPid(state: StateDirectory): Promise<number | undefined> {
  if (!(await realLocks.isHeld(state.lockPath))) return undefined
  return Number.parseInt(await realFiles.readText(state.lockPath), 10) || undefined
}

function asText(info: Info): string {
  const { data_directory, archiver, statistics, waiting } = info
  const waits = `waiting         ${waiting.count}${waiting.next === null ? '' : `, next ${waiting.next}`}`
  const stored = [
    ...info.repositories.map(each => `repository      ${repositoryText(each)}`),
    ...info.setting_problems.map(each => `setting         ${each}`),
  ]
  if (statistics === null && !archiver.running) {
    // The server's own archiver counts in the server.
    return [
      `data directory  ${data_directory}`,
      "archiver        none beside the server has worked here; the server's own is in its view pg_stat_archiver",
      waits,
      ...stored,
      '',
    ].join('\n')
  }
  const counts = statistics ?? newStatistics(Date.now())
  const last = (name: string | null, time: string | null) =>
    name === null ? '' : `, last ${name} at ${time}`
  return [
    `data directory  ${data_directory}`,
    `archiver        ${archiver.running ? `running, PID ${archiver.pid}` : 'not running'}`,
    `archived        ${counts.archived_count}${last(counts.last_archived_wal, counts.last_archived_time)}`,
    `failed attempts ${counts.failed_count}${last(counts.last_failed_wal, counts.last_failed_time)}`,
    waits,
    ...stored,
    '',
  ].join('\n')
}

function repositoryText({ url, id, problem }: Info['repositories'][number]): string {
  if (problem === null) return `${url}, id ${id}`
  return url === null ? problem : `${url}: ${problem}`
}
