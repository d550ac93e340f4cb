// A store that is far away: hands on everything that comes, in both directions, after half of the time of a round trip. It
// runs in a process of its own, because whoever is measured shall not wait for it otherwise.
//
// Arguments: the port to lead to, and the round trip in milliseconds. Prints the port to come to.

import { createServer, connect as open, type Socket } from 'node:net'

// What is on its way at most, in one direction of one connection: the rest waits at the sender, as with TCP.
const bytesOnTheWayMax = 16 * 1024 * 1024

const [port, roundTripMs] = process.argv.slice(2).map(Number)
if (port === undefined || roundTripMs === undefined) throw new Error('usage: delay-line PORT MS')

const server = createServer({ noDelay: true, allowHalfOpen: true }, near => {
  const far = open({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  // A connection takes a round trip to be made.
  const madeAt = performance.now() + roundTripMs
  delay(near, far, madeAt)
  delay(far, near, 0)
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (typeof address === 'object') console.log(address?.port)
})
// Whoever started it holds the other end.
process.stdin.on('end', () => process.exit(0)).resume()

function delay(from: Socket, to: Socket, notBefore: number): void {
  let onTheWay = 0
  const after = (deed: () => void) => {
    const ms = Math.max(performance.now() + (roundTripMs ?? 0) / 2, notBefore) - performance.now()
    if (ms <= 0) deed()
    else setTimeout(deed, ms)
  }
  from.on('data', (bytes: Buffer) => {
    onTheWay += bytes.length
    if (onTheWay > bytesOnTheWayMax) from.pause()
    after(() => {
      to.write(bytes, () => {
        onTheWay -= bytes.length
        if (onTheWay <= bytesOnTheWayMax) from.resume()
      })
    })
  })
  from.on('end', () => after(() => to.end()))
  from.on('error', () => after(() => to.destroy()))
  from.on('close', () => after(() => to.destroySoon()))
}
