// Where a store on a real sshd is, and the driver for it, which sends each request once.

import { randomUUID } from 'node:crypto'
import { parseSftpLocation } from '../../src/repository/sftp-location.ts'
import { SftpDriver } from '../../src/repository/store/sftp/sftp-driver.ts'
import type { SshEnvironment } from '../../src/repository/store/sftp/ssh-credentials.ts'
import { type Clock, realClock } from '../../src/system/clock.ts'
import { realFiles } from '../../src/system/real-files.ts'
import { realSockets } from '../../src/system/real-sockets.ts'
import type { Sockets } from '../../src/system/sockets.ts'
import type { RunningSshd } from './running-sshd.ts'

export interface SftpPlace {
  user?: string
  host?: string
  port?: number
  directory?: string
  privateKeyFile?: string | undefined
  knownHostsFile?: string | undefined
}

export function sftpUrlOf(sshd: RunningSshd, place: SftpPlace = {}): string {
  const { user, host, port, directory, privateKeyFile, knownHostsFile } = {
    user: sshd.user,
    host: sshd.host,
    port: sshd.port,
    directory: sshd.root,
    privateKeyFile: sshd.identityFile,
    knownHostsFile: sshd.knownHostsFile,
    ...place,
  }
  const path = directory.split('/').map(encodeURIComponent).join('/')
  const parameters = [
    ...(privateKeyFile === undefined ? [] : [`private_key_file=${privateKeyFile}`]),
    ...(knownHostsFile === undefined ? [] : [`known_hosts_file=${knownHostsFile}`]),
  ]
  return `sftp://${user}@${host}:${port}${path}?${parameters.join('&')}`
}

export interface SftpClientOptions {
  environment?: Partial<SshEnvironment>
  sockets?: Sockets
  clock?: Clock
}

export function sftpDriver(url: string, { environment, sockets, clock }: SftpClientOptions = {}): SftpDriver {
  return new SftpDriver({
    location: parseSftpLocation(url),
    environment: {
      user: 'somebody',
      homeDirectory: undefined,
      agent: undefined,
      passphrase: undefined,
      ...environment,
    },
    files: realFiles,
    sockets: sockets ?? realSockets,
    clock: clock ?? realClock,
    newId: randomUUID,
  })
}
