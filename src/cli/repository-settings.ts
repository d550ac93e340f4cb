import path from 'node:path'
import { systemIdentifier } from '../archiver/cluster-facts.ts'
import { type LogMessage, ReportedError } from '../contract/error-report.ts'
import type { GucBool, GucInt, GucString, GucVariable } from '../contract/guc.ts'
import {
  findConfigurationFile,
  readConfigurationFiles,
  readPostmasterOptions,
} from '../host/configuration-file.ts'
import { GucRegistry } from '../host/guc-registry.ts'
import type { GucValue } from '../host/guc-type.ts'
import { postmasterOptions } from '../host/postmaster-options.ts'
import { type RawSetting, type Settings, settingsOf } from '../host/settings.ts'
import { parseIdentities, parseRecipients } from '../repository/codec/recipient.ts'
import { isSystemIdentifier } from '../repository/object-key.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import { type RepositoryGuc, repositoryGucs } from '../repository/repository-gucs.ts'
import { parseRepositoryUrls, type RepositoryUrl } from '../repository/repository-url.ts'
import type { FileStatus, Files } from '../system/files.ts'
import { isMissing, systemErrorText } from '../system/system-error.ts'
import { librarySettings } from './library-settings.ts'

/** What a command line says, as options of commands; each as it was written. */
export interface RepositoryFlags {
  pgdata?: string | undefined
  systemIdentifier?: string | undefined
  repository?: string | undefined
  repositoryQuorum?: string | undefined
  compressionLevel?: string | undefined
  encryptionRecipients?: string | undefined
  identityFile?: string | undefined
  spoolDirectory?: string | undefined
  spoolLimit?: string | undefined
  headerCheck?: string | undefined
}

export interface RepositorySettingsOptions {
  files: Files
  flags: RepositoryFlags
  environment: NodeJS.ProcessEnv
  workingDirectory: string
  /** Of a WAL file that the server has named, as `%p` does. */
  walPath?: string | undefined
}

/**
 * The data directory of a command that the server starts: the one that is named, else the one whose `pg_wal` holds the
 * file that the command is about, else the working directory, which is where the server starts commands.
 */
export function dataDirectoryOf(
  options: Pick<RepositorySettingsOptions, 'flags' | 'workingDirectory' | 'walPath'>,
): string {
  const { flags, workingDirectory, walPath } = options
  if (flags.pgdata !== undefined) return path.resolve(workingDirectory, flags.pgdata)
  const above = walPath === undefined ? '' : path.dirname(walPath)
  // As it is written: pg_wal may be a link to another disk.
  return path.basename(above) === 'pg_wal'
    ? path.resolve(workingDirectory, path.dirname(above))
    : workingDirectory
}

/**
 * The settings of a repository where there is no server to ask: from the configuration files and the command line of
 * the server, then from the environment, then from the flags of a command. Each is looked at when it is wanted, and
 * throws a `RepositoryError` when it cannot be used: what a command does not need cannot keep it from working.
 */
export class RepositorySettings {
  readonly dataDirectory: string
  /** The files and directories of the server that say what the settings are. */
  readonly sources: readonly string[]
  readonly #options: RepositorySettingsOptions
  readonly #values: ReadonlyMap<string, GucVariable<GucValue>>
  readonly #problems: ReadonlyMap<string, RepositoryError>
  /** Where each is set, in words. */
  readonly #places: ReadonlyMap<string, string>

  private constructor(
    options: RepositorySettingsOptions,
    values: ReadonlyMap<string, GucVariable<GucValue>>,
    problems: ReadonlyMap<string, RepositoryError>,
    places: ReadonlyMap<string, string>,
    sources: readonly string[],
  ) {
    this.sources = sources
    this.dataDirectory = dataDirectoryOf(options)
    this.#options = options
    this.#values = values
    this.#problems = problems
    this.#places = places
  }

