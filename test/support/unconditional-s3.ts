// An S3 store that does not know conditional requests, as some that call themselves compatible: all that reaches it goes
// on to a real one, but for the conditions, and is signed anew because those are part of what was signed. Bodies pass as
// they are.

import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import type { S3Access } from './s3-request.ts'
import { s3Authorization } from './s3-signature.ts'

const conditions = ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since']

export class UnconditionalS3 implements AsyncDisposable {
  readonly endpoint: string
  /** So many conditions did not reach the store. */
  conditionsIgnored = 0
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  /** Before the store that is given, for the user who is given. */
  static async start(access: S3Access): Promise<UnconditionalS3> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const started = new UnconditionalS3(server)
    server.on('request', (asked, answer) => {
      const target = new URL(asked.url ?? '', access.endpoint)
      const { method = 'GET' } = asked
      const passed = httpRequest(target, {
        method,
        headers: started.#headers(access, target, method, asked.headers),
      })
      const toClient = once(passed, 'response').then(async ([from]) => {
        answer.writeHead(from.statusCode, from.headers)
        await pipeline(from, answer)
      })
      // Either side may end the connection, and then so does the other.
      void Promise.all([pipeline(asked, passed), toClient]).catch(() => {
        passed.destroy()
        answer.destroy()
      })
    })
    return started
  }

  #headers(
    access: S3Access,
    target: URL,
    method: string,
    headers: IncomingHttpHeaders,
  ): Record<string, string> {
    const passed: Record<string, string> = {}
    for (const [name, value] of Object.entries(headers)) {
      if (conditions.includes(name)) this.conditionsIgnored++
      else if (typeof value === 'string' && name !== 'expect' && name !== 'connection') passed[name] = value
    }
    passed['host'] = target.host
    const signed = /SignedHeaders=([^,]+)/.exec(headers.authorization ?? '')?.[1]?.split(';') ?? []
    const toSign = Object.fromEntries(
      signed.flatMap(name => (passed[name] === undefined ? [] : [[name, passed[name]]])),
    )
    const { pathname: path } = target
    passed['authorization'] = s3Authorization(access, {
      method,
      path,
      query: target.search.slice(1),
      headers: toSign,
    })
    return passed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
