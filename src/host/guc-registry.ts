import {
  type ErrorReport,
  type Log,
  type LogMessage,
  ReportedError,
  reportOf,
} from '../contract/error-report.ts'
import type {
  GucBool,
  GucDeclaration,
  GucEnum,
  GucInt,
  GucReal,
  GucSource,
  GucString,
  GucVariable,
} from '../contract/guc.ts'
import {
  boolType,
  enumType,
  type GucType,
  type GucValue,
  intType,
  invalidValue,
  realType,
  stringType,
} from './guc-type.ts'
import { customNameDetail, isCustomName, type RawSetting, type Settings, settingKey } from './settings.ts'

/** `custom` settings are a module's and have a prefix; `core` ones are our own, and exist from the start. */
export type GucKind = 'custom' | 'core'

/** What a reload did to one setting. */
export interface SettingChange {
  name: string
  /** As written; `undefined` when the setting is no longer there and has its default again. */
  value: string | undefined
}

/**
 * The settings of one process, those of its module included: what guc.c does for a server.
 *
 * A setting with a prefix that nobody has declared is a placeholder: a text, kept for the module that may yet
 * declare it. Declaring it gives it a type; from then on it can refuse values. After its prefix is reserved, what
 * is not declared is a mistake and no setting at all.
 */
export class GucRegistry {
  readonly #log: Log
  readonly #variables = new Map<string, Variable>()
  // As declared, by lower-case name.
  readonly #reserved = new Map<string, string>()
  #settings: Settings = new Map()

  constructor(options: { log: Log }) {
    this.#log = options.log
  }

  /** The settings at start. */
  load(settings: Settings): void {
    this.#settings = settings
    for (const [key, setting] of settings) {
      const variable = this.#variables.get(key)
      if (variable) this.#warn(variable.accept(setting))
      else this.#warn(this.#misnamed(setting))
    }
  }

  defineBool(declaration: GucBool, kind: GucKind = 'custom'): GucVariable<boolean> {
    return this.#define(declaration, boolType(declaration), kind)
  }

  defineInt(declaration: GucInt, kind: GucKind = 'custom'): GucVariable<number> {
    return this.#define(declaration, intType(declaration), kind)
  }

  defineReal(declaration: GucReal, kind: GucKind = 'custom'): GucVariable<number> {
    return this.#define(declaration, realType(declaration), kind)
  }

  defineString(declaration: GucString, kind: GucKind = 'custom'): GucVariable<string> {
    return this.#define(declaration, stringType(declaration), kind)
  }

  defineEnum<const O extends string>(declaration: GucEnum<O>, kind: GucKind = 'custom'): GucVariable<O> {
    return this.#define(declaration, enumType(declaration), kind)
  }

