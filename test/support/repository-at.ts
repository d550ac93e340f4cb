import { randomUUID } from 'node:crypto'
import { openStore } from '../../src/cli/open-store.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { RepositoryWarning } from '../../src/repository/repository-identity.ts'
import { parseS3Location } from '../../src/repository/s3-location.ts'
import { realClock } from '../../src/system/clock.ts'

/** A repository in a bucket, as the program would open it, but that remembers nothing. */
export async function openS3Repository(
  url: string,
  { retryMs = 10_000, ...more }: { retryMs?: number; unguarded?: (warning: RepositoryWarning) => void } = {},
): Promise<Repository> {
  const store = await openStore(parseS3Location(url), {
    writer: '',
    isGroupReadable: false,
    owner: undefined,
    retryMs,
  })
  return new Repository({ store, clock: realClock, newId: randomUUID, writer: 'test', ...more })
}
