import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { isBuiltin, registerHooks, stripTypeScriptTypes } from 'node:module'
import { extname } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { type ModuleExports, type ModuleFiles, ModuleLoadError } from './module-files.ts'
import { errnoCode, systemErrorText } from './system-error.ts'

export const realModuleFiles: ModuleFiles = {
  packageFile: name => {
    if (isBuiltin(name)) return undefined
    try {
      return fileURLToPath(import.meta.resolve(name))
    } catch {
      return undefined
    }
  },

  load: async path => {
    hooksInstalled ??= installHooks()
    const load: Load = { sources: new Map(), unresolved: undefined }
    currentLoad = load
    try {
      return (await import(pathToFileURL(path).href)) as ModuleExports
    } catch (thrown) {
      throw await explain(thrown, path, load)
    } finally {
      currentLoad = undefined
    }
  },
}

/** What the hooks saw, to explain a failure with. */
interface Load {
  /** The text of each file that was to be run, by path, and without its types once they could be stripped. */
  sources: Map<string, string>
  /** The import that led nowhere. */
  unresolved: { importer: string; specifier: string } | undefined
}

let currentLoad: Load | undefined
let hooksInstalled: boolean | undefined

const ourFiles = new URL('..', import.meta.url).href
const ourExtension = extname(import.meta.filename)
const ourEntries: Readonly<Record<string, string>> = {
  pgarchivist: new URL(`../contract/index${ourExtension}`, import.meta.url).href,
  'pgarchivist/conformance': new URL(`../contract/conformance${ourExtension}`, import.meta.url).href,
}

/**
 * Node strips types by itself, but not below node_modules, and takes a `.ts` file for CommonJS when the nearest
 * package.json does not say otherwise. Here `.ts` is an ES module wherever it lies, and `pgarchivist` means the
 * running one, also for a file that has no node_modules above it.
 */
function installHooks(): boolean {
  // Node warns once that this function may change; the reader of a server's log can do nothing about it.
  const emitWarning = process.emitWarning.bind(process)
  process.emitWarning = () => {}
  stripTypeScriptTypes('')
  process.emitWarning = emitWarning

  registerHooks({
    resolve: (specifier, context, nextResolve) => {
      const ours = ourEntries[specifier]
      if (ours !== undefined) return { url: ours, shortCircuit: true }
      try {
        return nextResolve(specifier, context)
      } catch (error) {
        if (currentLoad !== undefined && context.parentURL?.startsWith('file:')) {
          currentLoad.unresolved ??= { importer: fileURLToPath(context.parentURL), specifier }
        }
        throw error
      }
    },
    load: (url, context, nextLoad) => {
      if (!url.startsWith('file:') || url.startsWith(ourFiles)) return nextLoad(url, context)
      const path = fileURLToPath(url)
      if (/\.m?js$/.test(path)) currentLoad?.sources.set(path, readFileSync(path, 'utf8'))
      if (!/\.m?ts$/.test(path)) return nextLoad(url, context)
      const typed = readFileSync(path, 'utf8')
      currentLoad?.sources.set(path, typed)
      const source = stripTypeScriptTypes(typed, { mode: 'strip', sourceUrl: path })
      currentLoad?.sources.set(path, source)
      return { format: 'module', source, shortCircuit: true }
    },
  })
  return true
}

/** Turns what Node throws for a file that it cannot run into one that tells where and why; passes on the rest. */
async function explain(thrown: unknown, path: string, load: Load): Promise<unknown> {
  if (!(thrown instanceof Error)) return thrown
  const code = errnoCode(thrown)
  const place = /^(\/.*|file:.*?)(?:\?.*?)?:(\d+)\n/.exec(thrown.stack ?? '')
  if (thrown instanceof SyntaxError && place !== null) {
    const file = place[1]?.startsWith('file:') ? fileURLToPath(place[1]) : (place[1] ?? path)
    return new ModuleLoadError(thrown.message, {
      file,
      line: Number(place[2]),
      remedy: remedyFor(thrown.message),
    })
  }
  if (thrown instanceof SyntaxError && /^ +at compileSourceTextModule \(node:/m.test(thrown.stack ?? '')) {
    return await syntaxErrorWithLine(thrown, load.sources)
  }
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION') {
    const extension = extname(path)
    const remedy =
      extension === '.tsx'
        ? 'Name it ".ts" and write no JSX in it.'
        : 'An archive module is a .ts, .mts, .js or .mjs file.'
    return new ModuleLoadError(`unknown file extension "${extension}"`, { file: path, remedy })
  }
  if (load.unresolved !== undefined && code?.startsWith('ERR_'))
    return unresolvedImport(load.unresolved, load.sources)
  // A system call that failed on the module's own file. Those that the module makes itself have its frames.
  if (code !== undefined && (thrown as NodeJS.ErrnoException).path === path && load.sources.size === 0) {
    return new ModuleLoadError(systemErrorText(thrown), { file: path })
  }
  return thrown
}

