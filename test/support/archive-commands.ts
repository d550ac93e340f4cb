// The commands by which an archive can be read without us.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

let directory: Promise<string> | undefined

function commandDirectory(): Promise<string> {
  directory ??= (async () => {
    const install = join(import.meta.dirname, '../../scripts/commands/install')
    const child = spawn(install, { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(child, 'close')
    const output = (await child.stdout.setEncoding('utf8').toArray()).join('')
    const [status] = await ended
    if (status !== 0) throw new Error('zstd, age and xxhash are missing; scripts/commands/install says why')
    return output.trim()
  })()
  return directory
}

/** Runs one of them with `input` as its standard input, and returns what it printed. Throws if it failed. */
export async function runCommand(
  command: 'zstd' | 'age' | 'age-keygen' | 'xxh64sum' | 'xxh128sum',
  options: readonly string[],
  input: Uint8Array,
): Promise<Buffer> {
  const child = spawn(join(await commandDirectory(), command), options, { stdio: 'pipe' })
  const ended = once(child, 'close')
  // Who fails may do so without having read everything.
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  const [output, complaint] = await Promise.all([
    child.stdout.toArray(),
    child.stderr.setEncoding('utf8').toArray(),
  ])
  const [status] = await ended
  if (status !== 0) throw new Error(`${command} ended with status ${status}: ${complaint.join('').trim()}`)
  return Buffer.concat(output)
}
