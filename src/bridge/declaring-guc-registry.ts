import { isDeepStrictEqual } from 'node:util'
import { type ErrorReport, type Log, ReportedError } from '../contract/error-report.ts'
import type {
  GucBool,
  GucDeclaration,
  GucEnum,
  GucInt,
  GucReal,
  GucString,
  GucVariable,
} from '../contract/guc.ts'
import { GucRegistry, type SettingChange } from '../host/guc-registry.ts'
import { type Settings, settingKey } from '../host/settings.ts'
import { declarationRefusal, declarationsMax, prefixRefusal, reservationsMax } from './declaration-refusal.ts'
import { replacementCharacter } from './frame.ts'
import { libraryGucs } from './library-gucs.ts'
import type { SettingDeclaration, ToServer } from './messages.ts'

const int32Min = '-2147483648'
const int32Max = '2147483647'

/** The library in the server defines settings under this prefix itself, and no others can be declared. */
const ownPrefix = 'pgarchivist'

/** A setting that the library in the server defines, for a module to declare in the same words. */
export type ServerGuc =
  | ({ type: 'bool' } & GucBool)
  | ({ type: 'int' } & GucInt)
  | ({ type: 'string' } & GucString)

/**
 * The settings of a module that runs for a real server. Values are parsed and checked here, as without one. Each
 * declaration goes to the server too, which makes a real setting of it and says itself what it refuses then; so what is
 * said here at that moment is only what it cannot know, the refusal of a check hook.
 */
export class DeclaringGucRegistry extends GucRegistry {
  readonly #log: Log
  readonly #send: (message: ToServer) => void
  readonly #filter: RefusalFilter
  /** By lower-case name. */
  readonly #inServer: ReadonlyMap<string, SettingDeclaration>
  /** Those of the library that this module has not declared, for what the server refuses of them and keeps silent about. */
  readonly #ofLibrary: GucRegistry
  readonly #declaredOfLibrary = new Set<string>()
  /** What the server has said; the library in it may be older than this end. */
  #told: Settings = new Map()
  readonly #reserved = new Set<string>()
  #declarations = 0

  constructor({ log, send, inServer }: DeclaringGucRegistryOptions) {
    const filter = new RefusalFilter(log)
    super({ log: filter.log })
    this.#log = log
    this.#send = send
    this.#filter = filter
    this.#inServer = new Map(inServer.map(each => [settingKey(each.name), settingDeclarationOf(each)]))
    this.#ofLibrary = new GucRegistry({ log })
    for (const guc of [...libraryGucs, ...inServer]) defineIn(this.#ofLibrary, guc)
  }

  override load(settings: Settings): void {
    this.#told = this.#ofModules(settings)
    this.#ofLibrary.load(this.#undeclaredOfLibrary(settings))
    super.load(this.#told)
  }

  override reload(settings: Settings): SettingChange[] {
    this.#ofLibrary.reload(this.#undeclaredOfLibrary(settings))
    const changes = super.reload(this.#ofModules(settings))
    for (const { name, value = '' } of changes) this.#warnUnlessUtf8(name, value)
    return changes
  }

  override defineBool(declaration: GucBool): GucVariable<boolean> {
    return this.#declare(boolDeclaration(declaration), () =>
      this.#filter.define(declaration, watched => super.defineBool(watched)),
    )
  }

  override defineInt(declaration: GucInt): GucVariable<number> {
    return this.#declare(intDeclaration(declaration), () =>
      this.#filter.define(declaration, watched => super.defineInt(watched)),
    )
  }

  override defineReal(declaration: GucReal): GucVariable<number> {
    return this.#declare(realDeclaration(declaration), () =>
      this.#filter.define(declaration, watched => super.defineReal(watched)),
    )
  }

