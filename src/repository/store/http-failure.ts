import type { RepositoryErrorCode } from '../repository-error.ts'
import { RequestError, type RequestRetry } from './request-error.ts'
import { couldNot } from './request-purpose.ts'
import type { RequestKind } from './requests.ts'

/** What is told of a failure, and what to do about it. */
export interface Told {
  what: string
  retry: RequestRetry
  hint?: string
  code?: RepositoryErrorCode
  detail?: string
}

/** A request as messages call it. */
export interface HttpRequest {
  kind: RequestKind
  key: string
  url: string
  /** What must not be repeated, whoever said it. */
  secrets: readonly string[]
}

/** What came back, as far as anything did. */
export interface HttpAnswer {
  status: number | undefined
  /** The store's word for it. */
  code: string | undefined
  /** What it has said beside that. */
  said: string | undefined
  requestId: string | undefined
  retryAfterMs: number | undefined
}

/** Where requests go, in the words of a kind of store. */
export interface HttpEndpoint {
  /** As messages call it. */
  name: string
  hasTls: boolean
  /** What is wrong with somebody else who answers there. */
  stranger: string
  /** That there is no host of its name. */
  unknownHost: { what: string; hint: string }
}

/** The failure in a line, with the remedy, and with what the store has said for whoever asks those who run it. */
export function requestError(told: Told, request: HttpRequest, answer: HttpAnswer): RequestError {
  const { what, hint, code = 'UNREACHABLE', retry } = told
  return new RequestError(code, `${couldNot(request.kind, request.key, request.url)}: ${what}`, {
    retry,
    retryAfterMs: answer.retryAfterMs,
    detail: told.detail ?? answerOf(answer, request.secrets),
    ...(hint !== undefined && { hint }),
  })
}

/** An answer that makes no sense: something on the way may have changed it. */
export function unexpectedAnswer(
  { kind, key, url }: Omit<HttpRequest, 'secrets'>,
  what: string,
): RequestError {
  return new RequestError('UNREACHABLE', `${couldNot(kind, key, url)}: the answer makes no sense`, {
    retry: 'again',
    detail: sentence(what),
    hint: 'Something on the way to the store may have changed it; it is tried again.',
  })
}

export const tooBusy: Told = {
  what: 'the store has too much to do',
  hint: 'It is tried again, more slowly.',
  retry: 'slow down',
}

export const ownFailure: Told = { what: 'the store had a failure of its own', retry: 'again' }

export const skewed: Told = {
  what: 'the clocks of this machine and of the store differ too much',
  hint: 'Set the clock of this machine, best by NTP.',
  // Whoever has seen the answer knows by how much.
  retry: 'again',
}

/** Stores have a word for each refusal. Proxies, load balancers and web sites do not. */
export function ofStranger(status: number, { name, stranger }: HttpEndpoint): Told {
  if (status === 503 || status === 429) return tooBusy
  if (status >= 500) return { what: `${name} answered ${status}`, retry: 'again' }
  return {
    what: `what answers at ${name} ${stranger}`,
    hint: 'Correct "endpoint" in "pgarchivist.repository", or the proxy on the way.',
    // The beginning of an answer was right, so that the rest may have been lost or changed on the way.
    retry: status < 300 ? 'again' : 'never',
  }
}

/** No answer came. */
export function ofNetwork(errno: string, message: string, endpoint: HttpEndpoint): Told {
  const { name, hasTls, unknownHost } = endpoint
  if (untrusted.has(errno)) {
    return {
      what: `the certificate of ${name} is signed by nobody who is trusted here`,
      code: 'SETTINGS',
      // What follows is advice for programs.
      detail: sentence(message.replace(/;.*/s, '')),
      hint: 'Let "ca_file" in "pgarchivist.repository" name the file with the certificate of whoever signed it.',
      retry: 'never',
    }
  }
  switch (errno) {
    case 'ENOTFOUND':
      return { ...unknownHost, retry: 'never' }
    case 'EAI_AGAIN':
      return {
        what: `the name in ${name} could not be looked up`,
        hint: 'Check the network and the name service of this machine; it is tried again.',
        retry: 'again',
      }
    case 'ECONNREFUSED':
      return {
        what: `${name} refused the connection`,
        hint: 'Is the store running, and are host and port in "endpoint" right? It is tried again.',
        retry: 'again',
      }
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return {
        what: `the certificate of ${name} is for another host`,
        code: 'SETTINGS',
        detail: sentence(message),
        hint: 'Write the host in "endpoint" as the certificate names it.',
        retry: 'never',
      }
    case 'CERT_HAS_EXPIRED':
      return {
        what: `the certificate of ${name} has expired`,
        hint: 'Renew it. If it has not expired, set the clock of this machine.',
        retry: 'never',
      }
    case 'CERT_NOT_YET_VALID':
      return {
        what: `the certificate of ${name} is not valid yet`,
        hint: 'Set the clock of this machine.',
        retry: 'never',
      }
    case 'ERR_PROXY_TUNNEL':
      return {
        what: `the proxy did not let us through to ${name}`,
        hint: 'Correct HTTPS_PROXY, or name the host in NO_PROXY.',
        retry: 'again',
      }
    default:
  }
  if (errno === 'EPROTO' && /wrong version number|packet length too long/.test(message)) {
    return {
      what: `${name} does not speak TLS`,
      hint: 'Write "endpoint=http://…", or the port where it does.',
      retry: 'never',
    }
  }
  return {
    what: `the connection to ${name} failed`,
    detail: `The reason is ${plainWord(errno)}.`,
    hint: hasTls
      ? 'Check the network; it is tried again.'
      : 'Check the network, and whether the store wants "endpoint=https://…" there; it is tried again.',
    retry: 'again',
  }
}

const untrusted: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_UNTRUSTED',
  'CERT_SIGNATURE_FAILURE',
])

function answerOf(
  { status, code, said, requestId }: HttpAnswer,
  secrets: readonly string[],
): string | undefined {
  if (status === undefined) return undefined
  const named = code === undefined ? '' : ` ${plainWord(code)}`
  const request = requestId === undefined ? '' : ` to request ${plainWord(requestId)}`
  const words = said === undefined ? '' : `: ${plainText(said, secrets)}`
  return sentence(`the store answered ${status}${named}${request}${words}`)
}

const textLengthMax = 300

function plainText(text: string, secrets: readonly string[]): string {
  const hidden = secrets.reduce((shown, secret) => shown.replaceAll(secret, '…'), text)
  return hidden.replaceAll(/\s+/g, ' ').slice(0, textLengthMax)
}

/** A word of somebody else's that is part of a message. */
export function plainWord(text: string): string {
  return text.replaceAll(/[^\w.:/+=-]/g, '').slice(0, 80)
}

/** What somebody else has said, as a detail. */
export function sentence(text: string): string {
  const trimmed = text.trim()
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`
}
