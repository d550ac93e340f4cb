import type { Clock } from '../../../system/clock.ts'

export interface AzureIdentityOptions {
  /** Of the process: it names the identity. */
  environment: NodeJS.ProcessEnv
  /** `fetch`. */
  ask: (url: string, init: RequestInit) => Promise<Response>
  readFile: (path: string) => Promise<string>
  clock: Pick<Clock, 'now'>
}

/** No token could be had. */
export class IdentityFailure extends Error {
  /** May the next try succeed? */
  readonly isPassing: boolean
  readonly hint: string

  constructor(message: string, options: { isPassing: boolean; hint: string }) {
    super(message)
    this.isPassing = options.isPassing
    this.hint = options.hint
  }
}

interface TokenRequest {
  who: string
  url: string
  init: RequestInit
}

const askTimeoutMs = 10_000
const answerBytesMax = 65_536
const resource = 'https://storage.azure.com'

/**
 * Tokens for who this machine, or this program, is to Entra ID, in the order in which Azure's own clients look:
 * a secret of an application, a token that Kubernetes has put into a file, the managed identity of the machine.
 * Each takes one request. The client keeps a token until it is about to expire.
 */
export class AzureIdentity {
  readonly #options: AzureIdentityOptions
  #secrets: string[] = []

  constructor(options: AzureIdentityOptions) {
    this.#options = options
  }

  async getToken(
    _scopes: string | string[],
    options: { abortSignal?: unknown } = {},
  ): Promise<{ token: string; expiresOnTimestamp: number }> {
    const { who, url, init } = await this.#request()
    const aborted = options.abortSignal instanceof AbortSignal ? [options.abortSignal] : []
    const signal = AbortSignal.any([...aborted, AbortSignal.timeout(askTimeoutMs)])
    const now = this.#options.clock.now()
    let answer: Response
    let text: string
    try {
      answer = await this.#options.ask(url, { ...init, signal, redirect: 'error' })
      text = (await answer.text()).slice(0, answerBytesMax)
    } catch {
      throw new IdentityFailure(`${new URL(url).host} did not answer who asked for a token of ${who}`, {
        isPassing: true,
        hint: 'Give this machine a managed identity, or set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING in the environment of the server.',
      })
    }
    const { token, seconds, error } = tokenIn(text)
    if (answer.ok && token !== undefined && seconds !== undefined) {
      this.#secrets = [...this.#secrets.slice(-2), token]
      return { token, expiresOnTimestamp: now + seconds * 1000 }
    }
    throw new IdentityFailure(
      `${new URL(url).host} gave no token of ${who}: it answered ${answer.status}${error === undefined ? '' : ` ${error}`}`,
      {
        isPassing: answer.status === 429 || answer.status >= 500,
        hint: 'Check AZURE_CLIENT_ID, AZURE_TENANT_ID and what belongs to them in the environment of the server, or the identity that this machine was given.',
      },
    )
  }

  /** What must be in no message. */
  secrets(): string[] {
    const secret = this.#options.environment['AZURE_CLIENT_SECRET']
    return secret === undefined || secret === '' ? this.#secrets : [...this.#secrets, secret]
  }

  async #request(): Promise<TokenRequest> {
    const {
      AZURE_TENANT_ID: tenant,
      AZURE_CLIENT_ID: client,
      AZURE_CLIENT_SECRET: secret,
      AZURE_FEDERATED_TOKEN_FILE: tokenFile,
      AZURE_AUTHORITY_HOST: authority,
    } = this.#options.environment
    if (tenant && client && secret) {
      return ofApplication('the application in AZURE_CLIENT_ID', tenant, authority, {
        client_id: client,
        client_secret: secret,
      })
    }
    if (tenant && client && tokenFile) {
      const assertion = await this.#options.readFile(tokenFile).catch(() => {
        throw new IdentityFailure(
          `could not read file "${tokenFile}", which AZURE_FEDERATED_TOKEN_FILE names`,
          {
            isPassing: true,
            hint: 'Kubernetes writes it where workload identity is enabled for the pod; let the server read it.',
          },
        )
      })
      return ofApplication('the workload identity', tenant, authority, {
        client_id: client,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion.trim(),
      })
    }
    const query = new URLSearchParams({ 'api-version': '2018-02-01', resource })
    if (client) query.set('client_id', client)
    return {
      who: 'the managed identity of this machine',
      url: `http://169.254.169.254/metadata/identity/oauth2/token?${query.toString()}`,
      init: { headers: { metadata: 'true' } },
    }
  }
}

function ofApplication(
  who: string,
  tenant: string,
  authority: string | undefined,
  form: Record<string, string>,
): TokenRequest {
  const host = (authority ?? '').trim() === '' ? 'https://login.microsoftonline.com' : (authority ?? '')
  const body = new URLSearchParams({
    ...form,
    grant_type: 'client_credentials',
    scope: `${resource}/.default`,
  })
  return {
    who,
    url: `${host.replace(/\/+$/, '')}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`,
    init: { method: 'POST', body },
  }
}

function tokenIn(text: string): {
  token: string | undefined
  seconds: number | undefined
  error: string | undefined
} {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    parsed = undefined
  }
  const fields = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as Record<string, unknown>
  const { access_token: token, expires_in: expires, error } = fields
  const seconds = Number(expires)
  return {
    token: typeof token === 'string' && token !== '' ? token : undefined,
    // The metadata service writes numbers as text.
    seconds: Number.isFinite(seconds) && seconds > 0 ? seconds : undefined,
    error: typeof error === 'string' && /^\w{1,60}$/.test(error) ? error : undefined,
  }
}
