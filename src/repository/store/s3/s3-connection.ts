import { Agent as PlainAgent } from 'node:http'
import { Agent as SecureAgent } from 'node:https'
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { orAborted } from '../../../system/or-aborted.ts'
import type { S3Location } from '../../s3-location.ts'
import { CredentialsMissing, type S3Refusal } from './s3-refusal.ts'

export interface S3ConnectionOptions {
  location: S3Location
  /** Of the process: proxies and a region may be named there. The client finds credentials there by itself. */
  environment: NodeJS.ProcessEnv
  /** The certificates in `location.caFile`. */
  ca?: string | undefined
}

// More than requests are ever under way at once, so that none waits here, where no deadline sees why.
const socketsMax = 512
// A host that drops packets would keep a request for minutes.
const connectTimeoutMs = 10_000
/** What stores expect that do not care, and where Amazon answers with the right one. */
const defaultRegion = 'us-east-1'

/** Said of credentials that were good before, by Amazon with status 400. */
const oldCredentials: ReadonlySet<string> = new Set(['ExpiredToken', 'TokenRefreshRequired', 'InvalidToken'])

type Credentials = Awaited<ReturnType<S3Client['config']['credentials']>>
type Ask<T> = (client: S3Client, options: { abortSignal?: AbortSignal }) => Promise<T>

/** The official client, with one try per request: retries, deadlines and limits are around the driver. */
export class S3Connection {
  readonly #options: S3ConnectionOptions
  readonly #agents: { httpAgent: PlainAgent; httpsAgent: SecureAgent }
  #client: Promise<S3Client> | undefined
  /** Where Amazon said that the bucket is. */
  #toldRegion: string | undefined
  #hadCredentials = false
  /** How the request was made that failed with this. */
  readonly #madeBy = new WeakMap<object, { client: S3Client; credentials: Credentials }>()

  constructor(options: S3ConnectionOptions) {
    const { environment, ca } = options
    const agent = { keepAlive: true, maxSockets: socketsMax, proxyEnv: environment }
    this.#options = options
    this.#agents = {
      httpAgent: new PlainAgent(agent),
      httpsAgent: new SecureAgent({ ...agent, ...(ca !== undefined && { ca }) }),
    }
  }

  /** Rejects as the client does, with `CredentialsMissing`, or with the reason of the signal, whatever hangs. */
  async request<T>(ask: Ask<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    return await orAborted(this.#request(ask, signal), signal)
  }

  async #request<T>(ask: Ask<T>, signal?: AbortSignal): Promise<T> {
    const client = await this.#clientOnce()
    const credentials = await this.#credentials(client)
    signal?.throwIfAborted()
    try {
      return await ask(client, signal === undefined ? {} : { abortSignal: signal })
    } catch (thrown) {
      if (thrown instanceof Error) this.#madeBy.set(thrown, { client, credentials })
      throw thrown
    }
  }

  /**
   * Is the next try made in another way than the one that was refused, because there are newer credentials or the
   * region is known now?
   */
  async mend(refusal: S3Refusal): Promise<boolean> {
    const made = this.#madeBy.get(refusal.thrown as Error)
    if (refusal.region !== undefined && this.#options.location.region === undefined) {
      // Another request was told before, if this one was made by an older client.
      if (refusal.region === this.#toldRegion)
        return made !== undefined && made.client !== (await this.#clientOnce())
      this.#toldRegion = refusal.region
      this.#client = undefined
      return true
    }
    if (refusal.status !== 403 && !oldCredentials.has(refusal.code ?? '')) return false
    const client = await this.#clientOnce()
    const now = await this.#credentials(client)
    const used = made?.credentials ?? now
    // Another request that was refused has found newer ones already.
    if (!areSame(used, now)) return true
    return !areSame(used, await this.#credentials(client, { forceRefresh: true }))
  }

  /** What must not be in the message that something has failed with this. */
  async secrets(thrown: unknown): Promise<string[]> {
    const used = this.#madeBy.get(thrown as Error)?.credentials
    const now = this.#hadCredentials ? await this.#credentials(await this.#clientOnce()) : undefined
    return [used, now].flatMap(each => (each === undefined ? [] : secretsOf(each)))
  }

  close(): void {
    this.#agents.httpAgent.destroy()
    this.#agents.httpsAgent.destroy()
  }

  async #credentials(client: S3Client, options: { forceRefresh?: boolean } = {}): Promise<Credentials> {
    try {
      const credentials = await client.config.credentials(options)
      this.#hadCredentials = true
      return credentials
    } catch (thrown) {
      throw new CredentialsMissing(thrown, this.#hadCredentials)
    }
  }

  #clientOnce(): Promise<S3Client> {
    this.#client ??= this.#makeClient()
    return this.#client
  }

  async #makeClient(): Promise<S3Client> {
    const { location } = this.#options
    const config: S3ClientConfig & { ignoreCache: boolean } = {
      maxAttempts: 1,
      requestHandler: { ...this.#agents, connectionTimeout: connectTimeoutMs },
      // Each body comes with a digest that we make, and each object holds its own.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // It costs a round trip, and no body is so large that an early refusal would save much.
      expectContinueHeader: false,
      forcePathStyle: location.isPathStyle ?? location.endpoint !== undefined,
      logger: silent,
      // Credential files may be written anew while we run.
      ignoreCache: true,
      region: this.#toldRegion ?? (await this.#namedRegion()) ?? defaultRegion,
      ...(location.profile !== undefined && { profile: location.profile }),
      ...(location.endpoint !== undefined && { endpoint: location.endpoint }),
    }
    const client = new S3Client(config)
    signPayloads(client)
    return client
  }

  /** Here, or where Amazon's own tools look for it. */
  async #namedRegion(): Promise<string | undefined> {
    const { region, profile } = this.#options.location
    if (region !== undefined) return region
    const asked = new S3Client({ ...(profile !== undefined && { profile }) })
    return await asked.config.region().catch(() => undefined)
  }
}

function secretsOf({ accessKeyId, secretAccessKey, sessionToken }: Credentials): string[] {
  return [accessKeyId, secretAccessKey, ...(sessionToken === undefined ? [] : [sessionToken])]
}

function areSame(one: Credentials, other: Credentials): boolean {
  return (
    one.accessKeyId === other.accessKeyId &&
    one.secretAccessKey === other.secretAccessKey &&
    one.sessionToken === other.sessionToken
  )
}

/** The digest that the store compares with the body is part of what is signed, too, and is made only once. */
function signPayloads(client: S3Client): void {
  client.middlewareStack.add(
    next => args => {
      const { headers } = args.request as { headers: Record<string, string> }
      const digest = headers['x-amz-checksum-sha256']
      if (digest !== undefined)
        headers['x-amz-content-sha256'] = Buffer.from(digest, 'base64').toString('hex')
      return next(args)
    },
    { step: 'build', name: 'signPayloads', priority: 'low' },
  )
}

const nothing = () => {}
/** What the client warns of is either told by an error or of no interest to an operator. */
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing }
