// Signature version 4 by hand, so that what tests ask a store does not depend on the client that they test.

import { createHash, createHmac } from 'node:crypto'

export interface S3SignedRequest {
  method: string
  /** As it is sent: encoded. */
  path: string
  /** As it is sent, without the question mark. */
  query: string
  /** All that are to be signed, in lower case, with `host`, `x-amz-date` and `x-amz-content-sha256`. */
  headers: Readonly<Record<string, string>>
}

export interface S3Signer {
  accessKey: string
  secretKey: string
  region: string
}

/** The value of the `authorization` header. */
export function s3Authorization(signer: S3Signer, request: S3SignedRequest): string {
  const { headers } = request
  const names = Object.keys(headers).toSorted()
  const signed = names.join(';')
  const time = headers['x-amz-date'] ?? ''
  const canonical = [
    request.method,
    request.path,
    request.query.split('&').toSorted().join('&'),
    ...names.map(name => `${name}:${headers[name]?.trim()}`),
    '',
    signed,
    headers['x-amz-content-sha256'],
  ].join('\n')
  const scope = `${time.slice(0, 8)}/${signer.region}/s3/aws4_request`
  const digest = createHash('sha256').update(canonical).digest('hex')
  const hmac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest()
  const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${signer.secretKey}`)
  const signature = hmac(key, ['AWS4-HMAC-SHA256', time, scope, digest].join('\n')).toString('hex')
  return `AWS4-HMAC-SHA256 Credential=${signer.accessKey}/${scope}, SignedHeaders=${signed}, Signature=${signature}`
}
