import { errnoCode, systemErrorText } from '../../../system/system-error.ts'
import { RepositoryError } from '../../repository-error.ts'
import { RequestError, type RequestRetry } from '../request-error.ts'
import type { KnownHostKey } from './known-hosts.ts'
import { fingerprintOf, type HostKeyVerdict, keyType, keyTypeName } from './known-hosts.ts'

/** Where a server is, in messages. */
export interface SshPlace {
  host: string
  port: number
  user: string
}

/** What becomes of requests that were not answered. */
export function connectionLost({ host }: SshPlace, why?: string): RequestError {
  return new RequestError('UNREACHABLE', `the connection to server "${host}" broke${why ? `: ${why}` : ''}`, {
    retry: 'again',
    hint: 'It is tried again. If it stays so, the log of sshd on the server says more.',
  })
}

/** What the system said when it was asked for a connection. */
export function couldNotConnect({ host, port }: SshPlace, thrown: unknown): RequestError {
  const code = errnoCode(thrown) ?? ''
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN' || code === 'EAI_FAIL' || code === 'EAI_NONAME') {
    return new RequestError('UNREACHABLE', `could not find the address of server "${host}"`, {
      cause: thrown,
      retry: code === 'EAI_AGAIN' ? 'again' : 'never',
      hint: 'Check the name of the host in "pgarchivist.repository", and the name service of this machine.',
    })
  }
  const hint = hints.get(code)
  const text = texts.get(code) ?? systemErrorText(thrown)
  return new RequestError('UNREACHABLE', `could not connect to server "${host}" on port ${port}: ${text}`, {
    cause: thrown,
    retry: 'again',
    ...(hint !== undefined && { hint }),
  })
}

const texts: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'Connection refused'],
  ['ECONNRESET', 'Connection reset by peer'],
  ['ETIMEDOUT', 'Connection timed out'],
  ['EHOSTUNREACH', 'No route to host'],
  ['ENETUNREACH', 'Network is unreachable'],
])

const isItUp = 'Is the server up, and does a firewall let this machine reach it?'

const hints: ReadonlyMap<string, string> = new Map([
  [
    'ECONNREFUSED',
    'Is sshd running there, on this port? Another one is written behind the host, as in "sftp://host:2222/directory".',
  ],
  ['ETIMEDOUT', isItUp],
  ['EHOSTUNREACH', isItUp],
  ['ENETUNREACH', isItUp],
])

/** A key of a host that is not to be believed. */
export function hostKeyRefusal(
  place: SshPlace,
  key: Uint8Array,
  verdict: Exclude<HostKeyVerdict, 'known'>,
  known: readonly KnownHostKey[],
  files: readonly string[],
): RepositoryError {
  const { host, port } = place
  const [file = ''] = files
  const named = `${keyTypeName(keyType(key))} key ${fingerprintOf(key)} of server "${host}"`
  const scan = `ssh-keyscan ${port === 22 ? '' : `-p ${port} `}${host} >> ${file}`
  switch (verdict) {
    case 'unknown':
      return new RepositoryError('SETTINGS', `${named} is not in file "${file}"`, {
        hint: `If the administrator of the server says that this is its key ("ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub" there), run "${scan}".`,
      })
    case 'changed': {
      const others = known.filter(({ isRevoked }) => !isRevoked)
      const list = others.map(({ type, key }) => `${keyTypeName(type)} ${fingerprintOf(key)}`).join(', ')
      return new RepositoryError('SETTINGS', `${named} is not the one in file "${file}"`, {
        detail: `Known ${others.length === 1 ? 'is' : 'are'} ${list}.`,
        hint: `Somebody may be pretending to be the server. If its key was changed on purpose, run "ssh-keygen -R ${port === 22 ? host : `[${host}]:${port}`} -f ${file}", and then "${scan}".`,
      })
    }
    case 'revoked':
      return new RepositoryError('SETTINGS', `${named} is revoked in file "${file}"`, {
        hint: 'Somebody may be pretending to be the server. Give it a new key, and make that known.',
      })
    default:
      return verdict satisfies never
  }
}

