/** The five types of settings: how each is read, limited, printed and refused, in the server's words. */
import type { ErrorReport } from '../contract/error-report.ts'
import type { GucBool, GucEnum, GucInt, GucReal, GucString } from '../contract/guc.ts'
import { formatReal, parseInteger, parseReal, unitOf } from './guc-number.ts'

export type GucValue = boolean | number | string

export interface GucType<T extends GucValue> {
  parse(text: string): { value: T } | { refusal: ErrorReport }
  /** What is wrong with a value that code supplied, if anything. */
  fault(value: T): ErrorReport | undefined
  /** As messages show a value. */
  print(value: T): string
}

const invalidParameterValue = '22023'

/** What is said of a value when nobody knows better. `shown` is quoted where the type asks for it. */
export function invalidValue(name: string, shown: string, more: Partial<ErrorReport> = {}): ErrorReport {
  return {
    errmsg: `invalid value for parameter "${name}": ${shown}`,
    errcode: invalidParameterValue,
    ...more,
  }
}

const wrongType = (expected: string): ErrorReport => ({ errmsg: `The value is not ${expected}.` })

export function boolType({ name }: GucBool): GucType<boolean> {
  return {
    parse: text => {
      const value = parseBool(text)
      if (value !== undefined) return { value }
      const errmsg = `parameter "${name}" requires a Boolean value`
      return { refusal: { errmsg, errcode: invalidParameterValue } }
    },
    fault: value => (typeof value === 'boolean' ? undefined : wrongType('a Boolean')),
    print: value => (typeof value === 'boolean' ? String(Number(value)) : String(value)),
  }
}

/** Any beginning of the words that leaves no doubt, in any case, but nothing around it. */
function parseBool(text: string): boolean | undefined {
  const word = text.toLowerCase()
  if (word === '1' || word === 'on') return true
  if (word === '0' || word === 'of' || word === 'off') return false
  if (word === '') return undefined
  if ('true'.startsWith(word) || 'yes'.startsWith(word)) return true
  if ('false'.startsWith(word) || 'no'.startsWith(word)) return false
  return undefined
}

export function intType(declaration: GucInt): GucType<number> {
  const { min_value = -2_147_483_648, max_value = 2_147_483_647 } = declaration
  const type = numberType(declaration, { min_value, max_value, parse: parseInteger, print: String })
  return {
    ...type,
    fault: value => (Number.isInteger(value) ? type.fault(value) : wrongType('an integer')),
  }
}

export function realType(declaration: GucReal): GucType<number> {
  const { min_value = -Number.MAX_VALUE, max_value = Number.MAX_VALUE } = declaration
  const type = numberType(declaration, { min_value, max_value, parse: parseReal, print: formatReal })
  return {
    ...type,
    fault: value => (typeof value === 'number' ? type.fault(value) : wrongType('a number')),
  }
}

function numberType(
  { name, flags }: GucInt | GucReal,
  kind: {
    min_value: number
    max_value: number
    parse: typeof parseInteger
    print: (value: number) => string
  },
): GucType<number> {
  const { min_value, max_value, parse, print } = kind
  const unit = unitOf(flags)
  const withUnit = (value: number) => (unit === undefined ? print(value) : `${print(value)} ${unit.name}`)
  const fault = (value: number): ErrorReport | undefined => {
    if (value >= min_value && value <= max_value) return undefined
    const range = `${withUnit(min_value)} .. ${withUnit(max_value)}`
    const errmsg = `${withUnit(value)} is outside the valid range for parameter "${name}" (${range})`
    return { errmsg, errcode: invalidParameterValue }
  }
  return {
    parse: text => {
      const parsed = parse(text, unit)
      if ('hint' in parsed) {
        const errhint = parsed.hint
        return { refusal: invalidValue(name, `"${text}"`, errhint === undefined ? {} : { errhint }) }
      }
      const refusal = fault(parsed.value)
      return refusal ? { refusal } : { value: parsed.value }
    },
    fault,
    print,
  }
}

export function stringType(_declaration: GucString): GucType<string> {
  return {
    parse: value => ({ value }),
    fault: value => (typeof value === 'string' ? undefined : wrongType('a string')),
    print: value => `"${value}"`,
  }
}

export function enumType<O extends string>({ name, options }: GucEnum<O>): GucType<O> {
  const errhint = `Available values: ${options.join(', ')}.`
  return {
    parse: text => {
      const value = options.find(option => option.toLowerCase() === text.toLowerCase())
      return value === undefined ? { refusal: invalidValue(name, `"${text}"`, { errhint }) } : { value }
    },
    fault: value => (options.includes(value) ? undefined : { errmsg: errhint }),
    print: value => `"${value}"`,
  }
}
