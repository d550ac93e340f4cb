// One request to S3, signed by hand, so that what tests ask a store does not depend on the client that they test.

import { createHash } from 'node:crypto'
import { request as plainRequest } from 'node:http'
import { request as secureRequest } from 'node:https'
import { text } from 'node:stream/consumers'
import { s3Authorization } from './s3-signature.ts'

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
    .join('&')
  const body = Buffer.from(options.body ?? '')
  const headers: Record<string, string> = {
    ...Object.fromEntries(
      Object.entries(options.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    ),
    host: url.host,
    'x-amz-content-sha256': createHash('sha256').update(body).digest('hex'),
    'x-amz-date': new Date().toISOString().replaceAll(/[-:]|\.\d+/g, ''),
  }
  headers['authorization'] = s3Authorization(access, { method, path, query: queryText, headers })
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