export interface RefusedCredentials {
  /** What the server would have taken. */
  methods: readonly string[]
  tried: readonly string[]
  /** What is wrong with the agent. */
  agentProblem: string | undefined
}

export function authenticationRefusal(
  { host, user }: SshPlace,
  { methods, tried, agentProblem }: RefusedCredentials,
): RepositoryError {
  const takes =
    methods.length === 0 ? 'The server did not say what it takes' : `It takes ${methods.join(', ')}`
  const offered =
    tried.length === 0 ? 'there was nothing to offer' : `it was offered ${tried.join(', then ')}`
  const agent = agentProblem === undefined ? '' : ` The agent could not be asked: ${agentProblem}.`
  const publicKey = methods.length === 0 || methods.includes('publickey')
  return new RepositoryError('SETTINGS', `server "${host}" did not accept user "${user}"`, {
    detail: `${takes}; ${offered}.${agent}`,
    hint: publicKey
      ? `Name a key with "private_key_file" in the URL, and append its public half to ~/.ssh/authorized_keys of "${user}" on the server.`
      : 'Let sshd on the server have "PubkeyAuthentication yes": nothing else is used.',
  })
}

/** What the server does before or instead of letting us in, from what ssh2 says of it. */
export function handshakeFailure({ host, port }: SshPlace, thrown: Error & { level?: string }): RequestError {
  const { message } = thrown
  const fail = (what: string, retry: RequestRetry, hint: string) =>
    new RequestError('UNREACHABLE', what, { cause: thrown, retry, hint })
  if (/^Timed out/.test(message)) {
    return fail(
      `server "${host}" on port ${port} did not answer in time`,
      'again',
      'Is it sshd that listens on this port, and is the server overloaded?',
    )
  }
  if (/no matching/.test(message)) {
    return fail(
      `server "${host}" has no algorithm in common with us: ${printable(message)}`,
      'never',
      'Let sshd on the server use those of a current OpenSSH.',
    )
  }
  if (/before handshake/.test(message)) {
    return fail(
      `server "${host}" on port ${port} closed the connection at once`,
      'slow down',
      'Too many connections may begin at the same time there: see MaxStartups and PerSourceMaxStartups in its sshd_config, and whether it is sshd that listens on this port.',
    )
  }
  return fail(
    `server "${host}" ended the connection: ${printable(message)}`,
    'again',
    'The log of sshd on the server says more.',
  )
}

/** No session, though the server let us in. */
export function sessionFailure(
  { host, user }: SshPlace,
  thrown: Error & { code?: unknown },
): RepositoryError {
  const { message } = thrown
  if (/Unable to start subsystem/.test(message)) {
    return new RepositoryError('SETTINGS', `server "${host}" has no SFTP subsystem`, {
      cause: thrown,
      hint: 'Put the line "Subsystem sftp internal-sftp" into its sshd_config.',
    })
  }
  if (/Channel open failure/.test(message)) {
    return new RequestError('UNREACHABLE', `server "${host}" gives user "${user}" no session`, {
      cause: thrown,
      retry: 'slow down',
      hint: 'There may be too many: see MaxSessions in its sshd_config.',
    })
  }
  if (/establishing SFTP|session termination|exit code/i.test(message)) {
    return new RepositoryError('SETTINGS', `the SFTP subsystem of server "${host}" ended at once`, {
      cause: thrown,
      hint: 'Does the program exist that "Subsystem sftp" names in its sshd_config, and may this user have a shell? "internal-sftp" needs neither.',
    })
  }
  if (/packet/i.test(message)) {
    return new RepositoryError('SETTINGS', `server "${host}" does not speak SFTP to user "${user}"`, {
      cause: thrown,
      hint: 'The login scripts of this user may print something: they have to be silent, or let the server use "internal-sftp".',
    })
  }
  return connectionLost({ host, user, port: 0 }, printable(message))
}

/** A server's own words, without what could steer a terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, 200)
}
