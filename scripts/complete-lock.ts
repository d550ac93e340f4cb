// Run after `npm install` has changed package-lock.json: scripts/node scripts/complete-lock.ts
//
// npm leaves an optional package out of the lock file if the registry in use does not have it, and some
// registries have only the platforms that somebody asked for. `npm ci` then refuses the whole file. What belongs
// into the entry of another platform's package is known without asking: the exact version from whoever wants it,
// and the platform from its name, by which npm skips it everywhere else.

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

interface Entry {
  version?: string
  dev?: boolean
  optional?: boolean
  os?: string[]
  cpu?: string[]
  libc?: string[]
  optionalDependencies?: Record<string, string>
}

const systems = [
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
]
const processors = ['arm', 'arm64', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'x64']
const libraries = { glibc: ['gnu', 'gnueabihf'], musl: ['musl', 'musleabihf'] }

const path = join(import.meta.dirname, '../package-lock.json')
const lock: { packages: Record<string, Entry> } = JSON.parse(await readFile(path, 'utf8'))

const added: Record<string, Entry> = {}
for (const { dev, optionalDependencies } of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies ?? {})) {
    if (lock.packages[`node_modules/${name}`] === undefined) {
      added[`node_modules/${name}`] = { version, ...platform(name), ...(dev ? { dev } : {}), optional: true }
    }
  }
}

function platform(name: string): { os: string[]; cpu: string[]; libc?: string[] } {
  const words = name.slice(name.lastIndexOf('/') + 1).split('-')
  const os = words.filter(word => systems.includes(word))
  const cpu = words.filter(word => processors.includes(word))
  if (os.length !== 1 || cpu.length !== 1)
    throw new Error(`the platform of the package "${name}" is not clear`)
  const libc = Object.entries(libraries).flatMap(([library, endings]) =>
    endings.some(ending => words.includes(ending)) ? [library] : [],
  )
  return { os, cpu, ...(libc.length > 0 ? { libc } : {}) }
}

const sorted = Object.entries({ ...lock.packages, ...added }).toSorted(([a], [b]) => (a < b ? -1 : 1))
await writeFile(path, `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`)
console.log(`${Object.keys(added).length} packages of other platforms added to package-lock.json`)
