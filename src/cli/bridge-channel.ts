/** The thread that serves the channel to the server's archiver, in the process beside it. */
import { writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { Bridge } from '../bridge/bridge.ts'
import type { ToServer } from '../bridge/messages.ts'
import { realClock } from '../system/clock.ts'
import type { FromModuleThread } from './bridge-module-thread.ts'
import { logWriter } from './log-writer.ts'
import { siblingProgram } from './sibling-program.ts'

const channelFd = 3

export function serveChannel(): void {
  process.title = 'pgarchivist: module'
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  volunteerForOutOfMemory()

  const stderr = logWriter({ format: 'text', minLevel: () => 'WARNING' })
  const exit = (status: 0 | 1): void => process.exit(status)

  const socket = new Socket({ fd: channelFd })
  // What the thread prints it writes itself.
  const thread = new Worker(siblingProgram('bridge-module-thread'), { stdout: true, stderr: true })
  let whenAlive: (() => void)[] = []

  const bridge = new Bridge({
    clock: realClock,
    channel: { write: bytes => socket.write(bytes), unsentBytes: () => socket.writableLength },
    moduleThread: {
      post: message => thread.postMessage(message),
      isAlive: () =>
        new Promise(resolve => {
          whenAlive.push(resolve)
          thread.postMessage({ type: 'ping' })
        }),
    },
    stderr,
    residentBytes: () => process.memoryUsage.rss(),
    exit,
  })

  socket.on('data', bytes => bridge.receive(bytes))
  socket.on('end', () => exit(0)) // the archiver has ended
  socket.on('error', () => exit(1))

  const endWith = (status: 0 | 1): void => {
    // What has been said is on its way before the end is seen.
    bridge.end()
    socket.end(() => exit(status))
  }
  thread.on('message', (message: FromModuleThread) => {
    if (message.type === 'alive') {
      for (const resolve of whenAlive) resolve()
      whenAlive = []
    } else if (message.type === 'end') endWith(message.status)
    else bridge.forward(message satisfies ToServer)
  })
  thread.on('error', error => {
    bridge.say({ level: 'FATAL', errmsg: error.message })
  })
  thread.on('exit', status => {
    const errmsg = `archive module ended its thread with status ${status}`
    bridge.say({ level: 'WARNING', errmsg })
    endWith(1)
  })
  void bridge.watchMemory()
}

/** When memory runs out, the kernel shall end this process rather than one of the server's. */
function volunteerForOutOfMemory(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '1000')
  } catch {
    // Not Linux, or no /proc here. The server's own setting then counts for both.
  }
}
