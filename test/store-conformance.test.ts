// Every store keeps to the same facts. Those that need a server of their own have a file of their own.

import { mkdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { storeConformance } from '../src/repository/store/conformance.ts'
import { LocalStore } from '../src/repository/store/local-store.ts'
import { MemoryDriver, type MemoryDriverOptions } from '../src/repository/store/memory-driver.ts'
import { RemoteStore } from '../src/repository/store/remote-store.ts'
import { sendTo } from '../src/repository/store/requests.ts'
import type { Store } from '../src/repository/store/store.ts'
import { realClock } from '../src/system/clock.ts'
import { realFiles } from '../src/system/real-files.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const oddName = 'ä %41+b "c\' d'

function newRemote(driver: MemoryDriver): RemoteStore {
  const { url, features } = driver
  return new RemoteStore({ url, features, send: sendTo(driver), clock: realClock })
}

function inMemory(options: Partial<MemoryDriverOptions> = {}) {
  const drivers = new WeakMap<Store, MemoryDriver>()
  const storeOn = (driver: MemoryDriver) => {
    const store = newRemote(driver)
    drivers.set(store, driver)
    return store
  }
  return {
    newStore: async () => storeOn(new MemoryDriver({ clock: realClock, ...options })),
    anotherWriter: async (store: Store) => {
      const driver = drivers.get(store)
      if (driver === undefined) throw new Error('this store is of another test')
      return storeOn(driver)
    },
  }
}

for (const { name, prove } of storeConformance(inMemory())) test(`memory: ${name}`, prove)

const unproven = inMemory({ features: { putKeeps: 'unproven', endUploadKeeps: 'unproven' }, pageMax: 7 })
for (const { name, prove } of storeConformance(unproven))
  test(`memory that has to prove what it does: ${name}`, prove)

const halfForgetful = inMemory({
  features: { putKeeps: 'unproven', endUploadKeeps: 'unproven' },
  replaces: { endUpload: true },
})
for (const { name, prove } of storeConformance(halfForgetful))
  test(`memory that replaces by parts what is there: ${name}`, prove)

const forgetful = {
  ...inMemory({
    features: { putKeeps: 'unproven', endUploadKeeps: 'unproven' },
    replaces: { put: true, endUpload: true },
  }),
  keepsWhatIsThere: false,
}
for (const { name, prove } of storeConformance(forgetful))
  test(`memory that replaces what is there: ${name}`, prove)

const places = new WeakMap<Store, { path: string; close: () => PromiseLike<void> }>()
let writers = 0

function localStore(path: string, close: () => PromiseLike<void>): Store {
  const store = new LocalStore({
    files: realFiles,
    clock: realClock,
    directory: path,
    writer: `writer ${++writers}`,
    isGroupReadable: false,
  })
  places.set(store, { path, close })
  return store
}

const local = storeConformance({
  newStore: async ({ isOddlyNamed }) => {
    const directory = await temporaryDirectory()
    const path = join(await realpath(directory.path), isOddlyNamed ? oddName : 'repository')
    await mkdir(path)
    return localStore(path, () => directory[Symbol.asyncDispose]())
  },
  anotherWriter: async store => localStore(places.get(store)?.path ?? '', async () => {}),
  close: store => places.get(store)?.close(),
})
for (const { name, prove } of local) test(`local: ${name}`, prove)
