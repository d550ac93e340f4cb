import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const source = fileURLToPath(new URL('../src', import.meta.url))

/** For each room, the rooms that it may import from beside itself. The drawing in ARCHITECTURE.md shows the same. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  wal: [],
  system: [],
  contract: ['wal', 'system'],
  host: ['contract', 'wal', 'system'],
  repository: ['contract', 'wal', 'system'],
  modules: ['repository', 'contract', 'wal', 'system'],
  restore: ['repository', 'contract', 'wal', 'system'],
  archiver: ['host', 'contract', 'wal', 'system'],
  bridge: ['host', 'contract', 'wal', 'system'],
  observe: ['contract'],
  cli: [
    'archiver',
    'bridge',
    'modules',
    'restore',
    'observe',
    'host',
    'repository',
    'contract',
    'wal',
    'system',
  ],
}

/** What one directory may import besides, because nobody else should need it. */
const mayImportHere: Readonly<Record<string, readonly string[]>> = {
  // zlib touches nothing but the bytes that it is given.
  'repository/codec': ['node:stream', 'node:zlib'],
  // What a client gives it to read.
  'repository/store': ['node:stream'],
  // The agents that hold the connections of the client.
  'repository/store/azure': ['@azure/storage-blob', 'node:http', 'node:https', 'node:stream'],
  'repository/store/s3': ['@aws-sdk/client-s3', 'node:http', 'node:https', 'node:stream'],
  // It is given its connection.
  'repository/store/sftp': ['ssh2', 'node:events', 'node:stream'],
}

/** What node: modules a room may use that does not touch the outside world. */
const pureNodeModules = new Set([
  'node:assert',
  'node:assert/strict',
  'node:crypto',
  'node:path',
  'node:util',
])
const touchesWorld = new Set(['system', 'cli'])

/** What reaches clock, timers, randomness or the process without an import. */
const worldlyGlobals =
  /(?<![.#\w]|async )(Date\.now|new Date\(\)|performance\.|setTimeout|setInterval|setImmediate|Math\.random|randomBytes|randomUUID|process\.|fetch\(|console\.)/

interface SourceFile {
  /** Relative to src. */
  name: string
  room: string
  text: string
  imports: string[]
}

async function sourceFiles(): Promise<SourceFile[]> {
  const entries = await readdir(source, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile() && entry.name.endsWith('.ts'))
  return Promise.all(
    files.map(async entry => {
      const file = path.join(entry.parentPath, entry.name)
      const name = path.relative(source, file)
      const text = await readFile(file, 'utf8')
      const imports = [...withoutComments(text).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)].map(
        match => match[1] ?? '',
      )
      return { name, room: name.split(path.sep)[0] ?? '', text, imports }
    }),
  )
}

const isAllowedHere = ({ name }: SourceFile, specifier: string) =>
  mayImportHere[path.dirname(name)]?.includes(specifier) ?? false

const withoutComments = (text: string) => text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')

test('imports between rooms go one way', async () => {
  for (const { name, room, imports } of await sourceFiles()) {
    const allowed = mayImport[room]
    assert.ok(allowed, `src/${name} is in a room that the architecture does not have`)
    for (const specifier of imports.filter(each => each.startsWith('.'))) {
      const target = path.join(path.dirname(name), specifier).split(path.sep)[0] ?? ''
      assert.ok(target === room || allowed.includes(target), `src/${name} must not import from "${target}"`)
    }
  }
})

test('the rule of rooms has no cycle', () => {
  const visit = (room: string, above: readonly string[]): void => {
    assert.ok(!above.includes(room), `${[...above, room].join(' → ')} is a cycle`)
    for (const below of mayImport[room] ?? []) visit(below, [...above, room])
  }
  for (const room of Object.keys(mayImport)) visit(room, [])
})

test('only system and cli touch clock, disk, network, processes and randomness', async () => {
  for (const file of await sourceFiles()) {
    const { name, room, text, imports } = file
    if (touchesWorld.has(room)) continue
    for (const specifier of imports.filter(each => each.startsWith('node:'))) {
      assert.ok(
        pureNodeModules.has(specifier) || isAllowedHere(file, specifier),
        `src/${name} must not import "${specifier}": take a port of src/system`,
      )
    }
    const global = worldlyGlobals.exec(withoutComments(text))?.[0]
    assert.equal(global, undefined, `src/${name} must not use "${global}": take a port of src/system`)
  }
})

test('packages are imported by the command line only, and by stores', async () => {
  for (const file of await sourceFiles()) {
    const { name, room, imports } = file
    const packages = imports.filter(each => !each.startsWith('.') && !each.startsWith('node:'))
    // The contract's comments show authors how to import it.
    const foreign = packages.filter(each => !each.startsWith('pgarchivist') && !isAllowedHere(file, each))
    assert.ok(room === 'cli' || foreign.length === 0, `src/${name} must not import "${foreign[0]}"`)
  }
})

test('stores import their packages when they need them, because most commands do not', async () => {
  for (const { name, text } of await sourceFiles()) {
    if (mayImportHere[path.dirname(name)] === undefined) continue
    assert.doesNotMatch(withoutComments(text), /^import (?!type )[^(]*?'ssh2'/m, `src/${name}`)
  }
})

test('the client for S3 is loaded where a bucket is used, because it is large', async () => {
  for (const { name, text } of await sourceFiles()) {
    if (path.dirname(name) === 'repository/store/s3') continue
    assert.doesNotMatch(withoutComments(text), /^import (?!type )[^(]*?'[^']*store\/s3\//m, `src/${name}`)
  }
})

// With them node:zlib has lost the end of its output and reported success.
test("zstd's own worker threads are not used", async () => {
  for (const { name, text } of await sourceFiles()) assert.doesNotMatch(text, /nbWorkers/i, `src/${name}`)
})

test('a file is named after what it holds, not after a lack of a name', async () => {
  for (const { name } of await sourceFiles()) {
    assert.doesNotMatch(name, /(^|\/)(utils?|helpers?|common|lib|types|misc)(\.ts|\/)/)
  }
})

test('only one place gives files their final names', async () => {
  for (const { name, text } of await sourceFiles()) {
    const isAllowed =
      name.startsWith('system/') ||
      name === 'host/archive-status.ts' ||
      name === 'cli/state-directory.ts' ||
      // What is restored has to be whole, not durable: it can be fetched again.
      name === 'restore/whole-file.ts'
    if (isAllowed) continue
    assert.doesNotMatch(
      withoutComments(text),
      /\b(files|fs)\.(link|rename)\(|[^.\w](link|rename)\(/,
      `src/${name}: use writeDurably`,
    )
  }
})
