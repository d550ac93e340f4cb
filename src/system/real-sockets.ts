import { createConnection, isIPv6 } from 'node:net'
import type { Sockets } from './sockets.ts'

// The other end is asked after so long a silence, and has ten seconds then.
const silenceMs = 15_000

export const realSockets: Sockets = {
  connect: (host, port, timeoutMs) =>
    new Promise((resolve, reject) => {
      const socket = createConnection({
        host,
        port,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: silenceMs,
      })
      const timer = setTimeout(() => {
        const place = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
        socket.destroy(Object.assign(new Error(`connect ETIMEDOUT ${place}`), { code: 'ETIMEDOUT' }))
      }, timeoutMs)
      socket.once('error', reject)
      socket.once('close', () => clearTimeout(timer))
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.off('error', reject)
        resolve(socket)
      })
    }),
}
