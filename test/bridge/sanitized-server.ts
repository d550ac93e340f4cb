// A server whose library is built with checks of everything that it does with memory and numbers. They are gcc's, whose
// runtime has to be in the process before the library is.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Compilation, compile } from '../../src/cli/install/compile.ts'
import { type PostgresOptions, PostgresServer, programDirectories } from '../support/postgresql-server.ts'
import { serverHeaders } from '../support/server-library.ts'
import {
  checkout,
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
} from '../support/unprivileged.ts'
import { writeFor } from './bridged-server.ts'

const run = promisify(execFile)

const checks = ['-fsanitize=address,undefined,float-cast-overflow', '-fno-sanitize-recover=all']

export interface Sanitized extends AsyncDisposable {
  library: string
  /** To be given to BridgedServer.start. */
  startServer: (options: PostgresOptions) => Promise<PostgresServer>
  /** What the checks have complained about, in all processes with the library of this server. */
  reports: (server: PostgresServer) => Promise<string[]>
}

/** The options are for a library that is known to be wrong. */
export async function sanitized(
  major: number,
  {
    mainSource,
    preprocessorOptions = [],
  }: Pick<Partial<Compilation>, 'mainSource' | 'preprocessorOptions'> = {},
): Promise<Sanitized> {
  const headers = (await serverHeaders()).get(major)
  const programs = (await programDirectories()).get(major)
  assert(headers !== undefined && programs !== undefined, `there is no PostgreSQL ${major} to test with`)
  const directory = await temporaryDirectory()
  const root = await realpath(directory.path)
  await chmod(root, 0o755)
  const reports = join(root, 'reports')
  await privateDirectory(reports)

  // Node runs as it is.
  const launcher = join(root, 'launcher')
  await writeProgram(
    launcher,
    `unset LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS\nexec "${join(await checkout(), 'bin/pgarchivist')}" "$@"`,
  )
  const library = join(root, 'pgarchivist.so')
  await compile(
    {
      compiler: ['gcc', '-g', '-fno-omit-frame-pointer', ...checks],
      major,
      includeDirectories: [headers],
      preprocessorOptions,
      launcher,
      output: library,
      ...(mainSource === undefined ? {} : { mainSource }),
    },
    'scripts/setup --servers brings them',
  )
  await chmod(library, 0o755)

  const { stdout } = await run('gcc', ['-print-file-name=libasan.so'])
  const options = `log_path=${reports}/report`
  const environment = {
    LD_PRELOAD: await realpath(stdout.trim()),
    // The server frees little of what it has before it ends, and the leak checker has to trace its own process, which
    // containers forbid.
    ASAN_OPTIONS: `${options}:detect_leaks=0`,
    UBSAN_OPTIONS: `${options}:print_stacktrace=1`,
  }
  const ownPrograms = join(root, 'bin')
  await mkdir(ownPrograms)
  const words = Object.entries(environment).map(([name, value]) => `${name}='${value}'`)
  await writeProgram(join(ownPrograms, 'postgres'), `exec env ${words.join(' ')} "${programs}/postgres" "$@"`)

  return {
    library,
    startServer: async serverOptions => await start(serverOptions, ownPrograms),
    reports: async server => {
      const names = await readdir(reports)
      const texts = await Promise.all(names.map(async name => await readFile(join(reports, name), 'utf8')))
      // Those about arithmetic and arrays go to standard error wherever the others are sent.
      const lines = (await server.log()).split('\n')
      return [...texts, ...lines.filter(line => /AddressSanitizer|runtime error:/.test(line))]
    },
    [Symbol.asyncDispose]: async () => await directory[Symbol.asyncDispose](),
  }
}

async function writeProgram(path: string, text: string): Promise<void> {
  await writeFor(path, `#!/bin/sh\n${text}\n`)
  await chmod(path, 0o755)
}

async function start(options: PostgresOptions, programDirectory: string): Promise<PostgresServer> {
  const directory: TemporaryDirectory = await temporaryDirectory()
  try {
    const server = new PostgresServer(options, programDirectory, directory)
    await server.prepare(options)
    await server.start()
    return server
  } catch (error) {
    await directory[Symbol.asyncDispose]()
    throw error
  }
}
