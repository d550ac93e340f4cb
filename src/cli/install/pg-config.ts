/** What `pg_config` tells of an installed PostgreSQL, and where such programs are found. */
import { execFile } from 'node:child_process'
import { access, constants, readdir } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { systemErrorText } from '../../system/system-error.ts'

const run = promisify(execFile)

export interface Installation {
  /** The program that told the rest. */
  pgConfig: string
  /** "15.18", "19rc1". */
  version: string
  major: number
  bindir: string
  includedirServer: string
  pkglibdir: string
  /** Options that tell the preprocessor where headers are and what they are to define. */
  preprocessorOptions: string[]
  /** The compiler that built this server; it may be unknown here. */
  compiler: string[]
}

// It prints what was compiled into it. One that takes longer is something else.
const pgConfigTimeoutMs = 10_000

// What pg_config is asked for in one call; it answers in this order, one line each.
const questions = ['--bindir', '--includedir-server', '--pkglibdir', '--cppflags', '--cc']

/** Asks one `pg_config`. Throws an error that says what is wrong with it. */
export async function askPgConfig(pgConfig: string): Promise<Installation> {
  const [answer = ''] = await ask(pgConfig, ['--version'])
  const [, version = '', digits = ''] = /^PostgreSQL ((\d+)\S*)/.exec(answer) ?? []
  if (version === '') throw new Error(`"${pgConfig}" is not a pg_config: it gives its version as "${answer}"`)
  const answers = await ask(pgConfig, questions)
  const [bindir = '', includedirServer = '', pkglibdir = '', cppflags = '', cc = ''] = answers
  if (![bindir, includedirServer, pkglibdir].every(each => path.isAbsolute(each)))
    throw new Error(`"${pgConfig}" is not a pg_config: it does not tell the directories of its server`)
  return {
    pgConfig,
    version,
    major: Number(digits),
    bindir,
    includedirServer,
    pkglibdir,
    // The rest is for the compiler that built the server, and about warnings.
    preprocessorOptions: words(cppflags).filter(
      word => /^-[DI]./.test(word) && !word.startsWith('-D_FORTIFY_SOURCE'),
    ),
    compiler: words(cc),
  }
}

async function ask(pgConfig: string, args: string[]): Promise<string[]> {
  try {
    const options = { timeout: pgConfigTimeoutMs, killSignal: 'SIGKILL', cwd: '/' } as const
    return (await run(pgConfig, args, options)).stdout.trimEnd().split('\n')
  } catch (thrown) {
    throw new Error(`could not run "${pgConfig} ${args[0]}": ${reason(thrown)}`, { cause: thrown })
  }
}

function reason(thrown: unknown): string {
  const { code, signal } = thrown as { code?: string | number; signal?: string | null }
  if (typeof code === 'number') return `it exited with status ${code}`
  if (signal) return `it did not end within ${pgConfigTimeoutMs} ms`
  return systemErrorText(thrown)
}

// "not recorded" is what a pg_config says that was built by other means than configure or meson.
function words(text: string): string[] {
  return text === 'not recorded' ? [] : text.split(/\s+/).filter(Boolean)
}

/** Where packages put it, beside the PATH: Debian and Ubuntu, the RPMs of postgresql.org, and a build from source. */
export const usualPlaces = ['/usr/lib/postgresql/*/bin', '/usr/pgsql-*/bin', '/usr/local/pgsql/bin']

/** Every `pg_config` on the PATH and in the usual places. Several may be of the same server. */
export async function findPgConfigs(searchPath: string): Promise<string[]> {
  const directories = searchPath.split(path.delimiter).filter(each => path.isAbsolute(each))
  for (const pattern of usualPlaces) directories.push(...(await expand(pattern)))
  const found: string[] = []
  for (const directory of new Set(directories)) {
    const program = path.join(directory, 'pg_config')
    if (await isExecutable(program)) found.push(program)
  }
  return found
}

// The directories that a pattern with at most one "*" stands for, in the order of their numbers.
async function expand(pattern: string): Promise<string[]> {
  const parts = pattern.split('/')
  const at = parts.findIndex(part => part.includes('*'))
  if (at < 0) return [pattern]
  const above = parts.slice(0, at).join('/')
  const [before = '', after = ''] = (parts[at] ?? '').split('*')
  const names = await readdir(above).catch(() => [])
  return names
    .filter(name => name.startsWith(before) && name.endsWith(after))
    .toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .map(name => [above, name, ...parts.slice(at + 1)].join('/'))
}

export async function isExecutable(file: string): Promise<boolean> {
  return await access(file, constants.X_OK).then(
    () => true,
    () => false,
  )
}
