// OpenSSH's own server for tests of SFTP: on loopback, run by the unprivileged user, who is also the one who logs in,
// with nothing but SFTP and nothing but a key.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { installedProgram } from './installed-program.ts'
import { answers, freePorts, ServerProcess } from './server-process.ts'
import {
  giveAway,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
} from './unprivileged.ts'

const run = promisify(execFile)

export interface RunningSshdOptions {
  /**
   * Requests that it refuses and extensions that it does not offer, by OpenSSH's names without their domain: `hardlink`,
   * `fsync`, `posix-rename`, `write`, `remove` and so on.
   */
  refused?: readonly string[]
  /** Accepts no request that would change anything. */
  readOnly?: boolean
  /** Lines for its sshd_config, which count more than ours. */
  settings?: readonly string[]
  /** What it starts for SFTP instead of its own server; `undefined` for nothing. */
  subsystem?: string | undefined
  /** Puts the files on a disk of their own, of this size, that only the server sees. Takes root. */
  diskMegabytes?: number
}

export class RunningSshd implements AsyncDisposable {
  readonly host = '127.0.0.1'
  readonly port: number
  readonly user = 'archivist'
  /** Where files go: relative paths begin here. */
  readonly root: string
  readonly #directory: TemporaryDirectory
  readonly #options: RunningSshdOptions
  #process: ServerProcess | undefined

  private constructor(directory: TemporaryDirectory, port: number, options: RunningSshdOptions) {
    this.#directory = directory
    this.port = port
    this.root = join(directory.path, 'files')
    this.#options = options
  }

  static async start(options: RunningSshdOptions = {}): Promise<RunningSshd> {
    const directory = await temporaryDirectory()
    const [port = 0] = await freePorts(1)
    const sshd = new RunningSshd(directory, port, options)
    try {
      await sshd.#prepare()
      await sshd.restart()
      return sshd
    } catch (error) {
      await sshd.stop()
      throw error
    }
  }

  /** The private key that it lets in. */
  get identityFile(): string {
    return this.#at('identity')
  }

  /** Another private key, which it does not let in. */
  get strangerFile(): string {
    return this.#at('stranger')
  }

  /** In the form of ssh's `known_hosts`. */
  get knownHostsFile(): string {
    return this.#at('known_hosts')
  }

  /** As ssh shows it: `SHA256:` and base64. */
  async hostKeyFingerprint(): Promise<string> {
    const { stdout } = await run(await sshProgram('ssh-keygen'), [
      '-l',
      '-E',
      'sha256',
      '-f',
      this.#at('host.pub'),
    ])
    return stdout.split(' ')[1] ?? ''
  }

  #at(name: string): string {
    return join(this.#directory.path, name)
  }

