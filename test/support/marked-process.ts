import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { identityOf } from '../../src/system/process-identity.ts'
import { ownMark, type ProcessMark } from '../../src/system/process-mark.ts'
import { realFiles } from '../../src/system/real-files.ts'

/** A process that does nothing until it is ended, and what tells it from others. */
export async function markedProcess(more: Partial<ProcessMark> = {}) {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' })
  await once(child, 'spawn')
  const [own, identity] = [await ownMark(realFiles), await identityOf(realFiles, child.pid ?? 0)]
  assert.ok(own && identity)
  const end = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  return {
    mark: { ...own, pid: identity.pid, start: identity.start, ...more },
    end,
    [Symbol.asyncDispose]: end,
  }
}
