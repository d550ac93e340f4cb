// A store on OpenSSH's own server is a store like the others.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openStore } from '../src/cli/open-store.ts'
import { parseSftpLocation } from '../src/repository/sftp-location.ts'
import { storeConformance } from '../src/repository/store/conformance.ts'
import type { Store } from '../src/repository/store/store.ts'
import { RunningSshd } from './support/running-sshd.ts'
import { sftpUrlOf } from './support/sftp-store.ts'
import { giveAway } from './support/unprivileged.ts'

const sshd = await RunningSshd.start()
after(() => sshd.stop())

const urls = new WeakMap<Store, string>()
let places = 0

async function storeAt(url: string): Promise<Store> {
  const store = await openStore(parseSftpLocation(url), {
    writer: '',
    isGroupReadable: false,
    owner: undefined,
    retryMs: 60_000,
  })
  urls.set(store, url)
  return store
}

const facts = storeConformance({
  newStore: async ({ isOddlyNamed }) => {
    const directory = join(sshd.root, `${isOddlyNamed ? 'ä %41+b "c\' d' : 'place'} ${++places}`)
    await mkdir(directory)
    await giveAway(directory)
    return await storeAt(sftpUrlOf(sshd, { directory }))
  },
  anotherWriter: async store => await storeAt(urls.get(store) ?? ''),
})
for (const { name, prove } of facts) test(name, prove)
