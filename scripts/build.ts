// Makes the program that is published: bundles, because a process that loads a few files starts much earlier than one that
// loads hundreds, and the types of what modules import. Argument: where to, instead of dist.

import { execFile } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
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
const { metafile } = await build({
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
  // The S3 client as ES modules is a tenth of what it is otherwise, because most of it is never used.
  mainFields: ['module', 'main'],
  external: Object.keys(dependencies),
  // For CommonJS among what is bundled.
  banner: {
    js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)",
  },
  metafile: true,
  logLevel: 'warning',
})
await writeFile(join(out, 'LICENSES.txt'), await licences(Object.keys(metafile.inputs)))
await promisify(execFile)(
  process.execPath,
  [join(root, 'node_modules/.bin/tsc'), '-p', join(root, 'tsconfig.build.json'), '--outDir', out],
  { timeout: 120_000 },
).catch((error: Error & { stdout?: string }) => {
  // The types are written also where they have errors, which are the business of "npm run types".
  process.stderr.write(error.stdout ?? error.message)
})

/** Of the packages that the bundles contain, as their authors ask for. */
async function licences(inputs: readonly string[]): Promise<string> {
  const packages = new Set(
    inputs.flatMap(path => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []),
  )
  const texts: string[] = []
  for (const directory of [...packages].toSorted()) {
    const place = join(root, directory)
    const { name, version, license }: Record<string, string> = JSON.parse(
      await readFile(join(place, 'package.json'), 'utf8'),
    )
    const file = (await readdir(place)).find(each => /^licen[cs]e/i.test(each))
    if (file === undefined && license === undefined) throw new Error(`${name} has no licence`)
    const text = file === undefined ? '' : await readFile(join(place, file), 'utf8')
    texts.push(`${name} ${version} (${license})\n\n${text}`)
  }
  return texts.join(`\n${'-'.repeat(80)}\n\n`)
}
