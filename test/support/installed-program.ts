// What the scripts directory brings for tests, found through its install scripts, which bring it where it is missing.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const found = new Map<string, Promise<string>>()

/** The path that scripts/NAME/install prints after the version. */
export function installedProgram(name: string, ...options: string[]): Promise<string> {
  const key = [name, ...options].join(' ')
  const path = found.get(key) ?? install(name, options)
  found.set(key, path)
  return path
}

async function install(name: string, options: string[]): Promise<string> {
  const script = join(import.meta.dirname, '../../scripts', name, 'install')
  const child = spawn(script, options, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'close')
  const line = (await child.stdout.setEncoding('utf8').toArray()).join('').trim()
  const [status] = await ended
  if (status !== 0) throw new Error(`scripts/${name}/install could not bring what this test needs`)
  return line.slice(line.indexOf(' ') + 1)
}
