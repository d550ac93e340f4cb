import { createHash } from 'node:crypto'
import type { Files } from './files.ts'
import { identityOf } from './process-identity.ts'
import { isMissing } from './system-error.ts'

/** Which process has made a file, for others that find it, also on other machines. All of it fits into a name. */
export interface ProcessMark {
  /** For people: the name of the machine, or the start of it. */
  host: string
  /** Tells machines apart; `undefined` where the system does not tell. */
  machine: string | undefined
  /** Which start of the machine. */
  boot: string
  /** Inside of which process numbers are told apart: each container has its own. */
  pidNamespace: string
  uid: number
  pid: number
  /** When the process was started, in ticks since the machine was. */
  start: string
}

const hostLettersMax = 32
// The first one, which is of the machine itself and not of a container, has the same number in every Linux.
const pidNamespaceOfMachine = '4026531836'
const unknownMachine = '0'.repeat(16)

/** Of the process that asks; `undefined` where the system does not tell, which only Linux does. */
export async function ownMark(files: Files): Promise<ProcessMark | undefined> {
  try {
    const pid = Number.parseInt(await files.readText('/proc/self/stat'), 10)
    const [identity, namespace, self, host, machine] = await Promise.all([
      identityOf(files, pid),
      files.stat('/proc/self/ns/pid'),
      files.stat('/proc/self'),
      files.readText('/proc/sys/kernel/hostname'),
      files.readText('/etc/machine-id').catch(() => ''),
    ])
    if (identity === undefined) return undefined
    return {
      host:
        host
          .trim()
          .replaceAll(/[^A-Za-z0-9-]/g, '-')
          .slice(0, hostLettersMax) || '-',
      machine: machine.trim() === '' ? undefined : digest(`${machine.trim()}\0${host.trim()}`),
      boot: digest(identity.boot),
      pidNamespace: String(namespace.inode),
      uid: self.uid,
      pid,
      start: identity.start,
    }
  } catch {
    return undefined
  }
}

/**
 * Can that process certainly do nothing any more? On another machine, or in another container, nobody can tell. One that
 * is about to end counts as running, because a call of it may be under way.
 */
export async function isGone(files: Files, mark: ProcessMark): Promise<boolean> {
  const own = await ownMark(files)
  if (own === undefined) return false
  if (mark.boot !== own.boot) {
    const namespaces = [mark.pidNamespace, own.pidNamespace]
    // Containers may have their machine's file, or that of their image, which others have too.
    const isOfMachine = namespaces.every(each => each === pidNamespaceOfMachine)
    return isOfMachine && own.machine !== undefined && mark.machine === own.machine
  }
  if (mark.pidNamespace !== own.pidNamespace) return false
  // Processes of other users may be hidden from all but root.
  if (mark.uid !== own.uid && own.uid !== 0) return false
  try {
    const text = await files.readText(`/proc/${mark.pid}/stat`)
    const start = text.slice(text.lastIndexOf(')') + 2).split(' ')[19]
    return start !== undefined && start !== mark.start
  } catch (thrown) {
    return isMissing(thrown)
  }
}

/** Which start of which machine it was is all that is asked for, so half of a random number will do. */
function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

/** Of letters, digits, `-` and `_`. */
export function printMark({ host, machine, boot, pidNamespace, uid, pid, start }: ProcessMark): string {
  return [host, machine ?? unknownMachine, boot, pidNamespace, uid, pid, start].join('_')
}

/** What `printMark` makes, as part of a regular expression. */
export const markPattern = '[A-Za-z0-9-]{1,32}_[0-9a-f]{16}_[0-9a-f]{16}(?:_[0-9]{1,20}){4}'

/** `undefined` for what is no mark. */
export function parseMark(text: string): ProcessMark | undefined {
  if (!new RegExp(`^${markPattern}$`).test(text)) return undefined
  const [host = '', machine = '', boot = '', pidNamespace = '', uid, pid, start = ''] = text.split('_')
  return {
    host,
    machine: machine === unknownMachine ? undefined : machine,
    boot,
    pidNamespace,
    uid: Number(uid),
    pid: Number(pid),
    start,
  }
}
