/** Numbers as they are written in settings: what C's strtol and strtod accept, and units of memory and time. */
import type { GucFlag, GucUnit } from '../contract/guc.ts'

/** A number, or why it is none; where there is more to say than that, a hint. */
export type ParsedNumber = { value: number } | { hint: string | undefined }

const integerMin = -2_147_483_648
const integerMax = 2_147_483_647

// From large to small, because a fraction is rounded to the next smaller unit.
const memoryUnits = new Map([
  ['TB', 1024 ** 4],
  ['GB', 1024 ** 3],
  ['MB', 1024 ** 2],
  ['kB', 1024],
  ['B', 1],
])
const timeUnits = new Map([
  ['d', 86_400_000_000],
  ['h', 3_600_000_000],
  ['min', 60_000_000],
  ['s', 1_000_000],
  ['ms', 1_000],
  ['us', 1],
])
const memoryUnitsHint = 'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".'
const timeUnitsHint = 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".'

interface BaseUnit {
  /** As range errors print it. */
  name: string
  size: number
  units: ReadonlyMap<string, number>
  hint: string
}

const memory = { units: memoryUnits, hint: memoryUnitsHint }
const time = { units: timeUnits, hint: timeUnitsHint }
const baseUnits: Readonly<Record<GucUnit, BaseUnit>> = {
  GUC_UNIT_BYTE: { name: 'B', size: 1, ...memory },
  GUC_UNIT_KB: { name: 'kB', size: 1024, ...memory },
  GUC_UNIT_MB: { name: 'MB', size: 1024 ** 2, ...memory },
  // Pages of data and of WAL have 8 kB unless somebody built a server with others.
  GUC_UNIT_BLOCKS: { name: '8kB', size: 8192, ...memory },
  GUC_UNIT_XBLOCKS: { name: '8kB', size: 8192, ...memory },
  GUC_UNIT_MS: { name: 'ms', size: 1_000, ...time },
  GUC_UNIT_S: { name: 's', size: 1_000_000, ...time },
  GUC_UNIT_MIN: { name: 'min', size: 60_000_000, ...time },
}

/** The unit among a declaration's flags. */
export function unitOf(flags: readonly GucFlag[] | undefined): BaseUnit | undefined {
  const unit = flags?.find(isUnit)
  return unit && baseUnits[unit]
}

function isUnit(flag: GucFlag): flag is GucUnit {
  return Object.hasOwn(baseUnits, flag)
}

/** Rounds to the nearest integer after the unit is applied. */
export function parseInteger(text: string, unit: BaseUnit | undefined): ParsedNumber {
  const number = readInteger(text)
  if (number === undefined) return { hint: undefined }
  const parsed = applyUnit(number, text, unit)
  if ('hint' in parsed) return parsed
  const value = roundToEven(parsed.value)
  if (value < integerMin || value > integerMax) return { hint: 'Value exceeds integer range.' }
  return { value: value + 0 } // not -0
}

export function parseReal(text: string, unit: BaseUnit | undefined): ParsedNumber {
  const number = readReal(text)
  return number ? applyUnit(number, text, unit) : { hint: undefined }
}

interface NumberRead {
  value: number
  /** Where in the text the number ends. */
  end: number
}

const space = '[ \\t\\n\\v\\f\\r]*'
const integerPattern = new RegExp(`^${space}([-+]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))`)
const realPattern = new RegExp(
  `^${space}([-+]?)(?:` +
    '0[xX](?=\\.?[0-9a-fA-F])([0-9a-fA-F]*)(?:\\.([0-9a-fA-F]*))?(?:[pP]([-+]?[0-9]+))?' +
    '|((?=\\.?[0-9])[0-9]*\\.?[0-9]*(?:[eE][-+]?[0-9]+)?)' +
    '|(inf(?:inity)?))',
  'i',
)

/** As `strtol` with base 0: decimal, hexadecimal or octal; and what it leaves at a point or an exponent is real. */
function readInteger(text: string): NumberRead | undefined {
  const match = integerPattern.exec(text)
  // `strtol` stops before ".5", but not before "-.5", where it has seen no number at all.
  if (match === null) return text.startsWith('.') ? readReal(text) : undefined
  const [all, sign, hexadecimal, octal, decimal] = match
  if (/^[.eE]/.test(text.slice(all.length))) return readReal(text)
  const digits = hexadecimal ? `0x${hexadecimal}` : octal ? `0o0${octal}` : (decimal ?? '')
  const value = Number(digits)
  if (!Number.isFinite(value)) return undefined
  return { value: sign === '-' ? -value : value, end: all.length }
}

/** As `strtod`. Too large and too small to be told from zero is no number; not-a-number is none either. */
function readReal(text: string): NumberRead | undefined {
  const match = realPattern.exec(text)
  if (match === null) return undefined
  const [all, sign, whole, fraction, exponent, decimal] = match
  let value = Number.POSITIVE_INFINITY
  if (decimal !== undefined) {
    value = Number(decimal)
    if (outOfRange(value, /^[0.]*(?:e|$)/i.test(decimal))) return undefined
  } else if (whole !== undefined) {
    const digits = `${whole}${fraction ?? ''}`
    value = Number(`0x${digits}`) * 2 ** (Number(exponent ?? 0) - 4 * (fraction ?? '').length)
    if (outOfRange(value, /^0*$/.test(digits))) return undefined
  }
  return { value: sign === '-' ? -value : value, end: all.length }
}

const smallestNormal = 2 ** -1022

function outOfRange(value: number, zero: boolean): boolean {
  return !Number.isFinite(value) || (!zero && value < smallestNormal)
}

function applyUnit(number: NumberRead, text: string, base: BaseUnit | undefined): ParsedNumber {
  const written = /^[ \t\n\v\f\r]*(.*?)[ \t\n\v\f\r]*$/s.exec(text.slice(number.end))?.[1] ?? ''
  if (written === '') return { value: number.value }
  if (base === undefined) return { hint: undefined }
  const size = base.units.get(written)
  if (size === undefined) return { hint: base.hint }
  const value = number.value * (size / base.size)
  const smaller = [...base.units.values()].find(other => other < size)
  if (smaller === undefined) return { value }
  const step = smaller / base.size
  return { value: roundToEven(value / step) * step }
}

/** C's `rint`: halves go to the even neighbour. */
function roundToEven(value: number): number {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}

/** C's `%g`. */
export function formatReal(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  if (Object.is(value, -0)) return '-0'
  const [, digits = '', exponent] = /^(-?[\d.]+)(?:e([-+]\d+))?$/.exec(value.toExponential(5)) ?? []
  const power = Number(exponent)
  if (power < -4 || power >= 6) {
    return `${withoutZeros(digits)}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  }
  return withoutZeros(value.toFixed(5 - power))
}

function withoutZeros(digits: string): string {
  return digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits
}
