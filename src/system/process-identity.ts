import type { Files } from './files.ts'

/** A process of this machine, told from every other one since it was started and before. */
export interface ProcessIdentity {
  /** Of the start of the machine. */
  boot: string
  pid: number
  /** When it was started, in ticks since then. */
  start: string
}

/** Which start of the machine this is; `undefined` where the system does not tell. */
export async function bootId(files: Files): Promise<string | undefined> {
  const text = await files.readText('/proc/sys/kernel/random/boot_id').catch(() => '')
  return text.trim() || undefined
}

/** `undefined` when it does not run, or nobody can tell. */
export async function identityOf(files: Files, pid: number): Promise<ProcessIdentity | undefined> {
  const boot = await bootId(files)
  const text = await files.readText(`/proc/${pid}/stat`).catch(() => '')
  // The name is between parentheses, and may hold some itself.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state] = fields
  const start = fields[19]
  const isRunning = start !== undefined && state !== 'Z' && state !== 'X'
  return boot !== undefined && isRunning ? { boot, pid, start } : undefined
}

export async function isRunning(files: Files, identity: ProcessIdentity): Promise<boolean> {
  const now = await identityOf(files, identity.pid)
  return now !== undefined && now.start === identity.start && now.boot === identity.boot
}

export function printIdentity({ boot, pid, start }: ProcessIdentity): string {
  return `${boot} ${pid} ${start}`
}

export function parseIdentity(text: string): ProcessIdentity | undefined {
  const match = /^(\S+) (\d+) (\d+)(?: |$)/.exec(text)
  return match === null ? undefined : { boot: match[1] ?? '', pid: Number(match[2]), start: match[3] ?? '' }
}
