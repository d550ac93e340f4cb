/** Settings that a module declares: the arguments of PostgreSQL's `DefineCustom…Variable`, as objects. */

/** When a setting may change. Modules are loaded after the server started, so `PGC_POSTMASTER` is refused. */
export type GucContext =
  | 'PGC_INTERNAL'
  | 'PGC_POSTMASTER'
  | 'PGC_SIGHUP'
  | 'PGC_SU_BACKEND'
  | 'PGC_BACKEND'
  | 'PGC_SUSET'
  | 'PGC_USERSET'

/** Where a value came from. */
export type GucSource = 'PGC_S_DEFAULT' | 'PGC_S_FILE' | 'PGC_S_ARGV'

/** The unit of an integer or real setting's `value`; a value in the file may carry another one ("5min", "1GB"). */
export type GucUnit =
  | 'GUC_UNIT_BYTE'
  | 'GUC_UNIT_KB'
  | 'GUC_UNIT_MB'
  | 'GUC_UNIT_BLOCKS'
  | 'GUC_UNIT_XBLOCKS'
  | 'GUC_UNIT_MS'
  | 'GUC_UNIT_S'
  | 'GUC_UNIT_MIN'

export type GucFlag =
  | GucUnit
  | 'GUC_LIST_INPUT'
  | 'GUC_LIST_QUOTE'
  | 'GUC_NO_SHOW_ALL'
  | 'GUC_NO_RESET_ALL'
  | 'GUC_NOT_IN_SAMPLE'
  | 'GUC_DISALLOW_IN_FILE'
  | 'GUC_SUPERUSER_ONLY'

/** What a check hook may say about a value that it refuses. */
export interface GucCheck {
  readonly source: GucSource
  GUC_check_errmsg(text: string): void
  GUC_check_errdetail(text: string): void
  GUC_check_errhint(text: string): void
}

export interface GucDeclaration<T> {
  /** `prefix.name`, the prefix being the module's own. */
  name: string
  /** One line, for people. */
  short_desc: string
  long_desc?: string
  /** The value when nothing else is said. */
  boot_value: T
  /** Default: `PGC_SIGHUP`, changeable by a reload. */
  context?: GucContext
  flags?: readonly GucFlag[]
  /** May refuse a value by returning `false`. Synchronous. */
  check_hook?(value: T, check: GucCheck): boolean
  /** Told each value that takes effect, the first one included. */
  assign_hook?(value: T): void
}

export type GucBool = GucDeclaration<boolean>
export type GucString = GucDeclaration<string>
export interface GucInt extends GucDeclaration<number> {
  /** Default: -2147483648, as of C's int. */
  min_value?: number
  /** Default: 2147483647. */
  max_value?: number
}
export interface GucReal extends GucDeclaration<number> {
  min_value?: number
  max_value?: number
}
export interface GucEnum<O extends string = string> extends GucDeclaration<O> {
  /** The words that are accepted, in any case. */
  options: readonly O[]
}

/** A declared setting. */
export interface GucVariable<T> {
  readonly value: T
}
