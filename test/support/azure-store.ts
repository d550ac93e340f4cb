// A store on a real Azurite, as the program would open it.

import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { acrossNetwork } from '../../src/cli/open-store.ts'
import { parseAzureLocation } from '../../src/repository/azure-location.ts'
import { AzureDriver, type AzureDriverOptions } from '../../src/repository/store/azure/azure-driver.ts'
import type { Store } from '../../src/repository/store/store.ts'
import { realClock } from '../../src/system/clock.ts'

export function azureDriver(
  url: string,
  environment: NodeJS.ProcessEnv,
  options: Partial<AzureDriverOptions> = {},
): AzureDriver {
  return new AzureDriver({
    location: parseAzureLocation(url),
    environment,
    clock: realClock,
    newId: randomUUID,
    ask: async () => await Promise.reject(new Error('tests have no identity')),
    readFile: path => readFile(path, 'utf8'),
    ...options,
  })
}

/** With all that is between a driver and those who use a store. */
export function azureStore(driver: AzureDriver): Store {
  return acrossNetwork(driver, { retryMs: 60_000 })
}
