// What a benchmark is given, and what it gives.

export interface Benchmark {
  name: string
  /** Takes so long that it is run only when it is asked for by name. */
  isLong?: boolean
  run(options: BenchmarkOptions): Promise<Result>
}

export interface BenchmarkOptions {
  /** Of the PostgreSQL to compare with. */
  major: number
  /** How often everything is measured; the contestants of one round take turns. `undefined`: the benchmark's own. */
  rounds: number | undefined
  /** Of files that wait, where the benchmark has one number of them. */
  files: number | undefined
  /** Of WAL of a real server, where the benchmark is about that. */
  segments: number | undefined
  /** Aborted when the user does not want to wait any longer. */
  signal: AbortSignal
  progress: (text: string) => void
}

export interface Result {
  title: string
  /** Printed as docs/benchmarks.md has it. */
  isMarkdown?: boolean
  columns: Column[]
  rows: Row[]
  aims: Aim[]
  /** What a reader of the figures has to know, such as what could not be measured here. */
  notes: string[]
}

export interface Column {
  key: string
  heading: string
  digits: number
}

export interface Row {
  name: string
  /** Medians, by the keys of the columns; what a contestant does not have is left out. */
  values: Record<string, number>
  /** Each measurement, by the same keys. */
  samples: Record<string, number[]>
}

export interface Aim {
  text: string
  figure: string
  met: boolean
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const [low = Number.NaN, high = low] = sorted.slice(sorted.length % 2 === 1 ? middle : middle - 1)
  return sorted.length % 2 === 1 ? low : (low + high) / 2
}

/** A row with the medians of all samples, of which each has the same keys. */
export function rowOf(name: string, samples: ReadonlyArray<Record<string, number>>): Row {
  const keys = Object.keys(samples[0] ?? {})
  const byKey = Object.fromEntries(keys.map(key => [key, samples.map(each => each[key] ?? Number.NaN)]))
  const values = Object.fromEntries(keys.map(key => [key, median(byKey[key] ?? [])]))
  return { name, values, samples: byKey }
}

export function asText({ title, isMarkdown = false, columns, rows, aims, notes }: Result): string {
  const cells = [
    ['', ...columns.map(({ heading }) => heading)],
    ...rows.map(row => [row.name, ...columns.map(({ key, digits }) => numberText(row.values[key], digits))]),
  ]
  const lines = isMarkdown ? markdownLines(cells) : alignedLines(cells)
  const aimLines = aims.map(({ text, figure, met }) => `${met ? 'met' : 'MISSED'}: ${text}: ${figure}`)
  return [title, '', ...lines, '', ...aimLines, ...notes, ''].join('\n')
}

function alignedLines(cells: string[][]): string[] {
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map(row => row[column]?.length ?? 0)))
  return cells.map(row =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('   ')
      .trimEnd(),
  )
}

function markdownLines([headings = [], ...rows]: string[][]): string[] {
  const rule = headings.map((_, column) => (column === 0 ? '---' : '---:'))
  const line = (row: string[]) => `| ${row.join(' | ')} |`.replace(/^\|  /, '| ')
  return [line(headings), `|${rule.join('|')}|`, ...rows.map(line)]
}

function numberText(value: number | undefined, digits: number): string {
  if (value === undefined || Number.isNaN(value)) return '–'
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
