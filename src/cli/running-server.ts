import { readFile } from 'node:fs/promises'
import { errnoCode } from '../system/system-error.ts'

/** The pid of the server that runs on a data directory, by its `postmaster.pid`; `undefined` when none does. */
export async function runningServerPid(dataDirectory: string): Promise<number | undefined> {
  const text = await readFile(`${dataDirectory}/postmaster.pid`, 'utf8').catch(() => '')
  const pid = Math.abs(Number.parseInt(text.split('\n')[0] ?? '', 10)) // a standalone backend writes it negative
  return Number.isSafeInteger(pid) && pid > 0 && isAlive(pid) ? pid : undefined
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (thrown) {
    return errnoCode(thrown) === 'EPERM' // there, but of another user
  }
}
