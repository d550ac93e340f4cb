import type { RequestKind } from './requests.ts'

/** What a request was for, as the beginning of a message. */
export function couldNot(kind: RequestKind, key: string, url: string): string {
  const place = `repository "${url}"`
  switch (kind) {
    case 'inspect':
      return `could not use ${place}`
    case 'get':
      return `could not read "${key}" in ${place}`
    case 'list':
      return key === '' ? `could not list ${place}` : `could not list "${key}" in ${place}`
    case 'listUploads':
      return `could not list unfinished uploads in ${place}`
    case 'abandonUpload':
      return `could not remove an unfinished upload of "${key}" in ${place}`
    case 'put':
    case 'confirm':
    case 'beginUpload':
    case 'putPart':
    case 'endUpload':
      return `could not store "${key}" in ${place}`
    default:
      return kind satisfies never
  }
}
