import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

interface LockFile {
  packages: Record<string, { resolved?: string; optionalDependencies?: Record<string, string> }>
}

for (const path of ['package-lock.json', 'scripts/postgresql/package-lock.json']) {
  test(`${path} installs everywhere: it names each platform's packages, and no address to download from`, async () => {
    const lock: LockFile = JSON.parse(await readFile(join(import.meta.dirname, '..', path), 'utf8'))
    const missing: string[] = []
    for (const { resolved, optionalDependencies } of Object.values(lock.packages)) {
      assert.equal(resolved, undefined)
      for (const name of Object.keys(optionalDependencies ?? {})) {
        if (lock.packages[`node_modules/${name}`] === undefined) missing.push(name)
      }
    }
    // "npm ci" refuses such a file as a whole; "scripts/node scripts/complete-lock.ts" completes it.
    assert.deepEqual(missing, [])
  })
}
