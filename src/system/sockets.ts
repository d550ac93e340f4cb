import type { Socket } from 'node:net'

export type { Socket }

/** The network, as a parameter. */
export interface Sockets {
  /**
   * A TCP connection, which is told by the system when the other end is gone while nothing is sent. Rejects as the system
   * call does, and with ETIMEDOUT after `timeoutMs`.
   */
  connect(host: string, port: number, timeoutMs: number): Promise<Socket>
}
