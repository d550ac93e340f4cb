/** Finds and loads the module that a name means: one rule, whoever asks. */
import { isAbsolute, resolve } from 'node:path'
import type { ArchiveModuleCallbacks, ArchiveModuleInit } from '../contract/archive-module.ts'
import type { ArchiveServer } from '../contract/archive-server.ts'
import { ReportedError, reportOf } from '../contract/error-report.ts'
import type { Files } from '../system/files.ts'
import { type ModuleExports, type ModuleFiles, ModuleLoadError } from '../system/module-files.ts'
import { errnoCode, isMissing, systemErrorText } from '../system/system-error.ts'

/** The modules that we ship, by name. Each is brought in when it is used. */
export type BuiltInModules = ReadonlyMap<string, () => Promise<ModuleExports>>

export interface ModuleRequest {
  /** As in `archive_library`. */
  name: string
  builtIns: BuiltInModules
  /** The server's setting: directories, separated by colons. */
  dynamicLibraryPath: string
  /** Absolute. Relative paths start here. */
  dataDirectory: string
  files: Pick<Files, 'stat'>
  modules: ModuleFiles
}

export interface LoadedModule {
  /** The name of a built-in module, or the absolute path of a file: what loads the same module in another process. */
  source: string
  init: ArchiveModuleInit
}

/** Everything that goes wrong here is FATAL, as it is in PostgreSQL's archiver. */
export async function loadArchiveModule(request: ModuleRequest): Promise<LoadedModule> {
  const { name, builtIns, modules } = request
  const source = builtIns.has(name) ? name : await findModuleFile(request)
  const exports = await loadModuleExports(source, { builtIns, modules })
  const init = exports['_PG_archive_module_init']
  if (typeof init !== 'function')
    throw fatal('archive modules have to define the symbol _PG_archive_module_init')
  return { source, init: init as ArchiveModuleInit }
}

/** The exports of a module that was found before. */
export async function loadModuleExports(
  source: string,
  { builtIns, modules }: Pick<ModuleRequest, 'builtIns' | 'modules'>,
): Promise<ModuleExports> {
  try {
    const builtIn = builtIns.get(source)
    return builtIn === undefined ? await modules.load(source) : await builtIn()
  } catch (thrown) {
    if (thrown instanceof ModuleLoadError) {
      const place = [thrown.file, thrown.line].filter(part => part !== undefined).join(':')
      const problem = place === '' ? thrown.message : `${place}: ${thrown.message}`
      throw fatal(`could not load library "${source}": ${problem}`, thrown.remedy, { cause: thrown })
    }
    // What the module itself throws while it runs is its own message, as an ERROR in _PG_init would be.
    throw new ReportedError('FATAL', reportOf(thrown), { cause: thrown })
  }
}

/** Calls the init function and checks what it returns, since the compiler has seen it only if the author has one. */
export async function initializeModule(
  init: ArchiveModuleInit,
  server: ArchiveServer,
): Promise<ArchiveModuleCallbacks> {
  let returned: unknown
  try {
    returned = await init(server)
  } catch (thrown) {
    if (thrown instanceof ReportedError && thrown.level === 'PANIC') throw thrown
    throw new ReportedError('FATAL', reportOf(thrown), { cause: thrown })
  }
  const callbacks =
    typeof returned === 'object' && returned !== null ? (returned as Record<string, unknown>) : {}
  if (typeof callbacks['archive_file_cb'] !== 'function') {
    throw fatal('archive modules must register an archive callback')
  }
  for (const name of ['startup_cb', 'check_configured_cb', 'shutdown_cb'])
    requireType(callbacks, name, 'function')
  requireType(callbacks, 'archive_ahead', 'boolean')
  return returned as ArchiveModuleCallbacks
}

/** A null stands for a callback that is not there, as in C. */
function requireType(callbacks: Record<string, unknown>, name: string, type: 'function' | 'boolean'): void {
  const value = callbacks[name] ?? undefined
  if (value === undefined || typeof value === type) return
  throw fatal(`invalid "${name}" of archive module: expected a ${type}, got a ${typeof value}`)
}

// PostgreSQL tries a name as it is and then with the suffix of shared libraries.
const suffixes = ['', '.ts', '.mts', '.js', '.mjs']

async function findModuleFile(request: ModuleRequest): Promise<string> {
  const { name, dataDirectory, files, modules } = request
  const isPath = name.includes('/')
  const places = isPath ? [dataDirectory] : libraryDirectories(request.dynamicLibraryPath)
  for (const place of places) {
    const file = await findFile(resolve(place, name), files)
    if (file !== undefined) return file
  }
  if (!isPath || isScopedPackage(name)) {
    const file = modules.packageFile(name)
    if (file !== undefined && (await kindOf(file, files)) === 'file') return file
  }
  const kind = isPath ? await kindOf(resolve(dataDirectory, name), files) : undefined
  if (kind === undefined) throw fatal(`could not access file "${name}": No such file or directory`)
  const problem = kind === 'directory' ? 'Is a directory' : 'not a regular file'
  throw fatal(`could not load library "${resolve(dataDirectory, name)}": ${problem}`)
}

/** The directories of `dynamic_library_path`. PostgreSQL's own (`$libdir`) hold nothing that Node could run. */
function libraryDirectories(dynamicLibraryPath: string): string[] {
  if (dynamicLibraryPath === '') return []
  return dynamicLibraryPath.split(':').filter(directory => {
    if (directory === '') throw fatal('zero-length component in parameter "dynamic_library_path"')
    if (directory === '$libdir' || directory.startsWith('$libdir/')) return false
    if (isAbsolute(directory)) return true
    throw fatal('component in parameter "dynamic_library_path" is not an absolute path')
  })
}

/** `@scope/name` has a slash and is no path, unless there is such a file. */
function isScopedPackage(name: string): boolean {
  return /^@[^/]+\/[^/]+$/.test(name)
}

async function findFile(path: string, files: ModuleRequest['files']): Promise<string | undefined> {
  for (const suffix of suffixes) {
    if ((await kindOf(path + suffix, files)) === 'file') return path + suffix
  }
  return undefined
}

async function kindOf(path: string, files: ModuleRequest['files']): Promise<string | undefined> {
  try {
    return (await files.stat(path)).kind
  } catch (thrown) {
    if (isMissing(thrown) || errnoCode(thrown) === 'ENOTDIR') return undefined
    throw fatal(`could not access file "${path}": ${systemErrorText(thrown)}`)
  }
}

function fatal(errmsg: string, errhint?: string, options?: ErrorOptions): ReportedError {
  return new ReportedError('FATAL', { errmsg, errhint }, options)
}
