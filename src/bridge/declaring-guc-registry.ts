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
 * The settings of a module that runs for a real server. Values are parsed and checked here, as without one, so that a
 * check hook can be asked and a refusal is a WARNING. Each declaration goes to the server too, which then knows the
 * setting as its own and validates what it is told in any other way.
 */
export class DeclaringGucRegistry extends GucRegistry {
  readonly #send: (message: ToServer) => void

  constructor({ log, send }: { log: Log; send: (message: ToServer) => void }) {
    super({ log })
    this.#send = send
  }

  override defineBool(declaration: GucBool): GucVariable<boolean> {
    this.#declare('bool', declaration)
    return super.defineBool(declaration)
  }

  override defineInt(declaration: GucInt): GucVariable<number> {
    const { min_value = int32Min, max_value = int32Max } = declaration
    this.#declare('int', declaration, { min: String(min_value), max: String(max_value) })
    return super.defineInt(declaration)
  }

  override defineReal(declaration: GucReal): GucVariable<number> {
    const { min_value = -Number.MAX_VALUE, max_value = Number.MAX_VALUE } = declaration
    this.#declare('real', declaration, { min: String(min_value), max: String(max_value) })
    return super.defineReal(declaration)
  }

  override defineString(declaration: GucString): GucVariable<string> {
    this.#declare('string', declaration)
    return super.defineString(declaration)
  }

  override defineEnum<const O extends string>(declaration: GucEnum<O>): GucVariable<O> {
    this.#declare('enum', declaration, { options: declaration.options })
    return super.defineEnum(declaration)
  }

  override markPrefixReserved(prefix: string): void {
    super.markPrefixReserved(prefix)
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