  static async read(options: RepositorySettingsOptions): Promise<RepositorySettings> {
    const dataDirectory = dataDirectoryOf(options)
    const unusable =
      options.flags.pgdata === undefined ? undefined : await whyNoDirectory(options.files, dataDirectory)
    const fromServer = unusable
      ? { settings: settingsOf([]), problem: unusable, sources: [] }
      : await serverSettings(options.files, dataDirectory)
    const ours = ownSettings(options)
    const settings = settingsOf([...fromServer.settings.values(), ...ours.settings.values()])
    const values = new Map<string, GucVariable<GucValue>>()
    const problems = new Map<string, RepositoryError>()
    let complaint: LogMessage | undefined
    const registry = new GucRegistry({ log: message => void (complaint = message) })
    registry.load(settings)
    for (const guc of repositoryGucs) {
      complaint = undefined
      values.set(guc.name, define(registry, guc))
      const where = ours.places.get(guc.name)
      if (where === undefined && fromServer.problem) problems.set(guc.name, fromServer.problem)
      else if (complaint) problems.set(guc.name, refusal(complaint, where ?? place(settings.get(guc.name))))
    }
    const places = new Map(
      [...settings].map(([name, setting]) => [name, ours.places.get(name) ?? place(setting)]),
    )
    return new RepositorySettings(options, values, problems, places, fromServer.sources)
  }

  /** Throws where a setting of ours is misspelt: what it should have said, as to encrypt, would not be done. */
  requireKnownNames(): void {
    for (const problem of this.#unknownNames()) throw problem
  }

  #unknownNames(): RepositoryError[] {
    return [...this.#places]
      .filter(
        ([name]) => name.startsWith('pgarchivist.') && !this.#values.has(name) && !librarySettings.has(name),
      )
      .map(
        ([name, where]) =>
          new RepositoryError('SETTINGS', `unrecognized configuration parameter "${name}" in ${where}`),
      )
  }

  /** What keeps files from being archived, beside where they go: that is told by `repositories`. */
  get problems(): RepositoryError[] {
    const found = [...this.#unknownNames(), ...this.#problems.values()]
    if (!this.#problems.has('pgarchivist.encryption_recipients')) {
      try {
        void this.recipients
      } catch (thrown) {
        if (!(thrown instanceof RepositoryError)) throw thrown
        found.push(thrown)
      }
    }
    // Of a file that cannot be used, every setting says the same.
    return [...new Map(found.map(each => [each.message, each])).values()]
  }

  /** Does somebody say something about it? */
  isSet(name: string): boolean {
    return this.#places.has(name)
  }

  /** At least one. */
  get repositories(): RepositoryUrl[] {
    const urls = this.#parsed('pgarchivist.repository', parseRepositoryUrls)
    if (urls.length > 0) return urls
    throw new RepositoryError('SETTINGS', '"pgarchivist.repository" is not set', {
      hint: `Set it in the configuration of the server whose data directory is "${this.dataDirectory}", or use --repository or PGARCHIVIST_REPOSITORY.`,
    })
  }

  /** In how many of them a file has to be; 0 for all. */
  get repositoryQuorum(): number {
    return this.#value('pgarchivist.repository_quorum') as number
  }

  get compressionLevel(): number {
    return this.#value('pgarchivist.compression_level') as number
  }

  /** Public keys. */
  get recipients(): string[] {
    return this.#parsed('pgarchivist.encryption_recipients', parseRecipients)
  }

  get headerCheck(): boolean {
    return this.#value('pgarchivist.header_check') as boolean
  }

  /** Absolute; `undefined` where none is set. */
  get spoolDirectory(): string | undefined {
    return this.#path('pgarchivist.spool_directory')
  }

  get spoolLimitBytes(): number {
    return (this.#value('pgarchivist.spool_limit') as number) * 1024
  }

  /** Is there a cluster in the data directory? Otherwise it is just where somebody has started us. */
  async hasCluster(): Promise<boolean> {
    return await this.#options.files.stat(`${this.dataDirectory}/PG_VERSION`).then(
      () => true,
      thrown => !isMissing(thrown),
    )
  }

  async systemIdentifier(): Promise<string> {
    const { flags, environment, files } = this.#options
    const named: Array<[string, string | undefined]> = [
      ['option "--system-identifier"', flags.systemIdentifier],
      ['environment variable PGARCHIVIST_SYSTEM_IDENTIFIER', environment['PGARCHIVIST_SYSTEM_IDENTIFIER']],
    ]
    for (const [where, text] of named) {
      if (text === undefined || text === '') continue
      if (isSystemIdentifier(text)) return text
      throw new RepositoryError('SETTINGS', `"${text}" in ${where} is not a system identifier`, {
        hint: 'It is the number that "pg_controldata" shows as "Database system identifier".',
      })
    }
    const unusable = flags.pgdata === undefined ? undefined : await whyNoDirectory(files, this.dataDirectory)
    if (unusable) throw unusable
    const identifier = await systemIdentifier(files, this.dataDirectory)
    if (identifier !== undefined && isSystemIdentifier(identifier)) return identifier
    throw new RepositoryError(
      'SETTINGS',
      `could not read the system identifier from file "${this.dataDirectory}/global/pg_control"`,
      { hint: 'Name the data directory with -D, or the system identifier with --system-identifier.' },
    )
  }

  /** Secret keys; none where no identity file is set. */
  async identities(): Promise<readonly string[]> {
    const file = this.#path('pgarchivist.identity_file')
    if (file === undefined) return []
    const { files } = this.#options
    let text: string
    try {
      const status = await files.stat(file)
      refuseUnlessFile(file, status)
      refuseIfOthersMayRead(file, status)
      text = await files.readText(file)
    } catch (thrown) {
      if (thrown instanceof RepositoryError) throw thrown
      throw new RepositoryError(
        'NO_KEY',
        `could not read identity file "${file}": ${systemErrorText(thrown)}`,
        { cause: thrown, hint: 'Let "pgarchivist.identity_file" name a file that this user may read.' },
      )
    }
    try {
      return parseIdentities(text)
    } catch (thrown) {
      throw new RepositoryError('SETTINGS', `identity file "${file}": ${(thrown as Error).message}`, {
        cause: thrown,
        hint: 'It has to hold secret keys as "age-keygen" writes them.',
      })
    }
  }

  #path(name: string): string | undefined {
    const text = this.#text(name)
    if (text === '') return undefined
    // What is typed at a command line is meant from where it is typed.
    const isOption = this.#places.get(name)?.startsWith('option ') === true
    return path.resolve(isOption ? this.#options.workingDirectory : this.dataDirectory, text)
  }

  #text(name: string): string {
    return this.#value(name) as string
  }

  #parsed<T>(name: string, parse: (text: string) => T): T {
    const text = this.#text(name)
    try {
      return parse(text)
    } catch (thrown) {
      const where = this.#places.get(name) ?? 'its default'
      throw new RepositoryError('SETTINGS', `"${name}": ${(thrown as Error).message}, in ${where}`, {
        cause: thrown,
        ...(thrown instanceof RepositoryError && { detail: thrown.detail, hint: thrown.hint }),
      })
    }
  }

