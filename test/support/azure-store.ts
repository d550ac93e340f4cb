// A store on a real Azurite, as the program would open it.

import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { parseAzureLocation } from '../../src/repository/azure-location.ts'
import { AzureDriver, type AzureDriverOptions } from '../../src/repository/store/azure/azure-driver.ts'
import { RemoteStore } from '../../src/repository/store/remote-store.ts'
import { sendTo } from '../../src/repository/store/requests.ts'
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

/** Sends each request once. */
export function azureStore(driver: AzureDriver): RemoteStore {
  const { url, features } = driver
  return new RemoteStore({
    url,
    features,
    send: sendTo(driver),
    clock: realClock,
    close: () => driver[Symbol.asyncDispose](),
  })
}
