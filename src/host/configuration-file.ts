/** Reads files of postgresql.conf's grammar as the server reads them, and complains in its words. */
import { dirname, isAbsolute, join } from 'node:path'
import type { ErrorReport, LogMessage } from '../contract/error-report.ts'
import type { Files } from '../system/files.ts'
import { couldNot, errnoCode, isMissing, systemErrorText } from '../system/system-error.ts'
import { ConfigurationLexer, decodeBytes, type Token, unquote } from './configuration-lexer.ts'
import { postmasterCommandLine } from './postmaster-options.ts'
import { type RawSetting, type Settings, settingKey, settingsOf } from './settings.ts'

/** More than any file that a person or ALTER SYSTEM writes; beyond it somebody has named the wrong file. */
export const configurationFileBytesMax = 4 * 1024 * 1024
/** Directories that include each other would multiply with every level, long before the tenth. */
export const configurationFilesMax = 1_000
const includeDepthMax = 10
const syntaxErrorsMax = 100

export interface ConfigurationFiles {
  /** Of the lines that could be read. With errors, the server would apply none of them. */
  settings: Settings
  errors: ErrorReport[]
  notices: LogMessage[]
  /** Every file that was read, or would have been if it were there, and every directory that was looked through. */
  sources: string[]
  /** The file that `configuration file "…" contains errors` is about: the outermost one, as in the server. */
  fileWithErrors: string | undefined
}

export interface ConfigurationFilesOptions {
  files: Files
  /** `undefined`: there is none, as where somebody archives from a bare pg_wal. */
  configFile: string | undefined
  dataDirectory: string
}

/** Reads the configuration file with all that it includes, then what ALTER SYSTEM wrote, which counts more. */
export async function readConfigurationFiles(
  options: ConfigurationFilesOptions,
): Promise<ConfigurationFiles> {
  const { files, configFile, dataDirectory } = options
  const reader = new ConfigurationReader(files)
  const result = (fileWithErrors: string | undefined) => ({
    settings: settingsOf(reader.list),
    errors: reader.errors,
    notices: reader.notices,
    sources: reader.sources,
    fileWithErrors,
  })

  if (configFile !== undefined) {
    const path = absolute(configFile, dataDirectory)
    if (!(await reader.readFile({ path, depth: 0 }))) return result(path)
  }
  const automatic = join(dataDirectory, 'postgresql.auto.conf')
  if (!(await reader.readFile({ path: automatic, depth: 0, optional: 'silently' }))) return result(automatic)
  return result(undefined)
}

/**
 * The configuration file of a data directory, told without a server: the one that its postmaster was started with,
 * else the one in the directory. `undefined` where there is none.
 */
export async function findConfigurationFile(options: {
  files: Files
  dataDirectory: string
}): Promise<string | undefined> {
  const { files, dataDirectory } = options
  const recorded = postmasterCommandLine(await readPostmasterOptions(files, dataDirectory))
  const configFile = recorded.settings.get('config_file')?.value
  if (configFile !== undefined) return absolute(configFile, dataDirectory)
  const own = join(dataDirectory, 'postgresql.conf')
  if (await exists(files, own)) return own
  // Last, because a copied cluster still names the directory that it was copied from.
  const other = recorded.directory && join(absolute(recorded.directory, dataDirectory), 'postgresql.conf')
  return other && (await exists(files, other)) ? other : undefined
}

/** The text of `postmaster.opts`, empty if the data directory has none. */
export async function readPostmasterOptions(files: Files, dataDirectory: string): Promise<string> {
  const path = join(dataDirectory, 'postmaster.opts')
  try {
    return decodeBytes((await readBytes(files, path)) ?? '')
  } catch (error) {
    if (isMissing(error)) return ''
    return couldNot(`read file "${path}"`)(error)
  }
}

interface FileToRead {
  path: string
  depth: number
  callingFile?: string
  /** A file that cannot be opened is an error, unless it is optional. */
  optional?: 'with a notice' | 'silently'
}

interface Line {
  name: string
  value: string
  line: number
}

class ConfigurationReader {
  readonly list: RawSetting[] = []
  readonly errors: ErrorReport[] = []
  readonly notices: LogMessage[] = []
  readonly sources: string[] = []
  readonly #files: Files
  #filesRead = 0

  constructor(files: Files) {
    this.#files = files
  }

  /** Each of the reading methods answers whether all went well; what did not has been reported. */
  async readFile(file: FileToRead): Promise<boolean> {
    if (isBlank(file.path)) return this.#fail(`empty configuration file name: "${file.path}"`, '22023')
    if (file.depth > includeDepthMax) {
      const problem = 'maximum nesting depth exceeded'
      return this.#fail(`could not open configuration file "${file.path}": ${problem}`, '54000')
    }
    const path = absolute(file.path, dirname(file.callingFile ?? '/'))
    if (path === file.callingFile) return this.#fail(`configuration file recursion in "${path}"`, '22023')
    if (++this.#filesRead > configurationFilesMax) {
      return this.#fail(`could not open configuration file "${path}": too many configuration files`, '54000')
    }
    this.sources.push(path)
    let bytes: string | undefined
    try {
      bytes = await readBytes(this.#files, path)
    } catch (error) {
      return this.#unreadable(path, error, file.optional)
    }
    if (bytes === undefined) return this.#fail(`configuration file "${path}" is too large`, '54000')
    return this.#parse(bytes, path, file.depth)
  }

  #unreadable(path: string, error: unknown, optional: FileToRead['optional']): boolean {
    if (optional === 'silently' && isMissing(error)) return true
    if (errnoCode(error) === 'EISDIR') {
      this.errors.push({
        errmsg: `input in flex scanner failed at file "${path}" line 1`,
        errdetail: `The file could not be read: ${systemErrorText(error)}.`,
      })
      return false
    }
    if (optional === 'with a notice') {
      this.notices.push({ level: 'LOG', errmsg: `skipping missing configuration file "${path}"` })
      return true
    }
    return this.#fail(`could not open configuration file "${path}": ${systemErrorText(error)}`)
  }

