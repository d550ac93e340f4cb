import type { Statistics } from './contestant.ts'
import type { Observation } from './stage.ts'

type Part = Exclude<keyof Observation, 'statistics'>

/** How what the server shows becomes what we show; what is not said here is equal. */
export type Change =
  /** Their line, as we have it. */
  | { kind: 'reads'; theirs: RegExp; ours: string }
  /** A line that one of us has and the other one has not. */
  | { kind: 'only theirs' | 'only ours'; part: Part; line: RegExp }
  /** The same lines again and again, in a number that means nothing. */
  | { kind: 'repeats' }
  | { kind: 'counts differ'; statistics: Array<keyof Statistics> }

export interface Difference {
  /** The heading under which docs/differences.md gives the reason. */
  title: string
  /** Everywhere where they are not given. */
  majors?: number[]
  scenes?: string[]
  changes: Change[]
}

/**
 * Tells in which lines two observations of one scene differ, apart from the listed differences, and which of those
 * that are listed for this scene were not there; `used` is told the titles of those that were.
 */
export function unlisted(
  theirs: Observation,
  ours: Observation,
  differences: Difference[],
  used: (title: string) => void,
): string[] {
  let [their, our] = [theirs, ours]
  const missing: string[] = []
  for (const { title, scenes, changes } of differences) {
    for (const change of changes) {
      const [theirNext, ourNext] = applied(change, their, our)
      if (!isEqual(their, theirNext) || !isEqual(our, ourNext)) used(title)
      else if (scenes !== undefined && 'part' in change) missing.push(`not seen: ${title}, ${change.line}`)
      else if (scenes !== undefined && 'theirs' in change)
        missing.push(`not seen: ${title}, ${change.theirs}`)
      their = theirNext
      our = ourNext
    }
  }
  const names = Object.keys(our) as Array<keyof Observation>
  const lines = names
    .filter(name => !isEqual(their[name], our[name]))
    .flatMap(name => [`${name}:`, ...changedLines(linesOf(their[name]), linesOf(our[name]))])
  return [...missing, ...lines]
}

function applied(change: Change, theirs: Observation, ours: Observation): [Observation, Observation] {
  switch (change.kind) {
    case 'reads': {
      const rewrite = (line: string) => line.replace(change.theirs, change.ours)
      return [{ ...theirs, archiver: theirs.archiver.map(rewrite), status: theirs.status.map(rewrite) }, ours]
    }
    case 'only theirs':
      return [without(theirs, change.part, change.line), ours]
    case 'only ours':
      return [theirs, without(ours, change.part, change.line)]
    case 'repeats':
      return [
        { ...theirs, archiver: [...new Set(theirs.archiver)] },
        { ...ours, archiver: [...new Set(ours.archiver)] },
      ]
    case 'counts differ': {
      const equal = Object.fromEntries(change.statistics.map(name => [name, ours.statistics[name]]))
      return [{ ...theirs, statistics: { ...theirs.statistics, ...equal } }, ours]
    }
    default:
      return change satisfies never
  }
}

function without(observation: Observation, part: Part, line: RegExp): Observation {
  return { ...observation, [part]: observation[part].filter(each => !line.test(each)) }
}

function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function linesOf(value: string[] | Observation['statistics']): string[] {
  return Array.isArray(value) ? value : Object.entries(value).map(([name, each]) => `${name} ${each}`)
}

/** `-` what only they have, `+` what only we have, without what is equal at both ends. */
function changedLines(theirs: string[], ours: string[]): string[] {
  let start = 0
  while (start < theirs.length && theirs[start] === ours[start]) start++
  let end = 0
  const shorter = Math.min(theirs.length, ours.length) - start
  while (end < shorter && theirs.at(-1 - end) === ours.at(-1 - end)) end++
  return [
    ...theirs.slice(start, theirs.length - end).map(line => `  - ${line}`),
    ...ours.slice(start, ours.length - end).map(line => `  + ${line}`),
  ]
}
