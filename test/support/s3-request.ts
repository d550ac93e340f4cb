// One request to S3, signed by hand, so that what tests ask a store does not depend on the client that they test.

import { createHash, createHmac } from 'node:crypto'
import { request as plainRequest } from 'node:http'
import { request as secureRequest } from 'node:https'
import { text } from 'node:stream/consumers'

export interface S3Access {
  endpoint: string
  accessKey: string
  secretKey: string
  region: string
  /** The authority that signed the endpoint's certificate, PEM. */
  ca?: string
}

export interface S3Request {
  method?: 'GET' | 'PUT' | 'POST' | 'DELETE' | 'HEAD'
  /** From the slash on, not encoded. */
  path: string
  query?: Record<string, string>
  headers?: Record<string, string>
  body?: Uint8Array | string
}

export interface S3Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: string
}

const encoded = (text: string) =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, c => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

const requestTimeoutMs = 30_000

export async function s3Request(access: S3Access, options: S3Request): Promise<S3Answer> {
  const { method = 'GET', query = {} } = options
  const url = new URL(access.endpoint)
  const path = options.path.split('/').map(encoded).join('/')
  const queryText = Object.entries(query)
    .map(([name, value]) => `${encoded(name)}=${encoded(value)}`)
    .toSorted()
    .join('&')
  const body = Buffer.from(options.body ?? '')
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '')
  const digest = createHash('sha256').update(body).digest('hex')
  const headers: Record<string, string> = {
    ...Object.fromEntries(
      Object.entries(options.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    ),
    host: url.host,
    'x-amz-content-sha256': digest,
    'x-amz-date': time,
  }
  const names = Object.keys(headers).toSorted()
  const signed = names.join(';')
  const canonical = [
    method,
    path,
    queryText,
    ...names.map(name => `${name}:${headers[name]?.trim()}`),
    '',
    signed,
    digest,
  ].join('\n')
  const scope = `${time.slice(0, 8)}/${access.region}/s3/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', time, scope, createHash('sha256').update(canonical).digest('hex')].join(
    '\n',
  )
  const hmac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest()
  const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${access.secretKey}`)
  headers['authorization'] =
    `AWS4-HMAC-SHA256 Credential=${access.accessKey}/${scope}, SignedHeaders=${signed}, ` +
    `Signature=${hmac(key, toSign).toString('hex')}`
  headers['content-length'] = String(body.length)

  const send = url.protocol === 'https:' ? secureRequest : plainRequest
  return await new Promise((resolve, reject) => {
    const request = send(
      {
        host: url.hostname,
        port: url.port,
        path: queryText === '' ? path : `${path}?${queryText}`,
        method,
        headers,
        agent: false,
        signal: AbortSignal.timeout(requestTimeoutMs),
        ...(access.ca === undefined ? {} : { ca: access.ca }),
      },
      answer => {
        text(answer).then(
          body => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }),
          reject,
        )
      },
    )
    request.on('error', reject)
    request.end(body)
  })
}
