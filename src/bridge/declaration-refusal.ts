import type { ErrorReport } from '../contract/error-report.ts'
import { encodeToServer, type SettingDeclaration } from './messages.ts'

/**
 * Why the library in the server would not take a declaration, or a prefix. It looks at everything itself, and what it
 * does not take ends the connection; so what a module may get wrong is found here, and said to its author.
 */

// The numbers of the library: src/bridge/pg/pgarchivist.c.
export const declarationsMax = 256
export const reservationsMax = 64
const declarationBytesMax = 16 * 1024
const optionsMax = 1_000
const identifierBytesMax = 63

// The other two belong to libraries that the postmaster loads.
const contexts = ['PGC_SIGHUP', 'PGC_SUSET', 'PGC_USERSET', 'PGC_INTERNAL', 'PGC_SU_BACKEND', 'PGC_BACKEND']
const units = ['BYTE', 'KB', 'MB', 'BLOCKS', 'XBLOCKS', 'MS', 'S', 'MIN'].map(unit => `GUC_UNIT_${unit}`)
const otherFlags = [
  'GUC_LIST_INPUT',
  'GUC_NO_SHOW_ALL',
  'GUC_NO_RESET_ALL',
  'GUC_NOT_IN_SAMPLE',
  'GUC_DISALLOW_IN_FILE',
  'GUC_SUPERUSER_ONLY',
]

export function declarationRefusal(declaration: SettingDeclaration): ErrorReport | undefined {
  const { name } = declaration
  const errdetail = faultOf(declaration)
  if (errdetail === undefined) return undefined
  return { errmsg: `parameter "${cut(name)}" cannot be declared`, errdetail, errcode: '22023' }
}

export function prefixRefusal(prefix: unknown): ErrorReport | undefined {
  if (typeof prefix === 'string' && isIdentifier(prefix)) return undefined
  return {
    errmsg: `prefix "${cut(String(prefix))}" cannot be reserved`,
    errdetail: `It is not a simple identifier of at most ${identifierBytesMax} bytes.`,
    errcode: '22023',
  }
}

function faultOf(declaration: SettingDeclaration): string | undefined {
  const { name, kind, context, flags, bootValue, min, max, options } = declaration
  const parts = name.split('.')
  if (parts.length !== 2 || !parts.every(isIdentifier)) {
    return `The name is not two simple identifiers of at most ${identifierBytesMax} bytes, separated by a dot.`
  }
  if (!contexts.includes(context)) return `There is no context "${cut(context)}" for it.`
  const unknown = flags.find(flag => !units.includes(flag) && !otherFlags.includes(flag))
  if (unknown !== undefined) return `There is no flag "${cut(unknown)}" for it.`
  if (flags.filter(flag => units.includes(flag)).length > 1) return 'It has more than one unit.'
  if (kind === 'int' && ![min, max, bootValue].every(isInt32))
    return 'Its limits are not integers of 32 bits.'
  if (kind === 'real' && ![min, max, bootValue].every(isFinite)) return 'Its limits are not finite numbers.'
  if (kind === 'enum' && (options.length === 0 || options.length > optionsMax)) {
    return `It has ${options.length} options, not 1 to ${optionsMax}.`
  }
  const bytes = encodedBytes(declaration)
  if (bytes <= declarationBytesMax) return undefined
  return `The declaration takes ${bytes} bytes, more than ${declarationBytesMax}.`
}

/** By the server's rule for what stands in a configuration file. */
function isIdentifier(text: string): boolean {
  return (
    /^[A-Za-z_\u0080-\u{10ffff}][\w$\u0080-\u{10ffff}]*$/u.test(text) &&
    byteLength(text) <= identifierBytesMax
  )
}

const isInt32 = (text: string) => /^-?\d+$/.test(text) && Number(text) === (Number(text) | 0)
const isFinite = (text: string) => text.trim() !== '' && Number.isFinite(Number(text))
const byteLength = (text: string) => new TextEncoder().encode(text).length

function encodedBytes(declaration: SettingDeclaration): number {
  const texts = [declaration.bootValue, ...declaration.options].reduce((sum, text) => sum + text.length, 0)
  // What is longer than a frame cannot even be encoded.
  return texts > declarationBytesMax ? texts : encodeToServer({ type: 'declare', ...declaration }).length
}

/** For a message about it, which shall not become too long for the same reason. */
const cut = (text: string) => (text.length > 200 ? `${text.slice(0, 200)}…` : text)
