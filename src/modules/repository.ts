/**
 * `repository`: archives completed WAL files to a repository, compressed, checksummed, encrypted if there is a key to
 * do so, durable and write-once, several files at once. For one file it is, in a directory,
 *
 *     test ! -e OBJECT && (metadata; zstd -1 < %p | age -r KEY) > TEMPORARY && sync TEMPORARY && ln TEMPORARY OBJECT
 *
 * with a comparison of content where the object is there, and a look at the first page before anything is stored.
 */
import type { ArchiveModuleInit } from '../contract/archive-module.ts'
import type { ArchiveServer } from '../contract/archive-server.ts'
import { ReportedError } from '../contract/error-report.ts'
import type { GucBool, GucCheck, GucInt, GucString } from '../contract/guc.ts'
import { CodecError } from '../repository/codec/codec-error.ts'
import { parseRecipients } from '../repository/codec/recipient.ts'
import { recipientsMax } from '../repository/metadata-block.ts'
import type { Repository, WalSource } from '../repository/repository.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import { repositoryGucs } from '../repository/repository-gucs.ts'
import type { RepositoryWarning } from '../repository/repository-identity.ts'
import { RepositorySet, type SetWarning } from '../repository/repository-set.ts'
import { parseRepositoryUrls, type RepositoryUrl } from '../repository/repository-url.ts'
import type { Cluster } from '../repository/wal-origin.ts'
import type { Clock } from '../system/clock.ts'
import type { Files } from '../system/files.ts'
import { couldNot } from '../system/system-error.ts'
import { CatchingUp } from './catching-up.ts'

export interface RepositoryModuleOptions {
  files: Files
  clock: Clock
  /** `created` is told when a new repository was begun. */
  openRepository(
    url: RepositoryUrl,
    options: {
      dataDirectory: string
      role: 'module' | 'catch-up'
      created: (url: string, id: string) => void
      unguarded: (warning: RepositoryWarning) => void
    },
  ): Promise<Repository>
}

export function repositoryModule({
  files,
  clock,
  openRepository,
}: RepositoryModuleOptions): ArchiveModuleInit {
  return server => {
    const settings = declareSettings(server)
    const repositories = new Repositories(server, clock, openRepository)
    const current = () => repositories.at(settings.repository.value, settings.quorum.value)

    return {
      archive_ahead: true,
      startup_cb: async () => {
        if (settings.repository.value === '') return
        try {
          settings.recipients()
          const repository = await current()
          await repository.inspect(server.system_identifier)
        } catch (thrown) {
          // It may be mended before the first file comes, so this is no reason not to start.
          if (!(thrown instanceof RepositoryError)) throw thrown
          const { message: errmsg, detail: errdetail, hint: errhint } = thrown
          server.ereport('WARNING', { errmsg, errdetail, errhint })
        }
      },
      check_configured_cb: () => {
        if (settings.repository.value !== '') return true
        server.arch_module_check_errdetail('"pgarchivist.repository" is not set, or was refused.')
        return false
      },
      archive_file_cb: async (_state, file, path, { signal }) => {
        try {
          const repository = await current()
          const outcome = await repository.archive(walSource(files, file, path), {
            cluster: clusterOf(server),
            headerCheck: settings.headerCheck.value,
            compressionLevel: settings.compressionLevel.value,
            recipients: settings.recipients(),
            signal,
          })
          server.ereport('DEBUG1', { errmsg: `${outcome} "${file}" in repository "${repository.url}"` })
          return true
        } catch (thrown) {
          throw asReport(thrown)
        }
      },
      shutdown_cb: () => repositories.giveUp(),
    }
  }
}

/** A file in pg_wal. */
export function walSource(files: Files, name: string, path: string): WalSource {
  const told = (deed: string) => (thrown: unknown) => {
    try {
      return couldNot(`${deed} file "${path}"`)(thrown)
    } catch (error) {
      throw new RepositoryError('SOURCE', (error as Error).message, { cause: error })
    }
  }
  return {
    name,
    open: async () => {
      const file = await files.open(path, 'read').catch(told('open'))
      return {
        stat: () => file.stat().catch(told('stat')),
        read: buffer => file.read(buffer).catch(told('read')),
        // It was only read, so nothing is lost when closing it fails.
        [Symbol.asyncDispose]: () => file.close().catch(() => undefined),
      }
    },
  }
}

