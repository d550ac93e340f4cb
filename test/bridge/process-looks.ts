import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'

interface Look {
  descriptors: number
  kilobytes: number
}

/** What a process has open and how much memory it has, at several times of its life. */
export class ProcessLooks {
  readonly #name: string
  readonly #looks: Look[] = []

  constructor(name: string) {
    this.#name = name
  }

  /** Does nothing when the process has ended meanwhile. */
  async look(pid: number): Promise<void> {
    try {
      const descriptors = (await readdir(`/proc/${pid}/fd`)).length
      // Without the memory that all processes of the server share, which comes in as it is touched.
      const kilobytes = Number(
        /^RssAnon:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))?.[1],
      )
      if (kilobytes > 0) this.#looks.push({ descriptors, kilobytes })
    } catch {
      // It has been replaced.
    }
  }

  /** Between the first third of the looks and the last one it has not grown by more. */
  isFlat(growthMaxKilobytes: number): void {
    const third = Math.ceil(this.#looks.length / 3)
    const early = median(this.#looks.slice(0, third).map(each => each.kilobytes))
    const late = median(this.#looks.slice(-third).map(each => each.kilobytes))
    assert(late - early <= growthMaxKilobytes, `${this.text}: has grown by ${late - early} kB`)
  }

  /** It never had more open than at first. To be asked of looks in peace. */
  keepsDescriptors(): void {
    const [first] = this.#looks
    for (const { descriptors } of this.#looks) assert.equal(descriptors, first?.descriptors, this.text)
  }

  get text(): string {
    const descriptors = rangeOf(this.#looks.map(each => each.descriptors))
    const looks = this.#looks.map(each => each.kilobytes)
    return `${this.#name}: ${this.#looks.length} looks, ${descriptors} descriptors, ${kilobytesText(looks)}`
  }
}

/** A few of many, from the first to the last. */
function kilobytesText(kilobytes: number[]): string {
  const shownMax = 12
  const step = Math.max(1, (kilobytes.length - 1) / (shownMax - 1))
  const shown: number[] = []
  for (let at = 0; Math.round(at) < kilobytes.length; at += step) shown.push(kilobytes[Math.round(at)] ?? 0)
  return `${shown.join(', ')} kB (at most ${Math.max(...kilobytes)})`
}

function rangeOf(numbers: number[]): string {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)]
  return low === high ? `${low}` : `${low} to ${high}`
}

export function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0
}
