/** The process beside the server's archiver: `pgarchivist bridge`, started by the C end with the channel on fd 3. */
import { writeOutputDirectly } from './direct-output.ts'

// Before anything else is so much as loaded.
writeOutputDirectly()
const { serveChannel } = await import('./bridge-channel.ts')

export function runBridgeProcess(): void {
  serveChannel()
}
