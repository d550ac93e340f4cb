/** Compiles the library for one server. */
import { execFile } from 'node:child_process'
import path from 'node:path'
import { systemErrorText } from '../../system/system-error.ts'
import { ownFile } from '../own-package.ts'
import { isExecutable } from './pg-config.ts'

/** Beside bin/, in a checkout as in the published package. */
export const sourceDirectory = ownFile('src/bridge/pg')

export const sourceNames = ['pgarchivist.c', 'frame.c', 'keeper.c', 'node_process.c']

export interface Compilation {
  /** The program and what comes before all other arguments, such as `ccache gcc`. */
  compiler: readonly string[]
  major: number
  includeDirectories: readonly string[]
  preprocessorOptions?: readonly string[]
  /** The absolute path of bin/pgarchivist, which the library will start. */
  launcher: string
  output: string
  /** Stands in for the first source file; it can include that by its name. */
  mainSource?: string
}

/** The command that makes the library. */
export function compileCommand(compilation: Compilation): string[] {
  const { compiler, major, includeDirectories, preprocessorOptions = [], launcher, output } = compilation
  const [main = '', ...others] = sourceNames.map(name => path.join(sourceDirectory, name))
  return [
    ...compiler,
    // Overflow and aliasing as PostgreSQL's own headers and macros take them for granted.
    ...['-O2', '-fwrapv', '-fno-strict-aliasing', '-fPIC', '-shared'],
    // The server makes all symbols of a library visible to all others, so ours had better not be. The headers of 15
    // do not mark what the server looks for as visible.
    ...(major >= 16 ? ['-fvisibility=hidden'] : []),
    ...includeDirectories.map(directory => `-I${directory}`),
    `-I${sourceDirectory}`,
    ...preprocessorOptions,
    `-DPGARCHIVIST_LAUNCHER=${cString(launcher)}`,
    ...['-o', output, compilation.mainSource ?? main, ...others],
  ]
}

function cString(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}

// A second or two is usual. A compiler that waits for a licence or a network has to end too.
const compileTimeoutMs = 300_000
// The first complaints say what is wrong; what follows follows from them.
const complaintLinesMax = 5

/** Runs it. Throws an error with the compiler's first complaints. */
export async function compile(compilation: Compilation, hintAboutLibc: string): Promise<void> {
  const [program = '', ...args] = compileCommand(compilation)
  const options = {
    timeout: compileTimeoutMs,
    killSignal: 'SIGKILL',
    // What it says is read below, so it should not be translated.
    env: { ...process.env, LC_ALL: 'C' },
  } as const
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  execFile(program, args, options, (error, _stdout, stderr) => {
    if (error === null) resolve()
    else if (typeof error.code === 'string')
      reject(new Error(`could not run "${program}": ${systemErrorText(error)}`))
    else reject(new Error(complaint(program, stderr, hintAboutLibc)))
  })
  await promise
}

// Headers that no PostgreSQL brings; where one is missing, so are all of libc.
const libcHeader = /\b(stdio|stdlib|stddef|limits|errno|features|sys\/\w+)\.h\b/

function complaint(program: string, stderr: string, hintAboutLibc: string): string {
  const missing = /(?:fatal error: |')([\w/.-]+\.h)(?:: No such file|' file not found)/.exec(stderr)?.[1]
  if (missing !== undefined && libcHeader.test(missing))
    return `the headers of libc are missing ("${missing}"): ${hintAboutLibc}`
  const lines = stderr.split('\n').filter(line => /error|cannot|undefined|failed/i.test(line))
  const told = lines.length > 0 ? lines : stderr.trimEnd().split('\n')
  return [`"${program}" could not compile the library:`, ...told.slice(0, complaintLinesMax)].join('\n  ')
}

/** The compiler to use: what CC names, the one that built the server, or one of the usual names. */
export async function findCompiler(
  environment: NodeJS.ProcessEnv,
  ofServer: readonly string[],
): Promise<readonly string[] | undefined> {
  const named = (environment['CC'] ?? '').split(/\s+/).filter(Boolean)
  // Who names one wants that one or none; whether it can be run shows when it is.
  if (named.length > 0) return named
  for (const candidate of [ofServer, ['cc'], ['gcc'], ['clang']]) {
    const [program] = candidate
    if (program !== undefined && (await isOnPath(program, environment['PATH'] ?? ''))) return candidate
  }
  return undefined
}

async function isOnPath(program: string, searchPath: string): Promise<boolean> {
  if (program.includes('/')) return await isExecutable(program)
  for (const directory of searchPath.split(path.delimiter).filter(Boolean)) {
    if (await isExecutable(path.join(directory, program))) return true
  }
  return false
}
