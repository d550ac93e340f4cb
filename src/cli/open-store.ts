import { RepositoryError } from '../repository/repository-error.ts'
import type { RepositoryUrl } from '../repository/repository-url.ts'
import { LocalStore, type LocalStoreOptions } from '../repository/store/local-store.ts'
import type { Store } from '../repository/store/store.ts'
import { realClock } from '../system/clock.ts'
import { realFiles } from '../system/real-files.ts'

/** The store at a URL. What only one kind of store needs is loaded when that kind is used. */
export async function openStore(
  url: RepositoryUrl,
  options: Pick<LocalStoreOptions, 'writer' | 'isGroupReadable' | 'owner'>,
): Promise<Store> {
  switch (url.scheme) {
    case 'file':
      return new LocalStore({ ...options, files: realFiles, clock: realClock, directory: url.directory })
    case 's3':
      throw new RepositoryError('SETTINGS', 'this version cannot use S3 yet')
    default:
      return url satisfies never
  }
}
