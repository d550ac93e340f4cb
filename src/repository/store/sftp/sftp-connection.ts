import type { Client, Ssh2Error, Ssh2Sftp } from 'ssh2'
import type { Clock } from '../../../system/clock.ts'
import type { Files } from '../../../system/files.ts'
import { orAborted } from '../../../system/or-aborted.ts'
import type { Socket, Sockets } from '../../../system/sockets.ts'
import { isMissing, systemErrorText } from '../../../system/system-error.ts'
import { RepositoryError } from '../../repository-error.ts'
import type { SftpLocation } from '../../sftp-location.ts'
import { judgeHostKey, type KnownHostKey, knownHostKeys } from './known-hosts.ts'
import { SftpSession } from './sftp-session.ts'
import { type SshCredential, type SshEnvironment, sshCredentials } from './ssh-credentials.ts'
import {
  authenticationRefusal,
  connectionLost,
  couldNotConnect,
  handshakeFailure,
  hostKeyRefusal,
  printable,
  type SshPlace,
  sessionFailure,
} from './ssh-failure.ts'

export interface SftpConnectionOptions {
  location: SftpLocation
  environment: SshEnvironment
  files: Files
  sockets: Sockets
  clock: Clock
}

// Each is a process on the server that does one thing after the other, and a file that is synced takes its time. sshd
// grants ten to a connection (MaxSessions).
const sessionsMax = 6

const connectTimeoutMs = 15_000
const handshakeTimeoutMs = 20_000

// With something to wait for, a server that says nothing for so long is asked whether it is there, and has as long again.
const silenceMs = 15_000

// A request that was given up after this time, in which nothing at all has come, was sent to nobody.
const impatienceMs = 5_000

/** Two extensions of OpenSSH without which nothing is known to be on disk, or may be replaced. */
const requiredExtensions = ['hardlink@openssh.com', 'fsync@openssh.com']

/**
 * An SSH connection that is made when it is needed, and anew after it broke, with sessions for several requests at a
 * time.
 *
 * Without requests it keeps no process alive. The other end is found to be gone by the system's own probes then, and
 * with requests under way by ours.
 */
export class SftpConnection implements AsyncDisposable {
  readonly #options: SftpConnectionOptions
  readonly #place: SshPlace
  #open: Promise<OpenConnection> | undefined

  constructor(options: SftpConnectionOptions) {
    this.#options = options
    const { host, port, user = options.environment.user } = options.location
    this.#place = { host, port, user }
  }

  get place(): SshPlace {
    return this.#place
  }

