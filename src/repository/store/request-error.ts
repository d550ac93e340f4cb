import {
  RepositoryError,
  type RepositoryErrorCode,
  type RepositoryErrorOptions,
} from '../repository-error.ts'

/**
 * - `never`: the answer will be the same
 * - `again`: it may have been an accident
 * - `slow down`: the store has too much to do
 */
export type RequestRetry = 'never' | 'again' | 'slow down'

/** A request that failed, and whether another try may help. */
export class RequestError extends RepositoryError {
  readonly retry: RequestRetry
  /** When the store says how long to wait. */
  readonly retryAfterMs: number | undefined

  constructor(
    code: RepositoryErrorCode,
    message: string,
    options: RepositoryErrorOptions & { retry: RequestRetry; retryAfterMs?: number | undefined },
  ) {
    super(code, message, options)
    this.retry = options.retry
    this.retryAfterMs = options.retryAfterMs
  }
}
