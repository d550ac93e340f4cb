// What gives roles their credentials, at Amazon and in clusters of containers: the service of the machine, that of the
// container, and the one (STS) that changes a token or another user's keys for those of a role. They give what they were told,
// and only to whom shows what they ask for.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import type { S3Keys } from './s3-profiles.ts'

export interface RoleSecrets {
  /** What whoever is in the container has to show. */
  containerToken: string
  /** Of the web identity. */
  identityToken: string
  /** Of the user who may take the role. */
  sourceAccessKey: string
}

const role = 'arn:aws:iam::123456789012:role/archivist'
const machineToken = 'of-the-machine'

export class RoleServices implements AsyncDisposable {
  /** What credentials were asked for, and given. */
  readonly given: string[] = []
  readonly #server: Server
  readonly #keys: S3Keys
  readonly #secrets: RoleSecrets

  private constructor(keys: S3Keys, secrets: RoleSecrets) {
    this.#keys = keys
    this.#secrets = secrets
    this.#server = createServer((request, response) => void this.#answer(request, response))
  }

  static async start(keys: S3Keys, secrets: RoleSecrets): Promise<RoleServices> {
    const services = new RoleServices(keys, secrets)
    services.#server.listen(0, '127.0.0.1')
    await once(services.#server, 'listening')
    return services
  }

  get role(): string {
    return role
  }

  get endpoint(): string {
    const { port } = this.#server.address() as AddressInfo
    return `http://127.0.0.1:${port}`
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = `${request.method} ${request.url}`
    const { headers } = request
    const body = new URLSearchParams(await text(request))
    const mayHave = (what: string, isShown: boolean, answer: string) => {
      if (isShown) this.given.push(what)
      response.writeHead(isShown ? 200 : 403).end(isShown ? answer : '')
    }
    switch (asked) {
      case 'GET /container':
        return mayHave('container', headers.authorization === this.#secrets.containerToken, this.#json())
      case 'PUT /latest/api/token':
        return void response.end(machineToken)
      case 'GET /latest/meta-data/iam/security-credentials/':
        return void response.end('archivist')
      case 'GET /latest/meta-data/iam/security-credentials/archivist':
        return mayHave('machine', headers['x-aws-ec2-metadata-token'] === machineToken, this.#json())
      case 'POST /':
        return mayHave(
          body.get('Action') ?? '',
          this.#maySwap(body, headers.authorization ?? ''),
          this.#xml(body),
        )
      default:
        response.writeHead(404).end()
    }
  }

  #maySwap(body: URLSearchParams, authorization: string): boolean {
    if (body.get('RoleArn') !== role) return false
    switch (body.get('Action') ?? '') {
      case 'AssumeRoleWithWebIdentity':
        return body.get('WebIdentityToken') === this.#secrets.identityToken
      case 'AssumeRole':
        return authorization.includes(`Credential=${this.#secrets.sourceAccessKey}/`)
      default:
        return false
    }
  }

  #json(): string {
    const { accessKey: AccessKeyId, secretKey: SecretAccessKey } = this.#keys
    const Expiration = new Date(Date.now() + 3_600_000).toISOString()
    return JSON.stringify({ Code: 'Success', AccessKeyId, SecretAccessKey, Token: '', Expiration })
  }

  #xml(body: URLSearchParams): string {
    const action = body.get('Action')
    const { AccessKeyId, SecretAccessKey, Expiration } = JSON.parse(this.#json())
    return `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result><Credentials>
      <AccessKeyId>${AccessKeyId}</AccessKeyId><SecretAccessKey>${SecretAccessKey}</SecretAccessKey>
      <SessionToken></SessionToken><Expiration>${Expiration}</Expiration>
      </Credentials></${action}Result></${action}Response>`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