  /**
   * Does work in the session that has the least of it. Rejects at once when `signal` is aborted; what is under way then
   * ends by itself.
   */
  async run<T>(work: (session: SftpSession) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const { clock } = this.#options
    let used: OpenConnection | undefined
    let heardBytes = 0
    let startedMs = 0
    const run = async () => {
      const connection = await this.#connected()
      const session = await connection.session()
      used = connection
      heardBytes = connection.heardBytes
      startedMs = clock.monotonic()
      try {
        return await work(session)
      } finally {
        session.users--
      }
    }
    try {
      return await orAborted(run(), signal)
    } catch (thrown) {
      // Somebody has lost patience: the next one needs not find out for himself.
      const isSilent = used?.heardBytes === heardBytes && clock.monotonic() - startedMs >= impatienceMs
      if (signal?.aborted === true && isSilent) used?.break('it did not answer')
      throw thrown
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const open = this.#open
    this.#open = undefined
    await open?.then(
      connection => connection.end(),
      () => undefined,
    )
  }

  async #connected(): Promise<OpenConnection> {
    for (;;) {
      const opening = (this.#open ??= this.#connect())
      try {
        const connection = await opening
        if (connection.isOpen) return connection
      } catch (thrown) {
        if (this.#open === opening) this.#open = undefined
        throw thrown
      }
      if (this.#open === opening) this.#open = undefined
    }
  }

  async #connect(): Promise<OpenConnection> {
    const { location, environment, files, sockets, clock } = this.#options
    const { default: ssh2 } = await import('ssh2')
    const credentials = await sshCredentials(location, environment, files, (text, passphrase) => {
      const parsed = ssh2.utils.parseKey(text, passphrase)
      return parsed instanceof Error ? parsed.message : undefined
    })
    const known = await this.#knownHosts()
    const { host, port } = this.#place
    const socket = await sockets.connect(host, port, connectTimeoutMs).catch((thrown: unknown) => {
      throw couldNotConnect(this.#place, thrown)
    })
    const client = new ssh2.Client()
    try {
      await this.#letIn(client, socket, credentials, known)
      const connection = new OpenConnection(client, socket, clock, this.#place)
      // What is wrong with every session is found with the first.
      const session = await connection.session()
      session.users--
      requireExtensions(session, this.#place)
      return connection
    } catch (thrown) {
      client.end()
      socket.destroy()
      throw thrown
    }
  }

  /** Resolves when the server has proved to be the right one, and has believed us who we are. */
  #letIn(
    client: Client,
    socket: Socket,
    credentials: readonly SshCredential[],
    { keys, files }: { keys: KnownHostKey[]; files: string[] },
  ): Promise<void> {
    const place = this.#place
    const left = [...credentials]
    const tried: string[] = []
    let methods: readonly string[] | null = null
    let hasAsked = false
    let agentProblem: string | undefined
    return new Promise((resolve, reject) => {
      let refusal: RepositoryError | undefined
      client.on('error', (error: Ssh2Error) => {
        if (error.level === 'agent') agentProblem = error.message
        else if (error.level === 'client-authentication') {
          reject(authenticationRefusal(place, { methods: methods ?? [], tried, agentProblem }))
        } else if (error.level === 'client-socket') {
          reject(couldNotConnect(place, error))
        } else reject(refusal ?? handshakeFailure(place, error))
      })
      client.on('close', () => reject(refusal ?? handshakeFailure(place, new Error('it was closed'))))
      client.on('ready', resolve)
      client.connect({
        sock: socket,
        username: place.user,
        readyTimeout: handshakeTimeoutMs,
        algorithms: { serverHostKey: hostKeyAlgorithms(keys) },
        hostVerifier: key => {
          const verdict = judgeHostKey(keys, key)
          if (verdict === 'known') return true
          refusal = hostKeyRefusal(place, key, verdict, keys, files)
          return false
        },
        authHandler: taken => {
          methods = taken ?? methods
          // Only asks what the server takes.
          if (!hasAsked) {
            hasAsked = true
            return { type: 'none', username: place.user }
          }
          const next = methods?.includes('publickey') ? left.shift() : undefined
          if (next === undefined) return false
          tried.push(next.what)
          return next.authentication
        },
      })
    })
  }

  async #knownHosts(): Promise<{ keys: KnownHostKey[]; files: string[] }> {
    const { location, environment, files } = this.#options
    const { knownHostsFile } = location
    const { homeDirectory } = environment
    const names =
      knownHostsFile === undefined
        ? [
            ...(homeDirectory === undefined ? [] : [`${homeDirectory}/.ssh/known_hosts`]),
            '/etc/ssh/ssh_known_hosts',
          ]
        : [knownHostsFile]
    const keys: KnownHostKey[] = []
    for (const name of names) {
      try {
        keys.push(...knownHostKeys(await files.readText(name), this.#place.host, this.#place.port))
      } catch (thrown) {
        // No file knows nobody: the refusal that follows says how to change that.
        if (isMissing(thrown)) continue
        throw new RepositoryError('SETTINGS', `could not read file "${name}": ${systemErrorText(thrown)}`, {
          cause: thrown,
          hint: 'Let this user read it, or let "known_hosts_file" in the URL name another one.',
        })
      }
    }
    return { keys, files: names }
  }
}

/** A connection that was made. It is never made again: after a break there is another one. */
class OpenConnection {
  readonly #client: Client
  readonly #socket: Socket
  readonly #clock: Clock
  readonly #place: SshPlace
  readonly #sessions: SftpSession[] = []
  readonly #closed = new AbortController()
  #opening: Promise<void> | undefined
  #mayHaveMore = true
  #watching: AbortController | undefined
  #why: string | undefined

  constructor(client: Client, socket: Socket, clock: Clock, place: SshPlace) {
    this.#client = client
    this.#socket = socket
    this.#clock = clock
    this.#place = place
    client.on('error', (error: Ssh2Error) => this.break(error.message))
    client.on('end', () => this.break())
    client.on('close', () => this.break())
  }

  get isOpen(): boolean {
    return !this.#closed.signal.aborted
  }

  /** How much has come from the other end. */
  get heardBytes(): number {
    return this.#socket.bytesRead
  }

  /** One more user of a session, which has to count itself out again. */
  async session(): Promise<SftpSession> {
    for (;;) {
      if (!this.isOpen) throw this.#lost()
      const open = this.#sessions.filter(session => session.isOpen)
      const idlest = open.reduce<SftpSession | undefined>(
        (least, each) => (least === undefined || each.users < least.users ? each : least),
        undefined,
      )
      const wantsMore =
        idlest === undefined ||
        (idlest.users > 0 && this.#mayHaveMore && open.length < sessionsMax && this.#opening === undefined)
      if (!wantsMore) {
        idlest.users++
        return idlest
      }
      this.#opening ??= this.#openSession(open.length > 0).finally(() => {
        this.#opening = undefined
        this.#workChanged()
      })
      this.#workChanged()
      await this.#opening
    }
  }

  end(): void {
    this.#client.end()
    this.break('it was closed')
  }

  async #openSession(isNotFirst: boolean): Promise<void> {
    try {
      const sftp = await new Promise<Ssh2Sftp>((resolve, reject) => {
        const giveUp = () => reject(this.#lost())
        this.#closed.signal.addEventListener('abort', giveUp, { once: true })
        this.#client.sftp((error, answer) => {
          this.#closed.signal.removeEventListener('abort', giveUp)
          if (error) reject(error)
          else resolve(answer)
        })
      })
      const session = new SftpSession(
        sftp,
        () => this.#lost(),
        () => this.#workChanged(),
      )
      this.#sessions.splice(0, Infinity, ...this.#sessions.filter(each => each.isOpen), session)
    } catch (thrown) {
      if (thrown instanceof RepositoryError) throw thrown
      // Those that there are have to do.
      if (!isNotFirst) throw sessionFailure(this.#place, thrown as Error)
      this.#mayHaveMore = false
    }
  }

  get #hasWork(): boolean {
    return this.#opening !== undefined || this.#sessions.some(({ unanswered }) => unanswered > 0)
  }

  #workChanged(): void {
    if (!this.isOpen || this.#hasWork === (this.#watching !== undefined)) return
    if (this.#watching === undefined) {
      this.#watching = new AbortController()
      this.#socket.ref()
      void this.#watch(this.#watching.signal)
    } else {
      this.#watching.abort()
      this.#watching = undefined
      this.#socket.unref()
    }
  }

  /** Notices, as long as there is something to wait for, that the other end does not answer any more. */
  async #watch(signal: AbortSignal): Promise<void> {
    let wasAsked = false
    for (;;) {
      const { heardBytes } = this
      await this.#clock.sleep(silenceMs, signal)
      if (signal.aborted) return
      if (this.heardBytes !== heardBytes) wasAsked = false
      else if (wasAsked) return this.break('it did not answer')
      else {
        wasAsked = true
        this.#ask()
      }
    }
  }

  /** Any question would do. There is nothing like it to take back, and servers answer so. */
  #ask(): void {
    try {
      this.#client.unforwardIn('localhost', 1, () => undefined)
    } catch {
      this.break('it was closed')
    }
  }

