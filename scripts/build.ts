// Makes the program that is published: bundles, because a process that loads a few files starts in two thirds of the time
// that it takes to load a hundred, and the types of what modules import. Argument: where to, instead of dist.

import { execFile } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'

const root = resolve(import.meta.dirname, '..')
const out = resolve(process.argv[2] ?? join(root, 'dist'))

/** What is started by its name, or imported by it from outside. */
const entries = [
  'cli/main',
  'cli/archiver-process',
  'cli/background-worker',
  'cli/bridge-module-thread',
  'cli/fetcher-process',
  'cli/push-ahead-process',
  'contract/index',
  'contract/conformance',
]

await rm(out, { recursive: true, force: true })
const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
  await readFile(join(root, 'package.json'), 'utf8'),
)
await build({
  absWorkingDir: root,
  entryPoints: entries.map(name => `src/${name}.ts`),
  outdir: out,
  outbase: 'src',
  // What several of them have in common, and what only some runs need. It is where the entries are, because files of ours
  // are found from there.
  chunkNames: 'cli/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  external: Object.keys(dependencies),
  logLevel: 'warning',
})
await promisify(execFile)(
  process.execPath,
  [join(root, 'node_modules/.bin/tsc'), '-p', join(root, 'tsconfig.build.json'), '--outDir', out],
  { timeout: 120_000 },
).catch((error: Error & { stdout?: string }) => {
  // The types are written also where they have errors, which are the business of "npm run types".
  process.stderr.write(error.stdout ?? error.message)
})
