/** Settings as text, from wherever they were written, before anybody knows their types. */
import { ReportedError } from '../contract/error-report.ts'

/** One setting as written, before anybody knows its type. */
export interface RawSetting {
  name: string
  value: string
  source: 'PGC_S_FILE' | 'PGC_S_ARGV'
  sourcefile?: string
  sourceline?: number
}

/** By lower-case name; the one that wins. Plain data, because it travels between processes and threads. */
export type Settings = ReadonlyMap<string, RawSetting>

/** Under which name a setting is kept. Only ASCII letters are folded, as in the server, whatever the locale. */
export function settingKey(name: string): string {
  return name.replace(/[A-Z]/g, letter => letter.toLowerCase())
}

/** Two or more simple identifiers separated by dots, which is what a setting of an extension is called. */
export function isCustomName(name: string): boolean {
  return /^[A-Za-z_\u0080-\u{10ffff}][\w$\u0080-\u{10ffff}]*(\.[A-Za-z_\u0080-\u{10ffff}][\w$\u0080-\u{10ffff}]*)+$/u.test(
    name,
  )
}

export const customNameDetail =
  'Custom parameter names must be two or more simple identifiers separated by dots.'

/** `name=value` as after `postgres -c`; `option` is what an error calls it. */
export function parseCommandLineSetting(text: string, option = `-c ${text}`): RawSetting {
  const equals = text.indexOf('=')
  if (equals < 0) {
    throw new ReportedError('ERROR', { errmsg: `${option} requires a value`, errcode: '42601' })
  }
  const name = text.slice(0, equals).replaceAll('-', '_')
  if (name.includes('.') && !isCustomName(name)) {
    throw new ReportedError('ERROR', {
      errmsg: `invalid configuration parameter name "${name}"`,
      errdetail: customNameDetail,
      errcode: '42602',
    })
  }
  return { name, value: text.slice(equals + 1), source: 'PGC_S_ARGV' }
}

/** Puts settings in the order in which they count: of several with one name the last one wins and says where. */
export function settingsOf(list: Iterable<RawSetting>): Settings {
  const settings = new Map<string, RawSetting>()
  for (const setting of list) {
    const key = settingKey(setting.name)
    settings.delete(key)
    settings.set(key, setting)
  }
  return settings
}

/** Files and command line together: what is given on the command line cannot be overridden by a file. */
export function mergeSettings(fromFiles: Settings, fromCommandLine: Settings): Settings {
  return settingsOf([...fromFiles.values(), ...fromCommandLine.values()])
}