function clusterOf(server: ArchiveServer): Cluster {
  const { system_identifier, wal_segment_size, wal_page_magic, data_directory } = server
  if (system_identifier === undefined) {
    throw new RepositoryError(
      'SETTINGS',
      `the system identifier of the cluster in "${data_directory}" is not known`,
      {
        hint: 'It is in the control file "global/pg_control": is this a data directory, and may this user read it?',
      },
    )
  }
  return { systemIdentifier: system_identifier, walSegmentBytes: wal_segment_size, pageMagic: wal_page_magic }
}

function asReport(thrown: unknown): unknown {
  if (!(thrown instanceof RepositoryError)) return thrown
  const { message: errmsg, detail: errdetail, hint: errhint } = thrown
  return new ReportedError('ERROR', { errmsg, errdetail, errhint }, { cause: thrown })
}

/** One for each URL that was ever set, because what is known of it outlasts a change of settings. */
class Repositories {
  readonly #server: ArchiveServer
  readonly #clock: Clock
  readonly #openRepository: RepositoryModuleOptions['openRepository']
  readonly #opened = new Map<string, Promise<Repository>>()
  #current: { setting: string; quorum: number; target: Promise<ArchiveTarget> } | undefined

  constructor(
    server: ArchiveServer,
    clock: Clock,
    openRepository: RepositoryModuleOptions['openRepository'],
  ) {
    this.#server = server
    this.#clock = clock
    this.#openRepository = openRepository
  }

  async at(setting: string, quorum: number): Promise<RepositorySet> {
    if (this.#current?.setting !== setting || this.#current.quorum !== quorum) {
      // What goes on by the settings before shall not go on by them.
      const before = this.#current
      const target = this.#begin(setting, quorum)
      this.#current = { setting, quorum, target }
      // What failed is tried again with the next file.
      target.catch(() => {
        if (this.#current?.target === target) this.#current = undefined
      })
      void giveUp(before?.target)
    }
    return (await this.#current.target).set
  }

  async giveUp(): Promise<void> {
    const current = this.#current
    this.#current = undefined
    await giveUp(current?.target)
  }

  async #begin(setting: string, quorum: number): Promise<ArchiveTarget> {
    const urls = parseRepositoryUrls(setting)
    if (urls.length === 0) throw new RepositoryError('SETTINGS', '"pgarchivist.repository" is not set')
    let catchingUp: CatchingUp | undefined
    const set = new RepositorySet({
      repositories: await Promise.all(urls.map(url => this.#opening(url))),
      quorum,
      clock: this.#clock,
      warn: warning => this.#warn(warning),
      fellBehind: () => catchingUp?.fellBehind(),
      answersAgain: ({ url }) => {
        this.#server.ereport('LOG', { errmsg: `repository "${url}" answers again` })
        catchingUp?.answersAgain()
      },
    })
    if (urls.length > 1) {
      catchingUp = new CatchingUp({
        clock: this.#clock,
        systemIdentifier: () => clusterOf(this.#server).systemIdentifier,
        // Under names of their own: a file that is being archived may be one that is being copied.
        open: () => Promise.all(urls.map(url => this.#open(url, 'catch-up'))),
        isBusy: () => set.isBusy,
        log: (level, message) => this.#server.ereport(level, message),
      })
      catchingUp.start()
    }
    return { set, catchingUp }
  }

  #warn({ message: errmsg, detail: errdetail, hint: errhint }: SetWarning): void {
    this.#server.ereport('WARNING', { errmsg, errdetail, errhint })
  }

  #opening(url: RepositoryUrl): Promise<Repository> {
    const key = JSON.stringify(url)
    const opened = this.#opened.get(key) ?? this.#open(url, 'module')
    this.#opened.set(key, opened)
    opened.catch(() => this.#opened.delete(key))
    return opened
  }

  #open(url: RepositoryUrl, role: 'module' | 'catch-up'): Promise<Repository> {
    return this.#openRepository(url, {
      dataDirectory: this.#server.data_directory,
      role,
      created: (where, id) =>
        this.#server.ereport('LOG', {
          errmsg: `began a new repository at "${where}"`,
          errdetail: `Its id is ${id}.`,
        }),
      unguarded: warning => this.#warn(warning),
    })
  }
}

