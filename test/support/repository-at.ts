import { randomUUID } from 'node:crypto'
import { openStore } from '../../src/cli/open-store.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { RepositoryWarning } from '../../src/repository/repository-identity.ts'
import { parseRepositoryUrl } from '../../src/repository/repository-url.ts'
import { realClock } from '../../src/system/clock.ts'

/** A repository as the program would open it, but that remembers nothing. */
export async function openRepositoryAt(
  url: string,
  { retryMs = 10_000, ...more }: { retryMs?: number; unguarded?: (warning: RepositoryWarning) => void } = {},
): Promise<Repository> {
  const store = await openStore(parseRepositoryUrl(url), {
    writer: '',
    isGroupReadable: false,
    owner: undefined,
    retryMs,
  })
  return new Repository({ store, clock: realClock, newId: randomUUID, writer: 'test', ...more })
}
