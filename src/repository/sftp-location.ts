import { refuseUrl } from './refuse-url.ts'
import { splitRemoteUrl } from './remote-url.ts'

/** A directory on a server that speaks SFTP. */
export interface SftpLocation {
  scheme: 'sftp'
  /** Whoever runs the program, where none is named; as `ssh` does. */
  user: string | undefined
  /** Without the brackets of an IPv6 address. */
  host: string
  port: number
  /** Absolute. */
  directory: string
  /** Without it: the agent, and then the files that `ssh` would take. */
  privateKeyFile: string | undefined
  /** Without it: the files that `ssh` would take. */
  knownHostsFile: string | undefined
}

const rules = {
  example: 'sftp://user@host/directory',
  hostIs: 'host',
  takesUser: true,
  takesPort: true,
  parameters: ['private_key_file', 'known_hosts_file'],
  credentialsHint:
    'Every role may see this setting: let "private_key_file" name a file that holds a key, or use ssh-agent.',
}

/** The port of SSH. */
export const sshPort = 22

/** `sftp://user@host:port/directory?private_key_file=…&known_hosts_file=…`. */
export function parseSftpLocation(text: string): SftpLocation {
  const { user, host, port, path, parameters } = splitRemoteUrl(text, rules)
  const name = /^\[([0-9a-f:.]+(?:%[\w.-]+)?)\]$/i.exec(host)?.[1] ?? host
  if (!/^[\w.:%-]+$/.test(name) || name.startsWith('-')) {
    return refuseUrl(text, 'names a host that cannot be', `Write it as "${rules.example}".`)
  }
  if (user === '' || (user !== undefined && /[\p{Cc}\s]/u.test(user))) {
    return refuseUrl(text, 'names a user that cannot be', `Write it as "${rules.example}".`)
  }
  if (path === '') {
    return refuseUrl(
      text,
      'names no directory',
      `Write its absolute path behind the host, as in "${rules.example}".`,
    )
  }
  const fileOf = (parameter: string) => {
    const file = parameters.get(parameter)
    if (file === undefined || file.startsWith('/')) return file
    return refuseUrl(text, `has a "${parameter}" that is not an absolute path`, 'Begin it with a slash.')
  }
  return {
    scheme: 'sftp',
    user,
    host: name,
    port: port ?? sshPort,
    directory: `/${path}`,
    privateKeyFile: fileOf('private_key_file'),
    knownHostsFile: fileOf('known_hosts_file'),
  }
}

/** Holds no secret, and is the same for the same place. */
export function sftpUrl({ user, host, port, directory }: SftpLocation): string {
  const place = host.includes(':') ? `[${host}]` : host
  const path = directory.split('/').map(encodeURIComponent).join('/')
  return `sftp://${user === undefined ? '' : `${encodeURIComponent(user)}@`}${place}${port === sshPort ? '' : `:${port}`}${path}`
}
