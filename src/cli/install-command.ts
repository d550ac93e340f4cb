/** `pgarchivist install` and `uninstall`: the library that PostgreSQL loads, built on the machine where it runs. */
import { access, constants, mkdir, mkdtemp, readFile, realpath, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { realFiles } from '../system/real-files.ts'
import { couldNot, isMissing } from '../system/system-error.ts'
import { exists, writeDurably } from '../system/write-durably.ts'
import { compile, compileCommand, findCompiler } from './install/compile.ts'
import { packagesHere } from './install/packages.ts'
import { askPgConfig, findPgConfigs, type Installation, usualPlaces } from './install/pg-config.ts'
import { ownFile } from './own-package.ts'

export interface InstallOptions {
  /** Of which servers; all that are found if empty. */
  pgConfig: string[]
  /** Put in front of the directory that is installed into, for those who make packages. */
  destdir?: string | undefined
  dryRun?: boolean | undefined
}

const libraryName = 'pgarchivist.so'
// Archive modules came with this version.
const majorNeeded = 15

/** What was done for a server, or why it needs nothing. */
type Done = { kind: 'done' | 'left out'; text: string }

/** Resolves with the exit status. */
export async function installCommand(options: InstallOptions): Promise<number> {
  // A library that only root can read would keep the server from starting.
  process.umask(0o022)
  const launcher = await ownLauncher(options.destdir)
  const status = await forEachServer(options, installation => install(installation, launcher, options))
  if (status === 0 && options.destdir === undefined) await warnIfClosed(launcher)
  return status
}

/** Resolves with the exit status. */
export async function uninstallCommand(options: InstallOptions): Promise<number> {
  return await forEachServer(options, installation => uninstall(installation, options))
}

async function forEachServer(
  options: InstallOptions,
  act: (installation: Installation) => Promise<Done>,
): Promise<number> {
  const named = options.pgConfig.length > 0
  const programs = named ? options.pgConfig : await findPgConfigs(process.env['PATH'] ?? '')
  const seen = new Set<string>()
  let done = 0
  let failed = 0
  for (const program of programs) {
    let about = ''
    try {
      // Without a slash it is a name on the PATH, as everywhere.
      const installation = await askPgConfig(program.includes('/') ? path.resolve(program) : program)
      // Debian's /usr/bin/pg_config, for one, speaks for another that is found as well.
      const identity = await realpath(installation.pkglibdir).catch(() => installation.pkglibdir)
      if (seen.has(identity)) continue
      seen.add(identity)
      about = `PostgreSQL ${installation.version}: `
      const result = named
        ? await act(installation)
        : ((await notForUs(installation)) ?? (await act(installation)))
      if (result.kind === 'done') done++
      process.stdout.write(`${about}${result.text}\n`)
    } catch (thrown) {
      failed++
      process.stderr.write(
        `pgarchivist: ${about}${thrown instanceof Error ? thrown.message : String(thrown)}\n`,
      )
    }
  }
  if (done === 0 && failed === 0) {
    process.stderr.write(
      `pgarchivist: found no server to act on: name its pg_config with --pg-config (looked on the PATH and in ${usualPlaces.join(', ')})\n`,
    )
  }
  return failed === 0 && done > 0 ? 0 : 1
}

/** What happens to be on a machine is no failure if it cannot have the library. */
async function notForUs(installation: Installation): Promise<Done | undefined> {
  if (installation.major < majorNeeded) return { kind: 'left out', text: `left out, ${tooOld}` }
  // The packages of the client library bring a pg_config too.
  if (await exists(realFiles, path.join(installation.bindir, 'postgres'))) return undefined
  if (await exists(realFiles, serverHeader(installation))) return undefined
  return { kind: 'left out', text: `left out, "${installation.pgConfig}" comes without a server` }
}

const tooOld = `archive modules need PostgreSQL ${majorNeeded} or newer`

const serverHeader = ({ includedirServer }: Installation) => path.join(includedirServer, 'postgres.h')

async function install(installation: Installation, launcher: string, options: InstallOptions): Promise<Done> {
  const { major, includedirServer, pkglibdir, preprocessorOptions } = installation
  if (major < majorNeeded) throw new Error(tooOld)
  const packages = await packagesHere()
  if (!(await exists(realFiles, serverHeader(installation))))
    throw new Error(
      `the server headers are missing ("${serverHeader(installation)}"): ${packages.headers(major, pkglibdir)}`,
    )
  const compiler = await findCompiler(process.env, installation.compiler)
  if (compiler === undefined) throw new Error(`there is no C compiler: ${packages.compiler}`)

  const directory = targetDirectory(installation, options)
  const target = path.join(directory, libraryName)
  const compilation = {
    compiler,
    major,
    includeDirectories: [includedirServer],
    preprocessorOptions,
    launcher,
  }
  if (options.destdir === undefined) await requireWritable(directory)
  if (options.dryRun) {
    const command = compileCommand({ ...compilation, output: libraryName })
      .map(quoted)
      .join(' ')
    return { kind: 'done', text: `would install "${target}", made by\n  ${command}` }
  }

  const scratch = await mkdtemp(path.join(tmpdir(), 'pgarchivist-'))
  try {
    const output = path.join(scratch, libraryName)
    await compile({ ...compilation, output }, packages.compiler)
    if (options.destdir !== undefined)
      await mkdir(directory, { recursive: true }).catch(couldNot(`create directory "${directory}"`))
    const library = await readFile(output)
    // A running server has the old file mapped. It keeps that, because the name is given to another file.
    await writeDurably(realFiles, {
      directory,
      name: libraryName,
      temporaryName: `.${libraryName}.${process.pid}`,
      mode: 0o755,
      replace: true,
      write: file => file.write(library),
    })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
  return { kind: 'done', text: `installed "${target}"` }
}

async function uninstall(installation: Installation, options: InstallOptions): Promise<Done> {
  if (installation.major < majorNeeded) throw new Error(tooOld)
  const directory = targetDirectory(installation, options)
  const target = path.join(directory, libraryName)
  if (!(await exists(realFiles, target))) return { kind: 'done', text: `there is no "${target}"` }
  if (options.dryRun) return { kind: 'done', text: `would remove "${target}"` }
  await realFiles.unlink(target).catch(couldNot(`remove file "${target}"`))
  await realFiles.syncDirectory(directory).catch(couldNot(`fsync file "${directory}"`))
  return { kind: 'done', text: `removed "${target}"` }
}

function targetDirectory({ pkglibdir }: Installation, { destdir }: InstallOptions): string {
  return destdir === undefined ? pkglibdir : path.join(path.resolve(destdir), pkglibdir)
}

async function requireWritable(directory: string): Promise<void> {
  try {
    await access(directory, constants.W_OK)
  } catch (thrown) {
    if (isMissing(thrown)) {
      throw new Error(`directory "${directory}" does not exist: install the server first`, { cause: thrown })
    }
    couldNot(`write to directory "${directory}"`)(thrown)
  }
}

/**
 * The path of bin/pgarchivist that the library will start. A package that is being made is going to be where it is
 * now without the destination directory in front.
 */
async function ownLauncher(destdir: string | undefined): Promise<string> {
  const launcher = await realpath(ownFile('bin/pgarchivist'))
  if (destdir === undefined) return launcher
  const top = await realpath(destdir).catch(() => path.resolve(destdir))
  return launcher.startsWith(`${top}/`) ? launcher.slice(top.length) : launcher
}

const enterByOthers = 0o001
const readAndRunByOthers = 0o005

/** Installed in root's home or somebody else's, it cannot be started by the server's user: mostly that is not meant. */
async function warnIfClosed(launcher: string): Promise<void> {
  for (let place = launcher; ; place = path.dirname(place)) {
    const needed = place === launcher ? readAndRunByOthers : enterByOthers
    if (((await stat(place)).mode & needed) !== needed) {
      process.stderr.write(
        `pgarchivist: warning: only some users may ${place === launcher ? 'run' : 'enter'} "${place}"; the server's user has to be able to run "${launcher}"\n`,
      )
      return
    }
    if (place === path.dirname(place)) return
  }
}

/** As a shell would have to be given it. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