  override defineString(declaration: GucString): GucVariable<string> {
    return this.#declare(stringDeclaration(declaration), () =>
      this.#filter.define(declaration, watched => super.defineString(watched)),
    )
  }

  override defineEnum<const O extends string>(declaration: GucEnum<O>): GucVariable<O> {
    return this.#declare(described('enum', declaration, { options: declaration.options }), () =>
      this.#filter.define(declaration, watched => super.defineEnum(watched)),
    )
  }

  override markPrefixReserved(prefix: string): void {
    const refusal = prefixRefusal(prefix)
    if (refusal !== undefined) throw new ReportedError('ERROR', refusal)
    this.#filter.quietly(() => super.markPrefixReserved(prefix))
    // The library has reserved its own prefix itself.
    if (settingKey(prefix) === ownPrefix || this.#reserved.has(prefix)) return
    this.#reserved.add(prefix)
    if (this.#reserved.size > reservationsMax) {
      throw new ReportedError('ERROR', {
        errmsg: `prefix "${prefix}" cannot be reserved`,
        errdetail: `A module can reserve ${reservationsMax} prefixes.`,
      })
    }
    this.#send({ type: 'reserve', prefix })
  }

  /** Those that a module can declare: what else the library has under its prefix is not for modules. */
  #ofModules(settings: Settings): Settings {
    return new Map([...settings].filter(([key]) => !isOwn(key) || this.#inServer.has(key)))
  }

  #undeclaredOfLibrary(settings: Settings): Settings {
    return new Map([...settings].filter(([key]) => isOwn(key) && !this.#declaredOfLibrary.has(key)))
  }

  /** Defines it on this end, and on the server's if that is without fault. */
  #declare<T>(declaration: SettingDeclaration, define: () => GucVariable<T>): GucVariable<T> {
    const key = settingKey(declaration.name)
    if (isOwn(key)) {
      this.#expectInServer(key, declaration)
      this.#declaredOfLibrary.add(key)
      this.#warnUnlessUtf8(declaration.name, this.#told.get(key)?.value ?? '')
      return define()
    }
    const variable = define()
    const refusal = declarationRefusal(declaration) ?? this.#excess(declaration)
    if (refusal !== undefined) throw new ReportedError('ERROR', refusal)
    this.#send({ type: 'declare', ...declaration })
    this.#warnUnlessUtf8(declaration.name, this.#told.get(key)?.value ?? '')
    return variable
  }

  /** A path in another encoding would be that of a file that does not exist. */
  #warnUnlessUtf8(name: string, value: string): void {
    if (!value.includes(replacementCharacter)) return
    this.#log({
      level: 'WARNING',
      errmsg: `the value of parameter "${name}" is not UTF-8`,
      errhint:
        'Programs in TypeScript find files only where their paths are UTF-8. A symbolic link can be such a path.',
    })
  }

  #excess({ name }: SettingDeclaration): ErrorReport | undefined {
    if (++this.#declarations <= declarationsMax) return undefined
    const errdetail = `A module can declare ${declarationsMax} parameters.`
    return { errmsg: `parameter "${name}" cannot be declared`, errdetail }
  }

  #expectInServer(key: string, declaration: SettingDeclaration): void {
    const { name } = declaration
    const known = this.#inServer.get(key)
    if (known === undefined) {
      throw new ReportedError('ERROR', {
        errmsg: `invalid configuration parameter name "${name}"`,
        errdetail: `"${ownPrefix}" is a reserved prefix.`,
        errcode: '42602',
      })
    }
    if (!isDeepStrictEqual(declaration, known)) {
      throw new ReportedError('ERROR', {
        errmsg: `attempt to redefine parameter "${name}"`,
        errcode: 'XX000',
      })
    }
    // With its default in place of what is configured, files might go elsewhere, or unencrypted.
    if (!this.#told.has(key)) {
      throw new ReportedError('ERROR', {
        errmsg: `the library in the server does not know the setting "${name}"`,
        errhint: 'It is older than the module. Run "pgarchivist install", then restart the archiver.',
        errcode: '42704',
      })
    }
  }
}

export interface DeclaringGucRegistryOptions {
  log: Log
  send: (message: ToServer) => void
  /** Settings that the library in the server defines itself. */
  inServer: readonly ServerGuc[]
}

const isOwn = (key: string): boolean => key.startsWith(`${ownPrefix}.`)

/** What the server would be told of a declaration. */
function settingDeclarationOf(guc: ServerGuc): SettingDeclaration {
  switch (guc.type) {
    case 'bool':
      return boolDeclaration(guc)
    case 'int':
      return intDeclaration(guc)
    case 'string':
      return stringDeclaration(guc)
    default:
      return guc satisfies never
  }
}

function defineIn(registry: GucRegistry, guc: ServerGuc): void {
  switch (guc.type) {
    case 'bool':
      registry.defineBool(guc)
      return
    case 'int':
      registry.defineInt(guc)
      return
    case 'string':
      registry.defineString(guc)
      return
    default:
      guc satisfies never
  }
}

const boolDeclaration = (declaration: GucBool) => described('bool', declaration)
const stringDeclaration = (declaration: GucString) => described('string', declaration)

function intDeclaration(declaration: GucInt): SettingDeclaration {
  const { min_value = int32Min, max_value = int32Max } = declaration
  return described('int', declaration, { min: String(min_value), max: String(max_value) })
}

function realDeclaration(declaration: GucReal): SettingDeclaration {
  const { min_value = -Number.MAX_VALUE, max_value = Number.MAX_VALUE } = declaration
  return described('real', declaration, { min: String(min_value), max: String(max_value) })
}

function described<T>(
  kind: SettingDeclaration['kind'],
  declaration: GucDeclaration<T>,
  more: Partial<SettingDeclaration> = {},
): SettingDeclaration {
  const { name, short_desc, long_desc = '', boot_value, context = 'PGC_SIGHUP', flags = [] } = declaration
  return {
    kind,
    name,
    // A module may come without a compiler.
    shortDesc: short_desc ?? '',
    longDesc: long_desc,
    context,
    flags: [...flags],
    bootValue: String(boot_value),
    min: '',
    max: '',
    options: [],
    ...more,
  }
}

/** Lets through what a check hook refused, while the server says the rest. */
class RefusalFilter {
  readonly #log: Log
  #isQuiet = false
  #isRefusedByHook = false

  constructor(log: Log) {
    this.#log = log
  }

  readonly log: Log = message => {
    if (!this.#isQuiet || this.#isRefusedByHook) this.#log(message)
  }

  quietly<T>(work: () => T): T {
    this.#isQuiet = true
    this.#isRefusedByHook = false
    try {
      return work()
    } finally {
      this.#isQuiet = false
    }
  }

  define<T, D extends GucDeclaration<T>, R>(declaration: D, define: (declaration: D) => R): R {
    const { check_hook } = declaration
    if (check_hook === undefined) return this.quietly(() => define(declaration))
    const watched: D = {
      ...declaration,
      check_hook: (value, check) => {
        // Stays set when the hook throws, which is a refusal too.
        this.#isRefusedByHook = true
        const isAccepted = check_hook.call(declaration, value, check)
        this.#isRefusedByHook = isAccepted !== true
        return isAccepted
      },
    }
    return this.quietly(() => define(watched))
  }
}
