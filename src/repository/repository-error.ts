/** Everything that can be wrong with a repository or with what is to be stored in it, and what to do about it. */
export const repositoryErrors = {
  UNREACHABLE: {
    kind: 'unreachable',
    hint: 'Check that the repository is there and that this user may use it; it is tried again.',
  },
  NO_MARKER: {
    kind: 'unreachable',
    hint: 'Is the disk mounted, and is this the right directory?',
  },
  OTHER_REPOSITORY: {
    kind: 'settings',
    hint: 'Is the right disk mounted? If it was replaced on purpose, remove the file that remembers it and try again.',
  },
  MEMORY: {
    kind: 'settings',
    hint: 'It remembers which repository is the right one. Let the user that PostgreSQL runs as own it.',
  },
  UNKNOWN_CLUSTER: {
    kind: 'settings',
    hint: 'Is this the right repository, and the right data directory?',
  },
  SETTINGS: {
    kind: 'settings',
    hint: 'Correct the setting.',
  },
  NEWER_FORMAT: {
    kind: 'settings',
    hint: 'Use a newer pgarchivist.',
  },
  CORRUPT: {
    kind: 'corrupt',
    hint: 'What is stored is damaged. Restore this object from a copy of the repository; "pgarchivist verify" looks for others.',
  },
  NO_KEY: {
    kind: 'key',
    hint: 'Set "pgarchivist.identity_file" to a file that holds the private key of one of these recipients.',
  },
  WRONG_KEY: {
    kind: 'key',
    hint: 'The identity file has to hold the private key of one of these recipients.',
  },
  DIFFERENT: {
    kind: 'refused',
    hint: 'Two servers of one origin may archive to this repository: find out which one shall, and give the other one a repository of its own.',
  },
  FOREIGN_WAL: {
    kind: 'refused',
    hint: 'Nothing was stored. Find out how the file came into pg_wal. A server with a page format of its own needs "pgarchivist.header_check = off".',
  },
  SOURCE: {
    kind: 'refused',
    hint: 'Nothing was stored; it is tried again.',
  },
} as const satisfies Record<string, { kind: RepositoryErrorKind; hint: string }>

/** What can be done about it, which is also what the exit status of a command tells. */
export type RepositoryErrorKind = 'unreachable' | 'settings' | 'corrupt' | 'key' | 'refused'

export type RepositoryErrorCode = keyof typeof repositoryErrors

export interface RepositoryErrorOptions {
  cause?: unknown
  /** More facts, in whole sentences. */
  detail?: string | undefined
  /** Where there is better advice than the registry's. */
  hint?: string
}

export class RepositoryError extends Error {
  override readonly name = 'RepositoryError'
  readonly code: RepositoryErrorCode
  readonly detail: string | undefined
  readonly hint: string

  constructor(
    code: RepositoryErrorCode,
    message: string,
    { cause, detail, hint }: RepositoryErrorOptions = {},
  ) {
    super(message, { cause })
    this.code = code
    this.detail = detail
    this.hint = hint ?? repositoryErrors[code].hint
  }

  get kind(): RepositoryErrorKind {
    return repositoryErrors[this.code].kind
  }
}