  #value(name: string): GucValue {
    const problem = this.#problems.get(name)
    if (problem !== undefined) throw problem
    const variable = this.#values.get(name)
    if (variable === undefined) throw new Error(`there is no setting "${name}"`)
    return variable.value
  }
}

/** Told before anything is missed in a data directory that was named and is none. */
async function whyNoDirectory(files: Files, dataDirectory: string): Promise<RepositoryError | undefined> {
  const hint = 'Name the data directory of the server with -D.'
  try {
    const { kind } = await files.stat(dataDirectory)
    if (kind === 'directory') return undefined
    return new RepositoryError('SETTINGS', `data directory "${dataDirectory}" is not a directory`, { hint })
  } catch (thrown) {
    // What else there is, the files in it meet, too.
    if (!isMissing(thrown)) return undefined
    return new RepositoryError('SETTINGS', `data directory "${dataDirectory}" does not exist`, { hint })
  }
}

/** From its files, and from the command line that it was started with, which counts more. */
async function serverSettings(
  files: Files,
  dataDirectory: string,
): Promise<{ settings: Settings; problem: RepositoryError | undefined; sources: string[] }> {
  // The first two decide which file is read.
  const sources = [`${dataDirectory}/postmaster.opts`, `${dataDirectory}/postgresql.conf`]
  try {
    const configFile = await findConfigurationFile({ files, dataDirectory })
    const read = await readConfigurationFiles({ files, configFile, dataDirectory })
    sources.push(...read.sources)
    const [error] = read.errors
    if (error) {
      return {
        sources,
        settings: new Map(),
        problem: new RepositoryError('SETTINGS', error.errmsg, {
          detail: error.errdetail,
          hint: `Configuration file "${read.fileWithErrors}" contains errors: correct it, or run this as a user who may read it.`,
        }),
      }
    }
    const commandLine = postmasterOptions(await readPostmasterOptions(files, dataDirectory))
    return {
      sources,
      settings: settingsOf([...read.settings.values(), ...commandLine.values()]),
      problem: undefined,
    }
  } catch (thrown) {
    const message = thrown instanceof ReportedError ? thrown.errmsg : (thrown as Error).message
    return {
      sources,
      settings: new Map(),
      problem: new RepositoryError('SETTINGS', message, { cause: thrown }),
    }
  }
}

