// What processes have cost, as the kernel counts it.

import { readdir, readFile } from 'node:fs/promises'

// USER_HZ: the unit of times in /proc, the same on all architectures that Node runs on.
const clockTicksPerSecond = 100

/** CPU time of a process and of the children that it has waited for; 0 for one that has ended. */
export async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The second field is a name in parentheses that may hold anything, so fields are counted from its end.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  const [user = 0, system = 0, childrenUser = 0, childrenSystem = 0] = fields.slice(11, 15)
  return ((user + system + childrenUser + childrenSystem) * 1000) / clockTicksPerSecond
}

/** The most memory that a process has had resident so far. */
export async function peakMegabytes(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(text)?.[1] ?? Number.NaN) / 1024
}

/** Processes that a process has started and not yet waited for. */
export async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
  return text.split(' ').filter(Boolean).map(Number)
}

/** A process, all that it has started and not yet waited for, whichever of its threads it was, all that these have, and so on. */
export async function treeOf(pid: number): Promise<number[]> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => [])
  const children = threads.map(async thread => {
    const text = await readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch(() => '')
    return text.split(' ').filter(Boolean).map(Number)
  })
  const below = (await Promise.all(children)).flat().map(treeOf)
  return [pid, ...(await Promise.all(below)).flat()]
}

/** How a process shows itself in the process list. */
export async function titleOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ').trim()
}
