// What every store must do, on a real Azurite.

import { after, before, test } from 'node:test'
import { storeConformance } from '../src/repository/store/conformance.ts'
import type { Store } from '../src/repository/store/store.ts'
import { azureDriver, azureStore } from './support/azure-store.ts'
import { RunningAzurite } from './support/running-azurite.ts'

let azurite: RunningAzurite

before(async () => {
  azurite = await RunningAzurite.start()
})
after(async () => await azurite?.stop())

const urls = new WeakMap<Store, string>()

function open(url: string): Store {
  const store = azureStore(azureDriver(url, { AZURE_STORAGE_KEY: azurite.key }))
  urls.set(store, url)
  return store
}

const facts = storeConformance({
  newStore: async ({ isOddlyNamed }) => {
    const prefix = isOddlyNamed ? `/${encodeURIComponent('ä %41+b "c\' d')}/e` : ''
    const container = await azurite.createContainer()
    return open(`azure://${container}${prefix}?account=archive&endpoint=${azurite.endpoint}`)
  },
  anotherWriter: async store => open(urls.get(store) ?? ''),
})
for (const { name, prove } of facts) test(`Azure: ${name}`, prove)
