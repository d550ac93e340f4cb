import type { Ssh2Authentication } from 'ssh2'
import type { FileStatus, Files } from '../../../system/files.ts'
import { isMissing, systemErrorText } from '../../../system/system-error.ts'
import { RepositoryError } from '../../repository-error.ts'
import type { SftpLocation } from '../../sftp-location.ts'

export interface SshEnvironment {
  /** Whoever runs the program. */
  user: string
  /** Of that user; `undefined` where there is none. */
  homeDirectory: string | undefined
  /** The socket of ssh-agent. */
  agent: string | undefined
  /** Of private keys. */
  passphrase: string | undefined
}

/** A way to prove who we are, and what it is called in messages. */
export interface SshCredential {
  what: string
  authentication: Ssh2Authentication
}

// As ssh does, in its order.
const usualKeyFiles = ['id_ed25519', 'id_ecdsa', 'id_rsa']

// A key takes a few thousand bytes.
const keyFileBytesMax = 1024 * 1024

/**
 * How to prove who we are: by the key that is named; or else those of the agent, and then those where `ssh` looks. No password: one in a setting
 * may be seen by every role, and nobody is there to be asked.
 */
export async function sshCredentials(
  { user, privateKeyFile }: Pick<SftpLocation, 'user' | 'privateKeyFile'>,
  environment: SshEnvironment,
  files: Files,
  problemOf: (text: string, passphrase: string | undefined) => string | undefined,
): Promise<SshCredential[]> {
  const username = user ?? environment.user
  const ofFile = async (file: string): Promise<SshCredential> => {
    const key = await readKey(file, environment.passphrase, files, problemOf)
    const { passphrase } = environment
    return {
      what: `the key in file "${file}"`,
      authentication: { type: 'publickey', username, key, ...(passphrase !== undefined && { passphrase }) },
    }
  }
  if (privateKeyFile !== undefined) return [await ofFile(privateKeyFile)]
  const { agent, homeDirectory } = environment
  const found: SshCredential[] = []
  if (agent !== undefined) {
    found.push({ what: 'the keys of ssh-agent', authentication: { type: 'agent', username, agent } })
  }
  for (const name of homeDirectory === undefined ? [] : usualKeyFiles) {
    const file = `${homeDirectory}/.ssh/${name}`
    try {
      await files.stat(file)
      found.push(await ofFile(file))
    } catch (thrown) {
      // One that cannot be used matters only where nothing else is there.
      if (!isMissing(thrown) && found.length === 0 && thrown instanceof RepositoryError) throw thrown
    }
  }
  return found
}

async function readKey(
  file: string,
  passphrase: string | undefined,
  files: Files,
  problemOf: (text: string, passphrase: string | undefined) => string | undefined,
): Promise<string> {
  let text: string
  try {
    const status = await files.stat(file)
    refuseIfOthersMayRead(file, status)
    if (status.size > keyFileBytesMax) throw new Error('it is too large for a key')
    text = await files.readText(file)
  } catch (thrown) {
    if (thrown instanceof RepositoryError) throw thrown
    const message = `could not read private key file "${file}": ${systemErrorText(thrown)}`
    throw new RepositoryError('SETTINGS', message, {
      cause: thrown,
      hint: 'Let "private_key_file" in the URL name a file that this user may read.',
    })
  }
  const problem = problemOf(text, passphrase)
  if (problem === undefined) return text
  if (/passphrase/i.test(problem)) {
    const what = passphrase === undefined ? 'needs a passphrase' : 'has another passphrase'
    throw new RepositoryError('SETTINGS', `private key file "${file}" ${what}`, {
      hint: 'Set PGARCHIVIST_SFTP_PASSPHRASE in the environment of the server, or let ssh-agent hold the key.',
    })
  }
  throw new RepositoryError('SETTINGS', `private key file "${file}" holds no key that can be used`, {
    hint: 'Make one with "ssh-keygen -t ed25519", or convert it with "ssh-keygen -p -f FILE".',
  })
}

/** For its owner only, or for a group where it belongs to root: as the server does with the key of its certificate. */
function refuseIfOthersMayRead(file: string, { uid, mode }: FileStatus): void {
  const [forbidden, remedy] = uid === 0 ? [0o037, '640'] : [0o077, '600']
  if ((mode & forbidden) === 0) return
  throw new RepositoryError('SETTINGS', `private key file "${file}" may be read or changed by others`, {
    detail: `Its permissions are ${mode.toString(8).padStart(4, '0')}.`,
    hint: `Run "chmod ${remedy} ${file}".`,
  })
}