  /** Placeholders with the prefix are removed, and none can come into being from now on. */
  markPrefixReserved(prefix: string): void {
    for (const [key, { name }] of this.#placeholders()) {
      if (!key.startsWith(`${settingKey(prefix)}.`)) continue
      this.#log({
        level: 'WARNING',
        errmsg: `invalid configuration parameter name "${name}", removing it`,
        errdetail: `"${prefix}" is now a reserved prefix.`,
        errcode: '42602',
      })
    }
    this.#reserved.set(settingKey(prefix), prefix)
  }

  /**
   * The settings after a SIGHUP. Returns what has changed, for the log and for whoever depends on it. A value that
   * is refused leaves the old one in place and is reported, where the server would keep silent.
   */
  reload(settings: Settings): SettingChange[] {
    const before = this.#settings
    this.#settings = settings
    const changes: SettingChange[] = []
    for (const [key, setting] of before) {
      if (settings.has(key)) continue
      const variable = this.#variables.get(key)
      if (variable ? this.#reset(variable) : this.#isPlaceholder(key, setting)) {
        changes.push({ name: setting.name, value: undefined })
      }
    }
    for (const [key, setting] of settings) {
      const variable = this.#variables.get(key)
      const changed = variable
        ? this.#change(variable, setting)
        : this.#isPlaceholder(key, setting) && before.get(key)?.value !== setting.value
      if (changed) changes.push({ name: setting.name, value: setting.value })
      if (!variable) this.#warn(this.#misnamed(setting))
    }
    return changes
  }

  /** A setting's value: typed if it is declared, text if not. */
  get(name: string): GucValue {
    const key = settingKey(name)
    const variable = this.#variables.get(key)
    if (variable) return variable.value
    const setting = this.#settings.get(key)
    if (setting && this.#isPlaceholder(key, setting)) return setting.value
    throw new ReportedError('ERROR', {
      errmsg: `unrecognized configuration parameter "${name}"`,
      errcode: '42704',
    })
  }

  /** All values as they are now, by lower-case name; plain data for other threads. */
  values(): ReadonlyMap<string, GucValue> {
    const values = new Map<string, GucValue>()
    for (const [key, { value }] of this.#placeholders()) values.set(key, value)
    for (const [key, { value }] of this.#variables) values.set(key, value)
    return values
  }

  #define<T extends GucValue>(
    declaration: GucDeclaration<T>,
    type: GucType<T>,
    kind: GucKind,
  ): GucVariable<T> {
    const { name, context, flags } = declaration
    const key = settingKey(name)
    if (kind === 'custom') {
      // FATAL, because a module that has got this far may have done more that cannot be undone.
      if (context === 'PGC_POSTMASTER') {
        throw fatal('cannot create PGC_POSTMASTER variables after startup')
      }
      if (flags?.includes('GUC_LIST_QUOTE')) {
        throw fatal('extensions cannot define GUC_LIST_QUOTE variables')
      }
    }
    if (this.#variables.has(key)) {
      throw new ReportedError('ERROR', {
        errmsg: `attempt to redefine parameter "${name}"`,
        errcode: internalError,
      })
    }
    if (kind === 'custom' && !isCustomName(name)) {
      throw new ReportedError('ERROR', invalidName(name, customNameDetail))
    }

    const placeholder = this.#settings.get(key)
    // What was removed when its prefix was reserved is gone; the next reload brings it again.
    const known = placeholder && (kind === 'core' || this.#reservedPrefix(key) === undefined)
    const variable = new TypedVariable(declaration, type)
    this.#variables.set(key, variable)
    if (known) this.#warn(variable.accept(placeholder))
    return variable
  }

  #change(variable: Variable, setting: RawSetting): boolean {
    const before = variable.value
    this.#warn(variable.accept(setting, 'reload'))
    return variable.value !== before
  }

  #reset(variable: Variable): boolean {
    const before = variable.value
    this.#warn(variable.reset())
    return variable.value !== before
  }

  *#placeholders(): Generator<[string, RawSetting]> {
    for (const [key, setting] of this.#settings) {
      if (!this.#variables.has(key) && this.#isPlaceholder(key, setting)) yield [key, setting]
    }
  }

  #isPlaceholder(key: string, setting: RawSetting): boolean {
    return isCustomName(setting.name) && this.#reservedPrefix(key) === undefined
  }

  // A name without a prefix is the server's, and whether it is one of them only the server knows.
  #misnamed({ name }: RawSetting): ErrorReport | undefined {
    if (!name.includes('.')) return undefined
    if (!isCustomName(name)) return invalidName(name, customNameDetail)
    const prefix = this.#reservedPrefix(settingKey(name))
    return prefix === undefined ? undefined : invalidName(name, `"${prefix}" is a reserved prefix.`)
  }

  #reservedPrefix(key: string): string | undefined {
    for (const [prefix, declared] of this.#reserved) {
      if (key.startsWith(`${prefix}.`)) return declared
    }
    return undefined
  }

  #warn(report: ErrorReport | undefined): void {
    if (report) this.#log({ level: 'WARNING', ...report })
  }
}

/** What the server logs of a setting that a reload has changed. */
export function settingChangeMessage({ name, value }: SettingChange): LogMessage {
  return {
    level: 'LOG',
    errmsg:
      value === undefined
        ? `parameter "${name}" removed from configuration file, reset to default`
        : `parameter "${name}" changed to "${value}"`,
  }
}

const internalError = 'XX000'
const cannotChangeNow = '55P02'

function fatal(errmsg: string): ReportedError {
  return new ReportedError('FATAL', { errmsg, errcode: internalError })
}

function invalidName(name: string, errdetail: string): ErrorReport {
  return { errmsg: `invalid configuration parameter name "${name}"`, errdetail, errcode: '42602' }
}

/** A declared setting, whatever its type. */
interface Variable extends GucVariable<GucValue> {
  /** Takes a value over, or says why not. */
  accept(setting: RawSetting, when?: 'reload'): ErrorReport | undefined
  /** Goes back to the boot value after the setting was removed from the files. */
  reset(): ErrorReport | undefined
}

