import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import type { AzureLocation } from '../repository/azure-location.ts'
import { RepositoryError } from '../repository/repository-error.ts'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import type { S3Location } from '../repository/s3-location.ts'
import type { SftpLocation } from '../repository/sftp-location.ts'
import { LocalStore, type LocalStoreOptions } from '../repository/store/local-store.ts'
import { remoteStore } from '../repository/store/remote-store.ts'
import type { RemoteDriver } from '../repository/store/requests.ts'
import type { Store } from '../repository/store/store.ts'
import { realClock } from '../system/clock.ts'
import { ownMark } from '../system/process-mark.ts'
import { realFiles } from '../system/real-files.ts'
import { realSockets } from '../system/real-sockets.ts'
import { systemErrorText } from '../system/system-error.ts'

export interface OpenStoreOptions
  extends Pick<LocalStoreOptions, 'writer' | 'isGroupReadable' | 'owner' | 'failedSyncs'> {
  /** For how long a request across a network is sent again when it fails. */
  retryMs: number
}

/**
 * The store at a URL. What only one kind of store needs is loaded when that kind is used: its case imports its driver
 * from there (`await import`) and hands it to `acrossNetwork`.
 */
export async function openStore(url: RepositoryUrl, options: OpenStoreOptions): Promise<Store> {
  switch (url.scheme) {
    case 'file':
      return new LocalStore({
        ...options,
        files: realFiles,
        clock: realClock,
        directory: url.directory,
        process: await ownMark(realFiles),
      })
    case 's3':
      return acrossNetwork(await s3Driver(url), options)
    case 'azure':
      return acrossNetwork(await azureDriver(url), options)
    case 'sftp':
      return acrossNetwork(await sftpDriver(url), options)
    default:
      return url satisfies never
  }
}

async function sftpDriver(location: SftpLocation): Promise<RemoteDriver> {
  const { SftpDriver } = await import('../repository/store/sftp/sftp-driver.ts')
  const { SSH_AUTH_SOCK, PGARCHIVIST_SFTP_PASSPHRASE, HOME } = process.env
  const who = whoWeAre()
  return new SftpDriver({
    location,
    environment: {
      user: who.name,
      homeDirectory: HOME || who.homeDirectory,
      // A variable that is set to nothing is how many programs unset one.
      agent: SSH_AUTH_SOCK || undefined,
      passphrase: PGARCHIVIST_SFTP_PASSPHRASE || undefined,
    },
    files: realFiles,
    sockets: realSockets,
    clock: realClock,
    newId: randomUUID,
  })
}

/** A user whom this system does not know, as in some containers, has a number only. */
function whoWeAre(): { name: string; homeDirectory: string | undefined } {
  try {
    const { username, homedir } = userInfo()
    return { name: username, homeDirectory: homedir }
  } catch {
    return { name: String(process.geteuid?.()), homeDirectory: undefined }
  }
}

/** Each store has a memory budget of its own, so that what is read from one can be written to another. */
export function acrossNetwork(driver: RemoteDriver, { retryMs }: Pick<OpenStoreOptions, 'retryMs'>): Store {
  return remoteStore(driver, { clock: realClock, random: Math.random, retryMs })
}

async function azureDriver(location: AzureLocation): Promise<RemoteDriver> {
  const { AzureDriver } = await import('../repository/store/azure/azure-driver.ts')
  return new AzureDriver({
    location,
    environment: process.env,
    ca: await certificatesIn(location.caFile),
    clock: realClock,
    newId: randomUUID,
    ask: fetch,
    readFile: path => readFile(path, 'utf8'),
  })
}

async function s3Driver(location: S3Location): Promise<RemoteDriver> {
  const { S3Driver } = await import('../repository/store/s3/s3-driver.ts')
  return new S3Driver({ location, environment: process.env, ca: await certificatesIn(location.caFile) })
}

async function certificatesIn(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined
  const text = await readFile(file, 'utf8').catch((thrown: unknown) => {
    throw new RepositoryError('SETTINGS', `could not read file "${file}": ${systemErrorText(thrown)}`, {
      cause: thrown,
      hint: 'Let "ca_file" in "pgarchivist.repository" name a file that the server may read.',
    })
  })
  // Without any, every store would be refused for a reason that is none.
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  throw new RepositoryError('SETTINGS', `there is no certificate in file "${file}"`, {
    hint: 'Let "ca_file" in "pgarchivist.repository" name a file with certificates in PEM form.',
  })
}
