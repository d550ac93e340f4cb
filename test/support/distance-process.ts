// A store's distance, as a process of its own, because a proxy must not share the event loop of what is measured:
//   distance-process.ts HOST PORT ROUND-TRIP-MS [BYTES-PER-SECOND]
// It prints the port that stands for the store, and ends when its standard input does.

import { FaultProxy } from './fault-proxy.ts'

const [host = '127.0.0.1', port = '0', roundTripMs = '0', bytesPerSecond = 'Infinity'] = process.argv.slice(2)
const proxy = await FaultProxy.start({
  target: { host, port: Number(port) },
  speaks: 'bytes',
  roundTripMs: Number(roundTripMs),
})
proxy.bytesPerSecond = Number(bytesPerSecond)
process.stdout.write(`${proxy.port}\n`)
process.stdin.resume().once('end', () => process.exit(0))
