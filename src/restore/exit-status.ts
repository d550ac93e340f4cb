import { RepositoryError, type RepositoryErrorKind } from '../repository/repository-error.ts'

/**
 * How the program tells the launcher what became of a file. The launcher gives the statuses that PostgreSQL sees,
 * which are 0, 1 and those of `trouble`; success and absence have others here, because a program of Node's that ends
 * unexpectedly does so with a small status, 0 and 1 among them. Also known in bin/pgarchivist.
 */
export const delivered = 100
export const notThere = 101

/**
 * Over 125, so that the server stops instead of taking its WAL to end here, and outside 126 to 165, which shells and
 * signals use: 143 would pass for an orderly shutdown.
 */
export const trouble = { unreachable: 201, corrupt: 202, key: 203, settings: 204, internal: 205 } as const

const byKind: Readonly<Record<RepositoryErrorKind, number>> = {
  unreachable: trouble.unreachable,
  corrupt: trouble.corrupt,
  key: trouble.key,
  settings: trouble.settings,
  refused: trouble.internal,
}

export function troubleStatus(thrown: unknown): number {
  return thrown instanceof RepositoryError ? byKind[thrown.kind] : trouble.internal
}

/** What went well only because there are several repositories, in one line. */
export function warningLine({
  message,
  detail,
  hint,
}: {
  message: string
  detail?: string | undefined
  hint?: string
}): string {
  const more = [detail, hint].filter(each => each !== undefined)
  return [more.length === 0 ? message : `${message}.`, ...more].join(' ').replaceAll(/\s*\n\s*/g, ' ')
}

/** What could not be done and what to do about it, in one line: standbys ask again every few seconds. */
export function troubleLine(name: string, thrown: unknown): string {
  const sentence = (text: string) => ` ${text}`
  if (!(thrown instanceof Error)) return `could not get "${name}": ${String(thrown)}`
  const more =
    thrown instanceof RepositoryError
      ? `.${[thrown.detail, thrown.hint]
          .filter(each => each !== undefined)
          .map(sentence)
          .join('')}`
      : ''
  return `could not get "${name}": ${thrown.message}${more}`.replaceAll(/\s*\n\s*/g, ' ')
}
