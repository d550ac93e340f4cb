import { Agent as PlainAgent } from 'node:http'
import { Agent as SecureAgent } from 'node:https'
import {
  AnonymousCredential,
  ContainerClient,
  newPipeline,
  type RequestPolicyFactory,
  StorageSharedKeyCredential,
} from '@azure/storage-blob'
import { orAborted } from '../../../system/or-aborted.ts'
import type { AzureLocation } from '../../azure-location.ts'
import { type AzureAccount, azureAccount } from './azure-account.ts'
import { AzureIdentity, type AzureIdentityOptions } from './azure-identity.ts'

export interface AzureConnectionOptions extends AzureIdentityOptions {
  location: AzureLocation
  /** The certificates in `location.caFile`. */
  ca?: string | undefined
}

// More than requests are ever under way at once, so that none waits here, where no deadline sees why.
const socketsMax = 512

interface Opened {
  account: AzureAccount
  container: ContainerClient
  agent: PlainAgent | SecureAgent
}

type Ask<T> = (container: ContainerClient, options: { abortSignal?: AbortSignal }) => Promise<T>

/** The official client, with one try per request: retries, deadlines and limits are around the driver. */
export class AzureConnection {
  readonly #options: AzureConnectionOptions
  readonly #url: string
  #opened: Opened | undefined
  #identity: AzureIdentity | undefined

  constructor(options: AzureConnectionOptions, url: string) {
    this.#options = options
    this.#url = url
  }

  /** Throws a `RepositoryError` where the settings name none. */
  get account(): AzureAccount {
    return this.#open().account
  }

  /** Rejects as the client does, or with the reason of the signal, whatever hangs. */
  async request<T>(ask: Ask<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const { container } = this.#open()
    return await orAborted(ask(container, signal === undefined ? {} : { abortSignal: signal }), signal)
  }

  /** What must be in no message. */
  secrets(): string[] {
    const { proof } = this.#open().account
    if (proof.kind === 'key') return [proof.key]
    if (proof.kind === 'token') return this.#identity?.secrets() ?? []
    const signature = /(?:^|&)sig=([^&]*)/.exec(proof.token)?.[1] ?? ''
    return [proof.token, signature, decodeURIComponent(signature)].filter(secret => secret !== '')
  }

  close(): void {
    this.#opened?.agent.destroy()
  }

  #open(): Opened {
    this.#opened ??= this.#connect()
    return this.#opened
  }

  #connect(): Opened {
    const { location, environment, ca } = this.#options
    const account = azureAccount(location, this.#url, environment)
    const { proof, name, endpoint } = account
    const pipeline = newPipeline(this.#credentialOf(proof, name), { retryOptions: { maxTries: 1 } })
    const agentOptions = { keepAlive: true, maxSockets: socketsMax, proxyEnv: environment }
    const agent = /^http:/i.test(endpoint)
      ? new PlainAgent(agentOptions)
      : new SecureAgent({ ...agentOptions, ...(ca !== undefined && { ca }) })
    pipeline.factories.push(through(agent))
    const query = proof.kind === 'sas' ? `?${proof.token}` : ''
    const container = new ContainerClient(`${endpoint}/${location.container}${query}`, pipeline)
    return { account, container, agent }
  }

  #credentialOf(proof: AzureAccount['proof'], account: string) {
    switch (proof.kind) {
      case 'key':
        return new StorageSharedKeyCredential(account, proof.key)
      case 'sas':
        return new AnonymousCredential()
      case 'token':
        this.#identity ??= new AzureIdentity(this.#options)
        return this.#identity
      default:
        return proof satisfies never
    }
  }
}

/** Keeps connections open, goes through the proxy of the environment, and trusts whom `ca_file` names. */
function through(agent: PlainAgent | SecureAgent): RequestPolicyFactory {
  return {
    create: next => ({
      sendRequest: request => {
        request.agent = agent
        return next.sendRequest(request)
      },
    }),
  }
}
