// Azurite, Microsoft's own double of Azure Blob, for tests: on loopback, in memory, run by the unprivileged user.

import { createHmac, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { installedProgram } from './installed-program.ts'
import { answers, freePorts, ServerProcess } from './server-process.ts'
import { makeTestCertificate } from './test-certificate.ts'
import { type TemporaryDirectory, temporaryDirectory } from './unprivileged.ts'

/** The newest that this Azurite knows. */
const apiVersion = '2025-11-05'

const requestTimeoutMs = 30_000

export class RunningAzurite implements AsyncDisposable {
  readonly account = 'archive'
  /** The account's shared key, base64. */
  readonly key = randomBytes(64).toString('base64')
  readonly #directory: TemporaryDirectory
  readonly #port: number
  readonly #secure: boolean
  #process: ServerProcess | undefined

  private constructor(directory: TemporaryDirectory, port: number, secure: boolean) {
    this.#directory = directory
    this.#port = port
    this.#secure = secure
  }

  /** With `secure` it serves https only, with a certificate for `127.0.0.1` by the authority in `caFile`. */
  static async start(options: { secure?: boolean } = {}): Promise<RunningAzurite> {
    const directory = await temporaryDirectory()
    const [port = 0] = await freePorts(1)
    const azurite = new RunningAzurite(directory, port, options.secure ?? false)
    try {
      if (options.secure) await makeTestCertificate(directory.path, ['IP:127.0.0.1'])
      await azurite.restart()
      return azurite
    } catch (error) {
      await azurite.stop()
      throw error
    }
  }

  /** The account's own address: containers are below it. */
  get endpoint(): string {
    return `${this.#secure ? 'https' : 'http'}://127.0.0.1:${this.#port}/${this.account}`
  }

  get caFile(): string {
    return join(this.#directory.path, 'ca.pem')
  }

  /** As Azure's own tools take it. */
  get connectionString(): string {
    const scheme = this.#secure ? 'https' : 'http'
    return `DefaultEndpointsProtocol=${scheme};AccountName=${this.account};AccountKey=${this.key};BlobEndpoint=${this.endpoint};`
  }

  /** Starts it (again), empty, and returns when it answers. */
  async restart(): Promise<void> {
    await this.kill()
    const program = await installedProgram('azurite')
    const at = (name: string) => join(this.#directory.path, name)
    const started = await ServerProcess.start({
      name: 'Azurite',
      command: [
        process.execPath,
        program,
        ...['--blobHost', '127.0.0.1', '--blobPort', String(this.#port)],
        ...['--inMemoryPersistence', '--silent', '--skipApiVersionCheck', '--disableTelemetry'],
        ...(this.#secure ? ['--cert', at('server.pem'), '--key', at('server.key')] : []),
      ],
      environment: { AZURITE_ACCOUNTS: `${this.account}:${this.key}` },
      logPath: at('azurite.log'),
      cwd: this.#directory.path,
    })
    this.#process = started
    await started.ready(async () => await answers(this.#port))
  }

  /** A new, empty container. */
  async createContainer(name = `container-${randomBytes(6).toString('hex')}`): Promise<string> {
    const status = await this.request('PUT', `/${name}`, { restype: 'container' })
    if (status !== 201) throw new Error(`Azurite answered ${status} when container "${name}" was created`)
    return name
  }

  async removeContainer(name: string): Promise<void> {
    const status = await this.request('DELETE', `/${name}`, { restype: 'container' })
    if (status !== 202) throw new Error(`Azurite answered ${status} when container "${name}" was removed`)
  }

  /** One request without a body, signed with the account's key by hand; gives its status. Only over plain HTTP. */
  async request(
    method: 'GET' | 'PUT' | 'DELETE',
    path: string,
    query: Record<string, string> = {},
  ): Promise<number> {
    const headers: Record<string, string> = {
      'x-ms-date': new Date().toUTCString(),
      'x-ms-version': apiVersion,
    }
    const names = Object.keys(headers).toSorted()
    const toSign = [
      method,
      // Content-Encoding to Range: a request without a body and without conditions has none of them.
      ...Array<string>(11).fill(''),
      ...names.map(name => `${name}:${headers[name]}`),
      // Azurite has the account twice: in the host's place, and in the path.
      `/${this.account}/${this.account}${path}`,
      ...Object.keys(query)
        .toSorted()
        .map(name => `${name}:${query[name]}`),
    ].join('\n')
    const signature = createHmac('sha256', Buffer.from(this.key, 'base64')).update(toSign).digest('base64')
    headers['authorization'] = `SharedKey ${this.account}:${signature}`
    const answer = await fetch(`${this.endpoint}${path}?${new URLSearchParams(query).toString()}`, {
      method,
      headers,
      signal: AbortSignal.timeout(requestTimeoutMs),
    })
    await answer.arrayBuffer()
    return answer.status
  }

  get pid(): number | undefined {
    return this.#process?.hasEnded ? undefined : this.#process?.pid
  }

  /** Takes it away in mid-request, with all that it has stored. */
  async kill(): Promise<void> {
    await this.#process?.end('SIGKILL')
  }

  async stop(): Promise<void> {
    await this.kill()
    await this.#directory[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