  /** Whatever was not answered fails. */
  break(why?: string): void {
    if (!this.isOpen) return
    this.#why = why === undefined ? undefined : printable(why)
    this.#closed.abort()
    this.#watching?.abort()
    for (const session of this.#sessions) session.close()
    this.#socket.destroy()
  }

  #lost(): Error {
    return connectionLost(this.#place, this.#why)
  }
}

function requireExtensions(session: SftpSession, { host }: SshPlace): void {
  const missing = requiredExtensions.filter(name => !session.hasExtension(name))
  if (missing.length === 0) return
  const list = missing.map(name => `"${name}"`).join(' and ')
  throw new RepositoryError('SETTINGS', `server "${host}" does not offer ${list}`, {
    hint: 'Without them nothing that is stored would be certain. The SFTP server of OpenSSH has them, unless its options -R, -P or -p take them away.',
  })
}

/** Those that are known first, so that a server shows the key that it is known by. RSA with SHA-1 is not taken. */
function hostKeyAlgorithms(keys: readonly KnownHostKey[]): string[] {
  const types = new Set(keys.filter(({ isRevoked }) => !isRevoked).map(({ type }) => type))
  const isKnown = (algorithm: string) => types.has(algorithm.startsWith('rsa-') ? 'ssh-rsa' : algorithm)
  return [
    ...hostKeyAlgorithmsOfLibrary.filter(isKnown),
    ...hostKeyAlgorithmsOfLibrary.filter(algorithm => !isKnown(algorithm)),
  ]
}

const hostKeyAlgorithmsOfLibrary = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
]