/** From environment and flags, and where each of them is. */
function ownSettings({ environment, flags }: RepositorySettingsOptions): {
  settings: Settings
  places: ReadonlyMap<string, string>
} {
  const list: RawSetting[] = []
  const places = new Map<string, string>()
  for (const { name } of repositoryGucs) {
    const word = name.slice('pgarchivist.'.length)
    const variable = `PGARCHIVIST_${word.toUpperCase()}`
    const flag = word.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase())
    const fromFlag = flags[flag as keyof RepositoryFlags]
    // A variable that is set to nothing is how many programs unset one.
    const fromEnvironment = environment[variable] || undefined
    const value = fromFlag ?? fromEnvironment
    if (value === undefined) continue
    list.push({ name, value, source: 'PGC_S_ARGV' })
    places.set(
      name,
      fromFlag === undefined ? `environment variable ${variable}` : `option "--${word.replaceAll('_', '-')}"`,
    )
  }
  return { settings: settingsOf(list), places }
}

function define(registry: GucRegistry, guc: RepositoryGuc): GucVariable<GucValue> {
  switch (guc.type) {
    case 'string':
      return registry.defineString(guc satisfies GucString)
    case 'int':
      return registry.defineInt(guc satisfies GucInt)
    case 'bool':
      return registry.defineBool(guc satisfies GucBool)
    default:
      return guc satisfies never
  }
}

function place(setting: RawSetting | undefined): string {
  return setting?.sourcefile === undefined
    ? 'the command line of the server'
    : `file "${setting.sourcefile}" line ${setting.sourceline}`
}

function refusal({ errmsg, errdetail, errhint }: LogMessage, where: string): RepositoryError {
  return new RepositoryError('SETTINGS', `${errmsg}, in ${where}`, {
    detail: errdetail,
    ...(errhint !== undefined && { hint: errhint }),
  })
}

/** Before its permissions are looked at: those of a directory are not to be changed for us. */
function refuseUnlessFile(file: string, { kind }: FileStatus): void {
  if (kind === 'file') return
  const what = kind === 'directory' ? 'is a directory' : 'is not a regular file'
  throw new RepositoryError('SETTINGS', `identity file "${file}" ${what}`, {
    hint: 'Let "pgarchivist.identity_file" name a file that holds secret keys as "age-keygen" writes them.',
  })
}

/** As the server does with the key of its certificate: for its owner only, or for a group where it belongs to root. */
function refuseIfOthersMayRead(file: string, { uid, mode }: FileStatus): void {
  const [forbidden, remedy] = uid === 0 ? [0o037, '640'] : [0o077, '600']
  if ((mode & forbidden) === 0) return
  throw new RepositoryError('SETTINGS', `identity file "${file}" may be read or changed by others`, {
    detail: `Its permissions are ${mode.toString(8).padStart(4, '0')}.`,
    hint: `Run "chmod ${remedy} ${file}".`,
  })
}
