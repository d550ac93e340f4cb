import type { Log } from '../contract/error-report.ts'
import type {
  GucBool,
  GucDeclaration,
  GucEnum,
  GucInt,
  GucReal,
  GucString,
  GucVariable,
} from '../contract/guc.ts'
import { GucRegistry } from '../host/guc-registry.ts'
import type { SettingDeclaration, ToServer } from './messages.ts'

const int32Min = '-2147483648'
const int32Max = '2147483647'

/**
 * The settings of a module that runs for a real server. Values are parsed and checked here, as without one. Each
 * declaration goes to the server too, which makes a real setting of it and says itself what it refuses then; so what is
 * said here at that moment is only what it cannot know, the refusal of a check hook.
 */
export class DeclaringGucRegistry extends GucRegistry {
  readonly #send: (message: ToServer) => void
  readonly #filter: RefusalFilter

  constructor({ log, send }: { log: Log; send: (message: ToServer) => void }) {
    const filter = new RefusalFilter(log)
    super({ log: filter.log })
    this.#send = send
    this.#filter = filter
  }

  override defineBool(declaration: GucBool): GucVariable<boolean> {
    this.#declare('bool', declaration)
    return this.#filter.define(declaration, watched => super.defineBool(watched))
  }

  override defineInt(declaration: GucInt): GucVariable<number> {
    const { min_value = int32Min, max_value = int32Max } = declaration
    this.#declare('int', declaration, { min: String(min_value), max: String(max_value) })
    return this.#filter.define(declaration, watched => super.defineInt(watched))
  }

  override defineReal(declaration: GucReal): GucVariable<number> {
    const { min_value = -Number.MAX_VALUE, max_value = Number.MAX_VALUE } = declaration
    this.#declare('real', declaration, { min: String(min_value), max: String(max_value) })
    return this.#filter.define(declaration, watched => super.defineReal(watched))
  }

  override defineString(declaration: GucString): GucVariable<string> {
    this.#declare('string', declaration)
    return this.#filter.define(declaration, watched => super.defineString(watched))
  }

  override defineEnum<const O extends string>(declaration: GucEnum<O>): GucVariable<O> {
    this.#declare('enum', declaration, { options: declaration.options })
    return this.#filter.define(declaration, watched => super.defineEnum(watched))
  }

  override markPrefixReserved(prefix: string): void {
    this.#filter.quietly(() => super.markPrefixReserved(prefix))
    this.#send({ type: 'reserve', prefix })
  }

  #declare<T>(
    kind: SettingDeclaration['kind'],
    declaration: GucDeclaration<T>,
    more: Partial<SettingDeclaration> = {},
  ): void {
    const { name, short_desc, long_desc = '', boot_value, context = 'PGC_SIGHUP', flags = [] } = declaration
    this.#send({
      type: 'declare',
      kind,
      name,
      shortDesc: short_desc,
      longDesc: long_desc,
      context,
      flags,
      bootValue: String(boot_value),
      min: '',
      max: '',
      options: [],
      ...more,
    })
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
