import { readFileSync, renameSync, writeFileSync } from 'node:fs'

/**
 * Which repositories could not answer, for the next command: it asks the others first, and does not wait for those again
 * with every file. It decides nothing but the order, so nothing depends on it, and whatever goes wrong with it is nobody's
 * concern.
 */
export class FailedRepositories {
  readonly #path: string

  /** Beside the WAL, under a name that base backups and pg_rewind leave alone. */
  constructor(walDirectory: string) {
    this.#path = `${walDirectory}/pgsql_tmp.failed-repositories.json`
  }

  /** By URL, in milliseconds since the epoch. */
  read(): Map<string, number> {
    try {
      const entries = Object.entries(JSON.parse(readFileSync(this.#path, 'utf8')) as object)
      const now = Date.now()
      return new Map(
        entries.filter((entry): entry is [string, number] => typeof entry[1] === 'number' && entry[1] <= now),
      )
    } catch {
      return new Map()
    }
  }

  note(url: string, isAnswer: boolean): void {
    try {
      const failed = this.read()
      if (isAnswer) failed.delete(url)
      else failed.set(url, Date.now())
      const temporary = `${this.#path}.${process.pid}.tmp`
      writeFileSync(temporary, JSON.stringify(Object.fromEntries(failed)), { mode: 0o600 })
      renameSync(temporary, this.#path)
    } catch {
      // The next command waits as long as this one did.
    }
  }
}