interface ArchiveTarget {
  set: RepositorySet
  catchingUp: CatchingUp | undefined
}

async function giveUp(target: Promise<ArchiveTarget> | undefined): Promise<void> {
  const begun = await target?.catch(() => undefined)
  await Promise.all([begun?.set.giveUp(), begun?.catchingUp?.stop()])
}

function declareSettings(server: ArchiveServer) {
  // Where the first value is refused the default is in force, and the default is not to encrypt.
  let isRefused = false
  const checkRecipients = acceptsWhat('pgarchivist.encryption_recipients', text => {
    const count = parseRecipients(text).length
    if (count > recipientsMax) {
      throw new RepositoryError('SETTINGS', `there are ${count} recipients`, {
        hint: `An object has room for ${recipientsMax}.`,
      })
    }
  })
  const settings = {
    repository: server.DefineCustomStringVariable({
      ...stringGuc('pgarchivist.repository'),
      check_hook: acceptsWhat('pgarchivist.repository', parseRepositoryUrls),
    }),
    quorum: server.DefineCustomIntVariable(intGuc('pgarchivist.repository_quorum')),
    compressionLevel: server.DefineCustomIntVariable(intGuc('pgarchivist.compression_level')),
    encryptionRecipients: server.DefineCustomStringVariable({
      ...stringGuc('pgarchivist.encryption_recipients'),
      check_hook: (value, check) => {
        const isAccepted = checkRecipients(value, check)
        isRefused = !isAccepted
        return isAccepted
      },
    }),
    headerCheck: server.DefineCustomBoolVariable(boolGuc('pgarchivist.header_check')),
  }
  // What archive-get reads belongs to the same prefix.
  server.DefineCustomStringVariable(stringGuc('pgarchivist.identity_file'))
  server.DefineCustomStringVariable(stringGuc('pgarchivist.spool_directory'))
  server.DefineCustomIntVariable(intGuc('pgarchivist.spool_limit'))
  return {
    ...settings,
    /** Public keys. Whoever asked for encryption and did not get it archives nothing. */
    recipients(): string[] {
      const recipients = parseRecipients(settings.encryptionRecipients.value)
      if (!isRefused || recipients.length > 0) return recipients
      throw new RepositoryError(
        'SETTINGS',
        'nothing is archived, because the value of "pgarchivist.encryption_recipients" was refused',
        { hint: 'Correct it, or remove it to archive without encryption.' },
      )
    },
  }
}

/** A check hook that refuses what `parse` throws for, in its words, which do not repeat what may be a secret. */
function acceptsWhat(name: string, parse: (value: string) => unknown) {
  return (value: string, check: GucCheck): boolean => {
    try {
      parse(value)
      return true
    } catch (thrown) {
      if (!(thrown instanceof RepositoryError || thrown instanceof CodecError)) throw thrown
      check.GUC_check_errmsg(`invalid value for parameter "${name}": ${thrown.message}`)
      if (thrown instanceof RepositoryError) check.GUC_check_errhint(thrown.hint)
      return false
    }
  }
}

function declarationOf(name: string) {
  const declaration = repositoryGucs.find(each => each.name === name)
  if (declaration === undefined) throw new Error(`there is no setting "${name}"`)
  return declaration
}

const stringGuc = (name: string) => declarationOf(name) as GucString
const intGuc = (name: string) => declarationOf(name) as GucInt
const boolGuc = (name: string) => declarationOf(name) as GucBool