  async #parse(bytes: string, path: string, depth: number): Promise<boolean> {
    const lexer = new ConfigurationLexer(bytes)
    let good = true
    let syntaxErrors = 0
    for (let token = lexer.next(); token.kind !== 'end of file'; token = lexer.next()) {
      if (token.kind === 'end of line') continue
      const parsed = parseLine(token, lexer)
      if ('name' in parsed) {
        if (!(await this.#take(parsed, path, depth))) good = false
        continue
      }
      good = this.#fail(syntaxError(parsed, path), '42601')
      if (++syntaxErrors >= syntaxErrorsMax) {
        return this.#fail(`too many syntax errors found, abandoning file "${path}"`, '54000')
      }
      for (token = parsed; token.kind !== 'end of line' && token.kind !== 'end of file'; )
        token = lexer.next()
      if (token.kind === 'end of file') break
    }
    return good
  }

  async #take(line: Line, callingFile: string, depth: number): Promise<boolean> {
    const path = line.value
    switch (settingKey(line.name)) {
      case 'include':
        return await this.readFile({ path, callingFile, depth: depth + 1 })
      case 'include_if_exists':
        return await this.readFile({ path, callingFile, depth: depth + 1, optional: 'with a notice' })
      case 'include_dir':
        return await this.#readDirectory(path, callingFile, depth + 1)
      default:
        this.list.push({
          name: line.name,
          value: line.value,
          source: 'PGC_S_FILE',
          sourcefile: callingFile,
          sourceline: line.line,
        })
        return true
    }
  }

  async #readDirectory(name: string, callingFile: string, depth: number): Promise<boolean> {
    if (isBlank(name)) return this.#fail(`empty configuration directory name: "${name}"`, '22023')
    const directory = absolute(name, dirname(callingFile))
    this.sources.push(directory)
    let names: string[]
    try {
      names = await this.#files.list(directory)
    } catch (error) {
      return this.#fail(`could not open configuration directory "${directory}": ${systemErrorText(error)}`)
    }
    const paths: string[] = []
    for (const entry of names.filter(isConfigurationFileName).toSorted(byBytes)) {
      const path = join(directory, entry)
      try {
        if ((await this.#files.stat(path)).kind !== 'directory') paths.push(path)
      } catch (error) {
        return this.#fail(`could not stat file "${path}": ${systemErrorText(error)}`)
      }
    }
    for (const path of paths) {
      if (!(await this.readFile({ path, callingFile, depth }))) return false
    }
    return true
  }

  #fail(errmsg: string, errcode?: string): false {
    this.errors.push(errcode === undefined ? { errmsg } : { errmsg, errcode })
    return false
  }
}

/** One `name [=] value` up to the end of its line, or the token that does not fit. */
function parseLine(first: Token, lexer: ConfigurationLexer): Line | Token {
  if (first.kind !== 'identifier' && first.kind !== 'qualified identifier') return first
  let value = lexer.next()
  if (value.kind === 'equals') value = lexer.next()
  if (!valueKinds.has(value.kind)) return value
  const end = lexer.next()
  if (end.kind !== 'end of line' && end.kind !== 'end of file') return end
  return {
    name: decodeBytes(first.text),
    value: decodeBytes(value.kind === 'string' ? unquote(value.text) : value.text),
    line: first.line,
  }
}

const valueKinds: ReadonlySet<Token['kind']> = new Set([
  'identifier',
  'string',
  'unquoted string',
  'integer',
  'real',
])

function syntaxError(token: Token, path: string): string {
  const message = (line: number, near: string) => `syntax error in file "${path}" line ${line}, near ${near}`
  if (token.kind === 'end of line') return message(token.line, 'end of line')
  // The server is one line short where the last line does not end. Both should send the reader to the same line.
  if (token.kind === 'end of file') return message(token.line - 1, 'end of line')
  return message(token.line, `token "${decodeBytes(token.text)}"`)
}

const readSize = 64 * 1024

/** The content, one character per byte, or `undefined` if there is too much of it. */
async function readBytes(files: Files, path: string): Promise<string | undefined> {
  await using file = await files.open(path, 'read')
  const parts: Buffer[] = []
  for (let size = 0; ; ) {
    const part = Buffer.alloc(readSize)
    const filled = await file.read(part)
    parts.push(part.subarray(0, filled))
    size += filled
    if (size > configurationFileBytesMax) return undefined
    if (filled < readSize) return Buffer.concat(parts).toString('latin1')
  }
}

async function exists(files: Files, path: string): Promise<boolean> {
  try {
    await files.stat(path)
    return true
  } catch (error) {
    // Whatever else is the matter with it, the reader shall hear about it when it is read.
    return !isMissing(error) && errnoCode(error) !== 'ENOTDIR'
  }
}

function absolute(path: string, directory: string): string {
  return isAbsolute(path) ? path : join(directory, path).replace(/(?<=.)\/+$/, '')
}

function isBlank(name: string): boolean {
  return /^[ \t\r\n]*$/.test(name)
}

/** Not hidden files, nor what editors and package managers leave behind. */
function isConfigurationFileName(name: string): boolean {
  return name.endsWith('.conf') && !name.startsWith('.')
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