  async #prepare(): Promise<void> {
    await privateDirectory(this.root)
    for (const name of ['host', 'identity', 'stranger']) await this.#makeKey(name)
    await copyFile(this.#at('identity.pub'), this.#at('authorized_keys'))
    await giveAway(this.#at('authorized_keys'))
    await this.#writeKnownHosts()
    const uid = unprivileged.uid ?? process.getuid?.()
    const gid = unprivileged.gid ?? process.getgid?.()
    await writeFile(this.#at('passwd'), `${this.user}:x:${uid}:${gid}::${this.root}:/bin/sh\n`)
    await writeFile(this.#at('group'), `${this.user}:x:${gid}:\n`)
    await writeFile(this.#at('shadow'), `${this.user}:none:1:0:99999:7:::\n`)
    const { refused = [], readOnly = false } = this.#options
    const inside = [
      // The same code as the program sftp-server.
      'internal-sftp',
      ...['-d', this.root],
      ...(refused.length > 0 ? ['-P', refused.join(',')] : []),
      ...(readOnly ? ['-R'] : []),
    ].join(' ')
    const sftp = 'subsystem' in this.#options ? this.#options.subsystem : inside
    const settings = [
      ...(this.#options.settings ?? []),
      `ListenAddress ${this.host}:${this.port}`,
      `HostKey ${this.#at('host')}`,
      'PidFile none',
      `AuthorizedKeysFile ${this.#at('authorized_keys')}`,
      'AuthenticationMethods publickey',
      'UsePAM no',
      // Directories above ours may be writable to everybody, as /tmp is.
      'StrictModes no',
      'UseDNS no',
      'AllowTcpForwarding no',
      'PermitTTY no',
      // Many files in flight are many sessions that begin at once.
      'MaxStartups 1000',
      'MaxSessions 1000',
      ...(sftp === undefined ? [] : [`Subsystem sftp ${sftp}`]),
      ...(sftp === inside ? [`ForceCommand ${sftp}`] : []),
    ]
    await writeFile(this.#at('sshd_config'), `${settings.join('\n')}\n`)
  }

  async #makeKey(name: string): Promise<void> {
    await run(await sshProgram('ssh-keygen'), [
      '-q',
      '-t',
      'ed25519',
      '-N',
      '',
      '-C',
      `test ${name}`,
      '-f',
      this.#at(name),
    ])
    await giveAway(this.#at(name))
    await giveAway(this.#at(`${name}.pub`))
  }

  async #writeKnownHosts(): Promise<void> {
    const key = await readFile(this.#at('host.pub'), 'utf8')
    await writeFile(this.#at('known_hosts'), `[${this.host}]:${this.port} ${key}`)
    await giveAway(this.#at('known_hosts'))
  }

  /** Starts it (again), and returns when it answers. */
  async restart(): Promise<void> {
    await this.kill()
    const { diskMegabytes } = this.#options
    const started = await ServerProcess.start({
      name: 'sshd',
      command: [
        ...(diskMegabytes === undefined ? [] : inFrontOfDisk(this.root, diskMegabytes)),
        await installedProgram('sshd'),
        ...['-D', '-e', '-f', this.#at('sshd_config')],
      ] as [string, ...string[]],
      isRoot: diskMegabytes !== undefined,
      environment: {
        NSS_WRAPPER_PASSWD: this.#at('passwd'),
        NSS_WRAPPER_GROUP: this.#at('group'),
        NSS_WRAPPER_SHADOW: this.#at('shadow'),
      },
      logPath: this.#at('sshd.log'),
      cwd: this.#directory.path,
    })
    this.#process = started
    await started.ready(async () => await answers(this.port))
  }

  /** Takes it away with all its sessions, in mid-request. */
  async kill(): Promise<void> {
    const server = this.#process
    if (server === undefined || server.hasEnded) return
    // First it alone, so that no session begins that would not be seen; its sessions know nothing of that.
    server.kill('SIGSTOP')
    const sessions = await descendants(server.pid)
    await server.end('SIGKILL')
    for (const pid of sessions) killIfThere(pid)
  }

  /** Ends the sessions that are open, and goes on to accept others. */
  async killSessions(): Promise<void> {
    if (this.#process === undefined || this.#process.hasEnded) return
    for (const pid of await descendants(this.#process.pid)) killIfThere(pid)
  }

  /** Gives it another host key, as if somebody else answered in its place. The file of known hosts keeps the old one. */
  async changeHostKey(): Promise<void> {
    const known = await readFile(this.knownHostsFile)
    for (const name of ['host', 'host.pub']) await rm(this.#at(name))
    await this.#makeKey('host')
    await writeFile(this.knownHostsFile, known)
    await this.restart()
  }

  /** Where others find the files that are on a disk of their own. */
  get disk(): string {
    return `/proc/${this.#process?.pid}/root${this.root}`
  }

  /** Runs a command where that disk is mounted. */
  async onDisk(...command: string[]): Promise<void> {
    await run('nsenter', ['-t', String(this.#process?.pid), '-m', ...command])
  }

  async log(): Promise<string> {
    return await readFile(this.#at('sshd.log'), 'utf8').catch(() => '')
  }

  get pid(): number | undefined {
    return this.#process?.hasEnded ? undefined : this.#process?.pid
  }

  async stop(): Promise<void> {
    await this.kill()
    await this.#directory[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** One of OpenSSH's own clients, of the same version: `sftp`, `ssh`, `ssh-keygen`, `ssh-agent` or `ssh-add`. */
export async function sshProgram(name: string): Promise<string> {
  return join(dirname(await installedProgram('sshd')), name)
}

/** A new disk at a place in a mount namespace of its own, in which the rest of the command then runs as usual. */
function inFrontOfDisk(place: string, megabytes: number): string[] {
  assert.equal(process.geteuid?.(), 0, 'this has to be run by root, which can mount disks')
  const mount = `mount -t tmpfs -o size=${megabytes}m,mode=777 tmpfs '${place}'`
  const become = `setpriv --reuid=${unprivileged.uid} --regid=${unprivileged.gid} --clear-groups --pdeathsig=KILL`
  return ['unshare', '-m', 'sh', '-c', `${mount} && exec ${become} "$@"`, 'sh']
}

// sshd puts each session into a process group of its own, so they are found by whose children they are.
async function descendants(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
  const children = text.split(' ').filter(Boolean).map(Number)
  return [...children, ...(await Promise.all(children.map(descendants))).flat()]
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself meanwhile.
  }
}