/** V8 does not tell where in a module its syntax error is, except on standard error. So another Node is asked. */
async function syntaxErrorWithLine(
  error: SyntaxError,
  sources: Map<string, string>,
): Promise<ModuleLoadError> {
  for (const [file, source] of sources) {
    const line = await lineOfSyntaxError(source)
    if (line === undefined) continue
    const decorated = /^\s*(export\s+)?(default\s+)?@\w/.test(source.split('\n')[line - 1] ?? '')
    const problem = decorated ? 'TypeScript decorator is not supported in strip-only mode' : error.message
    return new ModuleLoadError(problem, { file, line, remedy: remedyFor(problem) })
  }
  return new ModuleLoadError(error.message, {})
}

const checkPatienceMs = 10_000

function lineOfSyntaxError(source: string): Promise<number | undefined> {
  return new Promise(resolve => {
    const check = execFile(
      process.execPath,
      ['--check', '--input-type=module', '-'],
      { timeout: checkPatienceMs, killSignal: 'SIGKILL' },
      (_error, _stdout, stderr) => {
        const line = /^\[stdin\]:(\d+)\n/m.exec(stderr)?.[1]
        resolve(line === undefined ? undefined : Number(line))
      },
    )
    check.stdin?.on('error', () => {}) // it did not start, or has seen enough; the callback above tells
    check.stdin?.end(source)
  })
}

function unresolvedImport(
  { importer, specifier }: NonNullable<Load['unresolved']>,
  sources: Load['sources'],
): ModuleLoadError {
  const lines = sources.get(importer)?.split('\n') ?? []
  const index = lines.findIndex(text => text.includes(`'${specifier}'`) || text.includes(`"${specifier}"`))
  const typed = specifier.replace(
    /(\.m?)js$|$/,
    (_all: string, start: string | undefined) => `${start ?? '.'}ts`,
  )
  const meant =
    specifier.startsWith('.') && existsSync(fileURLToPath(new URL(typed, pathToFileURL(importer))))
  return new ModuleLoadError(`cannot find "${specifier}"`, {
    file: importer,
    line: index < 0 ? undefined : index + 1,
    remedy: meant ? `Write "${typed}", as the file is named.` : undefined,
  })
}

const remedies: readonly (readonly [problem: RegExp, remedy: string])[] = [
  [
    /TypeScript enum /,
    'Write a constant object ("const Color = { red: 1 } as const") or a union of literal types.',
  ],
  [/TypeScript (namespace|module) /, 'Write the exports of a file of its own.'],
  [/TypeScript parameter property /, 'Declare the field in the class and assign it in the constructor.'],
  [/TypeScript decorator /, 'Call the function on the class yourself.'],
  [/TypeScript import equals /, 'Write "import name from \'module\'".'],
  [/TypeScript export assignment /, 'Write "export function" or "export const".'],
  [/angle-bracket syntax/, 'Write "value as Type".'],
]

function remedyFor(problem: string): string | undefined {
  const remedy = remedies.find(([pattern]) => pattern.test(problem))?.[1]
  if (remedy !== undefined)
    return `${remedy} With "erasableSyntaxOnly" in tsconfig.json the compiler refuses it too.`
  const missing = /does not provide an export named '(.+)'/.exec(problem)?.[1]
  if (missing !== undefined) return `If "${missing}" is a type, write "import type".`
  return undefined
}