class TypedVariable<T extends GucValue> implements Variable {
  readonly #declaration: GucDeclaration<T>
  readonly #type: GucType<T>
  #value: T
  // The text of the command line's value, which a reload cannot change and need not check again.
  #fixed: string | undefined

  constructor(declaration: GucDeclaration<T>, type: GucType<T>) {
    this.#declaration = declaration
    this.#type = type
    const { boot_value } = declaration
    this.#value = boot_value
    const refusal = type.fault(boot_value) ?? this.#adopt(boot_value, 'PGC_S_DEFAULT')
    if (refusal === undefined) return
    const report = fatal(`failed to initialize ${declaration.name} to ${type.print(boot_value)}`)
    throw new ReportedError('FATAL', {
      errmsg: report.errmsg,
      errdetail: refusal.errdetail ?? refusal.errmsg,
      errhint: refusal.errhint,
      errcode: report.errcode,
    })
  }

  get value(): T {
    return this.#value
  }

  accept(setting: RawSetting, when?: 'reload'): ErrorReport | undefined {
    const { name, context } = this.#declaration
    if (context === 'PGC_INTERNAL') {
      return { errmsg: `parameter "${name}" cannot be changed`, errcode: cannotChangeNow }
    }
    if (when === 'reload') {
      if (setting.source === 'PGC_S_ARGV' && setting.value === this.#fixed) return undefined
      if (isForNewSessions(context)) return undefined
    }
    const parsed = this.#type.parse(setting.value)
    if ('refusal' in parsed) return parsed.refusal
    if (when === 'reload' && context === 'PGC_POSTMASTER') {
      return parsed.value === this.#value ? undefined : this.#needsRestart()
    }
    const refusal = this.#adopt(parsed.value, setting.source)
    if (!refusal) this.#fixed = setting.source === 'PGC_S_ARGV' ? setting.value : undefined
    return refusal
  }

  reset(): ErrorReport | undefined {
    const { context, boot_value } = this.#declaration
    if (context === 'PGC_INTERNAL' || context === 'PGC_POSTMASTER') return this.#needsRestart()
    return isForNewSessions(context) ? undefined : this.#adopt(boot_value, 'PGC_S_DEFAULT')
  }

  #needsRestart(): ErrorReport {
    const { name } = this.#declaration
    return {
      errmsg: `parameter "${name}" cannot be changed without restarting the server`,
      errcode: cannotChangeNow,
    }
  }

  /** Asks the check hook, tells the assign hook, and only then takes the value. */
  #adopt(value: T, source: GucSource): ErrorReport | undefined {
    const refusal = this.#check(value, source)
    if (refusal) return refusal
    try {
      this.#declaration.assign_hook?.(value)
    } catch (thrown) {
      return this.#thrown(value, thrown)
    }
    this.#value = value
    return undefined
  }

  #check(value: T, source: GucSource): ErrorReport | undefined {
    if (!this.#declaration.check_hook) return undefined
    const said: Partial<ErrorReport> = {}
    let answer: unknown
    try {
      answer = this.#declaration.check_hook(value, {
        source,
        GUC_check_errmsg: text => void (said.errmsg = text),
        GUC_check_errdetail: text => void (said.errdetail = text),
        GUC_check_errhint: text => void (said.errhint = text),
      })
    } catch (thrown) {
      return this.#thrown(value, thrown)
    }
    if (answer === true) return undefined
    if (answer !== false) {
      // A promise would be true whatever it comes to, so a hook that is asynchronous must not pass for one that agrees.
      if (answer instanceof Promise) answer.catch(() => {})
      said.errdetail ??= 'The check hook did not return a Boolean.'
    }
    return invalidValue(this.#declaration.name, this.#type.print(value), said)
  }

  #thrown(value: T, thrown: unknown): ErrorReport {
    // FATAL and PANIC are about the process, not about this value.
    if (thrown instanceof ReportedError && thrown.level !== 'ERROR') throw thrown
    const { errmsg, errhint } = reportOf(thrown)
    return invalidValue(this.#declaration.name, this.#type.print(value), { errdetail: errmsg, errhint })
  }
}

/** Such a setting is fixed when a session begins, and the archiver is one long session. */
function isForNewSessions(context: GucDeclaration<GucValue>['context']): boolean {
  return context === 'PGC_BACKEND' || context === 'PGC_SU_BACKEND'
}
